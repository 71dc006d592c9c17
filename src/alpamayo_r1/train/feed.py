"""Lessons beside training: a thread in which the model that learns drives, while the steps of training go on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from alpamayo_r1.train.step import Batch

R = TypeVar("R", bound=Batch)


def used_here(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, whose memory then waits for the stream of this thread too."""
    tensor.record_stream(torch.cuda.current_stream())
    return tensor


class Feed(Generic[R]):
    """Asks for rows time and again in a thread, at most two calls ahead of who takes them.

    ask: rows at a share of the budget, or None where it is too early for any.
    """

    def __init__(self, ask: Callable[[float], R | None], device: torch.device):
        self.share = 0.0
        self._ask, self._device, self._stopped = ask, device, threading.Event()
        self._ready: queue.Queue[R] = queue.Queue(maxsize=1)
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begins. On a GPU the thread has a stream of its own that goes first: its many small kernels would wait behind those of steps."""
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
        while not self._stopped.is_set():
            rows = self._ask(self.share)
            if rows is None:
                self._stopped.wait(0.05)
                continue
            if self._device.type == "cuda":
                torch.cuda.current_stream().synchronize()
            while not self._stopped.is_set():
                try:
                    self._ready.put(rows, timeout=0.1)
                    break
                except queue.Full:
                    continue

    def take(self) -> R | None:
        """Rows, or None where none are ready. Raises what went wrong in the thread."""
        if self._failed is not None:
            raise self._failed
        try:
            rows = self._ready.get_nowait()
        except queue.Empty:
            return None
        if self._device.type == "cuda":
            rows.map(used_here)
        return rows

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
