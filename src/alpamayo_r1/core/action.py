"""The action space: a unicycle driven by (acceleration, curvature) at 10 Hz, and its inverse by regularised least squares.

    v_{i+1}     = v_i + a_i dt
    theta_{i+1} = theta_i + kappa_i (v_i dt + a_i dt^2 / 2)
    x_{i+1}     = x_i + dt/2 (v_i cos theta_i + v_{i+1} cos theta_{i+1})          y likewise with sin

Normalised actions are (a - mean_a) / std_a and (kappa - mean_kappa) / std_kappa. Spec section 6. All of it in fp64 inside, fp32 outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alpamayo_r1.core.config import ActionConfig
from alpamayo_r1.core.geometry import rot_z, unwrap, yaw_of
from alpamayo_r1.core.types import Trajectory


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of (acceleration, curvature), as the checkpoint holds them (rounded to its dtype)."""

    mean: tuple[float, float]
    std: tuple[float, float]

    def physical(self, action: torch.Tensor) -> torch.Tensor:
        """Normalised [..., 2] -> (m/s^2, 1/m)."""
        return action * action.new_tensor(self.std) + action.new_tensor(self.mean)

    def normalised(self, action: torch.Tensor) -> torch.Tensor:
        """(m/s^2, 1/m) [..., 2] -> normalised."""
        return (action - action.new_tensor(self.mean)) / action.new_tensor(self.std)


def difference_matrix(n: int, order: int) -> torch.Tensor:
    """D with (D x)_t the order-th forward difference of x: [n - order, n] f64."""
    matrix = torch.eye(n, dtype=torch.float64)
    for _ in range(order):
        matrix = matrix[1:] - matrix[:-1]
    return matrix


def smooth_least_squares(
    design: torch.Tensor, target: torch.Tensor, *, order: int, weight: float, ridge: float, first: torch.Tensor | None = None
) -> torch.Tensor:
    """argmin_x |A x - b|^2 + weight |D x|^2 + ridge |x|^2, D the order-th difference; x_0 = first where given. Cholesky in f64.

    design A [..., m, n], target b [..., m], first [...] -> x [..., n].
    """
    design, target = design.double(), target.double()
    n = design.shape[-1]
    d = difference_matrix(n, order).to(design.device)
    normal = design.mT @ design + weight * (d.mT @ d) + ridge * torch.eye(n, dtype=torch.float64, device=design.device)
    right = (design.mT @ target[..., None])[..., 0]
    if first is None:
        return cholesky_solve(normal, right)
    first = first.double()
    rest = cholesky_solve(normal[..., 1:, 1:], right[..., 1:] - normal[..., 1:, 0] * first[..., None])
    return torch.cat([first[..., None], rest], -1)


