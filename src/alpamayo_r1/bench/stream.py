"""How fast a stream plans: recorded words and pictures are replayed, since random weights would never say what was drafted.

Each token is drafted rightly with a given probability, so the number of passes varies as with a model of that acceptance.
"""

from __future__ import annotations

import json
import random
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch

from alpamayo_r1.bench import check_room
from alpamayo_r1.core.checkpoint import READS, SPEAKS
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, Plan, Trajectory
from alpamayo_r1.core.vocab import Vocabulary, whole_ids
from alpamayo_r1.engine.drafts import Table
from alpamayo_r1.planner import Planner, pick_devices
from alpamayo_r1.stream import Stream
from alpamayo_r1.testing import StandIn, random_model, random_observation, size_config, words

MOMENTS = 12
"""Different moments that are replayed in a circle: more than a stream remembers."""

WARMUP = FRAMES + 6
"""Steps before those that are measured: until the window is full, and the graphs of all passes are made."""


class Replay(Table):
    """Drafts of known words, each right with one probability."""

    def __init__(self, ids: Sequence[int], acceptance: float, seed: int = 0):
        super().__init__()
        self.ids, self.acceptance, self.chance = ids, acceptance, random.Random(seed)

    def guess(self, tokens: Sequence[int], uniform: float) -> int | None:
        """The word at this place, or another one."""
        if len(tokens) >= len(self.ids):
            return None
        right = self.ids[len(tokens)]
        return right if self.chance.random() < self.acceptance else right ^ 1


@dataclass(frozen=True)
class Step:
    """One step: its plan, and milliseconds from the newest pictures to the trajectory."""

    plan: Plan
    ms: float


class Forgetful(Stream):
    """A stream that drafts nothing from what was said a step ago."""

    def said_last(self, rows: int) -> tuple[tuple[int, ...], ...]:
        """Words that no text begins with."""
        return ((-1,),) * rows


class Drive:
    """Pictures of noise that go on for ever, one of each camera every tenth of a second."""

    def __init__(self, height: int, width: int):
        generator = torch.Generator().manual_seed(0)
        shape = MOMENTS, len(CAMERAS), 3, height, width
        self.pictures = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.history = random_observation(0, 8, 8).history
        self.moment = 0

    def next(self) -> tuple[dict[str, torch.Tensor], Trajectory, int]:
        """What the next moment brings."""
        self.moment += 1
        newest = dict(zip(CAMERAS, self.pictures[self.moment % MOMENTS], strict=True))
        return newest, self.history, round(self.moment * DT * 1e6)

    def step(self, stream: Stream) -> Step:
        """The next moment's plan."""
        newest = self.next()
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first steps have no past
            plan = stream.step(*newest)
        return Step(plan, 1e3 * (time.perf_counter() - began))

    def period(self, stream: Stream, steps: int) -> float:
        """Milliseconds from step to step without a pause. Two devices: the next step is on its way while the last is planned."""
        began = time.perf_counter()
        if stream.engine is not None and stream.engine.reader.apart:
            for coming in [stream.submit(*self.next()) for _ in range(steps)]:
                coming.result()
        else:
            for _ in range(steps):
                self.step(stream)
                stream.read_ahead()
        wait(stream)
        return 1e3 * (time.perf_counter() - began) / steps


