"""What the verbs of the command line share: options, and errors without tracebacks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

Checkpoint = Annotated[str, typer.Option(help="'small' (bundled), a checkpoint folder, or a Hub repository.")]
Data = Annotated[
    str, typer.Option(help="'sample' (bundled), a folder in the data set's layout, or a Hub repository as REPO_ID or REPO_ID@REVISION.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Temperature = Annotated[float, typer.Option(help="Temperature of the reasoning; 0 takes the most likely token.")]
TopP = Annotated[float, typer.Option(help="Probability mass that tokens are drawn from (nucleus).")]
TopK = Annotated[int | None, typer.Option(help="Most likely tokens that are drawn from (none: no limit).")]
MaxTokens = Annotated[int, typer.Option(help="Reasoning tokens at most.")]
Steps = Annotated[int | None, typer.Option(help="Euler steps of the flow (none: the checkpoint's, 10).")]


@contextmanager
def teaching() -> Iterator[None]:
    """Errors a person can act on are printed without a traceback, exit code 2; anything else is a bug and keeps its traceback."""
    from alpamayo_r1.core.hub import HubError
    from alpamayo_r1.data.errors import DataError

    try:
        yield
    except (ValueError, MemoryError, DataError, HubError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}; check the path, its rights and the room on the disk")


def microseconds(seconds: float) -> int:
    """Clip time in seconds -> microseconds. Raises ValueError for what is no number."""
    if not math.isfinite(seconds):
        raise ValueError(f"a time is {seconds}, expected seconds of clip time")
    return round(seconds * 1e6)


def fail(text: str) -> NoReturn:
    """Prints an error; exit code 2."""
    typer.secho(f"error: {text}", fg="red", err=True)
    raise typer.Exit(2) from None
