"""Where the time of the 10B's plans goes: medians by stage, and on request kernel by kernel, upload by upload, tile by tile.

    python bench/stages.py [--parts stages,uploads,spread,profile,sweep] [--minutes 3.75] [--out DIR]

Random weights, forced reasoning. stages: S = 1, 6, 16 with 16 tokens, S = 1 with 41. spread: one plan's graphs and calls one by one.
sweep: tunes the products' tiles and attention's cuts (sweep-flow: the flow's at S = 1 alone) before the stages.
A part that fails says so and the rest goes on; parts that would begin after so many minutes are skipped. A short table and one JSON line
come last; DIR/stages.json holds the details. The small size on the CPU where there is no GPU.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import profiler

from alpamayo_r1 import bench as timing
from alpamayo_r1 import testing
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Observation, Plan
from alpamayo_r1.engine import forward, ops, vendor
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.engine.memory import scene_kv
from alpamayo_r1.engine.ops import attention, products
from alpamayo_r1.engine.pixels import resize_to_patches
from bench import sweep

SIZE, DTYPE, PICTURE = ("10b", torch.bfloat16, (1080, 1920)) if CUDA else ("small", torch.float32, (96, 160))
WORKERS = 14
BEGAN = time.perf_counter()
LINES: list[str] = []
RESULT: dict[str, Any] = {"seconds": {}}


def say(line: str) -> None:
    """Keeps a line for the table at the end, and shows it now."""
    LINES.append(line)
    print(f"[{time.perf_counter() - BEGAN:6.1f}] {line}", flush=True)


def section(name: str, limit: float, function: Callable[[], Any]) -> Any:
    """Runs one part; what it raises is printed and does not stop the rest. Later than limit seconds: skipped."""
    started = time.perf_counter()
    if started - BEGAN > limit:
        say(f"skipped {name}: {started - BEGAN:.0f} s have passed")
        return None
    try:
        RESULT[name] = function()
    except Exception as problem:
        RESULT[name] = f"{type(problem).__name__}: {problem}"
        say(f"FAILED {name}: {type(problem).__name__}: {str(problem)[:300]}")
        traceback.print_exc()
    RESULT["seconds"][name] = time.perf_counter() - started
    if CUDA:
        torch.cuda.empty_cache()
    return RESULT[name]


def check_candidates(names: tuple[str, ...]) -> None:
    """Compiles and checks the sweep's candidates in processes side by side; a line for each that is wrong."""
    command = [sys.executable, __file__, "--names", ",".join(names), "--worker"]
    jobs = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(WORKERS)]
    for i, job in enumerate(jobs):
        out = job.communicate()[0]
        if job.returncode:
            say(f"FAILED worker {i}: {out[-600:]}")
            continue
        for label, error in json.loads(out.splitlines()[-1]):
            if isinstance(error, str) or not error <= 1e-2:
                say(f"  WRONG {label}: {error}")


def peak() -> float:
    """Most device memory in use since the last reset, in GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0


def synchronize() -> None:
    """Waits for the device."""
    if CUDA:
        torch.cuda.synchronize()


def build() -> Engine:
    """The model with random weights on the device, and an engine on it."""
    config = testing.size_config(SIZE)
    started = time.perf_counter()
    model = testing.random_model(config, DEVICE, DTYPE)
    synchronize()
    built = time.perf_counter() - started
    engine = Engine(model, testing.StandIn(config))
    synchronize()
    say(f"{SIZE} built in {built:.1f} s, fused in {time.perf_counter() - started - built:.1f} s; peak {peak():.2f} GB")
    return engine


def plan_once(engine: Engine, observation: Observation, tokens: int, seed: int = 0, samples: int = 1) -> Plan:
    """A plan that says so many tokens."""
    how = PlanOptions(samples=samples, seed=seed, reasoning=testing.words(tokens), max_tokens=64)
    return engine.plans([observation], how)[0]


def stages(engine: Engine, observation: Observation, samples: int, tokens: int, repeats: int = 11) -> dict[str, Any]:
    """Medians of a whole plan's stages in milliseconds, with peak memory in GB."""
    for _ in range(2):
        plan_once(engine, observation, tokens, samples=samples)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    walls, plans = [], []
    for i in range(repeats):
        started = time.perf_counter()
        plans.append(plan_once(engine, observation, tokens, i, samples))
        walls.append(1e3 * (time.perf_counter() - started))
    found: dict[str, Any] = {stage: median(plan.timing[stage] for plan in plans) for stage in plans[0].timing}
    found |= {"wall": median(walls), "peak_gb": peak(), "pres": sorted(round(plan.timing["preprocess"], 1) for plan in plans)}
    return found | {"token": found["reasoning"] / tokens, "euler": found["flow"] / engine.config.flow_steps}


