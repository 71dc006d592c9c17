"""Rotary positions of queries and keys; keys and values into their cache."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _sum_parts


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

    Positions, tables and slots are older than the pass's first rows (torch's, or pick_rows_kernel's), which end before any kernel after
    them starts: they can be read before the wait, by loads that bypass L1. What the predecessor wrote is read at once.
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
