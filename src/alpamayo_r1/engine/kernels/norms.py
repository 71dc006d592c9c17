"""Norms: one program per row, the whole row in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _sum_parts


@triton.jit
def _normed(value, weight, width, eps):
    """A row over its root mean square, rounded, times the weight; nought beyond its width."""
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide) / width + eps)
    return weight * (wide * scale).to(value.dtype)


@triton.jit
def rms_norm_kernel(x, weight, out, width, eps, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    value = tl.load(x + row + i, mask=i < width, other=0.0)
    tl.store(out + row + i, _normed(value, w, width, eps), mask=i < width)


@triton.jit(do_not_specialize=["rows"])
def add_rms_norm_kernel(x, delta, weight, out, rows, width, eps, PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    change = _sum_parts(delta, row + i, i < width, rows * width, PARTS).to(x.dtype.element_ty)
    value = tl.load(x + row + i, mask=i < width, other=0.0) + change
    tl.store(x + row + i, value, mask=i < width)
    tl.store(out + row + i, _normed(value, w, width, eps), mask=i < width)


@triton.jit
def add_layer_norm_kernel(x, delta, weight, bias, out, width, eps, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0).to(tl.float32)
    b = tl.load(bias + i, mask=i < width, other=0.0).to(tl.float32)
    _depend(PDL)
    value = tl.load(x + row + i, mask=i < width, other=0.0) + tl.load(delta + row + i, mask=i < width, other=0.0)
    tl.store(x + row + i, value, mask=i < width)
    value = value.to(tl.float32)
    centred = tl.where(i < width, value - tl.sum(value) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred) / width + eps)
    tl.store(out + row + i, (centred * scale * w + b).to(out.dtype.element_ty), mask=i < width)