def bench_stream(
    size: str = "10b",
    samples: Sequence[int] = (1, 6, 16),
    tokens: int = 16,
    acceptance: Sequence[float] = (0.0, 0.5, 0.8, 0.9, 1.0),
    *,
    repeats: int = 10,
    device: str | None = None,
    pictures: tuple[int, int] = (1080, 1920),
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures and prints; the last line is one JSON object, which is also returned. The engine plans, on the CPU too.

    samples, acceptance: every pair is measured, over `repeats` steps after a warm-up. tokens: words of every row. pictures: their height
    and width. Latency is from the newest pictures of four cameras, in the host's memory, to the trajectory, where the car waits for its
    next pictures as long as the stream reads ahead; the period is that of steps without a pause. device "cuda:0,cuda:1": two cards, the
    next step submitted while the last is planned.

    Raises:
        ValueError: a copy of the package without engine/; fewer than 3 tokens; an acceptance outside 0 to 1; too little memory.
    """
    if find_spec("alpamayo_r1.engine") is None:
        raise ValueError("bench needs the room engine/, which this copy of the package lacks: install the whole package to measure with it")
    for share in acceptance:
        if not 0 <= share <= 1:
            raise ValueError(f"acceptance is {share}, expected shares between 0 and 1, such as 0.8")
    config, devices, text = size_config(size), pick_devices(device or "auto"), words(tokens)
    where = devices[0]
    cuda = where.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    for one in devices:
        check_room(config, one, dtype)
    if where.index is not None:
        torch.cuda.set_device(where)
    planner = random_planner(config, devices, dtype)
    card = " + ".join(torch.cuda.get_device_name(one) if cuda else f"CPU, {torch.get_num_threads()} threads" for one in devices)
    say(
        f"{card}, torch {torch.__version__}, {size}, {tokens} tokens, pictures of {pictures[0]} x {pictures[1]}, medians of {repeats} steps"
    )
    say("  S accepted  latency   period  passes (p90)   preprocess vision prefill reasoning  flow kinematics     peak")
    report: dict[str, Any] = {"card": card, "torch": torch.__version__, "size": size, "tokens": tokens, "runs": []}
    drive = Drive(*pictures)
    for count in samples:
        for share in acceptance:
            report["runs"].append(one_run(planner, drive, config, text, tokens, count, share, repeats, say))
    by_passes = [(run["samples"], step) for run in report["runs"] for step in run.pop("steps")]
    report["by_passes"] = passes_table(by_passes, say)
    say(json.dumps(report))
    return report


def random_planner(config: ModelConfig, devices: Sequence[torch.device], dtype: torch.dtype) -> Planner:
    """The engine on one device or two, its weights random."""
    vocabulary = cast("Vocabulary", StandIn(config))
    if len(devices) == 1:
        return Planner.of(random_model(config, devices[0], dtype), vocabulary, fast=True)
    reader, speaker = (random_model(config, one, dtype, parts=parts) for one, parts in zip(devices, (READS, SPEAKS), strict=True))
    return Planner.pair(reader, speaker, vocabulary)


def one_run(
    planner: Planner,
    drive: Drive,
    config: ModelConfig,
    text: str,
    tokens: int,
    samples: int,
    acceptance: float,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One line of the table: one number of samples at one acceptance."""
    assert planner.engine is not None
    ids = whole_ids(planner.vocabulary, text, config.family.planning, "reasoning=")
    planner.engine.speaker.table = Replay(ids, acceptance)
    options = PlanOptions(samples=samples, seed=0, reasoning=text, max_tokens=max(tokens, 64))
    stream = Forgetful(planner.model, planner.vocabulary, planner.engine, options)
    cards, steps = [one for one in devices_of(stream) if one.type == "cuda"], []
    for i in range(WARMUP + repeats):
        if i == WARMUP:
            for card in cards:
                torch.cuda.reset_peak_memory_stats(card)
        steps.append(drive.step(stream))
        wait(stream)
    steps = steps[-repeats:]
    drive.period(stream, 2)  # the threads of two devices begin
    period = drive.period(stream, repeats)
    peak = [torch.cuda.max_memory_allocated(card) / 1e9 for card in cards]
    latency = statistics.median(step.ms for step in steps)
    stages = {name: statistics.median(step.plan.timing[name] for step in steps) for name in steps[0].plan.timing}
    passes = [step.plan.passes for step in steps]
    p90 = statistics.quantiles(passes, n=10)[-1] if len(passes) > 1 else passes[0]
    names = ("preprocess", "vision", "prefill", "reasoning", "flow", "kinematics")
    shown = " ".join(f"{stages[name]:{width}.1f}" for name, width in zip(names, (10, 6, 7, 9, 5, 10), strict=True))
    memory = f"{' + '.join(f'{one:6.2f}' for one in peak)} GB" if peak else "        -"
    say(f"{samples:3d} {acceptance:8.2f} {latency:8.1f} {period:8.1f} {statistics.fmean(passes):7.1f} ({p90:3.0f})   {shown} {memory}")
    return {
        "samples": samples,
        "acceptance": acceptance,
        "latency_ms": latency,
        "period_ms": period,
        "passes_mean": statistics.fmean(passes),
        "passes_p90": p90,
        "stages_ms": stages,
        "peak_gb": peak,
        "reused": {"pictures": stream.reused.pictures, "tokens": stream.reused.tokens},
        "steps": steps,
    }


def devices_of(stream: Stream) -> list[torch.device]:
    """The device that reads and the one that speaks, once if they are one."""
    assert stream.engine is not None
    return list(dict.fromkeys((stream.engine.reader.device, stream.engine.device)))


def wait(stream: Stream) -> None:
    """Waits as a car does for its next pictures, until nothing is left to be read ahead."""
    stream.read_ahead()
    for device in devices_of(stream):
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def passes_table(steps: Sequence[tuple[int, Step]], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Latency by samples and passes, over all acceptances."""
    say("  S passes  latency  steps")
    found = []
    for samples, passes in sorted({(count, step.plan.passes) for count, step in steps}):
        some = [step.ms for count, step in steps if (count, step.plan.passes) == (samples, passes)]
        found.append({"samples": samples, "passes": passes, "latency_ms": statistics.median(some), "steps": len(some)})
        say(f"{samples:3d} {passes:6d} {found[-1]['latency_ms']:8.1f} {len(some):6d}")
    return found
