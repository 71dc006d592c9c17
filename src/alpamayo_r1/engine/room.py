"""What fits a card: bytes of the weights in a precision and of a plan beside them, and the best precision for the memory there is."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alpamayo_r1.core.checkpoint import weight_bytes
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.precision import PRECISIONS, Precision
from alpamayo_r1.engine.arena import Capacity, buffer_bytes, working_bytes
from alpamayo_r1.engine.ops.quantised import SCRATCH

PROMPT_TOKENS = 3006
"""Tokens of the released prompt: four cameras, four pictures each."""

SPARE = 0.3e9
"""Bytes left free: what the vendor's libraries, graphs and rounding of allocations take."""

SAMPLES = (1, 2, 4, 6, 8, 16, 32, 64)
"""Numbers of samples that are looked at, and numbers of tokens."""

TOKENS = (64, 128, 256, 512, 1024)


def plan_bytes(
    config: ModelConfig, precision: Precision, dtype: torch.dtype, samples: int, tokens: int, prompt: int = PROMPT_TOKENS
) -> int:
    """Bytes of a plan's buffers and intermediate results, at most, with the released prompt."""
    capacity, width = Capacity(1, samples, tokens, PROMPT_TOKENS).rounded(), dtype.itemsize
    made = [SCRATCH[kind] for part, kind in precision.kinds.items() if part not in ("head", "vision")]
    scratch = 2 * max(made, default=0)
    return buffer_bytes(config, capacity, width) + working_bytes(config, capacity, width) + scratch


def most_samples(config: ModelConfig, precision: Precision, dtype: torch.dtype, tokens: int, free: float) -> int:
    """The most of SAMPLES that fit into so many bytes, the word table on the host; 0 where one does not."""
    left = free - SPARE - weight_bytes(config, precision, dtype, words_on_host=True)
    return max((n for n in SAMPLES if plan_bytes(config, precision, dtype, n, tokens) <= left), default=0)


def what_fits(config: ModelConfig, dtype: torch.dtype, tokens: int, free: float) -> Iterator[tuple[str, int]]:
    """Every precision that fits into so many bytes, the best first, with the most samples."""
    for name, precision in PRECISIONS.items():
        samples = most_samples(config, precision, dtype, tokens, free)
        if samples:
            yield name, samples


def said_to_fit(config: ModelConfig, dtype: torch.dtype, tokens: int, free: float) -> str:
    """ "bf16 with 16 samples, w8 with 64 samples" of a number of tokens, or what else to do."""
    fitting = [f"{name} with {n} sample{'s' * (n > 1)}" for name, n in what_fits(config, dtype, tokens, free)]
    if fitting:
        return f"{', '.join(fitting)} of {tokens} tokens"
    fewer = [n for n in TOKENS if n < tokens and next(what_fits(config, dtype, n, free), None)]
    return f"tight with 1 sample of {fewer[-1]} tokens" if fewer else "nothing"
