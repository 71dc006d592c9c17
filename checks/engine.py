"""The engine's parts and the engine itself: every kernel against its torch twin, plans against the specification's in fp32.

    python checks/engine.py [--workers 14] [--parts kernels,tiny]

kernels: the cases of checks/kernels.py at the 10B's shapes in bf16 and at small ones in fp32, with and without programmatic launches.
tiny: the recorded checkpoint in every shape, without graphs and with graphs captured and replayed; distances in metres.
Both run in processes side by side. Exits with 1 where a case is wrong. Without CUDA: tiny only, by the torch twins.
"""

from __future__ import annotations

from _head import CUDA, DEVICE, ROOT

import argparse
import json
import subprocess
import sys
import warnings

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.plan import plan
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.engine.ops import launch
from checks import kernels

TINY = ROOT / "tests/golden/checkpoint"
LIMITS = {"float32": 2e-6, "bfloat16": 1e-2, "tiny": 2.3e-4 if CUDA else 1e-4, "pictures": 0}
"""Largest relative error of a kernel by dtype; metres of the tiny engine; pictures are equal."""

SHAPES = (
    (96, 160, {"samples": 1, "max_tokens": 12}),
    (96, 160, {"samples": 5, "max_tokens": 12, "temperature": 1.5}),
    (64, 80, {"samples": 2, "max_tokens": 30, "reasoning": ["go on", "stop, because of the car in front"]}),
    (120, 120, {"samples": 3, "max_tokens": 9, "top_k": 3}),
    (96, 160, {"samples": 2, "max_tokens": 5, "temperature": 0.0, "steps": 5}),
)
"""Height and width of the frames, options of the plan."""

Case = tuple[str, float | str]
"""A label, and its error or what was raised."""


def check_kernels(index: int, workers: int) -> list[Case]:
    """Every workers-th kernel case, from index on."""
    cases: list[Case] = []
    for launch.PDL in (True, False):
        for some, dtype in ((kernels.BIG, torch.bfloat16), (kernels.LITTLE, torch.float32)):
            cases += kernels.check(some[index::workers], DEVICE, dtype, seed=100 * index)
    return cases


def check_tiny() -> list[Case]:
    """Engine = specification in every shape, alone and two scenes at once, and equal to itself after other plans."""
    model, vocabulary = load_checkpoint(TINY, dtype=torch.float32, device=DEVICE)
    cases: list[Case] = []
    for graphs in (False, True) if CUDA else (False,):
        engine = Engine(model, vocabulary, graphs=graphs)
        for repeat in range(2):
            for height, width, changes in SHAPES:
                how = PlanOptions(seed=3, **changes)
                observation = testing.random_observation(how.samples + repeat, height, width)
                want, got = plan(model, vocabulary, observation, how), engine.plans([observation], how)[0]
                label = f"tiny S={how.samples} {height}x{width} {'replay' if graphs and repeat else 'graphs' if graphs else 'eager'}"
                same = got.tokens == want.tokens and got.ended == want.ended
                cases.append((label, (got.xyz - want.xyz).abs().max().item() if same else "other words"))
        how = PlanOptions(samples=2, seed=5, max_tokens=12)
        scenes = [testing.random_observation(7, 96, 160), testing.random_observation(8, 96, 160)]
        for got, scene in zip(engine.plans(scenes, how), scenes, strict=True):
            cases.append((f"tiny B=2 graphs={graphs}", (got.xyz - plan(model, vocabulary, scene, how).xyz).abs().max().item()))
        first, before = engine.plans(scenes[:1], how)[0], torch.cuda.memory_allocated() if CUDA else 0
        for changes in ({"samples": s, "max_tokens": n} for s in (2, 1, 3, 2) for n in (12, 20, 7, 12)):
            again = engine.plans(scenes[:1], how.updated(changes))[0]
        cases.append((f"tiny run to run, graphs={graphs}", (again.xyz - first.xyz).abs().max().item()))
        print(f"tiny: memory grown by {(torch.cuda.memory_allocated() if CUDA else 0) - before} bytes over 16 plans")
    return cases


def limit(label: str) -> float:
    """The largest error that a case may have."""
    first, last = label.split()[0], label.split()[-1]
    return LIMITS[first] if first in LIMITS else LIMITS[last]


def run_all(parts: list[str], workers: int) -> bool:
    """All processes at once; a line for each wrong case and each tiny one. Whether nothing was wrong."""
    commands = [["--kernels", str(i), "--workers", str(workers)] for i in range(workers) if "kernels" in parts and CUDA]
    commands += [["--tiny"]] if "tiny" in parts else []
    jobs = [
        subprocess.Popen([sys.executable, __file__, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    cases: list[Case] = []
    broken = 0
    for job in jobs:
        lines = job.communicate()[0].splitlines()
        found = [json.loads(line.removeprefix("CASES ")) for line in lines if line.startswith("CASES ")]
        for line in lines:
            if line.startswith("tiny"):
                print(line)
        if job.returncode or not found:
            broken += 1
            print(f"FAILED {' '.join(job.args[2:])}:", *lines[-12:], sep="\n")
        cases += found[0] if found else []
    wrong = [(label, error) for label, error in cases if isinstance(error, str) or not error <= limit(label)]
    for label, error in cases:
        if label.startswith("tiny"):
            print(f"  {label}: {error}")
    for label, error in wrong:
        print(f"  WRONG {label}: {error}")
    print(json.dumps({"device": DEVICE, "cases": len(cases), "wrong": len(wrong), "processes_failed": broken}))
    return not wrong and not broken


def main() -> bool:
    """Whether all is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="kernels,tiny")
    parser.add_argument("--workers", type=int, default=14, help="processes that compile and check kernels")
    parser.add_argument("--kernels", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.kernels is None and not given.tiny:
        if not CUDA:
            print("no CUDA device: kernels are not checked (TRITON_INTERPRET=1 python checks/kernels.py does it without one, slowly)")
        return run_all(given.parts.split(","), given.workers)
    print("CASES " + json.dumps(check_tiny() if given.tiny else check_kernels(given.kernels, given.workers)))
    return True


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
