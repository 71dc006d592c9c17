"""Which clips there are: a row per clip of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from alpamayo_r1.data.errors import DataError, SourceError
from alpamayo_r1.data.source import MARKER, Source
from alpamayo_r1.data.tables import read_parquet


@dataclass(frozen=True)
class Row:
    """A clip: the shortest beginning (8 letters or more) that names it, its id, first and last t0 in s, the world's family and words.

    first, last: the t0 that leave room for the history and the cameras, None where the clip is not on this machine or broken.
    """

    short: str
    clip_id: str
    first: float | None = None
    last: float | None = None
    family: str = ""
    text: str = ""

    def with_times(self, source: Source) -> Row:
        """The row with the clip's t0, read from a local folder; elsewhere as it is."""
        if source.origin.root is None:
            return self
        try:
            with source.fresh(self.clip_id) as clip:
                low, high = clip.valid_t0(need_future=False)
        except (DataError, OSError, ValueError):
            return self
        return replace(self, first=low / 1e6, last=high / 1e6) if low <= high else self

    def plain(self) -> dict[str, Any]:
        """The row for JSON."""
        return asdict(self)


def listed(source: Source, match: str | None = None) -> list[Row]:
    """The clips whose id, family or words hold the text (None: all), in the order of the index."""
    labels = world_labels(source)
    ids = source.clip_ids
    rows = [
        Row(short, clip_id, family=label.get("family", ""), text=label.get("text", ""))
        for short, clip_id in zip(beginnings(ids), ids, strict=True)
        for label in [labels.get(clip_id, {})]
    ]
    wanted = (match or "").casefold()
    return [row for row in rows if wanted in f"{row.clip_id} {row.family} {row.text}".casefold()]


def world_labels(source: Source) -> dict[str, dict[str, str]]:
    """Clip id -> {"family", "text"} of our synthetic world's clips; empty for others. Raises SourceError."""
    root = source.origin.root
    if root is None or not (root / MARKER).is_file():
        return {}
    table = read_parquet(root / MARKER, f"{MARKER} of {source.name}", SourceError)
    columns = [name for name in ("family", "text") if name in table]
    return {str(clip_id): {name: str(row[name]) for name in columns} for clip_id, row in table.iterrows()}


def beginnings(ids: Sequence[str]) -> list[str]:
    """For each id its shortest beginning of at least 8 letters that no other id has."""
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    shortest = [""] * len(ids)
    for at, i in enumerate(order):
        beside = [ids[order[j]] for j in (at - 1, at + 1) if 0 <= j < len(order)]
        shared = max((common(ids[i], other) for other in beside), default=0)
        shortest[i] = ids[i][: max(8, shared + 1)]
    return shortest


def common(a: str, b: str) -> int:
    """How many letters two texts begin with together."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
