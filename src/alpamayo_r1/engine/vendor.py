"""Attention by the vendor's kernels: which of them takes a shape and is sound, found once a process on random tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from threading import RLock

import torch
import torch.nn.functional as nnf
from torch.nn.attention import SDPBackend, sdpa_kernel

HOPPER = (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""The vendor's backends on Hopper and later, the fastest first."""

OLDER = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION)
"""The same on GPUs before Hopper."""

_choosing = RLock()
"""PyTorch's choice of backends is one for all threads."""


@cache
def attention_backend(
    shape: tuple[int, ...], kv_heads: int, causal: bool, dtype: torch.dtype, device: torch.device, deterministic: bool
) -> SDPBackend | None:
    """The vendor's attention backend for this shape [B, heads, T, d]: the first that takes it and is sound on random tensors.

    The order is fixed: were the fastest of this very moment taken, two processes could differ in last bits. None on the CPU, and for fp32,
    which only the exact backends serve. deterministic: PyTorch's mode, in which some backends refuse.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return None
    order = HOPPER if torch.cuda.get_device_capability(device)[0] >= 9 else OLDER
    return first_sound(order, random_qkv(shape, kv_heads, dtype, device), causal)


def random_qkv(shape: tuple[int, ...], kv_heads: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Normal queries, keys and values, laid out as the engine's."""
    b, heads, t, d = shape
    generator = torch.Generator(device).manual_seed(0)
    return tuple(
        torch.randn(b, t, h, d, generator=generator, device=device, dtype=dtype).transpose(1, 2) for h in (heads, kv_heads, kv_heads)
    )


def first_sound(order: Sequence[SDPBackend], qkv: tuple[torch.Tensor, ...], causal: bool) -> SDPBackend | None:
    """The first backend that does not refuse q [B, heads, T, d] over k, v [B, kv_heads, T, d] and is near an exact result in fp32.

    Near: on the first tokens and heads, within twice the distance that the slow backend has in the same dtype.
    """
    group = qkv[0].shape[1] // qkv[1].shape[1]
    few = tuple(x[:1, :heads, :1024] for x, heads in zip(qkv, (group, 1, 1), strict=True))
    exact = attend_by(SDPBackend.MATH, tuple(x.float() for x in few), causal)
    limit = 2 * _error(SDPBackend.MATH, few, exact, causal)
    for backend in order:
        try:
            with warnings.catch_warnings():  # a backend that refuses says why in warnings
                warnings.simplefilter("ignore")
                attend_by(backend, qkv, causal)
                if _error(backend, few, exact, causal) <= limit:
                    return backend
        except RuntimeError:
            continue
    return None


def attend_by(backend: SDPBackend | None, qkv: tuple[torch.Tensor, ...], causal: bool) -> torch.Tensor:
    """Attention by one backend; None: as PyTorch decides.

    Raises:
        RuntimeError: the backend refuses.
    """
    q, k, v = qkv
    with _choosing if q.is_cuda else nullcontext(), nullcontext() if backend is None else sdpa_kernel(backend):
        return nnf.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _error(backend: SDPBackend, qkv: tuple[torch.Tensor, ...], exact: torch.Tensor, causal: bool) -> float:
    return ((attend_by(backend, qkv, causal).float() - exact).norm() / exact.norm()).item()


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Attention of q [B, heads, T, d] over as many keys k, v [B, kv_heads, T, d] by the backend found for this shape."""
    strict = torch.are_deterministic_algorithms_enabled()
    return attend_by(attention_backend(tuple(q.shape), k.shape[1], causal, q.dtype, q.device, strict), (q, k, v), causal)


ROWS = 64
"""Queries that the CPU takes at a time: its own causal attention takes 6.7 ms for 630 tokens, this one 4.8."""


def attention_by_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of the last tokens q [1, heads, n, d] over k, v [1, kv_heads, T, d], each over itself and those before: on the CPU."""
    n, keys = q.shape[2], k.shape[2]
    out = torch.empty(1, n, q.shape[1], q.shape[3], dtype=q.dtype).transpose(1, 2)
    for start in range(0, n, ROWS):
        some = q[:, :, start : start + ROWS]
        first = keys - n + start
        end = first + some.shape[2]
        mask = torch.zeros(some.shape[2], end, dtype=q.dtype)
        mask[:, first:] = torch.full((some.shape[2],) * 2, -torch.inf, dtype=q.dtype).triu_(1)
        out[:, :, start : start + ROWS] = nnf.scaled_dot_product_attention(some, k[:, :, :end], v[:, :, :end], mask, enable_gqa=True)
    return out
