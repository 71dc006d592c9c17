"""Which tile is fastest for each product of the 10B, and which cut for its attention: measured alone, then within whole passes.

Alone: every candidate on all layers' real weights in a graph. Within: the best few of each, with and without prefetch, one after the other
in a graph of a whole decoded token or of two Euler steps, with programmatic launches; what makes the pass fastest stays.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as nnf

from alpamayo_r1.engine import forward
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.engine.ops import attention, launch, products
from alpamayo_r1.engine.ops.attention import Cut
from alpamayo_r1.engine.ops.products import Tile
from checks.kernels import EXPERT, TEXT, attends, check

# rows, columns, depth, warps, stages; splits are tried besides. For 384 and 1,024 rows the library won against all that we tried.
CANDIDATES: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = {
    ("linear", 16): [(16, 16, 512, 4, 4), (16, 32, 128, 4, 4), (16, 32, 128, 4, 6), (16, 32, 256, 4, 4), (16, 64, 128, 4, 4)],
    ("swiglu", 16): [(16, 16, 256, 4, 4), (16, 32, 128, 4, 4), (16, 32, 128, 8, 5)],
    ("linear", 64): [
        (64, 32, 128, 4, 4), (64, 32, 128, 4, 6), (64, 32, 256, 4, 3), (64, 64, 64, 4, 6), (64, 64, 128, 4, 4), (64, 64, 128, 8, 4),
    ],
    ("swiglu", 64): [(64, 32, 128, 4, 4), (64, 64, 64, 4, 4), (64, 64, 128, 8, 3), (64, 64, 128, 4, 3)],
}  # fmt: skip
CUTS: dict[int | str, list[Cut]] = {
    16: [Cut(16, 32, 2, 4, 528), Cut(16, 64, 4, 3), Cut(16, 64, 4, 3, 132), Cut(16, 32, 4, 4)],
    64: [Cut(64, 64, 4, 3, 132), Cut(64, 64, 4, 2), Cut(64, 64, 4, 3), Cut(64, 32, 4, 4)],
    128: [
        Cut(128, 64, 8, 3, 96), Cut(128, 64, 8, 3, 112), Cut(128, 32, 8, 5, 112), Cut(128, 64, 8, 2, 192), Cut(64, 64, 4, 3, 224),
    ],
    1024: [Cut(128, 64, 8, 3, 132), Cut(128, 64, 8, 2, 132), Cut(128, 64, 8, 4, 132), Cut(128, 64, 8, 3, 192)],
    2048: [Cut(128, 64, 8, 3, 264), Cut(128, 64, 8, 4, 264), Cut(128, 64, 8, 2, 264), Cut(128, 64, 8, 3, 132)],
    "whole": [Cut(128, 64, 8, 3, 132), Cut(128, 64, 8, 4, 132), Cut(128, 128, 8, 2, 132), Cut(128, 32, 8, 4, 132), Cut(64, 64, 4, 3, 132)],
}  # fmt: skip
FETCHES = {16: ((0, False), (4, False), (8, False), (16, False)), 64: ((0, True), (2, True), (4, True), (8, True), (8, False))}
"""(cache lines of a row fetched before the predecessor ends, whether the successor is released at once) to try, by rows of a tile."""


def tiles(kind: str, rows: int) -> list[Tile]:
    """The candidates of one kind of product, without prefetch and splits."""
    return [Tile(cut[0], cut[1], cut[2], 1, cut[3], cut[4]) for cut in CANDIDATES[kind, rows]]


def released(cut: Tile) -> list[Tile]:
    """A candidate with every fetch and release."""
    return [replace(cut, ahead=ahead, early=early) for ahead, early in FETCHES[cut.rows]]


def product(kind: str, x: torch.Tensor, weight: torch.Tensor, cut: Tile | None) -> torch.Tensor:
    """The product by our kernel with this tile, or by the vendor's library."""
    if cut is None:
        return nnf.linear(x, weight) if kind == "linear" else products.swiglu(nnf.linear(x, weight))
    return products._linear(x, weight, cut, False) if kind == "linear" else products._swiglu_linear(x, weight, cut)


def check_all(index: int, workers: int, names: Sequence[str]) -> list[tuple[str, float | str]]:
    """This worker's share of the candidates on small shapes with the real divisibility; also compiles them."""
    thin = {launch.power(PASSES[name][0], 16) for name in names}
    jobs = [(kind, one) for kind, rows in CANDIDATES if rows in thin for cut in tiles(kind, rows) for one in released(cut)]
    cuts = [(rows, cut) for rows in dict.fromkeys(PASSES[name][1] for name in names) for cut in CUTS[rows]]
    return [check_tile(kind, cut) for kind, cut in jobs[index::workers]] + [check_cut(rows, cut) for rows, cut in cuts[index::workers]]


