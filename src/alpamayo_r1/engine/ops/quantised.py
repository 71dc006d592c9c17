"""Products with weights of few bits: of few rows by kernels that read the codes once, of many with the weight made anew, or in 8 bits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as nnf

from alpamayo_r1.core.quantised import Quantised
from alpamayo_r1.engine.ops.eight import EightBits, Rows, quantise_rows, reads_codes, reads_eight
from alpamayo_r1.engine.ops.launch import PROGRAMS, ceil_div, kernels, launch, on_gpu

KINDS = {"e4m3": 0, "int8": 1, "int4": 2}

SCRATCH = {"e4m3": 104 * 2**20, "int8": 104 * 2**20, "int4": 64 * 2**20}
"""Bytes of the weight that is made at a time: each time is two launches, which the host has to keep up with; int4 is for small cards."""


def linear(x: Rows, weight: Quantised, *, final: bool = False, words: bool = False) -> torch.Tensor:
    """x w^T as parts whose sum is the product: x [M, K], weight [N, K] -> [P, M, N]. See `products.linear`."""
    if isinstance(x, EightBits):
        return many(x, weight)[None]
    if not reads_codes(x, words):
        return (many(x, weight) if on_gpu(x) else _by_rows(x, weight, words))[None]
    (n, k), m, depth = weight.shape, len(x), depth_of(weight)
    how = cut(weight.scheme.kind, False, m, n, k, words)
    span = ceil_div(ceil_div(k, depth), 1 if final else how.splits) * depth
    parts = ceil_div(k, span)
    out = torch.empty(parts, m, n, device=x.device, dtype=x.dtype if parts == 1 else torch.float32)
    grid = ceil_div(m, how.rows), ceil_div(n, how.columns), parts
    tail = (out, m, n, k, x.stride(0), weight.scale.stride(0), span)
    launch(kernels("quantised").linear_kernel, grid, x, *stored(weight), *tail, **tiling(x, weight, how))
    return out


def swiglu_linear(x: torch.Tensor, weight: Quantised, words: bool) -> torch.Tensor:
    """silu(gate) * up with [gate | up] = x w^T, of rows for which `reads_codes`: x [M, K], weight [2 I, K] -> [M, I]."""
    (n, k), m = weight.shape, len(x)
    how = cut(weight.scheme.kind, True, m, n, k, words)
    out = torch.empty(m, n // 2, device=x.device, dtype=x.dtype)
    tail = (out, m, n // 2, k, x.stride(0), weight.scale.stride(0))
    grid = ceil_div(m, how.rows), ceil_div(n, how.columns)
    launch(kernels("quantised").swiglu_linear_kernel, grid, x, *stored(weight), *tail, **tiling(x, weight, how))
    return out


def linear_into(x: Rows, weight: Quantised, out: torch.Tensor) -> None:
    """out = x w^T of many rows."""
    if isinstance(x, EightBits) or on_gpu(x):
        many(x, weight, out)
    else:
        out.copy_(_by_rows(x, weight, words=False))


def _by_rows(x: torch.Tensor, weight: Quantised, words: bool) -> torch.Tensor:
    """The specification's product; of words eight rows at a time, see `products._vendor`."""
    dense = weight.dequantised(x.dtype)
    if not words:
        return nnf.linear(x, dense)
    padded = nnf.pad(x, (0, 0, 0, -len(x) % 8))
    return torch.cat([nnf.linear(some, dense) for some in padded.split(8)])[: len(x)]


def depth_of(weight: Quantised) -> int:
    """Columns that a kernel takes at a time: of e4m3 128, of int8 a scale's, of int4 a block's."""
    if weight.scheme.kind == "int4":
        return weight.scheme.block(weight.shape[1])
    return 128 if weight.scheme.kind == "e4m3" else weight.group


