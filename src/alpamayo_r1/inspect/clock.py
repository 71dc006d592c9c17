"""How far the cameras' clock is off the poses': the shift at which speed and turn by the pictures follow those by the poses best."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from alpamayo_r1.inspect.motion import Motion
from alpamayo_r1.inspect.paths import Path

REACH, STEP = 0.8, 0.01
"""Seconds of shift that are tried, and their steps."""

OVERLAP = 2.0
"""By how much the error is larger than of independent steps: neighbouring ones share pictures."""


@dataclass(frozen=True)
class Shift:
    """seconds: what to add to the cameras' times; error: its standard error, infinite where nothing changes and so nothing can be told."""

    seconds: float
    error: float


def shift_of(motion: Motion, times: np.ndarray, path: Path, *, road: bool, turns: bool) -> Shift:
    """The shift of pictures at times [N, 2] against a path. road, turns: whether the road tells speeds, and the strip above the horizon
    turns, as it does ahead.

    For each shift d the two series are fitted as speed_pictures = r speed_poses(t + d) and turn_pictures = s turn_poses(t + d) + b; the
    cost is the mean of both residuals over their own noise. The error is noise over the root of the summed squared slopes of the series.
    """
    if len(times) < 12:
        return Shift(0.0, math.inf)
    length = np.diff(times, axis=1)[:, 0]
    ahead = np.where(motion.sure, motion.step[:, 0], np.nan) / length
    turn = np.where(motion.match_far > 0.55, motion.turn, np.nan) / length
    shifts = np.arange(-REACH, REACH + STEP / 2, STEP)
    middle = times.mean(1)
    speed_table, turn_table = _tables(path, middle, float(np.median(length)), shifts)
    costs, errors = np.zeros(len(shifts)), 0.0
    series = ((ahead, speed_table, False, 0.02 / length[0]), (turn, turn_table, True, 0.0015 / length[0]))
    for seen, table, offset, floor in (one for one, told in zip(series, (road, turns)) if told):
        fits = [_residual(table[i], seen, offset) for i in range(len(shifts))]
        if any(fit is None for fit in fits):
            continue
        noise = max(min(fit for fit in fits if fit is not None), floor)
        costs += np.array([(fit or 0.0) ** 2 for fit in fits]) / noise**2
        here = int(np.argmin([fit or 0.0 for fit in fits]))
        errors += _told(np.gradient(table, STEP, axis=0)[here], table[here], seen, offset) / noise**2
    if not errors:
        return Shift(0.0, math.inf)
    best = int(np.argmin(costs))
    fraction = 0.0
    if 0 < best < len(costs) - 1:
        low, mid, high = costs[best - 1 : best + 2]
        fraction = 0.5 * (low - high) / max(low - 2 * mid + high, 1e-9)
    return Shift(float(shifts[best] + STEP * np.clip(fraction, -1, 1)), OVERLAP / math.sqrt(errors))


def _tables(path: Path, middle: np.ndarray, length: float, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Speed and turn rate by the poses over a step about each moment, for each shift: [S, N]; NaN beyond the path."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path.xyz[:, :2], axis=0), axis=1))])
    found = []
    for series in (along, path.yaw):
        ends = [np.interp(middle[None] + shifts[:, None] + side * length / 2, path.t, series, np.nan, np.nan) for side in (-1, 1)]
        found.append((ends[1] - ends[0]) / length)
    return found[0], found[1]


def _told(slope: np.ndarray, given: np.ndarray, seen: np.ndarray, offset: bool) -> float:
    """Summed squares of how a series changes with the shift, less what a factor (and an offset) could do as well."""
    known = np.isfinite(given) & np.isfinite(seen) & np.isfinite(slope)
    columns = np.stack([given[known], np.ones(int(known.sum()))], 1)[:, : 1 + offset]
    fit = np.linalg.lstsq(columns, slope[known], rcond=None)[0]
    return float(((slope[known] - columns @ fit) ** 2).sum())


def _residual(given: np.ndarray, seen: np.ndarray, offset: bool) -> float | None:
    """Robust size of what is left of a series after the best factor (and offset); None where too little is known."""
    known = np.isfinite(given) & np.isfinite(seen)
    if known.sum() < 12:
        return None
    x, y = given[known], seen[known]
    columns = np.stack([x, np.ones_like(x)], 1) if offset else x[:, None]
    weight, off, scale = np.ones(len(x)), np.abs(y), 1.0
    for _ in range(4):
        fit = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        off = np.abs(y - columns @ fit)
        scale = max(1.5 * float(np.median(off)), 1e-6)
        weight = 1 / np.sqrt(1 + (off / (2 * scale)) ** 2)
    return float(np.sqrt(np.mean(np.minimum(off, 3 * scale) ** 2)))
