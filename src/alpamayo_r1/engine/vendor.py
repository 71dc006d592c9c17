"""Attention by the vendor's kernels: which of them is sound for a shape, found once a process on random tensors."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as nnf
from torch.nn.attention import SDPBackend, sdpa_kernel

HOPPER = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""The vendor's backends on Hopper and later, the fastest first (bench/engine_check.py, part spread)."""

OLDER = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""The same on GPUs before Hopper."""


@cache
def attention_backend(shape: tuple[int, ...], kv_heads: int, causal: bool, dtype: torch.dtype, device: torch.device) -> SDPBackend | None:
    """The vendor's attention backend for this shape [B, heads, T, d]: the first that is numerically sound on random tensors.

    Sound: within twice the distance from an fp32 reference that the slow exact backend in the same dtype has. The order is fixed: were the
    fastest of this very moment taken, two processes could differ in last bits. None on the CPU, and for fp32, which only the exact
    backends serve.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return None
    _, heads, t, d = shape
    generator = torch.Generator(device).manual_seed(0)
    group = tuple(  # the queries that share one head of keys
        torch.randn(1, min(t, 1024), h, d, generator=generator, device=device, dtype=dtype).transpose(1, 2)
        for h in (heads // kv_heads, 1, 1)
    )
    exact = attend(tuple(x.float() for x in group), causal, SDPBackend.MATH)
    plain = _error(SDPBackend.MATH, group, exact, causal)
    order = HOPPER if torch.cuda.get_device_capability(device)[0] >= 9 else OLDER
    return next((backend for backend in order if _error(backend, group, exact, causal) <= 2 * plain), None)


def attend(qkv: tuple[torch.Tensor, ...], causal: bool, backend: SDPBackend | None) -> torch.Tensor:
    """Attention by one backend; None: as PyTorch decides."""
    q, k, v = qkv
    with nullcontext() if backend is None else sdpa_kernel(backend):
        return nnf.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _error(backend: SDPBackend, qkv: tuple[torch.Tensor, ...], exact: torch.Tensor, causal: bool) -> float:
    """Relative distance from the exact result; infinite where the backend refuses, which it does with warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            out = attend(qkv, causal, backend).float()
    except RuntimeError:
        return math.inf
    return ((out - exact).norm() / exact.norm()).item()


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Attention of q [B, heads, T, d] over k, v [B, kv_heads, T, d] by the backend found for this shape."""
    own = q.shape[2] == k.shape[2]
    return attend((q, k, v), causal, attention_backend(tuple(q.shape), k.shape[1], causal, q.dtype, q.device) if own else None)
