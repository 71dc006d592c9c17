"""Which token comes next: temperature, top-k, top-p, and one uniform number per token drawn before the forward pass.

A token is a deterministic function of its logits and its uniform number, so every device and every batch size draws the same tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alpamayo_r1.core.options import Sampling

DRAWS = 2
"""Raised when the same seed and logits give other words, so that an evaluation begun before is not resumed after. 2: shares by id."""


@dataclass(frozen=True)
class Draws:
    """All randomness of a plan: noise f32[S, F, 2] for the flow and uniform f32[S, max_tokens] in [0, 1) for the tokens."""

    noise: torch.Tensor
    uniform: torch.Tensor


def draw(seed: int, samples: int, steps: int, max_tokens: int) -> Draws:
    """Draws from a CPU generator per sample, seeded by (seed, sample): sample i is the same whatever S is, on every machine."""
    rows = []
    for sample in range(samples):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + sample) % 2**63)
        noise = torch.randn(steps, 2, generator=generator)
        rows.append((noise, torch.rand(max_tokens, generator=generator)))
    return Draws(torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows]))


def cumulative(x: torch.Tensor) -> torch.Tensor:
    """x.cumsum(-1); where `torch.use_deterministic_algorithms` forbids that on a GPU, by doubling strides."""
    if not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return x.cumsum(-1)
    return doubled_sums(x)


def doubled_sums(x: torch.Tensor) -> torch.Tensor:
    """Cumulative sum along the last axis: after step i every place holds the sum of its last 2^i."""
    stride = 1
    while stride < x.shape[-1]:
        x = x + torch.nn.functional.pad(x, (stride, 0))[..., :-stride]
        stride *= 2
    return x


def running_sum(x: torch.Tensor, block: int = 1024) -> torch.Tensor:
    """Cumulative sum of x [S, n] along n, by blocks side by side: one block after the other keeps a GPU's row waiting for 0.3 ms."""
    n = x.shape[-1]
    blocks = cumulative(torch.nn.functional.pad(x, (0, -n % block)).unflatten(-1, (-1, block)))
    before = cumulative(blocks[..., -1]).roll(1, -1)
    before[..., 0] = 0
    return (blocks + before[..., None]).flatten(-2)[..., :n].contiguous()


def shares(logits: torch.Tensor, config: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each token's share of the drawn mass ends, in the order of ids, and the largest logit's id: [S, vocab] -> f64 [S, vocab], [S].

    Keeps the most likely tokens whose predecessors' mass is below top_p (at least one); the others' shares are empty. In bf16, rounding
    often swaps two tokens that are about equally likely, and in the order of ids their shares then change a little. In the order of
    likelihood they would trade places, and most draws with them. Sums are f64: the order in which a device adds them decides nothing but
    shares of about 1e-16.
    """
    ordered, index = torch.sort(logits, dim=-1, descending=True, stable=True)
    ordered, index = ordered[:, : config.top_k], index[:, : config.top_k]
    weight = ((ordered.double() - ordered[:, :1]) / config.temperature).exp()
    mass = running_sum(weight)
    kept = mass - weight < config.top_p * mass[:, -1:]
    return running_sum(weight.new_zeros(logits.shape).scatter_(-1, index, weight * kept)), index[:, 0]


def sample_token(logits: torch.Tensor, uniform: torch.Tensor, config: Sampling) -> torch.Tensor:
    """Logits [S, vocab], uniform [S] -> ids [S]: the token in whose share `uniform` lies. Logits that are not finite: the largest."""
    logits = logits.float()
    if config.temperature == 0 or config.top_k == 1:
        return logits.argmax(-1)
    ends, most = shares(logits, config)
    chosen = torch.searchsorted(ends, uniform[:, None].to(ends) * ends[:, -1:], right=True)[:, 0]
    return torch.where(ends[:, -1] > 0, chosen, most)
