"""How long a view takes: the four nominal pictures from another car's cameras of 1280 x 720, per picture, grids made once.

python bench/views.py
"""

from __future__ import annotations

import _head

import argparse
import time

import torch

from alpamayo_r1.rig.nominal import RIG, resized
from alpamayo_r1.rig.views import view_of
from alpamayo_r1.world.recordings import OTHER_CAR

FRAMES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shots = {name: torch.randint(0, 256, (FRAMES, 3, 720, 1280), dtype=torch.uint8, device=device) for name in OTHER_CAR}
    print(f"{'view':<28}{'size':>12}{'parts':>7}{'ms per picture':>16}")
    for size in ((576, 324), (960, 540), (1920, 1080)):
        for name in RIG:
            view = view_of(resized(RIG[name], *size), OTHER_CAR).to(device)
            taken = [timed(lambda view=view: view.render(shots), device) for _ in range(given.repeats + 3)][3:]
            middle = sorted(taken)[len(taken) // 2] / FRAMES
            print(f"{name:<28}{f'{size[0]} x {size[1]}':>12}{len(view.parts):>7}{1e3 * middle:>16.3f}", flush=True)
    print(device if device == "cpu" else torch.cuda.get_device_name())


def timed(work, device: str) -> float:
    """Seconds of one call, the device's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    _ = _head
    main()
