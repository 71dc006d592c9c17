"""The car that follows a plan: a kinematic bicycle whose accelerator and steering lag and have limits. B cars at once.

    delta' = (delta_wanted - delta) / lag,   a' = (a_wanted - a) / lag,   v' = a,   yaw' = v tan(delta) / wheelbase

The reference point is the centre of the rear axle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

WHEELBASE = 2.85
"""Metres."""

LAG = 0.1
"""Seconds after which 63 % of a wanted acceleration or steering angle is there."""

ACCELERATION = (-8.0, 6.0)
"""m/s^2 that may be wanted."""

STEERING = math.radians(45)
"""Largest steering angle."""

SUBSTEP = 0.01
"""Seconds that the motion is integrated over at a time."""


@dataclass(frozen=True)
class Car:
    """The state of B cars, f64."""

    pose: torch.Tensor  # (B, 3) x, y, yaw
    speed: torch.Tensor  # (B,) m/s, never below 0
    acceleration: torch.Tensor  # (B,) m/s^2
    curvature: torch.Tensor  # (B,) 1/m

    def after(self, acceleration: torch.Tensor, curvature: torch.Tensor, seconds: float) -> Car:
        """The cars some time later, for a wanted acceleration m/s^2 and curvature 1/m (B,) held meanwhile."""
        wanted_a = acceleration.clamp(*ACCELERATION)
        wanted_angle = (WHEELBASE * curvature).atan().clamp(-STEERING, STEERING)
        (x, y, yaw), v, a = self.pose.unbind(-1), self.speed, self.acceleration
        angle = (WHEELBASE * self.curvature).atan()
        keep = math.exp(-SUBSTEP / LAG)
        for _ in range(round(seconds / SUBSTEP)):
            a, angle = wanted_a + keep * (a - wanted_a), wanted_angle + keep * (angle - wanted_angle)
            faster = (v + a * SUBSTEP).clamp_min(0)
            travelled = (v + faster) / 2 * SUBSTEP
            turn = angle.tan() / WHEELBASE * travelled
            x, y = x + travelled * (yaw + turn / 2).cos(), y + travelled * (yaw + turn / 2).sin()
            yaw, v = yaw + turn, faster
        a = torch.where(v > 0, a, a.clamp_min(0))
        return Car(torch.stack([x, y, yaw], -1), v, a, angle.tan() / WHEELBASE)
