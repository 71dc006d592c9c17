"""Flow matching: a straight path from noise to data, learned as a velocity and integrated by Euler (spec section 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch


def training_pair(x1: torch.Tensor, x0: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The point x_t = (1 - t) x_0 + t x_1 and the velocity x_1 - x_0 to learn there; t broadcasts over x."""
    return (1 - t) * x0 + t * x1, x1 - x0


def integrate(velocity: Callable[[torch.Tensor, float], torch.Tensor], x0: torch.Tensor, steps: int) -> torch.Tensor:
    """Euler: x <- x + (t_{i+1} - t_i) v(x, t_i) over `steps` equal steps from t = 0 to 1. x0 [..., 64, 2] ~ N(0, 1) in fp32.

    The times are fp32 and a step is their difference, as in the original: 0.1 would differ in the last bit, which a sharp field amplifies.
    """
    times = torch.linspace(0, 1, steps + 1)
    x = x0
    for t, dt in zip(times.tolist(), times.diff().tolist(), strict=False):
        x = x + dt * velocity(x, t)
    return x
