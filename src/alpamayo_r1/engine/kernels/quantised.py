"""Products with weights of few bits: codes become numbers of the inputs' type in registers, exactly, and sums are scaled in fp32.

KIND 0: e4m3, a scale per row. 1: int8, a scale per DEPTH columns. 2: int4 in halves of blocks of DEPTH columns, see core/quantised.py.
FAST: codes become bf16 four at a time, by bits: a byte behind 0x43 is the bf16 number 128 + byte.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _prefetch, _release, _wait


@triton.jit
def _from_e4m3(codes, like, FAST: tl.constexpr):
    """e4m3 codes u8 as numbers: their bits are those of a bf16 number 2^120 times smaller."""
    if FAST:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 a, b, c, d, big, nought;
            mov.b32 big, 0x7b807b80; mov.b32 nought, 0x80008000;
            prmt.b32 a, $2, 0, 0x1404; prmt.b32 b, $2, 0, 0x3424;
            and.b32 c, a, 0x7fff7fff; and.b32 d, b, 0x7fff7fff;
            shr.u32 c, c, 4; shr.u32 d, d, 4;
            and.b32 a, a, 0x80008000; and.b32 b, b, 0x80008000;
            or.b32 a, a, c; or.b32 b, b, d;
            fma.rn.bf16x2 $0, a, big, nought; fma.rn.bf16x2 $1, b, big, nought; }""",
            "=r,=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=4,
        )  # fmt: skip
    wide = codes.to(tl.uint32)
    bits = ((wide & 0x80) << 24) | ((wide & 0x7F) << 20)
    return (bits.to(tl.float32, bitcast=True) * 1.329227995784916e36).to(like)


@triton.jit
def _from_int8(codes, like, FAST: tl.constexpr):
    """int8 codes as numbers: 128 + (c & 127) - (128 or, of negative ones, 256)."""
    if FAST:
        return tl.inline_asm_elementwise(
            """{ .reg .b32 a, b, c, d, one;
            mov.b32 one, 0x3f803f80;
            prmt.b32 a, $2, 0x43434343, 0x4140; prmt.b32 b, $2, 0x43434343, 0x4342;
            and.b32 c, a, 0xff80ff80; and.b32 d, b, 0xff80ff80;
            xor.b32 c, c, 0x80008000; xor.b32 d, d, 0x80008000;
            and.b32 a, a, 0xff7fff7f; and.b32 b, b, 0xff7fff7f;
            fma.rn.bf16x2 $0, a, one, c; fma.rn.bf16x2 $1, b, one, d; }""",
            "=r,=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=4,
        )  # fmt: skip
    return codes.to(tl.float32).to(like)


@triton.jit
def _from_int4(codes, zero, like, HIGH: tl.constexpr, FAST: tl.constexpr):
    """The low or the high four bits of u8 codes [BN, half], less the zero points u8 [BN]."""
    if FAST:
        less = tl.broadcast_to((-128.0 - zero.to(tl.float32)).to(tl.bfloat16)[:, None], codes.shape)
        SHIFT: tl.constexpr = "shr.u32 t, $2, 4;" if HIGH else "mov.b32 t, $2;"
        return tl.inline_asm_elementwise(
            "{ .reg .b32 a, b, t, one; mov.b32 one, 0x3f803f80;" + SHIFT + """
            and.b32 t, t, 0x0f0f0f0f;
            prmt.b32 a, t, 0x43434343, 0x4140; prmt.b32 b, t, 0x43434343, 0x4342;
            fma.rn.bf16x2 $0, a, one, $3; fma.rn.bf16x2 $1, b, one, $4; }""",
            "=r,=r,r,r,r", [codes, less], dtype=tl.bfloat16, is_pure=True, pack=4,
        )  # fmt: skip
    nibbles = (codes >> 4) if HIGH else (codes & 15)
    return (nibbles.to(tl.float32) - zero.to(tl.float32)[:, None]).to(like)