def cholesky_solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x with matrix x = right; matrix [..., n, n] positive definite, right [..., n]."""
    return torch.cholesky_solve(right[..., None], torch.linalg.cholesky(matrix))[..., 0]


def fit_speed(xy: torch.Tensor, yaw: torch.Tensor, config: ActionConfig, first: torch.Tensor | None = None) -> torch.Tensor:
    """Speeds v_0..v_n along a path by the trapezoid rule: sum_t |v_t u_t + v_{t+1} u_{t+1} - 2 dp_t / dt|^2 + regularisers.

    xy [..., n+1, 2], yaw [..., n+1] unwrapped; u = (cos yaw, sin yaw). -> [..., n+1] m/s.
    """
    u = torch.stack([yaw.cos(), yaw.sin()], -1)
    steps = xy.shape[-2] - 1
    design = xy.new_zeros(*xy.shape[:-2], steps, 2, steps + 1)
    t = torch.arange(steps, device=xy.device)
    design[..., t, :, t] = u[..., :-1, :].movedim(-2, 0)
    design[..., t, :, t + 1] = u[..., 1:, :].movedim(-2, 0)
    target = 2 * xy.diff(dim=-2) / config.dt
    return smooth_least_squares(
        design.flatten(-3, -2), target.flatten(-2), order=3, weight=config.v_lambda / config.dt**6, ridge=config.v_ridge, first=first
    )


def initial_speed(history: Trajectory, config: ActionConfig) -> torch.Tensor:
    """v0 in m/s from the history: xyz [..., H, 3], rot [..., H, 3, 3] -> [...] f32."""
    xyz, rot = history.xyz.double(), history.rot.double()
    return fit_speed(xyz[..., :2], unwrap(yaw_of(rot)), config)[..., -1].float()


def to_trajectory(action: torch.Tensor, v0: torch.Tensor, z: torch.Tensor, dt: float) -> Trajectory:
    """Decodes physical actions [..., F, 2] from the origin at yaw 0 and speed v0 [...] m/s; z [...] m is kept. -> xyz [..., F, 3], rot."""
    a, kappa = action.double().unbind(-1)
    v0 = v0.double()[..., None].expand(*a.shape[:-1], 1)
    v = torch.cat([v0, v0 + (a * dt).cumsum(-1)], -1)
    turn = kappa * (v[..., :-1] * dt + a * dt**2 / 2)
    yaw = torch.cat([torch.zeros_like(v0), turn.cumsum(-1)], -1)
    velocity = v[..., None] * torch.stack([yaw.cos(), yaw.sin()], -1)
    xy = (dt / 2 * (velocity[..., :-1, :] + velocity[..., 1:, :])).cumsum(-2)
    height = z.double()[..., None, None].expand(*xy.shape[:-1], 1)
    return Trajectory(torch.cat([xy, height], -1).float(), rot_z(yaw[..., 1:]).float(), dt)


def to_action(history: Trajectory, future: Trajectory, config: ActionConfig) -> torch.Tensor:
    """Encodes a driven future as physical actions [..., F, 2] (m/s^2, 1/m): smoothed yaw, then speed, acceleration and curvature.

    The inverse of `to_trajectory` up to the regularisers (lambdas and ridges of the config).
    """
    dt = config.dt
    v0 = initial_speed(history, config).double()
    yaw = fit_yaw(yaw_of(future.rot.double()), config)
    xy = torch.nn.functional.pad(future.xyz[..., :2].double(), (0, 0, 1, 0))
    v = fit_speed(xy, yaw, config, first=v0)
    a = fit_rate(torch.ones_like(v[..., 1:]), v.diff(dim=-1) / dt, config.a_lambda / dt**4, config.a_ridge)
    s = v[..., :-1] * dt + a * dt**2 / 2
    kappa = fit_rate(s, yaw.diff(dim=-1), config.kappa_lambda / dt**4, config.kappa_ridge)
    return torch.stack([a, kappa], -1).float()


def fit_yaw(yaw: torch.Tensor, config: ActionConfig) -> torch.Tensor:
    """Smoothed yaw theta_0 = 0, theta_1..theta_F from measured yaw [..., F] -> [..., F+1]."""
    target = unwrap(torch.nn.functional.pad(yaw, (1, 0)))
    design = torch.eye(target.shape[-1], dtype=torch.float64, device=yaw.device).expand(*target.shape, -1)
    weight = config.theta_lambda / config.dt**6
    return smooth_least_squares(design, target, order=3, weight=weight, ridge=config.theta_ridge, first=torch.zeros_like(target[..., 0]))


def fit_rate(scale: torch.Tensor, target: torch.Tensor, weight: float, ridge: float) -> torch.Tensor:
    """argmin_x sum_t |s_t x_t - target_t|^2 + weight |D2 x|^2 + ridge |x|^2; all [..., F]."""
    return smooth_least_squares(torch.diag_embed(scale), target, order=2, weight=weight, ridge=ridge)


def within_bounds(action: torch.Tensor, config: ActionConfig) -> torch.Tensor:
    """Whether every acceleration and curvature of physical actions [..., F, 2] is inside the config's bounds -> bool[...]."""
    low, high = (action.new_tensor([config.accel_bounds[i], config.curvature_bounds[i]]) for i in (0, 1))
    return ((action >= low) & (action <= high)).all(-1).all(-1)
