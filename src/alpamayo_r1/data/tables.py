"""Parquet tables and zip members as they come from outside: sizes judged first, damage given as our errors, columns typed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from alpamayo_r1.data.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS, MAX_TABLE = 5_000_000, 256 * 2**20
"""Rows and uncompressed bytes of the largest table that is read; the index of the released data set has 306,152 rows."""

MAX_VALUES = 100_000_000
"""Cells of the largest table that is read, those within lists included: many equal ones take few bytes until they are read."""

MAX_MEMBER = {"video": 256 * 2**20, "frame_timestamps": 16 * 2**20, "egomotion": 64 * 2**20, "surroundings": 16 * 2**20}
"""Bytes of the largest zip member that is read; ours and released ones have about 21 MB, 10 kB, 1 MB and 0.03 MB."""

WHOLE = "download the file again, or leave this clip out."


@contextmanager
def reading(kind: type[DataError], what: str, expected: str, do: str = WHOLE) -> Iterator[None]:
    """Gives whatever a library raises over damaged content as an error of that kind."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise kind(f"{what} can't be read ({type(error).__name__}: {said}).", expected, do) from error


def read_parquet(content: bytes | Path, name: str, kind: type[DataError], most_values: int = MAX_VALUES) -> pd.DataFrame:
    """A parquet table of at most MAX_ROWS rows, MAX_TABLE bytes and that many values. Raises an error of that kind."""
    import pandas as pd
    import pyarrow.parquet as pq

    def opened() -> IO[bytes] | Path:
        return io.BytesIO(content) if isinstance(content, bytes) else content

    with reading(kind, name, "a whole parquet file"):
        about = pq.read_metadata(opened())
        groups = [about.row_group(i) for i in range(about.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        values = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
        if about.num_rows > MAX_ROWS or size > MAX_TABLE or values > most_values:
            raise kind(
                f"{name} has {about.num_rows:,} rows of {values:,} values in {size:,} bytes.",
                f"at most {MAX_ROWS:,} rows, {most_values:,} values and {MAX_TABLE:,} bytes",
                WHOLE,
            )
        return pd.read_parquet(opened())


def numbers(table: pd.DataFrame | pd.Series, columns: Iterable[str], name: str, kind: type[DataError], do: str = WHOLE) -> np.ndarray:
    """Some columns of a table as f64[rows, columns] (of one row: f64[columns]). Raises an error of that kind where one isn't numbers."""
    columns = list(columns)
    there = list(table.index if table.ndim == 1 else table.columns)
    missing = [c for c in columns if c not in there]
    if missing or len(there) != len(set(there)):
        raise kind(
            f"{name} lacks {', '.join(missing)}." if missing else f"{name} has a column twice.",
            f"the columns {', '.join(columns)}, each once",
            f"it has {', '.join(map(str, there[:20]))}: rename or add what is missing.",
        )
    with reading(kind, f"a column of {name}", f"numbers in {', '.join(columns)}"):
        chosen = cast("pd.DataFrame | pd.Series", table[columns])
        text = [c for c in columns if (isinstance(chosen[c], str) if table.ndim == 1 else chosen[c].dtype.kind not in "iuf")]
        if text:
            raise kind(f"{name} has {text[0]} of type {getattr(chosen[text[0]], 'dtype', 'text')}.", f"numbers in {', '.join(columns)}", do)
        return chosen.to_numpy(dtype=np.float64, copy=True)


def zip_members(file: IO[bytes], wanted: Mapping[str, str], where: str, kind: type[DataError]) -> dict[str, bytes]:
    """alias -> content of members of a zip, given alias -> name. Raises an error of that kind."""
    with reading(kind, where, f"a whole zip with {', '.join(wanted.values())}"), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        for alias, name in wanted.items():
            if names.count(name) != 1:
                raise kind(f"{where} does not hold {name} once but {names.count(name)} times.", f"one member {name}", WHOLE)
            _check_member(archive.getinfo(name), MAX_MEMBER[alias], where, kind)
        return {alias: archive.read(name) for alias, name in wanted.items()}


def _check_member(member: zipfile.ZipInfo, most: int, where: str, kind: type[DataError]) -> None:
    flaw = None
    if member.flag_bits & 1:
        flaw = "is encrypted"
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        flaw = f"is compressed by method {member.compress_type}"
    elif member.file_size > most:
        flaw = f"takes {member.file_size:,} bytes unpacked, over {most:,}"
    if flaw:
        raise kind(
            f"{member.filename} in {where} {flaw}.", f"a member that is stored or deflated, of at most {most:,} bytes", "pack it again."
        )
