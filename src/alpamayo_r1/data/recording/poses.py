"""Poses as people log them -> the rear axle's in one frame: z up, right-handed, x forward y left z up on the car, integer microseconds.

The recording's own frame is kept, so that plans go back: `Track.to_own`.
"""

from __future__ import annotations

import csv
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from alpamayo_r1.data.clock import LATEST_US, read_times
from alpamayo_r1.data.errors import BadRecording
from alpamayo_r1.data.recording.fields import bad
from alpamayo_r1.data.recording.schema import TO_BODY, UNITS, Orientation, Poses
from alpamayo_r1.data.recording.smoothing import Effect, smoothed
from alpamayo_r1.data.recording.wgs84 import from_enu, to_enu
from alpamayo_r1.data.tables import MAX_ROWS, numbers, read_parquet, reading

if TYPE_CHECKING:
    import pandas as pd
    from scipy.spatial.transform import Rotation

MOST_BYTES = 2**30
"""The largest CSV that is read: an hour at 100 Hz has about 50 MB."""

TEXTS = "utf-8-sig"
"""Encoding of a table, with or without the mark that some programs put before it."""

TEXT = "look for rows that hold a text or a unit: one makes the whole column text."
"""What to do about a column that isn't numbers."""

DATE = "drop rows without one; write a date as seconds since 1970, in UTC"
"""What to do about times that aren't numbers."""

SLOW = 0.5
"""m/s below which a heading from motion is held."""

TO_ENU = {"ENU": np.eye(3), "local": np.eye(3), "WGS84": np.eye(3), "NED": np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])}
"""Axes of a world -> the matrix that turns its vectors to east, north, up (or a local frame's own, z up)."""


@dataclass(frozen=True)
class Track:
    """Where the rear axle was: times_us i64[T] on the poses' clock, xyz f64[T, 3] from `origin` on, quaternion f64[T, 4] x y z w.

    origin: the first position in the recording's own frame (degrees and metres where that is WGS84). speed: of the wheels, m/s, or None.
    smoothed: what smoothing did to them, None where it was not asked for.
    """

    times_us: np.ndarray
    xyz: np.ndarray
    quaternion: np.ndarray
    origin: np.ndarray
    world: str
    lever_arm: np.ndarray
    speed: np.ndarray | None
    smoothed: Effect | None = None

    def to_own(self, xyz: np.ndarray) -> np.ndarray:
        """Positions [..., 3] of the track's frame -> the recording's own: x, y, z in its axes, or lat, lon, height."""
        if self.world == "WGS84":
            return from_enu(xyz, self.origin)
        return xyz @ TO_ENU[self.world] + self.origin

    def table(self, first_us: int, last_us: int, zero_us: int) -> pd.DataFrame:
        """The rows from first to last as a table of ego motion, its clock starting at zero_us."""
        import pandas as pd

        low, high = np.searchsorted(self.times_us, [first_us, last_us])
        rows = slice(max(int(low) - 2, 0), int(high) + 2)
        values = np.concatenate([self.quaternion[rows], self.xyz[rows]], 1)
        table = pd.DataFrame(values, columns=["qx", "qy", "qz", "qw", "x", "y", "z"])
        table.insert(0, "timestamp", self.times_us[rows] - zero_us)
        return table


