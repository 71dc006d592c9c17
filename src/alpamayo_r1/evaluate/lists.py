"""Lists of clips and times as people write them: text, CSV or parquet, with or without a header, in any common encoding of line ends."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alpamayo_r1.data.errors import DataError
from alpamayo_r1.data.ids import check_clip_id

ID_COLUMNS = ("key", "clip_id")
"""Names of the column of clip ids, the first that is there."""

HEADS = {*ID_COLUMNS, "clip", "clip_uuid", "id", "uuid"}
"""First words of a text's first line that make it a header."""

LONGEST_S = 1e6
"""Seconds of clip time that a t0 lies within."""

LARGEST = 64 * 2**20
"""Bytes of the longest list."""

Row = tuple[str, int | None]
"""A clip id, and t0 in microseconds where the list has one."""


def read_list(path: Path) -> list[Row]:
    """The rows of a list of clips, in order.

    .parquet: a column of ID_COLUMNS (or an index of that name), and t0 (s) or t0_us. Anything else is UTF-8 text: `clip_id` or
    `clip_id t0` with t0 in seconds on each line, separated by blanks, commas, semicolons or tabs; empty lines and `#` comments are passed
    over, and so are a byte order mark and a header that names the columns.

    Raises:
        ValueError: no such file, one too large or of another form, an id that can't be one, a t0 that is no time, or nothing in it.
    """
    check_file(path, "a list of clips", "FILE.parquet or FILE.txt (and for --clips: gold644 or a number, for --t0: seconds or grid)")
    rows = _from_parquet(path) if path.suffix == ".parquet" else _from_text(path)
    if not rows:
        raise ValueError(f"{path} holds no clip: write one clip id on each line")
    return rows


def check_file(path: Path, what: str, forms: str) -> None:
    """Raises ValueError unless there is such a file, of at most LARGEST bytes. what: it should hold; forms: that it may have."""
    if not path.is_file():
        raise ValueError(f"there is no file '{path}': give {forms}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size / 2**20:.0f} MB, expected {what} of at most {LARGEST / 2**20:.0f} MB")


def microseconds(seconds: Any, where: str) -> int:
    """A time in seconds as whole microseconds.

    Raises:
        ValueError: it is no number, not finite, or beyond LONGEST_S.
    """
    try:
        value = float(seconds)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {seconds!r}, expected seconds of clip time, such as 5.1") from None
    if not math.isfinite(value) or abs(value) > LONGEST_S:
        raise ValueError(f"{where} is {value:g} s, expected seconds of clip time between -{LONGEST_S:g} and {LONGEST_S:g}, such as 5.1")
    return round(value * 1e6)


def _from_text(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8, or give a .parquet") from None
    rows: list[Row] = []
    header: list[str] | None = None
    first = True
    for number, line in enumerate(lines, 1):
        line = line.split("#", 1)[0].strip()
        cells = [cell.strip() for cell in next(csv.reader([line.replace(";", ",").replace("\t", ",")]), [])]
        cells = cells if len(cells) > 1 else [word for cell in cells for word in cell.split()]
        if not line or not cells:
            continue
        where = f"line {number} of {path}"
        if first and HEADS & {cell.lower() for cell in cells}:
            header = ["key" if cell.lower() in HEADS else cell.lower() for cell in cells]
        else:
            rows.append(_row(dict(zip(header, cells)) if header else dict(zip(("key", "t0"), cells)), where))
            if header is None and len(cells) > 2:
                raise ValueError(f"{where} has {len(cells)} values, expected `clip_id` or `clip_id t0` with t0 in seconds")
        first = False
    return rows


def _from_parquet(path: Path) -> list[Row]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except Exception as error:  # whatever pyarrow and pandas raise for a broken file
        raise ValueError(f"{path} can't be read as parquet ({type(error).__name__}: {str(error)[:200]})") from None
    table = table.reset_index()
    columns = [name for name in table.columns if name in (*ID_COLUMNS, "t0", "t0_us")]
    if not any(name in ID_COLUMNS for name in columns):
        raise ValueError(f"{path} has the columns {', '.join(map(str, table))[:300]}: expected key or clip_id")
    records: Iterable[dict[Any, Any]] = table.filter(items=columns).to_dict(orient="records")
    return [_row(record, f"row {number} of {path}") for number, record in enumerate(records)]


def _row(cells: dict[Any, Any], where: str) -> Row:
    """One row from its cells by the names of their columns."""
    name = next((name for name in ID_COLUMNS if name in cells), None)
    if name is None:
        raise ValueError(f"{where} has no clip id")
    try:
        clip_id = check_clip_id(cells[name])
    except DataError as error:
        raise ValueError(f"{where}: {error}") from None
    if cells.get("t0_us") not in (None, ""):
        return clip_id, microseconds(_number(cells["t0_us"], f"t0_us in {where}") / 1e6, f"t0_us in {where}")
    if cells.get("t0") not in (None, ""):
        return clip_id, microseconds(cells["t0"], f"t0 in {where}")
    return clip_id, None


def _number(value: Any, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where} is {value!r}, expected microseconds") from None
