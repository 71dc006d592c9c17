"""Streams change no bit: every step beside a fresh plan of the same observation, and memory that does not grow.

    python checks/stream.py [--steps 200] [--long 10000] [--models "tiny fp32,small bf16"]

The recorded checkpoint in fp32 and the small one in fp32 and bf16, by the engine, on a GPU where there is one, and on the CPU by the
specification too. The drive drops steps, repeats them, lets them come late, has a stale camera, changes the size of its pictures, its rig
and the seed, and asks for other plans in between; half of the steps bring the newest pictures alone. Compared: words, actions, waypoints,
and the prompt's keys and values.
Then one picture at every place of a group and with other neighbours: its features. On a GPU the same with random weights of the 10B, over
30 steps. --long: steps after which memory must be what it was after 500 (tiny plans of two tokens). The last line is JSON. Exits with 1
where anything differs or grows.
"""

from __future__ import annotations

from _head import CUDA, DEVICE, ROOT

import argparse
import json
import random
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.types import CAMERAS, FRAMES, Observation, Plan
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.planner import Planner
from alpamayo_r1.stream import Stream
from alpamayo_r1.testing import StandIn, random_model, random_observation, same_bits, size_config

TINY, SMALL = ROOT / "tests/golden/checkpoint", ROOT / "src/alpamayo_r1/assets/small"
MODELS = {
    "small bf16": (SMALL, torch.bfloat16, True),
    "small fp32": (SMALL, torch.float32, True),
    "tiny fp32": (TINY, torch.float32, True),
    "tiny fp32 by the specification": (TINY, torch.float32, False),
}
LARGE = "10b bf16"
"""Random weights, on a GPU."""
SIZES = ((96, 160), (90, 120))
FEW = 30
"""Steps of the 10B, whose weights are random."""
TILE = 16
"""Tokens of a tile of what is read ahead, so that the small prompts of the small models have some on a GPU too."""
LONGEST = 24
"""Tokens that a row says at most: noise makes long texts."""

WARM = 500
"""Steps after which memory must not grow any more."""


@lru_cache(600)
def picture(camera: int, moment: int, size: tuple[int, int]) -> torch.Tensor:
    """What a camera sees at a moment (tenths of a second): u8[3, h, w]. Coarse noise, so that words depend on it."""
    generator = torch.Generator().manual_seed(7919 * camera + moment)
    coarse = torch.randint(0, 256, (1, 3, 6, 10), dtype=torch.uint8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=size)[0].contiguous()


def seen(moment: int, size: tuple[int, int], cameras: tuple[str, ...] = CAMERAS, stale: int | None = None) -> Observation:
    """What the car knows at a moment; stale: a camera whose newest picture is the one before."""
    frames = []
    for name in cameras:
        place = CAMERAS.index(name)
        row = [picture(place, moment - k, size) for k in reversed(range(FRAMES))]
        frames.append(torch.stack(row[:-1] + row[-2:-1] if place == stale else row))
    return Observation(torch.stack(frames), cameras, random_observation(0, 4, 4).history, 100_000 * moment)


def parts(got: Plan, want: Plan) -> dict[str, Any]:
    """What of two plans differs: the first word of each row that does, and the largest distance of actions."""
    words = [next((i for i, (a, b) in enumerate(zip(*rows, strict=False)) if a != b), None) for rows in zip(got.tokens, want.tokens)]
    return {"first_words": words, "actions": float((got.actions - want.actions).abs().max()), "passes": (got.passes, want.passes)}


Keys = list[tuple[torch.Tensor, torch.Tensor]]
"""Per layer, keys and values [Hkv, n, d]."""


def kept(planner: Planner, start: int = 0, stop: int | None = None) -> Keys:
    """A copy of the keys and values of the prompt that was planned last, of its tokens from start to stop; none of the specification's."""
    engine = planner.engine
    if engine is None:
        return []
    assert engine.arena is not None
    buffers = engine.arena.view(1, 1)
    some = slice(start, int(buffers.prompt[0]) if stop is None else stop)
    return [(k[0, :, some].clone(), v[0, :, some].clone()) for k, v in buffers.prefix]


def apart(got: Keys, want: Keys) -> dict[str, int] | None:
    """The first layer whose keys or values differ, its first token that does, and how many do; None where all are the same."""
    for i, (some, others) in enumerate(zip(got, want, strict=True)):
        wrong = torch.stack([(a != b).any(0).any(-1) for a, b in zip(some, others, strict=True)]).any(0)
        if wrong.any():
            return {"layer": i, "token": int(wrong.nonzero()[0]), "tokens": int(wrong.sum())}
    return None


def odd_one(got: Plan, want: Plan, again: Plan, plain: Plan) -> dict[str, bool]:
    """Whether the stream's plan and the fresh one are what the same plan gives again, and read word by word."""
    return {
        "stream_again": same_bits(got, again),
        "fresh_again": same_bits(want, again),
        "stream_without_drafts": same_bits(got, plain),
        "fresh_without_drafts": same_bits(want, plain),
    }


def next_moment(moment: int, chance: random.Random) -> int:
    """The moment of the next step: mostly the next one; some are dropped, some come twice, some late."""
    return moment + chance.choice([1] * 8 + [0, 2, 3, -1])


