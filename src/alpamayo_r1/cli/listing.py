"""The clips of a data set as `alpamayo-r1 clips` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alpamayo_r1.data.listing import Row


def table(rows: Sequence[Row], wide: bool) -> Iterator[str]:
    """The rows as lines: in columns (wide), or separated by tabs for other programs."""
    texts = [(r.short, r.clip_id, "-" if r.first is None else f"{r.first:.2f} to {r.last:.2f} s", r.family, r.text) for r in rows]
    cells = [("short", "clip", "t0", "family", "words"), *texts]
    widths = [max(len(row[k]) for row in cells) for k in range(5)]
    for row in cells:
        yield "  ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip() if wide else "\t".join(row)
