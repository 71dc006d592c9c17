"""`alpamayo-r1 quantize` and `precision`: weights of few bits, written, and what each costs on your clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.options import (
    T0,
    Data,
    Device,
    Fast,
    MaxTokens,
    Memory,
    OutFolder,
    Samples,
    Seed,
    maybe_text,
    microseconds,
    text,
    whole,
)
from alpamayo_r1.cli.progress import Meter, metered
from alpamayo_r1.core.options import PlanOptions

CLIPS = 128


def quantize(
    checkpoint: Annotated[str, typer.Argument(callback=text, help="'small', a checkpoint folder, or a Hub repository.")],
    out: OutFolder,
    precision: Annotated[str, typer.Option(callback=text, help="fp8, w8, w4 or tight.")] = "w8",
    calibrate: Annotated[
        str | None, typer.Option(callback=maybe_text, help="Data whose clips say which columns matter (w4 and tight): as --data elsewhere.")
    ] = None,
    clips: Annotated[int, whole(1, 100_000, "Clips of it that are planned.")] = CLIPS,
    t0: T0 = 5.1,
    device: Device = "auto",
) -> None:
    """Write a checkpoint in few bits, in the layout of compressed-tensors: half the bytes or fewer, the plans of `load(precision=)`."""
    from alpamayo_r1.core.checkpoint import inspect
    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.core.hub import checkpoint_folder
    from alpamayo_r1.core.precision import PRECISIONS
    from alpamayo_r1.core.quantise import quantise_checkpoint
    from alpamayo_r1.planner import pick_device

    few = {name: one for name, one in PRECISIONS.items() if one.kinds}
    if precision not in few:
        raise ValueError(f"--precision {precision!r} was given, expected one of {', '.join(few)}")
    if calibrate is not None and "int4" not in few[precision].kinds.values():
        raise ValueError(f"--calibrate is for int4, which {precision} has none of: leave it out, or give --precision w4 or tight")
    folder, where = checkpoint_folder(checkpoint), pick_device(device)
    count = len(inspect(folder))
    writable_folder(out)
    importance = None if calibrate is None else importance_of(checkpoint, precision, calibrate, clips, microseconds(t0), device)
    with metered(Meter("quantising", count, "tensors")) as meter:
        schemes = quantise_checkpoint(folder, out, few[precision], device=where, importance=importance, advance=meter.advance)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors")) / 1e9
    typer.echo(f"{len(schemes)} of {count} weights in {precision}, {size:.2f} GB: load it with --checkpoint {out}")


def importance_of(checkpoint: str, precision: str, data: str, clips: int, t0_us: int, device: str):
    """Mean squares of what each weight's columns are multiplied by, over plans of some clips by the specification."""
    from alpamayo_r1.core.precision import PRECISIONS
    from alpamayo_r1.core.quantise import input_squares
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load

    with open_source(data) as source:
        chosen = source.clip_ids[:clips]
        with metered(Meter(f"loading {checkpoint}", None, "")):
            planner = load(checkpoint, device=device, fast=False)
        with metered(Meter("calibrating", len(chosen), "clips")) as meter, input_squares(planner.model, PRECISIONS[precision]) as squares:
            for clip in chosen:
                with source.clip(clip) as read:
                    planner.plan(read.sample(t0_us, need_future=False).observation, seed=42)
                meter.advance()
    return squares


def precision(
    checkpoint: Annotated[str, typer.Argument(callback=text, help="'small', a checkpoint folder, or a Hub repository.")],
    out: OutFolder,
    data: Data = "sample",
    clips: Annotated[int, whole(1, 1_000_000, "The first so many clips of the data.")] = CLIPS,
    precisions: Annotated[str, typer.Option(callback=text, help="Comma-separated; the first is what the others are compared with.")] = (
        "bf16,fp8,w8,w4,tight"
    ),
    t0: T0 = 5.1,
    samples: Samples = 6,
    seed: Seed = 42,
    max_tokens: MaxTokens = PlanOptions.max_tokens,
    device: Device = "auto",
    fast: Fast = None,
    memory: Memory = None,
) -> None:
    """Compare precisions on clips, with the same draws: minADE, ADE, words, consistency, time and memory; prices.json, .txt and .png."""
    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.core.notes import mute
    from alpamayo_r1.core.precision import precision_named
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.evaluate.price import prices, save, table
    from alpamayo_r1.planner import Planner, load

    names = tuple(name.strip() for name in precisions.split(","))
    for name in names:
        precision_named(name)
    options = PlanOptions(samples=samples, seed=seed, max_tokens=max_tokens)
    writable_folder(out)
    mute("reasoning-unfinished")

    def loaded(name: str) -> Planner:
        return load(checkpoint, device=device, fast=fast, precision=name, memory=memory)

    with open_source(data) as source:
        chosen = source.clip_ids[:clips]
        with metered(Meter("planning", len(chosen) * len(names), "plans")) as meter:
            found = prices(loaded, names, source, chosen, options, microseconds(t0), meter.advance)
    save(found, Path(out), {"checkpoint": checkpoint, "data": data, "samples": samples, "seed": seed, "t0": t0})
    typer.echo(table(found))
    typer.echo(f"open {Path(out).resolve() / 'prices.png'}")
