"""The one table of options: every verb takes them from here, so that a word means the same everywhere, and every number has its bounds."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from alpamayo_r1.cli.errors import visible

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?|[\w:]{1,9}(, ?[\w:]{1,9})+")
MAX_SECONDS = 9e9
"""Clip times lie within +-this many seconds: beyond it a float has no whole microseconds."""


def text(given: str) -> str:
    """What was typed, unless it is empty or holds control characters."""
    if not given.strip():
        raise typer.BadParameter("empty text was given, expected a name")
    if _CONTROL.search(given):
        raise typer.BadParameter(f"'{visible(given)}' holds control characters, expected plain text: check how the name was quoted or made")
    return given


def readable(given: str) -> str:
    """A name that libraries can read by: bytes that the locale does not know as text stand as half surrogate pairs."""
    if re.search("[\ud800-\udfff]", given):
        shown = visible(given.encode("ascii", "replace").decode())
        raise typer.BadParameter(
            f"'{shown}' is no text in {sys.getfilesystemencoding()}: set PYTHONUTF8=1, or the locale to one of UTF-8 (LC_ALL=C.UTF-8); "
            "a place whose name is in another encoding wants another name"
        )
    return text(given)


def texts(given: list[str] | None) -> list[str] | None:
    """Several, each as in `text`."""
    return given and [text(one) for one in given]


def maybe_text(given: str | None) -> str | None:
    """As in `text`, or nothing."""
    return None if given is None else text(given)


def maybe_precision(given: str | None) -> str | None:
    """The name of a precision, "auto", or nothing."""
    if given is None:
        return None
    from alpamayo_r1.core.precision import NAMES

    if given not in NAMES:
        raise typer.BadParameter(f"{given!r} was given, expected one of {', '.join(NAMES)}")
    return given


def device_name(given: str) -> str:
    """ "auto", "cpu", "cuda", "cuda:N" or several of them; whether they are here and may be two is the planner's to say."""
    if not _DEVICE.fullmatch(given):
        raise typer.BadParameter(f"{given!r} was given, expected 'auto', 'cpu', 'cuda', 'cuda:N', or two cards as 'cuda:0,cuda:1'")
    return given


def number(low: float, high: float, help: str, metavar: str = "NUMBER") -> Any:
    """An option that takes a number between two others."""
    return _bounded(float, "a number", low, high, help, metavar)


def whole(low: int, high: int, help: str) -> Any:
    """An option that takes a whole number between two others."""
    return _bounded(int, "a whole number", low, high, help, "N")


def _bounded(kind: Callable[[Any], float], name: str, low: float, high: float, help: str, metavar: str) -> Any:
    bounds = (f"{bound:.3g}" if abs(bound) >= 1e7 else f"{bound:.7g}" for bound in (low, high))
    between = "{} to {}".format(*bounds)

    def parse(given: Any) -> float:
        try:
            value = kind(given)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise typer.BadParameter(f"'{visible(str(given))[:60]}' was given, expected {name} from {between}")
        return value

    return typer.Option(parser=parse, metavar=metavar, help=f"{help} [dim]({between})[/]")


def moments(given: str) -> str:
    """Seconds within bounds, 'grid' or the name of a file."""
    try:
        seconds = float(text(given))
    except ValueError:
        return given
    if not abs(seconds) <= MAX_SECONDS:
        raise typer.BadParameter(f"{given} was given, expected seconds of clip time between {-MAX_SECONDS:g} and {MAX_SECONDS:g}")
    return given


def folder_to_write(given: str | Path) -> Path:
    """A folder, there or yet to be made."""
    path = place(given)
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file: choose another folder")
    return path


def file_to_write(given: str | Path) -> Path:
    """A file, there or yet to be made."""
    path = place(given)
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: give the name of a file")
    return path


def place(given: str | Path) -> Path:
    """A path whose name is plain text."""
    return Path(text(str(given)))


def place_to_read(given: str | Path) -> Path:
    """A file or folder that is there."""
    path = place(given)
    if not path.exists():
        raise typer.BadParameter(f"there is no {path}: check the path")
    return path


def microseconds(seconds: float) -> int:
    """Clip time in seconds -> microseconds."""
    return round(seconds * 1e6)


# ----------------------------------------------------------------------------------------------------------------------- what and where

Checkpoint = Annotated[
    str, typer.Option(callback=readable, help="'small' (bundled), a checkpoint folder, or a Hub repository such as nvidia/Alpamayo-R1-10B.")
]
Data = Annotated[
    str,
    typer.Option(
        callback=readable,
        help="'sample' or 'junctions' (bundled), a folder in the data set's layout, or a Hub repository as REPO_ID or REPO_ID@REVISION.",
    ),
]
Clip = Annotated[
    list[str] | None,
    typer.Option(callback=texts, help="Clip id, or the beginning of one that fits no other; repeat for several. See `alpamayo-r1 clips`."),
]
OutFolder = Annotated[Path, typer.Option(parser=folder_to_write, metavar="FOLDER", help="Folder to write to.")]
OutFigures = Annotated[Path | None, typer.Option(parser=file_to_write, metavar="FILE", help="JSON file to write the figures to.")]
Rerun = Annotated[
    Path | None,
    typer.Option(parser=file_to_write, metavar="FILE", help="Recording (.rrd) of one clip or scene for the Rerun viewer."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# ------------------------------------------------------------------------------------------------------------------------------ a plan

T0 = Annotated[float, number(-MAX_SECONDS, MAX_SECONDS, "Clip time at which to plan.", "SECONDS")]
Samples = Annotated[int, whole(1, 1024, "Futures per clip.")]
Seed = Annotated[int, whole(0, 2**63 - 1, "Random seed.")]
Temperature = Annotated[float, number(0, 1000, "Temperature of the reasoning; 0 takes the most likely token.")]
TopP = Annotated[float, number(0, 1, "Probability mass that tokens are drawn from (nucleus).")]
TopK = Annotated[int | None, whole(1, 1_000_000, "Draw from this many most likely tokens (default: no limit).")]
MaxTokens = Annotated[int, whole(1, 4096, "Reasoning tokens at most.")]
Steps = Annotated[int | None, whole(1, 1000, "Euler steps of the flow (default: the checkpoint's, 10).")]
Reasoning = Annotated[str | None, typer.Option(callback=maybe_text, help="Words to plan by instead of the model's own.")]
Navigation = Annotated[str | None, typer.Option(callback=maybe_text, help="Where to go, such as 'Turn left in 30m' (Alpamayo 1.5).")]
Guidance = Annotated[float | None, number(-100, 100, "Weight of the navigation: 1 as trained, above 1 follows it more.")]
Device = Annotated[str, typer.Option(callback=device_name, help="auto, cpu, cuda, cuda:N, or two cards as cuda:0,cuda:1.")]
Fast = Annotated[bool | None, typer.Option(help="Fast engine (default: on CUDA, and on the CPU in float32).")]
Precision = Annotated[
    str | None,
    typer.Option(
        callback=maybe_precision,
        help="Weights: bf16, fp8, w8, w4, tight, or auto: the best that fits (default: as stored). See docs/precision.md.",
    ),
]
Memory = Annotated[float | None, number(1, 2000, "Behave as on a CUDA card of so many GiB.", "GIB")]
Threads = Annotated[int | None, whole(1, 1024, "CPU threads for torch; equal rows need equal threads.")]
Batch = Annotated[int, whole(1, 4096, "Scenes at once.")]
