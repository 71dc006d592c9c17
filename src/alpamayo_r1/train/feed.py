"""Rows for training, made beside it: a thread renders scenes of the stream and asks for lessons while the steps of training go on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from alpamayo_r1.train.step import Batch

R = TypeVar("R", bound=Batch)


@dataclass(frozen=True)
class Fresh(Generic[R]):
    """New rows: whether they are the model's own states, the seconds that they took, and those of them that waited for the stream."""

    rows: R
    own: bool
    seconds: float
    waited: float


class Feed(Generic[R]):
    """Makes rows: one piece of the stream after the other, and after every `every`th those of `lessons`, where it has some.

    make: the next rows of the stream, and the seconds that it waited for them. lessons: the model's own states at a share of the budget.
    """

    def __init__(
        self,
        make: Callable[[], tuple[R, float]],
        lessons: Callable[[float], R | None] | None,
        every: int,
        device: torch.device,
    ):
        self.share = 0.0
        self._made = self._endless(make, lessons, every)
        self._device, self._stopped, self._failed = device, threading.Event(), None
        self._ready: queue.Queue[Fresh[R]] = queue.Queue(maxsize=2)
        self._thread: threading.Thread | None = None

    def _endless(self, make: Callable[[], tuple[R, float]], lessons: Callable[[float], R | None] | None, every: int) -> Iterator[Fresh[R]]:
        number = 0
        while True:
            begin = time.monotonic()
            rows, waited = make()
            yield Fresh(rows, False, time.monotonic() - begin, waited)
            number += 1
            if lessons is None or number % every:
                continue
            begin = time.monotonic()
            own = lessons(self.share)
            if own is not None:
                yield Fresh(own, True, time.monotonic() - begin, 0.0)

    def start(self) -> None:
        """From now on rows are made in a thread, on a GPU on a stream of its own, at most two calls ahead.

        Its many small kernels go first: behind those of a step they would wait for the device, each time anew.
        """
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
                with torch.cuda.stream(torch.cuda.Stream(priority=-1)):
                    self._fill()
            else:
                self._fill()
        except BaseException as error:  # whoever takes raises it
            self._failed = error

    def _fill(self) -> None:
        for fresh in self._made:
            if self._device.type == "cuda":
                torch.cuda.current_stream().synchronize()
            while not self._stopped.is_set():
                try:
                    self._ready.put(fresh, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if self._stopped.is_set():
                return

    def take(self, wait: bool) -> Fresh[R] | None:
        """New rows, or None where none are ready and it shall not wait. Raises what went wrong in the thread."""
        if self._thread is None:
            return next(self._made)
        while True:
            try:
                fresh = self._ready.get(timeout=0.1 if wait else None, block=wait)
            except queue.Empty:
                if self._failed is not None:
                    raise self._failed from None
                if wait:
                    continue
                return None
            if self._device.type == "cuda":
                fresh.rows.map(lambda tensor: tensor.record_stream(torch.cuda.current_stream()))
            return fresh

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
