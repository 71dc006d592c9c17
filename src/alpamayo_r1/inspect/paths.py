"""What the poses say of themselves: rates and gaps, the wheels' speed, and whether the car drives along its own x axis.

A car's path and its orientation are two witnesses of one thing. Where they disagree, each usual mix-up is undone in turn; the one under
which they agree is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from alpamayo_r1.data.recording.poses import Track
from alpamayo_r1.inspect.findings import ATTENTION, OK, UNKNOWN, WRONG, Finding

STRETCH = 0.5
"""Seconds over which the path's direction is taken."""

MOVES = 1.2
"""Metres that a stretch must have for a direction."""

SLIP, TILT = math.radians(6), 0.3
"""Radians between path and x axis, and of lean, within which poses agree."""


@dataclass(frozen=True)
class Path:
    """The track on a grid of 20 per second: t f64[N] s, xyz f64[N, 3], turn (rotations of N)."""

    t: np.ndarray
    xyz: np.ndarray
    turn: Rotation

    @cached_property
    def yaw(self) -> np.ndarray:
        """Unwrapped yaw of the rotations [N]."""
        matrix = self.turn.as_matrix()
        return np.unwrap(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))

    @cached_property
    def course(self) -> np.ndarray:
        """Unwrapped direction of the path [N], held where it stands."""
        from alpamayo_r1.data.recording.poses import heading_of

        return np.unwrap(heading_of((self.t * 1e6).astype(np.int64), self.xyz))

    def distance(self, t: np.ndarray) -> np.ndarray:
        """Metres between consecutive times [N] -> [N - 1]."""
        return np.linalg.norm(np.diff(np.stack([np.interp(t, self.t, self.xyz[:, i]) for i in range(2)], -1), axis=0), axis=1)

    def turned(self, t: np.ndarray, by_path: bool = False) -> np.ndarray:
        """Radians of turn to the left between consecutive times."""
        return np.diff(np.interp(t, self.t, self.course if by_path else self.yaw))


def path_of(track: Track) -> Path:
    """The track on an even grid, its positions freed of white noise over a third of a second."""
    seconds = track.times_us / 1e6
    t = np.arange(seconds[0], seconds[-1], 0.05)
    xyz = np.stack([np.interp(t, seconds, track.xyz[:, i]) for i in range(3)], -1)
    kernel = np.hanning(9)[1:-1] / np.hanning(9)[1:-1].sum()
    padded = np.pad(xyz, ((3, 3), (0, 0)), mode="reflect", reflect_type="odd")
    even = np.stack([np.convolve(padded[:, i], kernel, mode="valid") for i in range(3)], -1)
    return Path(t, even, Slerp(seconds, Rotation.from_quat(track.quaternion))(t))


Change = Callable[[np.ndarray, Rotation], tuple[np.ndarray, Rotation]]
_Z = {angle: Rotation.from_euler("z", angle, degrees=True) for angle in (90, -90, 180)}


def _rolled(order: list[int]) -> Change:
    return lambda xyz, turn: (xyz, Rotation.from_quat(turn.as_quat(canonical=False)[:, order]))


def _yaw(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def changed(xyz: np.ndarray, turn: Rotation) -> tuple[np.ndarray, Rotation]:
        matrix = turn.as_matrix()
        yaw = change(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0]))
        return xyz, Rotation.from_rotvec(np.stack([0 * yaw, 0 * yaw, yaw], -1))

    return changed


def _from_degrees(xyz: np.ndarray, turn: Rotation) -> tuple[np.ndarray, Rotation]:
    """Degrees that were read as radians: whole turns of 2 pi are lost of them, so the course says how many."""
    matrix = turn.as_matrix()
    yaw = np.unwrap(np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])) * np.pi / 180
    way = np.diff(xyz, axis=0, append=xyz[-1:])
    off = np.arctan2(way[:, 1], way[:, 0]) - yaw
    weight = np.linalg.norm(way[:, :2], axis=1)
    turns = np.arctan2((weight * np.sin(off)).sum(), (weight * np.cos(off)).sum()) / (2 * np.pi * np.pi / 180)
    yaw = yaw + round(float(turns)) * 2 * np.pi * np.pi / 180
    return xyz, Rotation.from_rotvec(np.stack([0 * yaw, 0 * yaw, yaw], -1))


