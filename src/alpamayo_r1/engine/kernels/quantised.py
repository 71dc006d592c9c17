"""Products with weights of few bits: codes become numbers of the inputs' type in registers, exactly, and sums are scaled in fp32.

KIND 0: e4m3, a scale per row. 1: int8, a scale per DEPTH columns. 2: int4 in halves of blocks of DEPTH columns, see core/quantised.py.
PACK: codes become bf16 two or four at a time, by bits: a byte behind 0x43 is the bf16 number 128 + byte. 0: one by one, by conversion.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alpamayo_r1.engine.kernels.common import _prefetch, _release, _wait


def _assembly(body: str, low: str, high: str, before: str = "") -> tuple[tl.constexpr, tl.constexpr]:
    """Assembly that makes bf16 numbers of two codes, and of four, which lie in t.

    In body OUT are two numbers, PICK says which two bytes of t become them, LESS is the other operand's pair of numbers.
    """

    def text(source: str, parts: list[tuple[str, str, str]]) -> tl.constexpr:
        made = "".join(body.replace("OUT", out).replace("LESS", less).replace("PICK", pick) for out, less, pick in parts)
        registers = ".reg .b32 a, c, t, one, big, nought; mov.b32 one, 0x3f803f80; mov.b32 big, 0x7b807b80; mov.b32 nought, 0x80008000;"
        return tl.constexpr(f"{{ {registers} mov.b32 t, {source}; {before} {made} }}")

    return text("$1", [("$0", "$2", low)]), text("$2", [("$0", "$3", low), ("$1", "$4", high)])


_E4M3_2, _E4M3_4 = _assembly(
    """prmt.b32 a, t, 0, PICK; and.b32 c, a, 0x7fff7fff; shr.u32 c, c, 4; lop3.b32 a, a, 0x80008000, c, 0xea;
    fma.rn.bf16x2 OUT, a, big, nought;""",
    "0x1404",
    "0x3424",
)
_INT8_2, _INT8_4 = _assembly(
    """prmt.b32 a, t, 0, PICK; lop3.b32 c, a, 0x00800080, 0xc300c300, 0xea; lop3.b32 a, a, 0x007f007f, 0x43004300, 0xea;
    fma.rn.bf16x2 OUT, a, one, c;""",
    "0x4140",
    "0x4342",
)
_NIBBLES = "prmt.b32 a, t, 0x43434343, PICK; fma.rn.bf16x2 OUT, a, one, LESS;"
_LOW_2, _LOW_4 = _assembly(_NIBBLES, "0x4140", "0x4342", "and.b32 t, t, 0x0f0f0f0f;")
_HIGH_2, _HIGH_4 = _assembly(_NIBBLES, "0x4140", "0x4342", "shr.u32 t, t, 4; and.b32 t, t, 0x0f0f0f0f;")


@triton.jit
def _by_two(codes, TEXT: tl.constexpr):
    return tl.inline_asm_elementwise(TEXT, "=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=2)


@triton.jit
def _by_four(codes, TEXT: tl.constexpr):
    return tl.inline_asm_elementwise(TEXT, "=r,=r,r", [codes], dtype=tl.bfloat16, is_pure=True, pack=4)


@triton.jit
def _from_e4m3(codes, like, PACK: tl.constexpr):
    """e4m3 codes u8 as numbers: their bits are those of a bf16 number 2^120 times smaller."""
    if PACK == 2:
        return _by_two(codes, _E4M3_2)
    elif PACK == 4:
        return _by_four(codes, _E4M3_4)
    else:
        wide = codes.to(tl.uint32)
        bits = ((wide & 0x80) << 24) | ((wide & 0x7F) << 20)
        return (bits.to(tl.float32, bitcast=True) * 1.329227995784916e36).to(like)


@triton.jit
def _from_int8(codes, like, PACK: tl.constexpr):
    """int8 codes as numbers: 128 + (c & 127) - (128 or, of negative ones, 256)."""
    if PACK == 2:
        return _by_two(codes, _INT8_2)
    elif PACK == 4:
        return _by_four(codes, _INT8_4)
    else:
        return codes.to(tl.float32).to(like)


@triton.jit
def _from_int4(codes, zero, like, HIGH: tl.constexpr, PACK: tl.constexpr):
    """The low or the high four bits of u8 codes [BN, half], less the zero points u8 [BN]."""
    if PACK > 0:
        less = tl.broadcast_to((-128.0 - zero.to(tl.float32)).to(tl.bfloat16)[:, None], codes.shape)
        if PACK == 2:
            TWO: tl.constexpr = _HIGH_2 if HIGH else _LOW_2
            return tl.inline_asm_elementwise(TWO, "=r,r,r", [codes, less], dtype=tl.bfloat16, is_pure=True, pack=2)
        else:
            FOUR: tl.constexpr = _HIGH_4 if HIGH else _LOW_4
            return tl.inline_asm_elementwise(FOUR, "=r,=r,r,r,r", [codes, less], dtype=tl.bfloat16, is_pure=True, pack=4)
    else:
        nibbles = (codes >> 4) if HIGH else (codes & 15)
        return (nibbles.to(tl.float32) - zero.to(tl.float32)[:, None]).to(like)


@triton.jit
def _times(inputs, w, acc, SWAP: tl.constexpr, IEEE: tl.constexpr):
    """inputs w^T, or turned: w inputs^T; added to acc where there is one."""
    precision: tl.constexpr = "ieee" if IEEE else None
    if SWAP:
        return tl.dot(w, inputs.T, acc, input_precision=precision)
    else:
        return tl.dot(inputs, w.T, acc, input_precision=precision)


@triton.jit
def _scaled(part, scale, SWAP: tl.constexpr):
    """A product of `_times` by the scales of the weight's rows."""
    if SWAP:
        return part * scale.to(tl.float32)[:, None]
    else:
        return part * scale.to(tl.float32)[None, :]


