"""Attention by the vendor's kernels: which of them is sound and fast for a shape, found once a process on random tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as nnf
from torch.nn.attention import SDPBackend, sdpa_kernel


@cache
def attention_backend(shape: tuple[int, ...], kv_heads: int, causal: bool, dtype: torch.dtype, device: torch.device) -> SDPBackend | None:
    """The vendor's attention backend for this shape [B, heads, T, d]: of those numerically sound on random tensors, a fast one.

    Sound: within twice the distance from an fp32 reference that the slow exact backend in the same dtype has. None on the CPU, and for
    fp32, which only the exact backends serve.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return None
    b, heads, t, d = shape
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(b, t, h, d, generator=generator, device=device, dtype=dtype).transpose(1, 2) for h in (heads, kv_heads, kv_heads)
    )
    part = slice(0, min(t, 1024))
    few = [x[:1, :1, part].float() for x in (q, k, v)]
    exact = nnf.scaled_dot_product_attention(*few, is_causal=causal)
    plain = _backend_error(SDPBackend.MATH, [x.to(dtype) for x in few], exact, causal)
    times = {}
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        try:
            if _backend_error(backend, [x[:, :1, part] for x in (q, k, v)], exact, causal) <= 2 * plain:
                times[backend] = _backend_time(backend, (q, k, v), causal)
        except RuntimeError:
            continue
    return preferred(times) if times else None


def preferred(times: dict[Any, float]) -> Any:
    """The first that takes at most 1.2 times as long as the fastest: near ties go the same way, to the same bits, in every process."""
    return next(one for one, ms in times.items() if ms <= 1.2 * min(times.values()))


@contextmanager
def _only(backend) -> Iterator[None]:
    """Attention by one backend, without its complaints when it refuses."""
    with warnings.catch_warnings(), sdpa_kernel(backend):
        warnings.simplefilter("ignore")
        yield


def _backend_error(backend, qkv: list[torch.Tensor], exact: torch.Tensor, causal: bool) -> float:
    with _only(backend):
        out = nnf.scaled_dot_product_attention(*qkv, is_causal=causal)[:1].float()
    return ((out - exact).norm() / exact.norm()).item()


def _backend_time(backend, qkv, causal: bool) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with _only(backend):
        for i in range(8):
            if i == 3:
                start.record()
            nnf.scaled_dot_product_attention(*qkv, is_causal=causal, enable_gqa=qkv[0].shape[1] != qkv[1].shape[1])
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Attention of q [B, heads, T, d] over k, v [B, kv_heads, T, d] by the backend found for this shape."""
    own = q.shape[2] == k.shape[2]
    backend = attention_backend(tuple(q.shape), k.shape[1], causal, q.dtype, q.device) if own else None
    with nullcontext() if backend is None else sdpa_kernel(backend):
        return nnf.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
