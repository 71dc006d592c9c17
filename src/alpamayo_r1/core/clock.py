"""Time by stage of a plan: `Clock` waits for the device, `Stopwatch` does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Clock:
    """Milliseconds by stage; waits for the device so that a stage's time is its own."""

    def __init__(self, device: torch.device):
        self.device = device
        self.timing: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        yield
        self.timing[stage] = self.timing.get(stage, 0.0) + 1e3 * (self._now() - start)

    def copy(self) -> Clock:
        """Another clock that goes on from what this one has measured."""
        other = Clock(self.device)
        other.timing = dict(self.timing)
        return other

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Stopwatch:
    """Milliseconds by stage without waiting for the device: CUDA events, read when the timing is asked for.

    A stage of the host alone is timed by the host's clock: what the device does meanwhile is no part of it.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._marks: list[tuple[str, float | torch.cuda.Event, float | torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str, host: bool = False) -> Iterator[None]:
        start = self._now(host)
        yield
        self._marks.append((stage, start, self._now(host)))

    def _now(self, host: bool) -> float | torch.cuda.Event:
        if host or self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @property
    def timing(self) -> dict[str, float]:
        """Stage -> milliseconds so far, summed over scenes."""
        total: dict[str, float] = {}
        for stage, start, stop in self._marks:
            if isinstance(stop, torch.cuda.Event):
                stop.synchronize()  # and not the device, which may be at work on something else by now
            total[stage] = total.get(stage, 0.0) + milliseconds(start, stop)
        return total


def milliseconds(start: float | torch.cuda.Event, stop: float | torch.cuda.Event) -> float:
    """The time between two marks of one kind."""
    if isinstance(start, float) and isinstance(stop, float):
        return 1e3 * (stop - start)
    assert isinstance(start, torch.cuda.Event) and isinstance(stop, torch.cuda.Event)
    return start.elapsed_time(stop)