@triton.jit
def _product(
    x, codes, scale, zero, cols, rows, m, k, scale_stride, first, last, BM: tl.constexpr, BN: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, PACK: tl.constexpr, IEEE: tl.constexpr, SWAP: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """sum x[ks] w[cols, ks]^T over first <= ks < last: [BM, BN] in fp32. x points at the starts of rows; cols are rows of the weight.

    SWAP: the weight is the matrix unit's first operand: it goes there from registers, and few rows of x fill the second one.
    """
    kind = x.dtype.element_ty
    inside = (rows < m)[:, None]
    acc = tl.zeros((BN if SWAP else BM, BM if SWAP else BN), tl.float32)
    scale += cols
    if KIND == 0:
        codes += cols[:, None].to(tl.int64) * k
        for start in tl.range(first, last, DEPTH, loop_unroll_factor=UNROLL):
            ks = start + tl.arange(0, DEPTH)
            if EVEN:
                some = tl.load(codes + ks[None, :], eviction_policy="evict_first")
                inputs = tl.load(x + ks[None, :], mask=inside, other=0.0)
            else:
                some = tl.load(codes + ks[None, :], mask=ks[None, :] < last, other=0)
                inputs = tl.load(x + ks[None, :], mask=inside & (ks[None, :] < last), other=0.0)
            acc = _times(inputs, _from_e4m3(some, kind, PACK), acc, SWAP, IEEE)
        acc = _scaled(acc, tl.load(scale), SWAP)
    elif KIND == 1:
        codes += cols[:, None].to(tl.int64) * k
        end = last // DEPTH - 1
        s = tl.load(scale + first // DEPTH * scale_stride)
        for start in tl.range(first, last, DEPTH, loop_unroll_factor=UNROLL):
            after = tl.load(scale + tl.minimum(start // DEPTH + 1, end) * scale_stride)
            ks = start + tl.arange(0, DEPTH)
            some = tl.load(codes + ks[None, :], eviction_policy="evict_first")
            inputs = tl.load(x + ks[None, :], mask=inside, other=0.0)
            acc += _scaled(_times(inputs, _from_int8(some, kind, PACK), None, SWAP, IEEE), s, SWAP)
            s = after
    else:
        HALF: tl.constexpr = DEPTH // 2
        codes += cols[:, None].to(tl.int64) * (k // 2)
        zero += cols
        at, then = first // GROUP * scale_stride, (first + HALF) // GROUP * scale_stride
        s, z, s2, z2 = tl.load(scale + at), tl.load(zero + at), tl.load(scale + then), tl.load(zero + then)
        for start in tl.range(first, last, DEPTH, loop_unroll_factor=UNROLL):
            after = tl.minimum(start + DEPTH, last - DEPTH)  # scales are asked for a step ahead: they take longer than a step
            at, then = after // GROUP * scale_stride, (after + HALF) // GROUP * scale_stride
            s_after, z_after, s2_after, z2_after = tl.load(scale + at), tl.load(zero + at), tl.load(scale + then), tl.load(zero + then)
            js = tl.arange(0, HALF)
            some = tl.load(codes + (start // 2 + js)[None, :], eviction_policy="evict_first")
            low = tl.load(x + (start + js)[None, :], mask=inside, other=0.0)
            high = tl.load(x + (start + HALF + js)[None, :], mask=inside, other=0.0)
            acc += _scaled(_times(low, _from_int4(some, z, kind, False, PACK), None, SWAP, IEEE), s, SWAP)
            acc += _scaled(_times(high, _from_int4(some, z2, kind, True, PACK), None, SWAP, IEEE), s2, SWAP)
            s, z, s2, z2 = s_after, z_after, s2_after, z2_after
    if SWAP:
        return acc.T
    else:
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
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, PACK: tl.constexpr, IEEE: tl.constexpr, SWAP: tl.constexpr,
    UNROLL: tl.constexpr, AHEAD: tl.constexpr, PDL: tl.constexpr,
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
    of = (x, codes, scale, zero, safe, rows, m, k, scale_stride)
    acc = _product(*of, first, last, BM, BN, DEPTH, GROUP, KIND, EVEN, PACK, IEEE, SWAP, UNROLL)
    _release(PDL)
    place = (split * m + rows[:, None]) * n + cols[None, :]
    tl.store(out + place, acc, mask=(rows[:, None] < m) & (cols[None, :] < n))


@triton.jit(do_not_specialize=["m"])
def swiglu_linear_kernel(
    x, codes, scale, zero, out, m, n, k, x_stride, scale_stride, BM: tl.constexpr, BN: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, EVEN: tl.constexpr, PACK: tl.constexpr, IEEE: tl.constexpr, SWAP: tl.constexpr,
    UNROLL: tl.constexpr, AHEAD: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """out[m, n] = silu(x w[n]^T) * (x w[N + n]^T): BN rows of the weight, half of them gates and half of them what they let through."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    one = tl.program_id(1) * (BN // 2) + tl.arange(0, BN) % (BN // 2)
    safe = tl.minimum(one, n - 1) + n * (tl.arange(0, BN) // (BN // 2))
    _ahead(codes, safe, k // 2 if KIND == 2 else k, 0, AHEAD, PDL)
    _wait(PDL)
    x += rows[:, None] * x_stride
    acc = _product(x, codes, scale, zero, safe, rows, m, k, scale_stride, 0, k, BM, BN, DEPTH, GROUP, KIND, EVEN, PACK, IEEE, SWAP, UNROLL)
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
    PACK: tl.constexpr, PDL: tl.constexpr,
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
        low = _from_int4(some, tl.load(zero + at), kind, False, PACK).to(tl.float32) * tl.load(scale + at).to(tl.float32)[:, None]
        tl.store(out + (start + js)[None, :], low.to(kind), mask=mask)
        at = (start + HALF) // GROUP * scale_stride + safe
        high = _from_int4(some, tl.load(zero + at), kind, True, PACK).to(tl.float32) * tl.load(scale + at).to(tl.float32)[:, None]
        tl.store(out + (start + HALF + js)[None, :], high.to(kind), mask=mask)
    else:
        ks = start + tl.arange(0, DEPTH)
        some = tl.load(codes + safe[:, None].to(tl.int64) * k + ks[None, :], mask=mask & (ks < k)[None, :], other=0)
        values = _from_e4m3(some, kind, PACK) if KIND == 0 else _from_int8(some, kind, PACK)
        factor = tl.load(scale + (0 if KIND == 0 else start // GROUP * scale_stride) + safe).to(tl.float32)
        tl.store(out + ks[None, :], (values.to(tl.float32) * factor[:, None]).to(kind), mask=mask & (ks < k)[None, :])
