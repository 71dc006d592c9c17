"""Rows in 8 bits: what a product of many rows reads where its weight is e4m3, made by the norm or the SwiGLU before it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

import torch

from alpamayo_r1.core.quantised import E4M3_MAX, Quantised
from alpamayo_r1.engine.ops.launch import WORDS, kernels, launch, on_gpu, power
from alpamayo_r1.engine.ops.norms import add_rms_norm, norm_warps, rms_norm
from alpamayo_r1.engine.ops.swiglu import swiglu

FEW = 256
"""Up to this many rows the kernels that read a weight's codes are faster than any other way."""

Weight = torch.Tensor | Quantised
"""What a product multiplies by: [N, K]."""


@final
@dataclass(frozen=True)
class EightBits:
    """Rows [M, K] as e4m3, with a scale per row."""

    codes: torch.Tensor  # e4m3 [M, K]
    scale: torch.Tensor  # f32 [M, 1]
    dtype: torch.dtype  # of the numbers that they stand for

    @classmethod
    def room(cls, m: int, k: int, like: torch.Tensor) -> EightBits:
        """Room for rows, of the dtype and on the device of another tensor."""
        codes = torch.empty(m, k, device=like.device, dtype=torch.float8_e4m3fn)
        return cls(codes, torch.empty(m, 1, device=like.device, dtype=torch.float32), like.dtype)

    def __len__(self) -> int:
        return len(self.codes)

    def split(self, rows: int) -> list[EightBits]:
        """Some rows at a time, as views."""
        parts = zip(self.codes.split(rows), self.scale.split(rows), strict=True)
        return [EightBits(codes, scale, self.dtype) for codes, scale in parts]

    def numbers(self) -> torch.Tensor:
        """The numbers that they stand for, f32[M, K]."""
        return self.codes.float() * self.scale


Rows = torch.Tensor | EightBits
"""What a product multiplies: [M, K]."""


def reads_codes(x: torch.Tensor, words: bool) -> bool:
    """Whether a product of rows x with a weight of few bits is made by the kernels that read the weight's codes."""
    return on_gpu(x) and len(x) <= (WORDS if words else FEW)


def reads_eight(x: torch.Tensor, weight: Weight | None, words: bool) -> bool:
    """Whether the product of as many rows as x has with a weight reads them in 8 bits."""
    if not isinstance(weight, Quantised) or weight.scheme.kind != "e4m3" or reads_codes(x, words):
        return False
    n, k = weight.shape
    return on_gpu(x) and x.dtype == torch.bfloat16 and n % 16 == 0 and k % 16 == 0 and has_fp8_products(x.device)


def quantise_rows(x: torch.Tensor) -> EightBits:
    """Rows [M, K] in 8 bits: the largest number of each becomes the largest code."""
    m, k = x.shape
    if not on_gpu(x):
        scale = x.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / E4M3_MAX
        return EightBits((x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale, x.dtype)
    out = EightBits.room(m, k, x)
    launch(kernels("eight").quantise_rows_kernel, (m,), x, out.codes, out.scale, k, x.stride(0), BLOCK=power(k), warps=8)
    return out


def rms_norm_eight(x: torch.Tensor, weight: torch.Tensor, eps: float) -> EightBits:
    """`rms_norm` in 8 bits."""
    if not on_gpu(x):
        return quantise_rows(rms_norm(x, weight, eps))
    m, width = x.shape
    out = EightBits.room(m, width, x)
    how = {"BLOCK": power(width), "warps": norm_warps(m, width)}
    launch(kernels("eight").rms_norm_eight_kernel, (m,), x, weight, out.codes, out.scale, width, eps, **how)
    return out


def add_rms_norm_eight(x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> EightBits:
    """`add_rms_norm` in 8 bits."""
    if not on_gpu(x):
        return quantise_rows(add_rms_norm(x, delta, weight, eps))
    m, width = x.shape
    out = EightBits.room(m, width, x)
    how = {"PARTS": len(delta), "BLOCK": power(width), "warps": norm_warps(m, width)}
    launch(kernels("eight").add_rms_norm_eight_kernel, (m,), x, delta, weight, out.codes, out.scale, m, width, eps, **how)
    return out


def swiglu_eight(gate_up: torch.Tensor) -> EightBits:
    """`swiglu` in 8 bits: rows [gate | up] [M, 2 I] -> [M, I]."""
    if not on_gpu(gate_up):
        return quantise_rows(swiglu(gate_up))
    m, width = len(gate_up), gate_up.shape[1] // 2
    out = EightBits.room(m, width, gate_up)
    launch(kernels("eight").swiglu_eight_kernel, (m,), gate_up, out.codes, out.scale, width, BLOCK=power(width), warps=16)
    return out


def rms_norm_for(then: Weight | None, x: torch.Tensor, weight: torch.Tensor, eps: float, *, words: bool = False) -> Rows:
    """`rms_norm` as the product with `then` reads it. words: see `linear`."""
    return rms_norm_eight(x, weight, eps) if reads_eight(x, then, words) else rms_norm(x, weight, eps)


def add_rms_norm_for(
    then: Weight | None, x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float, *, words: bool = False
) -> Rows:
    """`add_rms_norm` as the product with `then` reads it. words: see `linear`."""
    return add_rms_norm_eight(x, delta, weight, eps) if reads_eight(x, then, words) else add_rms_norm(x, delta, weight, eps)


@cache
def has_fp8_products(device: torch.device) -> bool:
    """Whether a device multiplies e4m3 with a scale per row, and rightly: tried once, since versions of the library differ in it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        return False
    generator = torch.Generator(device).manual_seed(0)
    x, w = (torch.randn(64, 128, device=device, generator=generator) for _ in range(2))
    scale = torch.linspace(0.5, 2, 64, device=device)
    try:
        codes = x.to(torch.float8_e4m3fn), w.to(torch.float8_e4m3fn)
        got = torch._scaled_mm(codes[0], codes[1].T, scale[:, None], scale[None], out_dtype=torch.bfloat16, use_fast_accum=True)
    except RuntimeError:
        return False
    want = (codes[0].float() * scale[:, None]) @ (codes[1].float() * scale[:, None]).T
    return bool((got.float() - want).norm() < 0.02 * want.norm())
