"""What a precision costs with your own weights on your own clips: the same clips and draws in each, compared pair by pair."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpamayo_r1 import metrics
from alpamayo_r1.core.files import write_bytes, write_text
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.data.source import Source
from alpamayo_r1.draw import png, prices_page
from alpamayo_r1.draw.prices import Bar
from alpamayo_r1.evaluate.score import score
from alpamayo_r1.metrics.intervals import Interval, interval
from alpamayo_r1.planner import Planner

Load = Callable[[str], Planner]
"""The planner of a precision."""


@dataclass(frozen=True)
class Outcome:
    """One clip in one precision."""

    clip: str
    min_ade: float
    ade: float
    consistent: float
    words: tuple[str, ...]
    xyz: torch.Tensor
    milliseconds: float


@dataclass(frozen=True)
class Price:
    """One precision over all clips; differences are from the first precision, clip by clip. gigabytes: at most in use, None on the CPU."""

    precision: str
    min_ade: Interval
    min_ade_difference: Interval
    ade: Interval
    ade_difference: Interval
    words_equal: float
    consistent: float
    moved: float  # metres between paths of the same draws whose words are equal, mean over waypoints; NaN where there are none
    milliseconds: float
    gigabytes: float | None


def prices(
    load: Load,
    precisions: Sequence[str],
    source: Source,
    clips: Sequence[str],
    options: PlanOptions,
    t0_us: int,
    advance: Callable[[], None] = lambda: None,
) -> list[Price]:
    """The price of each precision, the first one the measure of the others. advance: called after each plan.

    Raises:
        ValueError: fewer than two precisions, one of them twice, no clip, or no seed.
        What reading a clip or loading raises: every precision must plan the same clips.
    """
    if len(set(precisions)) != len(precisions) or len(precisions) < 2:
        raise ValueError(f"precisions are {', '.join(precisions)}, expected two or more different ones: the first is the others' measure")
    if not clips:
        raise ValueError("there is no clip to compare on")
    if options.seed is None:
        raise ValueError("seed is None: without one every precision would draw anew")
    found: list[Price] = []
    exact: list[Outcome] = []
    for name in precisions:
        planner = load(name)
        cuda = planner.model.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(planner.model.device)
        outcomes = []
        for clip in clips:
            outcomes.append(outcome(planner, source, clip, options, t0_us))
            advance()
        peak = torch.cuda.max_memory_allocated(planner.model.device) / 1e9 if cuda else None
        exact = exact or outcomes
        found.append(price(name, outcomes, exact, peak))
        del planner
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    return found


def outcome(planner: Planner, source: Source, clip: str, options: PlanOptions, t0_us: int) -> Outcome:
    """One clip planned and scored."""
    with source.clip(clip) as read:
        sample = read.sample(t0_us, need_future=False)
    began = time.perf_counter()
    plan = planner.plan(sample.observation, options)
    spent = 1e3 * (time.perf_counter() - began)
    return scored(clip, sample, plan, spent)


def scored(clip: str, sample: Sample, plan: Plan, milliseconds: float) -> Outcome:
    """A plan's figures. Without a future its errors are NaN."""
    row = score(sample, plan)
    return Outcome(clip, row["min_ade"], row["ade"], row["consistent"], plan.reasoning, plan.xyz.double().cpu(), milliseconds)


def price(name: str, outcomes: Sequence[Outcome], exact: Sequence[Outcome], gigabytes: float | None) -> Price:
    """The price of one precision."""

    def of(key: str) -> tuple[Interval, Interval]:
        mine, theirs = (np.array([getattr(one, key) for one in some]) for some in (outcomes, exact))
        return interval(mine), interval(mine - theirs)

    pairs = [(one, other, s) for one, other in zip(outcomes, exact, strict=True) for s in range(len(one.words))]
    alike = [(one, other, s) for one, other, s in pairs if one.words[s] == other.words[s]]
    moved = [metrics.ade(one.xyz[s : s + 1], other.xyz[s]).value.item() for one, other, s in alike]
    return Price(
        name,
        *of("min_ade"),
        *of("ade"),
        words_equal=len(alike) / len(pairs),
        consistent=statistics.fmean(one.consistent for one in outcomes),
        moved=statistics.fmean(moved) if moved else float("nan"),
        milliseconds=statistics.median(one.milliseconds for one in outcomes),
        gigabytes=gigabytes,
    )


def table(found: Sequence[Price]) -> str:
    """Prices as text."""
    head = f"{'':8}{'minADE m':>10}{'difference (95 %)':>30}{'ADE m':>9}{'difference (95 %)':>30}{'words equal':>13}{'consistent':>12}"
    lines = [head + f"{'moved m':>9}{'plan ms':>10}{'GB':>7}"]
    for one in found:
        parts = [f"{one.precision:8}{one.min_ade.mean:>10.3f}{bounds(one.min_ade_difference):>30}"]
        parts += [f"{one.ade.mean:>9.3f}{bounds(one.ade_difference):>30}{one.words_equal:>13.1%}{one.consistent:>12.1%}"]
        parts += [f"{one.moved:>9.3f}{one.milliseconds:>10.1f}{'-' if one.gigabytes is None else f'{one.gigabytes:.2f}':>7}"]
        lines.append("".join(parts))
    return "\n".join(lines)


def bounds(one: Interval) -> str:
    """ "+0.002 (-0.010 .. +0.013)"; without bounds below 10 clips."""
    known = np.isfinite(one.low) and np.isfinite(one.high)
    return f"{one.mean:+.4f} ({one.low:+.4f} .. {one.high:+.4f})" if known else f"{one.mean:+.4f} (too few clips)"


def picture(found: Sequence[Price], title: str) -> bytes:
    """The same as a PNG."""

    def bar(one: Interval) -> Bar | None:
        if not np.isfinite(one.mean):
            return None
        return Bar(one.mean, one.low, one.high) if np.isfinite(one.low) else Bar(one.mean)

    panels: list[tuple[str, str, list[Bar | None]]] = [
        ("minADE, difference", "m, 95 %", [bar(one.min_ade_difference) for one in found]),
        ("words equal", "share of samples", [Bar(one.words_equal) for one in found]),
        ("a plan", "ms, median", [Bar(one.milliseconds) for one in found]),
        ("memory", "GB at most", [None if one.gigabytes is None else Bar(one.gigabytes) for one in found]),
    ]
    return png(prices_page(title, [one.precision for one in found], panels))


def save(found: Sequence[Price], folder: Path, about: dict[str, Any]) -> None:
    """Writes prices.json, prices.txt and prices.png."""
    plain = {**about, "prices": [asdict(one) for one in found]}
    write_text(folder / "prices.json", json.dumps(finite(plain), indent=2) + "\n")
    write_text(folder / "prices.txt", table(found) + "\n")
    clips = found[0].min_ade.clips + found[0].min_ade.masked
    write_bytes(
        folder / "prices.png", picture(found, f"{about['checkpoint']} on {clips} clips of {about['data']}, beside {found[0].precision}")
    )


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
