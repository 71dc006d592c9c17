"""Two drivers that extrapolate the car's own motion (the second one reads its yaw too): what any plan has to beat.

Both read the car's own motion at t0 off the last half second of the history and extrapolate it. Histories may have leading dimensions.
"""

from __future__ import annotations

import torch

from alpamayo_r1.core.geometry import rot_z, unwrap, yaw_of
from alpamayo_r1.core.types import F, Trajectory

WINDOW = 5
"""Steps of the history that the motion is read from."""

STANDING = 0.1
"""Below this speed in m/s, forwards or backwards, the car is taken to stand."""


def constant_velocity(history: Trajectory, steps: int = F) -> Trajectory:
    """Straight on along the car's axis at the speed of t0. history [..., H] -> [..., F]."""
    speed, _, _ = _motion(history)
    return _roll(history, speed, torch.zeros_like(speed), torch.zeros_like(speed), steps)


def constant_turn_rate_and_acceleration(history: Trajectory, steps: int = F) -> Trajectory:
    """On along a turn of constant rate, with constant acceleration until the car stands. history [..., H] -> [..., F]."""
    return _roll(history, *_motion(history), steps)


BASELINES = {"constant_velocity": constant_velocity, "constant_turn_rate_and_acceleration": constant_turn_rate_and_acceleration}


def _motion(history: Trajectory) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Speed m/s (below 0: the car reverses), acceleration m/s^2 and turn rate rad/s at t0, each [...]; all zero for a standing car.

    Speed is the advance along the car's axis in each step; a straight line through the last WINDOW of them is read at t0.
    """
    dt, xy, yaw = history.dt, history.xyz[..., -WINDOW - 1 :, :2], unwrap(yaw_of(history.rot[..., -WINDOW - 1 :, :, :]))
    middle = (yaw[..., 1:] + yaw[..., :-1]) / 2
    step = xy.diff(dim=-2) / dt
    speed = step[..., 0] * middle.cos() + step[..., 1] * middle.sin()
    time = (torch.arange(WINDOW, dtype=xy.dtype, device=xy.device) - (WINDOW - 0.5)) * dt  # of the middle of each step, t0 = 0
    centred = time - time.mean()
    acceleration = (speed * centred).sum(-1) / centred.square().sum()
    now = speed.mean(-1) - acceleration * time.mean()
    rate = (yaw[..., -1] - yaw[..., 0]) / (WINDOW * dt)
    moving = now.abs() > STANDING
    now, acceleration, rate = (torch.where(moving, v, torch.zeros_like(v)) for v in (now, acceleration, rate))
    return now, acceleration, rate


def _roll(history: Trajectory, speed: torch.Tensor, acceleration: torch.Tensor, rate: torch.Tensor, steps: int) -> Trajectory:
    """Drives on from the last pose: exact in distance, each step an arc. A braking car stops and stays, its yaw with it."""
    dt = history.dt
    t = torch.arange(steps + 1, dtype=speed.dtype, device=speed.device) * dt
    brakes = acceleration * speed < 0
    until = torch.where(brakes, -speed / torch.where(brakes, acceleration, 1.0), torch.inf)
    t = torch.minimum(t.expand(*speed.shape, -1), until[..., None])
    distance = speed[..., None] * t + acceleration[..., None] * t**2 / 2
    yaw = yaw_of(history.rot[..., -1, :, :])[..., None] + rate[..., None] * t
    turn = yaw.diff(dim=-1)
    chord = distance.diff(dim=-1) * torch.sinc(turn / (2 * torch.pi))
    heading = yaw[..., :-1] + turn / 2
    xy = torch.stack([chord * heading.cos(), chord * heading.sin(), torch.zeros_like(chord)], -1).cumsum(-2)
    return Trajectory(history.xyz[..., -1:, :] + xy, rot_z(yaw[..., 1:]), dt)
