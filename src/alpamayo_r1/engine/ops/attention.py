"""Attention of new tokens over the prompt that a scene's rows share and over what each row has said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf

from alpamayo_r1.core.transformer import KV
from alpamayo_r1.engine.ops.launch import PROGRAMS, ceil_div, kernels, launch, on_gpu, power
from alpamayo_r1.engine.ops.rotation import Heads


@dataclass(frozen=True)
class Context:
    """What the new tokens of R rows may see: their scene's prompt and what stands in the row's own suffix, themselves included."""

    prefix: KV  # [B, Hkv, capacity, d] each
    prompt: torch.Tensor  # (B,) i64: valid keys of the prefix
    suffix: KV  # [R, Hkv, capacity, d] each
    seen: torch.Tensor  # (R,) i64: keys of the suffix that a row's first token sees; may be an expanded scalar
    causal: bool = False  # a row's t-th token sees t keys more (words); else all tokens see the same (actions)


@dataclass(frozen=True)
class Cut:
    """How attention over the prompt is cut: query rows and keys at a time, warps, pipeline stages, programs aimed at."""

    rows: int
    keys: int
    warps: int
    stages: int
    programs: int = PROGRAMS


CUTS: dict[int, Cut] = {
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


WORDS = Cut(64, 32, 4, 3)
"""The cut for words, of however many rows: a row's bits do not depend on who is read with it. Fastest of nine for 1 to 64 tokens."""

WORD_SPLITS = 24
"""Parts of the prompt for words: at 3,006 tokens 128 keys each."""

WHOLE = Cut(128, 64, 8, 3, 132)
"""The cut where tiles of query rows alone fill the card, so that none needs to be merged."""


def fits_whole(cut: Cut, all_rows: int, head_rows: int) -> bool:
    """Whether tiles keep nine of ten programs of a wave busy: all_rows of all samples and heads, head_rows of one sample and KV head."""
    programs = all_rows // cut.rows
    return head_rows % cut.rows == 0 and programs >= 0.9 * cut.programs * ceil_div(programs, cut.programs)


