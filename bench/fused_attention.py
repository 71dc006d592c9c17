"""An experiment: the flow's queries and own keys normalised and rotated inside attention, against rope_write followed by attend.

    python bench/fused_attention.py                            on a GPU: checked, then timed over 36 layers in a graph
    TRITON_INTERPRET=1 python bench/fused_attention.py         anywhere: checked on a small shape

One launch of nine a layer less, and the action tokens' keys and values never leave the chip: every Euler step makes them anew. As long
as it is not measured, the engine does without it.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
import triton.language as tl

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "bench")]

from kernel_check import EXPERT, SMALL, Case, error  # noqa: E402
from sweep import graph_us  # noqa: E402

from alpamayo_r1.engine import kernels, ops  # noqa: E402
from alpamayo_r1.engine.kernels import _norm_rotate, _release, _sum_parts, _wait  # noqa: E402
from alpamayo_r1.engine.ops import KV, Context, Cut, Heads, ceil_div, power  # noqa: E402


@triton.jit
def _add(q_a, q_b, k_a, k_b, v, inside, peak, mass, acc, scale, IEEE: tl.constexpr):
    """Online softmax of q (in halves) over one block of keys (in halves)."""
    score = tl.dot(q_a, k_a.T, input_precision="ieee" if IEEE else None)
    score = tl.dot(q_b, k_b.T, score, input_precision="ieee" if IEEE else None) * scale
    score = tl.where(inside[None, :], score, float("-inf"))
    higher = tl.maximum(peak, tl.max(score, 1))
    weight = tl.exp2(score - higher[:, None])
    shrink = tl.exp2(peak - higher)
    acc = tl.dot(weight.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee" if IEEE else None)
    return higher, mass * shrink + tl.sum(weight, 1), acc


@triton.jit
def _cached(q_a, q_b, k, v, start, stop, peak, mass, acc, scale, HALF: tl.constexpr, BN: tl.constexpr, IEEE: tl.constexpr):
    """Online softmax over cached keys start..stop."""
    i = tl.arange(0, HALF)
    d = tl.arange(0, 2 * HALF)
    for first in range(start, stop, BN):
        n = first + tl.arange(0, BN)
        inside = n < stop
        row = n[:, None] * 2 * HALF
        k_a = tl.load(k + row + i[None, :], mask=inside[:, None], other=0.0)
        k_b = tl.load(k + row + HALF + i[None, :], mask=inside[:, None], other=0.0)
        values = tl.load(v + row + d[None, :], mask=inside[:, None], other=0.0)
        peak, mass, acc = _add(q_a, q_b, k_a, k_b, values, inside, peak, mass, acc, scale, IEEE)
    return peak, mass, acc


@triton.jit
def _turned(
    base, offset, inside, stride, weight, cos_table, sin_table, place, eps, HALF: tl.constexpr, PARTS: tl.constexpr, kind: tl.constexpr
):
    """Head vectors at `offset` [rows, 1], normalised and rotated, in halves."""
    i = tl.arange(0, HALF)[None, :]
    cos = tl.load(cos_table + place + i, mask=inside, other=0.0).to(tl.float32)
    sin = tl.load(sin_table + place + i, mask=inside, other=0.0).to(tl.float32)
    a = _sum_parts(base, offset + i, inside, stride, PARTS)
    b = _sum_parts(base, offset + HALF + i, inside, stride, PARTS)
    a, b = _norm_rotate(a, b, weight, cos, sin, eps, HALF, kind)
    return a.to(kind), b.to(kind)


@triton.jit(do_not_specialize=["samples", "tokens", "splits", "tiles", "tail_tiles"])
def fused_kernel(
    qkv, q_weight, k_weight, cos_table, sin_table, at, prefix_k, prefix_v, prompt, suffix_k, suffix_v, said, acc_out, lse_out, scale, eps,
    samples, prefix_capacity, suffix_capacity, tokens, splits, tiles, tail_tiles,
    HQ: tl.constexpr, HKV: tl.constexpr, G: tl.constexpr, HALF: tl.constexpr, PER: tl.constexpr, BM: tl.constexpr, TM: tl.constexpr,
    BN: tl.constexpr, PARTS: tl.constexpr, IEEE: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """As attend_kernel, from qkv: prefix programs turn their queries, the others their queries and the sample's own PER keys."""
    program = tl.program_id(0)
    head = tl.program_id(1) % HKV
    scene = tl.program_id(1) // HKV
    kind: tl.constexpr = prefix_k.dtype.element_ty
    width: tl.constexpr = (HQ + 2 * HKV) * 2 * HALF
    stride = tokens * width
    d = tl.arange(0, 2 * HALF)
    if program < tiles * splits:
        split = program // tiles
        i = (program % tiles) * BM + tl.arange(0, BM)
        valid = i < samples * PER * G
        token = scene * samples * PER + i // G
        length = tl.load(prompt + scene, cache_modifier=".cg").to(tl.int32)
        place = tl.load(at + token, mask=valid, other=0, cache_modifier=".cg")[:, None] * 2 * HALF
        chunk = tl.cdiv(tl.cdiv(length, splits), BN) * BN
        base = (scene * HKV + head).to(tl.int64) * prefix_capacity * 2 * HALF
        stop = tl.minimum((split + 1) * chunk, length)
        _wait(PDL)
        offset = token[:, None] * width + (head * G + i % G)[:, None] * 2 * HALF
        q_a, q_b = _turned(qkv, offset, valid[:, None], stride, q_weight, cos_table, sin_table, place, eps, HALF, PARTS, kind)
        peak = tl.full((BM,), float("-inf"), tl.float32)
        mass = tl.zeros((BM,), tl.float32)
        acc = tl.zeros((BM, 2 * HALF), tl.float32)
        peak, mass, acc = _cached(q_a, q_b, prefix_k + base, prefix_v + base, split * chunk, stop, peak, mass, acc, scale, HALF, BN, IEEE)
        into = split * tokens * HQ + token * HQ + head * G + i % G
        total = tl.where(mass > 0, mass, 1.0)
        tl.store(acc_out + into.to(tl.int64)[:, None] * 2 * HALF + d[None, :], acc / total[:, None], mask=valid[:, None])
        tl.store(lse_out + into, tl.where(mass > 0, peak + tl.log2(total), float("-inf")), mask=valid)
    else:
        job = program - tiles * splits
        sample = scene * samples + job // tail_tiles
        j = (job % tail_tiles) * TM + tl.arange(0, TM)
        inside = j < PER * G
        row = sample * PER + j // G
        spot = tl.load(at + row, mask=inside, other=0, cache_modifier=".cg")[:, None] * 2 * HALF
        own = tl.arange(0, PER)
        key_row = sample * PER + own
        key_spot = tl.load(at + key_row, cache_modifier=".cg")[:, None] * 2 * HALF
        end = tl.load(said + sample, cache_modifier=".cg").to(tl.int32)
        start = (sample * HKV + head).to(tl.int64) * suffix_capacity * 2 * HALF
        _wait(PDL)
        from_q = row[:, None] * width + (head * G + j % G)[:, None] * 2 * HALF
        t_a, t_b = _turned(qkv, from_q, inside[:, None], stride, q_weight, cos_table, sin_table, spot, eps, HALF, PARTS, kind)
        from_k = key_row[:, None] * width + (HQ + head) * 2 * HALF
        k_a, k_b = _turned(qkv, from_k, own[:, None] >= 0, stride, k_weight, cos_table, sin_table, key_spot, eps, HALF, PARTS, kind)
        values = _sum_parts(qkv, from_k + HKV * 2 * HALF + d[None, :], own[:, None] >= 0, stride, PARTS).to(kind)
        high = tl.full((TM,), float("-inf"), tl.float32)
        sum_ = tl.zeros((TM,), tl.float32)
        out = tl.zeros((TM, 2 * HALF), tl.float32)
        high, sum_, out = _cached(t_a, t_b, suffix_k + start, suffix_v + start, 0, end, high, sum_, out, scale, HALF, 32, IEEE)
        high, sum_, out = _add(t_a, t_b, k_a, k_b, values, own >= 0, high, sum_, out, scale, IEEE)
        to = splits * tokens * HQ + row * HQ + head * G + j % G
        tl.store(acc_out + to.to(tl.int64)[:, None] * 2 * HALF + d[None, :], out / sum_[:, None], mask=inside[:, None])
        tl.store(lse_out + to, high + tl.log2(sum_), mask=inside)
    _release(PDL)


