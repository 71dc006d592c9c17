"""`alpamayo-r1 eval`, `compare` and `film`. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.options import Checkpoint, Data, Device, MaxTokens, Steps, Temperature, TopK, TopP, teaching
from alpamayo_r1.core.options import PlanOptions


def eval_command(
    out: Annotated[Path, typer.Option(help="Folder for the rows and the report; the same folder goes on where it was.")],
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    clips: Annotated[
        str | None, typer.Option(help="FILE.parquet, FILE.txt, gold644, or N for the first N. None: gold644, or all synthetic ones.")
    ] = None,
    t0: Annotated[str, typer.Option(help="Seconds of clip time, 'grid' (every whole second), or a FILE with clip ids and times.")] = "5.1",
    samples: Annotated[int, typer.Option(min=1, help="Futures per clip.")] = 6,
    seed: Annotated[int, typer.Option(help="Reset for every clip.")] = 42,
    temperature: Temperature = PlanOptions.temperature,
    top_p: TopP = PlanOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    steps: Steps = 10,
    device: Device = "auto",
    fast: Annotated[bool | None, typer.Option(help="Fast engine (default: on cuda only).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch on the CPU; equal rows need equal threads.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try clips again whose row is an error.")] = False,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster, or 'local': plan there, write here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Models on the cluster (default: its GPUs, or one a node).")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
) -> None:
    """Evaluate many clips by the published protocol: durable rows, intervals, baselines, a report. Goes on where it was."""
    import warnings

    from rich.console import Console

    from alpamayo_r1.evaluate import EvalConfig, evaluate

    warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ rows ended without")  # counted as malformed
    console = Console()
    command = shlex.join(["alpamayo-r1", *sys.argv[1:]])
    with teaching():
        if workers is not None and ray is None:
            raise ValueError("--workers counts models on a Ray cluster: give --ray local or its address too, or leave --workers out")
        options = PlanOptions(
            samples=samples, seed=seed, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens, steps=steps
        )
        config = EvalConfig(checkpoint, data, clips, t0, options, device, fast, threads)
        finished = evaluate(config, out, command=command, retry_failed=retry_failed, ray=ray, workers=workers)
        last = show_progress(console, finished)
        finish(console, out, report)
    if last.failed:
        typer.secho(
            f"{last.failed} of {last.total} clips failed: see `error` in results.parquet; --retry-failed tries them again",
            fg="red",
            err=True,
        )
        raise typer.Exit(1)


def show_progress(console, finished):
    """Draws a bar while the rows come in; returns the last Progress."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = None
        for last in finished:
            if task is None:
                task = bar.add_task("", total=last.total, completed=last.done, told="")
            speed = bar.tasks[0].speed
            told = [f"{speed:.2f} clips/s"] if speed else []
            told += [f"minADE {last.min_ade:.3f} m"] if last.min_ade == last.min_ade else []
            told += [f"[red]{last.failed} failed[/red]"] if last.failed else []
            bar.update(task, completed=last.done, told=" · ".join(told))
    return last


def finish(console, out: Path, report: bool) -> None:
    """Writes summary.json and report.html, and prints the main figures."""
    from alpamayo_r1.evaluate.summary import summarise, table

    summary = summarise(out)
    console.print(table(summary))
    if report:
        from alpamayo_r1.evaluate.report import write_report

        with console.status("drawing the report"):
            console.print(f"open [bold]{write_report(out, summary).resolve()}[/bold]")


def compare_command(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same clips.")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
) -> None:
    """Compare two evaluations clip by clip: mean differences (second - first) with 95 % intervals."""
    import json

    from rich.console import Console

    from alpamayo_r1.evaluate.summary import compare, comparison_table
    from alpamayo_r1.predict.record import writable_file

    with teaching():
        if out is not None:
            writable_file(out)
        result = compare(first, second)
        Console().print(comparison_table(result))
        if out is not None:
            out.write_text(json.dumps(result, indent=2) + "\n")


def film_command(
    clip: Annotated[str, typer.Argument(help="Clip id.")],
    out: Annotated[Path, typer.Option(help="The mp4 to write.")],
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    start: Annotated[float | None, typer.Option(help="First t0 in seconds (none: as early as the clip allows).")] = None,
    end: Annotated[float | None, typer.Option(help="Last t0 in seconds (none: as late as the clip allows).")] = None,
    step: Annotated[float, typer.Option(min=0.033, help="Seconds between two plans.")] = 0.1,
    samples: Annotated[int, typer.Option(min=1)] = 6,
    seed: int = 42,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    device: Device = "auto",
) -> None:
    """Roll t0 through a clip: an mp4 with the plan on the road, the words and the view from above."""
    from rich.progress import track

    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.film import film
    from alpamayo_r1.predict.record import writable_file

    with teaching(), open_source(data) as source:
        writable_file(out)
        planner = load(checkpoint, device=device)
        options = PlanOptions(samples=samples, seed=seed, max_tokens=max_tokens)
        pictures = film(source, clip, planner, out, options, start=start, end=end, step=step)
        for _ in track(pictures, description="filming"):
            pass
    typer.echo(f"open {out.resolve()}")


def register(app: typer.Typer) -> None:
    """Adds the verbs to the command line."""
    app.command("eval")(eval_command)
    app.command("compare")(compare_command)
    app.command("film")(film_command)
