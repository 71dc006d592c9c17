"""How fast this machine plans: random weights at full size, forced token counts, medians, and the floor beside each stage."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from alpamayo_r1.core.card import free_bytes, limit
from alpamayo_r1.core.checkpoint import weight_bytes
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.images import target_size
from alpamayo_r1.core.precision import PRECISIONS, Precision
from alpamayo_r1.core.prompt import chat_text, images_text, plan_text
from alpamayo_r1.core.types import Observation
from alpamayo_r1.planner import Planner, chosen, pick_device
from alpamayo_r1.testing import StandIn, random_model, random_observation, size_config, words

if TYPE_CHECKING:
    from alpamayo_r1.core.vocab import Vocabulary
    from alpamayo_r1.engine.cost import Cost


@dataclass(frozen=True)
class Ceilings:
    """What the card reaches on the two simplest jobs: a large matrix product and a large copy (bytes read and written)."""

    flops_per_s: float
    bytes_per_s: float


def free_memory() -> float:
    """Bytes of memory that a process of this machine may still take; infinite where the system does not say (/proc)."""
    try:
        (line,) = (line for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines() if line.startswith("MemAvailable:"))
        return 1024 * float(line.split()[1])
    except (OSError, ValueError):
        return float("inf")


def check_room(config: ModelConfig, device: torch.device, dtype: torch.dtype, precision: Precision | None = None) -> None:
    """Raises ValueError where the machine or the GPU has too little free memory for the model's weights."""
    needed = weight_bytes(config, precision or PRECISIONS["bf16"], dtype)
    free = free_bytes(device) if device.type == "cuda" else free_memory()
    if needed > free:
        raise ValueError(
            f"the weights take {needed / 1e9:.1f} GB in {str(dtype)[6:]}, {free / 1e9:.1f} GB are free on {device}: "
            "give --size small, or a device with more memory"
        )


def median_ms(function: Callable[[], Any], repeats: int = 10, warmup: int = 3, cuda: bool | None = None) -> float:
    """Median milliseconds of a function by CUDA events on the current device (cuda; None: where there is one), or by the host clock."""
    for _ in range(warmup):
        function()
    if not (torch.cuda.is_available() if cuda is None else cuda):
        return statistics.median(timed(function) for _ in range(repeats))
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        function()
        mark.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))


def timed(function: Callable[[], Any]) -> float:
    """Milliseconds by the host clock."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def process_age() -> float | None:
    """Seconds since this process was started; None where the system does not say (/proc)."""
    try:
        started = int(Path("/proc/self/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        return float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0]) - started
    except OSError:
        return None


def kernels_kept() -> bool:
    """Whether an earlier process left compiled Triton kernels: a warm start."""
    folder = Path(os.environ.get("TRITON_CACHE_DIR", Path.home() / ".triton" / "cache"))
    return folder.is_dir() and any(folder.iterdir())


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measured now: on a GPU with a product of 8192^3 and a copy of 4 GB, elsewhere with small ones."""
    n, count = (8192, 2**30) if device.type == "cuda" else (1024, 2**24)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    product, copy = (median_ms(work, cuda=device.type == "cuda") for work in (lambda: a @ b, lambda: target.copy_(source)))
    return Ceilings(2 * n**3 / (product / 1e3), 2 * source.nbytes / (copy / 1e3))


def stage_costs(
    config: ModelConfig, prompt: int, grids: Sequence[tuple[int, int]], scenes: int, samples: int, tokens: int, width: int
) -> dict[str, Cost]:
    """Cost of each stage of a plan, `token` and `euler_step` once."""
    from alpamayo_r1.engine.cost import Cost, decode_cost, flow_step_cost, prefill_cost, vision_cost

    def each(one: Cost) -> Cost:
        return Cost(scenes * one.flops, scenes * one.bytes)

    return {
        "vision": each(vision_cost(config, grids, width)),
        "prefill": each(prefill_cost(config, prompt, width)),
        "token": decode_cost(config, prompt, tokens / 2, scenes, samples, width),
        "euler_step": flow_step_cost(config, prompt, tokens, scenes, samples, width),
    }


def median_times(
    planner: Planner, observations: Sequence[Observation], samples: int, tokens: int, repeats: int
) -> tuple[dict[str, float], float]:
    """Median milliseconds by stage, and from frames to trajectory by the host clock, after warm-up."""
    plans, walls = [], []
    for i in range(repeats + 3):
        start = time.perf_counter()
        got = planner.plans(observations, samples=samples, seed=i, reasoning=words(tokens), max_tokens=max(tokens, 64), drafts=False)
        walls.append(1e3 * (time.perf_counter() - start))
        plans.append(got[0])
    stages = {stage: statistics.median(p.timing[stage] for p in plans[3:]) for stage in plans[0].timing}
    return stages, statistics.median(walls[3:])


