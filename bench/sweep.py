"""Which tile is fastest for each thin product of the 10B: every candidate checked, then timed on all layers' real weights in a graph."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as nnf

from alpamayo_r1.engine import ops
from alpamayo_r1.engine.ops import Tile
from alpamayo_r1.engine.weights import fuse_stack

# columns, depth, warps, stages
CUTS: dict[tuple[str, int], list[tuple[int, int, int, int]]] = {
    ("linear", 16): [
        (16, 256, 4, 4), (16, 512, 4, 4), (32, 128, 4, 4), (32, 128, 4, 6), (32, 256, 4, 4), (32, 256, 8, 4), (32, 512, 8, 3),
        (64, 128, 4, 4), (64, 128, 8, 5), (64, 256, 8, 3),
    ],
    ("swiglu", 16): [
        (16, 128, 4, 5), (16, 256, 4, 4), (16, 256, 8, 4), (32, 128, 4, 4), (32, 128, 8, 5), (32, 256, 8, 3), (64, 128, 8, 3),
    ],
    ("linear", 64): [
        (32, 64, 4, 6), (32, 128, 4, 4), (32, 128, 4, 6), (32, 256, 4, 3), (64, 64, 4, 4), (64, 64, 4, 6), (64, 128, 4, 4), (64, 128, 8, 4),
        (128, 64, 4, 4), (128, 64, 8, 5),
    ],
    ("swiglu", 64): [
        (32, 64, 4, 6), (32, 128, 4, 4), (64, 64, 4, 4), (64, 64, 4, 6), (64, 64, 8, 5), (64, 128, 8, 3), (64, 128, 4, 3), (128, 64, 8, 3),
    ],
}  # fmt: skip


def tiles(kind: str, rows: int) -> list[Tile]:
    """The candidates of one kind of product."""
    return [Tile(rows, columns, depth, 1, warps, stages) for columns, depth, warps, stages in CUTS[kind, rows]]


def product(kind: str, x: torch.Tensor, weight: torch.Tensor, cut: Tile) -> torch.Tensor:
    """The product by our kernel with this tile."""
    return ops._linear(x, weight, cut, False) if kind == "linear" else ops._swiglu_linear(x, weight, cut)


def check(index: int, workers: int) -> list[tuple[str, float | str]]:
    """This worker's share of the candidates on small shapes with the real divisibility; also compiles them."""
    jobs = [(kind, rows, cut) for kind, rows in CUTS for cut in tiles(kind, rows)]
    found = []
    for kind, rows, cut in jobs[index::workers]:
        k, n = (4096, 512) if rows == 16 else (8256 if kind == "linear" else 2048, 512)
        label = f"tile {kind} {cut} bfloat16"
        try:
            generator = torch.Generator("cuda").manual_seed(index)
            x, w = (torch.randn(a, k, device="cuda", generator=generator).bfloat16() for a in (min(rows, 13) if rows == 16 else 64, n))
            w *= k**-0.5
            if kind == "linear":
                got, want = product(kind, x, w, replace(cut, splits=2)).sum(0), nnf.linear(x.float(), w.float())
            else:
                gate, up = nnf.linear(x.float(), w.float()).chunk(2, 1)
                got, want = product(kind, x, w, cut), nnf.silu(gate) * up
            found.append((label, ((got.float() - want).norm() / want.norm()).item()))
        except Exception as problem:
            found.append((label, f"{type(problem).__name__}: {str(problem)[:100]}"))
    return found


def graph_us(function: Callable[[], object], count: int) -> float:
    """Microseconds of one of `count` products, from graph replays."""
    function()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    for _ in range(2):
        graph.replay()
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(4):
        graph.replay()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) * 1e3 / 4 / count


def shapes(model) -> Iterator[tuple[str, int, str, list[torch.Tensor]]]:
    """(kind, rows, name, all layers' weights) of every thin product."""
    text, expert = fuse_stack(model.language), fuse_stack(model.expert)
    for rows, stack, name in ((16, text, "text"), (64, expert, "expert")):
        for part, kind in (("qkv", "linear"), ("out", "linear"), ("gate_up", "swiglu"), ("down", "linear")):
            yield kind, rows, f"{name} {part}", [getattr(layer, part) for layer in stack.layers]
    yield "linear", 16, "head", [model.vlm["lm_head"].weight]


def run(model, say: Callable[[str], None]) -> dict:
    """Times every candidate, puts the best into ops.TILES, prints a line a shape."""
    found = {}
    gc.freeze()  # every capture collects garbage
    with torch.inference_mode():
        for kind, rows, name, weights in shapes(model):
            n, k = weights[0].shape
            x = torch.randn(1 if rows == 16 else 64, k, device="cuda").bfloat16()
            library = graph_us(lambda: [nnf.linear(x, w) for w in weights], len(weights))  # noqa: B023
            times = {}
            for cut in tiles(kind, rows):
                for splits in (1, 2, 3, 4, 8) if kind == "linear" and name != "head" else (1,):
                    candidate = replace(cut, splits=splits)
                    programs = ops.ceil_div(n, cut.columns) * splits
                    if splits > 1 and (programs > 1100 or k // splits < 2 * cut.depth):
                        continue
                    try:
                        times[candidate] = graph_us(lambda: [product(kind, x, w, candidate) for w in weights], len(weights))  # noqa: B023
                    except Exception:
                        continue
            best = min(times, key=times.get)
            ops.TILES[kind, rows, n // (2 if kind == "swiglu" else 1), k] = best
            size = weights[0].nbytes
            say(
                f"  {name} {n}x{k} M={len(x)}: best {times[best]:.1f} us = {size / times[best] / 1e6:.2f} TB/s {best}; "
                f"library {library:.1f} us = {size / library / 1e6:.2f} TB/s"
            )
            ranked = sorted(times.items(), key=lambda item: item[1])
            found[name] = {"library": library, "times": [(str(cut), us) for cut, us in ranked]}
            if rows == 16 and name != "head":
                wide = torch.randn(16, k, device="cuda").bfloat16()
                at16 = graph_us(lambda: [product(kind, wide, w, best) for w in weights], len(weights))  # noqa: B023
                library16 = graph_us(lambda: [nnf.linear(wide, w) for w in weights], len(weights))  # noqa: B023
                say(f"    M=16: best {at16:.1f} us, library {library16:.1f} us")
                found[name] |= {"at16": at16, "library16": library16}
    return found
