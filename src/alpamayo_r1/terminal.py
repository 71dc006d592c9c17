"""What the verbs of the command line share: options, and errors without tracebacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Checkpoint = Annotated[str, typer.Option(help="'small' (bundled), a checkpoint folder, or a Hub repository.")]
Data = Annotated[str, typer.Option(help="'sample' (bundled), a folder in the data set's layout, or REPO_ID[@REVISION].")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


@contextmanager
def teaching() -> Iterator[None]:
    """Errors a person can act on are printed without a traceback, exit code 2; anything else is a bug and keeps its traceback."""
    from alpamayo_r1.data.errors import DataError
    from alpamayo_r1.hub import HubError

    try:
        yield
    except (ValueError, MemoryError, DataError, HubError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