def attend(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    """Attention of q [R * n, Hq, d] (n tokens per row) over prompt and suffix -> [R * n, Hq d]."""
    if not on_gpu(q):
        return _attend_rows(q, context, heads)
    per = len(q) // len(context.seen)
    if not context.causal and fits_whole(WHOLE, len(q) * heads.queries, per * heads.group):
        return _attend_whole(q, context, heads, WHOLE)
    return _attend_parts(q, context, heads)


def _attention_arguments(q: torch.Tensor, context: Context, heads: Heads) -> tuple[tuple, tuple, dict[str, Any]]:
    """What both kernels of attention take: tensors, numbers, and constants."""
    scenes, rows = len(context.prompt), len(context.seen)
    tensors = q, *context.prefix, context.prompt, *context.suffix, context.seen, context.seen.stride(0)
    scale = heads.width**-0.5 * math.log2(math.e)
    numbers = scale, rows // scenes, len(q) // rows, *(some[0].stride(1) // heads.width for some in (context.prefix, context.suffix))
    constants = {"HQ": heads.queries, "HKV": heads.keys, "G": heads.group, "D": heads.width, "IEEE": q.dtype == torch.float32}
    return tensors, numbers, constants


def _attend_whole(q: torch.Tensor, context: Context, heads: Heads, cut: Cut) -> torch.Tensor:
    """Prompt and suffix by one program for each tile of a sample's query rows."""
    tensors, numbers, constants = _attention_arguments(q, context, heads)
    out = torch.empty(len(q), heads.queries * heads.width, device=q.device, dtype=q.dtype)
    scenes = len(context.prompt)
    grid = len(q) // scenes * heads.group // cut.rows, scenes * heads.keys
    constants |= {"BM": cut.rows, "BN": cut.keys, "warps": cut.warps, "stages": cut.stages}
    launch(kernels("attention").attend_whole_kernel, grid, *tensors, out, *numbers, **constants)
    return out


def _attend_parts(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    """The prompt in parts, read once for all samples of a scene, and each suffix; then what they give is merged by their masses."""
    scenes, rows = len(context.prompt), len(context.seen)
    samples, per, d = rows // scenes, len(q) // rows, heads.width
    cut = WORDS if context.causal else attend_cut(samples * per * heads.group)
    tm = cut.rows if context.causal else min(64, power(per * heads.group, 16))
    tiles, tail_tiles = ceil_div(samples * per * heads.group, cut.rows), ceil_div(per * heads.group, tm)
    splits = max(1, min(cut.programs // (tiles * heads.keys * scenes), 31))  # whatever the buffers' capacity: it must not change a bit
    splits = WORD_SPLITS if context.causal else splits
    parts = splits + 1
    acc = torch.empty(parts, len(q), heads.queries, d, device=q.device, dtype=torch.float32)
    lse = torch.empty(parts, len(q), heads.queries, device=q.device, dtype=torch.float32)
    tensors, numbers, constants = _attention_arguments(q, context, heads)
    constants |= {
        "BM": cut.rows,
        "TM": tm,
        "BN": cut.keys,
        "TN": cut.keys if context.causal or tm > 16 else 32,
        "warps": cut.warps,
        "stages": cut.stages,
    }
    constants["CAUSAL"] = context.causal
    launch(
        kernels("attention").attend_kernel,
        (tiles * splits + samples * tail_tiles, scenes * heads.keys),
        q,
        *(*tensors[1:], acc, lse, *numbers, len(q), splits, tiles, tail_tiles),
        **constants,
    )
    out = torch.empty(len(q), heads.queries * d, device=q.device, dtype=q.dtype)
    pairs, some = len(q) * heads.queries, max(1, 16 // power(parts))
    launch(
        kernels("attention").merge_kernel,
        (ceil_div(pairs, some),),
        acc,
        lse,
        out,
        pairs,
        parts,
        D=d,
        PARTS=power(parts),
        PAIRS=some,
        warps=1,
    )
    return out


def _attend_rows(q: torch.Tensor, context: Context, heads: Heads) -> torch.Tensor:
    """Row by row; words token by token, so that a token's bits do not depend on how many are read with it."""
    prompts, seen, out = context.prompt.tolist(), context.seen.tolist(), []
    for row, queries in enumerate(q.unflatten(0, (len(seen), -1))):
        scene = row * len(prompts) // len(seen)
        prompt, tokens = prompts[scene], len(queries) if context.causal else 1
        keys, values = (
            behind(prefix[scene], prompt, suffix[row, :, : seen[row] + tokens - 1])
            for prefix, suffix in zip(context.prefix, context.suffix, strict=True)
        )
        groups = queries.unflatten(1, (heads.keys, -1)).permute(1, 2, 0, 3)  # (Hkv, G, n, d): a key head's queries together
        for t, some in enumerate(groups.split(groups.shape[2] // tokens, 2)):
            there = prompt + seen[row] + t
            given = some.flatten(1, 2)[None], keys[None, :, :there], values[None, :, :there]
            attended = nnf.scaled_dot_product_attention(*given)[0]
            out.append(attended.unflatten(1, (heads.group, -1)).permute(2, 0, 1, 3).flatten(1))
    return torch.cat(out)


def behind(prefix: torch.Tensor, prompt: int, suffix: torch.Tensor) -> torch.Tensor:
    """The first `prompt` keys of a prefix [Hkv, capacity, d] and behind them those of a suffix [Hkv, n, d]: [Hkv, prompt + n, d].

    Where the prefix has room they are written there: it is nobody's until the next row's are.
    """
    end = prompt + suffix.shape[1]
    if end > prefix.shape[1]:
        return torch.cat([prefix[:, :prompt], suffix], 1)
    prefix[:, prompt:end] = suffix
    return prefix[:, :end]
