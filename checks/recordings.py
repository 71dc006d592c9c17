"""How often `alpamayo-r1 inspect` names a planted fault, and how often it alarms on a clean recording.

    python checks/recordings.py --recordings 20 --clean 200 --workers 2 --keep worlds

Every recording is our world driven with another car, drawn from its seed: lenses, mountings, rates, clocks and the noise of its GPS. Into
copies of some of them each of the faults is planted; scenes in which the car hardly moves or never turns are left out of these (not of the
clean ones): nothing can be told from them. Rendering takes most of the time: --keep holds the recordings for the next run. Prints a row per
fault, the clean ones' alarms, and exits with 1 below 95 % or 98 %.
"""

from __future__ import annotations

import _head

import argparse
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.inspect import cameras as cameras_of
from alpamayo_r1.inspect.check import inspect
from alpamayo_r1.inspect.findings import WRONG
from alpamayo_r1.inspect.motion import Ground, Motion, motion_of
from alpamayo_r1.rig.lenses import Pinhole, Radial, fisheye
from alpamayo_r1.rig.nominal import facing
from alpamayo_r1.world.clips import encode
from alpamayo_r1.world.recordings import Car, write_recording
from alpamayo_r1.world.simulate import simulate

sys.path.append(str(Path(__file__).parent))  # where a spawned process finds _head
SIZE = {"width": 480, "height": 270}
SECONDS = 9.0
FAMILIES = ("curve", "nudge_left", "nudge_right", "curve", "parked_car")
QUATERNION = ["qx", "qy", "qz", "qw"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=20, help="recordings that get every fault")
    parser.add_argument("--clean", type=int, default=200, help="clean recordings, of all kinds of scenes")
    parser.add_argument("--seed", type=int, default=970_000)
    parser.add_argument("--only", default="", help="plant only faults whose name holds this")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--keep", type=Path, help="folder in which the recordings stay")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    named: dict[str, int] = {name: 0 for name in FAULTS if given.only in name}
    misses, alarms, began = list[str](), list[str](), time.perf_counter()
    with tempfile.TemporaryDirectory() as aside, ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        keep = given.keep or Path(aside)
        keep.mkdir(parents=True, exist_ok=True)
        work = [pool.submit(planted, seed, keep, given.only) for seed in lively(given.recordings, given.seed)]
        clean = [pool.submit(cleaned, given.seed + 10_000 + n, keep) for n in range(given.clean)]
        for one in work:
            for name, found in one.result().items():
                named[name] += found == ""
                misses += [f"{name} in {found}"] if found else []
        alarms = [found for one in clean if (found := one.result())]
    for name, hits in named.items():
        print(f"{name:<34} {hits:3} of {given.recordings}")
    print("\n".join([*misses, *(f"alarm: {alarm}" for alarm in alarms)]))
    share = sum(named.values()) / max(given.recordings * len(named), 1)
    quiet = 1 - len(alarms) / max(given.clean, 1)
    print(f"named: {100 * share:.1f} % of {given.recordings * len(named)}; no alarm: {100 * quiet:.1f} % of {given.clean}", end="; ")
    print(f"{time.perf_counter() - began:.0f} s")
    if given.out:
        figures = {"named": named, "recordings": given.recordings, "share": share, "misses": misses, "clean": given.clean, "alarms": alarms}
        given.out.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(share < 0.95 or quiet < 0.98)


def planted(seed: int, keep: Path, only: str) -> dict[str, str]:
    """Fault -> "" where it was named, else the seed and what was found instead."""
    results, began = {}, time.perf_counter()
    cameras_of.motion_of = Shared(motion_of)
    folder = written(seed, keep, FAMILIES[seed % len(FAMILIES)])
    with tempfile.TemporaryDirectory() as aside:
        for name, (expected, plant) in FAULTS.items():
            if only in name:
                copy = Path(aside) / "planted"
                shutil.copytree(folder, copy)
                plant(copy)
                found = [f for f in inspect(copy).findings if f.verdict == WRONG]
                hit = any(set(f.faults) & set(expected) for f in found)
                results[name] = "" if hit else f"{seed}: {[(f.item, f.faults) for f in found]}"
                shutil.rmtree(copy)
    missed = [f"{name} in {found}" for name, found in results.items() if found]
    print(f"{seed}: {len(missed)} of {len(results)} missed, {time.perf_counter() - began:.0f} s", *missed, sep="\n    ", flush=True)
    return results


class Shared:
    """motion_of, once for the same pictures: most faults are of the poses."""

    def __init__(self, work: Callable[..., Motion]):
        self.work, self.known = work, dict[bytes, Motion]()

    def __call__(self, ground: Ground, first: torch.Tensor, second: torch.Tensor, moving: np.ndarray) -> Motion:
        given = (ground.grid, ground.strip, first, second, torch.from_numpy(moving))
        key = hashlib.sha1(b"".join(hashlib.sha1(part.contiguous().numpy()).digest() for part in given)).digest()
        if key not in self.known:
            self.known[key] = self.work(ground, first, second, moving)
        return self.known[key]


