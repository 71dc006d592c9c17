"""`alpamayo-r1 world`, `train`, `validate` and `bench`: what makes clips, models and figures. Heavy imports happen inside the verbs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.options import (
    Batch,
    Checkpoint,
    Device,
    Fast,
    Memory,
    OutFigures,
    OutFolder,
    Precision,
    Samples,
    device_name,
    maybe_text,
    number,
    place_to_read,
    text,
    whole,
)
from alpamayo_r1.cli.progress import Clock, Meter, metered

MAX_SCENE_SEED = 2**40
"""Seeds of scenes lie below this."""


def world(
    out: OutFolder,
    seed: Annotated[int, whole(0, MAX_SCENE_SEED, "First seed; clips take seed, seed + 1, ...")] = 0,
    clips: Annotated[int, whole(1, 100_000, "How many clips to write.")] = 8,
    width: Annotated[int, whole(2, 3840, "Picture width (even).")] = 640,
    height: Annotated[int, whole(2, 2160, "Picture height (even).")] = 360,
    seconds: Annotated[float, number(0.4, 60, "Length of the videos.")] = 8.0,
    start: Annotated[float, number(0, 60, "Clip time at which the videos start.")] = 0.0,
    family: Annotated[str | None, typer.Option(callback=maybe_text, help="Situation of all clips (default: each seed's own).")] = None,
) -> None:
    """Write clips of the synthetic driving world in the data set's layout. A clip of the default size takes minutes."""
    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.world.clips import check_size, write_world

    check_size(width, height)
    check_room(width, height, seconds)
    writable_folder(out)
    with metered(Meter("rendering", clips, "clips")) as meter:
        options = {"width": width, "height": height, "seconds": seconds, "t_start": start, "family": family}
        ids = write_world(seed, clips, out, rendered=meter.advance, **options)
    typer.echo(f"{len(ids)} clips in {out.resolve()}")
    typer.echo(f"plan them: alpamayo-r1 run --data {out} --out {out.with_name(out.name + '-plans')}")


def check_room(width: int, height: int, seconds: float) -> None:
    """Raises ValueError for a clip whose pictures take more memory than is free."""
    from alpamayo_r1.bench import free_memory

    needed = 2 * 4 * (30 * seconds + 1) * 3 * width * height  # four cameras; the pictures once as rendered, once joined
    if needed > free_memory():
        raise ValueError(
            f"a clip of {seconds:g} s at {width} x {height} takes {needed / 1e9:.1f} GB while it is rendered, {free_memory() / 1e9:.1f} GB "
            "are free: give fewer --seconds or smaller pictures"
        )


def train(
    out: OutFolder,
    preset: Annotated[str, typer.Option(callback=text, help="small, small-1.5 (the bundled models), tiny or tiny-1.5.")] = "small",
    minutes: Annotated[float, number(0.01, 43_200, "Time budget; the learning rate reaches zero at its end.")] = 9.0,
    batch: Annotated[int, whole(1, 4096, "Scenes per step and process.")] = 64,
    rate: Annotated[float, number(0, 1, "Highest learning rate.")] = 1.5e-3,
    reuse: Annotated[int, whole(1, 1000, "How often a rendered scene is trained on.")] = 4,
    seed: Annotated[int, whole(0, 2**63 - 10**9, "Random seed of the weights, the noise and the order.")] = 0,
    first_seed: Annotated[int, whole(0, MAX_SCENE_SEED, "Seed of the first scene.")] = 0,
    workers: Annotated[int, whole(1, 1024, "Processes that simulate.")] = 12,
    resume: Annotated[
        Path | None, typer.Option(parser=place_to_read, metavar="PLACE", help="A state.pt, or a checkpoint folder, to go on from.")
    ] = None,
    compile: Annotated[bool, typer.Option(help="torch.compile the blocks of the model on a GPU.")] = True,
    device: Device = "auto",
) -> None:
    """Train the small model on the world, and write a checkpoint in the released layout. Under torchrun: one process per GPU."""
    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.planner import pick_device
    from alpamayo_r1.train.loop import TrainConfig
    from alpamayo_r1.train.loop import train as run_training
    from alpamayo_r1.train.mixed import train_mixed
    from alpamayo_r1.train.presets import preset_named
    from alpamayo_r1.train.stream import StreamConfig

    config = TrainConfig(minutes=minutes, batch=batch, rate=rate, reuse=reuse, seed=seed, workers=workers, compile=compile)
    mixed = preset_named(preset).family.navigates
    writable_folder(out)
    where = pick_device(f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ and device == "auto" else device)
    with metered(Clock("training", 60 * minutes, "s")):
        (train_mixed if mixed else run_training)(out, preset, config, StreamConfig(first_seed=first_seed), where, resume)


