"""Captured CUDA graphs by key. A thread's first run of a key is eager, the second one is captured.

The first one compiles, may be the only one, and makes what the vendor's libraries keep per thread: a capture may not make that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock, get_ident

import torch

capturing = RLock()
"""Held by who captures a graph or empties the allocator's cache: the cache is that of all cards, and no card likes both at once."""

Run = Callable[[Hashable, Callable[[], None]], None]
"""Runs a function that a key names; see `Graphs.run`."""

MET = 1024
"""Keys that are remembered as met once, each with its thread."""


class Graphs:
    """A least-recently-used store of captured functions. They must read and write static buffers only, and share one memory pool.

    stream: where they are captured; None only where graphs are off.
    """

    def __init__(self, enabled: bool, stream: torch.cuda.Stream | None, capacity: int = 48):
        self.enabled, self.stream, self.capacity = enabled, stream, capacity
        self._graphs: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()
        self._met: OrderedDict[Hashable, None] = OrderedDict()
        self.clear()

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Runs the function, from its graph where there is one. Equal keys must mean equal kernels on equal addresses."""
        met = get_ident(), key
        if not self.enabled:
            function()
        elif key in self._graphs or met in self._met:
            if key not in self._graphs:
                self._graphs[key] = self._capture(function)
            self._graphs.move_to_end(key)
            self._graphs[key].replay()
            if len(self._graphs) > self.capacity:
                self._graphs.popitem(last=False)
        else:
            function()
            self._met[met] = None
            if len(self._met) > MET:
                self._met.popitem(last=False)

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with capturing, torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
            function()
        return graph

    def clear(self) -> None:
        """Forgets all graphs: their buffers are about to go. The allocator takes no new graph into a pool whose graphs are all gone."""
        self._graphs.clear()
        self._met.clear()
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None


def at_once(key: Hashable, function: Callable[[], None]) -> None:
    """Runs a function as `Graphs.run` does, with nothing kept."""
    function()
