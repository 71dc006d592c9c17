"""The recipe of the bundled Alpamayo 1.5: begun with the small model's weights, trained to plan with navigation, without, and to answer.

    [torchrun --nproc-per-node N] python bench/train_small15.py --out DIR [--minutes 5.5] [--from PLACE] [--scenes 144] [--driven 48]

Begins with the bundled small model (`--from`), or goes on from DIR/state.pt with the minutes that are left where an earlier call was cut
off. Then validates: routes told, swapped and guided; answers by kind; open loop beside the model it began with, on the scenes that both
know; closed loop at junctions with the route as text. The first two processes share that. Prints a table per part, the last line is JSON;
DIR holds the checkpoint, `train.jsonl` with the curves and `validation.json`.
"""

from __future__ import annotations

from _head import CUDA, DEVICE

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.drive.simulation import Setting
from alpamayo_r1.drive.teach import Learner, driven_by
from alpamayo_r1.train import following, material, validate
from alpamayo_r1.train.following import validate_answers, validate_routes
from alpamayo_r1.train.loop import TrainConfig, budget_left
from alpamayo_r1.train.mixed import train_mixed
from alpamayo_r1.train.step import Group
from alpamayo_r1.train.stream import StreamConfig
from alpamayo_r1.world.richer import RICHER

MOMENTS = (2.5, 5.1, 9.0)
"""Seconds at which both models are compared open loop."""

RATE = 1e-3
"""The learning rate at its peak."""

FIRST_DRIVEN = 824_000
"""Seed of the first scene of the closed loop."""


def teach(out: Path, start: Path, minutes: float, device: torch.device, group: Group, tiny: bool) -> None:
    """Trains until `minutes` in all are used, those of an earlier call that was cut off counted."""
    state, (left, rate) = out / "state.pt", budget_left(out, minutes, RATE, group, device)
    if left <= 0:
        print(f"{out} has had its {minutes:g} minutes")
        return
    config = TrainConfig(
        minutes=left,
        rate=rate,
        batch=96,
        fresh=128,
        reuse=4,
        pool=16384,
        warmup=150,
        seed=15,
        workers=8,
        save_every=120,
    )
    stream = StreamConfig(chunk=128, directed=0.2)
    if tiny:
        config = TrainConfig(minutes=left, batch=4, fresh=4, reuse=1, pool=16, warmup=2, workers=0, max_rounds=2)
        stream = StreamConfig(chunk=4)
    name = "tiny-1.5" if tiny else "small-1.5"
    train_mixed(out, name, config, stream, device, state if state.is_file() else None if tiny else start)


def open_loop(model: VLA, vocabulary: Vocabulary, scenes: int) -> dict[str, Any]:
    """The small model's figures at every moment, and their means."""
    keys = ("ade", "min_ade", "decision", "malformed", "steered")
    found: dict[Any, Any] = {}
    for t0 in MOMENTS:
        seeds = range(validate.TEST_SEEDS.start, validate.TEST_SEEDS.start + scenes)
        result = validate.validate(model, vocabulary, seeds=seeds, t0=t0, supersample=1)
        found[t0] = {key: round(result[key], 4) for key in keys}
    return found | {"mean": {key: round(sum(found[t0][key] for t0 in MOMENTS) / len(MOMENTS), 4) for key in keys}}


def closed_loop(model: VLA, vocabulary: Vocabulary, scenes: int, setting: Setting) -> dict[str, Any]:
    """Means by family of scenes of the richer world, driven with the route as text; all scenes at once."""
    families = [RICHER[i % len(RICHER)] for i in range(scenes)]
    rows = driven_by(Learner(model, vocabulary), range(FIRST_DRIVEN, FIRST_DRIVEN + scenes), setting, families=families)
    keys = ("score", "collision_at_fault", "off_road", "red_light_run", "stop_sign_run", "progress")
    names = {"all": rows} | {name: [row for row in rows if row["family"] == name] for name in RICHER}
    return {
        name: {key: round(sum(float(row[key]) for row in some) / len(some), 4) for key in keys} | {"scenes": len(some)}
        for name, some in names.items()
        if some
    }


