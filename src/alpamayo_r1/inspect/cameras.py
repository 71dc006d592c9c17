"""What each camera's pictures say: of themselves, of its mounting, and of the poses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.data.recording.drive import Recording
from alpamayo_r1.data.recording.frames import Stream
from alpamayo_r1.data.recording.poses import Track
from alpamayo_r1.inspect.motion import Motion, ground_of, motion_of
from alpamayo_r1.inspect.paths import Path

STEP, WAY = 0.1, 0.9
"""Seconds between two pictures that are compared, and metres: less where the car goes farther and there are pictures in between."""

MOST = 120
"""Steps per camera: a run of pictures where the speed changes most."""

SIDE = 640
"""Pictures are looked at with so many columns at most."""

TURNS = 0.006
"""Radians per step (root mean square) from which a car turns enough to compare."""

STILL = 0.35
"""Mean change of brightness, of 255, below which a picture is the one before."""

SLOWEST, MOVES = 0.15, 0.25
"""Metres in a step below which the car counts as standing, and from which a step tells of the mounting."""


@dataclass(frozen=True)
class Look:
    """A camera's pictures, some steps apart: grey f32 [N, 1, h, w] before and after, times f64[N, 2] s on the poses' clock.

    still: share of the steps in which the picture did not change at all; flat: share of pictures of one colour.
    """

    name: str
    calibration: Calibration
    first: torch.Tensor
    second: torch.Tensor
    times: np.ndarray
    still: float
    flat: float

    @property
    def azimuth(self) -> float:
        """Radians to the left that the camera looks."""
        return math.atan2(self.calibration.rot[1][2], self.calibration.rot[0][2])


@dataclass(frozen=True)
class Mounting:
    """What the road says of a camera. speed: pictures' over poses'; slip: radians to the left that the car seems to move; pitch: degrees
    by which the camera looks further down than it says; turn: pictures' turn over the poses', NaN where the car does not turn; match: how
    well the road fits; steps: how many moved and fitted; share: of those that moved; slip_error: standard error of slip; spread: of the
    logarithm of speed, from step to step.
    """

    speed: float
    slip: float
    pitch: float
    turn: float
    match: float
    steps: int
    share: float
    slip_error: float
    spread: float = 0.0


def look_at(recording: Recording, name: str, track: Track) -> Look:
    """A run of a camera's pictures where the drive tells most."""
    stream: Stream = recording.streams[name]
    times = stream.timestamps / 1e6
    pace = np.linalg.norm(np.diff(track.xyz[:, :2], axis=0), axis=1).sum() / max((track.times_us[-1] - track.times_us[0]) / 1e6, 1.0)
    each = max(1, round(min(STEP, WAY / max(pace, 1.0)) * 1e6 / stream.period_us))
    inside = np.flatnonzero((times >= track.times_us[0] / 1e6 + 0.2) & (times <= track.times_us[-1] / 1e6 - 0.2))
    starts = inside[:-each:each] if len(inside) > each else inside[:0]
    if len(starts) > MOST:
        begin = liveliest(track, times[starts])
        starts = starts[begin : begin + MOST]
    needed = sorted(set(starts.tolist()) | set((starts + each).tolist()))
    kept = {number: _grey(stream.pictures([number])[0]) for number in needed}
    first, second = ([kept[int(n)] for n in numbers] for numbers in (starts, starts + each))
    blank = torch.zeros(0, 1, stream.lens.height, stream.lens.width)
    a, b = (torch.stack(pictures) if pictures else blank for pictures in (first, second))
    still = float(((a - b).abs().flatten(1).mean(1) < STILL).float().mean()) if len(a) else 0.0
    flat = float(((a.flatten(1).amax(1) - a.flatten(1).amin(1)) < 8).float().mean()) if len(a) else 0.0
    return Look(name, recording.setup.cameras[name].calibration, a, b, np.stack([times[starts], times[starts + each]], -1), still, flat)


def liveliest(track: Track, times: np.ndarray) -> int:
    """At which of the times (s) a run of MOST begins in which speed and course change most, while the car moves."""
    place = np.stack([np.interp(times, track.times_us / 1e6, track.xyz[:, i]) for i in (0, 1)], -1)
    velocity = np.diff(place, axis=0, append=place[-1:])
    change = np.linalg.norm(np.diff(velocity, axis=0, prepend=velocity[:1]), axis=1)
    worth = np.where(np.linalg.norm(velocity, axis=1) > SLOWEST, 0.02 + change, 0.0)
    return int(np.argmax(np.convolve(worth, np.ones(MOST), mode="valid")))


