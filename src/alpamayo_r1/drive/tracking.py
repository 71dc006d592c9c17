"""Following a plan: linear model-predictive control over two seconds, without constraints but the car's own limits. B cars at once.

Deviations from the reference are predicted by linear models whose inputs are u_0 .. u_{N-1}, one for each tenth of a second:

    along:  s' = s + dt v,            v' = v + dt (a - a_ref),                a' = a + (1 - e^{-dt/lag}) (u - a)
    across: e' = e + dt v_ref theta,  theta' = theta + dt v_ref (k - k_ref),  k' = k + (1 - e^{-dt/lag}) (u - k)

and the inputs minimise a weighted sum of squares of deviations and of changes of the input, a linear system of N equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from alpamayo_r1.core.types import DT
from alpamayo_r1.drive.vehicle import LAG, Car

HORIZON = 20
"""Steps of 0.1 s looked ahead."""

ALONG, ACROSS, HEADING = 2.0, 1.0, 1.0
"""Weights of squared deviations in m, m and rad."""

SMOOTH_A, SMOOTH_K = 0.05, 200.0
"""Weights of squared changes of the inputs, in m/s^2 and 1/m."""

SLOW = 0.3
"""m/s below which a reference has no direction of its own: the car keeps the curvature that it has."""


@dataclass(frozen=True)
class Reference:
    """Where B cars should be: poses (B, T, 3) x, y, yaw in the world, a tenth of a second apart, from the moment of the plan on."""

    poses: torch.Tensor

    def since(self, seconds: float, steps: int) -> torch.Tensor:
        """Poses (B, steps, 3) from so many seconds after the plan on, interpolated; behind the end the last step is repeated."""
        count = self.poses.shape[1]
        at = seconds / DT + torch.arange(steps, dtype=torch.float64)
        low = at.long().clamp(0, count - 2)
        start, end = self.poses[:, low], self.poses[:, low + 1]
        step = end - start
        step = torch.cat([step[..., :2], wrapped(step[..., 2:])], -1)
        return start + (at - low)[None, :, None] * step


def wrapped(angle: torch.Tensor) -> torch.Tensor:
    """An angle between -pi and pi."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def follow(car: Car, reference: Reference, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Acceleration and curvature (B,) wanted now, `seconds` after the reference was planned."""
    poses = reference.since(seconds, HORIZON + 2)
    step = poses.diff(dim=1)
    ahead = torch.stack([poses[:, :-1, 2].cos(), poses[:, :-1, 2].sin()], -1)
    speed = (step[..., :2] * ahead).sum(-1) / DT  # (B, N + 1)
    moving = speed.abs() > SLOW
    curvature = torch.where(moving, wrapped(step[..., 2]) / (speed * DT).where(moving, torch.ones_like(speed)), car.curvature[:, None])
    acceleration = speed.diff(dim=1) / DT

    off = car.pose[:, :2] - poses[:, 0, :2]
    c, s = poses[:, 0, 2].cos(), poses[:, 0, 2].sin()
    along, across = c * off[:, 0] + s * off[:, 1], c * off[:, 1] - s * off[:, 0]
    heading = wrapped(car.pose[:, 2] - poses[:, 0, 2])

    first = torch.stack([along, car.speed - speed[:, 0], car.acceleration], -1)
    wanted_a = first_input(first, torch.ones_like(acceleration), acceleration, (ALONG, 0.0), SMOOTH_A)
    first = torch.stack([across, heading, car.curvature], -1)
    wanted_k = first_input(first, speed[:, :-1].clamp_min(SLOW), curvature[:, :-1], (ACROSS, HEADING), SMOOTH_K)
    return wanted_a, wanted_k


def first_input(first: torch.Tensor, gain: torch.Tensor, wanted: torch.Tensor, weights: tuple[float, float], smooth: float) -> torch.Tensor:
    """The first input u_0 (B,) that brings deviations p, q back: p' = p + dt g q, q' = q + dt g (r - wanted), r' = r + lag (u - r).

    first (B, 3): p, q, r now. gain g, wanted (B, N). weights: of p^2 and q^2; smooth: of the change of u beyond that of `wanted`, squared.
    """
    (rows, count), lag = wanted.shape, 1 - math.exp(-DT / LAG)
    p, q, r = first.unbind(-1)
    by_p, by_q, by_r = (torch.zeros(rows, count, dtype=first.dtype) for _ in range(3))  # how they depend on u
    change = torch.eye(count, dtype=first.dtype) - torch.eye(count, dtype=first.dtype).roll(1, 0).tril()
    target = torch.cat([r[:, None], wanted.diff(dim=1)], 1)
    hessian = smooth * (change.T @ change).repeat(rows, 1, 1)
    slope = -smooth * target @ change
    for i in range(count):
        step = DT * gain[:, i]
        p, by_p = p + step * q, by_p + step[:, None] * by_q
        q, by_q = q + step * (r - wanted[:, i]), by_q + step[:, None] * by_r
        r, by_r = (1 - lag) * r, (1 - lag) * by_r
        by_r[:, i] += lag
        for value, by, weight in ((p, by_p, weights[0]), (q, by_q, weights[1])):
            hessian += weight * by[:, :, None] * by[:, None, :]
            slope += weight * by * value[:, None]
    return torch.linalg.solve(hessian, -slope)[:, 0]
