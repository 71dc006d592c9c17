"""Where engine and specification say different words for one seed in one dtype: how often, and how near the draw was to the other word.

    python checks/near_ties.py [--dtype bfloat16|float32] [--scenes 16] [--samples 6]

The bundled small model on scenes of its world, sampled freely. For a row that parts, the specification's distribution at the first other
token is computed again: its margin is the distance of the uniform draw from the other token's share, in probability. A margin of 0.01
means that a shift of one per cent of probability would have chosen the other token. The last line is JSON.
"""

from __future__ import annotations

from _head import DEVICE, ROOT

import argparse
import json
import warnings
from dataclasses import dataclass

import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions, Sampling
from alpamayo_r1.core.plan import fork, plan, trajectory_mask
from alpamayo_r1.core.prompt import build_prompt
from alpamayo_r1.core.sampling import draw, shares
from alpamayo_r1.core.types import Observation
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

FIRST_SEED = 850_000


@dataclass(frozen=True)
class Parting:
    """A row that parts: where, which tokens, and how near the draw was to the engine's token."""

    scene: int
    row: int
    position: int
    specification: int
    engine: int
    margin: float


@torch.inference_mode()
def next_logits(model: VLA, vocabulary: Vocabulary, observation: Observation, said: tuple[int, ...]) -> torch.Tensor:
    """The specification's logits f32 [1, vocab] after `said`, trajectory tokens masked."""
    prompt = build_prompt(observation, vocabulary, model.config)
    logits, kv = model.prefill(prompt)
    kv = fork(kv, 1)
    for i, token in enumerate(said):
        logits, kv = model.next_logits(torch.tensor([token], device=model.device), prompt.next_position + i, kv)
    return logits.float().masked_fill(trajectory_mask(model.config.tokens, model.device), -torch.inf)


def share(logits: torch.Tensor, token: int, how: Sampling) -> tuple[float, float]:
    """From where to where in the unit interval a draw gives this token."""
    ends = shares(logits, how)[0][0]
    ends = (ends / ends[-1]).tolist()
    return ends[token - 1] if token else 0.0, ends[token]


def partings(
    model: VLA, vocabulary: Vocabulary, engine: Engine, scene: int, observation: Observation, samples: int, max_tokens: int = 32
) -> list[Parting]:
    """The rows of one scene's plan in which the engine says something else."""
    how = PlanOptions(samples=samples, seed=scene, max_tokens=max_tokens)
    want, got = plan(model, vocabulary, observation, how).tokens, engine.plans([observation], how)[0].tokens
    uniform, found = draw(scene, samples, model.config.action.n_waypoints, max_tokens).uniform, []
    for row, (a, b) in enumerate(zip(want, got, strict=True)):
        if a == b:
            continue
        at = next(i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1])
        low, high = share(next_logits(model, vocabulary, observation, a[:at]), b[at], how.sampling)
        u = uniform[row, at].item()
        found.append(Parting(scene, row, at, a[at], b[at], max(low - u, u - high, 0.0)))
    return found


def main() -> None:
    """A line a parting, then the sum."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--samples", type=int, default=6)
    given = parser.parse_args()
    dtype = getattr(torch, given.dtype)
    model, vocabulary = load_checkpoint(ROOT / "src/alpamayo_r1/assets/small", dtype=dtype, device=DEVICE)
    engine = Engine(model, vocabulary)
    seeds = range(FIRST_SEED, FIRST_SEED + given.scenes)
    samples = sample_batch(simulate(seeds, seconds=5.2), 51, width=224, height=126, supersample=1)
    found = [one for i, sample in enumerate(samples) for one in partings(model, vocabulary, engine, i, sample.observation, given.samples)]
    for one in found:
        print(one, flush=True)
    worst = max((one.margin for one in found), default=0.0)
    rows = given.scenes * given.samples
    print(json.dumps({"device": DEVICE, "dtype": given.dtype, "rows": rows, "parted": len(found), "largest_margin": worst}))


if __name__ == "__main__":
    main()
