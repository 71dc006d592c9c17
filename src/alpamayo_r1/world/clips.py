"""Writes scenes as clips in the layout of PhysicalAI-Autonomous-Vehicles, readable by the unmodified devkit physical_ai_av 0.2.3.

    features.csv, clip_index.parquet, splits/default.parquet, metadata/{feature_presence,data_collection}.parquet
    labels/egomotion/egomotion.chunk_0000.zip            100 Hz, one parquet a clip
    calibration/{camera_intrinsics,sensor_extrinsics,vehicle_dimensions}/*.chunk_0000.parquet
    camera/<camera>/<camera>.chunk_0000.zip              mp4 + timestamps.parquet a clip, stored
    world/labels.parquet                                 ours, not the devkit's: seed, family and reasoning of every clip
    world/surroundings.chunk_0000.zip                    ours too: lines on the road and boxes around the car, one parquet a clip

Clips live in chunks of at most 100. Writing into a directory that has clips adds new chunks and rewrites the small indices.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.files import own_folder
from alpamayo_r1.core.gate.values import check_real, check_whole, path_of
from alpamayo_r1.core.geometry import Calibration, FTheta
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.world.around import surroundings_table
from alpamayo_r1.world.render import render_at
from alpamayo_r1.world.richer import ALL_FAMILIES
from alpamayo_r1.world.rig import RIG, VEHICLE, resized
from alpamayo_r1.world.samples import clip_id
from alpamayo_r1.world.scene import DT, SceneBatch

MAX_SEED, MAX_CLIPS, MAX_SIDE = 2**40, 100_000, 3840
"""Bounds of what is written: seeds of scenes, clips of a folder at once, pixels of a picture's side."""

REPO_ID = "local/synthetic-pai"
"""The repository id to open these clips under: they are never NVIDIA's."""

CHUNK, FPS, GOP = 100, 30, 10
EGOMOTION_HZ = 100
_CALIBRATION = ("camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions")


def write_clips(
    seeds: Sequence[int],
    out: str | Path,
    *,
    width: int = 640,
    height: int = 360,
    seconds: float = 2.0,
    t_start: float = 4.0,
    t0: float = 5.1,
    crf: int = 23,
    supersample: int = 2,
    threads: int | None = None,
    families: Sequence[str] | None = None,
    rendered: Callable[[float], object] = lambda share: None,
) -> list[str]:
    """Simulates the seeds and writes a clip each; returns the clip ids. Seeds already in `out` are left as they are.

    The video covers [t_start, t_start + seconds] of clip time at 30 fps, the egomotion 0 s .. the end of the video + 6.4 s or more;
    t0 (seconds) is the moment of the label stored in world/labels.parquet. families: a name per seed, or None for the seed's own.
    rendered: told the share of a clip that was just rendered.

    Raises:
        ValueError: pictures that can't be encoded, or a link or a file where one of the folders has to be.
    """
    from alpamayo_r1.world.simulate import simulate

    check_size(width, height)
    for name, value, least, most in (("seconds", seconds, 0.1, 3600), ("t_start", t_start, 0, 3600), ("t0", t0, 0, 3600)):
        check_real(name, value, least, most)
    for name, value, least, most in (("crf", crf, 0, 51), ("supersample", supersample, 1, 16), ("threads", threads or 1, 1, 1024)):
        check_whole(name, value, least, most)
    out = path_of("out", out)
    for folder in _folders():
        own_folder(out / folder)
    index = _read(out / "clip_index.parquet")
    known = set() if index is None else set(index.index)
    named = dict(zip(seeds, families)) if families is not None else {}
    new = [s for s in dict.fromkeys(int(s) for s in seeds) if clip_id(s) not in known]
    first_chunk = 0 if index is None else int(index["chunk"].to_numpy().max()) + 1
    length = max(12.0, t_start + seconds)
    for number in range(0, len(new), CHUNK):
        part = new[number : number + CHUNK]
        scene = simulate(part, seconds=length, families=[named[s] for s in part] if named else None)
        _write_chunk(
            scene, out, first_chunk + number // CHUNK, width, height, seconds, t_start, round(t0 / DT), crf, supersample, threads, rendered
        )
    return [clip_id(s) for s in seeds]


