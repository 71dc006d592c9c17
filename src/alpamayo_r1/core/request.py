"""A request made ready for one model: its random numbers drawn, its words turned into ids."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.options import PlanOptions, Sampling
from alpamayo_r1.core.sampling import Draws, draw
from alpamayo_r1.core.vocab import Vocabulary


@dataclass(frozen=True)
class Request:
    """What S rows are to do: PlanOptions with everything drawn and encoded."""

    samples: int
    draws: Draws
    sampling: Sampling
    forced: torch.Tensor | None  # (S, max_tokens) i64: reasoning given instead of sampled, padded after its end
    max_tokens: int
    steps: int


def prepare(options: PlanOptions, config: ModelConfig, vocabulary: Vocabulary) -> Request:
    """The options as a Request to one model.

    Raises:
        TypeError: noise that is no tensor. ValueError: noise of another shape or not finite; reasoning too long, or not plain words.
    """
    texts = options.texts()
    forced = None if texts is None else force(vocabulary, texts, options.max_tokens)
    draws = make_draws(options, config.action.n_waypoints)
    steps = config.flow_steps if options.steps is None else options.steps
    return Request(options.samples, draws, options.sampling, forced, options.max_tokens, steps)


def force(vocabulary: Vocabulary, texts: Sequence[str], max_tokens: int) -> torch.Tensor:
    """Given reasoning as ids [S, max_tokens], padded after its end. Raises ValueError where it is too long, or not plain words."""
    rows = [vocabulary.reasoning_ids(text) for text in texts]
    longest = max(map(len, rows))
    if longest > max_tokens:
        raise ValueError(f"reasoning= takes {longest} tokens, but max_tokens is {max_tokens}: raise max_tokens or shorten the text")
    return torch.tensor([row + [vocabulary.pad_token_id] * (max_tokens - len(row)) for row in rows])


def fresh_seed() -> int:
    """A seed that was not asked for."""
    return secrets.randbits(31)


def make_draws(options: PlanOptions, waypoints: int) -> Draws:
    """The randomness of a plan: from the seed, the noise replaced where it is given."""
    noise, shape = options.noise, (options.samples, waypoints, 2)
    draws = draw(fresh_seed() if options.seed is None else options.seed, options.samples, waypoints, options.max_tokens)
    if noise is None:
        return draws
    if not isinstance(noise, torch.Tensor):
        raise TypeError(f"noise is of type {type(noise).__name__}, expected a tensor of shape {shape}")
    if noise.shape != shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {shape}")
    if not noise.isfinite().all():
        raise ValueError("noise holds NaN or infinity, expected draws of N(0, 1)")
    return Draws(noise.float(), draws.uniform)
