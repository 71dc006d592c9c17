"""Triton kernels of the fast planner. `ops` launches them; each computes what the torch function of the same name there computes.

Sums are in fp32, in a fixed order and without atomics, so that a result is the same bits on every run. Every kernel can be launched with
programmatic dependence (PDL): it may start while its predecessor drains, and waits for the predecessor's results before reading them.
Small kernels release their successor at once, so that it can fetch weights meanwhile. So do products with one program a multiprocessor
(EARLY): as each ends, the successor moves in. Products with many programs side by side do so at their end, lest the successor's crowd
where there is room first; so does attention, which measured 3 % faster than an early release.
"""

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


@triton.jit
def rms_norm_kernel(x, weight, out, width, eps, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    value = tl.load(x + row + i, mask=i < width, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    tl.store(out + row + i, w * (value * scale).to(out.dtype.element_ty), mask=i < width)


@triton.jit(do_not_specialize=["rows"])
def add_rms_norm_kernel(x, delta, weight, out, rows, width, eps, PARTS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    i = tl.arange(0, BLOCK)
    w = tl.load(weight + i, mask=i < width, other=0.0)
    _depend(PDL)
    change = _sum_parts(delta, row + i, i < width, rows * width, PARTS).to(x.dtype.element_ty)
    value = tl.load(x + row + i, mask=i < width, other=0.0) + change
    tl.store(x + row + i, value, mask=i < width)
    value = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value) / width + eps)
    tl.store(out + row + i, w * (value * scale).to(out.dtype.element_ty), mask=i < width)


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
def _norm_rotate(a, b, weight, cos, sin, eps, HALF: tl.constexpr, kind: tl.constexpr):
    """Both halves of head vectors [heads, HALF], RMS-normalised, weighted and rotated."""
    i = tl.arange(0, HALF)
    a = a.to(kind).to(tl.float32)
    b = b.to(kind).to(tl.float32)
    scale = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + eps)[:, None]
    a = (tl.load(weight + i)[None, :] * (a * scale).to(kind)).to(tl.float32)
    b = (tl.load(weight + HALF + i)[None, :] * (b * scale).to(kind)).to(tl.float32)
    return a * cos - b * sin, b * cos + a * sin


