"""Attention over a shared prompt and a row's own suffix, in parts or in one go."""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _depend, _release, _wait


@triton.jit
def _block(
    q, k, v, first, stop, limit, peak, mass, acc, scale, D: tl.constexpr, BN: tl.constexpr, WHOLE: tl.constexpr, IEEE: tl.constexpr
):  # fmt: skip
    """Online softmax of q [rows, D] over BN keys from `first` on, of which row i sees those below limit[i] <= stop. `peak` in log2 units.

    A key that a row does not see adds exp2(-inf) = 0: its bits are those of a pass without that key.
    """
    d = tl.arange(0, D)
    n = first + tl.arange(0, BN)
    where = n[:, None] * D + d[None, :]
    keys = tl.load(k + where) if WHOLE else tl.load(k + where, mask=(n < stop)[:, None], other=0.0)
    score = tl.dot(q, keys.T, input_precision="ieee" if IEEE else None)
    if not WHOLE:
        score = tl.where(n[None, :] < limit[:, None], score, float("-inf"))
    higher = tl.maximum(peak, tl.max(score, 1) * scale)
    weight = tl.exp2(score * scale - higher[:, None])
    shrink = tl.exp2(peak - higher)
    mass = mass * shrink + tl.sum(weight, 1)
    acc = acc * shrink[:, None]
    values = tl.load(v + where) if WHOLE else tl.load(v + where, mask=(n < stop)[:, None], other=0.0)
    acc = tl.dot(weight.to(values.dtype), values, acc, input_precision="ieee" if IEEE else None)
    return higher, mass, acc


@triton.jit
def _segment(q, k, v, start, full, stop, limit, peak, mass, acc, scale, D: tl.constexpr, BN: tl.constexpr, IEEE: tl.constexpr):
    """Online softmax over keys start..limit[i]: whole blocks below `full`, which all rows see, then what is left up to `stop`."""
    rest = start + tl.maximum(full - start, 0) // BN * BN
    for first in range(start, rest, BN):
        peak, mass, acc = _block(q, k, v, first, stop, limit, peak, mass, acc, scale, D, BN, True, IEEE)
    for first in range(rest, stop, BN):
        peak, mass, acc = _block(q, k, v, first, stop, limit, peak, mass, acc, scale, D, BN, False, IEEE)
    return peak, mass, acc


@triton.jit
def _part(
    q, acc_out, lse_out, part, at, valid, k, v, start, full, stop, limit, scale, ROWS: tl.constexpr, D: tl.constexpr, BN: tl.constexpr,
    IEEE: tl.constexpr,
):  # fmt: skip
    """Rows `at` of q over the keys that `_segment` names: normalised result and log2 mass (-inf: nothing seen)."""
    d = tl.arange(0, D)
    rows = tl.load(q + at.to(tl.int64)[:, None] * D + d[None, :], mask=valid[:, None], other=0.0)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    mass = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, D), tl.float32)
    peak, mass, acc = _segment(rows, k, v, start, full, stop, limit, peak, mass, acc, scale, D, BN, IEEE)
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
    TN: tl.constexpr, CAUSAL: tl.constexpr, IEEE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """One part of the attention of one scene's query rows for one KV head.

                    prefix of the scene, `splits` chunks      suffix of each sample
        tile 0      | part 0 | part 1 | ... | part s-1 |      | part s |    BM (TM) query rows: tokens x the G heads that share a KV head
        tile 1      | part 0 | part 1 | ... | part s-1 |      | part s |

    The first tiles * splits programs take BM rows of all samples over one chunk of the shared prefix; the others take TM rows of one
    sample over its own suffix, of which token t sees `seen` keys, or (CAUSAL) seen + t. merge_kernel puts the parts together.
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
            stop, tl.zeros((BM,), tl.int32) + stop, scale, BM, D, BN, IEEE,
        )  # fmt: skip
    else:
        job = program - tiles * splits
        sample = scene * samples + job // tail_tiles
        j = (job % tail_tiles) * TM + tl.arange(0, TM)
        to = (sample * per + j // G) * HQ + head * G + j % G
        start = (sample * HKV + head).to(tl.int64) * suffix_capacity * D
        end = tl.load(seen + sample * seen_stride, cache_modifier=".cg").to(tl.int32)
        limit = end + (tl.minimum(j // G, per - 1) if CAUSAL else tl.zeros((TM,), tl.int32))
        _wait(PDL)
        _part(
            q, acc_out, lse_out, splits * tokens * HQ, to, j < per * G, suffix_k + start, suffix_v + start, 0, end, tl.max(limit, 0),
            limit, scale, TM, D, TN, IEEE,
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
    none = tl.zeros((BM,), tl.int32)
    keys, values = prefix_k + base, prefix_v + base
    peak, mass, acc = _segment(rows, keys, values, 0, length, length, none + length, peak, mass, acc, scale, D, BN, IEEE)
    keys, values = suffix_k + own, suffix_v + own
    peak, mass, acc = _segment(rows, keys, values, 0, end, end, none + end, peak, mass, acc, scale, D, BN, IEEE)
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
