"""Colours, type and text of all pictures, and a sheet of paper without any global state."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont

PLAN, TRUTH, PAST = "#1668dc", "#d8232a", "#8a9099"
"""Predicted, really driven, history."""

ROAD, LIGHT = "#2b8cff", "#b9d9ff"
"""Predicted, on a camera picture: the chosen sample's corridor, the others' lines."""

INK, SOFT, FAINT, RULE = "#1b1f24", "#5b636d", "#737b85", "#e3e6ea"
"""Text in three strengths, and lines that should hardly be seen."""

ASPHALT, PAINT, MIDDLE, OBJECT = "#f3f4f6", "#a3abb4", "#d9a514", "#9aa3ad"
"""The view from above: road, white paint, the yellow line between directions, vehicles and people."""

NOTICE = "#8a5200"
"""Notes: what to know about a plan."""

TITLE, HEAD, BODY, SMALL = 17, 11, 9.5, 8
"""Font sizes in points."""

DPI = 120

FAMILY = "DejaVu Sans"
"""The font that matplotlib brings, so that every machine draws the same."""

UNKNOWN = "\N{WHITE SQUARE}"
"""Shown for what can't be shown: glyphs that the font lacks, control characters, marks that turn the direction of writing."""

LONGEST = 4000
"""Characters of a text that are looked at."""


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


def write(
    figure: Figure,
    left: float,
    top: float,
    text: str,
    size: float = BODY,
    colour: str = INK,
    *,
    weight: str = "normal",
    align: str = "left",
    room: float | None = None,
) -> None:
    """One line of text, its top left (or right) corner at a place given in inches from the top left corner, shortened to `room` inches."""
    w, h = figure.get_size_inches()
    shown = printable(text) if room is None else fitted(text, room, size, weight)
    type_ = {"family": FAMILY, "size": size, "weight": weight, "color": colour}
    figure.text(left / w, 1 - top / h, shown, ha=align, va="top", parse_math=False, **type_)


def plain(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """A quiet coordinate system: two thin lines, a faint grid, title at the left."""
    heading(axes, title)
    axes.set_xlabel(x, size=SMALL, color=SOFT, labelpad=2)
    axes.set_ylabel(y, size=SMALL, color=SOFT, labelpad=2)
    axes.tick_params(labelsize=SMALL, colors=SOFT, length=0, pad=3)
    axes.grid(True, color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c6cbd1")
        spine.set_linewidth(0.8)


def heading(axes: Axes, title: str) -> None:
    """The title of a part of a page."""
    axes.set_title(title, loc="left", size=HEAD, color=INK, weight="bold", pad=7)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=figure.dpi, pil_kwargs={"compress_level": 4})
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------------------- text of others


def printable(text: str) -> str:
    """Any text as one line that the font can draw: white space becomes single spaces, what can't be shown becomes UNKNOWN."""
    words = " ".join(str(text)[:LONGEST].split())
    return "".join(c if _has_glyph(c) else UNKNOWN for c in words)


def fitted(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """The printable text, cut to a width in inches; an ellipsis says that something is missing."""
    (line,) = wrapped(text, inches, size, weight, lines=1)
    return line


def wrapped(text: str, inches: float, size: float, weight: str = "normal", *, lines: int) -> list[str]:
    """The printable text in at least one and at most `lines` lines of a width in inches, broken at spaces where there are some."""
    rest = printable(text) + (" …" if len(str(text)) > LONGEST else "")
    found: list[str] = []
    while len(found) < lines - 1 and _width(rest, size, weight) > inches:
        fits = _fitting(rest, inches, size, weight)
        space = rest.rfind(" ", 1, fits + 1)
        end = space if space > 0 else max(1, fits)
        found.append(rest[:end])
        rest = rest[end:].lstrip()
    if _width(rest, size, weight) > inches:
        rest = rest[: _fitting(rest, inches - _width(" …", size, weight), size, weight)].rstrip() + " …"
    return [*found, rest]


def _fitting(text: str, inches: float, size: float, weight: str) -> int:
    """How many characters of the text fit a width, by halving."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _width(text[:middle], size, weight) <= inches else (low, middle - 1)
    return low


def _width(text: str, size: float, weight: str) -> float:
    """Width of a line in inches."""
    return _ruler(weight).getlength(text) / RULER * size / 72


RULER = 100
"""Size in pixels at which text is measured."""


@cache
def _ruler(weight: str) -> FreeTypeFont:
    """The font as a ruler for widths."""
    from PIL import ImageFont

    return ImageFont.truetype(_font_file(weight), RULER, layout_engine=ImageFont.Layout.BASIC)


@cache
def _font_file(weight: str) -> str:
    from matplotlib.font_manager import FontProperties, fontManager

    return str(fontManager.findfont(FontProperties(family=FAMILY, weight=weight)))


@cache
def _glyphs() -> frozenset[int]:
    """Code points that both weights of the font can draw."""
    from matplotlib.font_manager import get_font

    normal, bold = (get_font(_font_file(weight)).get_charmap() for weight in ("normal", "bold"))
    return frozenset(normal) & frozenset(bold)


def _has_glyph(character: str) -> bool:
    """Whether a character can be drawn, and changes nothing but its own place."""
    return ord(character) in _glyphs() and unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