CHANGES: dict[str, tuple[Change, ...]] = {
    "yaw-reversed": (lambda xyz, turn: (xyz, turn * _Z[180]),),
    "rotation-inverse": (lambda xyz, turn: (xyz, turn.inv()),),
    "positions-left-handed": (lambda xyz, turn: (xyz * [1, -1, 1], turn), lambda xyz, turn: (xyz * [-1, 1, 1], turn)),
    "positions-swapped": (lambda xyz, turn: (xyz[:, [1, 0, 2]], turn),),
    "heading-as-yaw": (_yaw(lambda yaw: np.pi / 2 - yaw),),
    "body-axes": (
        lambda xyz, turn: (xyz, turn * _Z[90]),
        lambda xyz, turn: (xyz, turn * _Z[-90]),
        lambda xyz, turn: (xyz, turn * Rotation.from_euler("x", np.pi)),
    ),
    "quaternion-order": (_rolled([1, 2, 3, 0]), _rolled([3, 0, 1, 2])),
    "yaw-degrees": (_from_degrees,),
    "yaw-radians": (_yaw(lambda yaw: np.unwrap(yaw) * 180 / np.pi),),
}
"""Fault -> what undoes it."""


def disagreement(xyz: np.ndarray, turn: Rotation, step: int) -> tuple[float, float]:
    """Median angle between path and x axis (over stretches that move), and median lean, radians."""
    way = xyz[step:] - xyz[:-step]
    moves = np.linalg.norm(way, axis=1) > MOVES
    if not moves.any():
        return math.nan, math.nan
    middle = turn[step // 2 : step // 2 + len(way)]
    own = middle.inv().apply(way)[moves]
    slip = np.abs(np.arctan2(np.hypot(own[:, 1], 0.5 * own[:, 2]), own[:, 0]))
    lean = np.arccos(np.clip(middle.as_matrix()[moves][:, 2, 2], -1, 1))
    return float(np.median(slip)), float(np.median(lean))


def direction(path: Path) -> tuple[Finding, dict[str, Path]]:
    """Whether path and orientation agree; and for each fault that explains a disagreement, the path with it undone."""
    item, step = "poses: path and orientation", round(STRETCH / 0.05)
    slip, lean = disagreement(path.xyz, path.turn, step)
    if math.isnan(slip):
        return Finding(item, UNKNOWN, "the car hardly moves"), {}
    said = f"the path runs {math.degrees(slip):.1f} degrees off the car's x axis (median), which leans by {math.degrees(lean):.1f} degrees"
    if slip < SLIP and lean < TILT:
        return Finding(item, OK, said), {}
    found: dict[str, tuple[float, Path]] = {}
    for fault, changes in CHANGES.items():
        for change in changes:
            xyz, turn = change(path.xyz, path.turn)
            after, leans = disagreement(xyz, turn, step)
            if after < SLIP and leans < TILT and after < found.get(fault, (math.inf,))[0]:
                found[fault] = (after, Path(path.t, xyz, turn))
    best = min((after for after, _ in found.values()), default=0.0)
    order = sorted((fault for fault in found if found[fault][0] < best + math.radians(2)), key=lambda fault: found[fault][0])
    if not order:
        return Finding(item, WRONG, said, ("poses-inconsistent",)), {}
    return Finding(item, WRONG, said, tuple(order)), {fault: found[fault][1] for fault in order}


def rates(track: Track) -> Finding:
    """How often there is a pose, and the longest gap."""
    steps = np.diff(track.times_us) / 1e6
    rate, gap = 1 / float(np.median(steps)), float(steps.max())
    said = f"{len(track.times_us):,} poses, {rate:.1f} per second, longest gap {gap:.2f} s"
    if gap > 0.5:
        return Finding("poses: rate", ATTENTION, said, ("pose-gaps",))
    if rate < 5:
        return Finding("poses: rate", ATTENTION, said, ("pose-rate",))
    return Finding("poses: rate", OK, said)


def wheels(track: Track, path: Path) -> Finding:
    """The wheels' speed against the poses'."""
    item = "poses: speed against the wheels"
    if track.speed is None:
        return Finding(item, UNKNOWN, "no wheel speed is given (poses.speed)")
    t = np.arange(path.t[0], path.t[-1], 0.5)
    by_poses = path.distance(t) / 0.5
    by_wheels = np.interp((t[1:] + t[:-1]) / 2, track.times_us / 1e6, np.abs(track.speed))
    moving = np.maximum(by_poses, by_wheels) > 1.5
    if moving.sum() < 4:
        return Finding(item, UNKNOWN, "the car hardly moves")
    ratio = float(np.median(by_wheels[moving]) / max(np.median(by_poses[moving]), 1e-3))
    off = float(np.median(np.abs(by_wheels - by_poses)[moving] / np.maximum(by_poses, by_wheels)[moving]))
    said = f"the wheels say {ratio:.2f} times the poses' speed, {100 * off:.0f} % off moment by moment (medians)"
    if 0.9 < ratio < 1.11 and off < 0.12:
        return Finding(item, OK, said)
    return Finding(item, WRONG, said, ("pose-speed", "wheel-speed"))