def show(label: str, t: dict[str, Any]) -> None:
    """One line of stages."""
    say(
        f"{label}: wall {t['wall']:.1f} | pre {t['preprocess']:.1f} vision {t['vision']:.1f} prefill {t['prefill']:.1f} "
        f"token {t['token']:.3f} flow {t['flow']:.2f} kin {t['kinematics']:.2f} | peak {t['peak_gb']:.2f} GB | preprocessing {t['pres']}"
    )


def spread(engine: Engine, observation: Observation) -> dict:
    """Where one plan's time goes, kernel by kernel: decode graph, sampling graph, flow graph, prefill with each attention backend."""
    found: dict[str, Any] = {}
    sampling = PlanOptions().sampling
    buffers = engine.arena.view(1, 1)
    positions = engine._positions
    with torch.inference_mode():
        buffers.step.zero_()
        found["sample graph"] = timing.median_ms(
            lambda: engine.graphs.run(("sample", 1, 1, sampling), lambda: engine.say(sampling, buffers))
        )

        def decode():
            buffers.step.fill_(20)
            engine.graphs.run(("decode", 1, 1), lambda: forward.decode(engine.model, buffers, positions))

        found["decode graph"] = timing.median_ms(decode)
        prompt = engine.prompt(observation)
        found["prompt"] = timing.median_ms(lambda: engine.prompt(observation))
        frames = observation.frames.flatten(0, 1)
        found["upload staged"] = timing.median_ms(lambda: engine.reader.upload(frames))
        pinned = frames.pin_memory() if CUDA else frames
        found["upload pinned"] = timing.median_ms(lambda: pinned.to(DEVICE, non_blocking=True))
        found["upload pageable"] = timing.median_ms(lambda: frames.to(DEVICE), 3, 1)
        on_device = frames.to(DEVICE)
        found["resize to patches"] = timing.median_ms(lambda: resize_to_patches(on_device, engine.config.vision, 320, 576, DTYPE))
        embedded = engine.model.vla.vision.patch_embed(prompt.patches)
        found["vision"] = timing.median_ms(lambda: forward.encode(engine.model, embedded, prompt.grids), 5)
        images = forward.encode(engine.model, embedded, prompt.grids)
        cache = scene_kv(buffers, 0, len(prompt))
        found["prefill"] = timing.median_ms(lambda: forward.prefill(engine.model, prompt, list(images), cache), 5)
        for rows in (1024, 1536, 3072):
            kept, forward.MLP_ROWS = forward.MLP_ROWS, rows
            found[f"prefill by {rows}"] = timing.median_ms(lambda: forward.prefill(engine.model, prompt, list(images), cache), 5)
            forward.MLP_ROWS = kept
        fc1 = engine.model.vla.vision.blocks[0].mlp.linear_fc1
        x = torch.randn(16, 720, 1152, device=DEVICE, dtype=torch.bfloat16) if CUDA else torch.randn(1, 8, fc1.in_features)
        found["fc1 and gelu"] = timing.median_ms(lambda: torch.ops.aten.gelu_(fc1(x), approximate="tanh"))
        found["fc1 with gelu"] = timing.median_ms(lambda: ops.linear_gelu(x, fc1))
    for key, ms in found.items():
        say(f"  {key}: {ms:.3f} ms")
    found["backends"] = {str(k): str(v) for k, v in backends().items()}
    say(f"  attention backends: {found['backends']}")
    return found


def backends() -> dict[tuple[int, ...], Any]:
    """What the start-up check chose, and how long each backend takes."""
    found: dict[tuple[int, ...], Any] = {}
    if not CUDA:
        return found
    for shape, kv_heads, causal in (((1, 32, 3006, 128), 8, True), ((16, 16, 720, 72), 16, False)):
        qkv, times = vendor.random_qkv(shape, kv_heads, torch.bfloat16, torch.device(DEVICE)), {}
        for backend in vendor.HOPPER:
            try:
                times[backend.name] = round(timing.median_ms(lambda: vendor.attend_by(backend, qkv, causal)), 3)  # noqa: B023
            except RuntimeError as problem:
                times[backend.name] = str(problem)[:60]
        found[shape] = (vendor.attention_backend(shape, kv_heads, causal, torch.bfloat16, qkv[0].device, False), times)
    return found


