"""The operations of the fast planner, each a torch function and, on a GPU, the Triton kernel that computes the same.

The torch twin is the oracle of the kernel's test and what runs on the CPU. Letters: M rows (tokens) · R rows of reasoning (scenes x
samples) · P parts of a sum · Hq, Hkv heads · G = Hq / Hkv · d head width.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
import torch.nn.functional as nnf
from torch import nn

from alpamayo_r1.core.options import Sampling
from alpamayo_r1.core.sampling import sample_token
from alpamayo_r1.core.vla import ActionIn

KV = tuple[torch.Tensor, torch.Tensor]

PDL = True
"""Launch kernels with programmatic dependence on their predecessor, where the GPU knows it."""

THIN = 64
"""Up to this many rows a product is bound by reading its weights, and the skinny kernels beat the vendor library."""

PROGRAMS = 264
"""Programs that fill the card twice over: 132 multiprocessors on an H100."""


@cache
def _triton(module: str = "kernels") -> ModuleType:
    """A module of the engine's Triton kernels, imported when it is first launched from: without a GPU there is no Triton."""
    return import_module(f"alpamayo_r1.engine.{module}")


def on_gpu(x: torch.Tensor) -> bool:
    """Whether kernels run on x: a GPU, or Triton's interpreter."""
    return x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def power(n: int, least: int = 1) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << (n - 1).bit_length())


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@cache
def programmatic(device: torch.device) -> bool:
    """Whether a device knows programmatic launches: Hopper and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


_stages: dict[tuple, int] = {}
"""Pipeline stages of kernels that found too little shared memory with more: GPUs other than an H100 may have half of its."""


def _launch(kernel, grid: tuple[int, ...], x: torch.Tensor, *args, warps: int = 4, stages: int = 3, **constants) -> None:
    pdl = PDL and programmatic(x.device)
    options = {"launch_pdl": True} if pdl else {}
    key = (kernel, x.device, x.dtype, warps, stages, *constants.items())
    fewer = _stages.get(key, stages)
    while True:
        try:
            kernel[grid](x, *args, **constants, PDL=pdl, num_warps=warps, num_stages=fewer, **options)
            return
        except Exception as problem:
            if type(problem).__name__ != "OutOfResources" or fewer == 1:
                raise
            fewer = _stages[key] = fewer - 1


# ---------------------------------------------------------------------------------------------------------------------------------- norms


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight for x [M, width]."""
    if not on_gpu(x):
        wide = x.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
    out = torch.empty_like(x)
    m, width = x.shape
    _launch(_triton().rms_norm_kernel, (m,), x, weight, out, width, eps, BLOCK=power(width), warps=norm_warps(m, width))
    return out


