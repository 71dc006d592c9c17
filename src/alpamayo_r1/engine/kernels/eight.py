"""Rows that the next product reads in 8 bits: e4m3 codes and a scale per row, made where the rows are, a program per row.

Every number is rounded to its type before it becomes a code, as if the rows had been written first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _sum_parts
from alpamayo_r1.engine.kernels.norms import _normed


@triton.jit
def _put_codes(values, codes, scale, row, i, width):
    """Writes a row, nought beyond its width: its largest number becomes 448."""
    values = values.to(tl.float32)
    factor = tl.maximum(tl.max(tl.abs(values)), 1e-12) / 448.0
    tl.store(codes + row * width + i, tl.clamp(values / factor, -448.0, 448.0).to(codes.dtype.element_ty), mask=i < width)
    tl.store(scale + row, factor)


@triton.jit
def quantise_rows_kernel(x, codes, scale, width, x_stride, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """Rows of x [M, width]."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    _depend(PDL)
    _put_codes(tl.load(x + row * x_stride + i, mask=i < width, other=0.0), codes, scale, row, i, width)


@triton.jit
def rms_norm_eight_kernel(x, weight, codes, scale, width, eps, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """The norms of rows of x [M, width]."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    value = tl.load(x + row * width + i, mask=i < width, other=0.0)
    _put_codes(_normed(value, w, width, eps), codes, scale, row, i, width)


@triton.jit(do_not_specialize=["rows"])
def add_rms_norm_eight_kernel(
    x, delta, weight, codes, scale, rows, width, eps, PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    """x += the sum of delta's parts, in place; the norms of the new rows."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    change = _sum_parts(delta, row * width + i, i < width, rows * width, PARTS).to(x.dtype.element_ty)
    value = tl.load(x + row * width + i, mask=i < width, other=0.0) + change
    tl.store(x + row * width + i, value, mask=i < width)
    _put_codes(_normed(value, w, width, eps), codes, scale, row, i, width)


@triton.jit
def swiglu_eight_kernel(gate_up, codes, scale, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """silu(gate) * up of rows [gate | up] of twice the width."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    _depend(PDL)
    gate = tl.load(gate_up + row * 2 * width + i, mask=i < width, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + i, mask=i < width, other=0.0)
    wide = gate.to(tl.float32)
    _put_codes((wide * tl.sigmoid(wide)).to(gate.dtype) * up, codes, scale, row, i, width)