@dataclass(frozen=True)
class Job:
    """What attention of one layer of the flow reads; said: keys of what was said, before the action tokens' own."""

    qkv: torch.Tensor  # (P, R n, (Hq + 2 Hkv) d)
    norms: KV
    rope: KV
    at: torch.Tensor
    prefix: KV
    prompt: torch.Tensor
    suffix: KV
    said: torch.Tensor


def fused(job: Job, heads: Heads, cut: Cut) -> torch.Tensor:
    """rope_write and attend in one kernel and a merge: [R n, Hq d]."""
    scenes, rows, tokens, d = len(job.prompt), len(job.said), job.qkv.shape[1], heads.width
    samples, per = rows // scenes, tokens // rows
    tm = min(64, power(per * heads.group, 16))
    tiles, tail_tiles = ceil_div(samples * per * heads.group, cut.rows), ceil_div(per * heads.group, tm)
    splits = max(1, min(cut.programs // (tiles * heads.keys * scenes), 31))
    acc = torch.empty(splits + 1, tokens, heads.queries, d, device=job.qkv.device, dtype=torch.float32)
    lse = torch.empty(splits + 1, tokens, heads.queries, device=job.qkv.device, dtype=torch.float32)
    ops._launch(
        fused_kernel,
        (tiles * splits + samples * tail_tiles, scenes * heads.keys),
        *(job.qkv, *job.norms, *job.rope, job.at, *job.prefix, job.prompt, *job.suffix, job.said, acc, lse),
        *(
            d**-0.5 * math.log2(math.e),
            heads.eps,
            samples,
            job.prefix[0].shape[2],
            job.suffix[0].shape[2],
            tokens,
            splits,
            tiles,
            tail_tiles,
        ),
        HQ=heads.queries,
        HKV=heads.keys,
        G=heads.group,
        HALF=d // 2,
        PER=per,
        BM=cut.rows,
        TM=tm,
        BN=cut.keys,
        PARTS=len(job.qkv),
        IEEE=job.prefix[0].dtype == torch.float32,
        warps=cut.warps,
        stages=cut.stages,
    )
    out = torch.empty(tokens, heads.queries * d, device=acc.device, dtype=job.prefix[0].dtype)
    pairs, parts = tokens * heads.queries, splits + 1
    some = max(1, 16 // power(parts))
    ops._launch(kernels.merge_kernel, (ceil_div(pairs, some),), acc, lse, out, pairs, parts, D=d, PARTS=power(parts), PAIRS=some, warps=2)
    return out


def apart(job: Job, heads: Heads) -> torch.Tensor:
    """The engine's way: rope_write, then attend."""
    own = job.qkv.shape[1] // len(job.said)
    q = ops.rope_write(job.qkv, job.norms, job.rope, job.at, job.suffix, job.said, heads)
    return ops.attend(q, Context(job.prefix, job.prompt, job.suffix, job.said + own), heads)


def make(case: Case, scenes: int, samples: int, per: int, heads: Heads, prompt: int, parts: int) -> Job:
    """Random tensors with ragged lengths and poison beyond them."""
    rows, d = scenes * samples, heads.width
    prefix, suffix = case(2, scenes, heads.keys, prompt + 2, d), case(2, rows, heads.keys, 48 + per, d)
    lengths = torch.tensor([prompt - 7 * b for b in range(scenes)], device=case.device)
    said = torch.randint(1, 48, (rows,), device=case.device, generator=case.generator)
    for b, length in enumerate(lengths.tolist()):
        prefix[:, b, :, length:] = float("nan")
    for r, length in enumerate(said.tolist()):
        suffix[:, r, :, length:] = float("nan")
    rope = tuple(torch.cat([t[:, : d // 2]] * 2, 1) for t in (case(prompt + 200, d), case(prompt + 200, d)))
    at = torch.randint(0, prompt + 200, (rows * per,), device=case.device, generator=case.generator)
    qkv = case(parts, rows * per, (heads.queries + 2 * heads.keys) * d, dtype=torch.float32 if parts > 1 else None)
    return Job(qkv, (case(d), case(d)), rope, at, (prefix[0], prefix[1]), lengths, (suffix[0], suffix[1]), said)


def main() -> None:
    """Checks, and on a GPU times."""
    cuda = torch.cuda.is_available()
    where, dtype = ("cuda", torch.bfloat16) if cuda else ("cpu", torch.float32)
    shapes = (
        (1, 3, 16, SMALL, 130, 2),
        (2, 2, 16, SMALL, 90, 1),
        *(((1, s, 64, EXPERT, 3006, p) for s in (1, 6, 16) for p in (1, 2)) if cuda else ()),
    )
    for shape in shapes:
        job, cut = make(Case(where, dtype, 1), *shape), Cut(128, 64, 8, 3, 96) if cuda else Cut(16, 32, 4, 2)
        print(f"{shape[:3]} prompt {shape[4]} parts {shape[5]}: {error(fused(job, shape[3], cut), apart(job, shape[3])):.2e}")
    if not cuda:
        return
    for samples in (1, 6, 16):
        layers = [make(Case(where, dtype, i), 1, samples, 64, EXPERT, 3006, 2) for i in range(36)]
        print(f"S={samples}, microseconds a layer: apart {graph_us(lambda: [apart(one, EXPERT) for one in layers]) / 36:.2f}")  # noqa: B023
        for cut in (
            Cut(128, 64, 8, 3, 96),
            Cut(128, 64, 8, 3, 112),
            Cut(128, 64, 8, 2, 96),
            Cut(64, 64, 4, 3, 224),
            Cut(128, 64, 8, 3, 264),
        ):
            us = graph_us(lambda: [fused(one, EXPERT, cut) for one in layers]) / 36  # noqa: B023
            print(f"  fused {cut}: {us:.2f}")


if __name__ == "__main__":
    main()
