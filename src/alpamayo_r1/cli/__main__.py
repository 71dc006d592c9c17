"""`alpamayo-r1 VERB`. Heavy imports happen inside the verbs, so that --help answers at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alpamayo_r1.cli.evaluate import register
from alpamayo_r1.cli.options import Checkpoint, Data, Device, MaxTokens, Steps, Temperature, TopK, TopP, microseconds, teaching
from alpamayo_r1.core.options import PlanOptions

if TYPE_CHECKING:
    from rich.console import Console

    from alpamayo_r1.predict.run import Done

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
"""Threads sleep where they would spin: a plan takes 0.7 s on two busy cores instead of 6 to 30, and 0.65 s on idle ones instead of 0.5."""

app = typer.Typer(
    help="Alpamayo-R1: four cameras and 1.6 s of the car's past in, reasoning and the next 6.4 s out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Out = Annotated[Path, typer.Option(help="Folder to write to.")]


@app.command()
def run(
    out: Out,
    checkpoint: Checkpoint = "small",
    data: Data = "sample",
    clip: Annotated[list[str] | None, typer.Option(help="Clip id; repeat for several. None: all of a small source.")] = None,
    t0: Annotated[float, typer.Option(help="Seconds of clip time at which to plan.")] = 5.1,
    samples: Annotated[int, typer.Option(min=1, help="Futures per clip.")] = 6,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 42,
    temperature: Temperature = PlanOptions.temperature,
    top_p: TopP = PlanOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    steps: Steps = None,
    reasoning: Annotated[str | None, typer.Option(help="Words to plan by instead of the model's own.")] = None,
    device: Device = "auto",
    fast: Annotated[bool | None, typer.Option(help="Fast engine (default: on cuda only).")] = None,
) -> None:
    """Plan clips: reasoning, trajectory, minADE, and a page of pictures for each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.record import writable_folder
    from alpamayo_r1.predict.run import Done, choose, open_source, read
    from alpamayo_r1.predict.run import run as plan_clips

    console = Console()
    outcomes = []
    with teaching():
        options = PlanOptions(
            samples=samples, seed=seed, reasoning=reasoning, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens,
            steps=steps,
        )  # fmt: skip
        t0_us = microseconds(t0)
        source = open_source(data)
        clips = choose(source, clip or [])
        if len(clips) == 1:
            read(source, clips[0], t0_us)
        writable_folder(out)
        with console.status(f"loading {checkpoint}"):
            planner = load(checkpoint, device=device, fast=fast)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("planning", total=len(clips))
            for one in plan_clips(planner, source, clips, out, options, t0_us=t0_us, about={"checkpoint": checkpoint}):
                outcomes.append(one)
                progress.advance(task)
    done = [one for one in outcomes if isinstance(one, Done)]
    if done:
        show(console, done, f"{checkpoint} on {data}, t0 {t0:g} s, {samples} samples, seed {seed}")
        console.print(f"open [bold]{out.resolve()}[/bold]: one page (png) and one record (json) per clip")
    for one in outcomes:
        if one not in done:
            typer.secho(f"error: {one.clip_id}: {one.error}", fg="red", err=True)
    if len(done) < len(outcomes):
        raise typer.Exit(1 if done else 2)


def show(console: Console, done: list[Done], title: str) -> None:
    """Prints a row per clip and the means."""
    from rich.markup import escape
    from rich.table import Table

    from alpamayo_r1.predict.run import means

    table = Table(title=escape(title))
    for name, justify in (("clip", "left"), ("reasoning of sample 1", "left"), ("minADE", "right"), ("CV", "right"), ("CTRA", "right")):
        table.add_column(name, justify=justify, no_wrap=name == "clip")
    table.add_column("plan ms", justify="right")
    for one in done:
        record = one.record
        errors = [record["min_ade"], *record["baselines"].values()]
        shown = ["-" if e is None else f"{e:.2f}" for e in errors]
        clip_id, said = (escape(text) for text in (record["clip_id"][:8], record["reasoning"][0]))
        table.add_row(clip_id, said or "(none)", *shown, f"{sum(record['timing_ms'].values()):.0f}")
    averages = means(done)
    if averages:
        table.add_section()
        table.add_row("mean", "", *(f"{value:.2f}" for value in averages.values()), "")
    console.print(table)
    console.print("metres; CV: constant velocity, CTRA: constant turn rate and acceleration")


