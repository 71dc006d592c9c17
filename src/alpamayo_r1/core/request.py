"""A request made ready for one model: its random numbers drawn, its words turned into ids."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.family import Turn
from alpamayo_r1.core.options import AskOptions, PlanOptions, Sampling, Saying
from alpamayo_r1.core.sampling import Draws, draw
from alpamayo_r1.core.vocab import Vocabulary, whole_ids


@dataclass(frozen=True)
class Request:
    """What S rows are to do: PlanOptions or AskOptions with everything drawn and encoded. draws.noise is the flow's x_0."""

    samples: int
    draws: Draws
    sampling: Sampling
    forced: torch.Tensor | None  # (S, max_tokens) i64: words given instead of sampled, padded after its end
    max_tokens: int
    turn: Turn
    steps: int = 0
    guidance: float | None = None
    drafts: bool = True


def prepare(options: PlanOptions, config: ModelConfig, vocabulary: Vocabulary) -> Request:
    """The options as a Request to one model.

    Raises:
        TypeError: noise that is no tensor. ValueError: noise of another shape or not finite; reasoning too long; words that are not plain,
            or that the model does not know.
    """
    family = config.family
    if options.navigation is not None:
        family.needs_navigation("navigation=")
        vocabulary.plain_ids(options.navigation, "navigation=")
    draws = make_draws(options, options.noise, config.action.n_waypoints)
    draws = Draws(draws.noise * options.flow_temperature, draws.uniform)
    steps = config.flow_steps if options.steps is None else options.steps
    turn, texts = family.planning, options.texts()
    forced = None if texts is None else force(vocabulary, texts, turn, "reasoning=", options.max_tokens)
    return Request(options.samples, draws, options.sampling, forced, options.max_tokens, turn, steps, options.guidance, options.drafts)


def prepare_answers(options: AskOptions, config: ModelConfig, vocabulary: Vocabulary) -> Request:
    """The options of a question as a Request to one model.

    Raises:
        ValueError: a model that answers no questions; answers too long, or not plain words.
    """
    turn, texts = config.family.answering(), options.texts()
    forced = None if texts is None else force(vocabulary, texts, turn, "answers=", options.max_tokens)
    draws = make_draws(options, None, config.action.n_waypoints)
    return Request(options.samples, draws, options.sampling, forced, options.max_tokens, turn, drafts=options.drafts)


def force(vocabulary: Vocabulary, texts: Sequence[str], turn: Turn, what: str, max_tokens: int) -> torch.Tensor:
    """Given texts as ids [S, max_tokens], padded after their ends.

    Raises:
        ValueError: a text too long, or not plain words; what: its name in the error.
    """
    rows = [whole_ids(vocabulary, text, turn, what) for text in texts]
    longest = max(map(len, rows))
    if longest > max_tokens:
        raise ValueError(f"{what} takes {longest} tokens, but max_tokens is {max_tokens}: raise max_tokens or shorten the text")
    return torch.tensor([row + [vocabulary.pad_token_id] * (max_tokens - len(row)) for row in rows])


def fresh_seed() -> int:
    """A seed that was not asked for."""
    return secrets.randbits(31)


Options = TypeVar("Options", PlanOptions, AskOptions)


def seeded(options: Options) -> Options:
    """The options with a fresh seed where they have none."""
    return options if options.seed is not None else options.updated({"seed": fresh_seed()})


def make_draws(options: Saying, noise: torch.Tensor | None, waypoints: int) -> Draws:
    """The randomness of a plan: from the seed, the noise replaced where it is given."""
    shape = (options.samples, waypoints, 2)
    draws = draw(fresh_seed() if options.seed is None else options.seed, options.samples, waypoints, options.max_tokens)
    if noise is None:
        return draws
    if not isinstance(noise, torch.Tensor):
        raise TypeError(f"noise is of type {type(noise).__name__}, expected a tensor of shape {shape}")
    if noise.dtype not in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        raise TypeError(f"noise is {noise.dtype}, expected torch.float32")
    if noise.shape != shape:
        raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {shape}")
    if not noise.isfinite().all():
        raise ValueError("noise holds NaN or infinity, expected draws of N(0, 1)")
    return Draws(noise.float(), draws.uniform)
