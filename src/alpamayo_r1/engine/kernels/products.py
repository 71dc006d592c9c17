"""Products of few rows with weights that are read once, and what the flow multiplies by little matrices."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _is_last, _prefetch, _release, _wait


@triton.jit
def _row_scales(squares, rows, m, k, eps, TILES: tl.constexpr, MANY: tl.constexpr):
    """1 / sqrt(mean(x^2) + eps) of rows, from their sums of squares by tiles of columns [TILES, m]."""
    t = tl.arange(0, MANY)
    some = tl.load(squares + t[:, None] * m + rows[None, :], mask=(t < TILES)[:, None] & (rows < m)[None, :], other=0.0)
    return tl.rsqrt(tl.sum(some, 0) / k + eps)


@triton.jit
def _read(x, gain, rows, ks, m, last, scales, EVEN: tl.constexpr, TILES: tl.constexpr):
    """Columns ks < last of rows x; where TILES says that they are to be normalised, gain * (x * scale), rounded as the norm rounds."""
    mask = rows[:, None] < m if EVEN else (rows[:, None] < m) & (ks[None, :] < last)
    inputs = tl.load(x + ks[None, :], mask=mask, other=0.0)
    if TILES > 0:
        gains = tl.load(gain + ks) if EVEN else tl.load(gain + ks, mask=ks < last, other=0.0)
        inputs = gains[None, :] * (inputs.to(tl.float32) * scales[:, None]).to(inputs.dtype)
    return inputs


@triton.jit
def _sum_of_products(
    x, w, squares, gain, eps, rows, m, k, first, last, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
    TILES: tl.constexpr, MANY: tl.constexpr, IEEE: tl.constexpr,
):  # fmt: skip
    """sum x[ks] w[ks]^T over first <= ks < last: [BM, BN] in fp32. x and w point at the starts of rows."""
    scales = _row_scales(squares, rows, m, k, eps, TILES, MANY) if TILES > 0 else tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(first, last, BK):
        ks = start + tl.arange(0, BK)
        if EVEN:
            weights = tl.load(w + ks[None, :], eviction_policy="evict_first")
        else:
            weights = tl.load(w + ks[None, :], mask=ks[None, :] < last, other=0.0)
        inputs = _read(x, gain, rows, ks, m, last, scales, EVEN, TILES)
        acc = tl.dot(inputs, weights.T, acc, input_precision="ieee" if IEEE else None)
    return acc


@triton.jit(do_not_specialize=["m"])
def linear_kernel(
    x, w, out, squares, gain, m, n, k, x_stride, span, eps, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
    AHEAD: tl.constexpr, EARLY: tl.constexpr, IEEE: tl.constexpr, TILES: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[split, m, n] = x[m, ks] w[n, ks]^T over the split's `span` of k; TILES > 0: of the norm of x, see `_read`."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    split = tl.program_id(2)
    first = split * span
    last = tl.minimum(first + span, k)
    safe = tl.minimum(cols, n - 1)
    w += safe[:, None] * k
    x += rows[:, None] * x_stride
    if PDL and AHEAD > 0:
        line = tl.arange(0, AHEAD) * 64
        _prefetch(w + tl.minimum(first + line, k - 1)[None, :])
    _release(PDL and EARLY)
    _wait(PDL)
    acc = _sum_of_products(x, w, squares, gain, eps, rows, m, k, first, last, BM, BN, BK, EVEN, TILES, MANY, IEEE)
    _release(PDL and not EARLY)
    place = (split * m + rows[:, None]) * n + cols[None, :]
    tl.store(out + place, acc, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit(do_not_specialize=["m"])
def linear_add_kernel(
    x, w, sums, arrived, residual, squares, m, n, k, x_stride, span, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EVEN: tl.constexpr, AHEAD: tl.constexpr, EARLY: tl.constexpr, IEEE: tl.constexpr, SPLITS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """residual += x w^T, and its sums of squares by tiles of columns [tiles, m].

    Each split leaves its sum; the one that comes last to a tile, which `arrived` counts and it sets back, adds them up in their order.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    split = tl.program_id(2)
    first = split * span
    last = tl.minimum(first + span, k)
    w += tl.minimum(cols, n - 1)[:, None] * k
    x += rows[:, None] * x_stride
    if PDL and AHEAD > 0:
        line = tl.arange(0, AHEAD) * 64
        _prefetch(w + tl.minimum(first + line, k - 1)[None, :])
    _release(PDL and EARLY)
    _wait(PDL)
    acc = _sum_of_products(x, w, x, x, 0.0, rows, m, k, first, last, BM, BN, BK, EVEN, 0, 1, IEEE)
    _release(PDL and not EARLY)
    inside = (rows[:, None] < m) & (cols[None, :] < n)
    place = rows[:, None] * n + cols[None, :]
    tl.store(sums + split * m * n + place, acc, mask=inside)
    counter = arrived + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    if _is_last(counter, SPLITS):
        total = tl.load(sums + place, mask=inside, other=0.0, cache_modifier=".cg")
        for p in tl.static_range(1, SPLITS):
            total += tl.load(sums + p * m * n + place, mask=inside, other=0.0, cache_modifier=".cg")
        value = tl.load(residual + place, mask=inside, other=0.0) + total.to(residual.dtype.element_ty)
        tl.store(residual + place, value, mask=inside)
        wide = value.to(tl.float32)
        tl.store(squares + tl.program_id(1) * m + rows, tl.sum(wide * wide, 1), mask=rows < m)