def slot(rows: int | str) -> tuple[dict, Any]:
    """The table and the key that hold the cut for so many query rows of a head, or for attention in one piece."""
    return (vars(attention), "WHOLE") if rows == "whole" else (attention.CUTS, rows)


def check_cut(rows: int | str, cut: Cut) -> tuple[str, float | str]:
    """(label, relative error) of a cut of attention at the rows that it is for."""
    flows = {128: 1, 1024: 6, 2048: 12, "whole": 16}
    samples, per, heads = (flows[rows], 64, EXPERT) if rows in flows else ({16: 1, 64: 16}[rows], 1, TEXT)
    table, key = slot(rows)
    table[key] = cut
    return check([(f"attend {rows} {cut}", attends, (1, samples, per, heads, 3006, 3008))], "cuda", torch.bfloat16)[0]


def check_tile(kind: str, cut: Tile) -> tuple[str, float | str]:
    """(label, relative error) of a candidate."""
    k, n, m = (
        (4096, 512, 13) if cut.rows == 16 else (2048 if kind == "swiglu" else 8256, 512, min(cut.rows * 2 - 7, 64 if cut.ahead else 200))
    )
    label = f"tile {kind} {cut} bfloat16"
    before = len(launch._stages)
    try:
        generator = torch.Generator("cuda").manual_seed(cut.columns)
        x, w = (torch.randn(a, k, device="cuda", generator=generator).bfloat16() for a in (m, n))
        w *= k**-0.5
        if kind == "linear":
            got, want = product(kind, x, w, replace(cut, splits=2)).float().sum(0), nnf.linear(x.float(), w.float())
            product(kind, x, w, cut)
        else:
            gate, up = nnf.linear(x.float(), w.float()).chunk(2, 1)
            got, want = product(kind, x, w, cut), nnf.silu(gate) * up
        refuse_shortened(before)
        return label, ((got.float() - want).norm() / want.norm()).item()
    except Exception as problem:
        return label, f"{type(problem).__name__}: {str(problem)[:100]}"


def refuse_shortened(before: int) -> None:
    """Raises if a candidate ran with a shorter pipeline than it says, for want of shared memory."""
    if len(launch._stages) > before:
        raise RuntimeError("too little shared memory for its stages")


def graph_us(function: Callable[[], object], repeats: int = 4) -> float:
    """Microseconds of a function from replays of its graph.

    Raises:
        RuntimeError: a kernel of it that does not fit.
    """
    before = len(launch._stages)
    function()
    refuse_shortened(before)
    return replay_us(function, repeats)


def replay_us(function: Callable[[], object], repeats: int) -> float:
    """Microseconds of a function that has run before, the least of so many replays of its graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    graph.replay()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    marks[-1].synchronize()
    return 1e3 * min(a.elapsed_time(b) for a, b in pairwise(marks))


@dataclass(frozen=True)
class Shape:
    """A product in all layers: kind, rows, name, weights."""

    kind: str
    m: int
    name: str
    weights: list[torch.Tensor]

    @property
    def rows(self) -> int:
        return launch.power(self.m, 16)

    @property
    def key(self) -> tuple[str, int, int, int]:
        n, k = self.weights[0].shape
        return self.kind, self.rows, n // (2 if self.kind == "swiglu" else 1), k


def shapes(model: forward.Model) -> Iterator[Shape]:
    """Every product of decoding and of the flow at S=1."""
    for m, stack, name in ((1, model.text, "text"), (64, model.expert, "expert")):
        for part, kind in (("qkv", "linear"), ("out", "linear"), ("gate_up", "swiglu"), ("down", "linear")):
            yield Shape(kind, m, f"{name} {part} M={m}", [getattr(layer, part) for layer in stack.layers])
    yield Shape("linear", 1, "head", [model.head])


def alone(shape: Shape) -> list[tuple[Tile | None, float]]:
    """Candidates with their microseconds, fastest first; None: the library."""
    (n, k), count = shape.weights[0].shape, len(shape.weights)
    x = torch.randn(shape.m, k, device="cuda").bfloat16()
    times: dict[Tile | None, float] = {}
    for cut in [None, *tiles(shape.kind, shape.rows)]:
        for splits in (1, 2, 3, 4, 6, 8) if shape.kind == "linear" and shape.name != "head" and cut else (1,):
            candidate = cut and replace(cut, splits=splits)
            programs = launch.ceil_div(n, cut.columns) * launch.ceil_div(shape.m, cut.rows) * splits if cut else 0
            if splits > 1 and (programs > 1100 or k // splits < 2 * cut.depth):
                continue
            try:
                run = lambda: [product(shape.kind, x, w, candidate) for w in shape.weights]  # noqa: B023, E731
                times[candidate] = graph_us(run) / count
            except Exception:
                continue
    return sorted(times.items(), key=lambda item: item[1])


Slot = tuple[dict, Any, Sequence[Any]]
"""A table, a key of it, and the values to try; None: no entry."""


def descend(run: Callable[[], object], slots: Sequence[Slot], say: Callable[[str], None], name: str) -> float:
    """Tries every slot's values one slot after the other, keeps what is fastest. Microseconds in the end."""

    def put(table: dict, key: Any, value: Any) -> None:
        table.pop(key, None)
        if value is not None:
            table[key] = value

    best = graph_us(run)
    for table, key, values in slots:
        times = {}
        for value in values:
            put(table, key, value)
            try:
                times[value] = graph_us(run)
            except Exception as problem:
                say(f"    {name} {key} {value}: {type(problem).__name__} {str(problem)[:80]}")
        fastest = min(times, key=times.get)
        put(table, key, fastest)
        best = times[fastest]
        say(f"    {name} {key}: {best:.0f} us with {fastest}; " + ", ".join(f"{us:.0f}" for us in times.values()))
    return best


