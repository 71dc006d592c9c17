"""How many clips per second an evaluation gets through, and how busy that keeps the GPU: clips decoded from video, planned, scored.

    python bench/eval_throughput.py                                            random 10B on the GPU, clips of 1920 x 1080
    python bench/eval_throughput.py --size small --clips 2 --width 256 --height 144      a dry run on the CPU

Random weights say nothing, so every row is given 16 tokens of words.
The last line is JSON: clips_per_s, busy (the planner's own stages over the wall clock), and medians in ms.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import Observation, Plan
from alpamayo_r1.evaluate.loop import local_rows
from alpamayo_r1.evaluate.protocol import EvalConfig, Item
from alpamayo_r1.evaluate.worker import Worker
from alpamayo_r1.planner import Planner
from alpamayo_r1.world.clips import write_clips

FIRST_SEED = 851_000


class Timed(Planner):
    """A planner that adds up its stages' milliseconds."""

    busy_ms = 0.0

    def plan(self, observation: Observation, options: PlanOptions | None = None, /, **changes) -> Plan:
        """As the planner, timed."""
        plan = super().plan(observation, options, **changes)
        Timed.busy_ms += sum(plan.timing.values())
        return plan


def throughput(size: str, clips: int, repeats: int, samples: int, width: int, height: int, folder: Path) -> dict[str, float]:
    """Figures of repeats x clips rows after one row of warm-up."""
    device = torch.device(DEVICE)
    ids = write_clips(range(FIRST_SEED, FIRST_SEED + clips), folder, width=width, height=height, seconds=0.6, t_start=4.6, supersample=1)
    config = testing.size_config(size)
    model = testing.random_model(config, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    how = PlanOptions(samples=samples, seed=42, reasoning=testing.words(16), max_tokens=64)
    worker = Worker(Timed.of(model, testing.StandIn(config)), how)
    protocol = EvalConfig(data=str(folder), plan=how, device=DEVICE)
    todo = [Item(i, ids[i % clips], 5_100_000 if i // clips % 2 == 0 else 5_000_000) for i in range(1 + repeats * clips)]
    rows, began = [], 0.0
    for row in local_rows(protocol, todo, worker):
        rows.append(row)
        if len(rows) == 1:
            began, Timed.busy_ms = time.perf_counter(), 0.0
    wall = time.perf_counter() - began
    errors = [row["error"] for row in rows if row.get("error")]
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(rows)} rows failed; the first: {errors[0]}")
    medians = {name: statistics.median(row[name] for row in rows[1:]) for name in ("load_ms", "wait_ms", "plan_ms", "total_ms")}
    return {"clips_per_s": (len(rows) - 1) / wall, "busy": Timed.busy_ms / 1e3 / wall, **medians}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="10b", choices=("10b", "small"))
    parser.add_argument("--clips", type=int, default=4, help="clips written")
    parser.add_argument("--repeats", type=int, default=8, help="times each is evaluated")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--folder", type=Path, help="where the clips are, or are written (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        figures = throughput(given.size, given.clips, given.repeats, given.samples, given.width, given.height, folder)
    print(json.dumps({"card": torch.cuda.get_device_name() if CUDA else "CPU", **vars(given), **figures}, default=str))
