"""The recipe of the bundled model's second training: any moment, drivers pushed off their way, and its own errors. And what it brought.

    python bench/train_small.py --out DIR [--minutes 5.5] [--from PLACE] [--scenes 64] [--silent] [--validate-only]

Goes on from the bundled weights (`--from`), or from DIR/state.pt with the minutes that are left where an earlier call was cut off. Then
both models are validated on the same unseen scenes: open loop at ten moments between 1.6 and 12 s, and closed loop. Prints a table per
part, the last line is JSON; DIR holds the checkpoint, `train.jsonl` with the curves and `validation.json`.
"""

from __future__ import annotations

from _head import DEVICE

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary, load_vocabulary
from alpamayo_r1.drive.simulation import Setting
from alpamayo_r1.drive.teach import Learner, Lessons, driven_by
from alpamayo_r1.train.loop import TrainConfig, minutes_left, train
from alpamayo_r1.train.stream import StreamConfig
from alpamayo_r1.train.validate import TEST_SEEDS, validate

MOMENTS = (1.6, 2.5, 3.5, 4.5, 5.1, 6.0, 7.5, 9.0, 10.5, 12.0)
FIRST_DRIVEN = 820_000
"""Seed of the first scene of the closed loop; the open loop has 800,000 .. to itself."""


def go_on(out: Path, start: Path, minutes: float, device: torch.device, tiny: bool, silent: bool) -> None:
    """Trains until `minutes` in all are used, those of an earlier call that was cut off counted."""
    state, left = out / "state.pt", minutes_left(out, minutes)
    if left <= 0:
        print(f"{out} has had its {minutes:g} minutes")
        return
    rate = 7e-4 * min(1.0, left / minutes / 0.67)
    config = TrainConfig(minutes=left, rate=rate, fresh=128, warmup=60, seed=2, workers=12, save_every=60)
    stream, lessons = StreamConfig(chunk=128, silent=silent), {}
    if tiny:
        config = TrainConfig(minutes=left, batch=4, fresh=4, reuse=1, pool=16, own_pool=16, warmup=2, workers=0, max_rounds=3)
        stream, lessons = StreamConfig(chunk=4, silent=silent), {"scenes": 2, "after": 0.0}
    shape = read_config(start)
    own = Lessons(shape, load_vocabulary(start / shape.vlm, shape.tokens), device, silent=silent, **lessons)
    train(out, "small", config, stream, device, resume=state if state.is_file() else start, own=own)


def judged(model: VLA, vocabulary: Vocabulary, scenes: int, driven: int, setting: Setting) -> dict[str, Any]:
    """Open loop at every moment, and closed loop."""
    seeds = range(TEST_SEEDS.start, TEST_SEEDS.start + scenes)
    keys = ("ade", "min_ade", "decision", "malformed", "steered")
    found: dict[str, Any] = {"open": {}}
    for t0 in MOMENTS:
        result = validate(model, vocabulary, seeds=seeds, batch=64, t0=t0, supersample=1)
        found["open"][t0] = {key: round(result[key], 4) for key in keys}
    found["mean"] = {key: round(sum(one[key] for one in found["open"].values()) / len(MOMENTS), 4) for key in keys}
    rows = driven_by(Learner(model, vocabulary), range(FIRST_DRIVEN, FIRST_DRIVEN + driven), setting) if driven else []
    found["closed"] = summary(rows)
    found["by_family"] = {name: summary([row for row in rows if row["family"] == name]) for name in sorted({r["family"] for r in rows})}
    found["failures"] = [row for row in rows if row["score"] == 0 or row["red_light_run"] or row["stop_sign_run"]]
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over scenes."""
    keys = ("score", "collision_at_fault", "off_road", "red_light_run", "stop_sign_run", "progress", "comfortable", "from_expert_m")
    return {key: round(sum(float(row[key]) for row in rows) / len(rows), 4) for key in keys if rows} | {"scenes": len(rows)}


def table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Both models side by side."""
    lines = [f"{'open loop, t0 s':<18}" + "".join(f"{key:>20}" for key in before["mean"])]
    for name in (*MOMENTS, "mean"):
        pair = [found["mean"] if name == "mean" else found["open"][name] for found in (before, after)]
        lines.append(f"{name!s:<18}" + "".join(f"{pair[0][key]:>11.3f} ->{pair[1][key]:>6.3f}" for key in pair[0]))
    shown = ("score", "collision_at_fault", "off_road", "red_light_run", "stop_sign_run", "progress")
    lines.append(f"{'closed loop':<18}" + "".join(f"{key:>20}" for key in shown))
    for name in ("all", *before["by_family"]):
        pair = [found["closed"] if name == "all" else found["by_family"][name] for found in (before, after)]
        if pair[0]["scenes"]:
            lines.append(f"{name:<18}" + "".join(f"{pair[0][key]:>11.3f} ->{pair[1][key]:>6.3f}" for key in shown))
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=5.5)
    options.add_argument("--from", dest="start", default="small")
    options.add_argument("--scenes", type=int, default=64)
    options.add_argument("--driven", type=int, default=128)
    options.add_argument("--replan", type=float, default=0.2)
    options.add_argument("--seconds", type=float, default=10.0)
    options.add_argument("--silent", action="store_true", help="train a model that says nothing, to see what words are worth")
    options.add_argument("--validate-only", action="store_true")
    options.add_argument("--tiny", action="store_true", help="three rounds of four scenes: a try of the script itself")
    given = options.parse_args()
    device, began, start = torch.device(DEVICE), time.monotonic(), checkpoint_folder(given.start)
    if not given.validate_only:
        go_on(given.out, start, given.minutes, device, given.tiny, given.silent)
    setting, found = Setting(seconds=given.seconds, replan=given.replan), {}
    for name, folder in (("after", given.out), ("before", start)):
        model, vocabulary = load_checkpoint(folder, device=device, dtype=torch.bfloat16 if device.type == "cuda" else None)
        found[name] = judged(model, vocabulary, given.scenes, given.driven, setting)
        write_text(given.out / "validation.json", json.dumps(found, indent=1) + "\n")
        print(f"{time.monotonic() - began:.0f} s: {name} {json.dumps({key: found[name][key] for key in ('mean', 'closed')})}", flush=True)
    print(table(found["before"], found["after"]))
    print(json.dumps(found | {"seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
