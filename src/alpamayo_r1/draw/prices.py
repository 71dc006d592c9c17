"""The picture of what precisions cost and bring: memory, time, and how far plans move, one row per precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alpamayo_r1.draw.style import INK, SMALL, SOFT, box, plain, sheet, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE = "#2f6fb5"


@dataclass(frozen=True)
class Bar:
    """One row of one panel: a value, and the ends of its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def prices_page(title: str, names: Sequence[str], panels: Sequence[tuple[str, str, Sequence[Bar | None]]]) -> Figure:
    """A row of panels (title, unit, a bar per name), the names at the left. None: not known."""
    figure = sheet(2.2 + 3.2 * len(panels), 1.5 + 0.42 * len(names))
    write(figure, 0.3, 0.15, title, room=1.6 + 3.2 * len(panels))
    for i, (heading, unit, bars) in enumerate(panels):
        axes = box(figure, 1.1 + 3.2 * i, 0.85, 2.7, 0.42 * len(names))
        plain(axes, heading, unit)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), names if i == 0 else [""] * len(names))
        for row, bar in enumerate(bars):
            if bar is None:
                axes.text(0, row, " not known", size=SMALL, color=SOFT, va="center")
                continue
            axes.barh(row, bar.value, height=0.5, color=BLUE, alpha=0.75, zorder=2)
            if bar.low is not None and bar.high is not None:
                axes.plot((bar.low, bar.high), (row, row), color=INK, linewidth=1.2, zorder=3)
        if any(bar is not None and (bar.low or bar.value) < 0 for bar in bars):
            axes.axvline(0, color=SOFT, linewidth=0.8, zorder=1)
    return figure
