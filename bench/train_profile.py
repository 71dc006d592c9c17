"""Where the time of training goes: rendering, lessons, and one optimiser step in parts, alone and beside rendering.

python bench/train_profile.py [--seconds 75] [--tiny]
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import threading
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.drive.teach import Learner, Lessons, frozen
from alpamayo_r1.train import loop
from alpamayo_r1.train.loop import Losses, Pool, make_layout, render_rows
from alpamayo_r1.train.step import Group, Step
from alpamayo_r1.train.stream import make_chunk
from alpamayo_r1.world import composite, ground
from alpamayo_r1.world import render as renderer

BEGAN = time.monotonic()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:5.1f}] {text}", flush=True)


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(work: Callable[[], object], times: int = 10) -> float:
    """Milliseconds per call."""
    sync()
    start = time.perf_counter()
    for _ in range(times):
        work()
    sync()
    return 1e3 * (time.perf_counter() - start) / times


def kernels(work: Callable[[], object], count: int = 14) -> None:
    """Launches, busy time and the kernels that take most of it."""
    sync()
    with profile(activities=[ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU]) as found:
        start = time.perf_counter()
        work()
        sync()
        wall = 1e3 * (time.perf_counter() - start)
    events = [e for e in found.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy, launches = sum(e.self_device_time_total for e in events) / 1e3, sum(e.count for e in events)
    say(f"  profiled: wall {wall:.1f} ms, busy {busy:.1f} ms, {launches} kernels")
    for e in sorted(events, key=lambda e: -e.self_device_time_total)[:count]:
        print(f"    {e.self_device_time_total / 1e3:8.2f} ms {e.count:6d} x  {e.key[:110]}")


def shares(work: Callable[[], object]) -> None:
    """Milliseconds of the parts of rendering, each waited for."""
    took: dict[str, float] = {}
    kept = []

    def watch(module: ModuleType, name: str) -> None:
        plain = getattr(module, name)

        def call(*args: object, **options: object) -> object:
            sync()
            start = time.perf_counter()
            out = plain(*args, **options)
            sync()
            took[name] = took.get(name, 0.0) + 1e3 * (time.perf_counter() - start)
            return out

        kept.append((module, name, plain))
        setattr(module, name, call)

    for module, name in (
        (renderer, "_background"),
        (renderer, "_foreground"),
        (renderer, "things_at"),
        (renderer, "select"),
        (loop, "resize"),
        (ground, "_paved"),
        (ground, "_shadows_on"),
        (composite, "nearest"),
        (composite, "shade"),
    ):
        watch(module, name)
    total = timed(work, 1)
    for module, name, plain in kept:
        setattr(module, name, plain)
    say(f"  of {total:.0f} ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in took.items()))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=75)
    options.add_argument("--tiny", action="store_true")
    given = options.parse_args()
    device = torch.device(DEVICE)
    torch.backends.cuda.matmul.allow_tf32 = True

    def over() -> bool:
        return time.monotonic() - BEGAN > given.seconds

    scenes, sizes, times = (4, (2,), 1) if given.tiny else (128, (64, 128), 10)
    model, vocabulary = load_checkpoint(checkpoint_folder("small"), dtype=torch.float32, device=device)
    model = model.train().requires_grad_(True)
    layout = make_layout(model.config, vocabulary)
    say(f"loaded; {len(layout.ids)} prompt tokens")
    start = time.perf_counter()
    off = np.zeros(scenes, bool)
    chunk = make_chunk(np.arange(scenes), 60, off, ~off, model.config, vocabulary, 24)
    say(f"{scenes} scenes simulated in {time.perf_counter() - start:.2f} s on this process's core")
    rows = render_rows(chunk, layout, device)
    say(f"render {scenes} scenes: {timed(lambda: render_rows(chunk, layout, device), 1 + times // 5):.0f} ms")
    kernels(lambda: render_rows(chunk, layout, device))
    shares(lambda: render_rows(chunk, layout, device))
    pool = Pool(8 * scenes)
    for _ in range(4):
        pool.add(rows)
    generator = torch.Generator(device=device).manual_seed(0)
    losses = Losses(model, layout, 4, 24)
    if CUDA:
        losses.compile()

    def one_size(batch: int) -> None:
        drawn = pool.draw(batch, generator)
        eager = Step(losses, losses.loss, Group(), generator, 0.05, graphs=False)
        start = time.perf_counter()
        eager(drawn, 0.0)
        sync()
        say(f"batch {batch}: first step {time.perf_counter() - start:.1f} s")
        eager(drawn, 0.0)
        noise, t = torch.randn(batch, 4, 64, 2, device=device), torch.rand(batch, 4, device=device)

        def under(work: Callable[[], object]) -> Callable[[], object]:
            def run() -> object:
                with torch.autocast(device.type, torch.bfloat16):
                    return work()

            return run

        parts = {
            "draw": lambda: pool.draw(batch, generator),
            "see": under(lambda: losses.see(drawn.frames, generator)),
            "read": under(lambda: losses.read(drawn, generator)),
            "forward": under(lambda: losses(drawn, noise, t, generator)),
            "gradients": eager._gradients,
            "learn": eager._learn,
            "step": lambda: eager(drawn, 0.0),
        }
        say(f"batch {batch} eager, ms: " + ", ".join(f"{name} {timed(work, times):.1f}" for name, work in parts.items()))
        if batch == sizes[0] or not over():
            kernels(lambda: eager(drawn, 0.0), 30 if batch == sizes[0] else 8)
        if CUDA:
            graph = Step(losses, losses.loss, Group(), generator, 0.05, graphs=True)
            for _ in range(4):
                graph(drawn, 0.0)
            say(f"batch {batch} as graphs: {timed(lambda: graph(pool.draw(batch, generator), 0.0), 20):.1f} ms per step with its draw")
            say(f"  {[round(x, 4) for x in graph(drawn, 0.0).tolist()]} of {[round(x, 4) for x in eager(drawn, 0.0).tolist()]} eager")
            stop, made = threading.Event(), [0]

            def make() -> None:
                with torch.cuda.stream(torch.cuda.Stream()):
                    while not stop.is_set():
                        render_rows(chunk, layout, device)
                        torch.cuda.current_stream().synchronize()
                        made[0] += scenes

            thread = threading.Thread(target=make)
            thread.start()
            time.sleep(1)
            made[0], begin = 0, time.perf_counter()
            each = timed(lambda: graph(pool.draw(batch, generator), 0.0), 60)
            rate = made[0] / (time.perf_counter() - begin)
            stop.set()
            thread.join()
            say(f"batch {batch} as graphs beside rendering: {each:.1f} ms per step, {rate:.0f} scenes/s")

    for batch in sizes:
        if not over():
            one_size(batch)
    if CUDA:
        start = time.perf_counter()
        ground._paved = torch.compile(ground._paved, dynamic=True)
        render_rows(chunk, layout, device)
        sync()
        say(f"ground compiled in {time.perf_counter() - start:.1f} s")
        say(f"render {scenes} scenes: {timed(lambda: render_rows(chunk, layout, device), 3):.0f} ms")
        shares(lambda: render_rows(chunk, layout, device))
    driven = 4 if given.tiny else 256
    start = time.perf_counter()
    lessons = Lessons(model.config, vocabulary, device, scenes=driven, after=0.0)
    say(f"lessons: {driven} scenes set up in {time.perf_counter() - start:.1f} s")
    lessons(model, 1.0)
    say(f"one call: {timed(lambda: lessons(model, 1.0), 2):.0f} ms")
    sim, copy = lessons.simulation, frozen(model)
    frames = lessons.eyes.frames(sim)
    reference, _ = Learner(copy, vocabulary).plan(sim, frames, 1)
    plan = timed(lambda: Learner(copy, vocabulary).plan(sim, frames, 1), 2)
    say(f"  frozen {timed(lambda: frozen(model), 2):.0f} ms, plan {plan:.0f} ms")
    say(f"  rows {timed(lambda: lessons._rows(frames), 2):.0f} ms, step {timed(lambda: sim.step(reference, 0.0), 2):.0f} ms")
    say(f"  frames of 2 steps {timed(lambda: lessons.eyes.frames(sim), 1):.0f} ms")


if __name__ == "__main__":
    main()