def drive(planner: Planner, steps: int, samples: int) -> dict[str, Any]:
    """A drive of steps, each compared with a fresh plan."""
    chance, size, cameras, moment = random.Random(samples), SIZES[0], CAMERAS, 100
    options, differing, reused, tokens, passes = PlanOptions(samples=samples, seed=42, max_tokens=LONGEST), [], 0, 0, []
    keys: list[dict[str, Any]] = []
    stream = planner.stream(options)
    for n in range(steps):
        moment = next_moment(moment, chance)
        if n % 40 == 37:
            size = SIZES[SIZES.index(size) - 1]
        if n % 50 == 47:
            cameras = CAMERAS[:3] if cameras == CAMERAS else CAMERAS
        seed, ahead = 42 + n // 60, [(k[0].clone(), v[0].clone()) for k, v in stream._keys.kv] if stream._keys else []
        if n % 2:
            newest = {name: picture(CAMERAS.index(name), moment, size) for name in cameras if n % 14 != 5 or name != CAMERAS[0]}
            got = stream.step(newest, seen(0, (8, 8)).history, 100_000 * moment, seed=seed)
            observation = stream.observation
            assert observation is not None
        else:
            observation = seen(moment, size, cameras, stale=n % 4 if n % 9 == 4 else None)
            got = stream.step(observation, seed=seed)
        reused, tokens = reused + stream.reused.pictures, tokens + stream.reused.tokens
        passes.append(got.passes)
        early = stream._keys.count if stream._keys else 0  # where the next step's are by now
        behind, ahead = kept(planner, early), ahead if stream.reused.tokens else []
        if n % 5 == 0:
            planner.plan(seen(n, SIZES[1]), seed=n, samples=2, max_tokens=8, steps=2)
        if not CUDA and n % 3:
            stream.read_ahead()
        want = planner.plan(observation, options, seed=seed)
        for part, ours, plain in (("behind", behind, kept(planner, early)), ("ahead", ahead, ahead and kept(planner, 0, early))):
            if where := apart(ours, plain):
                keys.append({"step": n, "part": part, **where})
        if not same_bits(got, want):
            again = planner.plan(observation, options, seed=seed), planner.plan(observation, options, seed=seed, drafts=False)
            differing.append({"step": n, "reused": str(stream.reused), "parts": parts(got, want)} | odd_one(got, want, *again))
    found = {"steps": steps, "differing": differing, "keys": keys}
    return found | {"pictures_reused": reused, "tokens_read_ahead": tokens, "passes": sum(passes) / steps}


def places(planner: Planner) -> int:
    """Pictures whose features depend on their place in a group or on their neighbours."""
    engine, wrong = planner.engine, 0
    assert engine is not None
    one = picture(0, 0, SIZES[0])
    (alone,) = engine.reader.see([one], Stopwatch(planner.model.device))
    for place in range(7):
        group = [picture(1, k + place, SIZES[0]) for k in range(7)]
        group[place] = one
        found = engine.reader.see(group, Stopwatch(planner.model.device))[place]
        wrong += not all(map(torch.equal, found, alone))
    return wrong


def held(stream: Stream) -> tuple[int, int, int]:
    """Bytes of the GPU, pages of the process at most, and pictures that a stream holds."""
    on_card = torch.cuda.memory_allocated() if CUDA else 0
    return on_card, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(stream._album)


def endure(planner: Planner, steps: int) -> dict[str, Any]:
    """What a stream holds after many short steps more than after WARM."""
    chance, moment = random.Random(1), 100
    stream = planner.stream(samples=1, seed=0, max_tokens=2, steps=1)
    before = held(stream)
    for n in range(steps):
        moment = next_moment(moment, chance)
        stream.step({name: picture(i, moment, (32, 48)) for i, name in enumerate(CAMERAS)}, seen(0, (8, 8)).history, 100_000 * moment)
        stream.read_ahead()
        if n == min(WARM, steps // 2):
            before = held(stream)
    card, pages, pictures = (b - a for a, b in zip(before, held(stream), strict=True))
    return {"steps": steps, "card_bytes_grown": card, "host_kb_grown": pages, "pictures_grown": pictures}


def planners(wanted: Sequence[str], precision: str = "bf16") -> Iterator[tuple[str, Planner]]:
    """The models wanted, one after the other, their weights in a precision."""
    few = None if precision == "bf16" else PRECISIONS[precision]
    for name in wanted:
        if name == LARGE:
            config = size_config("10b")
            model = random_model(config, DEVICE, torch.bfloat16, precision=precision)
            yield name, Planner.of(model, cast(Vocabulary, StandIn(config)), fast=True)
        else:
            folder, dtype, fast = MODELS[name]
            yield name, Planner.of(*load_checkpoint(folder, dtype=dtype, device=torch.device(DEVICE), precision=few), fast=fast)


def main(models: Sequence[str], steps: int, long: int, precision: str) -> dict[str, Any]:
    """All models, the largest first: it says most about a GPU."""
    found: dict[str, Any] = {}

    def note(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        print(f"{name}: {result}", flush=True)

    for name, planner in planners(models, precision):
        if planner.engine is not None and name != LARGE:
            planner.engine.reader.model.tile = TILE
        for samples in (1, 6):
            note(f"{name}, S={samples}", drive(planner, FEW if name == LARGE else steps, samples))
        if planner.engine is not None:
            note(f"{name}, places", {"differing": places(planner)})
        if name == "tiny fp32":
            note("memory", endure(planner, long))
    return found


def failed(found: dict[str, Any]) -> bool:
    """Whether a step differs or memory grows: by more than 20 MB of the host, whose allocator keeps some."""
    memory = found.get("memory", {})
    grown = memory and (memory["card_bytes_grown"] > 0 or memory["host_kb_grown"] > 20_000 or memory["pictures_grown"] > 0)
    return bool(grown) or any(one.get("differing") or one.get("keys") for one in found.values())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--models", default=",".join(([LARGE] if CUDA else []) + [m for m in MODELS if MODELS[m][2] or not CUDA]))
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="what weights are stored in; bf16: as they are")
    options = parser.parse_args()
    found = main(options.models.split(","), options.steps, options.long, options.precision)
    print(json.dumps(found))
    sys.exit(1 if failed(found) else 0)
