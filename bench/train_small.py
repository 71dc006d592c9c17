"""The recipe of the bundled model's further training: any moment, drivers pushed off their way, and its own errors. And what it brought.

    [torchrun --nproc-per-node N] python bench/train_small.py --out DIR [--minutes 5.5] [--from PLACE] [--rate 7e-4] [--before] [--silent]

Goes on from the bundled weights (`--from`), or from DIR/state.pt with the minutes that are left where an earlier call was cut off. Then the
model is validated on unseen scenes: open loop at ten moments between 1.6 and 12 s, and closed loop; with --before that one, too, from which
it began. The processes share both. Prints a table per part, the last line is JSON; DIR holds the checkpoint, `train.jsonl` with the curves
and `validation.json`.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, load_vocabulary
from alpamayo_r1.drive.simulation import Setting
from alpamayo_r1.drive.teach import FIRST_SEED, Learner, Lessons, driven_by
from alpamayo_r1.train.loop import TrainConfig, budget_left, train
from alpamayo_r1.train.step import Group
from alpamayo_r1.train.stream import StreamConfig
from alpamayo_r1.train.validate import TEST_SEEDS, validate

MOMENTS = (1.6, 2.5, 3.5, 4.5, 5.1, 6.0, 7.5, 9.0, 10.5, 12.0)
FIRST_DRIVEN = 820_000
"""Seed of the first scene of the closed loop; the open loop has 800,000 .. to itself."""
HARD = ("nudge_right", "pedestrian", "curve", "nudge_right", "nudge_left", "cut_in")
"""What the model failed at most after the first minutes."""
OPEN = ("ade", "min_ade", "decision", "malformed", "steered")
CLOSED = ("score", "collision_at_fault", "off_road", "red_light_run", "stop_sign_run", "progress", "comfortable", "from_expert_m")


def go_on(out: Path, start: Path, given: argparse.Namespace, device: torch.device, group: Group) -> None:
    """Trains until the minutes in all are used, those of an earlier call that was cut off counted."""
    state, (left, rate) = out / "state.pt", budget_left(out, given.minutes, given.rate, group, device)
    if left <= 0:
        print(f"{out} has had its {given.minutes:g} minutes")
        return
    config = TrainConfig(
        minutes=left,
        rate=rate,
        batch=96,
        fresh=128,
        reuse=4,
        pool=6144,
        own_pool=12288,
        own_share=0.35,
        elsewhere=0.2,
        warmup=150,
        seed=given.seed,
        workers=given.workers,
        save_every=120,
        print_every=40,
        compile=given.compile,
        graphs=given.graphs,
    )
    stream = StreamConfig(chunk=128, other_t0=0.8, directed=0.2, pushed=0.5, hard=HARD, silent=given.silent)
    lessons: dict[str, Any] = {"scenes": 384, "after": 0.02, "hard": HARD}
    if given.tiny:
        config = TrainConfig(minutes=left, batch=4, fresh=4, reuse=1, pool=16, own_pool=16, warmup=2, workers=0, max_rounds=3)
        stream, lessons = StreamConfig(chunk=4, silent=given.silent), {"scenes": 2, "after": 0.0}
    shape = read_config(start)
    vocabulary = load_vocabulary(start / shape.vlm, shape.tokens)
    first = FIRST_SEED + 20_000 * (given.seed % 10)
    lessons |= {"silent": given.silent, "part": (group.rank, group.size), "first": first, "fused": CUDA and given.compile}
    own = Lessons(shape, vocabulary, device, **lessons)
    train(out, "small", config, stream, device, resume=state if state.is_file() else start, own=own)


def judged(model: VLA, vocabulary: Vocabulary, scenes: int, driven: int, setting: Setting, group: Group) -> dict[str, Any]:
    """Open loop at every moment, and closed loop: each process takes its share of the moments and of the scenes driven, and has all."""
    mine: dict[str, Any] = {"open": {}, "rows": []}
    seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + scenes)
    for t0 in MOMENTS[group.rank :: group.size]:
        result = validate(model, vocabulary, seeds=seeds, batch=64, t0=t0, supersample=1)
        mine["open"][t0] = {key: round(result[key], 4) for key in OPEN}
        mine["open"][t0]["families"] = {name: round(row["min_ade"], 3) for name, row in result["by_family"].items()}
    if driven:
        own = range(FIRST_DRIVEN, FIRST_DRIVEN + driven)[group.rank :: group.size]
        mine["rows"] = driven_by(Learner(model, vocabulary), own, setting)
    parts = [mine] * group.size
    if group.size > 1:
        dist.all_gather_object(parts, mine)
    rows = sorted((row for part in parts for row in part["rows"]), key=lambda row: row["seed"])
    found: dict[str, Any] = {"open": {t0: part["open"][t0] for t0 in MOMENTS for part in parts if t0 in part["open"]}}
    found["mean"] = {key: round(sum(one[key] for one in found["open"].values()) / len(MOMENTS), 4) for key in OPEN}
    found["closed"] = summary(rows)
    found["by_family"] = {name: summary([row for row in rows if row["family"] == name]) for name in sorted({r["family"] for r in rows})}
    found["failures"] = [row for row in rows if row["score"] == 0 or row["red_light_run"] or row["stop_sign_run"]]
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over scenes."""
    return {key: round(sum(float(row[key]) for row in rows) / len(rows), 4) for key in CLOSED if rows} | {"scenes": len(rows)}