@app.command()
def world(
    out: Out,
    seed: Annotated[int, typer.Option(help="First seed; clips take seed, seed + 1, ...")] = 0,
    clips: Annotated[int, typer.Option(min=1)] = 8,
    width: Annotated[int, typer.Option(min=2, help="Of a picture; even.")] = 640,
    height: Annotated[int, typer.Option(min=2, help="Of a picture; even.")] = 360,
    seconds: Annotated[float, typer.Option(min=0.4, help="Length of the videos: 30 pictures a second of each of four cameras.")] = 8.0,
    start: Annotated[float, typer.Option(help="Clip time at which the videos start, s.")] = 0.0,
) -> None:
    """Write clips of the synthetic driving world in the data set's layout. A clip of the default size takes minutes."""
    from rich.progress import Progress

    from alpamayo_r1.predict.record import writable_folder
    from alpamayo_r1.world.clips import write_world

    with teaching():
        writable_folder(out)
        with Progress() as bar:
            task = bar.add_task("rendering clips", total=clips)
            options = {"width": width, "height": height, "seconds": seconds, "t_start": start}
            ids = write_world(seed, clips, out, rendered=lambda share: bar.advance(task, share), **options)
            bar.update(task, completed=clips)
    typer.echo(f"{len(ids)} clips in {out.resolve()}")
    typer.echo(f"plan them: alpamayo-r1 run --data {out} --out {out.with_name(out.name + '-plans')}")


@app.command()
def train(
    out: Out,
    preset: Annotated[str, typer.Option(help="small (the bundled model) or tiny.")] = "small",
    minutes: Annotated[float, typer.Option(min=0.01, help="Time budget; the learning rate reaches zero at its end.")] = 9.0,
    batch: Annotated[int, typer.Option(min=1, help="Scenes a step and process.")] = 64,
    rate: float = 1.5e-3,
    reuse: Annotated[int, typer.Option(help="How often a rendered scene is trained on.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the weights, the noise and the order.")] = 0,
    first_seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes that simulate.")] = 12,
    resume: Annotated[Path | None, typer.Option(help="A state.pt, or a checkpoint folder, to go on from.")] = None,
    compile: Annotated[bool, typer.Option(help="torch.compile the blocks of the model on a GPU.")] = True,
    device: Device = "auto",
) -> None:
    """Train the small model on the world, and write a checkpoint in the released layout. Under torchrun: one process a GPU."""
    from alpamayo_r1.planner import pick_device
    from alpamayo_r1.predict.record import writable_folder
    from alpamayo_r1.train.loop import TrainConfig
    from alpamayo_r1.train.loop import train as run_training
    from alpamayo_r1.train.stream import StreamConfig

    config = TrainConfig(minutes=minutes, batch=batch, rate=rate, reuse=reuse, seed=seed, workers=workers, compile=compile)
    with teaching():
        writable_folder(out)
        where = pick_device(f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ and device == "auto" else device)
        run_training(out, preset, config, StreamConfig(first_seed=first_seed), where, resume)


@app.command()
def measure(
    checkpoint: Checkpoint = "small",
    scenes: Annotated[int, typer.Option(min=1, max=50_000, help="Test scenes, seeds from 800,000 on.")] = 512,
    samples: Annotated[int, typer.Option(min=1, help="Futures per scene.")] = 6,
    batch: Annotated[int, typer.Option(min=1, help="Scenes at once.")] = 8,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on unseen world scenes: ADE, minADE, baselines, decisions, steering, by family."""
    import json

    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.record import writable_file
    from alpamayo_r1.train.validate import TEST_SEEDS, cut, table
    from alpamayo_r1.train.validate import measure as run_measure

    with teaching():
        if out is not None:
            writable_file(out)
        planner = load(checkpoint, device=device, fast=False)
    seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + scenes)
    result = run_measure(planner.model, planner.vocabulary, seeds=seeds, samples=samples, batch=batch, supersample=1)
    typer.echo(table(result))
    if out is not None:
        out.write_text(json.dumps(cut(result), indent=2) + "\n")


@app.command()
def bench(
    size: Annotated[str, typer.Option(help="10b or small.")] = "10b",
    samples: Annotated[str, typer.Option(help="Numbers of samples, comma-separated.")] = "1,6,16",
    tokens: Annotated[str, typer.Option(help="Numbers of reasoning tokens, comma-separated.")] = "16,41",
    batch: Annotated[int, typer.Option(min=1, help="Scenes a plan.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs after the warm-up.")] = 10,
    fast: Annotated[bool | None, typer.Option(help="Fast engine (default: on cuda only).")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N (none: cuda where there is one).")] = None,
) -> None:
    """Time random weights of full size by stage, beside the machine's ceilings and the floor of each stage; ends with one JSON line."""
    from alpamayo_r1.bench import bench as run_bench

    with teaching():
        run_bench(size, whole_numbers(samples), whole_numbers(tokens), batch, repeats=repeats, fast=fast, device=device)


def whole_numbers(text: str) -> tuple[int, ...]:
    """ "1,6,16" -> (1, 6, 16). Raises ValueError unless all are whole and at least 1."""
    numbers = text.split(",")
    if not all(n.strip().isdecimal() and int(n) > 0 for n in numbers):
        raise ValueError(f"{text!r} was given, expected whole numbers of at least 1, comma-separated: 1,6,16")
    return tuple(int(n) for n in numbers)


register(app)


if __name__ == "__main__":
    app()
