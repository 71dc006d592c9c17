"""What a weight is: a tensor of the model's dtype, or one of few bits beside its scales (`Quantised`). Layers do not know which.

    e4m3   w = code s        8-bit floats, a scale per row
    int8   w = code s        -127..127, a scale per group of neighbouring columns
    int4   w = (code - z) s  0..15, a scale and a zero point per group

Scales are numbers that bf16 has, so that a checkpoint which stores them in bf16 stores them exactly. A product with a quantised weight is,
by specification, the product with `Quantised.dequantised` in the model's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as nnf
from torch import nn

Kind = Literal["e4m3", "int8", "int4"]
E4M3_MAX = 448.0
GROUPS = (128, 64, 32, 16)
"""Columns that may share a scale, the most first."""

CLIPS = tuple(1 - 0.04 * i for i in range(9))
"""Shares of a group's range that int4 tries: the one with the least squared error is kept."""


@dataclass(frozen=True)
class Scheme:
    """How a weight [N, K] is stored. group: columns that share a scale; None: all of a row."""

    kind: Kind
    group: int | None = None

    @classmethod
    def fitting(cls, kind: Kind, columns: int, most: int = 128) -> Scheme | None:
        """The scheme of a weight with so many columns, in groups of at most `most`; None where no group divides them.

        int4 becomes int8 where only groups of fewer than 32 do.
        """
        if kind == "e4m3":
            return cls(kind) if columns % 16 == 0 else None
        group = next((size for size in GROUPS if size <= most and columns % size == 0), None)
        if group is None:
            return None
        return cls("int8" if kind == "int4" and group < 32 else kind, group)

    def block(self, columns: int) -> int:
        """Columns of int4 that are packed together, in two halves: all of a half have one scale. See `pack_halves`."""
        return next(size for size in GROUPS if columns % size == 0 and size <= 2 * (self.group or columns))


