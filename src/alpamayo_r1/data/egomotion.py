"""Where the car was, as a function of time: a log of poses in, paths in the ego frame at t0 out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.geometry import to_frame
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import DT, F, H, Trajectory
from alpamayo_r1.data.calibration import POSITION, QUATERNION
from alpamayo_r1.data.clock import GAP_US, MAX_GAP_US, gaps_within, known_at, read_times
from alpamayo_r1.data.errors import BadEgomotion, OutOfRange
from alpamayo_r1.data.tables import numbers, reading

if TYPE_CHECKING:
    import pandas as pd
    from physical_ai_av.utils.interpolation import RigidTransformInterpolator

STEP_US = round(DT * 1e6)
PAST_US = STEP_US * np.arange(1 - H, 1)
FUTURE_US = STEP_US * np.arange(1, F + 1)

FARTHEST = 1e7
"""Metres from its origin within which a log's positions lie."""


@dataclass(frozen=True)
class Egomotion:
    """The log of one clip: translation by cubic spline, rotation by slerp (the devkit's interpolator). times_us i64[T] of its rows.

    grain: metres x, y, z to which histories are rounded, 0 for none.
    """

    pose: RigidTransformInterpolator
    times_us: np.ndarray
    clip_id: str
    grain: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def start_us(self) -> int:
        """Time of the first row."""
        return int(self.times_us[0])

    @property
    def end_us(self) -> int:
        """Time of the last row."""
        return int(self.times_us[-1])

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

    def history(self, t0_us: int, steps: int = H) -> tuple[Trajectory, tuple[Note, ...]]:
        """The poses up to t0, 16 or more, and a note where a gap of the log was bridged.

        Raises:
            OutOfRange: the log begins later. BadEgomotion: a gap over MAX_GAP_US, or a motion that no car makes.
        """
        first_us = t0_us - STEP_US * (steps - 1)
        if first_us < self.start_us or t0_us > self.end_us:
            raise self._out_of_range(t0_us, f"{steps} poses up to", "choose a later t0, or fewer steps.")
        gap, begins = gaps_within(self.times_us, first_us, t0_us)
        if gap > MAX_GAP_US:
            raise BadEgomotion(
                f"egomotion of clip {self.clip_id} has no rows for {gap / 1e6:.2f} s from {begins / 1e6:.3f} s on, in the history.",
                f"gaps of at most {MAX_GAP_US / 1e6:g} s",
                "choose another t0, or leave this clip out.",
            )
        path = rounded(self.path(t0_us, STEP_US * np.arange(1 - steps, 1)), self.grain)
        try:
            check_history(path, steps)
        except ValueError as error:
            raise BadEgomotion(
                f"egomotion of clip {self.clip_id} before t0 = {t0_us / 1e6:g} s is no car's: {error}.",
                "metres, a car that moves along its x axis, unit quaternions x, y, z, w that turn ego to world",
                "mend the log, or leave this clip out.",
            ) from error
        if gap <= GAP_US:
            return path, ()
        text = f"the ego motion has no rows for {gap / 1e6:.2f} s from {begins / 1e6:.3f} s on; the history is interpolated across"
        return path, (Note("egomotion-gap", text),)

    def future(self, t0_us: int) -> Trajectory | None:
        """The 64 poses after t0; NaN where the log does not reach or has a gap over MAX_GAP_US; None where none is known."""
        known = known_at(self.times_us, t0_us + FUTURE_US)
        if not known.any():
            return None
        path = self.path(t0_us, FUTURE_US[known])
        xyz, rot = torch.full((F, 3), torch.nan), torch.full((F, 3, 3), torch.nan)
        xyz[known], rot[known] = path.xyz, path.rot
        return Trajectory(xyz, rot)

    def whole_future(self, t0_us: int, steps: int = F) -> Trajectory:
        """That many poses after t0, all of them known. Raises OutOfRange where the log ends earlier or has a gap over MAX_GAP_US."""
        if t0_us + STEP_US * steps > self.end_us:
            raise self._out_of_range(t0_us, f"{steps} steps after", "choose an earlier t0, or fewer steps.")
        after_us = STEP_US * np.arange(1, steps + 1)
        if not known_at(self.times_us, t0_us + after_us).all():
            raise OutOfRange(
                f"the ego motion of clip {self.clip_id} has a gap in the {steps * DT:g} s after t0 = {t0_us / 1e6:g} s.",
                f"gaps of at most {MAX_GAP_US / 1e6:g} s",
                "choose another t0, or fewer steps.",
            )
        return self.path(t0_us, after_us)

    def _out_of_range(self, t0_us: int, what: str, do: str) -> OutOfRange:
        reach = f"a log that has them, within {self.start_us / 1e6:.3f} s .. {self.end_us / 1e6:.3f} s"
        return OutOfRange(f"the ego motion of clip {self.clip_id} does not have {what} t0 = {t0_us / 1e6:g} s.", reach, do)


def rounded(path: Trajectory, grain: tuple[float, float, float]) -> Trajectory:
    """A path whose x, y, z are multiples of `grain`, as they are where that is 0.

    A step of 0 lies on the edge between two of the model's bins: what is less than any log knows would toggle its tokens.
    """
    each = torch.tensor(grain)
    xyz = torch.where(each > 0, (path.xyz / each.clamp_min(1e-9)).round() * each, path.xyz)
    return Trajectory(xyz, path.rot)


def read_egomotion(data: pd.DataFrame, clip_id: str, grain: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Egomotion:
    """A table of timestamp (us), qx..qw, x, y, z -> Egomotion, its histories rounded to `grain`. Raises BadEgomotion."""
    from physical_ai_av.utils.interpolation import RigidTransformInterpolator
    from scipy.spatial.transform import RigidTransform, Rotation

    name = f"egomotion of clip {clip_id}"
    times = read_times(data, name, BadEgomotion)
    quaternion, xyz = numbers(data, QUATERNION, name, BadEgomotion), numbers(data, POSITION, name, BadEgomotion)
    if len(times) < 4:
        raise BadEgomotion(f"{name} has {len(times)} rows.", "at least 4", "leave this clip out.")
    with np.errstate(invalid="ignore", over="ignore"):
        broken = ~np.isfinite(np.concatenate([quaternion, xyz], 1)).all(1) | (np.abs(np.linalg.norm(quaternion, axis=1) - 1) > 0.01)
        broken |= np.abs(xyz).max(1) > FARTHEST
    if broken.any():
        row = int(np.argmax(broken))
        raise BadEgomotion(
            f"{name} has {int(broken.sum())} broken poses, the first in row {row} ({times[row] / 1e6:.3f} s).",
            f"finite positions within {FARTHEST:g} m and unit quaternions in every row",
            "drop these rows (the pose is interpolated across), or leave this clip out.",
        )
    with reading(BadEgomotion, name, "poses that can be interpolated"):
        pose = RigidTransform.from_components(rotation=Rotation.from_quat(quaternion), translation=xyz)
        return Egomotion(RigidTransformInterpolator(times, pose), times, clip_id, grain)