def read_table(file: Path, name: str) -> pd.DataFrame:
    """A CSV or parquet table of outside. Raises BadRecording."""
    import pandas as pd

    if file.suffix == ".parquet":
        return read_parquet(file, name, BadRecording)
    if file.suffix not in (".csv", ".txt"):
        raise bad(f"{name} is called {file.name}", "a table that ends in .csv or .parquet", "convert it")
    if file.stat().st_size > MOST_BYTES:
        raise bad(f"{name} has {file.stat().st_size:,} bytes", f"at most {MOST_BYTES:,}", "split the recording, or use parquet")
    with reading(BadRecording, name, "a table with a header line and commas", "look at its first lines."):
        separator, names = _header(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of a comma at the end of each row
            table = pd.read_csv(
                file, sep=separator, names=names, skiprows=1, index_col=False, nrows=MAX_ROWS + 1, skipinitialspace=True, encoding=TEXTS
            )
    if len(table) > MAX_ROWS:
        raise bad(f"{name} has over {MAX_ROWS:,} rows", f"at most {MAX_ROWS:,}", "split the recording")
    return table


def _header(file: Path) -> tuple[str, list[str]]:
    """What stands between the columns of a text table (a comma, semicolon, tab, or blanks), and their names, freed of a # before them.

    Raises:
        ValueError: the first row has more columns than the header.
    """
    with file.open(encoding=TEXTS, newline="") as lines:
        header, row = lines.readline().strip().lstrip("# "), lines.readline().strip()
    counts = {separator: header.count(separator) for separator in ",;\t"}
    separator = max(counts, key=lambda one: counts[one]) if any(counts.values()) else " " if " " in row else ","
    names, values = (
        [value.strip() for value in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])] for line in (header, row)
    )
    if len(names) < len(values) and any(values[len(names) :]):
        raise ValueError(f"its header names {len(names)} columns, but its first row has {len(values)}")
    names = [name or f"column {number}" for number, name in enumerate(names)]
    return r"\s+" if separator == " " else separator, names


