"""Flow matching: a straight path from noise to data, learned as a velocity and integrated by Euler (spec section 5)."""

from __future__ import annotations

from collections.abc import Callable

import torch


def training_pair(x1: torch.Tensor, x0: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The point x_t = (1 - t) x_0 + t x_1 and the velocity x_1 - x_0 to learn there; t broadcasts over x."""
    return (1 - t) * x0 + t * x1, x1 - x0


def integrate(velocity: Callable[[torch.Tensor, float], torch.Tensor], x0: torch.Tensor, steps: int) -> torch.Tensor:
    """Euler: x <- x + v(x, i / steps) / steps for i = 0 .. steps - 1. x0 [..., 64, 2] ~ N(0, 1) in fp32."""
    x = x0
    for i in range(steps):
        x = x + velocity(x, i / steps) / steps
    return x
