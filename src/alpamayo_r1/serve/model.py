"""What plans in the service: known by its config at once, and there once it is loaded."""

from __future__ import annotations

from concurrent.futures import Future
from functools import cached_property
from importlib.util import find_spec

import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.queue import Busy

PATIENCE_S = 30.0
"""Seconds for which a request waits for the model to be loaded."""


class Model:
    """A planner that may still be loading. config, device: of it, known at once.

    Put it there with `put`, or, where it can't be loaded, end the wait of those who asked with `fail`.
    """

    def __init__(self, config: ModelConfig, device: torch.device):
        self.config, self.device = config, device
        self._loaded: Future[Planner] = Future()

    @classmethod
    def of(cls, planner: Planner) -> Model:
        """The model of a planner that is loaded."""
        found = cls(planner.model.config, planner.model.device)
        found.put(planner)
        return found

    def put(self, planner: Planner) -> None:
        """Here it is."""
        self._loaded.set_result(planner)

    def fail(self, error: BaseException) -> None:
        """It will never come."""
        self._loaded.set_exception(error)

    @property
    def ready(self) -> bool:
        """Whether it is loaded."""
        return self._loaded.done()

    def exact(self) -> Planner:
        """The planner as `load` gives it; waits for it. Raises Busy where that takes long."""
        try:
            return self._loaded.result(PATIENCE_S)
        except TimeoutError:
            raise Busy("the model is still being loaded", 5) from None

    def quick(self) -> Planner:
        """The planner with the engine, on a CPU too: the same words, paths that differ by rounding (1e-5 m); waits for it.

        On a CPU one thread reads a stream's next step while another speaks about the last, so that both cores of a small machine are busy.
        """
        return self._quick

    @cached_property
    def _quick(self) -> Planner:
        planner = self.exact()
        if self.device.type == "cpu" and all(map(find_spec, ("alpamayo_r1.engine", "alpamayo_r1.engine.pair"))):
            return Planner.pair(planner.model, planner.model, planner.vocabulary)
        return planner
