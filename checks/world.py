"""The world's promises over many seeds: no collisions, no infeasible actions, no history that the gate refuses or notes, one label per
family at t0, and how fast scenes are made.

python checks/world.py --scenes 2000
"""

from __future__ import annotations

import _head  # noqa: F401

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator

import torch

from alpamayo_r1.core.action import initial_speed, to_action, to_trajectory
from alpamayo_r1.core.config import ActionConfig
from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.types import Trajectory
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.language import labels
from alpamayo_r1.world.samples import paths
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import collisions, infeasible, simulate


def check(first: int, scenes: int, batch: int = 500) -> dict[str, object]:
    """Figures over the scenes of seeds first .. first + scenes - 1."""
    collided = unfeasible = histories = 0
    stopped: Counter[str] = Counter()
    seconds, worst = 0.0, 0.0
    said: Counter[str] = Counter()
    for start in range(first, first + scenes, batch):
        began = time.perf_counter()
        scene = simulate(range(start, min(start + batch, first + scenes)))
        seconds += time.perf_counter() - began
        collided += int(collisions(scene).any(1).sum())
        unfeasible += int(infeasible(scene).any(1).sum())
        gate = Counter(gated(scene))
        histories, stopped = histories + gate.total(), stopped + gate
        said.update(f"{label.family}: {label.decision}/{label.cause}" for label in labels(scene, T0_STEP))
        worst = max(worst, round_trip(scene))
    return {
        "scenes": scenes,
        "with a collision": collided,
        "with an infeasible action": unfeasible,
        "histories at the gate": histories,
        "refused or noted there": {words: count for words, count in stopped.items() if words != "passed"},
        "scenes per second": round(scenes / seconds),
        "largest ADE of encode and decode, m": round(worst, 4),
        "labels at t0": dict(sorted(said.items())),
    }


def gated(scene: SceneBatch) -> Iterator[str]:
    """What the gate says of every scene's histories at 14 moments from 1.6 to 12 s: "passed", codes of notes, or the error."""
    for step in range(16, 121, 8):
        at = paths(scene, torch.full((len(scene.seeds),), step))
        for xyz, rot in zip(at.history_xyz, at.history_rot, strict=True):
            try:
                yield ", ".join(note.code for note in check_history(Trajectory(xyz, rot))) or "passed"
            except ValueError as error:
                yield str(error)[:60]


def round_trip(scene) -> float:
    """Largest ADE between driven futures and the same through actions and back, m: what the action space itself costs."""
    at = paths(scene, torch.full((len(scene.seeds),), T0_STEP))
    history, future = Trajectory(at.history_xyz, at.history_rot), Trajectory(at.future_xyz, at.future_rot)
    config = ActionConfig()
    v0 = initial_speed(history, config)
    back = to_trajectory(to_action(history, future, config), v0, torch.zeros_like(v0), config.dt)
    return (back.xyz - future.xyz)[..., :2].norm(dim=-1).mean(-1).max().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="first seed; below 900,000")
    given = parser.parse_args()
    print(json.dumps(check(given.first, given.scenes), indent=2))
