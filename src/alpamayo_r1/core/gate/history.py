"""A history is a car's motion, or it is refused with the likely cause.

Every pose may be valid and the sequence still impossible. Seen from the car, with d_t the step from pose t to t+1 and R the mean of their
rotations, b_t = R^T d_t is where the car went in its own axes. A car goes along its own x axis (either way) and turns no tighter than its
steering allows, so over any stretch of length L that turns by w

    |sum b_y| <= SLIP L + LEVER |w| + NOISE          |sum b_z| <= SLOPE L + NOISE          |w| <= CURVATURE L + SWAY

LEVER: poses of another point of the car than the rear axle. Two stretches that slip differently are a path that turns otherwise than its
rotations. The second difference of positions over dt^2 is an acceleration: above JUMP no car's.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch

from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import DT, Trajectory

LEAP = 15.0
"""Metres that no car goes in a step of the history."""
FAST = 40.0
"""m/s from which a history is noted: the model's history tokens end at 4 m per step."""
JUMP = 30.0
"""m/s^2 between two steps that no car reaches: about 3 g."""
BACKWARD = 10.0
"""m/s that no car reverses at."""
GRID = 0.05
"""Metres; positions on a coarser grid than this are refused."""
SLIP, LEVER, NOISE = 0.15, 1.5, 0.12  # sideways: per metre, metres per radian of turn, metres
TWIST = 0.1  # radians by which the path may turn otherwise than the rotations
MOVES = 0.4  # metres over a third of the history from which the path has a direction
SLOPE = 0.4  # up or down per metre, for rotations that know yaw alone
CURVATURE, SWAY = 0.4, 0.08  # 1/m, and radians of turn at rest
SPIN = 0.3  # radians between two rotations
TILT = 0.35  # radians of roll or pitch, at t0 and since
END, END_YAW = 0.5, 0.1  # metres and radians off the ego frame at t0

ROTATIONS = (
    "rotations that are the inverse (world-to-ego where ego-to-world is expected: transpose them), or made from quaternions in another "
    "order (w first, where x, y, z, w was read)"
)
AXES = "axes in another order (y forward, y to the right, or x and y swapped; expected x forward, y left, z up)"
FRAME = "positions that were moved to the car but not turned into its axes"


def check_history(history: Trajectory, steps: int = 16) -> tuple[Note, ...]:
    """Notes on a history of [steps] poses that ends in the ego frame at t0. It costs about 0.2 ms.

    Raises:
        TypeError: not tensors of floating-point numbers.
        ValueError: another shape or rate, NaN, no rotations, another end, or a motion that no car makes; it names the likely cause.
    """
    xyz, rot = poses(history, steps)
    with np.errstate(over="ignore", invalid="ignore"):  # numbers near the end of their range are refused below
        check_rotations(rot)
        check_end(xyz, rot)
        check_steps(xyz)
        check_grid(xyz)
        check_turns(xyz, rot)
        check_direction(xyz, rot)
        return note_speed(xyz)


