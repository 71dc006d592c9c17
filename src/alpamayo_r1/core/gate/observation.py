"""An observation as a planner takes it: pictures and history, checked before any heavy work."""

from __future__ import annotations

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.gate.pictures import check_pictures
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import Observation


def check_observation(observation: Observation, config: ModelConfig) -> tuple[Note, ...]:
    """Notes on an observation for a model. It costs about 0.5 ms.

    Raises:
        TypeError, ValueError: what cannot be a prompt; see `check_pictures` and `check_history`.
    """
    if not isinstance(observation, Observation):
        raise TypeError(f"a {type(observation).__name__} was given, expected an Observation (of a Sample: sample.observation)")
    return (
        *check_pictures(observation.frames, observation.cameras, config.family),
        *check_history(observation.history, config.tokens.history_tokens // 3),
    )
