"""Rows made beside training: in a thread, no further ahead than needed, and what fails there is raised to who trains."""

from __future__ import annotations

import threading
import time
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


def numbered(stop_at: int = 10**9):
    """Makes rows that count from 0, and remembers in which threads."""
    made: list[threading.Thread] = []

    def make():
        if len(made) == stop_at:
            raise RuntimeError("no more scenes")
        made.append(threading.current_thread())
        return Numbers(torch.tensor([len(made) - 1])), 0.0

    return make, made


def test_rows_come_in_order_and_from_a_thread_once_it_is_started():
    make, made = numbered()
    feed = Feed(make, None, 1, CPU)
    first = feed.take(wait=True)
    feed.start()
    later = [feed.take(wait=True) for _ in range(3)]
    feed.stop()
    assert [int(fresh.rows.value) for fresh in (first, *later) if fresh] == [0, 1, 2, 3]
    assert made[0] is threading.main_thread() and threading.main_thread() not in made[1:]


def test_it_makes_no_more_than_is_taken_and_two_calls_ahead():
    make, made = numbered()
    feed = Feed(make, None, 1, CPU)
    feed.start()
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 3, "two are ready and one waits to be taken"
    feed.take(wait=True)
    feed.stop()


def test_lessons_come_after_every_second_piece_and_know_the_share():
    make, _ = numbered()
    asked = []
    feed = Feed(make, lambda share: asked.append(share) or (Numbers(torch.tensor([-1])) if share > 0.5 else None), 2, CPU)

    def kinds(count: int) -> list[bool]:
        return [fresh.own for fresh in (feed.take(wait=True) for _ in range(count)) if fresh is not None]

    assert kinds(3) == [False, False, False], "too early for lessons"
    feed.share = 0.75
    assert kinds(4) == [False, True, False, False]
    assert asked == [0.0, 0.75]


def test_what_fails_in_the_thread_is_raised_to_who_takes():
    make, _ = numbered(stop_at=1)
    feed = Feed(make, None, 1, CPU)
    feed.start()
    feed.take(wait=True)
    with pytest.raises(RuntimeError, match="no more scenes"):
        feed.take(wait=True)
    feed.stop()


def test_who_does_not_wait_gets_nothing_when_nothing_is_ready():
    gate = threading.Event()

    def make():
        gate.wait(5)
        return Numbers(torch.zeros(1)), 0.0

    feed = Feed(make, None, 1, CPU)
    feed.start()
    assert feed.take(wait=False) is None
    gate.set()
    assert feed.take(wait=True) is not None
    feed.stop()
