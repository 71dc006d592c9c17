"""Lessons beside training: asked for in a thread, not far ahead, and what fails there is raised to who trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from alpamayo_r1.train.feed import Feed

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Numbers:
    """One number per row."""

    value: torch.Tensor

    def map(self, f):
        return Numbers(f(self.value))


def soon(found: Callable[[], object]) -> object:
    """What is found within five seconds."""
    deadline = time.monotonic() + 5
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return value


def test_rows_come_in_order_from_a_thread_that_knows_the_share():
    asked: list[tuple[float, bool]] = []

    def ask(share: float):
        asked.append((share, threading.current_thread() is threading.main_thread()))
        return Numbers(torch.tensor([len(asked)])) if share > 0.5 else None

    feed = Feed(ask, CPU)
    assert feed.take() is None, "it has not begun"
    feed.start()
    assert soon(lambda: len(asked) > 1) and feed.take() is None, "too early"
    feed.share = 0.75
    first, second = (soon(feed.take) for _ in range(2))
    feed.stop()
    assert isinstance(first, Numbers) and isinstance(second, Numbers) and int(second.value) == int(first.value) + 1
    assert asked[-1] == (0.75, False)


def test_it_is_no_more_than_two_calls_ahead():
    made = []
    feed = Feed(lambda share: made.append(share) or Numbers(torch.zeros(1)), CPU)
    feed.start()
    soon(lambda: len(made) == 2)
    time.sleep(0.05)
    assert len(made) == 2, "one is ready and one waits to be taken"
    feed.stop()


def test_what_fails_in_the_thread_is_raised_to_who_takes():
    def ask(share: float):
        raise RuntimeError("no more scenes")

    feed = Feed(ask, CPU)
    feed.start()
    with pytest.raises(RuntimeError, match="no more scenes"):
        soon(feed.take)
    feed.stop()
