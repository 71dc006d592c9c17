"""Two cards plan what one plans, to the bit, and what limits their period.

    python checks/pair.py [--steps 30] [--models "small bf16,10b bf16"] [--device cuda:0,cuda:1] [--timed 20]

Single plans and steps of a stream (submitted, so that one is read while another is spoken about; some dropped, repeated, late or with a
stale camera) of the small and the 10B model, each beside one card's fresh plan: words, actions, waypoints. Then, of the last model, its
words replayed so that nine in ten drafts are right: latency, period, and where the time goes. `cards` are stages by CUDA events, each on
its own card while steps are on their way; `host` is what the caller (take), the reading and the speaking thread take, the last one with
its wait for the reader's card. The period is the largest of: preprocess + vision + prefill + read ahead (the first card), reasoning +
flow + kinematics (the second), take, and read. The last line is JSON. Exits with 1 where a bit differs.

Without two cards: --device cpu,cpu --models "tiny fp32".
"""

from __future__ import annotations

from _head import CUDA

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

import torch

from alpamayo_r1.bench.stream import Drive, Forgetful, Replay, wait
from alpamayo_r1.core.checkpoint import SPEAKS
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAMERAS, Observation, Plan
from alpamayo_r1.core.vocab import Vocabulary, whole_ids
from alpamayo_r1.planner import Planner, load, pick_devices
from alpamayo_r1.testing import StandIn, random_model, same_bits, size_config, words
from checks.stream import LARGE, LONGEST, MODELS, SIZES, TILE, next_moment, odd_one, parts, picture, seen

TOKENS, ACCEPTANCE = 16, 0.9
SWITCH_S = 0.0005
"""A shorter wait for the interpreter than Python's 5 ms: whether the threads of a stream hold each other up."""

PICTURES = (1080, 1920) if CUDA else (36, 64)


def planners(name: str, devices: Sequence[torch.device]) -> tuple[Planner, Planner]:
    """A model on the first device, and on both."""
    if name == LARGE:
        config = size_config("10b")
        vocabulary, whole = cast(Vocabulary, StandIn(config)), random_model(config, devices[0], torch.bfloat16)
        speaker = random_model(config, devices[1], torch.bfloat16, parts=SPEAKS)
        assert torch.equal(whole.expert.norm.weight.cpu(), speaker.expert.norm.weight.cpu())
        assert torch.equal(whole.vlm.lm_head.weight[:64].cpu(), speaker.vlm.lm_head.weight[:64].cpu()), "the cards draw other weights"
        return Planner.of(whole, vocabulary, fast=True), Planner.pair(whole, speaker, vocabulary)
    folder, dtype, _ = MODELS[name]
    one, two = (load(folder, device=",".join(map(str, some)), dtype=dtype, fast=True) for some in (devices[:1], devices))
    for planner in (one, two):
        assert planner.engine is not None
        planner.engine.reader.model.tile = TILE
    return one, two


def singles(one: Planner, two: Planner) -> dict[str, Any]:
    """Single plans, and several at once, of both."""
    differing, compared = [], 0
    for n, (samples, size) in enumerate([(1, SIZES[0]), (6, SIZES[0]), (2, SIZES[1]), (1, SIZES[0])]):
        options, scene = PlanOptions(samples=samples, seed=n, max_tokens=LONGEST), seen(100 + n, size)
        pairs = [(two.plan(scene, options), one.plan(scene, options))]
        if samples < 6:
            scenes = [scene, seen(120 + n, size)]
            pairs += zip(two.plans(scenes, options), one.plans(scenes, options), strict=True)
        compared += len(pairs)
        differing += [{"plan": n, "samples": samples, "parts": parts(got, want)} for got, want in pairs if not same_bits(got, want)]
    return {"plans": compared, "differing": differing}


def drive(one: Planner, two: Planner, steps: int, samples: int) -> dict[str, Any]:
    """A drive of submitted steps, each compared with one card's fresh plan."""
    chance, size, moment = random.Random(samples), SIZES[0], 100
    options, stream, coming = PlanOptions(samples=samples, seed=42, max_tokens=LONGEST), two.stream(samples=samples, seed=42), []
    reused = 0
    for n in range(steps):
        moment = next_moment(moment, chance)
        if n % 20 == 17:
            size = SIZES[SIZES.index(size) - 1]
        changes: Any = {"max_tokens": LONGEST}
        if n % 2:
            newest = {name: picture(CAMERAS.index(name), moment, size) for name in CAMERAS}
            future = stream.submit(newest, seen(0, (8, 8)).history, 100_000 * moment, **changes)
        else:
            future = stream.submit(seen(moment, size, stale=n % 4 if n % 9 == 4 else None), **changes)
        assert stream.observation is not None
        coming.append((future, stream.observation))
        reused += stream.reused.tokens > 0
    odd = [difference(one, future, observation, options) for future, observation in coming]
    return {"steps": steps, "differing": [{"step": n} | found for n, found in enumerate(odd) if found], "steps_read_ahead": reused}