def poses(history: Trajectory, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The history as f64 arrays xyz [steps, 3] and rot [steps, 3, 3], after all checks of type, shape, rate and finiteness."""
    if not isinstance(history, Trajectory):
        raise TypeError(f"the history is of type {type(history).__name__}, expected a Trajectory(xyz [{steps}, 3], rot [{steps}, 3, 3])")
    for name, value in (("xyz", history.xyz), ("rot", history.rot)):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"the history's {name} is {kind}, expected a torch.Tensor of floating-point numbers")
    if history.xyz.ndim != 2 or history.xyz.shape[-1] != 3 or history.rot.shape != (*history.xyz.shape, 3):
        raise ValueError(
            f"history xyz {tuple(history.xyz.shape)} and rot {tuple(history.rot.shape)}: expected [{steps}, 3] and [{steps}, 3, 3]"
        )
    if len(history.xyz) != steps:
        raise ValueError(f"history has {len(history.xyz)} steps, expected {steps} at 10 Hz, the last one at t0")
    if not isinstance(history.dt, Real) or not abs(history.dt - DT) <= 1e-3:
        raise ValueError(f"history has {history.dt} s between its steps, expected {DT} s: resample it to 10 Hz, or speeds come out wrong")
    xyz, rot = (value.detach().to("cpu", torch.float64).numpy() for value in (history.xyz, history.rot))
    if not (np.isfinite(xyz).all() and np.isfinite(rot).all()):
        raise ValueError("history holds NaN or infinity: check the ego motion log")
    return xyz, rot


def check_rotations(rot: np.ndarray) -> None:
    """Raises unless rot [T, 3, 3] are rotations: R R^T = 1 within 0.01, and no mirror images."""
    off = np.abs(rot @ rot.swapaxes(-1, -2) - np.eye(3)).max()
    if off > 0.01:
        raise ValueError(f"history's rot is no rotation (R R^T is {off:.2g} off the identity): give matrices that turn ego to frame at t0")
    if np.linalg.det(rot).min() < 0:
        raise ValueError("history's rot mirrors (its determinant is -1): one axis points the wrong way; expected x forward, y left, z up")


def check_end(xyz: np.ndarray, rot: np.ndarray) -> None:
    """Raises unless a history ends in the ego frame at t0: at the origin, looking along x, upright."""
    place = tuple(round(x, 2) for x in xyz[-1].tolist())
    if np.linalg.norm(xyz[-1]) > END:
        order = " (it starts there: is the newest pose first?)" if np.linalg.norm(xyz[0]) < END else ""
        raise ValueError(f"history ends at {place} m, expected the origin{order}: give positions in the ego frame at t0")
    yaw, tilt = float(np.arctan2(rot[-1, 1, 0], rot[-1, 0, 0])), tilts(rot)
    if abs(yaw) > END_YAW:
        raise ValueError(f"history ends with a yaw of {yaw:.2f} rad, expected 0: give positions and rotations in the ego frame at t0")
    if tilt.max() > TILT:
        raise ValueError(
            f"history's rot leans by {tilt.max():.2f} rad, expected z up within {TILT} rad. Likely cause: {ROTATIONS}, or a frame whose z "
            "is not up (a camera's)"
        )


def tilts(rot: np.ndarray) -> np.ndarray:
    """The angle between the car's z axis and the frame's, [T] radians."""
    return np.arccos(np.clip(rot[:, 2, 2], -1, 1))


def check_steps(xyz: np.ndarray) -> None:
    """Raises if a step is longer than LEAP, or two steps differ by more than JUMP allows."""
    step = np.diff(xyz, axis=0)
    length = np.linalg.norm(step, axis=1)
    if length.max() > LEAP:
        raise ValueError(
            f"history moves {length.max():.4g} m in a step of {DT} s, expected at most {LEAP:g}: give metres, a position every {DT} s "
            "(another rate than 10 Hz?)" + likely_unit(float(np.median(length)) / DT)
        )
    jump = np.linalg.norm(np.diff(step, axis=0), axis=1) / DT**2
    at = int(jump.argmax())
    if jump[at] > JUMP:
        raise ValueError(
            f"history jumps {(len(xyz) - 2 - at) * DT:.1f} s before t0 (pose {at + 1}): steps of {length[at]:.2f} and "
            f"{length[at + 1]:.2f} m in {DT} s are {jump[at]:.0f} m/s^2, expected at most {JUMP:g} (3 g). Likely cause: a pose of another "
            "time or frame, a gap in the log, another rate than 10 Hz, a unit other than metres, or float32 positions on a coarse grid "
            "(UTM): subtract the origin in float64"
        )


def likely_unit(speed: float) -> str:
    """A guess why a speed in m/s is impossible."""
    for unit, scale in (("centimetres", 100), ("millimetres", 1000)):
        if 1 <= speed / scale <= 50:
            return f"; these look like {unit}"
    return ""


def check_grid(xyz: np.ndarray) -> None:
    """Raises if positions lie on a grid coarser than GRID in some horizontal direction, as UTM in float32.

    Second differences are small and smooth for a car; on a grid all are multiples of its pitch along its axis, of both signs. Every degree
    is tried.
    """
    bend = np.diff(xyz[:, :2], 2, axis=0)
    if np.abs(bend).max() < GRID / 2:
        return
    signed = DIRECTIONS @ bend.T  # (180, T - 2)
    both = (signed.max(1) > GRID / 2) & (signed.min(1) < -GRID / 2)
    along = np.abs(signed)
    pitch = np.where(along > GRID / 2, along, np.inf).min(1, keepdims=True)
    off = np.abs(along / pitch - np.round(along / pitch)) * pitch
    seen = both & (off.max(1) < GRID / 12) & ((along > GRID / 2).sum(1) >= 4) & (pitch[:, 0] > 1.1 * GRID)
    if seen.any():
        raise ValueError(
            f"history's positions lie on a grid of about {pitch[seen].min() * 100:.0f} cm, expected finer than {GRID * 100:g} cm. Likely "
            "cause: world coordinates (UTM) in float32, or rounded ones: subtract the car's position at t0 in float64"
        )


DIRECTIONS = np.stack([np.cos(np.radians(np.arange(180.0))), np.sin(np.radians(np.arange(180.0)))], 1)
"""Unit vectors a degree apart, (180, 2)."""


def check_turns(xyz: np.ndarray, rot: np.ndarray) -> None:
    """Raises if the rotations spin faster than a car, or turn while it stands."""
    turn = np.einsum("tij,tij->t", rot[:-1], rot[1:])  # trace of R_t^T R_{t+1}
    spin = np.arccos(np.clip((turn - 1) / 2, -1, 1))
    at = int(spin.argmax())
    if spin[at] > SPIN:
        raise ValueError(
            f"history turns by {spin[at]:.2f} rad in a step of {DT} s, {(len(xyz) - 2 - at) * DT:.1f} s before t0, expected at most "
            f"{SPIN}. Likely cause: {ROTATIONS}"
        )
    length, yaw = float(np.linalg.norm(np.diff(xyz, axis=0), axis=1).sum()), yaws(rot)
    if abs(yaw[-1] - yaw[0]) > CURVATURE * length + SWAY:
        raise ValueError(
            f"history turns by {abs(yaw[-1] - yaw[0]):.2f} rad over {length:.3g} m, tighter than any car. Likely cause: positions in "
            f"kilometres or another unit (expected metres), or {ROTATIONS}"
        )


def yaws(rot: np.ndarray) -> np.ndarray:
    """Unwrapped yaw [T] of rotations [T, 3, 3]."""
    return np.unwrap(np.arctan2(rot[:, 1, 0], rot[:, 0, 0]))


def check_direction(xyz: np.ndarray, rot: np.ndarray) -> None:
    """Raises if the car moves across its own x axis, turns otherwise than its path, or reverses too fast."""
    step = np.diff(xyz, axis=0)
    own = np.einsum("tji,tj->ti", (rot[:-1] + rot[1:]) / 2, step)  # b_t: the steps in the car's axes
    length, yaw = np.linalg.norm(step, axis=1), yaws(rot)
    seen = []
    for first, last in stretches(len(step)):
        moved, way, turn = own[first:last].sum(0), length[first:last].sum(), yaw[last] - yaw[first]
        if abs(moved[1]) > SLIP * way + LEVER * abs(turn) + NOISE or abs(moved[2]) > SLOPE * way + NOISE:
            raise ValueError(f"history moves {describe(moved)} of the car's own x axis, expected along it. Likely cause: {cause(moved)}")
        seen.append((float(np.linalg.norm(moved[:2])), math.atan2(moved[1], abs(moved[0])) * np.sign(moved[0]), turn / (moved[0] or 1.0)))
    (before, slip, bend), _, (after, slipped, bent), _ = seen
    moves = min(before, after)
    if moves > MOVES and abs(slipped - slip) > TWIST + NOISE / moves + LEVER * abs(bent - bend):
        raise ValueError(
            f"history's path turns by {abs(slipped - slip):.2f} rad otherwise than its rotations. Likely cause: {ROTATIONS}, or y to the "
            "right (expected x forward, y left, z up)"
        )
    backward = -own[:, 0].min() / DT
    if backward > BACKWARD:
        raise ValueError(
            f"history reverses at {backward:.3g} m/s, expected at most {BACKWARD:g}. Likely cause: x pointing backward, or the newest pose "
            "first"
        )


def stretches(steps: int) -> tuple[tuple[int, int], ...]:
    """The thirds of the history and the whole, as ranges of steps."""
    third = max(steps // 3, 1)
    return (0, third), (third, steps - third), (steps - third, steps), (0, steps)


def describe(moved: np.ndarray) -> str:
    """The angle of a way [3] off the x axis, in words."""
    side, up = (float(np.degrees(np.arctan2(moved[i], abs(moved[0])))) for i in (1, 2))
    return f"{abs(side):.0f} degrees to the {'left' if side > 0 else 'right'}" + (f" and {up:.0f} degrees upwards" if abs(up) > 20 else "")


def cause(moved: np.ndarray) -> str:
    """What makes a car seem to move so in its own axes."""
    forward, side, up = np.abs(moved)
    if up > max(side, forward) / 2:
        return f"{ROTATIONS}, or a camera's axes (z forward)"
    if side > 3 * forward:
        return f"{AXES}, or {ROTATIONS}"
    return f"{ROTATIONS}, or {FRAME}, or {AXES}"


def note_speed(xyz: np.ndarray) -> tuple[Note, ...]:
    """A note where the history is faster than the model's tokens can say."""
    fastest = np.linalg.norm(np.diff(xyz, axis=0), axis=1).max() / DT
    if fastest < FAST - 1e-3:
        return ()
    text = (
        f"the history moves at {fastest:.1f} m/s: from {FAST:g} m/s on, the history tokens saturate (4 m per step), and the model sees a "
        "slower car. Check the unit (feet, km/h) and the rate"
    )
    return (Note("history-fast", text),)