@triton.jit(do_not_specialize=["m"])
def swiglu_linear_kernel(
    x, w, out, squares, gain, m, n, k, x_stride, eps, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr,
    AHEAD: tl.constexpr, EARLY: tl.constexpr, IEEE: tl.constexpr, TILES: tl.constexpr, MANY: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[m, n] = silu(x w[n]^T) * (x w[N + n]^T); TILES > 0: of the norm of x, see `_read`."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    safe = tl.minimum(cols, n - 1)
    gate_w = w + safe[:, None] * k
    up_w = w + (n + safe[:, None]) * k
    x += rows[:, None] * x_stride
    if PDL and AHEAD > 0:
        line = tl.minimum(tl.arange(0, AHEAD) * 64, k - 1)
        _prefetch(gate_w + line[None, :])
        _prefetch(up_w + line[None, :])
    _release(PDL and EARLY)
    _wait(PDL)
    scales = _row_scales(squares, rows, m, k, eps, TILES, MANY) if TILES > 0 else tl.zeros((BM,), tl.float32)
    gate = tl.zeros((BM, BN), tl.float32)
    up = tl.zeros((BM, BN), tl.float32)
    for start in range(0, k, BK):
        ks = start + tl.arange(0, BK)
        if EVEN:
            gates = tl.load(gate_w + ks[None, :], eviction_policy="evict_first")
            ups = tl.load(up_w + ks[None, :], eviction_policy="evict_first")
        else:
            gates = tl.load(gate_w + ks[None, :], mask=ks[None, :] < k, other=0.0)
            ups = tl.load(up_w + ks[None, :], mask=ks[None, :] < k, other=0.0)
        inputs = _read(x, gain, rows, ks, m, k, scales, EVEN, TILES)
        gate = tl.dot(inputs, gates.T, gate, input_precision="ieee" if IEEE else None)
        up = tl.dot(inputs, ups.T, up, input_precision="ieee" if IEEE else None)
    _release(PDL and not EARLY)
    kind = out.dtype.element_ty
    gate = gate.to(kind).to(tl.float32)
    value = (gate * tl.sigmoid(gate)).to(kind) * up.to(kind)
    tl.store(out + rows[:, None] * n + cols[None, :], value, mask=(rows[:, None] < m) & (cols[None, :] < n))


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


@triton.jit
def action_features_kernel(x, time, first_freqs, second_freqs, time_freqs, out, HALF: tl.constexpr, WIDE: tl.constexpr, PDL: tl.constexpr):
    """One waypoint: sqrt(2) [sin, cos](u f 2 pi) of its two numbers and of the time, side by side."""
    row = tl.program_id(0)
    i = tl.arange(0, WIDE)
    inside = i < HALF
    _depend(PDL)
    for s in tl.static_range(3):
        freqs = first_freqs if s == 0 else (second_freqs if s == 1 else time_freqs)
        u = time if s == 2 else tl.load(x + row * 2 + s)
        angle = u * tl.load(freqs + i, mask=inside, other=0.0).to(tl.float32) * 2.0 * 3.141592653589793
        into = out + (row * 3 + s) * 2 * HALF + i
        tl.store(into, (tl.sin(angle) * 1.4142135623730951).to(out.dtype.element_ty), mask=inside)
        tl.store(into + HALF, (tl.cos(angle) * 1.4142135623730951).to(out.dtype.element_ty), mask=inside)


@triton.jit
def row_dots_kernel(x, weight, bias, out, width, COUNT: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """out[row, n] = x[row] weight[n] + bias[n] for a few n, rounded to x's type and stored as fp32."""
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    _depend(PDL)
    value = tl.load(x + row.to(tl.int64) * width + i, mask=i < width, other=0.0).to(tl.float32)
    for n in tl.static_range(COUNT):
        product = value * tl.load(weight + n * width + i, mask=i < width, other=0.0).to(tl.float32)
        total = tl.sum(product) + tl.load(bias + n).to(tl.float32)
        tl.store(out + row * COUNT + n, total.to(x.dtype.element_ty).to(tl.float32))