@dataclass(frozen=True)
class Cut:
    """How a product is cut: rows, columns (of SwiGLU gates and what they let through together), parts of K, warps, pipeline stages.

    ahead: cache lines of each row of codes that are fetched before the predecessor ends. swap: the weight is the matrix unit's first
    operand, from registers; as many rows as 8 then fill the second one. unroll: steps along K that are written out.
    """

    rows: int
    columns: int
    splits: int
    warps: int
    stages: int
    ahead: int
    swap: bool = False
    unroll: int = 1

    @property
    def in_order(self) -> bool:
        """Whether `wgmma` multiplies, which takes K in another order than `mma.sync`: four warps on 64 rows of its first operand."""
        return self.warps % 4 == 0 and (self.columns if self.swap else self.rows) >= 64


CUTS: dict[tuple[str, bool, int, int, int], Cut] = {
    ("e4m3", False, 16, 6144, 4096): Cut(16, 32, 2, 4, 6, 4),
    ("int8", False, 8, 6144, 4096): Cut(8, 64, 4, 2, 4, 4, swap=True),
    ("int4", False, 8, 6144, 4096): Cut(8, 64, 8, 2, 4, 4, swap=True),
    ("e4m3", False, 16, 4096, 4096): Cut(16, 32, 2, 4, 6, 4),
    ("int8", False, 8, 4096, 4096): Cut(8, 32, 4, 2, 6, 4, swap=True),
    ("int4", False, 8, 4096, 4096): Cut(8, 64, 8, 2, 4, 4, swap=True),
    ("e4m3", True, 16, 24576, 4096): Cut(16, 32, 1, 4, 4, 4),
    ("int8", True, 8, 24576, 4096): Cut(8, 32, 1, 2, 6, 4, swap=True),
    ("int4", True, 8, 24576, 4096): Cut(8, 32, 1, 1, 5, 4, swap=True),
    ("e4m3", False, 16, 4096, 12288): Cut(16, 32, 3, 4, 6, 4),
    ("int8", False, 8, 4096, 12288): Cut(8, 64, 8, 2, 4, 4, swap=True),
    ("int4", False, 8, 4096, 12288): Cut(8, 64, 8, 2, 4, 4, swap=True),
    ("e4m3", False, 16, 155697, 4096): Cut(16, 32, 1, 4, 6, 4),
    ("int8", False, 8, 155697, 4096): Cut(8, 64, 1, 2, 6, 4, swap=True),
    ("int4", False, 8, 155697, 4096): Cut(8, 64, 1, 2, 4, 4, swap=True),
    ("e4m3", False, 64, 4096, 2048): Cut(64, 64, 4, 4, 4, 2, swap=True),
    ("int8", False, 64, 4096, 2048): Cut(64, 128, 4, 8, 3, 2, swap=True),
    ("int4", False, 64, 4096, 2048): Cut(64, 64, 4, 4, 3, 2, swap=True),
    ("e4m3", False, 64, 2048, 2048): Cut(64, 64, 4, 4, 4, 2, swap=True),
    ("int8", False, 64, 2048, 2048): Cut(64, 64, 4, 4, 3, 2, swap=True),
    ("int4", False, 64, 2048, 2048): Cut(64, 64, 8, 4, 3, 2, swap=True),
    ("e4m3", True, 64, 16512, 2048): Cut(64, 64, 1, 4, 4, 2, swap=True),
    ("int8", True, 64, 16512, 2048): Cut(64, 128, 1, 8, 3, 2, swap=True),
    ("int4", True, 64, 16512, 2048): Cut(64, 128, 1, 8, 3, 2, swap=True),
    ("e4m3", False, 64, 2048, 8256): Cut(64, 64, 4, 4, 4, 2, swap=True),
    ("int8", False, 64, 2048, 8256): Cut(64, 64, 8, 4, 4, 2, swap=True),
    ("int4", False, 64, 2048, 8256): Cut(64, 64, 8, 4, 4, 2, swap=True),
}
"""(kind, SwiGLU, rows to 8, 16, 32 or 64, N, K) -> Cut, where measurement beat the rule: the 10B's products on an H100."""


