"""Norms of rows, alone and with the residual sum before them."""

from __future__ import annotations

import torch
from torch import nn

from alpamayo_r1.engine.ops.launch import WORDS, kernels, launch, on_gpu, power


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight for x [M, width]."""
    if not on_gpu(x):
        wide = x.float()
        return (wide * wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()).to(x.dtype).mul_(weight)
    out = torch.empty_like(x)
    m, width = x.shape
    launch(kernels("norms").rms_norm_kernel, (m,), x, weight, out, width, eps, BLOCK=power(width), warps=norm_warps(m, width))
    return out


def norm_warps(m: int, width: int) -> int:
    """Warps for the norm of one of m rows: few rows leave the card to each of them, and a short wait counts most.

    The same for all numbers of rows that words are read in: warps decide the order of a row's sum.
    """
    return min(16 if m <= WORDS else 8, max(4, power(width) // 128))


def summed(parts: torch.Tensor) -> torch.Tensor:
    """The sum of a product's parts [P, M, N] -> [M, N], in fp32 where there are several."""
    return parts[0] if len(parts) == 1 else parts.float().sum(0)


def add_rms_norm(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x += sum of delta's parts, in place; the norm of the new x. x [M, width], delta [P, M, width]."""
    if not on_gpu(x):
        x += summed(delta).to(x.dtype)
        return rms_norm(x, weight, eps)
    out = torch.empty_like(x)
    m, width = x.shape
    launch(
        kernels("norms").add_rms_norm_kernel,
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
    launch(
        kernels("norms").add_layer_norm_kernel,
        (x.numel() // width,),
        *(x, delta, norm.weight, norm.bias, out, width, norm.eps),
        BLOCK=power(width),
    )
    return out