def difference(one: Planner, future: Future[Plan], observation: Observation, options: PlanOptions) -> dict[str, Any]:
    """What of a plan to come differs from one card's fresh one, and which of the two is the odd one; {} where nothing."""
    got, want = future.result(), one.plan(observation, options)
    if same_bits(got, want):
        return {}
    again = one.plan(observation, options), one.plan(observation, options, drafts=False)
    return {"parts": parts(got, want)} | odd_one(got, want, *again)


class Timed(Forgetful):
    """A stream that notes what each of its threads takes on the host."""

    def __init__(self, *given: Any):
        super().__init__(*given)
        self.host: dict[str, list[float]] = {"take": [], "read": [], "speak": []}
        for name in self.host:
            setattr(self, f"_{name}", partial(self._noted, name, getattr(self, f"_{name}")))

    def _noted(self, name: str, work: Any, *given: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*given)
        finally:
            self.host[name].append(1e3 * (time.perf_counter() - began))


def timed(two: Planner, samples: int, steps: int, pictures: Drive) -> dict[str, Any]:
    """Latency, period and stages of steps whose words are replayed."""
    assert two.engine is not None
    text = words(TOKENS)
    two.engine.speaker.table = Replay(whole_ids(two.vocabulary, text, two.engine.config.family.planning, "reasoning="), ACCEPTANCE)
    stream = Timed(two.model, two.vocabulary, two.engine, PlanOptions(samples=samples, seed=0, reasoning=text, max_tokens=64))
    latency = []
    for _ in range(10 + steps):
        latency.append(pictures.step(stream).ms)
        wait(stream)
    pictures.period(stream, 4)
    for noted in stream.host.values():
        noted.clear()
    began = time.perf_counter()
    coming = [stream.submit(*pictures.next()) for _ in range(steps)]
    plans = [future.result() for future in coming]
    wait(stream)
    period = 1e3 * (time.perf_counter() - began) / steps
    stages = {name: round(statistics.median(plan.timing[name] for plan in plans), 2) for name in plans[0].timing}
    host = {name: round(statistics.median(noted), 2) for name, noted in stream.host.items()}
    passes = round(statistics.fmean(plan.passes for plan in plans), 1)
    found = {"latency_ms": round(statistics.median(latency[10:]), 1), "period_ms": round(period, 1), "passes": passes}
    print(f"S={samples}: {found}\n  cards {stages}\n  read ahead {ahead_ms(stream):.2f}\n  host  {host}", flush=True)
    return found | {"stages": stages, "host": host}


def ahead_ms(stream: Forgetful) -> float:
    """Milliseconds that reading ahead takes its card, alone."""
    coming, reader = stream._step, stream.engine.reader if stream.engine is not None else None
    assert coming is not None and reader is not None and stream._ahead is not None and stream._keys is not None
    prompt, features = stream._prompt(coming.scene, coming.options), [one.features for one in coming.pictures[:3]]
    times = []
    for _ in range(4):
        began = time.perf_counter()
        reader.read_ahead(prompt, cast(Any, features), reader.keys_for(reader.early(prompt)))
        if CUDA:
            torch.cuda.synchronize(reader.device)
        times.append(1e3 * (time.perf_counter() - began))
    return min(times)


def travel(devices: Sequence[torch.device]) -> dict[str, Any]:
    """What lies between the cards: direct access, and the speed of one layer's keys and values on their way."""
    if devices[0].type != "cuda":
        return {}
    layer = torch.zeros(12_300_000, dtype=torch.uint8, device=devices[0])
    there = torch.empty_like(layer, device=devices[1])
    times = []
    for _ in range(8):
        for device in devices:
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        for _ in range(20):
            there.copy_(layer, non_blocking=True)
        for device in devices:
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - began) / 20)
    return {
        "cards": [torch.cuda.get_device_name(device) for device in devices],
        "direct": torch.cuda.can_device_access_peer(devices[0].index, devices[1].index),
        "gb_per_s": round(layer.numel() / min(times) / 1e9, 1),
    }


def main(models: Sequence[str], devices: Sequence[torch.device], steps: int, count: int) -> dict[str, Any]:
    """All models, the times of the last one."""
    found: dict[str, Any] = {"travel": travel(devices)}
    print(found["travel"], flush=True)

    def note(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        print(f"{name}: {result}", flush=True)

    two = None
    for name in models:
        one, two = planners(name, devices)
        note(f"{name}, single plans", singles(one, two))
        for samples in (1, 6):
            note(f"{name}, stream S={samples}", drive(one, two, steps, samples))
    if two is not None and count:
        pictures = Drive(*PICTURES)
        found["timed"] = {samples: timed(two, samples, count, pictures) for samples in (1, 6, 16)}
        sys.setswitchinterval(SWITCH_S)
        print(f"the same with Python's threads switched every {1e3 * SWITCH_S} ms", flush=True)
        found["switched"] = timed(two, 1, count, pictures)
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--models", default=f"small bf16,{LARGE}")
    parser.add_argument("--device", default="cuda:0,cuda:1")
    parser.add_argument("--timed", type=int, default=20)
    options = parser.parse_args()
    found = main(options.models.split(","), pick_devices(options.device), options.steps, options.timed)
    print(json.dumps(found))
    sys.exit(1 if any(one.get("differing") for one in found.values()) else 0)
