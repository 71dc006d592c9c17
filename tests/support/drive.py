"""A drive of noise for streams: every camera has another picture every tenth of a second, and the car goes on at 10 m/s."""

from __future__ import annotations

import torch

from alpamayo_r1.core.types import CAMERAS, FRAMES, Observation
from alpamayo_r1.testing import random_observation

T0_US = 5_100_000


def picture(camera: int, moment: int, size: tuple[int, int] = (48, 80)) -> torch.Tensor:
    """What a camera sees at a moment (tenths of a second): u8[3, h, w]."""
    generator = torch.Generator().manual_seed(1000 * camera + moment)
    return torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator)


def seen(moment: int, stale: int | None = None, size: tuple[int, int] = (48, 80), cameras: tuple[str, ...] = CAMERAS) -> Observation:
    """What the car knows at a moment. stale: a camera whose newest picture did not come, so that the one before stands there again."""
    places = [CAMERAS.index(name) for name in cameras]
    rows = [[moment - k for k in reversed(range(FRAMES))] for _ in places]
    for place, row in zip(places, rows, strict=True):
        if place == stale:
            row[-1] = row[-2]
    frames = torch.stack([torch.stack([picture(c, m, size) for m in row]) for c, row in zip(places, rows, strict=True)])
    return Observation(frames, cameras, random_observation(0, 4, 4).history, T0_US + 100_000 * moment)
