"""Columns of timestamps as they come from outside: integer microseconds that increase, with their gaps known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alpamayo_r1.core.notes import Note
from alpamayo_r1.data.errors import BadVideo, DataError
from alpamayo_r1.data.tables import reading

if TYPE_CHECKING:
    import pandas as pd

SHORTEST_US, LONGEST_US = 500, 500_000
"""Median time between two rows of a log in microseconds: 2 to 2000 per second; outside, the unit must be another."""

LATEST_US = 2**60
"""No moment is later: an epoch clock in microseconds stands at 1.8e15."""

STALE_PERIODS, STALE_US = 1.5, 250_000
"""A frame older at its time than so many periods of its camera is noted; older than so many microseconds, refused."""

GAP_US, MAX_GAP_US = 250_000, 500_000
"""A gap in the ego motion that is noted, and one across which no pose is interpolated."""


def moment(t0_us: float) -> int:
    """Microseconds of clip time as an int. Raises ValueError for what is no such number."""
    try:
        whole = int(t0_us)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        whole = None
    if whole is None or abs(whole) > LATEST_US:
        raise ValueError(f"t0_us is {str(t0_us)[:40]}, expected microseconds of clip time, such as 5_100_000")
    return whole


def rows_at(
    timestamps: np.ndarray, times_us: np.ndarray, period_us: float, name: str, otherwise: str
) -> tuple[np.ndarray, tuple[Note, ...]]:
    """The last row of a camera's clock at or before each time, and a note where its frame is old by then.

    period_us: between two frames. name: of the camera; otherwise: what else to do than to choose another t0.

    Raises:
        BadVideo: no frame that early, or one older at its time than STALE_US.
    """
    rows = np.searchsorted(timestamps, times_us, side="right") - 1
    if rows.min() < 0:
        raise BadVideo(f"{name} has no frame at {times_us.min() / 1e6:.3f} s.", "a frame at or before it", "choose a later t0.")
    age = times_us - timestamps[rows]
    oldest = int(np.argmax(age))
    said = f"{name} has no frame in the {age[oldest] / 1e6:.3f} s before {times_us[oldest] / 1e6:.3f} s"
    if age[oldest] > STALE_US:
        raise BadVideo(f"{said}.", f"frames at most {STALE_US / 1e6:g} s old", f"choose another t0, or {otherwise}.")
    if age[oldest] <= max(STALE_PERIODS * period_us, 1):
        return rows, ()
    return rows, (Note("frames-stale", f"{said}: an older picture stands for it"),)


def read_times(table: pd.DataFrame, name: str, kind: type[DataError]) -> np.ndarray:
    """The column `timestamp` as i64[T], in microseconds. `name` is for messages: "the egomotion of clip X".

    Raises:
        kind: no such column, not whole numbers, fewer than two, not strictly increasing, or steps that no log in microseconds has; the
        message guesses the unit.
    """
    column = integers(table, "timestamp", name, kind)
    steps = np.diff(column)
    if len(column) < 2 or not (steps > 0).all():
        row = int(np.argmax(steps <= 0)) + 1 if len(column) >= 2 else len(column)
        raise kind(
            f"the timestamps of {name} don't increase at row {row} of {len(column)}.",
            "at least two timestamps, each later than the one before",
            "sort the rows and drop duplicates, download the file again, or leave this clip out.",
        )
    if not SHORTEST_US <= np.median(steps) <= LONGEST_US or max(abs(int(column[0])), abs(int(column[-1]))) > LATEST_US:
        raise kind(
            f"the timestamps of {name} go from {column[0]} to {column[-1]} in steps of {np.median(steps):g}: {unit_of(steps)}.",
            f"microseconds, {SHORTEST_US:,} to {LONGEST_US:,} of them from row to row",
            "convert the column to int64 microseconds on the clip's clock.",
        )
    return column


def integers(table: pd.DataFrame, column: str, name: str, kind: type[DataError]) -> np.ndarray:
    """A column of whole numbers as i64[T]. Raises an error of that kind where it is missing, of another type or has holes."""
    if list(table.columns).count(column) != 1:
        raise kind(
            f"{name} has no column {column!r}, but {', '.join(map(str, table.columns[:20]))}.", f"one column {column!r}", "rename it."
        )
    values = table[column]
    if values.dtype.kind not in "iu" or bool(values.isna().any()):
        guess = ""
        if values.dtype.kind == "f" and column == "timestamp" and len(values) > 1:
            guess = f": {unit_of(np.diff(values.to_numpy(np.float64)))}"
        raise kind(
            f"the column {column!r} of {name} is of type {values.dtype}{guess}.",
            "whole numbers (int64) in every row" + (", in microseconds" if column == "timestamp" else ""),
            "convert the column, e.g. table.timestamp = (1e6 * seconds).round().astype('int64').",
        )
    with reading(kind, f"the column {column!r} of {name}", "whole numbers (int64)"):
        if values.dtype.kind == "u" and int(values.to_numpy().max()) > 2**62:
            raise OverflowError(f"{values.max()} is beyond int64")
        return values.to_numpy(dtype=np.int64, copy=True)


def unit_of(steps: np.ndarray) -> str:
    """What the steps between timestamps of a log of 2 to 2000 rows per second look like."""
    step = float(np.median(steps)) if len(steps) else float("nan")
    for unit, per_second in (("seconds", 1.0), ("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)):
        if per_second / 500 <= step <= per_second / 2:
            return f"these look like {unit}"
    return "these are in no usual unit"


def gaps_within(times_us: np.ndarray, first_us: int, last_us: int) -> tuple[int, int]:
    """The longest gap between rows around [first, last], and the time at which it begins, in microseconds."""
    low = max(int(np.searchsorted(times_us, first_us, side="right")) - 1, 0)
    high = min(int(np.searchsorted(times_us, last_us, side="left")), len(times_us) - 1)
    steps = np.diff(times_us[low : high + 1])
    if not len(steps):
        return 0, first_us
    longest = int(np.argmax(steps))
    return int(steps[longest]), int(times_us[low + longest])


def known_at(times_us: np.ndarray, asked_us: np.ndarray) -> np.ndarray:
    """Which of the asked times a log reaches: bool [T]; not those outside it, nor those in a gap over MAX_GAP_US."""
    after = np.searchsorted(times_us, asked_us, side="left")
    inside = (asked_us >= times_us[0]) & (asked_us <= times_us[-1])
    after = np.clip(after, 0, len(times_us) - 1)
    before = np.clip(after - 1, 0, None)
    return inside & ((times_us[after] == asked_us) | (times_us[after] - times_us[before] <= MAX_GAP_US))