def uploads(engine: Engine, observation: Observation) -> None:
    """Milliseconds of bringing the frames in after plans, sorted: by our threads, and by torch's copy."""
    frames = observation.frames.flatten(0, 1)
    staged, out = (torch.empty(frames.shape, dtype=torch.uint8, **where) for where in ({"pin_memory": CUDA}, {"device": DEVICE}))

    def by_torch():
        for i, frame in enumerate(frames):
            out[i].copy_(staged[i].copy_(frame), non_blocking=True)

    for name, bring in (("ours", lambda: engine.reader.upload(frames)), ("torch", by_torch)) * 2:
        times = []
        for i in range(12):
            plan_once(engine, observation, 3, i)
            synchronize()
            started = time.perf_counter()
            bring()
            synchronize()
            times.append(round(1e3 * (time.perf_counter() - started), 1))
        say(f"  upload {name}: {sorted(times)}")


def profile(engine: Engine, observation: Observation, samples: int) -> dict:
    """Microseconds by kernel name of one plan, from the profiler."""
    with profiler.profile(activities=[profiler.ProfilerActivity.CUDA if CUDA else profiler.ProfilerActivity.CPU]) as recorded:
        plan_once(engine, observation, 4, samples=samples)
    rows = sorted(
        ((e.key[:160], e.device_time_total, e.count) for e in recorded.key_averages() if e.device_time_total > 0), key=lambda row: -row[1]
    )
    for name, us, count in rows[:24]:
        say(f"  {us / 1e3:8.2f} ms {count:5d} x {us / count:8.1f} us  {name[:90]}")
    return {name: (us, count) for name, us, count in rows[:80]}


def visit(parts: list[str], swept: tuple[str, ...], limit: float) -> None:
    """All parts that were asked for, in order."""
    say(f"{torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}, {os.cpu_count()} cores")
    if swept:
        section("candidates", limit, lambda: check_candidates(swept))
    top = section("ceilings", limit, lambda: vars(timing.ceilings(torch.device(DEVICE), DTYPE)))
    say(f"ceilings {top}")
    engine = build()
    observation = testing.random_observation(0, *PICTURE)
    started = time.perf_counter()
    section("first plan", limit, lambda: str(plan_once(engine, observation, 16).timing))
    say(f"first plan {time.perf_counter() - started:.1f} s")
    todo = {
        "uploads": lambda: uploads(engine, observation),
        "spread": lambda: spread(engine, observation),
        "profile": lambda: profile(engine, observation, 1),
    }
    plan_once(engine, observation, 16, samples=16)  # the arena holds 16 samples
    for name in (name for name in todo if name in parts):
        section(name, limit, todo[name])
    if swept:
        section("sweep", limit, lambda: sweep.run(engine, say, swept))
        engine.graphs.clear()
        for key, cut in (*products.TILES.items(), *attention.CUTS.items(), ("whole", attention.WHOLE)):
            say(f"  {key}: {cut},")
    if "stages" in parts:
        for samples, tokens in ((1, 16), (6, 16), (16, 16), (1, 41)):
            label = f"S={samples} {tokens} tokens"
            found = section(label, limit, lambda: stages(engine, observation, samples, tokens))  # noqa: B023  called at once
            if isinstance(found, dict):
                show(label, found)
    first, again = (plan_once(engine, observation, 16).actions for _ in range(2))
    say(f"two plans equal in every bit: {torch.equal(first, again)}")


def finish(out: Path | None) -> None:
    """The table again, one JSON line, the details to a file."""
    print("\n" + "=" * 100)
    print("\n".join(LINES))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "stages.json").write_text(json.dumps(RESULT, default=str, indent=1))
    kept = {label: found for label, found in RESULT.items() if isinstance(found, dict) and "wall" in found}
    print(json.dumps({label: {a: round(b, 3) for a, b in found.items() if isinstance(b, float)} for label, found in kept.items()}))


def main() -> None:
    """The whole visit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="stages")
    parser.add_argument("--minutes", type=float, default=3.75)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--names", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.worker is not None:
        print(json.dumps(sweep.check_all(given.worker, WORKERS, given.names.split(","))))
        return
    parts = given.parts.split(",")
    swept = tuple(sweep.PASSES) if "sweep" in parts else ("flow S=1",) if "sweep-flow" in parts else ()
    if swept and not CUDA:
        parser.error("sweep needs CUDA: it times kernels in graphs")
    try:
        visit(parts, swept, 60 * given.minutes)
    finally:
        finish(given.out)


if __name__ == "__main__":
    main()