def validate(
    checkpoint: Checkpoint = "small",
    scenes: Annotated[int, whole(1, 50_000, "Test scenes, seeds from 800,000 on.")] = 512,
    samples: Samples = 6,
    batch: Batch = 8,
    t0: Annotated[float, number(1.6, 13.5, "Seconds of the scenes' clock at which is planned.")] = 5.1,
    out: OutFigures = None,
    device: Device = "auto",
) -> None:
    """Validate a checkpoint on unseen world scenes at one t0: ADE, minADE, baselines, decisions, steering, by family."""
    import json

    from alpamayo_r1.core.files import writable_file, write_text
    from alpamayo_r1.planner import load
    from alpamayo_r1.train.validate import TEST_SEEDS, rounded, table
    from alpamayo_r1.train.validate import validate as run_validation

    if out is not None:
        writable_file(out)
    seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + scenes)
    with metered(Meter("validating", None, "")):
        planner = load(checkpoint, device=device, fast=False)
        result = run_validation(planner.model, planner.vocabulary, seeds=seeds, samples=samples, batch=batch, t0=t0, supersample=1)
    typer.echo(table(result))
    if out is not None:
        write_text(out, json.dumps(rounded(result), indent=2) + "\n")


def bench(
    size: Annotated[str, typer.Option(callback=text, help="10b or small.")] = "10b",
    samples: Annotated[str, typer.Option(callback=text, help="Numbers of samples, comma-separated.")] = "1,6,16",
    tokens: Annotated[str, typer.Option(callback=text, help="Numbers of reasoning tokens, comma-separated.")] = "16,41",
    batch: Annotated[int, whole(1, 256, "Scenes per plan.")] = 1,
    repeats: Annotated[int, whole(1, 10_000, "Timed runs after the warm-up.")] = 10,
    fast: Fast = None,
    device: Annotated[
        str | None,
        typer.Option(callback=lambda name: name and device_name(name), help="auto, cpu, cuda, cuda:N; with --stream also cuda:0,cuda:1."),
    ] = None,
    precision: Precision = None,
    memory: Memory = None,
    words_on_host: Annotated[bool, typer.Option("--words-on-host", help="Word table in host memory, as on small cards.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Steps of a stream, its words and pictures replayed.")] = False,
    acceptance: Annotated[str, typer.Option(callback=text, help="With --stream: shares of drafts that are right.")] = "0,0.5,0.8,0.9,1",
) -> None:
    """Time random weights of full size by stage, beside the machine's ceilings and the floor of each stage; ends with one JSON line."""
    samples_, tokens_ = whole_numbers("samples", samples, 1, 1024), whole_numbers("tokens", tokens, 3, 4096)
    if stream:
        if batch != 1 or fast is False or words_on_host or precision or memory:
            raise ValueError("--stream measures the engine in bf16 on one scene: leave --batch, --no-fast and what weights are out")
        shares_ = shares(acceptance)

        from alpamayo_r1.bench.stream import bench_stream

        for count in tokens_:
            bench_stream(size, samples_, count, shares_, repeats=repeats, device=device)
        return

    from alpamayo_r1.bench import bench as run_bench

    run_bench(
        size, samples_, tokens_, batch, repeats=repeats, fast=fast, device=device, words_on_host=words_on_host, precision=precision,
        memory=memory,
    )  # fmt: skip


def shares(given: str) -> tuple[float, ...]:
    """ "0,0.5,1" -> (0.0, 0.5, 1.0). Raises ValueError for one that is no number from 0 to 1."""
    try:
        numbers = tuple(float(n) for n in given.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= n <= 1 for n in numbers):
        raise ValueError(f"--acceptance {given!r} was given, expected shares between 0 and 1, comma-separated, such as 0,0.8,1")
    return numbers


def whole_numbers(name: str, given: str, low: int, high: int) -> tuple[int, ...]:
    """ "1,6,16" -> (1, 6, 16).

    Raises:
        ValueError: one that is not whole, or out of its bounds.
    """
    numbers = [n.strip() for n in given.split(",")]
    if not all(n.isdecimal() and len(n) < 10 and low <= int(n) <= high for n in numbers):
        raise ValueError(f"--{name} {given!r} was given, expected whole numbers between {low} and {high}, comma-separated, such as 3,16,41")
    return tuple(int(n) for n in numbers)
