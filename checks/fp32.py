"""Engine against specification in fp32, word by word and in metres: the recorded tiny model and the bundled small one.

    python checks/fp32.py [--precision w8]

Exits with 1 where words differ or a path is farther off than 1e-4 m, 1e-3 with weights of few bits. On a GPU where there is one; there
the tiny model's specification is also compared with itself on the CPU, which says what fp32 can tell of random weights: 2.3e-4 m, and the
engine may be as far off.
"""

from __future__ import annotations

from _head import DEVICE, ROOT

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.plan import plan
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.types import Observation, Plan
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

TINY, SMALL = ROOT / "tests/golden/checkpoint", ROOT / "src/alpamayo_r1/assets/small"

BOUND, FEW_BITS_BOUND = 1e-4, 1e-3
"""Metres that engine and specification may be apart."""


def tiny_cases() -> Iterator[tuple[Observation, PlanOptions]]:
    """90 plans of noise frames."""
    for i in range(30):
        for samples, options in (
            (1, {"max_tokens": 12}),
            (5, {"max_tokens": 12, "temperature": 1.5}),
            (2, {"max_tokens": 5, "temperature": 0.0, "steps": 5}),
        ):
            yield testing.random_observation(samples + i, 96, 160), PlanOptions(samples=samples, seed=3 + i, **options)


def small_cases() -> Iterator[tuple[Observation, PlanOptions]]:
    """Nine plans of three scenes of the world."""
    for sample in sample_batch(simulate(range(850_000, 850_003), seconds=5.2), 51, width=224, height=126, supersample=1):
        for seed, options in enumerate(({"samples": 1}, {"samples": 3, "temperature": 1.2}, {"samples": 2, "steps": 5})):
            yield sample.observation, PlanOptions(seed=seed, **options)


def distance(a: Plan, b: Plan) -> float:
    """Metres between two plans' waypoints, at most; infinite where they say different words."""
    return (a.xyz - b.xyz).abs().max().item() if a.tokens == b.tokens else float("inf")


def report(name: str, found: list[float]) -> None:
    """One line."""
    other = sum(d == float("inf") for d in found)
    worst, middle = max(found), statistics.median(found)
    print(f"{name}: at most {worst:.1e} m, median {middle:.1e} m, other words in {other} of {len(found)}", flush=True)


def main(precision: str) -> bool:
    """Both models; whether the engine is near enough with both."""
    near, few = True, None if precision == "bf16" else PRECISIONS[precision]
    bound = BOUND if few is None else FEW_BITS_BOUND
    warnings.simplefilter("ignore")
    slow = load_checkpoint(TINY, dtype=torch.float32, precision=few)[0] if DEVICE == "cuda" else None
    for name, folder, cases in (("tiny", TINY, tiny_cases), ("small", SMALL, small_cases)):
        model, vocabulary = load_checkpoint(folder, dtype=torch.float32, device=DEVICE, precision=few)
        engine, own, ours, longest = Engine(model, vocabulary), [], [], 0.0
        for observation, options in cases():
            want = plan(model, vocabulary, observation, options)
            ours.append(distance(engine.plans([observation], options)[0], want))
            longest = max(longest, want.xyz.abs().max().item())
            if name == "tiny" and slow is not None:
                own.append(distance(plan(slow, vocabulary, observation, options), want))
        report(f"{name} on {DEVICE}, paths up to {longest:.0f} m: engine from specification", ours)
        if own:
            report("  specification on the CPU from itself on the GPU", own)
        near &= max(ours) <= max(bound, *own, 0.0)
    return near


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="what weights are stored in; bf16: as they are")
    sys.exit(0 if main(parser.parse_args().precision) else 1)
