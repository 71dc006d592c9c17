"""How many training samples a second the world renders: four cameras, four moments, by size and rays a pixel.

    python bench/render_speed.py [--sizes 112x63,224x126] [--rays 1,2] [--batch 256] [--compile] [--seconds 5]

A sample is 16 pictures on the device, from scenes simulated before. --compile: the fused pieces (CUDA), with the time they take to
compile. The last line is JSON: samples a second by (size, rays, way).
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import time

import torch

from alpamayo_r1.core.types import FRAMES
from alpamayo_r1.train.stream import window
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.render import render
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import simulate


def scenes(count: int, device: str) -> tuple[SceneBatch, torch.Tensor]:
    """Scenes of all families and their t0."""
    scene = window(simulate(range(count), seconds=T0_STEP / 10 + 0.1), T0_STEP)
    return scene.to(torch.device(device)), torch.full((count,), FRAMES - 1, device=device)


def speed(scene: SceneBatch, step: torch.Tensor, seconds: float, **how) -> tuple[float, float]:
    """Seconds of the first call, then samples a second over at least so many seconds."""

    def once() -> float:
        began = time.perf_counter()
        render(scene, step, **how)
        if scene.ego.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    first, spent = once(), [once()]
    while sum(spent) < seconds:
        spent.append(once())
    return first, len(step) * len(spent) / sum(spent)


def main() -> None:
    """A line for every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="112x63,224x126")
    parser.add_argument("--rays", default="1,2", help="rays a pixel and axis, for objects")
    parser.add_argument("--batch", type=int, default=256, help="scenes a call")
    parser.add_argument("--compile", action="store_true", help="time the compiled pieces too")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    scene, step = scenes(given.batch, DEVICE)
    found = {}
    for size in given.sizes.split(","):
        width, height = map(int, size.split("x"))
        for rays in map(int, given.rays.split(",")):
            for fused in (False, True) if given.compile else (False,):
                how = {"width": width, "height": height, "supersample": rays, "compile": fused}
                chunk = None if fused or not CUDA else given.batch
                first, rate = speed(scene, step, given.seconds, chunk=chunk, **how)
                label = f"{size} {rays}x{rays} {'compiled' if fused else 'eager'}"
                found[label] = rate
                print(f"{label}: {rate:.0f} samples/s (first call {first:.1f} s)", flush=True)
    print(json.dumps({"device": torch.cuda.get_device_name() if CUDA else "CPU", **found}))


if __name__ == "__main__":
    main()