def few(found: list[tuple[Tile | None, float]], count: int) -> list[Tile]:
    """The best few of our own, with every fetch and release."""
    best = [cut for cut, _ in found if cut is not None][:count]
    return [one for cut in best for one in released(cut)]


def passes(engine: Engine) -> dict[str, Callable[[], object]]:
    """A decoded token and two Euler steps, by number of samples, on the engine's buffers."""
    positions = engine._positions

    def decode(samples: int) -> Callable[[], object]:
        buffers = engine.arena.view(1, samples)

        def run():
            buffers.step.fill_(20)
            forward.decode(engine.model, buffers, positions)

        return run

    def flow(samples: int) -> Callable[[], object]:
        buffers = engine.arena.view(1, samples)
        buffers.length.fill_(16)
        return lambda: forward.flow(engine.model, buffers, 2, positions)

    return {f"decode S={s}": decode(s) for s in (1, 6, 16)} | {f"flow S={s}": flow(s) for s in (1, 6, 12, 16)}


PASSES: dict[str, tuple[int, int | str]] = {
    "decode S=1": (1, 16),
    "decode S=16": (16, 64),
    "flow S=1": (64, 128),
    "flow S=6": (384, 1024),
    "flow S=12": (768, 2048),
    "flow S=16": (1024, "whole"),
}
"""What is tuned: rows of its products, query rows of a head."""


def run(engine: Engine, say: Callable[[str], None], names: Sequence[str] = tuple(PASSES)) -> dict:
    """Tunes products.TILES, attention.CUTS and attention.WHOLE for the engine's model; the arena must hold 16 samples."""
    found, ranked = {}, {}
    gc.freeze()  # every capture collects garbage
    with torch.inference_mode():
        todo = passes(engine)
        say("  as they stand: " + ", ".join(f"{name} {graph_us(one):.0f} us" for name, one in todo.items()))
        for shape in (one for one in shapes(engine.model) if one.m in [PASSES[name][0] for name in names]):
            times = alone(shape)
            size, (best, us) = shape.weights[0].nbytes, times[0]
            ranked[shape.name] = shape, list(dict.fromkeys([products.TILES[shape.key], *few(times, 2)]))
            rate = 2 * shape.m * shape.weights[0].numel() / us / 1e6
            library = dict(times).get(None, float("nan"))
            say(f"  {shape.name}: {us:.1f} us = {size / us / 1e6:.2f} TB/s, {rate:.0f} TFLOP/s {best}; library {library:.1f}")
            found[shape.name] = [(str(cut), us) for cut, us in times[:12]]
        for name in names:
            m, rows = PASSES[name]
            slots = [(*slot(rows), CUTS[rows])]
            slots += [(products.TILES, shape.key, best) for shape, best in ranked.values() if shape.m == m]
            found[name] = descend(todo[name], slots, say, name)
        say("  tuned: " + ", ".join(f"{name} {graph_us(one):.0f} us" for name, one in todo.items()))
    return found
