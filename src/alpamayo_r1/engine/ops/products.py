"""Matrix products: of few rows by our own kernels, which read the weights once at the memory's speed, of many by the vendor's library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.quantised import Quantised
from alpamayo_r1.core.vla import ActionIn, Fourier
from alpamayo_r1.engine.ops import quantised
from alpamayo_r1.engine.ops.blocks import dense, product
from alpamayo_r1.engine.ops.eight import Rows, Weight, reads_codes, reads_eight, swiglu_eight
from alpamayo_r1.engine.ops.launch import PROGRAMS, THIN, WORDS, ceil_div, kernels, launch, on_gpu, power
from alpamayo_r1.engine.ops.swiglu import swiglu


@dataclass(frozen=True)
class Tile:
    """How a product [M, K] x [N, K]^T is cut: rows, columns, depth per step, parts of K, warps, pipeline stages.

    ahead: cache lines of each row of weights that are fetched before the predecessor ends. early: releases the successor at once.
    """

    rows: int
    columns: int
    depth: int
    splits: int
    warps: int
    stages: int
    ahead: int = 0
    early: bool = False


TILES: dict[tuple[str, int, int, int], Tile] = {
    ("linear", 16, 6144, 4096): Tile(16, 32, 128, 2, 4, 4, ahead=16),
    ("linear", 16, 4096, 4096): Tile(16, 32, 128, 3, 4, 4, ahead=8),
    ("swiglu", 16, 12288, 4096): Tile(16, 32, 128, 1, 4, 4, ahead=8),
    ("linear", 16, 4096, 12288): Tile(16, 32, 128, 3, 4, 4, ahead=4),
    ("linear", 16, 155697, 4096): Tile(16, 32, 256, 1, 4, 4),
    ("linear", 64, 4096, 2048): Tile(64, 64, 128, 2, 4, 4, ahead=4, early=True),
    ("linear", 64, 2048, 2048): Tile(64, 64, 128, 4, 4, 4, ahead=4, early=True),
    ("swiglu", 64, 8256, 2048): Tile(64, 64, 128, 1, 4, 3, ahead=2, early=True),
    ("linear", 64, 2048, 8256): Tile(64, 64, 128, 4, 4, 4, ahead=8, early=True),
}
"""(kind, rows to the next power of two, N, K) -> Tile, where measurement beat the default: the 10B's products on an H100."""


def tile(kind: str, x: torch.Tensor, n: int, k: int, words: bool) -> Tile | None:
    """The tile of a "linear" or "swiglu" product of rows x: enough programs to fill the card, each with a long enough run of K.

    None: a product for the vendor's library, which wants many rows and a GPU, or no GPU at all. words: K is cut as for 16 rows however
    many there are, so that a row's bits are its own.
    """
    m, rows = len(x), power(len(x), 16)
    if not on_gpu(x):
        return None
    if words and m <= WORDS:
        alone = thin_tile(kind, 16, n, k)
        return alone if m <= 16 else many_words(alone, kind, m)
    return thin_tile(kind, rows, n, k) if m <= THIN or (kind, rows, n, k) in TILES else None


def many_words(alone: Tile, kind: str, m: int) -> Tile:
    """The tile of more than 16 rows of words: other rows and columns, the same parts of K. Within a part all tiles add up in one order."""
    if m > 64:
        return replace(alone, rows=64, columns=64, depth=64, warps=4, stages=4)
    return replace(alone, rows=64, columns=64 if kind == "swiglu" else 128, depth=min(alone.depth, 128), warps=4, stages=4)


