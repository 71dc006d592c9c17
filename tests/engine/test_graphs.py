"""Graphs: what runs eagerly, what is captured."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from alpamayo_r1.engine.graphs import Graphs


class Recorded:
    """A graph that plays what was captured again."""

    def __init__(self, function):
        self.replay = function


@pytest.fixture
def captured(monkeypatch):
    """Keys that were captured, on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    found = []

    def capture(self, function):
        found.append(function)
        return Recorded(function)

    monkeypatch.setattr(Graphs, "_capture", capture)
    return found


def test_the_first_run_of_a_key_is_eager_and_the_second_is_captured(captured):
    graphs, calls = Graphs(True, None), []
    for n in range(3):
        graphs.run("key", lambda: calls.append(1))
        assert len(captured) == (n > 0)
    assert len(calls) == 3


def test_a_thread_captures_nothing_that_it_has_not_run_itself(captured):
    """The vendor's libraries make their handles when a thread first asks, and a capture may not: submitted steps ended in an error."""
    graphs, calls = Graphs(True, None), []
    graphs.run("key", lambda: calls.append("here"))
    with ThreadPoolExecutor(1) as other:
        other.submit(graphs.run, "key", lambda: calls.append("there")).result()
        assert not captured
        other.submit(graphs.run, "key", lambda: calls.append("there")).result()
    assert len(captured) == 1
    graphs.run("key", lambda: calls.append("here"))  # from the graph of the other thread
    assert calls == ["here", "there", "there", "there"] and len(captured) == 1
