"""`alpamayo-r1 ask`: questions about a clip. Heavy imports happen inside the verb, so that --help answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.options import (
    T0,
    Checkpoint,
    Data,
    Device,
    Fast,
    Json,
    MaxTokens,
    Memory,
    Precision,
    Samples,
    Seed,
    Temperature,
    TopK,
    TopP,
    file_to_write,
    microseconds,
    text,
    texts,
)
from alpamayo_r1.cli.progress import Meter, metered
from alpamayo_r1.core.options import AskOptions


def ask(
    clip: Annotated[str, typer.Argument(callback=text, help="Clip id, or the beginning of one that fits no other.")],
    question: Annotated[list[str], typer.Argument(callback=texts, help="What to ask; several questions see the pictures once.")],
    checkpoint: Checkpoint = "nvidia/Alpamayo-1.5-10B",
    data: Data = "sample",
    t0: T0 = 5.1,
    camera: Annotated[list[str] | None, typer.Option(callback=texts, help="Camera to show; repeat for several (default: four).")] = None,
    samples: Samples = 1,
    seed: Seed = 42,
    temperature: Temperature = AskOptions.temperature,
    top_p: TopP = AskOptions.top_p,
    top_k: TopK = None,
    max_tokens: MaxTokens = AskOptions.max_tokens,
    device: Device = "auto",
    fast: Fast = None,
    precision: Precision = None,
    memory: Memory = None,
    page: Annotated[Path | None, typer.Option(parser=file_to_write, metavar="FILE", help="PNG to draw cameras and answers to.")] = None,
    as_json: Json = False,
) -> None:
    """Ask about what the cameras of a clip see at t0: `alpamayo-r1 ask 026c0758 "Describe the scene."` (Alpamayo 1.5)."""
    options = AskOptions(samples=samples, seed=seed, temperature=temperature, top_p=top_p, top_k=top_k, max_tokens=max_tokens)

    from alpamayo_r1.core.files import writable_file, write_bytes
    from alpamayo_r1.core.types import CAMERAS
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import load

    with open_source(data) as source:
        clip_id = source.find(clip)
        sample = source.clip(clip_id).sample(microseconds(t0), cameras=tuple(camera or CAMERAS), need_future=False)
        if page is not None:
            writable_file(page)
        with metered(Meter(f"loading {checkpoint}", None, "")):
            planner = load(checkpoint, device=device, fast=fast, precision=precision, memory=memory)
        answers = planner.ask(sample.observation, question, options)
    if page is not None:
        from alpamayo_r1.data.notices import notice
        from alpamayo_r1.draw import answers_page, png

        write_bytes(page, png(answers_page(sample, answers, notice(sample.meta.get("source")))))
    if as_json:
        shown = [
            {"clip_id": clip_id, "question": one.question, "answers": one.answers, "ended": one.ended, "timing_ms": one.timing}
            for one in answers
        ]
        typer.echo(json.dumps(shown, indent=2))
        return
    for one in answers:
        typer.secho(one.question, bold=True)
        for answer, whole in zip(one.answers, one.ended, strict=True):
            typer.echo(f"  {answer}{'' if whole else ' ... (cut off)'}")
