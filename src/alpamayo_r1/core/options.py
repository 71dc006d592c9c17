"""What may be asked of a planner: `PlanOptions` and `AskOptions`, with the defaults and the checks that need no model. Imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar, Self, TypedDict

if TYPE_CHECKING:
    import torch


HOTTEST = 1e6
"""Temperatures and weights are at most so large: float32 holds what they make of logits and velocities."""

MOST_SAMPLES, MOST_TOKENS, MOST_STEPS = 4096, 65536, 10_000
"""Bounds of a request, far above use: random numbers and buffers are made for all of it at once."""


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
        if not 0 <= self.temperature <= HOTTEST:
            raise ValueError(f"temperature is {self.temperature}, expected 0 (greedy) or a number above, at most {HOTTEST:g}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected a number in (0, 1]")
        if self.top_k is not None:
            check_count("top_k", self.top_k, "None (no limit) or ")


@dataclass(frozen=True)
class Saying:
    """What plans and answers have in common: how many rows, from which seed, drawn how, said how long.

    seed: of all randomness (None: a fresh one). max_tokens: new tokens at most. drafts: the engine guesses words ahead and keeps those
    that it would have said: sooner, and never another word.

    Raises:
        TypeError, ValueError: an option of another type or out of its range.
    """

    samples: int = 1
    seed: int | None = None
    temperature: float = 0.6
    top_p: float = 0.98
    top_k: int | None = None
    max_tokens: int = 256
    drafts: bool = True

    def __post_init__(self):
        check_count("samples", self.samples, most=MOST_SAMPLES)
        check_count("max_tokens", self.max_tokens, most=MOST_TOKENS)
        if self.seed is not None and (not isinstance(self.seed, Integral) or isinstance(self.seed, bool)):
            raise TypeError(f"seed is {self.seed!r}, expected None (a fresh one) or an integer")
        if not isinstance(self.drafts, bool):
            raise TypeError(f"drafts is {self.drafts!r}, expected True or False")
        self.texts()
        self.sampling  # noqa: B018  its fields are checked

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        return Sampling(self.temperature, self.top_p, self.top_k)

    def texts(self) -> tuple[str, ...] | None:
        """What is to be said, one text per row; None where it is to be sampled."""
        return None

    @classmethod
    def of(cls, given: object, changes: Mapping[str, object]) -> Self:
        """Given options, or (None) the defaults, with some replaced by name. Raises TypeError for options of another kind."""
        if given is not None and not isinstance(given, cls):
            raise TypeError(f"options are of type {type(given).__name__}, expected {cls.__name__} or keywords: samples=6, seed=42")
        return (given or cls()).updated(changes)

    def updated(self, changes: Mapping[str, object]) -> Self:
        """These options with some replaced, by name. Raises TypeError for a name that there is not."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                meant = f" (did you mean {near[0]}=?)" if near else ""
                raise TypeError(f"{name}= is no option of {self.NOUN}{meant}. There are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[arg-type]  # checked when they are set

    NOUN: ClassVar[str] = "what is said"


@dataclass(frozen=True)
class PlanOptions(Saying):
    """One request: how many futures, with which randomness, drawn how, said how long, integrated in how many steps.

    seed: of all randomness (None: a fresh one). noise f32[S, F, 2] replaces the flow's draw. reasoning: said instead of sampled, one
    text for all rows or one per row. max_tokens: new tokens at most. steps: Euler steps (None: the config's, 10). flow_temperature: factor
    on the noise, drawn or given. navigation: what the driver was told ("Turn left in 30m"; None: nothing). guidance: weight w of
    the navigation (classifier-free): v = (1 - w) v_without + w v_with, so 1 is the plan with it and above 1 follows it more.

    Raises:
        TypeError, ValueError: an option of another type or out of its range.
    """

    noise: torch.Tensor | None = None
    reasoning: str | Sequence[str] | None = None
    steps: int | None = None
    flow_temperature: float = 1.0
    navigation: str | None = None
    guidance: float | None = None

    NOUN: ClassVar[str] = "a plan"

    def __post_init__(self):
        super().__post_init__()
        if self.steps is not None:
            check_count("steps", self.steps, "None (the config's) or ", MOST_STEPS)
        check_finite("flow_temperature", self.flow_temperature)
        if self.flow_temperature < 0:
            raise ValueError(f"flow_temperature is {self.flow_temperature}, expected at least 0 (1: as trained)")
        if self.navigation is not None and not isinstance(self.navigation, str):
            raise TypeError(f"navigation is {self.navigation!r}, expected a text such as 'Turn left in 30m', or None")
        if self.navigation is not None and not self.navigation.strip():
            raise ValueError("navigation is empty: say where to go, such as 'Turn left in 30m', or None for no navigation")
        if self.guidance is not None:
            check_finite("guidance", self.guidance)
            if self.navigation is None:
                raise ValueError(f"guidance is {self.guidance}, but there is no navigation for it to weigh: give navigation= too")

    def texts(self) -> tuple[str, ...] | None:
        """The given reasoning, one text per row; None where it is to be sampled."""
        return None if self.reasoning is None else one_per_sample("reasoning", self.reasoning, self.samples)

    def plain(self) -> dict[str, object]:
        """What a record says was asked for: the options that are set, but for the seed and the noise."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("seed", "noise", "drafts")}
        if self.flow_temperature == 1:
            del given["flow_temperature"]
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class AskOptions(Saying):
    """A question's options. answers: said instead of sampled, one text for all rows or one per row.

    Raises:
        TypeError, ValueError: an option of another type or out of its range.
    """

    answers: str | Sequence[str] | None = None

    NOUN: ClassVar[str] = "a question"

    def texts(self) -> tuple[str, ...] | None:
        """The given answers, one text per row; None where they are to be sampled."""
        return None if self.answers is None else one_per_sample("answers", self.answers, self.samples)


class SayingKeywords(TypedDict, total=False):
    """The names and types of Saying as keywords, for editors and type checkers."""

    samples: int
    seed: int | None
    temperature: float
    top_p: float
    top_k: int | None
    max_tokens: int
    drafts: bool


class ScenePlanKeywords(SayingKeywords, total=False):
    """The names and types of PlanOptions as keywords, but for the navigation."""

    noise: torch.Tensor | None
    reasoning: str | Sequence[str] | None
    steps: int | None
    flow_temperature: float
    guidance: float | None


class PlanKeywords(ScenePlanKeywords, total=False):
    """The names and types of PlanOptions as keywords, for editors and type checkers."""

    navigation: str | None


class AskKeywords(SayingKeywords, total=False):
    """The names and types of AskOptions as keywords, for editors and type checkers."""

    answers: str | Sequence[str] | None


def one_per_sample(name: str, given: str | Sequence[str], samples: int) -> tuple[str, ...]:
    """Texts to be said, one per sample. Raises TypeError, ValueError for anything but one text, or one per sample."""
    if not isinstance(given, str | Sequence) or isinstance(given, bytes):
        raise TypeError(f"{name} is {given!r}, expected text: one for all samples, or one per sample")
    texts = (given,) * samples if isinstance(given, str) else tuple(given)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} holds {text!r}, expected text: one for all samples, or one per sample")
    if len(texts) != samples:
        raise ValueError(f"{name} has {len(texts)} texts for {samples} samples: give one text, or one per sample")
    return texts


def check_draws(draws: object) -> None:
    """Raises ValueError unless a stream can draw so."""
    if draws not in ("kept", "fresh"):
        raise ValueError(f"draws is {draws!r}, expected 'kept' (one seed for all steps) or 'fresh' (another one for each)")


def check_finite(name: str, value: object) -> None:
    """Raises TypeError, ValueError unless an option is a finite number."""
    check_number(name, value)
    if not math.isfinite(value):  # type: ignore[arg-type]  # a number, as was just checked
        raise ValueError(f"{name} is {value}, expected a finite number")
    if abs(value) > HOTTEST:  # type: ignore[arg-type]
        raise ValueError(f"{name} is {value:g}, expected at most {HOTTEST:g} either way")


def check_number(name: str, value: object) -> None:
    """Raises TypeError unless an option is a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, expected a number")


def check_count(name: str, count: object, other: str = "", most: int | None = None) -> None:
    """Raises unless an option is an integer of at least 1, and at most `most`; other: what else it may be."""
    if not isinstance(count, Integral) or isinstance(count, bool):
        raise TypeError(f"{name} is {count!r}, expected {other}an integer of at least 1")
    if int(count) < 1:
        raise ValueError(f"{name} is {count}, expected {other}at least 1")
    if most is not None and int(count) > most:
        raise ValueError(f"{name} is {int(count):,}, expected {other}at most {most:,}")
