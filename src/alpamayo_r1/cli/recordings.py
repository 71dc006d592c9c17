"""`alpamayo-r1 inspect` and `import`: recordings of your own car. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.options import Json, OutFolder, file_to_write, maybe_text, place_to_read, text

MARKS = {"ok": "green", "attention": "yellow", "wrong": "red", "cannot tell": "bright_black"}


def inspect(
    recording: Annotated[Path, typer.Argument(parser=place_to_read, metavar="FOLDER", help="Folder with a recording.yaml.")],
    out: Annotated[Path | None, typer.Option(parser=file_to_write, metavar="FILE", help="Write the page (HTML) here.")] = None,
    as_json: Json = False,
) -> None:
    """Check a recording: axes, rates, clocks, lenses and mountings against what the pictures show. Exit code 1 where something is wrong."""
    import json

    from alpamayo_r1.core.files import writable_file, write_text
    from alpamayo_r1.data.recording.schema import FILE
    from alpamayo_r1.inspect.check import inspect as check
    from alpamayo_r1.inspect.page import page

    if not (recording / FILE).is_file():
        raise ValueError(f"{recording} has no {FILE}: give the folder of a recording (docs/own-data.md shows how to write one)")
    if out is not None:
        writable_file(out)
    found = check(recording)
    if as_json:
        typer.echo(json.dumps({"recording": str(recording), "wrong": found.wrong, "findings": found.plain()}, indent=2))
    else:
        for finding in found.findings:
            typer.secho(f"{finding.verdict:<12}", fg=MARKS[finding.verdict], nl=False)
            typer.echo(f"{finding.item}: {finding.seen}")
            for fault in finding.faults:
                typer.echo(f"{'':<12}-> {fault}")
            if finding.do:
                typer.echo(f"{'':<12}   {finding.do}")
    if out is not None:
        typer.echo(f"open {write_text(out, page(found, recording.resolve().name)).resolve()}", err=as_json)
    if found.recording is not None:
        found.recording.close()
    if found.wrong:
        raise typer.Exit(1)


def import_(
    kind: Annotated[str, typer.Argument(callback=text, help="nuscenes, kitti-raw, kitti-odometry, comma2k19, mcap, rosbag or example.")],
    out: OutFolder,
    src: Annotated[Path | None, typer.Argument(parser=place_to_read, metavar="SOURCE", help="Its folder or file.")] = None,
    pick: Annotated[str | None, typer.Option(callback=maybe_text, help="Which scene, drive, sequence or topics of it.")] = None,
) -> None:
    """Write a recording from another data set's layout, a ROS bag or an MCAP file."""
    from alpamayo_r1.data.importers import import_recording

    folder = import_recording(kind, src, out, pick)
    typer.echo(f"{folder.resolve()} is a recording: check it with `alpamayo-r1 inspect {out}`")
