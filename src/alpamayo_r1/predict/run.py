"""Clips in, predictions on disk: for each clip a JSON record and a page with the pictures. What `alpamayo-r1 run` does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpamayo_r1.core.files import write_bytes
from alpamayo_r1.core.gate.values import check_texts, check_type, path_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.data.clips import T0_US
from alpamayo_r1.data.clock import moment
from alpamayo_r1.data.source import Source
from alpamayo_r1.draw import page, png
from alpamayo_r1.planner import Planner
from alpamayo_r1.predict.record import result, write_result


@dataclass(frozen=True)
class Done:
    """One clip's outcome: its record, and how long reading and drawing took (ms)."""

    record: dict[str, Any]
    files: tuple[Path, Path]
    load_ms: float
    draw_ms: float


@dataclass(frozen=True)
class Failed:
    """A clip that could not be read, planned or drawn, and why."""

    clip_id: str
    error: Exception


def run(
    planner: Planner,
    source: Source,
    clips: Sequence[str],
    out: Path,
    options: PlanOptions,
    *,
    t0_us: int = T0_US,
    about: Mapping[str, Any] | None = None,
    also: Callable[[Sample, Plan], None] | None = None,
) -> Iterator[Done | Failed]:
    """Plans every clip at t0; writes out/<clip>.json and out/<clip>.png as each is finished. A clip's trouble stays its own: the others are
    planned. What would stop them too, a full disk or a plan that does not fit the memory, ends the run.

    Files of another t0 than the release's have it in their names: out/<clip>_6.5s.json.
    about: what the records shall say of the run beside its options, such as the checkpoint's name.
    also: called with every clip and its plan.
    """
    check_texts("clips", clips, "source.clip_ids")
    check_type("options", options, PlanOptions, "PlanOptions(samples=6, seed=42)")
    check_type("about", about, (Mapping, type(None)), "a dict, or None")
    out, t0_us = path_of("out", out), moment(t0_us)
    request = {**(about or {}), **options.plain()}
    for clip_id in clips:
        name = file_name(clip_id, t0_us)
        began = time.perf_counter()
        try:
            sample = read(source, clip_id, t0_us)
            loaded = time.perf_counter()
            plan = planner.plan(sample.observation, options)
            planned = time.perf_counter()
            record = result(sample, plan, options.seed, request)
            drawing = png(page(sample, plan, record))
            if also is not None:
                also(sample, plan)
        except MemoryError:
            raise
        except Exception as error:
            yield Failed(clip_id, error)
            continue
        written = write_result(record, out / f"{name}.json")
        picture = write_bytes(out / f"{name}.png", drawing)
        drawn = time.perf_counter()
        yield Done(record, (written, picture), 1e3 * (loaded - began), 1e3 * (drawn - planned))


def file_name(clip_id: str, t0_us: int) -> str:
    """What the files of a clip at t0 are called, without their ending; exact to the microsecond, so that no two moments share a file."""
    if t0_us == T0_US:
        return clip_id
    seconds, rest = divmod(abs(t0_us), 1_000_000)
    digits = f"{seconds}.{rest:06d}".rstrip("0").rstrip(".")
    return f"{clip_id}_{'-' if t0_us < 0 else ''}{digits}s"


def read(source: Source, clip_id: str, t0_us: int) -> Sample:
    """One clip at t0, with its future where the log reaches that far."""
    with source.clip(clip_id) as clip:
        return clip.sample(t0_us, need_future=False)


def choose(source: Source, wanted: Sequence[str]) -> list[str]:
    """The clips to run, each once: the wanted ones (ids, or beginnings of them that fit no other), or all of a small source.

    Raises:
        ValueError: none named and the source has more than 100. UnknownClip: a name that the source does not have.
    """
    if wanted:
        return list(dict.fromkeys(source.find(name) for name in wanted))
    if len(source.clip_ids) > 100:
        raise ValueError(f"{source.name} has {len(source.clip_ids)} clips: name some with --clip, or use `alpamayo-r1 eval` for many")
    return list(source.clip_ids)


def means(done: Sequence[Done]) -> dict[str, float]:
    """Mean minADE and mean of every baseline over the clips whose future is known."""
    known = [d.record for d in done if d.record["min_ade"] is not None]
    if not known:
        return {}
    rows = {"model": [r["min_ade"] for r in known]}
    for name in known[0]["baselines"]:
        rows[name] = [r["baselines"][name] for r in known]
    return {name: statistics.fmean(values) for name, values in rows.items()}
