"""SwiGLU of rows [gate | up]."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend


@triton.jit
def swiglu_kernel(gate_up, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """gate <- silu(gate) * up in place; rows of [gate | up]."""
    row = tl.program_id(0).to(tl.int64) * 2 * width
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _depend(PDL)
    gate = tl.load(gate_up + row + i, mask=i < width, other=0.0)
    up = tl.load(gate_up + row + width + i, mask=i < width, other=0.0)
    wide = gate.to(tl.float32)
    tl.store(gate_up + row + i, (wide * tl.sigmoid(wide)).to(gate.dtype) * up, mask=i < width)
