"""How long Alpamayo 1.5's own paths take: guided plans, questions about a planned scene and about a fresh one. Random weights.

    python bench/guidance.py [--size 10b|small] [--repeats 10]

Prints a median per line, ends with one JSON line. Questions of 32 tokens, plans of 16; four cameras with four frames of 1080 x 1920.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from alpamayo_r1.core.family import ALPAMAYO_15
from alpamayo_r1.core.types import Answers, Plan
from alpamayo_r1.planner import Planner, pick_device
from alpamayo_r1.testing import StandIn, random_model, random_observation, size_config, words

QUESTION = "Describe the scene."
NAVIGATION = "Turn left in 30m"


def median_ms(work: Callable[[int], Plan | Answers], repeats: int, before: Callable[[int], object] | None = None) -> tuple[float, dict]:
    """Median milliseconds by the host clock after two rounds of warm-up, and the last result's stages; before: not timed."""
    took, result = [], None
    for i in range(repeats + 2):
        if before is not None:
            before(i)
        start = time.perf_counter()
        result = work(i)
        took.append(1e3 * (time.perf_counter() - start))
    assert result is not None
    return statistics.median(took[2:]), dict(result.timing)


def main() -> None:
    """Measures and prints."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", default="10b")
    arguments.add_argument("--repeats", type=int, default=10)
    given = arguments.parse_args()
    device = pick_device("auto")
    config = size_config(given.size, ALPAMAYO_15)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    planner = Planner.of(random_model(config, device, dtype), StandIn(config), fast=True)
    scenes = [random_observation(seed) for seed in range(2)]
    plan = {"seed": 0, "reasoning": words(16), "drafts": False}
    ask = {"seed": 0, "answers": words(32), "drafts": False}

    def planned(samples: int, **more: float | str) -> Callable[[int], Plan]:
        return lambda i: planner.plan(scenes[i % 2], samples=samples, **plan, **more)  # type: ignore[arg-type]  # options of a plan

    def asked(i: int) -> Answers:
        return planner.ask(scenes[i % 2], QUESTION, **ask)  # type: ignore[arg-type]  # options of a question

    rows = {}
    for samples in (1, 16):
        rows[f"plain S={samples}"] = median_ms(planned(samples, navigation=NAVIGATION), given.repeats)
        rows[f"guided S={samples}"] = median_ms(planned(samples, navigation=NAVIGATION, guidance=1.5), given.repeats)
    rows["question, planned scene"] = median_ms(asked, given.repeats, planned(1))
    rows["question, fresh scene"] = median_ms(asked, given.repeats)
    for name, (ms, stages) in rows.items():
        print(f"{name:26s} {ms:8.1f} ms   " + "  ".join(f"{stage} {took:.1f}" for stage, took in stages.items()))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(json.dumps({"card": card, "torch": torch.__version__, "size": given.size, "ms": {name: ms for name, (ms, _) in rows.items()}}))


if __name__ == "__main__":
    main()
