"""A sample and its plan -> the row that is kept: figures of the plan and of the baselines, words, verdicts, paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from alpamayo_r1.core.geometry import rot_z, yaw_of
from alpamayo_r1.core.types import Plan, Sample, Trajectory
from alpamayo_r1.metrics import paths as metrics
from alpamayo_r1.metrics.baselines import BASELINES
from alpamayo_r1.metrics.choice import choose_sample
from alpamayo_r1.metrics.consistency import parse, verdict
from alpamayo_r1.metrics.paths import advance

HORIZONS = (0.5, 1.0, 3.0, 5.0, 6.4)
SHORT = {"constant_velocity": "cv", "constant_turn_rate_and_acceleration": "ctra"}
"""Baseline -> prefix of its columns."""

PATH_SCORES = (
    "min_ade",
    "ade",
    *(f"min_ade_{h:g}s" for h in HORIZONS),
    *(f"ade_{h:g}s" for h in HORIZONS),
    "min_fde",
    "fde",
    "miss",
    "corner_distance",
    "heading_error",
    "longitudinal",
    "lateral",
    "jerk",
    "violations",
)
"""Figures of any set of paths, plan or baseline."""

WORD_SCORES = ("words", "malformed", "consistent", "inconsistent", "unclear")
SURROUNDINGS = ("speed", "curvature")
SCORES = (*PATH_SCORES, "spread", *WORD_SCORES, *(f"{short}_{name}" for short in SHORT.values() for name in PATH_SCORES), *SURROUNDINGS)
TIMINGS = ("load_ms", "wait_ms", "plan_ms", "total_ms")

UNITS = {
    **{name: "m" for name in PATH_SCORES},
    "miss": "share",
    "heading_error": "rad",
    "longitudinal": "m/s²",
    "lateral": "m/s²",
    "jerk": "m/s³",
    "violations": "share",
    "spread": "m",
    "words": "words",
    "malformed": "share",
    "consistent": "share",
    "inconsistent": "share",
    "unclear": "share",
}


def score(sample: Sample, plan: Plan) -> dict[str, Any]:
    """The figures of one plan: SCORES as floats (NaN: masked), words, verdicts, paths. Deterministic: no durations."""
    history, future = sample.observation.history, sample.future
    verdicts = [verdict(text, xyz, history) for text, xyz in zip(plan.reasoning, plan.xyz)]
    length, width, height = (float(sample.car[name]) for name in ("length", "width", "height"))
    size = length, width, height
    choice = choose_sample(plan.xyz, None if future is None else future.xyz)
    row: dict[str, Any] = {
        "source": sample.meta.get("source"),
        "reasoning": list(plan.reasoning),
        "ended": list(plan.ended),
        "verdict": verdicts,
        "notes": sorted({note.code for note in sample.notes + plan.notes}),
        "decision": decision(plan.reasoning),
        "chosen": choice.sample,
        "chosen_by": choice.by,
        "known_steps": 0 if future is None else int(future.xyz[:, :2].isfinite().all(-1).sum()),
        "pred_xyz": plan.xyz.float().flatten().tolist(),
        "pred_yaw": yaw_of(plan.rot).float().flatten().tolist(),
        "gt_xyz": None if future is None else future.xyz.float().flatten().tolist(),
        "spread": metrics.spread(plan.xyz.double()).value.item(),
        "words": _mean([len(text.split()) for text in plan.reasoning]),
        "malformed": _mean([not (ended and text.strip()) for text, ended in zip(plan.reasoning, plan.ended)]),
        **{kind: _mean([v == kind for v in verdicts]) for kind in ("consistent", "inconsistent", "unclear")},
        **surroundings(history, future),
        **path_scores(plan.xyz, plan.rot, future, size),
    }
    row["sample_ade"] = None if future is None else metrics.ade(plan.xyz.double(), future.xyz.double()).value.tolist()
    for name, baseline in BASELINES.items():
        path = baseline(history)
        row |= {f"{SHORT[name]}_{k}": v for k, v in path_scores(path.xyz[None], path.rot[None], future, size).items()}
    return row


def path_scores(xyz: torch.Tensor, rot: torch.Tensor, future: Trajectory | None, size: tuple[float, float, float]) -> dict[str, float]:
    """PATH_SCORES of S paths xyz [S, F, 3], rot [S, F, 3, 3]; the best sample where one is meant. Without a future those are NaN."""
    xyz, rot = xyz.double(), rot.double()
    truth = torch.full_like(xyz[0], torch.nan) if future is None else future.xyz.double()
    truth_rot = torch.full_like(rot[0], torch.nan) if future is None else future.rot.double()
    best = int(metrics.best_sample(xyz, truth))
    errors, ends = metrics.ade(xyz, truth), metrics.fde(xyz, truth)
    steps = {f"{h:g}s": round(h / metrics.DT) for h in HORIZONS}
    feel = metrics.comfort(xyz[best], rot[best])
    found = {
        "min_ade": metrics.min_ade(xyz, truth).value.item(),
        "ade": errors.mean(),
        **{f"min_ade_{h:g}s": m.value.item() for h, m in metrics.ade_by_horizon(xyz, truth, HORIZONS).items()},
        **{f"ade_{name}": metrics.ade(xyz[:, :n], truth[:n]).mean() for name, n in steps.items()},
        "min_fde": metrics.min_fde(xyz, truth).value.item(),
        "fde": ends.mean(),
        "miss": metrics.miss(xyz, truth).value.item(),
        "corner_distance": metrics.corner_distance(xyz, rot, truth, truth_rot, size).value.item(),
        "heading_error": metrics.heading_error(rot, truth_rot).value[best].item(),
        "longitudinal": feel.longitudinal.value.item(),
        "lateral": feel.lateral.value.item(),
        "jerk": feel.jerk.value.item(),
        "violations": metrics.violations(xyz[best], rot[best]).value.item(),
    }
    return found


def surroundings(history: Trajectory, future: Trajectory | None) -> dict[str, float]:
    """Speed at t0 in m/s, below 0 for a reversing car, and how much the road that was driven bends: |turn| / length in 1/m.

    The curvature is NaN without a future, and below 5 m.
    """
    found = {"speed": advance(history.xyz[-3:], history.rot[-3:]).mean().item() / history.dt, "curvature": float("nan")}
    if future is not None:
        known = future.xyz[:, :2].isfinite().all(-1) & future.rot.isfinite().flatten(1).all(1)
        xy, rot = future.xyz[known, :2].double(), future.rot[known]
        length = xy.diff(dim=0).norm(dim=-1).sum().item()
        if length > 5:
            found["curvature"] = abs(yaw_of(rot[-1].double()).item()) / length
    return found


def decision(texts: Sequence[str]) -> str:
    """What most samples say they do, in the words of consistency.INTENTS ("+" between two), "none" where nothing is recognised."""
    said = Counter("+".join(parse(text)) or "none" for text in texts)
    return min(said, key=lambda word: (-said[word], word))


def as_plan(row: dict[str, Any], timing: dict[str, float]) -> Plan:
    """The plan that a row tells of, without actions and tokens."""
    samples = len(row["reasoning"])
    xyz = torch.tensor(row["pred_xyz"]).reshape(samples, -1, 3)
    rot = rot_z(torch.tensor(row["pred_yaw"]).reshape(samples, -1))
    return Plan(xyz, rot, tuple(row["reasoning"]), xyz.new_zeros(*xyz.shape[:2], 2), tuple(row["ended"]), timing)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