def thin_tile(kind: str, rows: int, n: int, k: int) -> Tile:
    """The tile of a product of so many rows (a power of two), measured or by rule."""
    if (kind, rows, n, k) in TILES:
        return TILES[kind, rows, n, k]
    columns, depth = (32, 128) if rows <= 32 else (64, 64)
    if kind == "swiglu":
        return Tile(rows, columns, depth, 1, 4, 4)
    programs = ceil_div(n, columns)
    splits = max(1, min(PROGRAMS // programs, k // (4 * depth), 8))
    return Tile(rows, columns, depth, splits, 4, 4)


def linear(x: Rows, weight: Weight, *, final: bool = False, words: bool = False) -> torch.Tensor:
    """x weight^T as parts whose sum is the product: x [M, K], weight [N, K] -> [P, M, N], fp32 if more than one.

    final: one part. words: a row's bits do not depend on the other rows, up to 128 of them. In 8 bits are rows for which `reads_eight`.
    """
    if isinstance(weight, Quantised):
        return quantised.linear(x, weight, final=final, words=words)
    assert isinstance(x, torch.Tensor)
    cut = tile("linear", x, weight.shape[0], weight.shape[1], words)
    return _vendor(x, weight, words)[None] if cut is None else _linear(x, weight, cut, final)


def _vendor(x: torch.Tensor, weight: torch.Tensor, words: bool) -> torch.Tensor:
    """The library's product; of words on the CPU eight rows at a time, since it takes another way for other numbers of rows."""
    if not words:
        return product(x, weight)
    padded = nnf.pad(x, (0, 0, 0, -len(x) % 8))
    return torch.cat([product(some, weight) for some in padded.split(8)])[: len(x)]


def _linear(x: torch.Tensor, weight: torch.Tensor, cut: Tile, final: bool) -> torch.Tensor:
    (m, k), n = x.shape, len(weight)
    span = ceil_div(ceil_div(k, cut.depth), 1 if final else cut.splits) * cut.depth
    parts = ceil_div(k, span)
    out = torch.empty(parts, m, n, device=x.device, dtype=x.dtype if parts == 1 else torch.float32)
    launch(
        kernels("products").linear_kernel,
        (ceil_div(m, cut.rows), ceil_div(n, cut.columns), parts),
        *(x, weight, out, m, n, k, x.stride(0), span),
        **tiling(cut, x),
    )
    return out


def tiling(cut: Tile, x: torch.Tensor) -> dict[str, int | bool]:
    """What a product kernel over rows x [M, K] takes from its tile."""
    return {
        "BM": cut.rows,
        "BN": cut.columns,
        "BK": cut.depth,
        "EVEN": x.shape[1] % cut.depth == 0,
        "AHEAD": cut.ahead,
        "EARLY": cut.early,
        "IEEE": x.dtype == torch.float32,
        "warps": cut.warps,
        "stages": cut.stages,
    }


def linear_into(x: Rows, weight: Weight, out: torch.Tensor) -> None:
    """out = x weight^T of many rows."""
    if isinstance(weight, Quantised):
        quantised.linear_into(x, weight, out)
    else:
        assert isinstance(x, torch.Tensor)
        torch.mm(x, weight.T, out=out)


def swiglu_linear(x: Rows, weight: Weight, *, then: Weight | None = None, words: bool = False) -> Rows:
    """silu(gate) * up with [gate | up] = x weight^T: x [M, K], weight [2 I, K] -> [M, I], as the product with `then` reads it.

    words: as in `linear`.
    """
    if isinstance(weight, Quantised):
        if isinstance(x, torch.Tensor) and reads_codes(x, words):
            return quantised.swiglu_linear(x, weight, words)
        gate_up = quantised.linear(x, weight, words=words)[0]
        return swiglu_eight(gate_up) if reads_eight(gate_up, then, words) else swiglu(gate_up)
    assert isinstance(x, torch.Tensor)
    cut = tile("swiglu", x, len(weight) // 2, weight.shape[1], words)
    return swiglu(_vendor(x, weight, words)) if cut is None else _swiglu_linear(x, weight, cut)


def _swiglu_linear(x: torch.Tensor, weight: torch.Tensor, cut: Tile) -> torch.Tensor:
    (m, k), n = x.shape, len(weight) // 2
    out = torch.empty(m, n, device=x.device, dtype=x.dtype)
    launch(
        kernels("products").swiglu_linear_kernel,
        (ceil_div(m, cut.rows), ceil_div(n, cut.columns)),
        *(x, weight, out, m, n, k, x.stride(0)),
        **tiling(cut, x),
    )
    return out


def linear_gelu(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """gelu(x weight^T + bias), tanh form; on a GPU the library's product ends in it, before it rounds.

    Not in fp32: the library's tanh is an approximation that bf16 does not show, but that made vision three times less exact there.
    """
    if not x.is_cuda or x.dtype == torch.float32:
        return dense(x, linear, gelu="tanh")
    return torch._addmm_activation(linear.bias, x.flatten(0, -2), linear.weight.T, use_gelu=True).view(*x.shape[:-1], -1)


def action_features(x: torch.Tensor, t: float, projection: ActionIn, dtype: torch.dtype) -> torch.Tensor:
    """What the action projection's trunk reads of x f32[R, F, 2] and the time t: [R F, 3 features]."""
    parts = cast(tuple[Fourier, ...], (*projection.sinus, projection.timestep_fourier_encoder))
    if not on_gpu(x):
        features = [part(u) for part, u in zip(parts, (x[..., 0], x[..., 1], torch.full(x.shape[:2], t, device=x.device)), strict=True)]
        return torch.cat(features, -1).flatten(0, 1).to(dtype)
    freqs = [part.freqs for part in parts]
    half = freqs[0].numel()
    out = torch.empty(x.shape[:2].numel(), 6 * half, device=x.device, dtype=dtype)
    launch(kernels("products").action_features_kernel, (len(out),), x.contiguous(), t, *freqs, out, HALF=half, WIDE=power(half), warps=1)
    return out


def row_dots(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """The product with a layer of a few outputs, rounded to its dtype: [M, K] -> f32[M, n]."""
    if not on_gpu(x):
        return linear(x).float()
    count, width = linear.weight.shape
    out = torch.empty(len(x), count, device=x.device, dtype=torch.float32)
    launch(kernels("products").row_dots_kernel, (len(x),), x, linear.weight, linear.bias, out, width, COUNT=count, BLOCK=power(width))
    return out
