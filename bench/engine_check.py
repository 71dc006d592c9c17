"""One visit to a GPU: kernels against twins, engine against specification (tiny, fp32), then where the time of the 10B goes.

    python bench/engine_check.py [--minutes 3.75] [--out DIR] [--parts kernels,tiny,stages,uploads,spread,sweep,profile]

Prints a short table last and one JSON line; details go to DIR/engine_check.json. A section that fails says so and the rest goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

import kernel_check  # noqa: E402
import sweep  # noqa: E402
from fp32_check import BOUND, tame  # noqa: E402

from alpamayo_r1 import bench, testing  # noqa: E402
from alpamayo_r1.core.checkpoint import load_checkpoint  # noqa: E402
from alpamayo_r1.core.plan import plan  # noqa: E402
from alpamayo_r1.core.types import Observation  # noqa: E402
from alpamayo_r1.engine import forward, ops, vendor  # noqa: E402
from alpamayo_r1.engine.engine import Engine  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE, SIZE, WORKERS = ("cuda", "10b", 14) if CUDA else ("cpu", "small", 1)
BEGAN = time.perf_counter()
LIMIT = 60 * float(sys.argv[sys.argv.index("--minutes") + 1]) if "--minutes" in sys.argv else 225.0
PARTS = (
    sys.argv[sys.argv.index("--parts") + 1] if "--parts" in sys.argv else "kernels,tiny,stages,uploads,spread,sweep,profile"
).split(",")
SWEPT = tuple(sweep.PASSES) if "sweep" in PARTS else ("flow S=1",) if "sweep-flow" in PARTS else ()
RESULT: dict = {}
LINES: list[str] = []
KEPT: dict[str, torch.Tensor] = {}
warnings.simplefilter("ignore")


def say(line: str) -> None:
    """Keeps a line for the table at the end, and shows it now."""
    LINES.append(line)
    print(f"[{time.perf_counter() - BEGAN:6.1f}] {line}", flush=True)


def section(name: str, function: Callable[[], object]) -> object:
    """Runs one part; what it raises is printed and does not stop the rest. Too late: skipped."""
    started = time.perf_counter()
    if started - BEGAN > LIMIT:
        say(f"skipped {name}: {started - BEGAN:.0f} s have passed")
        return None
    try:
        RESULT[name] = function()
    except Exception as problem:
        RESULT[name] = f"{type(problem).__name__}: {problem}"
        say(f"FAILED {name}: {type(problem).__name__}: {str(problem)[:300]}")
        traceback.print_exc()
    RESULT.setdefault("seconds", {})[name] = time.perf_counter() - started
    if CUDA:
        torch.cuda.empty_cache()
    return RESULT[name]


# ------------------------------------------------------------------------------------------------------- workers: compile, check kernels


def worker(index: int) -> None:
    """Checks every WORKERS-th kernel case and product tile; prints JSON. What it compiles, the main process finds compiled."""
    rows = []
    for ops.PDL in (True, False) if "kernels" in PARTS else (True,):
        for cases, dtype in ((kernel_check.BIG, torch.bfloat16), (kernel_check.LITTLE, torch.float32)):
            rows += kernel_check.check(cases[index::WORKERS], DEVICE, dtype, seed=100 * index)
    ops.PDL = True
    rows += sweep.check_all(index, WORKERS, SWEPT) if CUDA else []
    print("ROWS " + json.dumps(rows))


def run_workers() -> dict:
    """All workers at once; a line for each case that is wrong."""
    command = [sys.executable, __file__, "--parts", ",".join(PARTS)]
    jobs = [
        subprocess.Popen([*command, "--worker", str(i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for i in range(WORKERS)
    ]
    if "tiny" in PARTS:
        jobs.append(subprocess.Popen([*command, "--tiny"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    rows = []
    for i, job in enumerate(jobs):
        out = job.communicate()[0]
        LINES.extend(f"  {line}" for line in out.splitlines() if line.startswith("tiny"))
        found = [json.loads(line[5:]) for line in out.splitlines() if line.startswith("ROWS ")]
        if job.returncode or not found:
            say(f"FAILED worker {i}: {out[-600:]}")
        rows += found[0] if found else []
    limits = {"float32": 2e-6, "bfloat16": 1e-2}
    wrong = []
    for label, error in rows:
        limit = 0 if label.startswith("pictures") else BOUND if label.startswith("tiny") else limits[label.split()[-1]]
        if isinstance(error, str) or not error <= limit:
            wrong.append((label, error))
    say(f"kernels and tiny engine: {len(rows)} cases, {len(wrong)} wrong")
    for label, error in wrong[:40]:
        say(f"  WRONG {label}: {error}")
    for label, error in rows:
        if label.startswith("tiny"):
            say(f"  {label}: {error}")
    return {f"{i} {label}": error for i, (label, error) in enumerate(rows)}


def tiny() -> None:
    """Engine = specification on the tiny recorded checkpoint in fp32, in every shape, graphs replayed; distances in metres."""
    folder = ROOT / "tests/golden/checkpoint"
    model, vocabulary = load_checkpoint(folder, dtype=torch.float32, device=DEVICE)
    tame(model)
    slow = load_checkpoint(folder, dtype=torch.float32)[0]
    tame(slow)
    rows, floor = [], 0.0
    for graphs in (False, True) if CUDA else (False,):
        engine = Engine(model, vocabulary, graphs=graphs)
        for repeat in range(2):
            for samples, height, width, options in (
                (1, 96, 160, {"max_tokens": 12}),
                (5, 96, 160, {"max_tokens": 12, "temperature": 1.5}),
                (2, 64, 80, {"max_tokens": 30, "reasoning": ["go on", "stop, because of the car in front"]}),
                (3, 120, 120, {"max_tokens": 9, "top_k": 3}),
                (2, 96, 160, {"max_tokens": 5, "temperature": 0.0, "steps": 5}),
            ):
                observation = testing.random_observation(samples + repeat, height, width)
                want = plan(model, vocabulary, observation, samples=samples, seed=3, **options)
                got = engine.plan(observation, samples=samples, seed=3, **options)
                label = f"tiny S={samples} {height}x{width} {'replay' if graphs and repeat else 'graphs' if graphs else 'eager'}"
                same = "" if got.tokens == want.tokens and got.ended == want.ended else " TOKENS DIFFER"
                if CUDA and not graphs and not repeat:
                    far = plan(slow, vocabulary, observation, samples=samples, seed=3, **options).xyz
                    floor = max(floor, (far - want.xyz).abs().max().item())
                rows.append((label + same, (got.xyz - want.xyz).abs().max().item() if not same else "tokens differ"))
        scenes = [testing.random_observation(7, 96, 160), testing.random_observation(8, 96, 160)]
        for one, scene in zip(engine.plan(scenes, samples=2, seed=5, max_tokens=12), scenes, strict=True):
            want = plan(model, vocabulary, scene, samples=2, seed=5, max_tokens=12)
            rows.append((f"tiny B=2 graphs={graphs}", (one.xyz - want.xyz).abs().max().item()))
        first = engine.plan(scenes[0], samples=2, seed=5, max_tokens=12)
        before = allocated()
        again = [engine.plan(scenes[0], samples=s, seed=5, max_tokens=n) for s in (2, 1, 3, 2) for n in (12, 20, 7, 12)]
        grown = allocated() - before
        rows.append((f"tiny run to run, graphs={graphs}", (again[-1].xyz - first.xyz).abs().max().item()))
        print(f"tiny memory grown by {grown} bytes over {len(again)} plans")
    print(f"tiny: specification on CPU and GPU apart by {floor:.1e} m")
    print("ROWS " + json.dumps(rows))


def allocated() -> int:
    """Bytes of device memory in use."""
    return torch.cuda.memory_allocated() if CUDA else 0


def peak() -> float:
    """Most device memory in use since the last reset, in GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if CUDA else 0.0


