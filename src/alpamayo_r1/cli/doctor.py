"""`alpamayo-r1 doctor`: what this machine has, what fits it, and whether a plan comes out as it should. Each finding says what to do."""

from __future__ import annotations

from typing import Annotated

import typer

from alpamayo_r1.cli.options import Checkpoint, Data, Device, Json, Memory, Precision
from alpamayo_r1.cli.progress import Meter, metered

MARKS = {"ok": ("ok", "green"), "attention": ("attention", "yellow"), "broken": ("broken", "red")}


def doctor(
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    device: Device = "auto",
    precision: Precision = None,
    memory: Memory = None,
    online: Annotated[bool, typer.Option("--online/--offline", help="Ask the Hub about licences and fetch what is missing.")] = False,
    as_json: Json = False,
) -> None:
    """Check the installation: Python, torch, GPU and what fits it, disk, caches, logins, then one plan beside its recorded answer.

    Without --online nothing leaves this machine. Exit code 1 where something is broken.
    """
    import json
    from dataclasses import asdict

    from alpamayo_r1.cli import findings

    asked = findings.Asked(checkpoint, data, device, online, precision, memory)
    found = []
    with metered(Meter("looking", None, "")):
        for finding in findings.all_findings(asked):
            found.append(finding)
            if not as_json:
                mark, colour = MARKS[finding.state]
                typer.secho(f"{mark:<10}", fg=colour, nl=False)
                typer.echo(f"{finding.what}: {finding.seen}")
                if finding.do:
                    typer.echo(f"{'':<10}-> {finding.do}")
    broken = sum(finding.state == "broken" for finding in found)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        typer.echo(f"{broken} broken" if broken else "all works")
    if broken:
        raise typer.Exit(1)