def table(found: dict[str, Any]) -> str:
    """Everything as text."""
    lines = [f"{'routes':<18}{'all':>16}{'left':>16}{'right':>16}{'straight':>16}"]
    for name in ("told", "told_guided", "swapped", "swapped_guided"):
        cells = (found["routes"][name][route] for route in ("all", "left", "right", "straight"))
        lines.append(f"{name:<18}" + "".join(f"{cell['share']:>9.3f} of{cell['of']:>4}" for cell in cells))
    lines.append("answers")
    lines += [f"  {kind:<16}{cell['share']:>9.3f} of{cell['of']:>4}" for kind, cell in found["answers"]["kinds"].items()]
    lines += [f"  {n} x {kind}: {answer!r} answered {said!r}" for kind, answer, said, n in found["answers"]["wrong"][:8]]
    if "small" in found:
        lines.append("open loop: the model it began with -> this one")
        for t0, after in found["open"].items():
            lines.append(
                f"  {t0!s:<6}" + "".join(f"{key:>12}{found['small'][t0][key]:>8.3f} ->{value:>7.3f}" for key, value in after.items())
            )
    for name, row in found.get("closed", {}).items():
        lines.append(f"  closed loop {name:<20}" + "".join(f"{key:>20} {value:>7.3f}" for key, value in row.items()))
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--minutes", type=float, default=5.5)
    options.add_argument("--from", dest="start", default="small")
    options.add_argument("--scenes", type=int, default=144, help="junctions per moment; questions and open loop follow from it")
    options.add_argument("--driven", type=int, default=48)
    options.add_argument("--validate-only", action="store_true")
    options.add_argument("--tiny", action="store_true", help="two rounds of four scenes and small pictures: a try of the script itself")
    given = options.parse_args()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if CUDA else torch.device(DEVICE)
    began, start, group = time.monotonic(), checkpoint_folder(given.start), Group.join(device)
    if given.tiny:
        material.RENDER_SIZE = validate.PICTURE_SIZE = (64, 36)
    if not given.validate_only:
        teach(given.out, start, given.minutes, device, group, given.tiny)
    group.agree(0.0, device)  # the first process has written the checkpoint
    dtype = torch.bfloat16 if device.type == "cuda" else None
    model, vocabulary = load_checkpoint(given.out, device=device, dtype=dtype)
    found: dict[str, Any] = {}

    def note(name: str, value: Any) -> None:
        found[name] = value
        print(f"{time.monotonic() - began:.0f} s: {name}", flush=True)

    if group.rank == 0:
        note("routes", validate_routes(model, vocabulary, given.scenes, supersample=1))
        steps = following.MOMENTS[:1] if given.tiny else (40, 51, 75)
        note("answers", validate_answers(model, vocabulary, 3 * given.scenes, steps=steps, supersample=1))
    if group.rank == min(1, group.size - 1):
        note("open", open_loop(model, vocabulary, given.scenes // 2))
        older, words = load_checkpoint(start, device=device, dtype=dtype)
        note("small", open_loop(older, words, given.scenes // 2))
        if given.driven:
            note("closed", closed_loop(model, vocabulary, given.driven, Setting(seconds=1.0 if given.tiny else 10.0, replan=0.4)))
    if group.size > 1:
        parts: list[Any] = [None] * group.size
        dist.all_gather_object(parts, found)
        found = {name: value for part in parts for name, value in part.items()}
    if group.rank == 0:
        write_text(given.out / "validation.json", json.dumps(found, indent=1) + "\n")
        print(table(found))
        found["routes"].pop("rows")
        print(json.dumps(found | {"seconds": round(time.monotonic() - began, 1)}))
    if group.size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
