"""One clip of the data set -> Samples: where the car was and will be, what its cameras saw, in the ego frame at t0."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.geometry import Calibration, FTheta, to_frame
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, F, H, Observation, Sample, Trajectory
from alpamayo_r1.data.around import read_surroundings, surroundings_at
from alpamayo_r1.data.errors import BadEgomotion, BadVideo, MissingCamera, NotDownloaded, OutOfRange
from alpamayo_r1.data.origin import Origin

if TYPE_CHECKING:
    import pandas as pd

T0_US = 5_100_000
"""The release's default moment."""

STEP_US = round(DT * 1e6)
PAST_US = STEP_US * np.arange(1 - H, 1)
FUTURE_US = STEP_US * np.arange(1, F + 1)


class Clip:
    """One open clip: each feature is read once, a camera's reader serves every t0. A context manager."""

    def __init__(self, origin: Origin, clip_id: str, closed: Callable[[Clip], None] | None = None):
        self.origin, self.clip_id, self._closed = origin, clip_id, closed
        self._cameras: dict[str, Camera] = {}

    def sample(self, t0_us: int = T0_US, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> Sample:
        """What the car knew at t0 and drove afterwards.

        Frames are the last ones at or before t0 - 0.1 k s, cameras in the released order. Without `need_future`, future is None where the
        log ends too early. meta: "source", "frame_timestamps_us" i64 [C, K], and "calibration", "vehicle", "surroundings"
        where the clip has them.
        Raises ValueError, OutOfRange, MissingCamera, NotDownloaded, BadVideo, BadEgomotion; all before a frame is decoded.
        """
        if frames < 1:
            raise ValueError(f"frames is {frames}, expected at least 1 a camera")
        t0_us, cameras = int(t0_us), self._in_order(cameras)
        self._require(["egomotion", *cameras])
        self._check_t0(t0_us, cameras, frames, need_future)
        open_cameras = [self._cameras[c] for c in cameras]
        has_future = t0_us + FUTURE_US[-1] <= self.egomotion.end_us
        pictures, times = self._decode(open_cameras, t0_us + STEP_US * np.arange(1 - frames, 1))
        around, notes = self._surroundings
        known = {} if around is None else {"surroundings": surroundings_at(around, t0_us, *self.egomotion.pose_at(t0_us))}
        return Sample(
            observation=Observation(pictures, cameras, self.egomotion.path(t0_us, PAST_US), t0_us),
            future=self.egomotion.path(t0_us, FUTURE_US) if has_future else None,
            clip_id=self.clip_id,
            meta={"source": self.origin.kind, "frame_timestamps_us": times} | self.rig | known,
            notes=notes,
        )

    def valid_t0(self, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> tuple[int, int]:
        """First and last t0 in microseconds for which `sample` succeeds (lo > hi: none)."""
        cameras = self._in_order(cameras)
        self._require(["egomotion", *cameras])
        self._open(cameras)
        seen = [self._cameras[c].timestamps for c in cameras]
        past, after = -int(PAST_US[0]), int(FUTURE_US[-1]) if need_future else 0
        lo = max([self.egomotion.start_us + past] + [int(t[0]) + STEP_US * (frames - 1) for t in seen])
        hi = min([self.egomotion.end_us - after] + [int(t[-1]) for t in seen])
        return lo, hi

    @cached_property
    def egomotion(self) -> Egomotion:
        """Where the car was, at any time of the log."""
        import pandas as pd

        data = pd.read_parquet(io.BytesIO(self._members("egomotion")["egomotion"]))
        return read_egomotion(data, self.clip_id)

    @cached_property
    def rig(self) -> dict[str, Any]:
        """{"calibration": {camera: Calibration}, "vehicle": {name: metres}} as far as the clip has them."""
        lens, pose, body = (self._table(f) for f in ("camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions"))
        rig: dict[str, Any] = {}
        if lens is not None and pose is not None:
            rig["calibration"] = {c: read_calibration(lens.loc[c], pose.loc[c]) for c in lens.index if c in pose.index}
        if body is not None:
            rig["vehicle"] = {name: float(body[name]) for name in body.index}
        return rig

    @cached_property
    def _surroundings(self) -> tuple[pd.DataFrame | None, tuple[Note, ...]]:
        """What pictures can show around the car, where the folder has it; a note where that is broken, for no plan depends on it."""
        root = self.origin.root
        if root is None:
            return None, ()
        try:
            return read_surroundings(root, self.origin.interface.get_clip_chunk(self.clip_id), self.clip_id), ()
        except ValueError as error:
            return None, (Note("surroundings-broken", f"pictures show no lanes and no vehicles: {error}"),)

    def close(self) -> None:
        """Closes the videos and forgets what was read; `source.clip` opens the clip anew."""
        while self._cameras:
            self._cameras.popitem()[1].close()
        for read in ("egomotion", "rig", "_surroundings"):
            self.__dict__.pop(read, None)
        if self._closed is not None:
            self._closed(self)

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _in_order(self, cameras: Sequence[str]) -> tuple[str, ...]:
        """The cameras in the released order. Raises MissingCamera; ValueError for none at all, or one twice."""
        if not cameras or len(set(cameras)) < len(cameras):
            raise ValueError(f"cameras are {tuple(cameras)}, expected at least one, and each once")
        there = [camera for camera in ORDER if self._has(camera)]
        for camera in cameras:
            if camera not in there:
                raise MissingCamera(
                    f'clip {self.clip_id} has no camera "{camera}".',
                    f"one of {', '.join(there) or 'none at all'}",
                    "pass cameras=(...) with the ones it has, or choose another clip.",
                )
        return tuple(sorted(cameras, key=ORDER.index))

    def _has(self, feature: str) -> bool:
        interface = self.origin.interface
        presence = interface.feature_presence
        listed = feature not in presence or bool(presence[feature].get(self.clip_id, True))
        return feature in interface.features.ALL and listed

    def _require(self, features: Sequence[str]) -> None:
        """NotDownloaded unless the chunks of all features are on this machine or may be streamed."""
        interface = self.origin.interface
        files = [self._file(f) for f in features]
        missing = [f for f in files if not interface.is_file_cached(f)]
        if missing and not self.origin.maybe_stream:
            raise NotDownloaded(
                f"clip {self.clip_id} lies in chunk {interface.get_clip_chunk(self.clip_id)}, of which {len(missing)} of "
                f"{len(files)} files are not on this machine: {', '.join(missing)}.",
                f"the files in {self.origin.name}",
                f"{self.origin.download_command(missing)}\n  or open the source with maybe_stream=True.",
            )

    def _check_t0(self, t0_us: int, cameras: Sequence[str], frames: int, need_future: bool) -> None:
        lo, hi = self.valid_t0(cameras=cameras, frames=frames, need_future=need_future)
        if lo <= t0_us <= hi:
            return
        if lo > hi:
            raise OutOfRange(
                f"clip {self.clip_id} is too short: no t0 has {-PAST_US[0] / 1e6:g} s before and {FUTURE_US[-1] / 1e6:g} s after it.",
                "a longer clip",
                "choose another clip" + (", or pass need_future=False if you don't score." if need_future else "."),
            )
        without = need_future and hi < t0_us <= self.valid_t0(cameras=cameras, frames=frames, need_future=False)[1]
        raise OutOfRange(
            f"t0 = {t0_us / 1e6:g} s is too {'early' if t0_us < lo else 'late'} in clip {self.clip_id}.",
            f"{lo / 1e6:.3f} s <= t0 <= {hi / 1e6:.3f} s ({-PAST_US[0] / 1e6:g} s of history, {frames} frames"
            + (f", {FUTURE_US[-1] / 1e6:g} s of future)" if need_future else ")"),
            "choose a t0 in that range" + (", or pass need_future=False if you don't score." if without else "."),
        )

    def _open(self, cameras: Sequence[str]) -> None:
        new = [c for c in cameras if c not in self._cameras]
        if new:
            with ThreadPoolExecutor(len(new)) as pool:
                self._cameras |= dict(zip(new, pool.map(self._open_camera, new)))

    def _open_camera(self, name: str) -> Camera:
        import pandas as pd

        members = self._members(name)
        stamps = pd.read_parquet(io.BytesIO(members["frame_timestamps"]))["timestamp"].to_numpy(copy=True)
        return Camera(members["video"], stamps, f"{name} of clip {self.clip_id}")

    def _decode(self, cameras: Sequence[Camera], times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """u8 [C, K, 3, h, w] and their own times i64 [C, K]; one thread a camera."""
        with ThreadPoolExecutor(len(cameras)) as pool:
            pictures, stamps = zip(*pool.map(lambda c: c.frames(times_us), cameras))
        sizes = {p.shape[-2:] for p in pictures}
        if len(sizes) > 1:
            raise BadVideo(
                f"the cameras of clip {self.clip_id} have pictures of different sizes: {sorted(tuple(s) for s in sizes)}.",
                "one size for all",
                "ask for cameras of one size with cameras=(...).",
            )
        return torch.stack(pictures), torch.stack(stamps)

    def _file(self, feature: str) -> str:
        interface = self.origin.interface
        return interface.features.get_chunk_feature_filename(interface.get_clip_chunk(self.clip_id), feature)

    @contextmanager
    def _chunk(self, feature: str) -> Iterator[Any]:
        with self.origin.interface.open_file(self._file(feature), maybe_stream=self.origin.maybe_stream) as file:
            yield file

    def _members(self, feature: str) -> dict[str, bytes]:
        """alias -> content of the clip's members in the chunk of a feature."""
        names = self.origin.interface.features.get_clip_files_in_zip(self.clip_id, feature)
        wanted = {alias: name for alias, name in names.items() if alias in ("egomotion", "video", "frame_timestamps")}
        try:
            with self._chunk(feature) as file, zipfile.ZipFile(file) as chunk:
                return {alias: chunk.read(name) for alias, name in wanted.items()}
        except (zipfile.BadZipFile, KeyError) as error:
            kind = BadEgomotion if feature == "egomotion" else BadVideo
            raise kind(
                f"{self._file(feature)} does not hold {feature} of clip {self.clip_id}: {error}.",
                f"a zip with {', '.join(PurePosixPath(n).name for n in wanted.values())}",
                f"the download may be cut off; get it again: {self.origin.download_command([self._file(feature)])}",
            ) from error

    def _table(self, feature: str) -> pd.DataFrame | pd.Series | None:
        """The clip's rows of a calibration table, or None where there are none on this machine."""
        import pandas as pd

        interface = self.origin.interface
        if feature not in interface.features.ALL or not (interface.is_file_cached(self._file(feature)) or self.origin.maybe_stream):
            return None
        with self._chunk(feature) as file:
            table = pd.read_parquet(file)
        return table.loc[self.clip_id] if self.clip_id in table.index else None


@dataclass(frozen=True)
class Egomotion:
    """The log of one clip as a function of time: translation by cubic spline, rotation by slerp (the devkit's interpolator)."""

    pose: Any  # physical_ai_av RigidTransformInterpolator
    start_us: int
    end_us: int

    def path(self, t0_us: int, offsets_us: np.ndarray) -> Trajectory:
        """Poses at t0 + offsets in the ego frame at t0, full 3-D rotation: Trajectory [T] in float32."""
        pose = self.pose(np.concatenate([[t0_us], t0_us + offsets_us]))
        xyz, rot = torch.from_numpy(pose.translation.copy()), torch.from_numpy(pose.rotation.as_matrix())
        xyz, rot = to_frame(xyz[1:], rot[1:], xyz[0], rot[0])
        return Trajectory(xyz.float(), rot.float())

    def pose_at(self, t0_us: int) -> tuple[np.ndarray, np.ndarray]:
        """Translation [3] and rotation [3, 3] at t0 in the log's own frame."""
        pose = self.pose(np.array([t0_us]))
        return pose.translation[0], pose.rotation.as_matrix()[0]


def read_egomotion(data: pd.DataFrame, clip_id: str) -> Egomotion:
    """A table of timestamp (us), qx..qw, x, y, z -> Egomotion. Raises BadEgomotion."""
    from physical_ai_av.utils.interpolation import RigidTransformInterpolator
    from scipy.spatial.transform import RigidTransform, Rotation

    times = data["timestamp"].to_numpy(copy=True)
    quaternion, xyz = data[["qx", "qy", "qz", "qw"]].to_numpy(copy=True), data[["x", "y", "z"]].to_numpy(copy=True)
    if len(times) < 4 or not (np.diff(times) > 0).all():
        row = int(np.argmax(np.diff(times) <= 0)) + 1 if len(times) >= 4 else len(times)
        raise BadEgomotion(
            f"egomotion of clip {clip_id} does not move forward in time at row {row} of {len(times)}.",
            "at least 4 rows with strictly increasing timestamps",
            "sort the rows and drop duplicates, or leave this clip out.",
        )
    broken = ~np.isfinite(np.concatenate([quaternion, xyz], 1)).all(1) | (np.abs(np.linalg.norm(quaternion, axis=1) - 1) > 0.01)
    if broken.any():
        row = int(np.argmax(broken))
        raise BadEgomotion(
            f"egomotion of clip {clip_id} has {int(broken.sum())} broken poses, the first in row {row} ({times[row] / 1e6:.3f} s).",
            "finite positions and unit quaternions in every row",
            "drop these rows (the pose is interpolated across), or leave this clip out.",
        )
    pose = RigidTransform.from_components(rotation=Rotation.from_quat(quaternion), translation=xyz)
    return Egomotion(RigidTransformInterpolator(times, pose), int(times[0]), int(times[-1]))


def read_calibration(lens: pd.Series, pose: pd.Series) -> Calibration:
    """A row of camera_intrinsics and one of sensor_extrinsics -> Calibration."""
    from scipy.spatial.transform import Rotation

    fw, bw = (tuple(float(lens[f"{kind}_poly_{i}"]) for i in range(5)) for kind in ("fw", "bw"))
    rot = Rotation.from_quat(pose[["qx", "qy", "qz", "qw"]].to_numpy(dtype=float)).as_matrix()
    return Calibration(
        lens=FTheta(int(lens["width"]), int(lens["height"]), float(lens["cx"]), float(lens["cy"]), fw, bw),
        position=tuple(float(pose[axis]) for axis in "xyz"),
        rot=tuple(tuple(float(v) for v in row) for row in rot),
    )


class Camera:
    """One camera's video and its clock, opened once and checked. `name` is for messages."""

    def __init__(self, video: bytes, timestamps: np.ndarray, name: str):
        import av
        from physical_ai_av.video import SeekVideoReader

        self.name, self.timestamps, self._lock = name, timestamps, threading.Lock()
        if len(timestamps) < 2 or not (np.diff(timestamps) > 0).all():
            raise BadVideo(
                f"the frame timestamps of {name} don't increase ({len(timestamps)} rows).",
                "at least two timestamps, each later than the one before",
                "the clip's timestamps are damaged: download it again, or leave it out.",
            )
        try:
            self._reader = SeekVideoReader(io.BytesIO(video), timestamps)
        except (av.FFmpegError, IndexError, StopIteration, TypeError) as error:
            raise BadVideo(
                f"the video of {name} can't be opened: {error}.", "an mp4 with one video stream", "download it again."
            ) from error
        self._check_clock()

    def frames(self, times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The last frame at or before each time: u8 [K, 3, h, w] and their own times i64 [K]. Raises BadVideo."""
        import av

        try:
            with self._lock:
                pictures, stamps = self._reader.decode_images_from_timestamps(times_us.astype(np.int64))
        except (av.FFmpegError, ValueError) as error:
            raise BadVideo(
                f"frames of {self.name} can't be decoded: {error}", "a whole video", "download the chunk again, or leave this clip out."
            ) from error
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.asarray(stamps, dtype=np.int64))

    def close(self) -> None:
        """Closes the video."""
        self._reader.close()

    def _check_clock(self) -> None:
        """The devkit takes a frame at pts for number round(pts / pts_per_frame): BadVideo where that is not its number."""
        reader = self._reader
        pts = np.sort([p.pts for p in reader.container.demux(reader.stream) if p.pts is not None])
        rows = len(self.timestamps)
        if len(pts) < rows:
            raise BadVideo(
                f"the video of {self.name} is truncated: {len(pts)} frames for {rows} timestamps.",
                "a frame for every timestamp",
                "download the chunk again, or leave this clip out.",
            )
        if pts[0] != 0:
            raise BadVideo(
                f"the video of {self.name} starts at pts {pts[0]} (time base {reader.time_base}), so every frame would be mistaken.",
                "a first frame at pts 0",
                "write it again with its clock from 0, e.g. ffmpeg -i IN -vf setpts=PTS-STARTPTS OUT.mp4.",
            )
        number = np.round(pts[:rows] / max(reader.pts_per_frame, 1))
        if (number != np.arange(rows)).any():
            first = int(np.argmax(number != np.arange(rows)))
            raise BadVideo(
                f"the clock of the video of {self.name} (time base {reader.time_base}, {float(reader.fps):.3f} frames/s) drifts: "
                f"from frame {first} on the reader would give another frame without notice.",
                "a constant frame rate, and a time base that divides the frame time (mp4's usual 1/15360 or 1/90000)",
                "write it again, e.g. ffmpeg -i IN -r 30 -video_track_timescale 15360 OUT.mp4.",
            )