def to_microseconds(table: pd.DataFrame, column: str, unit: str, name: str, offset: float = 0.0) -> np.ndarray:
    """A column of times in a unit -> i64[T] microseconds, later by `offset` seconds. Raises BadRecording where they don't increase."""
    import pandas as pd

    if column not in table.columns:
        raise bad(
            f"{name} has no column {column!r}, but {', '.join(map(str, table.columns[:20]))}", f"a column {column!r}", "name the right one"
        )
    values = table[column]
    if values.dtype.kind == "O":  # numbers written as text, as some programs do in parquet
        with suppress(ValueError, TypeError):
            values = cast("pd.Series", pd.to_numeric(values))
    if values.dtype.kind not in "iuf" or bool(values.isna().any()):
        raise bad(f"the column {column!r} of {name} is of type {values.dtype} or has holes", "a number in every row", DATE)
    if values.dtype.kind == "f":
        scaled = values.to_numpy(np.float64) * UNITS[unit]
        if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) > LATEST_US:
            raise bad(
                f"the column {column!r} of {name} reaches {np.abs(scaled).max():.3g} us", "times in the unit that you gave", "check `unit`"
            )
        micro = np.round(scaled).astype(np.int64)
    else:
        exact = values.to_numpy().astype(object) if unit == "s" else values.to_numpy()
        micro = (
            np.array(exact * 10**6, dtype=np.int64)
            if unit == "s"
            else (exact * 1000 if unit == "ms" else exact // 1000 if unit == "ns" else exact)
        )
    stamps = pd.DataFrame({"timestamp": np.asarray(micro, dtype=np.int64) + round(offset * 1e6)})
    return read_times(stamps, f"{name} (column {column}, unit {unit})", BadRecording)


def read_track(poses: Poses) -> Track:
    """The poses of a recording. Raises BadRecording; what a car can't do is refused where a history is read."""
    from scipy.spatial.transform import Rotation

    name = f"poses.file ({poses.file.name})"
    table = read_table(poses.file, name)
    times = to_microseconds(table, poses.time, poses.unit, name, poses.clock_offset)
    if len(times) < 4:
        raise bad(f"{name} has {len(times)} rows", "at least 4 poses", "give the whole log")
    given = numbers(table, poses.position, name, BadRecording, TEXT)
    given = given if given.shape[1] == 3 else np.concatenate([given, np.zeros((len(given), 1))], 1)
    place, origin = _places(given, poses.world, name)
    lever, effect = np.array(poses.lever_arm), None
    if poses.smooth is not None and poses.smooth.seconds:  # before a heading is taken from their motion
        place, effect = smoothed(times / 1e6, place, Rotation.identity(len(place)), None, poses.smooth)
    turn = _turns(table, poses.orientation, times, place, name)
    speed = None if poses.speed is None else numbers(table, [poses.speed], name, BadRecording, TEXT)[:, 0] * poses.speed_scale
    xyz = place - turn.apply(lever)
    if not isinstance(turn, Rotation) or not np.isfinite(xyz).all():
        raise bad(f"{name} holds NaN", "numbers in every row", "drop these rows: poses are interpolated across")
    if poses.smooth is not None and not poses.smooth.seconds:
        xyz, effect = smoothed(times / 1e6, xyz, turn, speed, poses.smooth)
    return Track(times, xyz, turn.as_quat(), origin, poses.world, lever, speed, effect)


def _places(given: np.ndarray, world: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions from the first one on in east, north, up (or the local frame's own axes), and the first one as given."""
    broken = ~np.isfinite(given).all(1)
    if broken.any():
        row = int(np.argmax(broken))
        raise bad(
            f"{name} has {int(broken.sum())} rows without a position, the first in row {row}", "numbers in every row", "drop these rows"
        )
    origin = given[0].copy()
    if world != "WGS84":
        return (given - origin) @ TO_ENU[world].T, origin
    if np.abs(given[:, 0]).max() > 90 or np.abs(given[:, 1]).max() > 360:
        raise bad(
            f"{name} has latitudes to {np.abs(given[:, 0]).max():.4g} and longitudes to {np.abs(given[:, 1]).max():.4g}",
            "degrees: latitude within 90, longitude within 360",
            "put latitude first: position.columns: [lat, lon, height]",
        )
    return to_enu(given, origin), origin


def _turns(table: pd.DataFrame, how: Orientation, times: np.ndarray, place: np.ndarray, name: str) -> Rotation:
    """Rotations from forward, left, up to the track's frame."""
    from scipy.spatial.transform import Rotation

    if how.kind == "from_motion":
        return _about_z(heading_of(times, place))
    values = numbers(table, how.columns, name, BadRecording, TEXT)
    if not np.isfinite(values).all():
        row = int(np.argmax(~np.isfinite(values).all(1)))
        raise bad(f"{name} has no orientation in row {row}", "numbers in every row", "drop these rows")
    if how.kind == "quaternion":
        length = np.linalg.norm(values, axis=1)
        if np.abs(length - 1).max() > 0.01:
            row = int(np.argmax(np.abs(length - 1)))
            raise bad(
                f"{name} has a quaternion of length {length[row]:.3g} in row {row}", "unit quaternions", f"check the columns {how.columns}"
            )
        turn = Rotation.from_quat(values if how.order == "xyzw" else values[:, [1, 2, 3, 0]])
        turn = turn.inv() if how.inverse else turn
    else:
        values = np.radians(values) if how.degrees else values
        most = float(np.abs(values).max())
        if not how.degrees and most > 20:
            raise bad(f"{how.columns} of {name} reach {most:.4g} rad", "radians within +-2 pi", "say `unit: deg` if they are degrees")
        if how.kind == "heading":  # clockwise from north
            return _about_z(np.pi / 2 - values[:, 0])
        turn = Rotation.from_euler("ZYX", values[:, ::-1]) if how.kind == "euler" else _about_z(values[:, 0])
    return Rotation.from_matrix(TO_ENU[how.world] @ turn.as_matrix() @ TO_BODY[how.body])


def _about_z(yaw: np.ndarray) -> Rotation:
    """Turns [T] about the vertical axis."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.stack([np.zeros_like(yaw), np.zeros_like(yaw), yaw], -1))


def heading_of(times_us: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Yaw [T] of the direction of motion, held where the car is slower than SLOW; for logs of positions alone."""
    seconds = (times_us - times_us[0]) / 1e6
    ahead, behind = (np.stack([np.interp(seconds + d, seconds, place[:, i]) for i in (0, 1)], -1) for d in (0.25, -0.25))
    way = ahead - behind
    moving = np.linalg.norm(way, axis=1) > SLOW * 0.5
    if not moving.any():
        return np.zeros(len(place))
    yaw = np.unwrap(np.arctan2(way[moving, 1], way[moving, 0]))
    return np.interp(seconds, seconds[moving], yaw)