def _grey(picture: np.ndarray) -> torch.Tensor:
    """f32 [1, h, w], averaged down to SIDE columns at most."""
    grey = torch.from_numpy(picture).float().mean(-1)[None]
    times = -(-grey.shape[-1] // SIDE)
    return torch.nn.functional.avg_pool2d(grey, times) if times > 1 and not any(n % times for n in grey.shape[-2:]) else grey


def mounting_of(look: Look, path: Path, chosen: slice | np.ndarray = slice(None), *, flip: tuple[int, ...] = ()) -> tuple[Mounting, Motion]:
    """What the road says of a camera, its pictures flipped along these axes (2 up and down, 3 left and right) first."""
    first, second = (torch.flip(p[chosen], flip) if flip else p[chosen] for p in (look.first, look.second))
    times = look.times[chosen]
    moved = np.array([path.distance(pair)[0] for pair in times]) if len(times) else np.zeros(0)
    motion = motion_of(ground_of(look.calibration), first, second, moved > 2 * SLOWEST)
    return _summary(motion, moved, times, path), motion


def _summary(motion: Motion, moved: np.ndarray, times: np.ndarray, path: Path) -> Mounting:
    moves = moved > MOVES
    good = motion.sure & moves
    steps = int(good.sum())
    if steps < 2:
        return Mounting(
            math.nan, math.nan, math.nan, math.nan, float(np.median(motion.match)) if len(moved) else 0.0, steps, 0.0, math.inf, math.inf
        )
    step = motion.step[good]
    way = moved[good]
    slip = np.arctan2(step[:, 1], step[:, 0])
    mean = math.atan2(_middle(np.sin(slip), way), _middle(np.cos(slip), way))
    off = np.abs(np.array([math.remainder(float(one) - mean, 2 * math.pi) for one in slip]))
    error = 1.5 * _middle(off, way) / math.sqrt(steps / 3)
    speeds = np.linalg.norm(step, axis=1) / way
    speed = _middle(speeds, way)
    spread = _middle(np.abs(np.log(np.maximum(speeds, 1e-3) / max(speed, 1e-3))), way)
    pitch = math.degrees(_middle(motion.pitch[good], way))
    match = float(np.median(motion.match[good]))
    return Mounting(speed, mean, pitch, turn_ratio(motion, times, path), match, steps, steps / int(moves.sum()), error, spread)


def _middle(values: np.ndarray, weights: np.ndarray) -> float:
    """The median of values, each counted by its weight."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def long_steps(look: Look, path: Path, steps: int = 3) -> tuple[Motion, np.ndarray]:
    """The motion over several steps at once, which tells speed and turn so many times more exactly; and times [N, 2]."""
    more = steps - 1
    times = np.stack([look.times[:-more, 0], look.times[more:, 1]], -1) if len(look.times) > more else np.zeros((0, 2))
    moved = np.array([path.distance(pair)[0] for pair in times]) if len(times) else np.zeros(0)
    motion = motion_of(ground_of(look.calibration), look.first[: len(times)], look.second[len(look.second) - len(times) :], moved > MOVES)
    return motion, times


def turn_ratio(motion: Motion, times: np.ndarray, path: Path, by_path: bool = False) -> float:
    """Turn by the pictures over turn by the poses: the slope of a line through the origin, NaN where the car turns too little."""
    turned = np.array([path.turned(pair, by_path)[0] for pair in times])
    seen = motion.match_far > 0.55
    x, y = turned[seen], motion.turn[seen]
    slope = math.nan
    for _ in range(3):
        if len(x) < 6 or float(np.sqrt((x**2).mean())) < TURNS:
            return slope
        slope = float((x * y).sum() / (x**2).sum())
        off = np.abs(y - slope * x)
        kept = off <= max(3 * float(np.median(off)), 0.004)
        x, y = x[kept], y[kept]
    return slope


def agreement(look: Look, path: Path, flip: tuple[int, ...]) -> float:
    """How well the turns that the pictures show, flipped along these axes first, follow the poses': see `against`."""
    _, motion = mounting_of(look, path, flip=flip)
    return against(motion, look.times, path)


def against(motion: Motion, times: np.ndarray, path: Path) -> float:
    """Correlation of the turns that the pictures show with those of the poses, weighed by how well the pictures fit each other: 1 is
    perfect, -1 mirrored, 0 where the car hardly turns.
    """
    turned = np.array([path.turned(pair)[0] for pair in times])
    seen = motion.match_far > 0.55
    if seen.sum() < 6 or float(np.sqrt((turned[seen] ** 2).mean())) < TURNS or not motion.turn[seen].any():
        return 0.0
    return float(np.corrcoef(turned[seen], motion.turn[seen])[0, 1] * np.median(motion.match_far[seen]) * seen.mean())
