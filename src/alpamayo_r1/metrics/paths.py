"""How good a plan is. Each function returns a Metric: the value, and where it means something.

pred is [..., S, F, 3], truth [..., F, 3], in metres, any leading dimensions, float32 or float64. Distances are in the ground plane (xy)
unless said otherwise. A truth that is not a number at a step masks that step; a sample that is not a number at a step that counts is no
candidate. Where nothing is left, the value is NaN and valid is False.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.core.config import ActionConfig
from alpamayo_r1.core.gate.values import check_real, check_tensors
from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.types import DT

HORIZONS = (0.5, 1.0, 3.0, 5.0)
"""Seconds at which ade_by_horizon averages."""

BOUNDS = ActionConfig()
"""The released action space, whose bounds `violations` counts against."""

MISS_M = 2.0
"""A plan whose best end point is farther off than this misses."""


@dataclass(frozen=True)
class Metric:
    """Values of any shape, NaN where not valid (bool, same shape)."""

    value: torch.Tensor
    valid: torch.Tensor

    def mean(self) -> float:
        """Mean over the valid values, NaN if there are none."""
        return self.value[self.valid].mean().item()

    @property
    def invalid(self) -> int:
        """How many values are masked."""
        return int((~self.valid).sum())


def ade(pred: torch.Tensor, truth: torch.Tensor) -> Metric:
    """Average displacement error of each sample: mean over the steps of the distance, [..., S]."""
    return _mean(*_distance(pred, truth))


def min_ade(pred: torch.Tensor, truth: torch.Tensor) -> Metric:
    """Average displacement error of the best sample, [...]."""
    return _min(ade(pred, truth))


def best_sample(pred: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Index i64[...] of the sample with the smallest ADE over all steps; 0 where none is valid."""
    error = ade(pred, truth)
    return error.value.masked_fill(~error.valid, torch.inf).argmin(-1)


def ade_by_horizon(
    pred: torch.Tensor, truth: torch.Tensor, horizons: Sequence[float] = HORIZONS, *, dt: float = DT
) -> Mapping[float, Metric]:
    """seconds -> ADE [...] up to that time of the sample that is best over *all* steps; not valid where the path is shorter than that."""
    distance, counts = _distance(pred, truth)
    best = best_sample(pred, truth)[..., None, None]
    check_real("dt", dt, 1e-6, 3600)
    distance, counts = (t.take_along_dim(best, -2)[..., 0, :] for t in (distance, counts))
    steps = {horizon: round(horizon / dt) for horizon in horizons}
    return {horizon: _mean(distance[..., :n], counts[..., :n] & (n <= distance.shape[-1])) for horizon, n in steps.items()}


def fde(pred: torch.Tensor, truth: torch.Tensor) -> Metric:
    """Final displacement error of each sample: distance at the last step, [..., S]."""
    check_pair(pred, truth)
    return _mean(*_distance(pred[..., -1:, :], truth[..., -1:, :]))


def min_fde(pred: torch.Tensor, truth: torch.Tensor) -> Metric:
    """Final displacement error of the sample that ends nearest, [...]."""
    return _min(fde(pred, truth))


def miss(pred: torch.Tensor, truth: torch.Tensor, threshold: float = MISS_M) -> Metric:
    """1 where no sample ends within `threshold` metres of the truth, else 0, [...]; its mean is the miss rate."""
    check_real("threshold", threshold, 0, 1e9)
    nearest = min_fde(pred, truth)
    return _masked((nearest.value > threshold).to(pred.dtype), nearest.valid)


def corner_distance(
    pred: torch.Tensor, pred_rot: torch.Tensor, truth: torch.Tensor, truth_rot: torch.Tensor, size: tuple[float, float, float]
) -> Metric:
    """Distance in 3-D between the 8 corners of the car's box, the best sample at each step and corner, averaged, [...].

    size is (length, width, height) in metres, the box is centred on the pose. pred_rot [..., S, F, 3, 3], truth_rot [..., F, 3, 3].
    """
    check_pair(pred, truth)
    check_tensors(pred_rot=(pred_rot, (-1, -1, 3, 3)), truth_rot=(truth_rot, (-1, 3, 3)))
    planned, driven = _corners(pred, pred_rot, size), _corners(truth, truth_rot, size)[..., None, :, :, :]
    distance = (planned - driven).norm(dim=-1)  # (..., S, F, 8)
    counts = driven.isfinite().all(-1).expand_as(distance)
    usable = (distance.isfinite() | ~counts).flatten(-2).all(-1)[..., None, None]
    nearest = distance.masked_fill(~(counts & usable), torch.inf).amin(-3).flatten(-2)
    return _mean(nearest, nearest.isfinite())


def heading_error(pred_rot: torch.Tensor, truth_rot: torch.Tensor) -> Metric:
    """Mean absolute difference of yaw of each sample, radians in [0, pi], [..., S]."""
    check_tensors(pred_rot=(pred_rot, (-1, -1, 3, 3)))
    check_tensors(truth_rot=(truth_rot, (pred_rot.shape[-3], 3, 3)))
    planned, driven = yaw_of(pred_rot), yaw_of(truth_rot)[..., None, :]
    difference = torch.remainder(planned - driven + torch.pi, 2 * torch.pi) - torch.pi
    return _mean(difference.abs(), driven.isfinite().expand_as(difference))


@dataclass(frozen=True)
class Comfort:
    """Peaks over a path [...]: |longitudinal| and |lateral| acceleration in m/s^2, |jerk| in m/s^3."""

    longitudinal: Metric
    lateral: Metric
    jerk: Metric


