"""What several kernels do: dependence on the predecessor, prefetching, sums of parts."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _release(PDL: tl.constexpr):
    """Lets the successor start."""
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def _wait(PDL: tl.constexpr):
    """Waits for the predecessor's memory."""
    if PDL:
        tl.extra.cuda.gdc_wait()


@triton.jit
def _depend(PDL: tl.constexpr):
    """Lets the successor start and waits for the predecessor's memory."""
    _release(PDL)
    _wait(PDL)


@triton.jit
def _prefetch(pointers):
    """Asks for cache lines to be in L2 soon."""
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointers], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _sum_parts(base, offset, mask, stride, PARTS: tl.constexpr):
    """fp32 sum of PARTS values, `stride` apart: unrolled, so that all are on their way at once."""
    total = tl.load(base + offset, mask=mask, other=0.0).to(tl.float32)
    for p in tl.static_range(1, PARTS):
        total += tl.load(base + p * stride + offset, mask=mask, other=0.0).to(tl.float32)
    return total
