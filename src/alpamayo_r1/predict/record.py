"""One prediction as a JSON record: the plan, the truth, the errors, the baselines, the time it took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1.core.files import write_text
from alpamayo_r1.core.types import Plan, Sample, Trajectory
from alpamayo_r1.data.notices import notice
from alpamayo_r1.metrics import paths as metrics
from alpamayo_r1.metrics.baselines import BASELINES
from alpamayo_r1.metrics.choice import choose_sample


def result(sample: Sample, plan: Plan, seed: int | None, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record of one plan, plain Python throughout; errors are None where the future isn't known.

    request: what else was asked for, as plain values; "reasoning" in it says that the words were given. reasoning [S], ended [S]: which
    rows ended as they should. chosen: {"sample" from 0, "by": "truth", "first" or "only"}, what a page draws boldly. actions [S][64][2] in
    m/s^2 and 1/m, pred_xyz [S][64][3], pred_rot [S][64][3][3], gt_xyz [64][3], min_ade and mean_ade (of all samples) in m,
    ade_by_horizon {"0.5": m, ...}, baselines {name: ADE in m}, timing_ms {stage: ms},
    notes [{"code", "text"}] of the sample and the plan.
    """
    future, source = sample.future, sample.meta.get("source")
    return {
        "clip_id": sample.clip_id,
        "t0_us": sample.observation.t0_us,
        "seed": seed,
        "request": dict(request or {}),
        "reasoning": list(plan.reasoning),
        "ended": list(plan.ended),
        "chosen": asdict(choose_sample(plan.xyz, None if future is None else future.xyz)),
        "pred_xyz": _numbers(plan.xyz),
        "pred_rot": _numbers(plan.rot),
        "actions": _numbers(plan.actions),
        "gt_xyz": None if future is None else _numbers(future.xyz),
        "min_ade": None if future is None else _number(metrics.min_ade(plan.xyz, future.xyz).value),
        "mean_ade": None if future is None else _number(torch.tensor(metrics.ade(plan.xyz, future.xyz).mean())),
        "ade_by_horizon": None if future is None else _horizons(plan.xyz, future),
        "baselines": {name: _baseline(drive(sample.observation.history), future) for name, drive in BASELINES.items()},
        "timing_ms": {stage: round(float(ms), 3) for stage, ms in plan.timing.items()},
        "notes": [asdict(note) for note in dict.fromkeys((*sample.notes, *plan.notes))],
        "source": source,
        "notice": notice(source),
    }


def write_result(record: Mapping[str, Any], path: str | Path) -> Path:
    """Writes the record as JSON: the file is there whole or not at all. Returns its path."""
    return write_text(path, json.dumps(record, allow_nan=False) + "\n")


def _horizons(pred: torch.Tensor, future: Trajectory) -> dict[str, float | None]:
    return {f"{t:g}": _number(m.value) for t, m in metrics.ade_by_horizon(pred, future.xyz, dt=future.dt).items()}


def _baseline(path: Trajectory, future: Trajectory | None) -> float | None:
    return None if future is None else _number(metrics.min_ade(path.xyz[None], future.xyz).value)


def _number(value: torch.Tensor) -> float | None:
    number = value.item()
    return round(number, 6) if math.isfinite(number) else None


def _numbers(value: Any) -> Any:
    """A tensor or a number as nested lists, micrometre precision, None for what is not a number."""
    if isinstance(value, torch.Tensor):
        value = value.detach().double().cpu().tolist()
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return round(value, 6) if math.isfinite(value) else None