def norm_warps(m: int, width: int) -> int:
    """Warps for the norm of one of m rows: few rows leave the card to each of them, and a short wait counts most."""
    return min(16 if m <= THIN else 8, max(4, power(width) // 128))


def add_rms_norm(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x += sum of delta's parts, in place; the norm of the new x. x [M, width], delta [P, M, width]."""
    if not on_gpu(x):
        x += delta.float().sum(0).to(x.dtype)
        return rms_norm(x, weight, eps)
    out = torch.empty_like(x)
    m, width = x.shape
    _launch(
        _triton().add_rms_norm_kernel,
        (m,),
        *(x, delta, weight, out, m, width, eps),
        PARTS=len(delta),
        BLOCK=power(width),
        warps=norm_warps(m, width),
    )
    return out


def add_layer_norm(x: torch.Tensor, delta: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    """x += delta, in place; the layer norm of the new x. x, delta [..., width]."""
    if not on_gpu(x):
        x += delta
        return norm(x)
    out, width = torch.empty_like(x), x.shape[-1]
    _launch(
        _triton().add_layer_norm_kernel,
        (x.numel() // width,),
        *(x, delta, norm.weight, norm.bias, out, width, norm.eps),
        BLOCK=power(width),
    )
    return out


# ------------------------------------------------------------------------------------------------------------------------- linear products


@dataclass(frozen=True)
class Tile:
    """How a product [M, K] x [N, K]^T is cut: rows, columns, depth per step, parts of K, warps, pipeline stages.

    ahead: cache lines of each row of weights that are fetched before the predecessor ends. early: releases the successor at once.
    """

    rows: int
    columns: int
    depth: int
    splits: int
    warps: int
    stages: int
    ahead: int = 0
    early: bool = False


TILES: dict[tuple[str, int, int, int], Tile] = {
    ("linear", 16, 6144, 4096): Tile(16, 32, 128, 2, 4, 4, ahead=16),
    ("linear", 16, 4096, 4096): Tile(16, 32, 128, 3, 4, 4, ahead=8),
    ("swiglu", 16, 12288, 4096): Tile(16, 32, 128, 1, 4, 4, ahead=8),
    ("linear", 16, 4096, 12288): Tile(16, 32, 128, 3, 4, 4, ahead=4),
    ("linear", 16, 155697, 4096): Tile(16, 32, 256, 1, 4, 4),
    ("linear", 64, 4096, 2048): Tile(64, 64, 128, 2, 4, 4, ahead=4, early=True),
    ("linear", 64, 2048, 2048): Tile(64, 64, 128, 4, 4, 4, ahead=4, early=True),
    ("swiglu", 64, 8256, 2048): Tile(64, 64, 128, 1, 4, 3, ahead=2, early=True),
    ("linear", 64, 2048, 8256): Tile(64, 64, 128, 4, 4, 4, ahead=8, early=True),
}
"""(kind, rows to the next power of two, N, K) -> Tile, where measurement beat the default: the 10B's products on an H100."""


def tile(kind: str, x: torch.Tensor, n: int, k: int) -> Tile | None:
    """The tile of a "linear" or "swiglu" product of rows x: enough programs to fill the card, each with a long enough run of K.

    None: a product for the vendor's library, which wants many rows and a GPU, or no GPU at all.
    """
    m, rows = len(x), power(len(x), 16)
    if not on_gpu(x):
        return None
    if (kind, rows, n, k) in TILES:
        return TILES[kind, rows, n, k]
    if m > THIN:
        return None
    columns, depth = (32, 128) if rows <= 32 else (64, 64)
    if kind == "swiglu":
        return Tile(rows, columns, depth, 1, 4, 4)
    programs = ceil_div(n, columns) * ceil_div(m, rows)
    splits = max(1, min(PROGRAMS // programs, k // (4 * depth), 8))
    return Tile(rows, columns, depth, splits, 4, 4)


def linear(x: torch.Tensor, weight: torch.Tensor, *, final: bool = False) -> torch.Tensor:
    """x weight^T as parts whose sum is the product: x [M, K], weight [N, K] -> [P, M, N], fp32 if more than one. final: one part."""
    cut = tile("linear", x, *weight.shape)
    return nnf.linear(x, weight)[None] if cut is None else _linear(x, weight, cut, final)


def _linear(x: torch.Tensor, weight: torch.Tensor, cut: Tile, final: bool) -> torch.Tensor:
    (m, k), n = x.shape, len(weight)
    span = ceil_div(ceil_div(k, cut.depth), 1 if final else cut.splits) * cut.depth
    parts = ceil_div(k, span)
    out = torch.empty(parts, m, n, device=x.device, dtype=x.dtype if parts == 1 else torch.float32)
    _launch(
        _triton().linear_kernel,
        (ceil_div(m, cut.rows), ceil_div(n, cut.columns), parts),
        *(x, weight, out, m, n, k, x.stride(0), span),
        **tiling(cut, x),
    )
    return out


def tiling(cut: Tile, x: torch.Tensor) -> dict[str, int | bool]:
    """What a product kernel over rows x [M, K] takes from its tile."""
    return {
        "BM": cut.rows,
        "BN": cut.columns,
        "BK": cut.depth,
        "EVEN": x.shape[1] % cut.depth == 0,
        "AHEAD": cut.ahead,
        "EARLY": cut.early,
        "IEEE": x.dtype == torch.float32,
        "warps": cut.warps,
        "stages": cut.stages,
    }


def swiglu_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up with [gate | up] = x weight^T: x [M, K], weight [2 I, K] -> [M, I]."""
    cut = tile("swiglu", x, len(weight) // 2, weight.shape[1])
    return swiglu(nnf.linear(x, weight)) if cut is None else _swiglu_linear(x, weight, cut)


def _swiglu_linear(x: torch.Tensor, weight: torch.Tensor, cut: Tile) -> torch.Tensor:
    (m, k), n = x.shape, len(weight) // 2
    out = torch.empty(m, n, device=x.device, dtype=x.dtype)
    _launch(
        _triton().swiglu_linear_kernel,
        (ceil_div(m, cut.rows), ceil_div(n, cut.columns)),
        *(x, weight, out, m, n, k, x.stride(0)),
        **tiling(cut, x),
    )
    return out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up of rows [gate | up], in place: [M, 2 I] -> its first half [M, I]."""
    gate, up = gate_up.chunk(2, -1)
    if not on_gpu(gate_up):
        return gate.copy_(nnf.silu(gate) * up)
    m, width = gate.shape
    block = min(2048, power(width))
    _launch(_triton().swiglu_kernel, (m, ceil_div(width, block)), gate_up, width, BLOCK=block, warps=8)
    return gate


def linear_gelu(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """gelu(x weight^T + bias), tanh form; on a GPU the library's product ends in it, before it rounds.

    Not in fp32: the library's tanh is an approximation that bf16 does not show, but that made vision three times less exact there.
    """
    if not x.is_cuda or x.dtype == torch.float32:
        return nnf.gelu(linear(x), approximate="tanh")
    return torch._addmm_activation(linear.bias, x.flatten(0, -2), linear.weight.T, use_gelu=True).view(*x.shape[:-1], -1)


def action_features(x: torch.Tensor, t: float, projection: ActionIn, dtype: torch.dtype) -> torch.Tensor:
    """What the action projection's trunk reads of x f32[R, F, 2] and the time t: [R F, 3 features]."""
    parts = (*projection.sinus, projection.timestep_fourier_encoder)
    if not on_gpu(x):
        features = [part(u) for part, u in zip(parts, (x[..., 0], x[..., 1], torch.full(x.shape[:2], t, device=x.device)), strict=True)]
        return torch.cat(features, -1).flatten(0, 1).to(dtype)
    freqs = [part.freqs for part in parts]
    half = freqs[0].numel()
    out = torch.empty(x.shape[:2].numel(), 6 * half, device=x.device, dtype=dtype)
    _launch(_triton().action_features_kernel, (len(out),), x.contiguous(), t, *freqs, out, HALF=half, WIDE=power(half), warps=1)
    return out


def row_dots(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """The product with a layer of a few outputs, rounded to its dtype: [M, K] -> f32[M, n]."""
    if not on_gpu(x):
        return linear(x).float()
    count, width = linear.weight.shape
    out = torch.empty(len(x), count, device=x.device, dtype=torch.float32)
    _launch(_triton().row_dots_kernel, (len(x),), x, linear.weight, linear.bias, out, width, COUNT=count, BLOCK=power(width))
    return out


# ------------------------------------------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True)
class Heads:
    """The heads of one stack: queries, keys and values, width, and the norms' epsilon."""

    queries: int
    keys: int
    width: int
    eps: float

    @property
    def group(self) -> int:
        """Query heads that share one key head."""
        return self.queries // self.keys


def rope_write(
    qkv: torch.Tensor,
    norms: tuple[torch.Tensor, torch.Tensor],
    rope: tuple[torch.Tensor, torch.Tensor],
    at: torch.Tensor,
    cache: KV,
    slot: torch.Tensor,
    heads: Heads,
) -> torch.Tensor:
    """Normalises and rotates queries and keys, writes keys and values into a cache, returns the queries [M, Hq, d].

    qkv [P, M, (Hq + 2 Hkv) d] in parts. norms: q and k weights [d]. rope: cos and sin [positions, d], row `at[m]` for token m.
    cache: two views [groups, Hkv, capacity, d]. slot i64[groups]: the j-th token of a group, in order, goes to slot + j.
    """
    m = qkv.shape[1]
    keys, values = cache
    groups = len(keys)
    if on_gpu(qkv):
        q = torch.empty(m, heads.queries, heads.width, device=qkv.device, dtype=keys.dtype)
        _launch(
            _triton().rope_write_kernel,
            (m, heads.keys),
            *(qkv, *norms, *rope, at, q, keys, values, slot, slot.stride(0), m, m // groups, keys.stride(1), heads.eps),
            HQ=heads.queries,
            HKV=heads.keys,
            G=heads.group,
            GP=power(heads.group),
            HALF=heads.width // 2,
            PARTS=len(qkv),
            warps=1,
        )
        return q
    qkv = qkv.float().sum(0).to(keys.dtype).view(m, -1, heads.width)
    q, k, v = qkv.split([heads.queries, heads.keys, heads.keys], 1)
    cos, sin = (table[at].float()[:, None] for table in rope)
    q, k = (_rotate(rms_norm(y, w, heads.eps).float(), cos, sin).to(keys.dtype) for y, w in zip((q, k), norms, strict=True))
    for cached, new in zip(cache, (k, v), strict=True):
        for group, tokens in enumerate(new.view(groups, -1, heads.keys, heads.width)):
            cached[group, :, slot[group] : slot[group] + len(tokens)] = tokens.transpose(0, 1)
    return q


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


@dataclass(frozen=True)
class Context:
    """What the new tokens of R rows may see: their scene's prompt and what stands in the row's own suffix, themselves included."""

    prefix: KV  # [B, Hkv, capacity, d] each
    prompt: torch.Tensor  # (B,) i64: valid keys of the prefix
    suffix: KV  # [R, Hkv, capacity, d] each
    seen: torch.Tensor  # (R,) i64: valid keys of the suffix; may be an expanded scalar


@dataclass(frozen=True)
class Cut:
    """How attention over the prompt is cut: query rows and keys at a time, warps, pipeline stages, programs aimed at."""

    rows: int
    keys: int
    warps: int
    stages: int
    programs: int = PROGRAMS


CUTS: dict[int, Cut] = {
    16: Cut(16, 32, 2, 4, 528),
    64: Cut(64, 64, 4, 3, 132),
    128: Cut(128, 64, 8, 3, 96),
    1024: Cut(128, 64, 8, 3, 132),
    2048: Cut(128, 64, 8, 3, 264),
}
"""Query rows of a head to the next power of two -> Cut, where measurement on an H100 beat the default (2,048: by 16 samples in parts)."""


def attend_cut(rows: int) -> Cut:
    """The cut for so many query rows of a head."""
    rows = power(rows, 16)
    return CUTS.get(rows) or Cut(min(64, rows), 64, 4, 2)


WHOLE = Cut(128, 64, 8, 3, 132)
"""The cut where tiles of query rows alone fill the card, so that none needs to be merged."""


def fits_whole(cut: Cut, all_rows: int, head_rows: int) -> bool:
    """Whether tiles keep nine of ten programs of a wave busy: all_rows of all samples and heads, head_rows of one sample and KV head."""
    programs = all_rows // cut.rows
    return head_rows % cut.rows == 0 and programs >= 0.9 * cut.programs * ceil_div(programs, cut.programs)


def attend(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    """Attention without a mask of q [R * n, Hq, d] (n tokens a row) over prompt and suffix -> [R * n, Hq d]."""
    if not on_gpu(q):
        return _attend_rows(q, context, heads)
    per = len(q) // len(context.seen)
    if fits_whole(WHOLE, len(q) * heads.queries, per * heads.group):
        return _attend_whole(q, context, heads, WHOLE)
    return _attend_parts(q, context, heads)


def _attention_arguments(q: torch.Tensor, context: Context, heads: Heads) -> tuple[tuple, tuple, dict[str, int | bool]]:
    """What both kernels of attention take: tensors, numbers, and constants."""
    scenes, rows = len(context.prompt), len(context.seen)
    tensors = q, *context.prefix, context.prompt, *context.suffix, context.seen, context.seen.stride(0)
    scale = heads.width**-0.5 * math.log2(math.e)
    numbers = scale, rows // scenes, len(q) // rows, context.prefix[0].shape[2], context.suffix[0].shape[2]
    constants = {"HQ": heads.queries, "HKV": heads.keys, "G": heads.group, "D": heads.width, "IEEE": q.dtype == torch.float32}
    return tensors, numbers, constants


def _attend_whole(q: torch.Tensor, context: Context, heads: Heads, cut: Cut) -> torch.Tensor:
    """Prompt and suffix by one program for each tile of a sample's query rows."""
    tensors, numbers, constants = _attention_arguments(q, context, heads)
    out = torch.empty(len(q), heads.queries * heads.width, device=q.device, dtype=q.dtype)
    scenes = len(context.prompt)
    grid = len(q) // scenes * heads.group // cut.rows, scenes * heads.keys
    constants |= {"BM": cut.rows, "BN": cut.keys, "warps": cut.warps, "stages": cut.stages}
    _launch(_triton().attend_whole_kernel, grid, *tensors, out, *numbers, **constants)
    return out


def _attend_parts(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    """The prompt in parts, read once for all samples of a scene, and each suffix; then what they give is merged by their masses."""
    scenes, rows = len(context.prompt), len(context.seen)
    samples, per, d = rows // scenes, len(q) // rows, heads.width
    cut, tm = attend_cut(samples * per * heads.group), min(64, power(per * heads.group, 16))
    tiles, tail_tiles = ceil_div(samples * per * heads.group, cut.rows), ceil_div(per * heads.group, tm)
    splits = max(1, min(cut.programs // (tiles * heads.keys * scenes), 31))  # whatever the buffers' capacity: it must not change a bit
    parts = splits + 1
    acc = torch.empty(parts, len(q), heads.queries, d, device=q.device, dtype=torch.float32)
    lse = torch.empty(parts, len(q), heads.queries, device=q.device, dtype=torch.float32)
    tensors, numbers, constants = _attention_arguments(q, context, heads)
    constants |= {"BM": cut.rows, "TM": tm, "BN": cut.keys, "TN": 64 if tm > 16 else 32, "warps": cut.warps, "stages": cut.stages}
    _launch(
        _triton().attend_kernel,
        (tiles * splits + samples * tail_tiles, scenes * heads.keys),
        *(*tensors, acc, lse, *numbers, len(q), splits, tiles, tail_tiles),
        **constants,
    )
    out = torch.empty(len(q), heads.queries * d, device=q.device, dtype=q.dtype)
    pairs, some = len(q) * heads.queries, max(1, 16 // power(parts))
    _launch(_triton().merge_kernel, (ceil_div(pairs, some),), acc, lse, out, pairs, parts, D=d, PARTS=power(parts), PAIRS=some, warps=1)
    return out


def _attend_rows(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    rows = len(context.seen)
    out = []
    for row, queries in enumerate(q.view(rows, -1, heads.queries, heads.width)):
        scene = row * len(context.prompt) // rows
        prefix = (cached[scene, :, : context.prompt[scene]] for cached in context.prefix)
        suffix = (cached[row, :, : context.seen[row]] for cached in context.suffix)
        keys, values = (torch.cat(pair, 1)[None] for pair in zip(prefix, suffix, strict=True))
        attended = nnf.scaled_dot_product_attention(queries.transpose(0, 1)[None], keys, values, enable_gqa=True)
        out.append(attended[0].transpose(0, 1).flatten(1))
    return torch.cat(out)


def vision_rope(qkv: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotates queries and keys of qkv [N, places, 3, heads, d] in place by fp32 tables [places, d]; returns qkv."""
    n, places, _, heads, d = qkv.shape
    if not on_gpu(qkv):
        turned = _rotate(qkv[:, :, :2].float(), *(table[:, None, None] for table in rope))
        qkv[:, :, :2] = turned.to(qkv.dtype)
        return qkv
    _triton().vision_rope_kernel[(n * places,)](
        qkv, *rope, places, HEADS=heads, ROWS=power(2 * heads), HALF=d // 2, WIDE=power(d // 2), num_warps=4
    )
    return qkv


# ------------------------------------------------------------------------------------------------------------------------- drawing tokens

DRAW_BLOCK = 2048
"""Logits that a program of the drawing kernels takes."""


def draw_tokens(logits: torch.Tensor, blocked: torch.Tensor, uniform: torch.Tensor, config: Sampling) -> torch.Tensor:
    """`sampling.sample_token` of logits [R, vocab] without the tokens of blocked bool[vocab], by uniform f32[R] -> ids i64[R].

    On a GPU without a sort, but for top-k.
    """
    if not on_gpu(logits) or config.temperature == 0 or config.top_k is not None:
        return sample_token(logits.float().masked_fill(blocked, -torch.inf), uniform, config)
    logits, uniform, (rows, vocab) = logits.contiguous(), uniform.contiguous(), logits.shape
    blocks, bits = ceil_div(vocab, DRAW_BLOCK), 16 if logits.dtype == torch.bfloat16 else 32

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(*shape, device=logits.device, dtype=dtype)

    peaks, ties = empty(rows, blocks, dtype=torch.long), empty(rows, blocks, dtype=torch.int32)
    weights, above = empty(rows, vocab, dtype=torch.float64), empty(rows, blocks, dtype=torch.float64)
    kernels, grid, given, size = _triton("drawing"), (rows, blocks), (logits, blocked.view(torch.uint8)), (vocab, blocks)
    masses, out = empty(bits // 4, rows, blocks, kernels.RANGES.value, dtype=torch.float64), empty(rows, dtype=torch.long)
    temperature, top_p = float(config.temperature), float(config.top_p)
    shape = {"BITS": bits, "BLOCK": DRAW_BLOCK, "warps": 8}
    _launch(kernels.peaks_kernel, grid, *given, peaks, *size, **shape)
    shape["MANY"] = power(blocks)
    _launch(kernels.weigh_kernel, grid, *given, peaks, weights, *size, temperature, **shape)
    for passed in range(bits // 4):
        _launch(kernels.narrow_kernel, grid, *given, weights, masses, *size, top_p, passed, **shape)
    found = weights, masses, above, ties
    _launch(kernels.tally_kernel, grid, *given, *found, *size, top_p, **shape)
    _launch(kernels.choose_kernel, (rows,), *given, *found, peaks, uniform, out, *size, top_p, temperature, **shape)
    return out
