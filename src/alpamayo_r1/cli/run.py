"""`alpamayo-r1 run`, `film` and `clips`: a few clips at a time. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpamayo_r1.cli.errors import explained
from alpamayo_r1.cli.options import (
    T0,
    Checkpoint,
    Clip,
    Data,
    Device,
    Fast,
    Guidance,
    Json,
    MaxTokens,
    Memory,
    Navigation,
    OutFolder,
    Precision,
    Reasoning,
    Rerun,
    Samples,
    Seed,
    Steps,
    Temperature,
    TopK,
    TopP,
    file_to_write,
    maybe_text,
    microseconds,
    number,
    text,
    whole,
)
from alpamayo_r1.cli.progress import Meter, metered
from alpamayo_r1.core.options import PlanOptions

if TYPE_CHECKING:
    from rich.console import Console

    from alpamayo_r1.predict.run import Done


def run(
    out: OutFolder,
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    clip: Clip = None,
    t0: T0 = 5.1,
    samples: Samples = 6,
    seed: Seed = 42,
    temperature: Temperature = PlanOptions.temperature,
    top_p: TopP = PlanOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    steps: Steps = None,
    reasoning: Reasoning = None,
    navigation: Navigation = None,
    guidance: Guidance = None,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    memory: Memory = None,
    rerun: Rerun = None,
) -> None:
    """Plan clips: reasoning, trajectory, minADE, and a page of pictures for each. Without --clip: all clips of a small source."""
    options = PlanOptions(
        samples=samples, seed=seed, reasoning=reasoning, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens,
        steps=steps, navigation=navigation, guidance=guidance,
    )  # fmt: skip

    from rich.console import Console

    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.rerun import check_rerun, recorded
    from alpamayo_r1.predict.run import Done, choose, read
    from alpamayo_r1.predict.run import run as plan_clips

    t0_us = microseconds(t0)
    with open_source(data) as source:
        clips = choose(source, clip or [])
        check_rerun(rerun)
        if rerun is not None and len(clips) > 1:
            raise ValueError(f"--rerun holds one clip, but there are {len(clips)}: name one with --clip")
        if len(clips) == 1:
            read(source, clips[0], t0_us)
        writable_folder(out)
        with metered(Meter(f"loading {checkpoint}", None, "")):
            planner = load(checkpoint, device=device, fast=fast, precision=precision, memory=memory)
        outcomes = []
        with metered(Meter("planning", len(clips), "clips")) as meter, recorded(rerun) as recorder:
            also, about = recorder and recorder.add, {"checkpoint": checkpoint}
            for one in plan_clips(planner, source, clips, out, options, t0_us=t0_us, about=about, also=also):
                outcomes.append(one)
                meter.advance()
    done = [one for one in outcomes if isinstance(one, Done)]
    if done:
        console = Console()
        show(console, done, f"{checkpoint} on {data}, t0 {t0:g} s, {samples} samples, seed {seed}")
        typer.echo(f"open {out.resolve()}: one page (png) and one record (json) per clip")
    for one in outcomes:
        if not isinstance(one, Done):
            typer.secho(f"error: {one.clip_id}: {explained(one.error)}", fg="red", err=True)
    if len(done) < len(outcomes):
        raise typer.Exit(1 if done else 2)


def show(console: Console, done: list[Done], title: str) -> None:
    """Prints a row per clip and the means."""
    from rich.markup import escape
    from rich.table import Table

    from alpamayo_r1.predict.run import means

    table = Table(title=escape(title))
    for name, justify in (("clip", "left"), ("reasoning", "left"), ("minADE", "right"), ("CV", "right"), ("CTRA", "right")):
        table.add_column(name, justify=justify, no_wrap=name == "clip")  # pyright: ignore[reportArgumentType]
    table.add_column("plan ms", justify="right")
    for one in done:
        record = one.record
        errors = [record["min_ade"], *record["baselines"].values()]
        shown = ["-" if e is None else f"{e:.2f}" for e in errors]
        clip_id, said = (escape(part) for part in (record["clip_id"][:8], record["reasoning"][record["chosen"]["sample"]]))
        table.add_row(clip_id, said or "(none)", *shown, f"{sum(record['timing_ms'].values()):.0f}")
    averages = means(done)
    if averages:
        table.add_section()
        table.add_row("mean", "", *(f"{value:.2f}" for value in averages.values()), "")
    console.print(table)
    console.print("reasoning: of the sample whose error is shown, the best by the truth; where that is not known, of the first")
    console.print("metres; CV: constant velocity, CTRA: constant turn rate and acceleration")


def film(
    clip: Annotated[str, typer.Argument(callback=text, help="Clip id, or the beginning of one that fits no other.")],
    out: Annotated[Path, typer.Option(parser=file_to_write, metavar="FILE", help="The mp4 to write.")],
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    start: Annotated[float | None, number(-9e9, 9e9, "First t0 in seconds (default: as early as the clip allows).")] = None,
    end: Annotated[float | None, number(-9e9, 9e9, "Last t0 in seconds (default: as late as the clip allows).")] = None,
    step: Annotated[float, number(0.033, 10, "Seconds between two plans.")] = 0.1,
    samples: Samples = 6,
    seed: Seed = 42,
    temperature: Temperature = PlanOptions.temperature,
    top_p: TopP = PlanOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    steps: Steps = None,
    reasoning: Reasoning = None,
    navigation: Navigation = None,
    guidance: Guidance = None,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    memory: Memory = None,
    rerun: Rerun = None,
) -> None:
    """Roll t0 through a clip: an mp4 with the plan on the road, the words and the view from above."""
    options = PlanOptions(
        samples=samples, seed=seed, reasoning=reasoning, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens,
        steps=steps, navigation=navigation, guidance=guidance,
    )  # fmt: skip
    if out.suffix != ".mp4":
        raise ValueError(f"--out is {out}, expected a name that ends in .mp4")

    from alpamayo_r1.core.files import writable_file
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.film import film as make_film
    from alpamayo_r1.predict.rerun import check_rerun, recorded

    check_rerun(rerun)

    with open_source(data) as source:
        clip_id = source.find(clip)
        low, high = source.clip(clip_id).valid_t0(need_future=False)
        first = low / 1e6 if start is None else start
        last = high / 1e6 if end is None else end
        writable_file(out)
        with metered(Meter(f"loading {checkpoint}", None, "")):
            planner = load(checkpoint, device=device, fast=fast, precision=precision, memory=memory)
        with metered(Meter("filming", max(0, int((last - first) / step)) + 1, "pictures")) as meter, recorded(rerun) as recorder:
            also = recorder and recorder.add
            for _ in make_film(source, clip_id, planner, out, options, start=start, end=end, step=step, also=also):
                meter.advance()
    typer.echo(f"open {out.resolve()}")


def clips(
    data: Data = "sample",
    match: Annotated[str | None, typer.Option(callback=maybe_text, help="Only clips whose id, family or words hold this text.")] = None,
    limit: Annotated[int, whole(1, 1_000_000, "At most so many clips.")] = 100,
    as_json: Json = False,
) -> None:
    """List the clips of a data set: ids and their shortest beginnings, the t0 they allow, and for synthetic ones family and words."""
    import json

    from alpamayo_r1.cli.listing import table
    from alpamayo_r1.data.listing import listed
    from alpamayo_r1.data.source import open_source

    with open_source(data) as source:
        found = listed(source, match)
        name = source.name
        shown = [row.with_times(source) for row in found[:limit]]
    if as_json:
        typer.echo(json.dumps([row.plain() for row in shown], indent=2))
    else:
        for line in table(shown, sys.stdout.isatty()):
            typer.echo(line)
    typer.echo(f"{len(shown)} of {len(found)} clips{f' with {match!r}' if match else ''} in {name}", err=True)
    if not found:
        raise typer.Exit(1)
