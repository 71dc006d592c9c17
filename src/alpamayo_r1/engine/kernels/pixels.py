"""Resizing pictures in the integers of the CPU, straight into patch rows."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def resize_columns_kernel(frames, first, taps, out, width, new_width, precision, TAPS: tl.constexpr, BX: tl.constexpr):
    """One row of pixels: out[x] = clamp((sum_t taps[x, t] row[first[x] + t] + half) >> precision), in integers as on the CPU."""
    row = tl.program_id(0).to(tl.int64)
    x = tl.program_id(1) * BX + tl.arange(0, BX)
    inside = x < new_width
    begin = tl.load(first + x, mask=inside, other=0)
    total = tl.zeros((BX,), tl.int32) + (1 << (precision - 1))
    for t in range(TAPS):
        tap = tl.load(taps + x * TAPS + t, mask=inside, other=0)
        pixel = tl.load(frames + row * width + tl.minimum(begin + t, width - 1), mask=inside, other=0)
        total += tap * pixel.to(tl.int32)
    tl.store(out + row * new_width + x, tl.minimum(tl.maximum(total >> precision, 0), 255).to(tl.uint8), mask=inside)


@triton.jit
def resize_rows_kernel(
    frames, first, taps, out, height, new_height, width, precision, channels,
    TAPS: tl.constexpr, PATCH: tl.constexpr, MERGE: tl.constexpr, TIME: tl.constexpr, BX: tl.constexpr,
):  # fmt: skip
    """One new row of one channel: resized as above, normalised, and put into patch rows in merge-block order, doubled in time."""
    plane = tl.program_id(0)
    y = tl.program_id(1)
    x = tl.program_id(2) * BX + tl.arange(0, BX)
    inside = x < width
    begin = tl.load(first + y)
    source = frames + plane.to(tl.int64) * height * width
    total = tl.zeros((BX,), tl.int32) + (1 << (precision - 1))
    for t in range(TAPS):
        pixel = tl.load(source + tl.minimum(begin + t, height - 1) * width + x, mask=inside, other=0)
        total += tl.load(taps + y * TAPS + t) * pixel.to(tl.int32)
    pixel = tl.minimum(tl.maximum(total >> precision, 0), 255).to(tl.float32)
    value = tl.div_rn(pixel - 127.5, 127.5 + tl.zeros((BX,), tl.float32)).to(out.dtype.element_ty)
    high, wide = y // PATCH, x // PATCH
    across = width // PATCH
    block = (high // MERGE) * (across // MERGE) + wide // MERGE
    patch = (plane // channels) * (new_height // PATCH) * across + block * MERGE * MERGE + (high % MERGE) * MERGE + wide % MERGE
    size = channels * TIME * PATCH * PATCH
    into = patch.to(tl.int64) * size + (plane % channels) * TIME * PATCH * PATCH + (y % PATCH) * PATCH + x % PATCH
    for t in range(TIME):
        tl.store(out + into + t * PATCH * PATCH, value, mask=inside)
