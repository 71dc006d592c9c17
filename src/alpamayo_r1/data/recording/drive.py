"""A recording that is open: its cameras, poses and views are shared by its clips, each a window of the drive.

A clip's time starts with its window; pictures and poses from before and after are there, so any moment of the window can be planned.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, Plan, Sample, Trajectory
from alpamayo_r1.data.camera import Camera
from alpamayo_r1.data.clips import T0_US, Clip
from alpamayo_r1.data.egomotion import Egomotion, read_egomotion
from alpamayo_r1.data.errors import MissingCamera
from alpamayo_r1.data.origin import Origin
from alpamayo_r1.data.recording.fields import bad
from alpamayo_r1.data.recording.frames import Stream
from alpamayo_r1.data.recording.poses import Track, read_track
from alpamayo_r1.data.recording.schema import FILE, Setup, read_setup
from alpamayo_r1.rig.nominal import RIG, resized
from alpamayo_r1.rig.views import View, coverage_of, view_of

AROUND_US = 30_000_000
"""Microseconds of poses around a window that its clip reads."""

GRAIN = (0.001, 0.001, 0.004)
"""Metres x, y, z to which histories are rounded: a fifth of the model's bins at most, and no car's log is better."""

AWAY = 0.6
"""Metres between a camera and a view's place from which near things are clearly displaced."""

WHOLE = 0.98
"""Share of a view from which it counts as seen wholly."""


@lru_cache(maxsize=len(CAMERAS))
def _view(nominal: Calibration, cameras: tuple[tuple[str, Calibration], ...], road: bool) -> View:
    """`view_of`, of the last rig remembered: recordings of one car share it, and its grids take half a second each."""
    return view_of(nominal, dict(cameras), road)