def table(found: dict[str, dict[str, Any]]) -> str:
    """The models side by side, the one before first."""
    models = [found[name] for name in ("before", "after") if name in found]

    def cells(values: Sequence[Sequence[float]]) -> str:
        return "".join(f"{' -> '.join(f'{value:.3f}' for value in some):>20}" for some in values)

    lines = [f"{'open loop, t0 s':<18}" + "".join(f"{key:>20}" for key in OPEN)]
    for name in (*MOMENTS, "mean"):
        rows = [one["mean"] if name == "mean" else one["open"][name] for one in models]
        lines.append(f"{name!s:<18}" + cells([[row[key] for row in rows] for key in OPEN]))
    lines.append(f"{'closed loop':<18}" + "".join(f"{key:>20}" for key in CLOSED[:6]))
    for name in ("all", *models[0]["by_family"]):
        rows = [one["closed"] if name == "all" else one["by_family"][name] for one in models]
        if rows[0]["scenes"]:
            lines.append(f"{name:<18}" + cells([[row[key] for row in rows] for key in CLOSED[:6]]))
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=5.5)
    options.add_argument("--from", dest="start", default="small")
    options.add_argument("--rate", type=float, default=7e-4)
    options.add_argument("--seed", type=int, default=2)
    options.add_argument("--workers", type=int, default=8, help="CPU processes per GPU that simulate scenes")
    options.add_argument("--no-compile", dest="compile", action="store_false")
    options.add_argument("--no-graphs", dest="graphs", action="store_false")
    options.add_argument("--scenes", type=int, default=64)
    options.add_argument("--driven", type=int, default=128)
    options.add_argument("--replan", type=float, default=0.2)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--before", action="store_true", help="validate the model that it began from, too")
    options.add_argument("--silent", action="store_true", help="train a model that says nothing, to see what words are worth")
    options.add_argument("--validate-only", action="store_true")
    options.add_argument("--tiny", action="store_true", help="three rounds of four scenes: a try of the script itself")
    given = options.parse_args()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if CUDA else torch.device(DEVICE)
    began, start, group = time.monotonic(), checkpoint_folder(given.start), Group.join(device)
    if not given.validate_only:
        go_on(given.out, start, given, device, group)
    group.agree(0.0, device)  # the first process has written the checkpoint
    setting, found = Setting(seconds=given.seconds, replan=given.replan), {}
    for name, folder in (("after", given.out), *([("before", start)] if given.before else [])):
        model, vocabulary = load_checkpoint(folder, device=device, dtype=torch.bfloat16 if CUDA else None)
        found[name] = judged(model, vocabulary, given.scenes, given.driven, setting, group)
        if group.rank == 0:
            write_text(given.out / "validation.json", json.dumps(found, indent=1) + "\n")
            shown = json.dumps({key: found[name][key] for key in ("mean", "closed")})
            print(f"{time.monotonic() - began:.0f} s: {name} {shown}", flush=True)
    if group.rank == 0:
        print(table(found))
        print(json.dumps(found | {"seconds": round(time.monotonic() - began, 1)}))
    if group.size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