def cleaned(seed: int, keep: Path) -> str:
    """What a clean recording is blamed for; nothing, as it should be."""
    found = [f"{f.item} {f.faults}: {f.seen}" for f in inspect(written(seed, keep, None)).findings if f.verdict == WRONG]
    print(f"{seed}: {'; '.join(found) or 'no alarm'}", flush=True)
    return f"{seed}: {found}" if found else ""


def lively(count: int, seed: int) -> list[int]:
    """Seeds of scenes in which the car moves, turns and changes its speed."""
    found: list[int] = []
    while len(found) < count:
        seed += 1
        scene = simulate([seed], seconds=12, families=[FAMILIES[seed % len(FAMILIES)]])
        speed, yaw = scene.speed[0, 10:100].numpy(), scene.ego[0, 10:100, 2].numpy()
        if 3 < np.median(speed) < 9 and np.std(np.diff(yaw)) > 0.008:
            found.append(seed)
    return found


def car_of(seed: int) -> Car:
    """Another car: three cameras of any lens, mounted where one may hang them, its rates, clocks and noise."""
    draw = np.random.default_rng(seed)

    def camera(x: float, y: float, z: tuple[float, float], yaw: float, pitch: tuple[float, float]) -> Calibration:
        focal, off = float(draw.uniform(400, 560)), draw.uniform(-8, 8, 2).tolist()
        lens: Pinhole | Radial
        if draw.random() < 0.3:
            lens = fisheye(1280, 720, 0.85 * focal, 0.85 * focal, 640 + off[0], 360 + off[1], (0.02, -0.005, 0.001, 0.0))
        else:
            bend = tuple(float(draw.uniform(0, 1)) * k for k in (-0.08, 0.015, 0.0004, -0.0003, -0.0012))
            lens = Pinhole(1280, 720, focal, focal + float(draw.uniform(-2, 2)), 640 + off[0], 360 + off[1], bend)
        return Calibration(lens, (x, y, float(draw.uniform(*z))), facing(yaw + float(draw.uniform(-5, 5)), float(draw.uniform(*pitch))))

    rig = {
        "front": camera(1.6, 0.05, (1.2, 1.9), 0.0, (0.0, 6.0)),
        "left": camera(1.7, 0.85, (1.0, 1.6), 58.0, (1.0, 8.0)),
        "right": camera(1.7, -0.85, (1.0, 1.6), -58.0, (1.0, 8.0)),
    }
    return Car(
        rig, fps=float(draw.choice([8, 10, 12.5, 15])), pose_hz=float(draw.choice([10, 20, 50, 100])), smooth=bool(draw.random() < 0.5),
        noise=float(draw.choice([0, 0.005, 0.01])), drift=float(draw.choice([0, 0.01, 0.02])),
        camera_clock=float(draw.uniform(-0.4, 0.4)), place=(352.0, -118.0, float(draw.uniform(-math.pi, math.pi))),
    )  # fmt: skip


def written(seed: int, keep: Path, family: str | None) -> Path:
    """The recording of a scene, rendered where it isn't there yet."""
    torch.set_num_threads(1)
    folder = keep / f"{seed}-{family or 'any'}"
    if not folder.is_dir():
        scene = simulate([seed], seconds=12, families=[family] if family else None).to(_head.DEVICE)
        begun = folder.with_name(f"{folder.name}.{os.getpid()}")
        write_recording(scene, begun, car=car_of(seed), start=1.0, seconds=SECONDS, after=1.0, crf=20, supersample=1, **SIZE)
        begun.rename(folder)
    return folder


# ------------------------------------------------------------------------------------------------------------------ what is planted


def poses(change: Callable[[pd.DataFrame], None], **sections: Any) -> Callable[[Path], None]:
    """A change of the pose table, and of sections of `poses` in recording.yaml; the wheels are not logged."""

    def plant(folder: Path) -> None:
        table = pd.read_csv(folder / "poses.csv")
        change(table)
        table.to_csv(folder / "poses.csv", index=False)
        said(folder, lambda all_: (all_["poses"].update(sections), all_["poses"].pop("speed", None)))

    return plant


def said(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A change of recording.yaml."""
    values = yaml.safe_load((folder / "recording.yaml").read_text())
    change(values)
    (folder / "recording.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def cameras(change: Callable[[dict[str, Any]], None], *names: str) -> Callable[[Path], None]:
    """A change of some cameras' sections (all, if none is named)."""

    def plant(folder: Path) -> None:
        said(folder, lambda all_: [change(camera) for name, camera in all_["cameras"].items() if name in names or not names])

    return plant


def pictures(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Path], None]:
    """A change of some cameras' pictures u8[N, h, w, 3]."""

    def plant(folder: Path) -> None:
        import av

        for name in names:
            with av.open(str(folder / f"{name}.mp4")) as video:
                frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
            (folder / f"{name}.mp4").write_bytes(encode(np.ascontiguousarray(change(frames)), 18))

    return plant


def yaws(table: pd.DataFrame) -> np.ndarray:
    return Rotation.from_quat(table[QUATERNION].to_numpy()).as_euler("ZYX")[:, 0]