def bench(
    size: str = "10b",
    samples: Sequence[int] = (1, 6, 16),
    tokens: Sequence[int] = (16, 41),
    batch: int = 1,
    *,
    repeats: int = 10,
    fast: bool | None = None,
    device: str | None = None,
    words_on_host: bool = False,
    precision: str | None = None,
    memory: float | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measures and prints; the last line is one JSON object, which is also returned.

    samples, tokens: every pair is measured. batch: scenes a plan. fast: the engine or the specification (None: the engine on a GPU).
    words_on_host: the word table in pinned host memory, as `load(word_table="host")`. precision, memory: as in `load`; the word table of
    weights of few bits is on the host.
    """
    if find_spec("alpamayo_r1.engine") is None:
        raise ValueError("bench needs the room engine/, which this copy of the package lacks: install the whole package to measure with it")
    began, warm = time.perf_counter(), kernels_kept()
    config, where = size_config(size), pick_device(device or "auto")
    for n in tokens:
        words(n)  # refuses too few before the long work
    if words_on_host and where.type == "cpu":
        raise ValueError("the word table is on the host already: words_on_host needs a GPU")
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    if memory is not None:
        limit(where, memory)
    few = chosen(config, precision, where, dtype) or PRECISIONS["bf16"]
    words_on_host = words_on_host or (where.type == "cuda" and bool(few.kinds))
    check_room(config, where, dtype, few)
    if where.index is not None:
        torch.cuda.set_device(where)  # events and memory are those of the current device
    top = ceilings(where, dtype)
    card = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    say(f"{card}, torch {torch.__version__}: {top.flops_per_s / 1e12:.4g} TFLOP/s (product), {top.bytes_per_s / 1e12:.3g} TB/s (copy)")
    model = random_model(config, where, dtype, precision=few.name, words_on_host=words_on_host)
    vocabulary = cast("Vocabulary", StandIn(config))
    planner = Planner.of(model, vocabulary, fast)
    observations = [random_observation(seed) for seed in range(batch)]
    ready = time.perf_counter()
    planner.plan(observations[0], reasoning=words(16), max_tokens=64)
    first = 1e3 * (time.perf_counter() - ready)
    age = process_age()
    kept = f" ({'warm' if warm else 'cold'}: kernels compiled {'before' if warm else 'now'})" if where.type == "cuda" else ""
    say(f"built in {ready - began:.1f} s; first plan {first:.0f} ms{f', {age:.1f} s after the process began' if age else ''}{kept}")
    report: dict[str, Any] = {
        "card": card,
        "torch": torch.__version__,
        "size": size,
        "precision": few.name,
        "batch": batch,
        "tflops": top.flops_per_s / 1e12,
        "tb_per_s": top.bytes_per_s / 1e12,
        "build_s": ready - began,
        "first_plan_ms": first,
        "start_to_first_plan_s": age,
        "warm": warm,
        "runs": [],
    }
    for s in samples:
        for n in tokens:
            report["runs"].append(bench_one(planner, config, observations, s, n, top, repeats, say))
    say(json.dumps(report))
    return report


def bench_one(
    planner: Planner,
    config: ModelConfig,
    observations: Sequence[Observation],
    samples: int,
    tokens: int,
    top: Ceilings,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One line of the table per stage."""
    cuda = planner.model.device.type == "cuda"
    stages, wall = median_times(planner, observations, samples, tokens, 1)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    stages, wall = median_times(planner, observations, samples, tokens, repeats)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    stages["token"] = stages.pop("reasoning") / tokens
    stages["euler_step"] = stages.pop("flow") / config.flow_steps
    scenes = len(observations)
    prompt, grids = prompt_shape(config, observations[0])
    costs = stage_costs(config, prompt, grids, scenes, samples, tokens, planner.model.dtype.itemsize)
    say(f"\nB={scenes} S={samples} tokens={tokens}: {wall:.1f} ms from frames to trajectory{f', peak {peak:.2f} GB' if cuda else ''}")
    rows = {}
    for stage, ms in stages.items():
        cost = costs.get(stage)
        rows[stage] = {"ms": ms}
        if cost is None:
            say(f"  {stage:12s} {ms:9.3f} ms")
            continue
        floor = cost.floor_ms(top.flops_per_s, top.bytes_per_s)
        rows[stage] |= {"floor_ms": floor, "tflops": cost.flops / ms / 1e9, "tb_per_s": cost.bytes / ms / 1e9}
        say(f"  {stage:12s} {ms:9.3f} ms   floor {floor:8.3f}   {cost.flops / ms / 1e9:7.1f} TFLOP/s   {cost.bytes / ms / 1e9:6.2f} TB/s")
    return {"samples": samples, "tokens": tokens, "wall_ms": wall, "peak_gb": peak, "stages": rows}


def prompt_shape(config: ModelConfig, observation: Observation) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Tokens of an observation's prompt and the grids of its images."""
    side = config.vision.patch * config.vision.merge
    high, wide = observation.frames.shape[-2:]
    height, width = target_size(high, wide, config.min_pixels, config.max_pixels, side)
    grids = ((height // config.vision.patch, width // config.vision.patch),) * observation.frames.shape[:2].numel()
    text = chat_text(images_text([h * w // config.vision.merge**2 for h, w in grids]), plan_text(config.tokens.history_tokens))
    return len(StandIn(config).encode(text)), grids