def comfort(xyz: torch.Tensor, rot: torch.Tensor, dt: float = DT) -> Comfort:
    """What a passenger feels, by differences of the path, along and across the car's axis. xyz [..., T, 3], rot [..., T, 3, 3], T >= 4."""
    check_motion(xyz, rot, dt, 4)
    acceleration = xyz[..., :2].diff(n=2, dim=-2) / dt**2
    forward = torch.nn.functional.normalize(rot[..., 1:-1, :2, 0], dim=-1)
    along = (acceleration * forward).sum(-1)
    across = acceleration[..., 1] * forward[..., 0] - acceleration[..., 0] * forward[..., 1]
    jerk = xyz[..., :2].diff(n=3, dim=-2).norm(dim=-1) / dt**3
    return Comfort(*(_peak(v) for v in (along, across, jerk)))


def violations(xyz: torch.Tensor, rot: torch.Tensor, dt: float = DT) -> Metric:
    """Share of the steps at which a path leaves the bounds of the action space, [...]: acceleration along the path, or turn a metre.

    xyz [..., T, 3], rot [..., T, 3, 3], T >= 3. A turn counts above 1 m/s only: of a car that stands it is rounding.
    """
    check_motion(xyz, rot, dt, 3)
    length = advance(xyz, rot)
    acceleration = length.diff(dim=-1) / dt**2
    turn = torch.remainder(yaw_of(rot).diff(dim=-1) + torch.pi, 2 * torch.pi) - torch.pi
    moving = length.abs().clamp_min(1e-9)
    bend = (turn / moving).masked_fill(moving < dt, 0)[..., 1:]
    out = (acceleration.abs() > BOUNDS.accel_bounds[1]) | (bend.abs() > BOUNDS.curvature_bounds[1])
    return _mean(out.to(xyz.dtype), (acceleration.isfinite() & bend.isfinite()))


def advance(xyz: torch.Tensor, rot: torch.Tensor) -> torch.Tensor:
    """Metres of each step, below 0 where the car moves against its x axis: [..., T, 3], [..., T, 3, 3] -> f64[..., T - 1]."""
    step, axis = xyz[..., :2].double().diff(dim=-2), rot[..., :2, 0].double()
    forward = (step * (axis[..., 1:, :] + axis[..., :-1, :])).sum(-1) >= 0
    return step.norm(dim=-1) * torch.where(forward, 1.0, -1.0)


def spread(pred: torch.Tensor) -> Metric:
    """How far the samples lie apart: root mean square distance from their mean at each step, averaged over the steps, [...]; 0 for one."""
    check_tensors(pred=(pred, (-1, -1, 3)))
    usable = pred[..., :2].isfinite().flatten(-2).all(-1)[..., None, None]
    xy = pred[..., :2].masked_fill(~usable, 0)
    count = usable.sum(-3, keepdim=True).clamp_min(1)
    away = (xy - xy.sum(-3, keepdim=True) / count).masked_fill(~usable, 0)
    step = (away.square().sum((-3, -1)) / count[..., 0, 0]).sqrt()
    return _mean(step, usable.any(-3).squeeze(-1).expand_as(step))


def check_pair(pred: torch.Tensor, truth: torch.Tensor) -> None:
    """Raises TypeError, ValueError unless these are floating-point paths [..., S, F, 3] and [..., F, 3] of one length."""
    check_tensors(pred=(pred, (-1, -1, 3)), truth=(truth, (-1, 3)))
    check_tensors(truth=(truth, (pred.shape[-2], 3)))
    if pred.shape[-3] == 0:
        raise ValueError(f"pred has shape {tuple(pred.shape)}: expected at least one sample")


def check_motion(xyz: torch.Tensor, rot: torch.Tensor, dt: float, least: int) -> None:
    """Raises TypeError, ValueError unless these are a path [..., T, 3] of so many steps at least, its rotations, and their time step."""
    check_tensors(xyz=(xyz, (-1, 3)))
    check_tensors(rot=(rot, (xyz.shape[-2], 3, 3)))
    check_real("dt", dt, 1e-6, 3600)
    if xyz.shape[-2] < least:
        raise ValueError(f"xyz has shape {tuple(xyz.shape)}: expected at least {least} steps")


def _distance(pred: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance in xy [..., S, T] and which steps the truth is known for."""
    check_pair(pred, truth)
    distance = (pred - truth[..., None, :, :])[..., :2].norm(dim=-1)
    return distance, truth[..., None, :, :2].isfinite().all(-1).expand_as(distance)


def _mean(value: torch.Tensor, counts: torch.Tensor) -> Metric:
    """Mean over the last axis where counts; not valid where nothing counts or something that counts is no number."""
    total, number = value.masked_fill(~counts, 0).sum(-1), counts.sum(-1)
    return _masked(total / number, total.isfinite() & (number > 0))


def _min(metric: Metric) -> Metric:
    """Smallest valid value over the samples."""
    value = metric.value.masked_fill(~metric.valid, torch.inf).amin(-1)
    return _masked(value, metric.valid.any(-1))


def _peak(value: torch.Tensor) -> Metric:
    peak = value.abs().amax(-1)
    return _masked(peak, peak.isfinite())


def _masked(value: torch.Tensor, valid: torch.Tensor) -> Metric:
    return Metric(value.masked_fill(~valid, torch.nan), valid)


def _corners(xyz: torch.Tensor, rot: torch.Tensor, size: tuple[float, float, float]) -> torch.Tensor:
    """Corners of a box centred on each pose: [..., T, 3], [..., T, 3, 3] -> [..., T, 8, 3]."""
    half = torch.tensor(size, dtype=xyz.dtype, device=xyz.device) / 2
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=xyz.dtype, device=xyz.device)] * 3)
    return xyz[..., None, :] + (signs * half) @ rot.transpose(-1, -2)