@triton.jit(do_not_specialize=["slot_stride", "rows", "per"])
def rope_write_kernel(
    qkv, q_weight, k_weight, cos_table, sin_table, at, q_out, keys, values, slot, slot_stride, rows, per, head_stride, eps,
    HQ: tl.constexpr, HKV: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One token, one KV head: its G queries to q_out, its key and value into the cache at the token's slot.

    Positions, tables and slots are older than the pass's last kernel of torch's, which is launched without dependence: they can be read
    before the wait, by loads that bypass L1. What the predecessor wrote is read at once.
    """
    row = tl.program_id(0)
    head = tl.program_id(1)
    kind: tl.constexpr = q_out.dtype.element_ty
    i = tl.arange(0, HALF)[None, :]
    g = tl.arange(0, GP)
    d = tl.arange(0, 2 * HALF)
    width = (HQ + 2 * HKV) * 2 * HALF
    base = qkv + row.to(tl.int64) * width
    stride = rows * width
    place = tl.load(at + row, cache_modifier=".cg") * 2 * HALF + i
    cos = tl.load(cos_table + place).to(tl.float32)
    sin = tl.load(sin_table + place).to(tl.float32)
    group = row // per
    first = row % per + tl.load(slot + group * slot_stride, cache_modifier=".cg")
    offset = (head * G + g)[:, None] * 2 * HALF
    inside = (g < G)[:, None]
    k_offset = (HQ + head) * 2 * HALF + i
    _depend(PDL)
    q_a = _sum_parts(base, offset + i, inside, stride, PARTS)
    q_b = _sum_parts(base, offset + HALF + i, inside, stride, PARTS)
    k_a = _sum_parts(base, k_offset, i >= 0, stride, PARTS)
    k_b = _sum_parts(base, k_offset + HALF, i >= 0, stride, PARTS)
    value = _sum_parts(base, (HQ + HKV + head) * 2 * HALF + d, d >= 0, stride, PARTS)

    q_a, q_b = _norm_rotate(q_a, q_b, q_weight, cos, sin, eps, HALF, kind)
    queries = q_out + row.to(tl.int64) * HQ * 2 * HALF + offset
    tl.store(queries + i, q_a.to(kind), mask=inside)
    tl.store(queries + HALF + i, q_b.to(kind), mask=inside)
    into = (group * HKV + head).to(tl.int64) * head_stride + first * 2 * HALF
    k_a, k_b = _norm_rotate(k_a, k_b, k_weight, cos, sin, eps, HALF, kind)
    tl.store(keys + into + i, k_a.to(kind))
    tl.store(keys + into + HALF + i, k_b.to(kind))
    tl.store(values + into + d, value.to(kind))


@triton.jit
def _block(q, k, v, first, stop, peak, mass, acc, scale, D: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, IEEE: tl.constexpr):
    """Online softmax of q [rows, D] over BN keys from `first` on, of which those below `stop` count. `peak` in log2 units."""
    d = tl.arange(0, D)
    n = first + tl.arange(0, BN)
    where = n[:, None] * D + d[None, :]
    keys = tl.load(k + where) if WHOLE else tl.load(k + where, mask=(n < stop)[:, None], other=0.0)
    score = tl.dot(q, keys.T, input_precision="ieee" if IEEE else None)
    if not WHOLE:
        score = tl.where((n < stop)[None, :], score, float("-inf"))
    higher = tl.maximum(peak, tl.max(score, 1) * scale)
    weight = tl.exp2(score * scale - higher[:, None])
    shrink = tl.exp2(peak - higher)
    mass = mass * shrink + tl.sum(weight, 1)
    acc = acc * shrink[:, None]
    values = tl.load(v + where) if WHOLE else tl.load(v + where, mask=(n < stop)[:, None], other=0.0)
    acc = tl.dot(weight.to(values.dtype), values, acc, input_precision="ieee" if IEEE else None)
    return higher, mass, acc


@triton.jit
def _segment(q, k, v, start, stop, peak, mass, acc, scale, D: tl.constexpr, BN: tl.constexpr, IEEE: tl.constexpr):
    """Online softmax over keys start..stop: whole blocks, then what is left."""
    rest = start + tl.maximum(stop - start, 0) // BN * BN
    for first in range(start, rest, BN):
        peak, mass, acc = _block(q, k, v, first, stop, peak, mass, acc, scale, D, BN, True, IEEE)
    for first in range(rest, stop, BN):
        peak, mass, acc = _block(q, k, v, first, stop, peak, mass, acc, scale, D, BN, False, IEEE)
    return peak, mass, acc


@triton.jit
def _part(
    q, acc_out, lse_out, part, at, valid, k, v, start, stop, scale, ROWS: tl.constexpr, D: tl.constexpr, BN: tl.constexpr,
    IEEE: tl.constexpr,
):  # fmt: skip
    """Rows `at` of q over keys start..stop: normalised result and log2 mass (-inf: nothing seen)."""
    d = tl.arange(0, D)
    rows = tl.load(q + at.to(tl.int64)[:, None] * D + d[None, :], mask=valid[:, None], other=0.0)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    peak, mass, acc = _segment(rows, k, v, start, stop, peak, mass, acc, scale, D, BN, IEEE)
    some = mass > 0
    total = tl.where(some, mass, 1.0)
    into = part + at
    tl.store(acc_out + into.to(tl.int64)[:, None] * D + d[None, :], acc / total[:, None], mask=valid[:, None])
    tl.store(lse_out + into, tl.where(some, peak + tl.log2(total), float("-inf")), mask=valid)


@triton.jit(do_not_specialize=["seen_stride", "samples", "per", "tokens", "splits", "tiles", "tail_tiles"])
def attend_kernel(
    q, prefix_k, prefix_v, prompt, suffix_k, suffix_v, seen, seen_stride, acc_out, lse_out, scale, samples, per, prefix_capacity,
    suffix_capacity, tokens, splits, tiles, tail_tiles,
    HQ: tl.constexpr, HKV: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, TM: tl.constexpr, BN: tl.constexpr,
    TN: tl.constexpr, IEEE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One part of the attention of one scene's query rows for one KV head.

    The first tiles * splits programs take BM rows of all samples over one chunk of the shared prefix; the others take TM rows of one
    sample over its own suffix. merge_kernel puts the parts together.
    """
    program = tl.program_id(0)
    head = tl.program_id(1) % HKV
    scene = tl.program_id(1) // HKV
    if program < tiles * splits:
        split = program // tiles
        i = (program % tiles) * BM + tl.arange(0, BM)
        at = (scene * samples * per + i // G) * HQ + head * G + i % G
        length = tl.load(prompt + scene, cache_modifier=".cg").to(tl.int32)
        chunk = tl.cdiv(tl.cdiv(length, splits), BN) * BN
        base = (scene * HKV + head).to(tl.int64) * prefix_capacity * D
        stop = tl.minimum((split + 1) * chunk, length)
        _wait(PDL)
        _part(
            q, acc_out, lse_out, split * tokens * HQ, at, i < samples * per * G, prefix_k + base, prefix_v + base, split * chunk, stop,
            scale, BM, D, BN, IEEE,
        )  # fmt: skip
    else:
        job = program - tiles * splits
        sample = scene * samples + job // tail_tiles
        j = (job % tail_tiles) * TM + tl.arange(0, TM)
        to = (sample * per + j // G) * HQ + head * G + j % G
        start = (sample * HKV + head).to(tl.int64) * suffix_capacity * D
        end = tl.load(seen + sample * seen_stride, cache_modifier=".cg").to(tl.int32)
        _wait(PDL)
        _part(
            q, acc_out, lse_out, splits * tokens * HQ, to, j < per * G, suffix_k + start, suffix_v + start, 0, end,
            scale, TM, D, TN, IEEE,
        )  # fmt: skip
    _release(PDL)


@triton.jit(do_not_specialize=["seen_stride", "samples", "per"])
def attend_whole_kernel(
    q, prefix_k, prefix_v, prompt, suffix_k, suffix_v, seen, seen_stride, out, scale, samples, per, prefix_capacity, suffix_capacity,
    HQ: tl.constexpr, HKV: tl.constexpr, G: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, IEEE: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """The attention of BM query rows of one sample for one KV head, over the scene's prompt and then the sample's own suffix."""
    first = tl.program_id(0) * BM
    head = tl.program_id(1) % HKV
    scene = tl.program_id(1) // HKV
    sample = scene * samples + first // (per * G)
    j = first % (per * G) + tl.arange(0, BM)
    d = tl.arange(0, D)
    at = ((sample * per + j // G) * HQ + head * G + j % G).to(tl.int64)[:, None] * D + d[None, :]
    length = tl.load(prompt + scene, cache_modifier=".cg").to(tl.int32)
    end = tl.load(seen + sample * seen_stride, cache_modifier=".cg").to(tl.int32)
    base = (scene * HKV + head).to(tl.int64) * prefix_capacity * D
    own = (sample * HKV + head).to(tl.int64) * suffix_capacity * D
    _wait(PDL)
    rows = tl.load(q + at)
    peak = tl.full((BM,), float("-inf"), tl.float32)
    mass = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, D), tl.float32)
    peak, mass, acc = _segment(rows, prefix_k + base, prefix_v + base, 0, length, peak, mass, acc, scale, D, BN, IEEE)
    peak, mass, acc = _segment(rows, suffix_k + own, suffix_v + own, 0, end, peak, mass, acc, scale, D, BN, IEEE)
    _release(PDL)
    tl.store(out + at, (acc / mass[:, None]).to(out.dtype.element_ty))


@triton.jit(do_not_specialize=["pairs", "parts"])
def merge_kernel(acc_in, lse_in, out, pairs, parts, D: tl.constexpr, PARTS: tl.constexpr, PAIRS: tl.constexpr, PDL: tl.constexpr):
    """out[pair] = sum_p 2^(lse_p - max) acc_p / sum_p 2^(lse_p - max) for PAIRS (token, head) pairs a program."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    p = tl.arange(0, PARTS)
    d = tl.arange(0, D)
    inside = (p < parts)[:, None] & (pair < pairs)[None, :]
    _depend(PDL)
    at = p.to(tl.int64)[:, None] * pairs + pair[None, :]
    lse = tl.load(lse_in + at, mask=inside, other=float("-inf"))
    weight = tl.where(inside, tl.exp2(lse - tl.max(lse, 0)[None, :]), 0.0)
    acc = tl.load(acc_in + at[:, :, None] * D + d[None, None, :], mask=inside[:, :, None], other=0.0)
    total = tl.sum(acc * weight[:, :, None], 0) / tl.sum(weight, 0)[:, None]
    tl.store(out + pair.to(tl.int64)[:, None] * D + d[None, :], total.to(out.dtype.element_ty), mask=(pair < pairs)[:, None])


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


@triton.jit
def vision_rope_kernel(qkv, cos_table, sin_table, places, HEADS: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, WIDE: tl.constexpr):
    """Rotates queries and keys of one patch in place; row = [q heads | k heads | v heads], head = 2 * HALF numbers."""
    row = tl.program_id(0)
    h = tl.arange(0, ROWS)[:, None]
    i = tl.arange(0, WIDE)[None, :]
    mask = (h < 2 * HEADS) & (i < HALF)
    table = (row % places) * 2 * HALF + i
    first = qkv + row.to(tl.int64) * HEADS * 6 * HALF + h * 2 * HALF + i
    a = tl.load(first, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(first + HALF, mask=mask, other=0.0).to(tl.float32)
    cos = tl.load(cos_table + table, mask=i < HALF, other=0.0)
    sin = tl.load(sin_table + table, mask=i < HALF, other=0.0)
    other_cos = tl.load(cos_table + table + HALF, mask=i < HALF, other=0.0)
    other_sin = tl.load(sin_table + table + HALF, mask=i < HALF, other=0.0)
    tl.store(first, (a * cos - b * sin).to(qkv.dtype.element_ty), mask=mask)
    tl.store(first + HALF, (b * other_cos + a * other_sin).to(qkv.dtype.element_ty), mask=mask)


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
