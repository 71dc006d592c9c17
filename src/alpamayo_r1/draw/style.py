"""Colours and type of all pictures, and a sheet of paper without any global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAN, TRUTH, PAST = "#1668dc", "#d8232a", "#8a9099"
"""Predicted, really driven, history."""

ROAD, LIGHT = "#2b8cff", "#b9d9ff"
"""Predicted, on a camera picture: the best sample's corridor, the others' lines."""

INK, SOFT, FAINT, RULE = "#1b1f24", "#5b636d", "#8d959e", "#e3e6ea"
"""Text in three strengths, and lines that should hardly be seen."""

TITLE, HEAD, BODY, SMALL = 17, 11, 9.5, 8
"""Font sizes in points."""

DPI = 120


def sheet(width: float, height: float) -> Figure:
    """An empty white figure of width x height inches with an Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def box(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the top left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def write(figure: Figure, left: float, top: float, text: str, size: float = BODY, colour: str = INK, **options) -> None:
    """Text whose top left corner is at a place given in inches from the top left corner."""
    w, h = figure.get_size_inches()
    figure.text(left / w, 1 - top / h, text, size=size, color=colour, **({"ha": "left", "va": "top"} | options))


def plain(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """A quiet coordinate system: two thin lines, a faint grid, title at the left."""
    axes.set_title(title, loc="left", size=HEAD, color=INK, weight="bold", pad=7)
    axes.set_xlabel(x, size=SMALL, color=SOFT, labelpad=2)
    axes.set_ylabel(y, size=SMALL, color=SOFT, labelpad=2)
    axes.tick_params(labelsize=SMALL, colors=SOFT, length=0, pad=3)
    axes.grid(True, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c6cbd1")
        spine.set_linewidth(0.8)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi, pil_kwargs={"compress_level": 4})
    return file.getvalue()
