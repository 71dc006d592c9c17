"""200 plans in one process, with samples, words and picture sizes that vary: each must equal a fresh process's answer to the bit.

    python checks/endurance.py [--plans 200] [--model tiny|small]

tiny: the recorded checkpoint in fp32. small: the bundled model in bf16, so that the vendor's attention takes part. On a GPU where there is
one. The last line is JSON: plans, differing, bytes grown since every case had been seen three times and its graphs captured. Exits with 1
where a plan differs, or memory has grown: on a GPU what the allocator holds, by any byte; on the CPU the process, by more than 20 MB.
"""

from __future__ import annotations

from _head import DEVICE, ROOT

import argparse
import json
import random
import resource
import subprocess
import sys
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Observation
from alpamayo_r1.engine.engine import Engine

CASES: list[dict[str, Any]] = [
    {"size": (96, 160), "scenes": 1, "samples": 1, "max_tokens": 12},
    {"size": (96, 160), "scenes": 1, "samples": 1, "max_tokens": 40},
    {"size": (96, 160), "scenes": 1, "samples": 6, "max_tokens": 12},
    {"size": (64, 80), "scenes": 1, "samples": 3, "max_tokens": 33, "temperature": 1.3},
    {"size": (64, 80), "scenes": 1, "samples": 16, "max_tokens": 5},
    {"size": (120, 120), "scenes": 1, "samples": 2, "max_tokens": 20, "top_k": 3},
    {"size": (120, 120), "scenes": 2, "samples": 2, "max_tokens": 9},
    {"size": (200, 320), "scenes": 1, "samples": 4, "max_tokens": 7, "steps": 5},
    {"size": (200, 320), "scenes": 2, "samples": 1, "max_tokens": 64},
    {"size": (72, 128), "scenes": 3, "samples": 2, "max_tokens": 11, "temperature": 0.0},
    {"size": (72, 128), "scenes": 1, "samples": 1, "max_tokens": 30, "reasoning": "stop, because of the car in front"},
    {"size": (1080, 1920), "scenes": 1, "samples": 2, "max_tokens": 6},
]


MODELS = {"tiny": (ROOT / "tests/golden/checkpoint", torch.float32), "small": (ROOT / "src/alpamayo_r1/assets/small", torch.bfloat16)}


def make_engine(model: str) -> Engine:
    """An engine on one of MODELS."""
    folder, dtype = MODELS[model]
    return Engine(*load_checkpoint(folder, dtype=dtype, device=DEVICE))


@cache
def observations(number: int) -> list[Observation]:
    """What a case's scenes show."""
    (height, width), scenes = CASES[number]["size"], CASES[number]["scenes"]
    return [testing.random_observation(10 * number + i, height, width) for i in range(scenes)]


def answer(engine: Engine, number: int) -> str:
    """A digest of all numbers and words of a case's plans."""
    asked = {name: value for name, value in CASES[number].items() if name not in ("size", "scenes")}
    plans = engine.plans(observations(number), PlanOptions(seed=number, **asked))
    digest = sha256()
    for plan in plans:
        digest.update(repr((plan.tokens, plan.reasoning, plan.ended)).encode())
        for tensor in (plan.xyz, plan.rot, plan.actions):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


GROWTH = 0 if DEVICE == "cuda" else 20e6
"""Bytes that memory may grow by."""


def memory() -> int:
    """Bytes that the GPU's allocator holds; on the CPU those of the process in memory (Linux)."""
    if DEVICE == "cuda":
        return torch.cuda.memory_reserved()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(count: int, model: str) -> dict[str, Any]:
    """Fresh answers from a process each, then all plans in this one."""
    command = [sys.executable, __file__, "--model", model, "--one"]
    fresh = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(len(CASES))]
    wanted = [process.communicate()[0].strip() for process in fresh]
    engine, draw = make_engine(model), random.Random(0)
    order = [*range(len(CASES))] * 3 + [draw.randrange(len(CASES)) for _ in range(count)]
    wrong, before = [], 0
    for i, number in enumerate(order[:count]):
        if answer(engine, number) != wanted[number]:
            wrong.append((i, number))
        if i + 1 == 3 * len(CASES):  # every graph has been captured
            before = memory()
    return {"device": DEVICE, "model": model, "plans": count, "differing": wrong, "grown_bytes": memory() - before}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=200, help="at least 36")
    parser.add_argument("--model", choices=MODELS, default="tiny")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.plans < 3 * len(CASES):
        parser.error(f"--plans is {given.plans}, expected at least {3 * len(CASES)}: every case three times")
    if given.one is not None:
        print(answer(make_engine(given.model), given.one))
        sys.exit()
    found = main(given.plans, given.model)
    print(json.dumps(found))
    sys.exit(1 if found["differing"] or found["grown_bytes"] > GROWTH else 0)