@dataclass(frozen=True)
class Quantised:
    """A weight [N, K] in few bits. Transposed scales: a kernel reads neighbouring rows' together."""

    scheme: Scheme
    codes: torch.Tensor  # e4m3 [N, K] · int8 [N, K] · int4: u8 [N, K / 2], see `pack_halves`
    scale: torch.Tensor  # [groups, N] · e4m3: f32 [1, N] · int8, int4: bf16
    zero: torch.Tensor | None = None  # u8 [groups, N], of int4

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        rows, width = self.codes.shape
        return rows, width * (2 if self.scheme.kind == "int4" else 1)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return sum(part.nbytes for part in (self.codes, self.scale, self.zero) if part is not None)

    def __len__(self) -> int:
        return len(self.codes)

    def rows(self, start: int, end: int) -> Quantised:
        """Some rows, as views."""
        zero = None if self.zero is None else self.zero[:, start:end]
        return Quantised(self.scheme, self.codes[start:end], self.scale[:, start:end], zero)

    def dequantised(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [N, K] in a dtype, every number rounded once."""
        wide = torch.bfloat16 if dtype == torch.bfloat16 and self.scale.dtype == dtype else torch.float32  # bf16 products are rounded once
        codes = unpack_halves(self.codes, self.scheme.block(self.shape[1])) if self.scheme.kind == "int4" else self.codes
        grouped = codes.to(wide).unflatten(1, (-1, self.group))
        if self.zero is not None:
            grouped = grouped - self.zero.T[..., None].to(wide)
        return (grouped * self.scale.T[..., None].to(wide)).flatten(1).to(dtype)

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.scheme.group or self.shape[1]


def quantise(weight: torch.Tensor, scheme: Scheme, importance: torch.Tensor | None = None) -> Quantised:
    """A weight [N, K] -> the nearest of its scheme. Rows do not see each other.

    e4m3 and int8: a group's largest number is the largest code. int4: of the ranges in CLIPS the one with the least squared error, of each
    column weighed by its importance f32[K], the mean square of what it is multiplied by (None: all alike).
    """
    grouped = weight.float().unflatten(1, (-1, scheme.group or weight.shape[1]))
    if scheme.kind == "int4":
        alike = torch.ones(weight.shape[1], device=weight.device) if importance is None else importance
        return _quantise_int4(grouped, scheme, alike.unflatten(0, (-1, grouped.shape[-1])))
    largest = grouped.abs().amax(-1)
    if scheme.kind == "e4m3":
        scale = storable(largest / E4M3_MAX)
        codes = (grouped / scale[..., None]).clamp(-E4M3_MAX, E4M3_MAX).flatten(1).to(torch.float8_e4m3fn)
        return Quantised(scheme, codes, scale.T.contiguous())
    scale = storable(largest / 127)
    codes = (grouped / scale[..., None]).round().clamp(-127, 127).flatten(1).to(torch.int8)
    return Quantised(scheme, codes, scale.T.to(torch.bfloat16).contiguous())


ROWS_BYTES = 64 * 2**20
"""Bytes of fp32 numbers that are quantised at a time."""


def quantised_by_rows(weight: torch.Tensor, scheme: Scheme) -> Quantised:
    """`quantise`, some rows at a time: with little memory beside the weight."""
    return stacked([quantise(some, scheme) for some in weight.split(max(1, ROWS_BYTES // (4 * weight.shape[1])))])


def _quantise_int4(grouped: torch.Tensor, scheme: Scheme, importance: torch.Tensor) -> Quantised:
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    best = torch.full_like(low, torch.inf, dtype=torch.float64)
    scale, zero = torch.ones_like(low), torch.zeros_like(low)
    for clip in CLIPS:
        s = storable(clip * (high - low) / 15)
        z = (-clip * low / s).round().clamp(0, 15)
        codes = nearest(grouped, s, z)
        far = ((codes - z[..., None]) * s[..., None] - grouped).square() * importance
        error = far.double().sum(-1)  # wide, so that every device chooses alike
        better = error < best
        best, scale, zero = torch.where(better, error, best), torch.where(better, s, scale), torch.where(better, z, zero)
    codes = nearest(grouped, scale, zero).flatten(1).to(torch.uint8)
    packed = pack_halves(codes, scheme.block(codes.shape[1]))
    return Quantised(scheme, packed, scale.T.to(torch.bfloat16).contiguous(), zero.T.to(torch.uint8).contiguous())


def nearest(grouped: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """int4 codes of weights [N, groups, group] for scales and zero points [N, groups]."""
    return (grouped / scale[..., None] + zero[..., None]).round().clamp(0, 15)


def storable(scale: torch.Tensor) -> torch.Tensor:
    """Scales as numbers that bf16 has; 1 where a group is all zeros."""
    return torch.where(scale > 0, scale, 1.0).to(torch.bfloat16).float()


def pack_halves(codes: torch.Tensor, block: int) -> torch.Tensor:
    """int4 codes u8 [N, K] -> u8 [N, K / 2]: of each block's columns the first half in the low four bits, the second in the high ones.

    So a kernel takes both halves of a block from one run of bytes, and their inputs from two runs of columns.
    """
    first, second = codes.unflatten(1, (-1, 2, block // 2)).unbind(2)
    return (first | second << 4).flatten(1)


def unpack_halves(packed: torch.Tensor, block: int) -> torch.Tensor:
    """What `pack_halves` packed: u8 [N, K]."""
    halves = packed.unflatten(1, (-1, block // 2))
    return torch.stack([halves & 15, halves >> 4], 2).flatten(1)


def stacked(parts: Sequence[Quantised]) -> Quantised:
    """Weights of one scheme and width below one another."""
    if len(parts) == 1:
        return parts[0]
    zeros = [part.zero for part in parts if part.zero is not None]
    return Quantised(
        parts[0].scheme,
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scale for part in parts], 1),
        torch.cat(zeros, 1) if zeros else None,
    )


class QuantisedLinear(nn.Module):
    """A linear layer whose weight has few bits: it computes with the dequantised weight, which is made for each product and forgotten."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, packed: Quantised, dtype: torch.dtype, bias: torch.Tensor | None = None):
        super().__init__()
        self.scheme, self.dtype = packed.scheme, dtype
        self.hold(packed)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    def hold(self, packed: Quantised) -> None:
        """Takes another weight of the same scheme."""
        for name in ("codes", "scale", "zero"):
            self.register_buffer(name, getattr(packed, name))

    @property
    def packed(self) -> Quantised:
        """The weight as it is stored."""
        return Quantised(self.scheme, self.codes, self.scale, self.zero)

    @property
    def weight(self) -> torch.Tensor:
        """The weight in the model's dtype, made anew."""
        return self.packed.dequantised(self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nnf.linear(x, self.weight, self.bias)
