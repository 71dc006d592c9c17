"""Drawing the next token of every row."""

from __future__ import annotations

import math
from functools import partial

import torch

from alpamayo_r1.core.options import Sampling
from alpamayo_r1.core.sampling import sample_token
from alpamayo_r1.engine.ops.launch import ceil_div, kernels, launch, on_gpu, power

DRAW_BLOCK = 2048
"""Logits that a program of the drawing kernels takes."""

CAP, MOST = 256, 2048
"""Candidates that a block of logits, and a row, have room for; where there are more, the row is drawn by passes over the vocabulary."""

WIDEST = 16.0
"""Logits below the largest that candidates may lie: a wider window would hold too many, and the edge is found range by range instead."""


def draw_tokens(
    logits: torch.Tensor, blocked: torch.Tensor, uniform: torch.Tensor, config: Sampling, crowded: torch.Tensor | None = None
) -> torch.Tensor:
    """`sampling.sample_token` of logits [R, vocab] without the tokens of blocked bool[vocab], by uniform f32[R] -> ids i64[R].

    On a GPU without a sort, but for top-k. crowded u8[>= R]: set for rows that have more candidates than there is room for, which takes
    milliseconds; None: such rows are expected, and none is drawn from candidates.
    """
    if not on_gpu(logits) or config.temperature == 0 or config.top_k is not None:
        return sample_token(logits.float().masked_fill(blocked, -torch.inf), uniform, config)
    logits, uniform, blocked = logits.contiguous(), uniform.contiguous(), blocked.view(torch.uint8)
    window = candidate_window(config, logits.shape[1])
    if window > WIDEST or crowded is None:
        return _draw_by_ranges(logits, blocked, uniform, config)
    return _draw_from_candidates(logits, blocked, uniform, config, window, crowded)


def candidate_window(config: Sampling, vocab: int) -> float:
    """How far below the largest logit a token can lie and still be kept by top-p: T ln(V / (1 - p)).

    All tokens farther below weigh less together than the tail that is cut: V (1 - p) / V of the largest one's weight.
    """
    return math.inf if config.top_p == 1 else config.temperature * math.log(vocab / (1 - config.top_p)) * (1 + 1e-9)


def _draw_from_candidates(
    logits: torch.Tensor, blocked: torch.Tensor, uniform: torch.Tensor, config: Sampling, window: float, crowded: torch.Tensor
) -> torch.Tensor:
    rows, vocab = logits.shape
    blocks, bits = ceil_div(vocab, DRAW_BLOCK), 16 if logits.dtype == torch.bfloat16 else 32
    empty = partial(torch.empty, device=logits.device)
    peaks, masses = empty(rows, blocks, dtype=torch.long), empty(rows, blocks, dtype=torch.float64)
    counts, found = empty(rows, blocks, dtype=torch.int32), empty(rows, blocks, CAP, dtype=torch.int32)
    values, ids = empty(rows, blocks, CAP, dtype=torch.float32), empty(rows, MOST, dtype=torch.int32)
    kept, weights = empty(rows, MOST, dtype=torch.float32), empty(rows, MOST, dtype=torch.float64)
    out = empty(rows, dtype=torch.long)
    drawing, given, size = kernels("drawing"), (logits, blocked), (vocab, blocks)
    temperature, top_p, shape = float(config.temperature), float(config.top_p), {"BITS": bits, "BLOCK": DRAW_BLOCK, "warps": 8}
    launch(drawing.peaks_kernel, (rows, blocks), *given, peaks, *size, **shape)
    shape |= {"MANY": power(blocks), "CAP": CAP}
    launch(drawing.sift_kernel, (rows, blocks), *given, peaks, masses, counts, found, values, *size, temperature, window, **shape)
    row = (*given, peaks, masses, counts, found, values, ids, kept, weights, uniform, out, crowded, *size, top_p, temperature)
    launch(drawing.pick_kernel, (rows,), *row, **shape, MOST=MOST, STEP=256, FEW=32)
    return out


def _draw_by_ranges(logits: torch.Tensor, blocked: torch.Tensor, uniform: torch.Tensor, config: Sampling) -> torch.Tensor:
    rows, vocab = logits.shape
    blocks, bits = ceil_div(vocab, DRAW_BLOCK), 16 if logits.dtype == torch.bfloat16 else 32
    empty = partial(torch.empty, device=logits.device)
    peaks, ties = empty(rows, blocks, dtype=torch.long), empty(rows, blocks, dtype=torch.int32)
    weights, above = empty(rows, vocab, dtype=torch.float64), empty(rows, blocks, dtype=torch.float64)
    drawing, grid, given, size = kernels("drawing"), (rows, blocks), (logits, blocked), (vocab, blocks)
    masses, out = empty(bits // 4, rows, blocks, drawing.RANGES.value, dtype=torch.float64), empty(rows, dtype=torch.long)
    temperature, top_p = float(config.temperature), float(config.top_p)
    shape = {"BITS": bits, "BLOCK": DRAW_BLOCK, "warps": 8}
    launch(drawing.peaks_kernel, grid, *given, peaks, *size, **shape)
    shape["MANY"] = power(blocks)
    launch(drawing.weigh_kernel, grid, *given, peaks, weights, *size, temperature, **shape)
    for passed in range(bits // 4):
        launch(drawing.narrow_kernel, grid, *given, weights, masses, *size, top_p, passed, **shape)
    found = weights, masses, above, ties
    launch(drawing.tally_kernel, grid, *given, *found, *size, top_p, **shape)
    launch(drawing.choose_kernel, (rows,), *given, *found, peaks, uniform, out, *size, top_p, temperature, **shape)
    return out
