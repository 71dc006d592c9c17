"""Passes of the trained small model along unseen drives: how many forward passes words take, by where drafts come from.

    python bench/passes.py [--scenes 64] [--seconds 5]

Every scene of the world (seeds from 870,000) is driven for some seconds at 10 Hz. Two lots of six rows read the same pictures: one with the
same u at every step, one with fresh u. Passes of S=1 and S=6 are then counted by the engine's own loop of words with what was said put in
its mouth, one table of drafts over all scenes; on one scene they are compared with those that streams took. The same for single plans,
that is with the table alone. Then predictions: streams beside fresh plans of the same observations. The last line is JSON.
"""

from __future__ import annotations

from _head import DEVICE

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import torch

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.request import Request, prepare
from alpamayo_r1.core.sampling import Draws
from alpamayo_r1.core.types import CAMERAS, FRAMES, Sample
from alpamayo_r1.engine import words
from alpamayo_r1.engine.arena import Arena, Capacity
from alpamayo_r1.engine.drafts import Table
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.words import Rules, Speaker
from alpamayo_r1.metrics import min_ade
from alpamayo_r1.planner import Planner, load
from alpamayo_r1.stream import Stream
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import simulate

FIRST_SEED, FIRST_STEP, ROWS, SEED = 870_000, 31, 6, 42
NOTHING = (-1,)

Said = tuple[tuple[int, ...], ...]
"""What each row said at one step."""


class Both(Stream):
    """A stream of twelve rows: six draw from the seed at every step, six from another one each time."""

    def _request(self, options: PlanOptions) -> Request:
        kept, fresh = (
            prepare(options.updated({"samples": ROWS, "seed": seed}), self.model.config, self.vocabulary)
            for seed in (SEED, SEED + 1 + self.steps)
        )
        pairs = zip((kept.draws.noise, kept.draws.uniform), (fresh.draws.noise, fresh.draws.uniform), strict=True)
        return replace(kept, samples=2 * ROWS, draws=Draws(*(torch.cat(pair) for pair in pairs)))


def newest(scenes: SceneBatch, step: int) -> list[Sample]:
    """Every scene at a step, with the newest picture of each camera alone."""
    return sample_batch(scenes, step, width=224, height=126, supersample=1, frames=1)


def drive(planner: Planner, scenes: SceneBatch, steps: int) -> list[list[Said]]:
    """What twelve rows said at every step of every scene."""
    options = PlanOptions(samples=2 * ROWS, seed=SEED, steps=1)
    streams = [Both(planner.model, planner.vocabulary, planner.engine, options) for _ in scenes.seeds]
    said: list[list[Said]] = [[] for _ in streams]
    for step in range(FIRST_STEP - FRAMES + 1, FIRST_STEP + steps):
        began = time.perf_counter()
        for stream, sample, row in zip(streams, newest(scenes, step), said, strict=True):
            o = sample.observation
            pictures = dict(zip(CAMERAS, o.frames[:, 0].cpu(), strict=True))
            plan = stream.step(pictures, o.history, o.t0_us)
            if step >= FIRST_STEP:
                row.append(plan.tokens)
        print(f"  step {step}: {time.perf_counter() - began:.1f} s", flush=True)
    return said


def count(planner: Planner, drives: Sequence[Sequence[Said]], rows: slice, table: Table, *, last: bool) -> list[int]:
    """Passes of every step for some rows, by the engine's loop; last: with what was said a step ago as drafts."""
    assert planner.engine is not None
    config, vocabulary = planner.model.config, planner.vocabulary
    samples = rows.stop - rows.start
    how = prepare(PlanOptions(samples=samples, seed=SEED), config, vocabulary)
    buffers = Arena(config, Capacity(1, samples, how.max_tokens, 1), torch.device("cpu"), torch.float32).view(1, samples)
    blocked = torch.zeros(config.tokens.vocab, dtype=torch.bool)
    rules = Rules(blocked, vocabulary.ids["traj_future_start"], vocabulary.eos_token_id, vocabulary.pad_token_id)
    speaker = Speaker(cast(Any, None), Graphs(False, None), table)
    found = []
    for drive in drives:
        before: Said = ()
        for step in drive:
            tokens = step[rows]
            forced = torch.full((samples, how.max_tokens), vocabulary.pad_token_id)
            for row, ids in zip(forced, tokens, strict=True):
                row[: len(ids)] = torch.tensor(ids)
            buffers.forced[:, : how.max_tokens] = forced
            buffers.limit.fill_(how.max_tokens)
            buffers.state.zero_()
            buffers.said.cached.fill_(-1)
            _, passes = speaker.speak(how, rules, buffers, samples, 0, before if last and before else (NOTHING,) * samples)
            found.append(passes)
            before = tokens
    return found