def write_world(
    seed: int, clips: int, out: str | Path, *, width: int = 640, height: int = 360, family: str | None = None, **options
) -> list[str]:
    """`alpamayo-r1 world --seed N --clips M --out DIR`: the scenes of seeds N .. N+M-1, of their own families or all of one.

    Options: see write_clips. Raises ValueError for a family that there is not.
    """
    if family is not None and family not in ALL_FAMILIES:
        raise ValueError(f"family is {family!r}, expected one of {', '.join(ALL_FAMILIES)}")
    check_whole("seed", seed, 0, MAX_SEED)
    check_whole("clips", clips, 1, MAX_CLIPS)
    families = None if family is None else [family] * clips
    return write_clips(range(seed, seed + clips), out, width=width, height=height, families=families, **options)


def check_size(width: int, height: int) -> None:
    """Raises ValueError for pictures that can't be encoded."""
    for name, side in (("width", width), ("height", height)):
        check_whole(name, side, 1, MAX_SIDE)
    if width % 2 or height % 2 or width < 2 or height < 2:
        raise ValueError(f"pictures of {width} x {height} were asked for, expected even numbers: H.264 shares colours between pixels")


def _folders() -> list[str]:
    """Every folder that is written to, parents first."""
    above = ["labels", "camera", "calibration", "world", "metadata", "splits"]
    return [*above, "labels/egomotion", *(f"camera/{name}" for name in CAMERAS), *(f"calibration/{name}" for name in _CALIBRATION)]


# -------------------------------------------------------------------------------------------------------------------------- a chunk


def _write_chunk(
    scene: SceneBatch, out: Path, chunk: int, width, height, seconds, t_start, step, crf, supersample, threads, rendered
) -> None:
    """One chunk of clips: big files first, indices last, so that an interrupted run leaves a readable directory."""
    ids = [clip_id(s) for s in scene.seeds.tolist()]
    times = _frame_times(t_start, seconds)
    with _zip(out / f"labels/egomotion/egomotion.chunk_{chunk:04d}.zip") as archive:
        for row, clip in enumerate(ids):
            _store(archive, f"{clip}.egomotion.parquet", _parquet(egomotion(scene, row)))
    with _zip(out / f"world/surroundings.chunk_{chunk:04d}.zip") as archive:
        for row, clip in enumerate(ids):
            _store(archive, f"{clip}.surroundings.parquet", _parquet(surroundings_table(scene, row)))
    _write_cameras(scene, ids, times, out, chunk, width, height, crf, supersample, threads, rendered)
    for name, table in _calibration(ids, width, height).items():
        _write(table, out / f"calibration/{name}/{name}.chunk_{chunk:04d}.parquet")
    _write_indices(scene, ids, out, chunk, step)


def _frame_times(t_start: float, seconds: float) -> np.ndarray:
    """Clip times of the frames in integer microseconds, 30 fps, t_start first, t_start + seconds included."""
    count = round(seconds * FPS) + 1
    return round(t_start * 1e6) + np.round(np.arange(count) * (1e6 / FPS)).astype(np.int64)


def _write_cameras(scene, ids, times, out: Path, chunk: int, width, height, crf, supersample, threads, rendered) -> None:
    """Renders clip after clip while other threads encode."""
    clock = _parquet(pd.DataFrame({"timestamp": times, "frame_index": np.arange(len(times), dtype=np.int64)}))
    steps = torch.from_numpy(times / (DT * 1e6)).float()
    archives = {name: _zip(out / f"camera/{name}/{name}.chunk_{chunk:04d}.zip") for name in CAMERAS}
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        waiting: list[tuple[str, list]] = []

        def store(clip: str, videos: list) -> None:
            for (name, archive), video in zip(archives.items(), videos):
                _store(archive, f"{clip}.{name}.mp4", video.result())
                _store(archive, f"{clip}.{name}.timestamps.parquet", clock)

        for row, clip in enumerate(ids):
            pictures = render_clip(scene[row : row + 1], steps, width, height, supersample, rendered)
            waiting.append((clip, [pool.submit(encode, camera, crf) for camera in pictures]))
            if len(waiting) > 2:
                store(*waiting.pop(0))
        for item in waiting:
            store(*item)
    for archive in archives.values():
        archive.close()


