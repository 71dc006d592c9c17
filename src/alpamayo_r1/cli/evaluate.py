"""`alpamayo-r1 eval` and `compare`: many clips. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpamayo_r1.cli.options import (
    Checkpoint,
    Data,
    Device,
    Fast,
    Guidance,
    MaxTokens,
    OutFigures,
    OutFolder,
    Precision,
    Samples,
    Seed,
    Steps,
    Temperature,
    Threads,
    TopK,
    TopP,
    maybe_text,
    moments,
    place,
    whole,
)
from alpamayo_r1.cli.progress import Meter, metered
from alpamayo_r1.core.options import PlanOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alpamayo_r1.evaluate.loop import Progress

Evaluation = Annotated[Path, typer.Argument(parser=place, metavar="FOLDER", help="Folder of an evaluation.")]


def evaluate(
    out: OutFolder,
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    clips: Annotated[
        str | None,
        typer.Option(
            callback=maybe_text,
            help="FILE.parquet, FILE.txt, gold644, or N for the first N (default: gold644, or all clips of a synthetic data set).",
        ),
    ] = None,
    t0: Annotated[
        str, typer.Option(callback=moments, help="Seconds of clip time, 'grid' (every whole second), or a FILE with clip ids and times.")
    ] = "5.1",
    samples: Samples = 6,
    seed: Seed = 42,
    temperature: Temperature = PlanOptions.temperature,
    top_p: TopP = PlanOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    steps: Steps = None,
    navigation: Annotated[
        str | None, typer.Option(callback=maybe_text, help="FILE of what the driver is told: `clip_id text` on each line, or .json.")
    ] = None,
    guidance: Guidance = None,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    threads: Threads = None,
    retry_failed: Annotated[bool, typer.Option(help="Try clips again whose row is an error.")] = False,
    ray: Annotated[
        str | None, typer.Option(callback=maybe_text, help="Address of a Ray cluster, or 'local': plan there, write here.")
    ] = None,
    workers: Annotated[int | None, whole(1, 4096, "Models on the cluster (default: one per GPU, or one per node).")] = None,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.")] = True,
) -> None:
    """Evaluate many clips by the published protocol: durable rows, intervals, baselines, a report. Resumes where it stopped."""
    if workers is not None and ray is None:
        raise ValueError("--workers counts models on a Ray cluster: give --ray local or its address too, or leave --workers out")

    from alpamayo_r1.core.notes import mute
    from alpamayo_r1.evaluate import EvalConfig
    from alpamayo_r1.evaluate import evaluate as evaluate_clips
    from alpamayo_r1.evaluate.protocol import PROTOCOL

    mute("reasoning-unfinished")  # counted as malformed
    command = shlex.join(["alpamayo-r1", *sys.argv[1:]])
    options = PlanOptions(
        samples=samples, seed=seed, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens, steps=steps or PROTOCOL.steps
    )
    config = EvalConfig(checkpoint, data, clips, t0, options, navigation, guidance, device, fast, threads, precision)
    last = follow(evaluate_clips(config, out, command=command, retry_failed=retry_failed, ray=ray, workers=workers))
    finish(out, report)
    if last.failed:
        typer.secho(f"error: {last.failed} of {last.total} rows failed; --retry-failed tries them again", fg="red", err=True)
        for line in failures(out):
            typer.secho(line, fg="red", err=True)
        raise typer.Exit(1)


def follow(finished: Iterable[Progress]) -> Progress:
    """Shows how far the rows are; returns the last Progress."""
    with metered(Meter("evaluating", None, "clips")) as meter:
        last = None
        for last in finished:
            if last.row is None:
                meter.restart(last.done)
            told = [f"minADE {last.min_ade:.3f} m"] if last.min_ade == last.min_ade else []
            told += [f"{last.failed} failed"] if last.failed else []
            meter.update(last.done, last.total, ", ".join(told))
    assert last is not None
    return last


def failures(out: Path, most: int = 10) -> list[str]:
    """The failed rows of an evaluation as lines: clip, t0 and why; of many the first ones."""
    import pyarrow.parquet as pq

    rows = pq.read_table(out / "results.parquet", columns=["clip_id", "t0_us", "error"]).to_pylist()
    failed = [row for row in rows if row["error"] is not None]
    lines = [f"  {row['clip_id']} at {row['t0_us'] / 1e6:.6g} s: {row['error'].splitlines()[0]}" for row in failed[:most]]
    return lines + ([f"  and {len(failed) - most} more: see `error` in results.parquet"] if len(failed) > most else [])


def finish(out: Path, report: bool) -> None:
    """Writes summary.json and report.html, and prints the main figures."""
    from rich.console import Console

    from alpamayo_r1.evaluate.summary import summarise, table

    summary = summarise(out)
    Console().print(table(summary))
    if report:
        from alpamayo_r1.evaluate.report import write_report

        with metered(Meter("drawing the report", None, "")):
            written = write_report(out, summary)
        typer.echo(f"open {written.resolve()}")


def compare(
    first: Evaluation,
    second: Evaluation,
    out: OutFigures = None,
) -> None:
    """Compare two evaluations clip by clip: mean differences (second - first) with 95 % intervals."""
    import json

    from rich.console import Console

    from alpamayo_r1.core.files import writable_file, write_text
    from alpamayo_r1.evaluate.summary import compare as compare_folders
    from alpamayo_r1.evaluate.summary import comparison_table

    for folder in (first, second):
        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder} holds no evaluation (it has no config.json): give the --out folder of an `alpamayo-r1 eval`")
    if out is not None:
        writable_file(out)
    result = compare_folders(first, second)
    Console().print(comparison_table(result))
    if out is not None:
        write_text(out, json.dumps(result, indent=2) + "\n")