@contextmanager
def no_model() -> Iterator[None]:
    """The loop of words without a model: what it says is put in its mouth."""
    read, draw = words.read_words, words.draw_tokens
    words.read_words = lambda *anything: None
    words.draw_tokens = lambda logits, *anything: torch.zeros(len(logits), dtype=torch.long)
    try:
        yield
    finally:
        words.read_words, words.draw_tokens = read, draw


def counted(planner: Planner, drives: Sequence[Sequence[Said]]) -> dict[str, dict[str, float]]:
    """Mean and 90th percentile of passes: streams with kept and fresh u, and single plans by the table alone."""
    found = {}
    with no_model():
        for name, first, last in (("same u", 0, True), ("fresh u", ROWS, True), ("single plans", ROWS, False)):
            for samples in (1, ROWS):
                passes = count(planner, drives, slice(first, first + samples), Table(), last=last)
                p90 = statistics.quantiles(passes, n=10)[-1]
                found[f"{name}, S={samples}"] = {"mean": statistics.fmean(passes), "p90": p90}
    return found


def repeats(drives: Sequence[Sequence[Said]], rows: slice) -> float:
    """The share of rows that say what they said a step ago."""
    pairs = [(a, b) for drive in drives for one, after in pairwise(drive) for a, b in zip(one[rows], after[rows], strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)


def predictions(planner: Planner, scenes: SceneBatch, steps: int) -> dict[str, Any]:
    """Streams beside fresh plans, S=6 with ten steps of flow: how many differ, and the mean minADE of both (m). Passes of the streams."""
    streams = [planner.stream(samples=ROWS, seed=SEED) for _ in scenes.seeds]
    differing, errors, passes = 0, [], []
    for step in range(FIRST_STEP, FIRST_STEP + steps):
        for stream, sample in zip(streams, sample_batch(scenes, step, width=224, height=126, supersample=1), strict=True):
            observation = replace(sample.observation, frames=sample.observation.frames.cpu())
            got, want = stream.step(observation), planner.plan(observation, samples=ROWS, seed=SEED)
            differing += got.tokens != want.tokens or not torch.equal(got.xyz, want.xyz)
            assert sample.future is not None
            errors.append([float(min_ade(one.xyz, sample.future.xyz).value) for one in (got, want)])
            passes.append(got.passes)
    stream, fresh = (statistics.fmean(column) for column in zip(*errors, strict=True))
    return {"plans": len(errors), "differing": differing, "min_ade_stream": stream, "min_ade_fresh": fresh, "passes": passes}


def main(scenes: int, seconds: float) -> dict[str, Any]:
    """All figures."""
    planner, steps = load("small", device=DEVICE, fast=True), round(10 * seconds)
    simulated = simulate(list(range(FIRST_SEED, FIRST_SEED + scenes)), seconds=(FIRST_STEP + steps + 65) / 10)
    drives = drive(planner, simulated.to(DEVICE), steps)
    lengths = [len(ids) for drive in drives for step in drive for ids in step]
    found: dict[str, Any] = {"scenes": scenes, "steps": steps, "tokens": statistics.fmean(lengths), "passes": counted(planner, drives)}
    found["repeat"] = {"same u": repeats(drives, slice(0, ROWS)), "fresh u": repeats(drives, slice(ROWS, 2 * ROWS))}
    assert planner.engine is not None
    planner.engine.speaker.table = Table()
    few = simulate([FIRST_SEED], seconds=(FIRST_STEP + steps + 65) / 10)
    beside = predictions(planner, few.to(DEVICE), min(steps, 20))
    with no_model():
        again = count(planner, [drives[0][: beside["plans"]]], slice(0, ROWS), Table(), last=True)
    found["streams beside fresh plans"] = beside | {"passes_counted": again}
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    found = main(options.scenes, options.seconds)
    for name, one in found["passes"].items():
        print(f"{name:22s} passes {one['mean']:5.2f}, p90 {one['p90']:4.1f}")
    print(f"rows that repeat their last words: {found['repeat']}")
    print(json.dumps(found))
