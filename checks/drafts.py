"""Drafts change no bit: plans with right, wrong and random drafts beside the same plans read token by token.

    python checks/drafts.py [--scenes 20]

The recorded checkpoint in fp32 and the small one in fp32 and bf16, on a GPU where there is one; 1, 6 and 16 samples, also greedy, by
top-k, cut off and with given words. Compared: tokens, actions, and the keys that the actions saw. The last line is JSON: per model the
plans, those that differ, and the mean of passes by source of drafts. Exits with 1 where a plan differs.
"""

from __future__ import annotations

from _head import DEVICE, ROOT

import argparse
import json
import random
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.types import Observation, Plan
from alpamayo_r1.engine import words
from alpamayo_r1.engine.drafts import guesses
from alpamayo_r1.planner import Planner
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

MODELS = {
    "tiny fp32": (ROOT / "tests/golden/checkpoint", torch.float32),
    "small fp32": (ROOT / "src/alpamayo_r1/assets/small", torch.float32),
    "small bf16": (ROOT / "src/alpamayo_r1/assets/small", torch.bfloat16),
}

REQUESTS = (
    {"samples": 1},
    {"samples": 6},
    {"samples": 16},
    {"samples": 6, "temperature": 0.0},
    {"samples": 6, "top_k": 3},
    {"samples": 2, "max_tokens": 5},
    {"samples": 2, "reasoning": ["Keep the lane", "Stop"]},
)

FIRST_SEED = 850_100


def changed(tokens: Sequence[int], rate: float) -> list[int]:
    """The tokens, some of them other ones: what a wrong draft is."""
    chance = random.Random(len(tokens))
    return [abs(token - 1) if chance.random() < rate else token for token in tokens]


def draft(rate: float):
    """A source of drafts that knows what each row will say, but for a share `rate` of its tokens."""

    def guess(said, count, table, uniform, last=(), stop=()):
        return changed(last[len(said) : len(said) + count], rate)

    return guess


SOURCES = {"learnt": guesses, "right": draft(0.0), "half wrong": draft(0.5), "wrong": draft(1.0)}


def seen_keys(planner: Planner, rows: int) -> list[torch.Tensor]:
    """The keys and values of what each row said, as the actions of the last plan saw them."""
    assert planner.engine is not None and planner.engine.arena is not None
    buffers = planner.engine.arena.view(1, rows)
    counts = (buffers.said.length - 1 + buffers.said.ended).tolist()
    return [part[r, :, :n].clone() for layer in buffers.suffix for part in layer for r, n in enumerate(counts)]


def planned(planner: Planner, observation: Observation, **request) -> tuple[Plan, list[torch.Tensor]]:
    """A plan, and the keys that its actions saw."""
    plan = planner.plan(observation, seed=7, **request)
    return plan, seen_keys(planner, len(plan.tokens))


def equal(one: tuple[Plan, list[torch.Tensor]], other: tuple[Plan, list[torch.Tensor]]) -> bool:
    """Whether two plans and their keys are the same to the bit."""
    (a, keys), (b, others) = one, other
    return a.tokens == b.tokens and torch.equal(a.actions, b.actions) and all(map(torch.equal, keys, others))


def check(planner: Planner, observations: Sequence[Observation]) -> dict[str, object]:
    """Every request about every observation, by every source of drafts."""
    plans, differing, passes = 0, [], defaultdict(list)
    make = words.Drafting.__init__
    for i, observation in enumerate(observations):
        for request in REQUESTS:
            want = planned(planner, observation, drafts=False, **request)
            follow = [list(row) for row in want[0].tokens]

            def know(drafting, how, rules, buffers, rows, table, last, follow=follow):
                make(drafting, how, rules, buffers, rows, table, follow)

            passes["without"].append(want[0].passes)
            for name, source in SOURCES.items():
                words.guesses, words.Drafting.__init__ = source, (make if name == "learnt" else know)
                got = planned(planner, observation, **request)
                plans += 1
                passes[name].append(got[0].passes)
                if not equal(got, want):
                    differing.append((i, request, name))
    words.guesses, words.Drafting.__init__ = guesses, make
    return {"plans": plans, "differing": differing, "passes": {name: sum(some) / len(some) for name, some in passes.items()}}


def main(scenes: int) -> dict[str, dict[str, object]]:
    """All models: random pictures for the recorded one, scenes of the world for the small one."""
    found = {}
    driven = sample_batch(simulate(list(range(FIRST_SEED, FIRST_SEED + scenes))), 51, width=224, height=126, supersample=1)
    for name, (folder, dtype) in MODELS.items():
        planner = Planner.of(*load_checkpoint(folder, dtype=dtype, device=torch.device(DEVICE)), fast=True)
        noise = [testing.random_observation(i, 96, 160) for i in range(scenes)]
        found[name] = check(planner, noise if name.startswith("tiny") else [sample.observation for sample in driven])
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20)
    found = main(parser.parse_args().scenes)
    print(json.dumps(found))
    sys.exit(1 if any(one["differing"] for one in found.values()) else 0)
