"""What cannot be known at a moment of a scene: the error of the expert against itself under what can still happen.

    python bench/floor.py [--scenes 2800] [--draws 24]

Until 5.1 s a scene may still turn: a light turns green, a lead brakes or pulls away, a vehicle cuts in, each at a time that nothing shows
before. For moments before that, those times are drawn again among those that are still to come, as the family draws them, and the expert
drives each. The floor of minADE_6 is that of six such futures; of ADE that of one. Who plans so would know everything else, the family too:
no model can do better, on average, and less than this is luck. From 5.1 s on nothing is left to chance and the floor is 0.
Prints a table by moment and family; the last line is JSON.
"""

from __future__ import annotations

import _head  # noqa: F401

import argparse
import json
from dataclasses import replace

import numpy as np
import torch

from alpamayo_r1.core.geometry import rot_z, to_frame
from alpamayo_r1.world import families as fam
from alpamayo_r1.world.expert import Expert, drive
from alpamayo_r1.world.families import FAMILIES, LEAD, SECOND, T0, Script
from alpamayo_r1.world.scene import DT
from alpamayo_r1.world.simulate import Stage, set_stage, staged

MOMENTS = (1.6, 2.5, 3.5, 4.5, 5.1, 6.0, 7.5, 9.0, 10.5, 12.0)
FIRST_SEED = 800_000


def again(script: Script, family: np.ndarray, now: float, draw: np.random.Generator) -> Script:
    """The script with the times that are still to come drawn again, given that they are."""
    motion = replace(script.motion, t_change=script.motion.t_change.copy(), t_shift=script.motion.t_shift.copy())
    green, lead_from = script.green_from.copy(), script.lead_from.copy()

    def later(name: str, old: np.ndarray, nearest: float, farthest: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a family whose event at `old` is to come, and its new time: T0 - farthest .. T0 - nearest, but after now."""
        rows = np.flatnonzero((family == FAMILIES.index(name)) & (old > now))
        return rows, draw.uniform(max(T0 - farthest, now), max(T0 - nearest, now), len(rows))

    rows, times = later("lead_brakes", script.motion.t_change[:, LEAD], 0.3, 1.0)
    motion.t_change[rows, LEAD] = times
    rows, times = later("pull_away", script.motion.t_change[:, LEAD], 0.5, 1.5)
    hidden = script.motion.t_change[rows, SECOND] > now
    motion.t_change[rows[hidden], LEAD], motion.t_change[rows[hidden], SECOND] = times[hidden], times[hidden] - 1.0
    rows, times = later("cut_in", script.motion.t_shift[:, LEAD], 0.38 * fam.LANE_CHANGE, 0.58 * fam.LANE_CHANGE)
    motion.t_shift[rows, LEAD], lead_from[rows] = times, times + 0.3 * fam.LANE_CHANGE
    rows, times = later("green_light", script.green_from, 0.2, 0.9)
    green[rows] = times
    return replace(script, motion=motion, green_from=green, lead_from=lead_from)


def futures(stage: Stage, script: Script, step: int) -> torch.Tensor:
    """The expert's paths (B, 64, 2) from a step on, in its frame there."""
    played = staged(script, stage.start, stage.way, stage.s.shape[1])
    poses, _, _ = drive(Expert(script, stage.start, np.zeros(len(stage.start), np.int64)), *played.lead(), step + 65)
    pose = torch.from_numpy(poses[:, step:])
    xyz = torch.cat([pose[..., :2], torch.zeros_like(pose[..., :1])], -1)
    rot = rot_z(pose[..., 2])
    return to_frame(xyz, rot, xyz[:, 0], rot[:, 0])[0][:, 1:, :2]


def floor(scenes: int, draws: int, moment: float) -> dict[str, tuple[float, float]]:
    """Floors of ADE and minADE_6 by family, and over all."""
    step, seeds = round(moment / DT), np.arange(FIRST_SEED, FIRST_SEED + scenes)
    stage, family = set_stage(seeds, moment), fam.family_of(seeds)
    truth = futures(stage, stage.script, step)
    draw = np.random.default_rng(step)
    one = torch.stack(
        [(futures(stage, again(stage.script, family, moment, draw), step) - truth).norm(dim=-1).mean(1) for _ in range(draws)]
    )
    best = torch.stack([six.amin(0) for six in one.split(6) if len(six) == 6]).mean(0)
    mean = one.mean(0)
    by = {name: family == i for i, name in enumerate(FAMILIES)} | {"all": np.ones(scenes, bool)}
    return {name: (float(mean[rows].mean()), float(best[rows].mean())) for name, rows in by.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--scenes", type=int, default=2800)
    options.add_argument("--draws", type=int, default=24)
    given = options.parse_args()
    found = {}
    for moment in MOMENTS:
        found[moment] = floor(given.scenes, given.draws if moment < T0 else 6, moment)
        shown = {name: f"{a:.3f} / {m:.3f}" for name, (a, m) in found[moment].items() if a > 0.0005 or name == "all"}
        print(f"{moment:5.1f} s  ADE / minADE_6: {shown}", flush=True)
    mean = [sum(one["all"][i] for one in found.values()) / len(found) for i in (0, 1)]
    print(f"mean over moments: ADE {mean[0]:.3f}, minADE_6 {mean[1]:.3f}")
    print(json.dumps({"floors": found, "mean": mean}))


if __name__ == "__main__":
    main()
