"""What may be asked of a planner: `PlanOptions`, with the defaults and the checks that need no model. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How to draw a token from the logits. temperature 0 or top_k 1: the most likely token. top_k None: no limit.

    Raises:
        TypeError: not numbers. ValueError: a temperature below 0 or not finite, top_p outside (0, 1], or top_k below 1.
    """

    temperature: float
    top_p: float
    top_k: int | None

    def __post_init__(self):
        check_number("temperature", self.temperature)
        check_number("top_p", self.top_p)
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}, expected 0 (greedy) or a finite number above")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected a number in (0, 1]")
        if self.top_k is not None:
            check_count("top_k", self.top_k, "None (no limit) or ")


@dataclass(frozen=True)
class PlanOptions:
    """One request: how many futures, with which randomness, drawn how, said how long, integrated in how many steps.

    seed: of all randomness (None: a fresh one). noise f32[S, F, 2] replaces the flow's draw. reasoning: said instead of sampled, one
    text for all rows or one a row. max_tokens: new tokens at most. steps: Euler steps (None: the config's, 10).

    Raises:
        TypeError, ValueError: an option of another type or out of its range.
    """

    samples: int = 1
    seed: int | None = None
    noise: torch.Tensor | None = None
    reasoning: str | Sequence[str] | None = None
    temperature: float = 0.6
    top_p: float = 0.98
    top_k: int | None = None
    max_tokens: int = 256
    steps: int | None = None

    def __post_init__(self):
        check_count("samples", self.samples)
        check_count("max_tokens", self.max_tokens)
        if self.steps is not None:
            check_count("steps", self.steps, "None (the config's) or ")
        if self.seed is not None and (not isinstance(self.seed, Integral) or isinstance(self.seed, bool)):
            raise TypeError(f"seed is {self.seed!r}, expected None (a fresh one) or an integer")
        self.texts()
        self.sampling  # noqa: B018  its fields are checked

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperature, self.top_p, self.top_k)

    def texts(self) -> tuple[str, ...] | None:
        """The given reasoning, one text a row; None where it is to be sampled."""
        if self.reasoning is None:
            return None
        if not isinstance(self.reasoning, str | Sequence) or isinstance(self.reasoning, bytes):
            raise TypeError(f"reasoning is {self.reasoning!r}, expected text: one for all samples, or one per sample")
        texts = (self.reasoning,) * self.samples if isinstance(self.reasoning, str) else tuple(self.reasoning)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"reasoning holds {text!r}, expected text: one for all samples, or one per sample")
        if len(texts) != self.samples:
            raise ValueError(f"reasoning has {len(texts)} texts for {self.samples} samples: give one text, or one per sample")
        return texts

    def plain(self) -> dict[str, object]:
        """What a record says was asked for: the options that are set, but for the seed and the noise."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("seed", "noise")}
        return {name: value for name, value in given.items() if value is not None}

    def updated(self, changes: Mapping[str, object]) -> PlanOptions:
        """These options with some replaced, by name. Raises TypeError for a name that there is not."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                meant = f", did you mean {near[0]}=?" if near else ""
                meant = f", did you mean {near[0]}=?" if near else ""
                raise TypeError(f"{name}= is no option of a plan{meant} There are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked when they are set


class PlanKeywords(TypedDict, total=False):
    """The names and types of PlanOptions as keywords, for editors and type checkers."""

    samples: int
    seed: int | None
    noise: torch.Tensor | None
    reasoning: str | Sequence[str] | None
    temperature: float
    top_p: float
    top_k: int | None
    max_tokens: int
    steps: int | None


def check_number(name: str, value: object) -> None:
    """Raises TypeError unless an option is a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected a number")


def check_count(name: str, count: object, other: str = "") -> None:
    """Raises unless an option is an integer of at least 1; other: what else it may be."""
    if not isinstance(count, Integral) or isinstance(count, bool):
        raise TypeError(f"{name} is {count!r}, expected {other}an integer of at least 1")
    if int(count) < 1:
        raise ValueError(f"{name} is {count}, expected {other}at least 1")