def orient(table: pd.DataFrame, turn: Rotation) -> None:
    table[QUATERNION] = turn.as_quat()


def ned(table: pd.DataFrame) -> None:
    swap, flip = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]), np.diag([1.0, -1, -1])
    turn = Rotation.from_quat(table[QUATERNION].to_numpy()).as_matrix()
    table[["x", "y", "z"]] = table[["x", "y", "z"]].to_numpy() @ swap.T
    orient(table, Rotation.from_matrix(swap @ turn @ flip))


def swap_axes(table: pd.DataFrame) -> None:
    table[["x", "y"]] = table[["y", "x"]].to_numpy()


def scaled(table: pd.DataFrame, columns: list[str], factor: float) -> None:
    table[columns] = table[columns] * factor


def angle(kind: str, unit: str) -> dict[str, Any]:
    return {"orientation": {"kind": kind, "columns": ["angle"], "unit": unit}}


def mounted(camera: dict[str, Any], yaw: float, pitch: float) -> None:
    mounting = camera["mounting"]
    turn = Rotation.from_quat(mounting["quaternion"]) * Rotation.from_euler("yx", [yaw, -pitch], degrees=True)
    mounting["quaternion"] = [float(v) for v in turn.as_quat()]


def inverted(camera: dict[str, Any]) -> None:
    turn = Rotation.from_quat(camera["mounting"]["quaternion"]).inv()
    camera["mounting"] |= {"quaternion": [float(v) for v in turn.as_quat()]}


def swap_files(folder: Path) -> None:
    for left, right in (("left.mp4", "right.mp4"), ("left.csv", "right.csv")):
        (folder / left).rename(folder / "aside")
        (folder / right).rename(folder / left)
        (folder / "aside").rename(folder / right)


FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "positions: x and y swapped": (("positions-swapped",), poses(swap_axes)),
    "positions: left-handed": (("positions-left-handed",), poses(lambda t: scaled(t, ["y"], -1))),
    "poses: NED said to be ENU": (("poses-mirrored",), poses(ned)),
    "quaternion: w first": (
        ("quaternion-order",),
        poses(lambda t: None, orientation={"kind": "quaternion", "columns": ["qw", "qx", "qy", "qz"], "order": "xyzw"}),
    ),
    "quaternion: inverse": (
        ("rotation-inverse",),
        poses(lambda t: orient(t, Rotation.from_quat(t[QUATERNION].to_numpy()).inv())),
    ),
    "yaw: degrees said to be radians": (
        ("yaw-degrees", "recording-broken"),
        poses(lambda t: t.insert(0, "angle", np.degrees(yaws(t))), **angle("yaw", "rad")),
    ),
    "yaw: radians said to be degrees": (("yaw-radians",), poses(lambda t: t.insert(0, "angle", yaws(t)), **angle("yaw", "deg"))),
    "yaw: a heading from north": (
        ("heading-as-yaw",),
        poses(lambda t: t.insert(0, "angle", np.pi / 2 - yaws(t)), **angle("yaw", "rad")),
    ),
    "yaw: x backward": (
        ("yaw-reversed",),
        poses(lambda t: orient(t, Rotation.from_quat(t[QUATERNION].to_numpy()) * Rotation.from_euler("z", np.pi))),
    ),
    "rate: 20 Hz said to be 10": (("pose-speed",), poses(lambda t: scaled(t, ["time"], 2.0))),
    "unit: feet said to be metres": (("pose-speed",), poses(lambda t: scaled(t, ["x", "y", "z"], 3.28084))),
    "clock: cameras 0.2 s late": (("time-shift",), cameras(lambda c: c.update(clock_offset=c["clock_offset"] + 0.2))),
    "clock: cameras 0.15 s early": (("time-shift",), cameras(lambda c: c.update(clock_offset=c["clock_offset"] - 0.15))),
    "extrinsics: inverted": (("extrinsics-inverted",), cameras(inverted)),
    "pictures: mirrored": (("pictures-mirrored",), pictures(lambda p: p[:, :, ::-1], "front", "left", "right")),
    "pictures: upside down": (("pictures-upside-down",), pictures(lambda p: p[:, ::-1, ::-1], "front")),
    "pictures: left and right swapped": (("cameras-swapped",), swap_files),
    "pictures: frozen": (("pictures-frozen",), pictures(lambda p: p[np.minimum(np.arange(len(p)), 20)], "front")),
    "mounting: 6 degrees of pitch": (("camera-pitch",), cameras(lambda c: mounted(c, 0, 6), "front")),
    "mounting: 6 degrees of yaw": (("camera-yaw",), cameras(lambda c: mounted(c, 6, 0), "left")),
    "mounting: half the height": (
        ("camera-height",),
        cameras(lambda c: c["mounting"].update(position=[*c["mounting"]["position"][:2], c["mounting"]["position"][2] / 2]), "right"),
    ),
    "lens: focal of another size": (("camera-focal",), cameras(lambda c: c.update(focal=[1.5 * f for f in c["focal"]]), "front")),
}
"""What is planted -> the names that count as found, and how it is planted."""

if __name__ == "__main__":
    main()
