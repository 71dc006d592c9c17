"""Products of few rows with weights that are read once, and what the flow multiplies by little matrices."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _prefetch, _release, _wait


@triton.jit(do_not_specialize=["m"])
def linear_kernel(
    x, w, out, m, n, k, x_stride, span, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, AHEAD: tl.constexpr,
    EARLY: tl.constexpr, IEEE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[split, m, n] = x[m, ks] w[n, ks]^T over the split's `span` of k."""
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
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(first, last, BK):
        ks = start + tl.arange(0, BK)
        if EVEN:
            weights = tl.load(w + ks[None, :], eviction_policy="evict_first")
            inputs = tl.load(x + ks[None, :], mask=rows[:, None] < m, other=0.0)
        else:
            weights = tl.load(w + ks[None, :], mask=ks[None, :] < last, other=0.0)
            inputs = tl.load(x + ks[None, :], mask=(rows[:, None] < m) & (ks[None, :] < last), other=0.0)
        acc = tl.dot(inputs, weights.T, acc, input_precision="ieee" if IEEE else None)
    _release(PDL and not EARLY)
    place = (split * m + rows[:, None]) * n + cols[None, :]
    tl.store(out + place, acc, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit(do_not_specialize=["m"])
def swiglu_linear_kernel(
    x, w, out, m, n, k, x_stride, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EVEN: tl.constexpr, AHEAD: tl.constexpr,
    EARLY: tl.constexpr, IEEE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[m, n] = silu(x w[n]^T) * (x w[N + n]^T)."""
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
    gate = tl.zeros((BM, BN), tl.float32)
    up = tl.zeros((BM, BN), tl.float32)
    for start in range(0, k, BK):
        ks = start + tl.arange(0, BK)
        if EVEN:
            gates = tl.load(gate_w + ks[None, :], eviction_policy="evict_first")
            ups = tl.load(up_w + ks[None, :], eviction_policy="evict_first")
            inputs = tl.load(x + ks[None, :], mask=rows[:, None] < m, other=0.0)
        else:
            gates = tl.load(gate_w + ks[None, :], mask=ks[None, :] < k, other=0.0)
            ups = tl.load(up_w + ks[None, :], mask=ks[None, :] < k, other=0.0)
            inputs = tl.load(x + ks[None, :], mask=(rows[:, None] < m) & (ks[None, :] < k), other=0.0)
        gate = tl.dot(inputs, gates.T, gate, input_precision="ieee" if IEEE else None)
        up = tl.dot(inputs, ups.T, up, input_precision="ieee" if IEEE else None)
    _release(PDL and not EARLY)
    kind = out.dtype.element_ty
    gate = gate.to(kind).to(tl.float32)
    value = (gate * tl.sigmoid(gate)).to(kind) * up.to(kind)
    tl.store(out + rows[:, None] * n + cols[None, :], value, mask=(rows[:, None] < m) & (cols[None, :] < n))


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