def cut(kind: str, swiglu: bool, m: int, n: int, k: int, words: bool) -> Cut:
    """The cut of a product of m rows.

    Words, up to 128 of them, have the bits that they have alone: K has the parts that it has for the fewest rows, and all tiles are
    multiplied by one instruction, those of 64 rows by another.
    """
    rows = 16 if m <= 16 else 32 if m <= 32 or words else 64
    alone = CUTS.get((kind, swiglu, 8, n, k)) if words or m <= 8 else None
    if alone is not None:
        fewer = min(alone.stages, 5 - rows // 16)  # so that as many programs have room side by side
        return alone if m <= 8 else replace(alone, rows=rows, stages=fewer, unroll=1)
    if (kind, swiglu, rows, n, k) in CUTS:
        return CUTS[kind, swiglu, rows, n, k]
    columns = 64 if rows <= 32 else 128
    programs = ceil_div(n, 64) * (1 if words else ceil_div(m, rows))
    splits = 1 if swiglu else max(1, min(PROGRAMS * 2 // programs, k // 512, 8))
    if words and rows > 16:
        splits = cut(kind, swiglu, 16, n, k, words).splits
    return Cut(rows, columns, splits, 4, 4 if rows <= 32 else 3, 4 if rows <= 32 else 2)


def stored(weight: Quantised) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes as bytes, scales, zero points (or anything)."""
    codes = weight.codes.view(torch.uint8) if weight.scheme.kind == "e4m3" else weight.codes
    return codes, weight.scale, weight.scale if weight.zero is None else weight.zero


def tiling(x: torch.Tensor, weight: Quantised, how: Cut) -> dict[str, int | bool]:
    """What a product kernel takes from its tile."""
    return {
        "BM": how.rows,
        "BN": how.columns,
        **coding(x.dtype, weight, 2 if how.swap and how.in_order else 4),
        "SWAP": how.swap,
        "UNROLL": how.unroll,
        "EVEN": weight.shape[1] % depth_of(weight) == 0,
        "IEEE": x.dtype == torch.float32,
        "AHEAD": how.ahead,
        "warps": how.warps,
        "stages": how.stages,
    }


def coding(dtype: torch.dtype, weight: Quantised, pack: int = 4) -> dict[str, int | bool]:
    """What a kernel takes of how a weight is stored. dtype: of the numbers that codes become, pack of which a thread makes together."""
    by_bits = dtype == torch.bfloat16 and os.environ.get("TRITON_INTERPRET") != "1" and torch.version.hip is None
    return {"DEPTH": depth_of(weight), "GROUP": weight.group, "KIND": KINDS[weight.scheme.kind], "PACK": pack if by_bits else 0}


def dequantise(weight: Quantised, dtype: torch.dtype) -> torch.Tensor:
    """The weight [N, K] in a dtype: `Quantised.dequantised` in one pass."""
    if not on_gpu(weight.codes):
        return weight.dequantised(dtype)
    n, k = weight.shape
    out = torch.empty(n, k, device=weight.codes.device, dtype=dtype)
    constants = coding(dtype, weight)
    grid = ceil_div(n, 32), ceil_div(k, int(constants["DEPTH"]))
    launch(kernels("quantised").dequantise_kernel, grid, *stored(weight), out, n, k, weight.scale.stride(0), BN=32, **constants)
    return out


def many(x: Rows, weight: Quantised, out: torch.Tensor | None = None) -> torch.Tensor:
    """x w^T of many rows [M, N]: in 8 bits where the weight and the card have them, else with the weight made anew, some rows at a time.

    out: where it is put; None: in memory of its own.
    """
    n, k = weight.shape
    if out is None:
        out = torch.empty(len(x), n, device=weight.codes.device, dtype=x.dtype)
    if isinstance(x, torch.Tensor) and reads_eight(x, weight, words=False):
        x = quantise_rows(x)
    if isinstance(x, EightBits):
        return torch._scaled_mm(x.codes, weight.codes.T, x.scale, weight.scale, out_dtype=x.dtype, use_fast_accum=True, out=out)
    at_once = max(128, SCRATCH[weight.scheme.kind] // (k * x.element_size()) // 128 * 128)
    for start in range(0, n, at_once):
        end = min(start + at_once, n)
        torch.mm(x, dequantise(weight.rows(start, end), x.dtype).T, out=out[:, start:end])
    return out
