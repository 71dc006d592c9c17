"""Drawing the next token of every row."""

from __future__ import annotations

import torch

from alpamayo_r1.core.options import Sampling
from alpamayo_r1.core.sampling import sample_token
from alpamayo_r1.engine.ops.launch import ceil_div, kernels, launch, on_gpu, power

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
    drawing, grid, given, size = kernels("drawing"), (rows, blocks), (logits, blocked.view(torch.uint8)), (vocab, blocks)
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
