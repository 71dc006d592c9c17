"""`alpamayo-r1 quantize` and `precision`: weights of few bits, written, and what each costs on your clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from alpamayo_r1.core.precision import Precision
    from alpamayo_r1.core.quantised import Quantised

CLIPS = 128

HOST_ROOM = 4e9
"""Bytes of the host's memory for what layers read, where the host calibrates."""


def quantize(
    checkpoint: Annotated[str, typer.Argument(callback=text, help="'small', a checkpoint folder, or a Hub repository.")],
    out: OutFolder,
    precision: Annotated[str, typer.Option(callback=text, help="fp8, w8, w4 or tight.")] = "w8",
    calibrate: Annotated[
        str | None,
        typer.Option(callback=maybe_text, help="Data whose clips show what weights meet (GPTQ): as --data elsewhere."),
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
    folder, where = checkpoint_folder(checkpoint), pick_device(device)
    count = len(inspect(folder))
    writable_folder(out)
    made = None if calibrate is None else made_for(checkpoint, few[precision], calibrate, clips, microseconds(t0), device)
    with metered(Meter("quantising", count, "tensors")) as meter:
        schemes = quantise_checkpoint(folder, out, few[precision], device=where, made=made, advance=meter.advance)
    size = sum(file.stat().st_size for file in out.glob("*.safetensors")) / 1e9
    typer.echo(f"{len(schemes)} of {count} weights in {precision}, {size:.2f} GB: load it with --checkpoint {out}")


def made_for(checkpoint: str, precision: Precision, data: str, clips: int, t0_us: int, device: str) -> dict[str, Quantised]:
    """Weights in few bits, for what they are multiplied by in plans of some clips by the specification."""
    from alpamayo_r1.core.calibrate import calibrated
    from alpamayo_r1.core.card import free_bytes
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load

    with open_source(data) as source:
        chosen = source.clip_ids[:clips]
        with metered(Meter(f"loading {checkpoint}", None, "")):
            planner = load(checkpoint, device=device, fast=False)
        where = planner.model.device
        room = free_bytes(where) / 3 if where.type == "cuda" else HOST_ROOM
        with metered(Meter("calibrating", None, "")) as meter:

            def replay() -> None:
                for clip in chosen:
                    with source.clip(clip) as read:
                        planner.plan(read.sample(t0_us, need_future=False).observation, seed=42)
                    meter.advance()

            return calibrated(planner.model, precision, replay, room, meter.advance)


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
