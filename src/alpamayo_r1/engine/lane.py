"""Whose turn it is on a device: work of all threads runs there one after the other, on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock

import torch


class Lane:
    """A device, its stream (None on the CPU) and a lock.

    Graphs are captured on the stream too, so that the vendor's libraries keep one workspace, not two.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._lock = RLock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, this thread alone queues work, on the stream: after what it queued elsewhere before, and before what comes after."""
        with self._lock:
            if self.stream is None:
                yield
                return
            with torch.cuda.device(self.device):
                caller = torch.cuda.current_stream()
                self.stream.wait_stream(caller)
                try:
                    with torch.cuda.stream(self.stream):
                        yield
                finally:
                    caller.wait_stream(self.stream)

    def settle(self) -> None:
        """Makes the stream that of the calling thread, for good: a thread that works here alone then waits for nobody else's."""
        if self.stream is not None:
            torch.cuda.set_stream(self.stream)


def in_turn(method: Callable) -> Callable:
    """Runs a method of what has a `lane` when it is its turn there."""

    @wraps(method)
    def run(self, *arguments, **options):
        with self.lane.turn():
            return method(self, *arguments, **options)

    return run