def render_clip(
    scene: SceneBatch,
    steps: torch.Tensor,
    width: int,
    height: int,
    supersample: int,
    rendered: Callable[[float], object] = lambda share: None,
    *,
    cameras: Sequence[str] = CAMERAS,
    rig: Mapping[str, Calibration] = RIG,
) -> np.ndarray:
    """u8 (C, frames, height, width, 3) of one scene at fractional steps, a few frames at once. rendered: told the share just rendered."""
    few = max(1, 2**18 // (width * height))
    parts = []
    for part in steps.split(few):
        made = render_at(scene, part[None], width=width, height=height, cameras=cameras, rig=rig, supersample=supersample)
        parts.append(made[0].cpu())
        rendered(len(part) / len(steps))
    return torch.cat(parts, 1).permute(0, 1, 3, 4, 2).contiguous().numpy()


def encode(pictures: np.ndarray, crf: int = 23) -> bytes:
    """u8 RGB (frames, height, width, 3), even sizes -> mp4: H.264, 30 fps constant, first pts 0, time base 1/15360, key frame every 10.

    Equal pictures give equal bytes: x264's mbtree rounds by how memory happens to lie, and small pictures then differ from run to run.
    """
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = GOP
        stream.codec_context.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "keyint_min": str(GOP), "sc_threshold": "0"}
        stream.options |= {"x264-params": "mbtree=0:cpu-independent=1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def egomotion(scene: SceneBatch, row: int) -> pd.DataFrame:
    """The ego's motion at 100 Hz over the whole scene: timestamp us, rig-to-anchor pose, velocity, acceleration, curvature.

    The anchor is the rig at clip time 0. Between steps of 0.1 s the unicycle goes on under that step's acceleration a and curvature k,
    x(t) = x + integral of v cos(theta) along the arc, plus the linear share of what is left at the next step, so that every tenth row
    is scene.ego itself.
    """
    pose = scene.ego[row].double().cpu().numpy()
    speed, action = scene.speed[row].double().cpu().numpy(), scene.action[row].double().cpu().numpy()
    share = np.arange(EGOMOTION_HZ * DT) / (EGOMOTION_HZ * DT)
    t = share * DT
    v, a, k = speed[:-1, None], action[:, :1], action[:, 1:]
    arc = v * t + a * t * t / 2
    turn = k * arc
    heading = pose[:-1, 2:]
    chord = arc * np.sinc(turn / (2 * np.pi))

    def bridge(values: np.ndarray, offset: np.ndarray, end: np.ndarray) -> np.ndarray:
        """values (n+1,) + offset within the step (n, 10), closed linearly onto the next value; with the last value appended."""
        rest = np.diff(values)[:, None] - end
        return np.append((values[:-1, None] + offset + rest * share).ravel(), values[-1])

    full = v * DT + a * DT * DT / 2
    last_turn = k * full
    last_chord = full * np.sinc(last_turn / (2 * np.pi))
    x = bridge(pose[:, 0], chord * np.cos(heading + turn / 2), last_chord * np.cos(heading + last_turn / 2))
    y = bridge(pose[:, 1], chord * np.sin(heading + turn / 2), last_chord * np.sin(heading + last_turn / 2))
    yaw = bridge(np.unwrap(pose[:, 2]), turn, last_turn)
    v100 = bridge(speed, a * t, a * DT)
    a100, k100 = (np.append(np.repeat(action[:, i], len(share)), action[-1, i]) for i in (0, 1))

    c, s = np.cos(pose[0, 2]), np.sin(pose[0, 2])
    dx, dy, yaw = x - pose[0, 0], y - pose[0, 1], yaw - pose[0, 2]
    zero = np.zeros_like(x)
    forward, leftward = np.stack([np.cos(yaw), np.sin(yaw)], -1), np.stack([-np.sin(yaw), np.cos(yaw)], -1)
    pull = a100[:, None] * forward + (v100**2 * k100)[:, None] * leftward
    return pd.DataFrame(
        {
            "timestamp": np.arange(len(x), dtype=np.int64) * (1_000_000 // EGOMOTION_HZ),
            "qx": zero, "qy": zero, "qz": np.sin(yaw / 2), "qw": np.cos(yaw / 2),
            "x": c * dx + s * dy, "y": c * dy - s * dx, "z": zero,
            "vx": v100 * forward[:, 0], "vy": v100 * forward[:, 1], "vz": zero,
            "ax": pull[:, 0], "ay": pull[:, 1], "az": zero,
            "curvature": k100,
        }
    )  # fmt: skip


def _calibration(ids: Sequence[str], width: int, height: int) -> dict[str, pd.DataFrame]:
    """The three calibration tables of a chunk; all clips share the rig."""
    lenses, poses = [], []
    for name in CAMERAS:
        record = resized(RIG[name], width, height)
        lens = record.lens
        assert isinstance(lens, FTheta), "the nominal rig's lenses are f-theta"
        polynomials = {f"{way}_poly_{i}": v for way in ("bw", "fw") for i, v in enumerate(getattr(lens, way))}
        lenses.append({"width": width, "height": height, "cx": lens.cx, "cy": lens.cy, **polynomials})
        quaternion = Rotation.from_matrix(np.array(record.rot)).as_quat()
        poses.append(dict(zip(("qx", "qy", "qz", "qw", "x", "y", "z"), (*quaternion, *record.position))))

    def every(rows: list[dict], level: str) -> pd.DataFrame:
        return pd.DataFrame(rows * len(ids), index=pd.MultiIndex.from_product([ids, CAMERAS], names=["clip_id", level]))

    vehicle = pd.DataFrame([asdict(VEHICLE)] * len(ids), index=pd.Index(ids, name="clip_id"))
    return dict(zip(_CALIBRATION, (every(lenses, "camera_name"), every(poses, "sensor_name"), vehicle)))


# ------------------------------------------------------------------------------------------------------------------------- indices


def _features() -> pd.DataFrame:
    """The rows of features.csv that this directory ships."""

    def zipped(name: str, directory: str, members: dict[str, str]) -> tuple:
        return name, directory, f"{directory}/{name}/{name}.chunk_{{chunk_id:04d}}.zip", json.dumps(members)

    rows = [zipped("egomotion", "labels", {"egomotion": "{clip_id}.egomotion.parquet"})]
    rows += [(n, "calibration", f"calibration/{n}/{n}.chunk_{{chunk_id:04d}}.parquet", None) for n in _CALIBRATION]
    for name in CAMERAS:
        stem = f"{{clip_id}}.{name}"
        rows.append(zipped(name, "camera", {"video": f"{stem}.mp4", "frame_timestamps": f"{stem}.timestamps.parquet"}))
    return pd.DataFrame(rows, columns=["feature", "directory", "chunk_path", "clip_files_in_zip"])


def _write_indices(scene: SceneBatch, ids: Sequence[str], out: Path, chunk: int, step: int) -> None:
    """Adds the clips to the indices; clip_index.parquet, which makes them visible, comes last."""
    index = pd.Index(ids, name="clip_id")
    features = _features()
    features.to_csv(_fresh(out / "features.csv"), index=False, lineterminator="\n", encoding="utf-8")
    presence = pd.DataFrame(True, index=index, columns=list(features["feature"]))
    collection = pd.DataFrame(
        {"country": "synthetic", "month": 1, "hour_of_day": 12, "platform_class": "synthetic", "radar_config": None}, index=index
    )
    _extend(_labels(scene, index, step), out / "world/labels.parquet")
    _extend(presence, out / "metadata/feature_presence.parquet")
    _extend(collection, out / "metadata/data_collection.parquet")
    _extend(pd.DataFrame({"split": "test"}, index=index), out / "splits/default.parquet")
    _extend(pd.DataFrame({"clip_is_valid": True, "chunk": chunk, "split": "test"}, index=index), out / "clip_index.parquet")


def _labels(scene: SceneBatch, index: pd.Index, step: int) -> pd.DataFrame:
    """clip_id -> seed, t0_us and the fields of language.Label at t0; at junctions with a route also what a navigator says then."""
    from alpamayo_r1.world.language import labels
    from alpamayo_r1.world.navigation import navigation

    told = pd.DataFrame([vars(label) for label in labels(scene, step)], index=index)
    if bool((scene.route > 0).any()):
        told["navigation"] = navigation(scene, step, 0)
    return pd.DataFrame({"seed": scene.seeds.numpy(), "t0_us": step * round(DT * 1e6)}, index=index).join(told)


# --------------------------------------------------------------------------------------------------------------------------- files


def _zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(_fresh(path), "w", zipfile.ZIP_STORED)


def _fresh(path: Path) -> Path:
    """A path where nothing is: a link in its place is removed, never written through."""
    path.unlink(missing_ok=True)
    return path


def _store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a member without the time of day, so that equal clips are equal archives, on every system."""
    member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    member.create_system, member.external_attr = 3, 0o644 << 16
    archive.writestr(member, content)


def _parquet(table: pd.DataFrame) -> bytes:
    return table.to_parquet()


def _read(path: Path) -> pd.DataFrame | None:
    return pd.read_parquet(path) if path.exists() else None


def _write(table: pd.DataFrame, path: Path) -> None:
    """Writes beside the file and renames, so that a reader never sees half of it."""
    beside = _fresh(path.with_suffix(".part"))
    table.to_parquet(beside)
    beside.replace(path)


def _extend(table: pd.DataFrame, path: Path) -> None:
    """Appends rows to a parquet table, replacing rows of the same clip."""
    old = _read(path)
    _write(table if old is None else pd.concat([old.drop(index=old.index.intersection(table.index)), table]), path)