class Recording(Origin):
    """An open folder with a recording.yaml. Everything is read once and when it is first needed; `close` frees the videos."""

    def __init__(self, root: Path):
        self.setup: Setup = read_setup(root)
        super().__init__(cast("Any", None), f"the recording {root}", self.setup.source, root)
        self.views_made, self._lock = dict[str, View](), threading.Lock()

    @cached_property
    def track(self) -> Track:
        """Where the car was. Raises BadRecording."""
        return read_track(self.setup.poses)

    @cached_property
    def streams(self) -> dict[str, Stream]:
        """The real cameras. Raises BadRecording, BadVideo."""
        cameras, root = self.setup.cameras.values(), self.setup.root
        with ThreadPoolExecutor(len(cameras)) as pool:
            return dict(zip(self.setup.cameras, pool.map(lambda camera: Stream(camera, root), cameras)))

    @cached_property
    def coverage(self) -> dict[str, float]:
        """The model's cameras that are shown, in order -> the share of their views that real ones see. Raises MissingCamera."""
        views = self.setup.views
        found = {name: coverage_of(self._nominal(name), self._real, views.depth == "road") for name in CAMERAS}
        least = 0.0 if views.missing == "fill" else max(views.least_coverage, 1e-6)
        shown = {name: share for name, share in found.items() if share >= least}
        if not any(shown.values()):
            raise MissingCamera(
                f"no camera of {self.name} sees enough of any of the model's four views.",
                f"views.least_coverage ({views.least_coverage:g}) of at least one",
                "check the mounting's yaw (left is positive), or run `alpamayo-r1 inspect`.",
            )
        return shown

    def borrowed(self, name: str) -> dict[str, tuple[float, float]]:
        """The real cameras that show some of a view but hang over AWAY from its place, so that near things are displaced there -> the share
        that they show, and the metres that they are away.
        """
        width, height = 96, 54  # to a hundredth
        view = view_of(resized(RIG[name], width, height), self._real, self.setup.views.depth == "road")
        shares = {part.camera: float(part.share.sum()) / (width * height) for part in view.parts}
        found = {own: (share, math.dist(self._real[own].position, RIG[name].position)) for own, share in shares.items()}
        return {own: (share, away) for own, (share, away) in found.items() if away > AWAY and share > 0.01}

    def view(self, name: str) -> View:
        """One of the model's cameras, re-rendered from the real ones; its grids are made when it is first asked for."""
        with self._lock:
            if name not in self.views_made:
                view = _view(self._nominal(name), tuple(self._real.items()), self.setup.views.depth == "road")
                self.views_made[name] = view.to(self._device)
            return self.views_made[name]

    @property
    def _device(self) -> str:
        device = self.setup.views.device
        if device == "cuda" and not torch.cuda.is_available():
            raise bad("views.device is cuda, but torch sees no GPU here", "cuda where there is one", "say cpu, or leave it out")
        return device

    def _nominal(self, name: str) -> Calibration:
        return resized(RIG[name], self.setup.views.width, self.setup.views.height)

    @property
    def _real(self) -> dict[str, Calibration]:
        return {name: camera.calibration for name, camera in self.setup.cameras.items()}

    @cached_property
    def clip_windows(self) -> dict[str, tuple[int, int]]:
        """Clip id -> the window's start and end in microseconds of the poses' clock."""
        times, each = self.track.times_us, round(self.setup.window * 1e6)
        start, end = int(times[0]), int(times[-1])
        count = max(1, (end - start) // each)
        names = [self.setup.name] if count == 1 else [f"{self.setup.name}-{i:04d}" for i in range(count)]
        return {name: (start + i * each, end if i == count - 1 else start + (i + 1) * each) for i, name in enumerate(names)}

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """A clip per window."""
        return tuple(self.clip_windows)

    def open_clip(self, clip_id: str, closed: Callable[[Clip], None] | None = None) -> Drive:
        """One window of the drive."""
        return Drive(self, clip_id, closed)

    def download_command(self, files: list[str]) -> str:
        """How files come here."""
        return f"copy {' '.join(files)} into {self.root}"

    def fingerprints(self) -> dict[str, str]:
        """File -> what its content hashes to; of a video or an image folder its size, for it may have many gigabytes."""
        assert self.root is not None
        found = {FILE: _digest(self.root / FILE), self.setup.poses.file.name: _digest(self.setup.poses.file)}
        for camera in self.setup.cameras.values():
            said = camera.frames
            if said.times is not None:
                found[f"{camera.name} times"] = _digest(said.times)
            if said.video is not None:
                found[f"{camera.name} video"] = str(said.video.stat().st_size)
        return found

    def close(self) -> None:
        """Closes the videos."""
        for stream in self.__dict__.pop("streams", {}).values():
            stream.close()


@dataclass
class ViewCamera:
    """One of the model's cameras as a clip's: `frames` re-renders the real ones. zero_us: the clip's start on the poses' clock."""

    name: str
    recording: Recording
    zero_us: int

    @property
    def timestamps(self) -> np.ndarray:
        """Times of the camera that looks most the same way, on the clip's clock: i64[N]."""
        return self._first.timestamps - self.zero_us

    @cached_property
    def _first(self) -> Stream:
        looks = np.array(RIG[self.name].rot)[:, 2]
        cameras = self.recording.setup.cameras
        nearest = max(cameras, key=lambda name: float(np.array(cameras[name].calibration.rot)[:, 2] @ looks))
        return self.recording.streams[nearest]

    def frames(self, times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, tuple[Note, ...]]:
        """The view at the last frames at or before each time: u8 [K, 3, h, w], their times i64 [K], notes."""
        view, streams = self.recording.view(self.name), self.recording.streams
        names = dict.fromkeys([self._first.name, *view.cameras])
        seen = {name: streams[name].frames(times_us + self.zero_us) for name in names}
        stamps = seen[self._first.name][1] - self.zero_us
        notes = tuple(dict.fromkeys(note for _, _, some in seen.values() for note in some))
        return view.render({name: pictures for name, (pictures, _, _) in seen.items()}).cpu(), stamps, notes

    def close(self) -> None:
        """Nothing: the recording keeps the videos open for the next window."""


@dataclass
class RawCamera:
    """A real camera shown to the model as it is, scaled to the size of all where that differs."""

    name: str
    stream: Stream
    zero_us: int
    size: tuple[int, int]

    @property
    def timestamps(self) -> np.ndarray:
        """Times of the frames on the clip's clock: i64[N]."""
        return self.stream.timestamps - self.zero_us

    def frames(self, times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, tuple[Note, ...]]:
        """The last frames at or before each time: u8 [K, 3, h, w], their times i64 [K], notes."""
        pictures, stamps, notes = self.stream.frames(times_us + self.zero_us)
        width, height = self.size
        if tuple(pictures.shape[-2:]) != (height, width):
            scaled = torch.nn.functional.interpolate(pictures.float(), size=(height, width), mode="bilinear", antialias=True)
            pictures = scaled.round_().clamp_(0, 255).to(torch.uint8)
        return pictures, stamps - self.zero_us, notes

    def close(self) -> None:
        """Nothing: the recording keeps the videos open for the next window."""


@dataclass(frozen=True)
class WorldPath:
    """A plan in the recording's own terms: times f64[F] in seconds of its poses' clock; position f64[S, F, 3] of the rear axle on the
    ground, in its frame (x, y, z in its axes; or lat, lon in degrees and height); yaw f64[S, F], counter-clockwise from east (or the local
    x axis) seen from above, radians.
    """

    times: np.ndarray
    position: np.ndarray
    yaw: np.ndarray


class Drive(Clip):
    """One window of a recording, served as any other clip."""

    def __init__(self, recording: Recording, clip_id: str, closed: Callable[[Clip], None] | None = None):
        super().__init__(recording, clip_id, closed)
        self.recording = recording
        self.zero_us, self.end_us = recording.clip_windows[clip_id]

    def sample(self, t0_us: int = T0_US, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> Sample:
        """As Clip.sample. Cameras that the recording leaves out are not in the observation. meta has "coverage" too: camera -> share of its
        view that a real camera sees. notes: "views-missing", "views-partial", "views-filled", "speed-differs".
        """
        sample = super().sample(t0_us, cameras=cameras, frames=frames, need_future=need_future)
        shown = sample.observation.cameras
        coverage = {name: share for name, share in self._coverage.items() if name in shown}
        notes = (*sample.notes, *self._about_views(shown, cameras), *self._about_speed(t0_us))
        return Sample(sample.observation, sample.future, sample.clip_id, {**sample.meta, "coverage": coverage}, notes)

    def valid_t0(self, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> tuple[int, int]:
        """First and last t0 of the window that the recording reaches."""
        low, high = super().valid_t0(cameras=cameras, frames=frames, need_future=need_future)
        return max(low, 0), min(high, self.end_us - self.zero_us)

    def to_world(self, path: Plan | Trajectory, t0_us: int) -> WorldPath:
        """A plan, or a path in the ego frame at t0, in the recording's own frame and clock."""
        xyz, rot = self.egomotion.pose_at(t0_us)
        points = path.xyz.double().cpu().numpy()
        turns = path.rot.double().cpu().numpy()
        points, turns = (points[None], turns[None]) if points.ndim == 2 else (points, turns)
        there = points @ rot.T + xyz
        turned = rot @ turns
        steps = (t0_us + self.zero_us) / 1e6 + DT * np.arange(1, points.shape[1] + 1) - self.recording.setup.poses.clock_offset
        return WorldPath(steps, self.recording.track.to_own(there), np.arctan2(turned[..., 1, 0], turned[..., 0, 0]))

    @cached_property
    def egomotion(self) -> Egomotion:
        """Where the car was around the window, on the clip's clock."""
        table = self.recording.track.table(self.zero_us - AROUND_US, self.end_us + AROUND_US, self.zero_us)
        return read_egomotion(table, self.clip_id, GRAIN)

    @cached_property
    def rig(self) -> dict[str, Any]:
        """{"calibration": {camera: Calibration}, "vehicle": {name: metres}} of what the model is shown."""
        vehicle = self.recording.setup.vehicle
        return {"calibration": self._calibrations()} | ({"vehicle": vehicle} if vehicle else {})

    @cached_property
    def _surroundings(self) -> tuple[None, tuple[Note, ...]]:
        return None, ()

    @property
    def _raw(self) -> bool:
        return self.recording.setup.views.mode == "raw"

    @property
    def _roles(self) -> dict[str, str]:
        """Role -> the real camera that has it, in the released order."""
        found = {camera.role: camera.name for camera in self.recording.setup.cameras.values() if camera.role is not None}
        return {role: found[role] for role in ORDER if role in found}

    @property
    def _coverage(self) -> dict[str, float]:
        return {} if self._raw else self.recording.coverage

    def _calibrations(self) -> dict[str, Calibration]:
        if not self._raw:
            views = self.recording.setup.views
            return {name: resized(RIG[name], views.width, views.height) for name in self.recording.coverage}
        cameras = self.recording.setup.cameras
        return {role: cameras[name].calibration for role, name in self._roles.items()}

    def _in_order(self, cameras: Sequence[str]) -> tuple[str, ...]:
        there = self._roles if self._raw else self.recording.coverage
        known = [camera for camera in cameras if camera in there or camera not in CAMERAS]
        return super()._in_order(known or list(cameras))

    def _has(self, feature: str) -> bool:
        return feature in (self._roles if self._raw else self.recording.coverage)

    def _require(self, features: Sequence[str]) -> None:
        """Nothing: all files were found when the recording was opened."""

    def _open_camera(self, name: str) -> Camera:
        streams = self.recording.streams
        if not self._raw:
            return cast("Camera", ViewCamera(name, self.recording, self.zero_us))
        sizes = [(streams[real].lens.width, streams[real].lens.height) for real in self._roles.values()]
        views = self.recording.setup.views
        size = sizes[0] if len(set(sizes)) == 1 else (views.width, views.height)
        return cast("Camera", RawCamera(name, streams[self._roles[name]], self.zero_us, size))

    def _validity(self) -> tuple[Note, ...]:
        return ()

    def _about_views(self, shown: Sequence[str], asked: Sequence[str]) -> tuple[Note, ...]:
        """What the model does not see."""
        notes = []
        gone = [name for name in asked if name not in shown]
        if gone:
            notes.append(Note("views-missing", f"no camera of the recording sees {', '.join(gone)}: left out of the observation"))
        shares = {name: share for name, share in self._coverage.items() if name in shown and share < WHOLE}
        empty = [name for name, share in shares.items() if share < self.recording.setup.views.least_coverage]
        if empty:
            notes.append(Note("views-filled", f"{', '.join(empty)}: filled with grey, for hardly any real camera looks there"))
        partly = {name: share for name, share in shares.items() if name not in empty}
        if partly:
            text = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in partly.items())
            notes.append(Note("views-partial", f"real cameras see {text}; the rest is grey"))
        return tuple(notes)

    def _about_speed(self, t0_us: int) -> tuple[Note, ...]:
        """A note where the wheels' speed is not that of the poses over the second before t0."""
        track = self.recording.track
        if track.speed is None:
            return ()
        ends = self.egomotion.pose(np.array([t0_us - 1_000_000, t0_us])).translation
        by_poses = float(np.linalg.norm(ends[1] - ends[0]))
        now = t0_us + self.zero_us
        by_wheels = float(np.interp(np.linspace(now - 1e6, now, 11), track.times_us, np.abs(track.speed)).mean())
        if abs(by_poses - by_wheels) <= 1 + 0.15 * max(by_poses, by_wheels):
            return ()
        text = (
            f"the poses move at {by_poses:.1f} m/s, the wheels at {by_wheels:.1f} m/s: check the poses' rate and unit, and the wheels' unit"
        )
        return (Note("speed-differs", text),)


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:16]
