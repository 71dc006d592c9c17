"""Rows that survive: each is a small parquet file of its own, there whole or not at all; at the end they become one.

out/config.json         the protocol, what its rows depend on, versions, command
out/inputs.json         a fingerprint of every file of the data set that its clips come from
out/work.parquet        every (clip, t0) in order
out/rows/000017.parquet one finished row, which knows its place, clip, evaluation and checksum; the folder is a parquet data set
out/results.parquet     all rows in order, without times of day or durations: equal runs give equal bytes
out/timing.parquet      how long each row took
out/digests.json        SHA-256 of results.parquet and timing.parquet
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alpamayo_r1.core.files import only_writer, own_folder, remove_unfinished, write_bytes, write_text
from alpamayo_r1.core.notes import Note
from alpamayo_r1.evaluate.protocol import Item
from alpamayo_r1.evaluate.score import SCORES, TIMINGS

_F = pa.float64()
SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("clip_id", pa.string()),
        ("t0_us", pa.int64()),
        ("navigation", pa.string()),
        ("source", pa.string()),
        ("error", pa.string()),
        ("reasoning", pa.list_(pa.string())),
        ("ended", pa.list_(pa.bool_())),
        ("verdict", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("decision", pa.string()),
        ("chosen", pa.int64()),
        ("chosen_by", pa.string()),
        ("known_steps", pa.int64()),
        ("sample_ade", pa.list_(_F)),
        ("pred_xyz", pa.list_(pa.float32())),
        ("pred_yaw", pa.list_(pa.float32())),
        ("gt_xyz", pa.list_(pa.float32())),
        *((name, _F) for name in SCORES),
        *((name, _F) for name in TIMINGS),
        ("evaluation", pa.string()),
        ("checksum", pa.string()),
    ]
)
"""One row per (clip, t0). pred_xyz is [S, F, 3] and pred_yaw [S, F] flattened, metres and radians in the ego frame at t0.

notes: codes of what to know about the sample and the plan. chosen: the sample nearest to the truth, or the first (chosen_by says how).
known_steps: steps of the future that are known. evaluation: the digest of what the row depends on; checksum: that of all the other columns.
"""

SEALS = ("evaluation", "checksum")
"""Columns that are checked in rows/ and left out of results.parquet."""


DIGESTS = "digests.json"
"""Says what results.parquet and timing.parquet are, so that a damaged one is noted; a folder of an older version has none."""


class Store:
    """The rows of one evaluation in `folder`. Open it with `opened`, which keeps a second process out."""

    def __init__(self, folder: Path):
        self.folder, self.rows = folder, folder / "rows"
        own_folder(self.rows)
        remove_unfinished(self.rows)
        self.items: dict[int, Item] = {}
        self.evaluation = ""

    def admit(self, items: Sequence[Item], evaluation: str) -> list[Note]:
        """Takes the work list and the digest of what its rows depend on, and sets aside every file of rows/ that is no row of it.

        A row is there as long as its name, index, clip, t0, evaluation and checksum agree; any other is moved to set_aside/ and named in a
        note, to be planned again.
        """
        self.items, self.evaluation = {item.index: item for item in items}, evaluation
        notes = []
        for path in self._parts():
            flaw = self._flaw(path)
            if flaw:
                os.replace(path, own_folder(self.folder / "set_aside") / path.name)
                notes.append(Note("row-set-aside", f"rows/{path.name} {flaw}: moved to set_aside/, and planned again if it is on the list"))
        return notes

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one row; when this returns it is on the disk."""
        sealed = {name: row.get(name) for name in SCHEMA.names} | {"evaluation": self.evaluation, "checksum": None}
        table = pa.Table.from_pylist([sealed], schema=SCHEMA)
        table = table.set_column(len(SCHEMA) - 1, SCHEMA.field("checksum"), pa.array([checksum(table.to_pylist()[0])]))
        write_bytes(self.rows / f"{row['index']:06d}.parquet", as_parquet(table))

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
        return pa.concat_tables([SCHEMA.empty_table(), *(_read_row(path) for path in self._parts())]).combine_chunks()

    def compact(self) -> pa.Table:
        """Writes results.parquet and timing.parquet from the rows, and returns them.

        Raises:
            ValueError: rows/ does not hold exactly the rows of the work list, as they were written.
        """
        flaws = [f"rows/{path.name} {flaw}" for path in self._parts() if (flaw := self._flaw(path))]
        missing = sorted(set(self.items) - self.done())
        flaws += [f"row {index} is missing" for index in missing]
        if flaws:
            raise ValueError(f"rows of {self.folder} were changed while it was being written: {flaws[0]}. Give the same command again")
        table = self.read()
        written = {
            "results.parquet": as_parquet(table.drop_columns([*TIMINGS, *SEALS])),
            "timing.parquet": as_parquet(table.select(["index", "clip_id", "t0_us", *TIMINGS])),
        }
        for name, content in written.items():
            write_bytes(self.folder / name, content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
        write_text(self.folder / DIGESTS, json.dumps(digests, indent=1) + "\n")
        return table

    def _parts(self) -> list[Path]:
        return sorted(self.rows.glob("*.parquet"))

    def _flaw(self, path: Path) -> str | None:
        """What is wrong with a file of rows/, None where it is the row that its name says."""
        try:
            row = _read_row(path).to_pylist()
        except Exception as problem:
            return f"can't be read ({type(problem).__name__})"
        if len(row) != 1:
            return f"holds {len(row)} rows"
        (row,) = row
        if row["checksum"] != checksum(row):
            return "does not have the content that was written"
        if row["evaluation"] != self.evaluation:
            return "belongs to another evaluation"
        item = self.items.get(row["index"])
        if item is None or path.name != f"{row['index']:06d}.parquet" or (item.clip_id, item.t0_us) != (row["clip_id"], row["t0_us"]):
            return f"is named as another row than it is (index {row['index']}, clip {row['clip_id']})"
        return None


def checksum(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row's other columns as JSON: of every number to its last bit."""
    content = [row[name] for name in SCHEMA.names if name != "checksum"]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store of a folder, for this process alone.

    Raises:
        ValueError: another process writes there, or `.lock` or `rows` is a link.
        OSError: the folder can't be written to.
    """
    with only_writer(folder, "evaluation"):
        yield Store(folder)


def _read_row(path: Path) -> pa.Table:
    with path.open("rb") as file:  # a path would take hive partitions from the folders' names
        return pq.read_table(file, schema=SCHEMA)


def as_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