def synchronize() -> None:
    """Waits for the device."""
    if CUDA:
        torch.cuda.synchronize()


# ------------------------------------------------------------------------------------------------------------------------- the 10B itself


def build() -> Engine:
    """The 10B with random weights on the device, and an engine on it."""
    config = testing.size_config(SIZE)
    started = time.perf_counter()
    model = testing.random_model(config, DEVICE, torch.bfloat16 if CUDA else torch.float32)
    synchronize()
    built = time.perf_counter() - started
    engine = Engine(model, testing.StandIn(config))
    synchronize()
    say(
        f"10B built in {built:.1f} s, fused in {time.perf_counter() - started - built:.1f} s; "
        f"{allocated() / 1e9:.2f} GB, peak {peak():.2f} GB"
    )
    return engine


def events(function: Callable[[], object], repeats: int = 7, warmup: int = 2) -> float:
    """Median milliseconds."""
    return bench.median_ms(function, repeats, warmup)


def stages(engine: Engine, observation: Observation, samples: int, tokens: int, repeats: int = 11) -> dict:
    """Medians of a whole plan's stages, with peak memory."""
    options = {"samples": samples, "reasoning": testing.words(tokens), "max_tokens": 64}
    for _ in range(2):
        engine.plan(observation, seed=0, **options)
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    walls, plans = [], []
    for i in range(repeats):
        started = time.perf_counter()
        plans.append(engine.plan(observation, seed=i, **options))
        walls.append(1e3 * (time.perf_counter() - started))
    timing = {k: sorted(p.timing[k] for p in plans)[repeats // 2] for k in plans[0].timing}
    timing |= {"wall": sorted(walls)[repeats // 2], "peak_gb": peak()}
    timing["pres"] = sorted(round(p.timing["preprocess"], 1) for p in plans)
    timing |= {"token": timing["reasoning"] / tokens, "euler": timing["flow"] / 10}
    return timing


def same_bits(engine: Engine, observation: Observation, key: str) -> None:
    """Keeps a plan's actions under a key, or says how far this one is from the one kept there."""
    actions = engine.plan(observation, seed=0, samples=1, reasoning=testing.words(16), max_tokens=64).actions
    if key in KEPT:
        say(f"  bit-equal to {key}: {torch.equal(actions, KEPT[key])} (largest difference {(actions - KEPT[key]).abs().max():.2e})")
    KEPT.setdefault(key, actions)


def show(label: str, t: dict) -> None:
    """One line of stages."""
    say(
        f"{label}: wall {t['wall']:.1f} | pre {t['preprocess']:.1f} vision {t['vision']:.1f} prefill {t['prefill']:.1f} "
        f"token {t['token']:.3f} flow {t['flow']:.2f} kin {t['kinematics']:.2f} | peak {t['peak_gb']:.2f} GB | preprocessing {t['pres']}"
    )


def spread(engine: Engine, observation: Observation) -> dict:
    """Where one plan's time goes, kernel by kernel: decode graph, sampling graph, flow graph, prefill with each attention backend."""
    found = {}
    buffers = engine.arena.view(1, 1)
    positions = engine._positions
    with torch.inference_mode():
        buffers.step.zero_()
        found["sample graph"] = events(lambda: engine.graphs.run(("sample", 1, 1, sampling()), lambda: engine.say(sampling(), buffers)))

        def decode():
            buffers.step.fill_(20)
            engine.graphs.run(("decode", 1, 1), lambda: forward.decode(engine.model, buffers, positions))

        found["decode graph"] = events(decode)
        prompt = engine.prompt(observation)
        found["prompt"] = events(lambda: engine.prompt(observation))
        frames = observation.frames.flatten(0, 1)
        found["upload staged"] = events(lambda: engine.upload(frames))
        pinned = frames.pin_memory() if CUDA else frames
        found["upload pinned"] = events(lambda: pinned.to(DEVICE, non_blocking=True))
        found["upload pageable"] = events(lambda: frames.to(DEVICE), 3, 1)
        on_device = frames.to(DEVICE)
        from alpamayo_r1.engine.pixels import resize_to_patches

        found["resize to patches"] = events(lambda: resize_to_patches(on_device, engine.config.vision, 320, 576, torch.bfloat16))
        found["vision"] = events(lambda: forward.encode(engine.model, forward.embed(engine.model, prompt.patches), prompt.grids), 5)
        images = forward.encode(engine.model, forward.embed(engine.model, prompt.patches), prompt.grids)
        found["prefill"] = events(lambda: forward.prefill(engine.model, prompt, list(images), buffers, 0), 5)
        for rows in (1024, 1536, 3072):
            kept, forward.MLP_ROWS = forward.MLP_ROWS, rows
            found[f"prefill by {rows}"] = events(lambda: forward.prefill(engine.model, prompt, list(images), buffers, 0), 5)
            forward.MLP_ROWS = kept
        fc1 = engine.model.vla.vision.blocks[0].mlp.linear_fc1
        x = torch.randn(16, 720, 1152, device=DEVICE, dtype=torch.bfloat16) if CUDA else torch.randn(1, 8, fc1.in_features)
        found["fc1 and gelu"] = events(lambda: torch.ops.aten.gelu_(fc1(x), approximate="tanh"))
        found["fc1 with gelu"] = events(lambda: ops.linear_gelu(x, fc1))
    for key, ms in found.items():
        say(f"  {key}: {ms:.3f} ms")
    found["backends"] = {str(k): str(v) for k, v in backends().items()}
    say(f"  attention backends: {found['backends']}")
    return found


def backends() -> dict:
    """What the start-up check chose, and how long each backend takes."""
    found = {}
    if not CUDA:
        return found
    for shape, kv_heads, causal in (((1, 32, 3006, 128), 8, True), ((16, 16, 720, 72), 16, False)):
        qkv, times = vendor.random_qkv(shape, kv_heads, torch.bfloat16, torch.device(DEVICE)), {}
        for backend in vendor.HOPPER:
            try:
                times[backend.name] = round(events(lambda: vendor.attend_by(backend, qkv, causal)), 3)  # noqa: B023
            except RuntimeError as problem:
                times[backend.name] = str(problem)[:60]
        found[shape] = (vendor.attention_backend(shape, kv_heads, causal, torch.bfloat16, qkv[0].device), times)
    return found


def sampling():
    """The default way to sample."""
    from alpamayo_r1.core.sampling import SamplingConfig

    return SamplingConfig()


def uploads(engine: Engine, observation: Observation) -> None:
    """Milliseconds of bringing the frames in after plans, sorted: by our threads, and by torch's copy."""
    frames = observation.frames.flatten(0, 1)
    staged, out = (torch.empty(frames.shape, dtype=torch.uint8, **where) for where in ({"pin_memory": CUDA}, {"device": DEVICE}))

    def by_torch():
        for i, frame in enumerate(frames):
            out[i].copy_(staged[i].copy_(frame), non_blocking=True)

    for name, bring in (("ours", lambda: engine.upload(frames)), ("torch", by_torch)) * 2:
        times = []
        for i in range(12):
            engine.plan(observation, seed=i, reasoning=testing.words(3), max_tokens=64)
            synchronize()
            started = time.perf_counter()
            bring()
            synchronize()
            times.append(round(1e3 * (time.perf_counter() - started), 1))
        say(f"  upload {name}: {sorted(times)}")


def profile(engine: Engine, observation: Observation, samples: int) -> dict:
    """Microseconds by kernel name of one plan, from the profiler."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU]) as recorded:
        engine.plan(observation, seed=0, samples=samples, reasoning=testing.words(4), max_tokens=64)
    rows = sorted(
        ((e.key[:160], e.device_time_total, e.count) for e in recorded.key_averages() if e.device_time_total > 0), key=lambda row: -row[1]
    )
    for name, us, count in rows[:24]:
        say(f"  {us / 1e3:8.2f} ms {count:5d} x {us / count:8.1f} us  {name[:90]}")
    return {name: (us, count) for name, us, count in rows[:80]}


def main() -> None:
    """The whole visit."""
    say(f"{torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}, {os.cpu_count()} cores")
    section("workers", run_workers)
    top = section("ceilings", lambda: vars(bench.ceilings(torch.device(DEVICE), torch.bfloat16 if CUDA else torch.float32)))
    say(f"ceilings {top}")
    engine = section("build", build)
    if not isinstance(engine, Engine):
        return
    RESULT.pop("build")
    observation = testing.random_observation(0, *((1080, 1920) if CUDA else (96, 160)))
    first = time.perf_counter()
    section("first plan", lambda: str(engine.plan(observation, reasoning=testing.words(16), max_tokens=64, seed=0).timing))
    say(f"first plan {time.perf_counter() - first:.1f} s")

    def measured(label: str, samples: int, tokens: int = 16):
        def run():
            t = stages(engine, observation, samples, tokens)
            show(label, t)
            return t

        section(label, run)

    def part(name: str, function: Callable[[], object]) -> None:
        if name in PARTS:
            section(name, function)

    measured("as it stands S=1", 1)
    measured("as it stands S=16", 16)
    part("uploads", lambda: uploads(engine, observation))
    part("spread", lambda: spread(engine, observation))
    part("profile", lambda: profile(engine, observation, 1))
    section("sweep", lambda: sweep.run(engine, say, SWEPT) if CUDA and SWEPT else None)
    engine.graphs.clear()
    for key, cut in (*ops.TILES.items(), *ops.CUTS.items(), ("whole", ops.WHOLE)):
        say(f"  {key}: {cut},")
    if "stages" in PARTS:
        for samples, tokens in ((1, 16), (6, 16), (16, 16), (1, 41)):
            measured(f"tuned S={samples} {tokens} tokens", samples, tokens)
    section("bits", lambda: same_bits(engine, observation, "tuned"))
    section("bits", lambda: same_bits(engine, observation, "tuned"))
    RESULT["tiles"] = {str(k): str(v) for k, v in ops.TILES.items()}


def finish() -> None:
    """The table again, one JSON line, the details to a file."""
    print("\n" + "=" * 100)
    print("\n".join(LINES))
    if "--out" in sys.argv:
        folder = Path(sys.argv[sys.argv.index("--out") + 1])
        (folder / "engine_check.json").write_text(json.dumps(RESULT, default=str, indent=1))
        (folder / "engine_check.txt").write_text("\n".join(LINES))
    keep = {k: v for k, v in RESULT.items() if isinstance(v, dict) and "wall" in v}
    print(json.dumps({k: {a: round(b, 3) for a, b in v.items() if isinstance(b, float)} for k, v in keep.items()}))


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(int(sys.argv[sys.argv.index("--worker") + 1]))
    elif "--tiny" in sys.argv:
        tiny()
    else:
        try:
            main()
        finally:
            finish()
