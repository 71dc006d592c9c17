"""Observations for the recorded tiny checkpoint of Alpamayo 1.5."""

from __future__ import annotations

from dataclasses import replace

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.types import Observation
from alpamayo_r1.testing import random_observation


def seen_by(indices: tuple[int, ...], frames: int, seed: int = 0) -> Observation:
    """Frames of noise from so many frames of the cameras of these indices."""
    one = random_observation(seed, 60, 108)
    pictures = one.frames.flatten(0, 1)[: len(indices) * frames].unflatten(0, (len(indices), frames))
    return replace(one, frames=pictures, cameras=tuple(ORDER[i] for i in indices))
