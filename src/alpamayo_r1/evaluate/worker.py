"""A worker of an evaluation: what reads a clip, and what turns it into a row. The local loop and the cluster both use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.plan import DoesNotFit
from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.data.source import Source
from alpamayo_r1.evaluate.protocol import EvalConfig, Item
from alpamayo_r1.evaluate.score import score
from alpamayo_r1.planner import Planner, load


@dataclass(frozen=True)
class Read:
    """A clip as it came from the data set: a sample, or what went wrong; and how long it took."""

    sample: Sample | None
    error: str | None
    load_ms: float


def read_item(source: Source, item: Item) -> Read:
    """The sample of an item; whatever a broken clip raises becomes its error."""
    began = time.perf_counter()
    try:
        with source.fresh(item.clip_id) as clip:
            sample, error = clip.sample(item.t0_us, need_future=False), None
    except Exception as problem:
        sample, error = None, describe(problem)
    return Read(sample, error, 1e3 * (time.perf_counter() - began))


class Worker:
    """A loaded model that turns what was read into rows.

    along: whether a clip is planned at many moments, which then are the steps of a stream: the same rows, sooner.
    """

    def __init__(self, planner: Planner, options: PlanOptions, guidance: float | None = None, along: bool = False):
        self.planner, self.options, self.guidance, self.along = planner, options, guidance, along
        self._clip: tuple[str, Callable[..., Plan]] | None = None

    def row(self, item: Item, read: Read) -> dict[str, Any]:
        """The row of an item; a plan that fails becomes a row with its error."""
        began = time.perf_counter()
        found: dict[str, Any] = {"error": read.error}
        plan_ms = None
        if read.sample is not None:
            try:
                told = {"navigation": item.navigation, "guidance": self.guidance} if item.navigation is not None else {}
                plan = self._plan(item.clip_id)(read.sample.observation, **told)
                plan_ms = 1e3 * (time.perf_counter() - began)
                found = score(read.sample, plan)
            except Exception as problem:
                if is_fatal(problem):
                    raise
                found = {"error": describe(problem)}
        return asdict(item) | found | {"load_ms": read.load_ms, "plan_ms": plan_ms}

    def _plan(self, clip_id: str) -> Callable[..., Plan]:
        """What plans an observation of a clip, with options changed by name."""
        if not self.along:
            return lambda observation, **changes: self.planner.plan(observation, self.options.updated(changes))
        if self._clip is None or self._clip[0] != clip_id:
            self._clip = clip_id, self.planner.stepper(self.options)
        return self._clip[1]


def load_worker(config: EvalConfig) -> Worker:
    """A worker with the config's checkpoint. Raises ValueError where that was trained without navigation, and there is some."""
    planner = load(config.checkpoint, device=config.device, fast=config.fast, precision=config.precision)
    if config.navigation is not None:
        planner.model.config.family.needs_navigation("--navigation")
    return Worker(planner, config.plan, config.guidance, along=config.t0 == "grid" or Path(config.t0).is_file())


def describe(problem: Exception) -> str:
    """An exception as a row's error."""
    return f"{type(problem).__name__}: {problem}"


def is_fatal(problem: Exception) -> bool:
    """Whether no later clip can succeed either: the accelerator is in an undefined state, or such a plan needs more memory than it has."""
    if isinstance(problem, DoesNotFit):
        return True
    return isinstance(problem, getattr(torch, "AcceleratorError", ())) and not isinstance(problem, torch.OutOfMemoryError)


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Torch with so many CPU threads (None: as it is), and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
