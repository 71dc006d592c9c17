"""Rows that survive: each is a small parquet file of its own, there whole or not at all; at the end they become one.

out/config.json         the protocol, what its rows depend on, versions, command
out/work.parquet        every (clip, t0) in order
out/rows/000017.parquet one finished row; the folder is a parquet data set
out/results.parquet     all rows in order, without times of day or durations: equal runs give equal bytes
out/timing.parquet      how long each row took
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from alpamayo_r1.core.files import own_folder, remove_unfinished, write_bytes
from alpamayo_r1.evaluate.score import SCORES, TIMINGS

_F = pa.float64()
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("clip_id", pa.string()),
        ("t0_us", pa.int64()),
        ("source", pa.string()),
        ("error", pa.string()),
        ("reasoning", pa.list_(pa.string())),
        ("ended", pa.list_(pa.bool_())),
        ("verdict", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("decision", pa.string()),
        ("sample_ade", pa.list_(_F)),
        ("pred_xyz", pa.list_(pa.float32())),
        ("pred_yaw", pa.list_(pa.float32())),
        ("gt_xyz", pa.list_(pa.float32())),
        *((name, _F) for name in SCORES),
        *((name, _F) for name in TIMINGS),
    ]
)
"""One row per (clip, t0). pred_xyz is [S, F, 3] and pred_yaw [S, F] flattened, metres and radians in the ego frame at t0."""


class Store:
    """The rows of one evaluation in `folder`. Open it with `opened`, which keeps a second process out."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, folder / "rows"
        own_folder(self.rows)
        remove_unfinished(self.rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row; when this returns it is on the disk."""
        table = pa.Table.from_pylist([{name: row.get(name) for name in SCHEMA.names}], schema=SCHEMA)
        write_bytes(self.rows / f"{row['index']:06d}.parquet", _parquet(table))

    def done(self) -> set[int]:
        """The indices of the finished rows."""
        return {int(path.stem) for path in self._parts()}

    def forget_failed(self) -> int:
        """Removes the rows that hold an error, to be tried again; returns how many."""
        failed = [path for path in self._parts() if pq.read_table(path, columns=["error"])["error"][0].is_valid]
        for path in failed:
            path.unlink()
        return len(failed)

    def read(self) -> pa.Table:
        """All finished rows in order."""
        return pa.concat_tables([SCHEMA.empty_table(), *(pq.read_table(path, schema=SCHEMA) for path in self._parts())]).combine_chunks()

    def compact(self) -> pa.Table:
        """Writes results.parquet and timing.parquet from the rows, and returns them."""
        table = self.read()
        write_bytes(self.folder / "results.parquet", _parquet(table.drop_columns(list(TIMINGS))))
        write_bytes(self.folder / "timing.parquet", _parquet(table.select(["index", "clip_id", "t0_us", *TIMINGS])))
        return table

    def _parts(self) -> list[Path]:
        return sorted(self.rows.glob("[0-9]*.parquet"))


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store of a folder, for this process alone.

    Raises:
        ValueError: another process writes there, or `.lock` or `rows` is a link.
        OSError: the folder can't be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    if lock.is_symlink():
        raise ValueError(f"{lock} is a link to {os.readlink(lock)}: links are not written through; remove it")
    try:
        with FileLock(lock, timeout=0):
            remove_unfinished(folder)
            yield Store(folder)
    except Timeout:
        raise ValueError(f"another evaluation is writing to {folder}: wait for it, or give another --out") from None


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