@triton.jit
def _product(
    x, codes, scale, zero, cols, rows, m, k, scale_stride, first, last, BM: tl.constexpr, BN: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, FAST: tl.constexpr, IEEE: tl.constexpr,
):  # fmt: skip
    """sum x[ks] w[cols, ks]^T over first <= ks < last: [BM, BN] in fp32. x points at the starts of rows; cols are rows of the weight."""
    kind = x.dtype.element_ty
    precision: tl.constexpr = "ieee" if IEEE else None
    inside = (rows < m)[:, None]
    acc = tl.zeros((BM, BN), tl.float32)
    scale += cols
    if KIND == 0:
        codes += cols[:, None].to(tl.int64) * k
        for start in range(first, last, DEPTH):
            ks = start + tl.arange(0, DEPTH)
            if EVEN:
                some = tl.load(codes + ks[None, :], eviction_policy="evict_first")
                inputs = tl.load(x + ks[None, :], mask=inside, other=0.0)
            else:
                some = tl.load(codes + ks[None, :], mask=ks[None, :] < last, other=0)
                inputs = tl.load(x + ks[None, :], mask=inside & (ks[None, :] < last), other=0.0)
            acc = tl.dot(inputs, _from_e4m3(some, kind, FAST).T, acc, input_precision=precision)
        acc *= tl.load(scale)[None, :]
    elif KIND == 1:
        codes += cols[:, None].to(tl.int64) * k
        end = last // DEPTH - 1
        s = tl.load(scale + first // DEPTH * scale_stride)
        for start in range(first, last, DEPTH):
            after = tl.load(scale + tl.minimum(start // DEPTH + 1, end) * scale_stride)
            ks = start + tl.arange(0, DEPTH)
            some = tl.load(codes + ks[None, :], eviction_policy="evict_first")
            inputs = tl.load(x + ks[None, :], mask=inside, other=0.0)
            part = tl.dot(inputs, _from_int8(some, kind, FAST).T, input_precision=precision)
            acc += part * s.to(tl.float32)[None, :]
            s = after
    else:
        HALF: tl.constexpr = DEPTH // 2
        codes += cols[:, None].to(tl.int64) * (k // 2)
        zero += cols
        s, z = tl.load(scale + first // GROUP * scale_stride), tl.load(zero + first // GROUP * scale_stride)
        for start in range(first, last, DEPTH):
            second = (start + HALF) // GROUP * scale_stride
            later = tl.minimum(start + DEPTH, k - HALF) // GROUP * scale_stride
            s2, z2 = tl.load(scale + second), tl.load(zero + second)
            after, z_after = tl.load(scale + later), tl.load(zero + later)
            js = tl.arange(0, HALF)
            some = tl.load(codes + (start // 2 + js)[None, :], eviction_policy="evict_first")
            low = tl.load(x + (start + js)[None, :], mask=inside, other=0.0)
            high = tl.load(x + (start + HALF + js)[None, :], mask=inside, other=0.0)
            part = tl.dot(low, _from_int4(some, z, kind, False, FAST).T, input_precision=precision)
            acc += part * s.to(tl.float32)[None, :]
            part = tl.dot(high, _from_int4(some, z2, kind, True, FAST).T, input_precision=precision)
            acc += part * s2.to(tl.float32)[None, :]
            s, z = after, z_after
    return acc


@triton.jit
def _ahead(codes, cols, bytes_per_row, at, AHEAD: tl.constexpr, PDL: tl.constexpr):
    """Asks for the first cache lines of the weight's rows before the predecessor ends."""
    if PDL and AHEAD > 0:
        line = tl.minimum(at + tl.arange(0, AHEAD) * 128, bytes_per_row - 1)
        _prefetch(codes + cols[:, None].to(tl.int64) * bytes_per_row + line[None, :])


@triton.jit(do_not_specialize=["m"])
def linear_kernel(
    x, codes, scale, zero, out, m, n, k, x_stride, scale_stride, span, BM: tl.constexpr, BN: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, FAST: tl.constexpr, IEEE: tl.constexpr, AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """out[split, m, n] = x[m, ks] w[n, ks]^T over the split's `span` of k."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    cols = tl.program_id(1) * BN + tl.arange(0, BN)
    split = tl.program_id(2)
    first = split * span
    last = tl.minimum(first + span, k)
    safe = tl.minimum(cols, n - 1)
    _ahead(codes, safe, k // 2 if KIND == 2 else k, first // 2 if KIND == 2 else first, AHEAD, PDL)
    _wait(PDL)
    x += rows[:, None] * x_stride
    acc = _product(x, codes, scale, zero, safe, rows, m, k, scale_stride, first, last, BM, BN, DEPTH, GROUP, KIND, EVEN, FAST, IEEE)
    _release(PDL)
    place = (split * m + rows[:, None]) * n + cols[None, :]
    tl.store(out + place, acc, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit(do_not_specialize=["m"])
def swiglu_linear_kernel(
    x, codes, scale, zero, out, m, n, k, x_stride, scale_stride, BM: tl.constexpr, BN: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, FAST: tl.constexpr, IEEE: tl.constexpr, AHEAD: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """out[m, n] = silu(x w[n]^T) * (x w[N + n]^T): BN rows of the weight, half of them gates and half of them what they let through."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    one = tl.program_id(1) * (BN // 2) + tl.arange(0, BN) % (BN // 2)
    safe = tl.minimum(one, n - 1) + n * (tl.arange(0, BN) // (BN // 2))
    _ahead(codes, safe, k // 2 if KIND == 2 else k, 0, AHEAD, PDL)
    _wait(PDL)
    x += rows[:, None] * x_stride
    acc = _product(x, codes, scale, zero, safe, rows, m, k, scale_stride, 0, k, BM, BN, DEPTH, GROUP, KIND, EVEN, FAST, IEEE)
    _release(PDL)
    gate, up = tl.split(acc.reshape(BM, 2, BN // 2).permute(0, 2, 1))
    kind = out.dtype.element_ty
    gate = gate.to(kind).to(tl.float32)
    value = (gate * tl.sigmoid(gate)).to(kind) * up.to(kind)
    cols = tl.program_id(1) * (BN // 2) + tl.arange(0, BN // 2)
    tl.store(out + rows[:, None] * n + cols[None, :], value, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit
def dequantise_kernel(
    codes, scale, zero, out, n, k, scale_stride, BN: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr, KIND: tl.constexpr,
    FAST: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[n, k] = w: BN rows, DEPTH columns of one scale, or of int4 two halves of them."""
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    start = tl.program_id(1) * DEPTH
    kind = out.dtype.element_ty
    mask = (rows < n)[:, None]
    safe = tl.minimum(rows, n - 1)
    _release(PDL)
    _wait(PDL)
    out += rows[:, None].to(tl.int64) * k
    if KIND == 2:
        HALF: tl.constexpr = DEPTH // 2
        js = tl.arange(0, HALF)
        some = tl.load(codes + safe[:, None].to(tl.int64) * (k // 2) + (start // 2 + js)[None, :])
        at = start // GROUP * scale_stride + safe
        low = _from_int4(some, tl.load(zero + at), kind, False, FAST).to(tl.float32) * tl.load(scale + at).to(tl.float32)[:, None]
        tl.store(out + (start + js)[None, :], low.to(kind), mask=mask)
        at = (start + HALF) // GROUP * scale_stride + safe
        high = _from_int4(some, tl.load(zero + at), kind, True, FAST).to(tl.float32) * tl.load(scale + at).to(tl.float32)[:, None]
        tl.store(out + (start + HALF + js)[None, :], high.to(kind), mask=mask)
    else:
        ks = start + tl.arange(0, DEPTH)
        some = tl.load(codes + safe[:, None].to(tl.int64) * k + ks[None, :], mask=mask & (ks < k)[None, :], other=0)
        values = _from_e4m3(some, kind, FAST) if KIND == 0 else _from_int8(some, kind, FAST)
        factor = tl.load(scale + (0 if KIND == 0 else start // GROUP * scale_stride) + safe).to(tl.float32)
        tl.store(out + ks[None, :], (values.to(tl.float32) * factor[:, None]).to(kind), mask=mask & (ks < k)[None, :])
