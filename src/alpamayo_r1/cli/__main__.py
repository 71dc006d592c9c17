"""`alpamayo-r1 VERB`: the verbs and where they live. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from alpamayo_r1 import __version__
from alpamayo_r1.cli import ask, doctor, drive, evaluate, make, precision, recordings, run, serve
from alpamayo_r1.cli.errors import Verb, Verbs

VERBS = {
    "doctor": doctor.doctor,
    "clips": run.clips,
    "run": run.run,
    "film": run.film,
    "ask": ask.ask,
    "view": serve.view,
    "serve": serve.serve,
    "eval": evaluate.evaluate,
    "compare": evaluate.compare,
    "drive": drive.drive,
    "world": make.world,
    "train": make.train,
    "validate": make.validate,
    "bench": make.bench,
    "quantize": precision.quantize,
    "precision": precision.precision,
    "inspect": recordings.inspect,
    "import": recordings.import_,
}

app = typer.Typer(
    cls=Verbs,
    help="Alpamayo-R1: four cameras and 1.6 s of the car's past in, reasoning and the next 6.4 s out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _function in VERBS.items():
    app.command(_name, cls=Verb)(_function)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alpamayo-r1 {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Alpamayo-R1: four cameras and 1.6 s of the car's past in, reasoning and the next 6.4 s out."""


if __name__ == "__main__":
    app()
