"""Rows of a table that may lie in the host's pinned memory."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _wait


@triton.jit
def pick_rows_kernel(ids, table, out, width, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out[row] = table[ids[row]], BLOCK numbers a program.

    It does not let its successors start before it ends: of what torch's kernels wrote before it, rope_write_kernel reads without waiting.
    """
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    _wait(PDL)
    tl.store(out + row * width + i, tl.load(table + tl.load(ids + row) * width + i, mask=i < width), mask=i < width)
