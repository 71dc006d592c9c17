"""What the addresses stand on: a planner, clips, evaluations, and how much may be asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

import alpamayo_r1
from alpamayo_r1.core.options import AskOptions, PlanOptions, Saying
from alpamayo_r1.core.types import Answers, Observation, Plan
from alpamayo_r1.core.wire import unpack
from alpamayo_r1.data.source import Source
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.evaluations import Evaluations
from alpamayo_r1.serve.model import Model
from alpamayo_r1.serve.queue import Busy, Limits, Queue
from alpamayo_r1.serve.scenes import Scenes

READERS = 8
"""Requests that may wait for a clip to be read, beside the one that is read."""

Value = TypeVar("Value")


class Service:
    """A planner, its clips and its evaluations, as the addresses use them."""

    def __init__(self, model: Model, source: Source, limits: Limits, name: str, evaluations: Sequence[Path]):
        self.model, self.limits, self.name = model, limits, name
        self.queue, self.scenes, self.evaluations = Queue(model.exact, limits), Scenes(source, limits.pictures), Evaluations(evaluations)
        self._reader = ThreadPoolExecutor(1, "reader")
        self._reading = 0
        self.streams = 0

    def close(self) -> None:
        """Ends its threads."""
        self.queue.close()
        self._reader.shutdown(cancel_futures=True)

    def about(self) -> dict[str, Any]:
        """What this service is."""
        family, config = self.model.config.family, self.model.config
        return {
            "version": alpamayo_r1.__version__,
            "checkpoint": self.name,
            "family": family.name,
            "cameras": family.cameras,
            "navigates": family.navigates,
            "answers_questions": family.question is not None,
            "history_steps": config.tokens.history_tokens // 3,
            "device": str(self.model.device),
            "ready": self.model.ready,
            "data": self.scenes.source.kind,
            "clips": len(self.scenes.source.clip_ids),
            "evaluations": self.evaluations.names,
            "limits": {"samples": self.limits.samples, "max_tokens": self.limits.max_tokens, "steps": self.limits.steps},
            "waiting": self.queue.waiting,
        }

    async def read(self, function: Callable[..., Value], *given: Any) -> Value:
        """What a function reads, one at a time and not on the loop's thread. Raises Busy."""
        if self._reading > READERS * 4:
            raise Busy(f"{self._reading} requests wait for clips to be read", 1)
        self._reading += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, function, *given)
        finally:
            self._reading -= 1

    async def unpacked(self, content: bytes) -> tuple[Observation, dict[str, Any], torch.Tensor | None]:
        """An observation that was sent, what is asked of it, and noise. Raises ValueError, for more pictures than the service takes too."""
        found = await asyncio.to_thread(unpack, content)
        count = found[0].frames.shape[:2].numel() if found[0].frames.ndim > 1 else 0
        if count > self.limits.seen:
            raise ValueError(
                f"{count} pictures were sent, expected at most {self.limits.seen} of this service: send fewer cameras or frames"
            )
        return found

    def planner(self, engine: bool) -> Callable[[], Planner]:
        """What gives the planner once it is loaded, in the queue's thread. engine: the one that has it on a CPU too."""
        return self.model.quick if engine else self.model.exact

    async def planned(
        self, observation: Observation, given: dict[str, Any], noise: torch.Tensor | None = None, engine: bool = False
    ) -> tuple[list[Plan], Any]:
        """The plans that options as JSON ask for, and their seed. engine: as in `PlanBody`. Raises as `Planner.plan`, and Busy."""
        planner = self.planner(engine)
        given = with_noise(given, noise)
        texts = given.get("navigation")
        if isinstance(texts, list):
            options = self.bounded(PlanOptions.of(None, {k: v for k, v in given.items() if k not in ("navigation", "guidance")}))
            if not 1 <= len(texts) <= 8:
                raise ValueError(f"navigation has {len(texts)} texts, expected 1 to 8")
            changes = {"guidance": given["guidance"]} if given.get("guidance") is not None else {}
            found = self.queue.call(lambda: planner().plan(observation, options, navigation=texts, **changes))  # type: ignore[call-overload]
            return await asyncio.wrap_future(found), options.seed
        options = self.bounded(PlanOptions.of(None, given))
        return [await asyncio.wrap_future(self.queue.plan(observation, options, planner))], options.seed

    async def answered(self, observation: Observation, question: str | list[str], given: dict[str, Any]) -> list[Answers]:
        """Answers. Raises as `Planner.ask`, and Busy."""
        options = self.bounded(AskOptions.of(None, given))
        questions = [question] if isinstance(question, str) else question
        if not 1 <= len(questions) <= 16:
            raise ValueError(f"{len(questions)} questions were asked, expected 1 to 16 at once")
        return await asyncio.wrap_future(self.queue.call(lambda: self.model.exact().ask(observation, questions, options)))

    def bounded(self, options: Any) -> Any:
        """Options, unless they ask for more than the service gives. Raises ValueError."""
        assert isinstance(options, Saying)
        for name in ("samples", "max_tokens", "steps"):
            value, most = getattr(options, name, None), getattr(self.limits, name)
            if value is not None and value > most:
                raise ValueError(f"{name} is {value}, expected at most {most} of this service: ask for less")
        return options


def with_noise(given: dict[str, Any], noise: torch.Tensor | None = None) -> dict[str, Any]:
    """Options as JSON with their noise, or one that was sent beside them, as a tensor. Raises ValueError."""
    if noise is not None:
        return given | {"noise": noise}
    if given.get("noise") is None:
        return given
    try:
        return given | {"noise": torch.tensor(given["noise"], dtype=torch.float32)}
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"noise is no array of numbers [samples][64][2] ({error})") from None
