"""Frames to patches on the GPU, to the byte what the CPU path gives.

Bicubic resizing with antialias of uint8 pictures is done as torch does it on the CPU: weights rounded to integers of 16 bits, columns
before rows, each pass rounded to uint8. Integer sums have one result, so the largest deviation from the CPU path is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from alpamayo_r1.config import VisionConfig
from alpamayo_r1.engine.ops import _triton, ceil_div, on_gpu
from alpamayo_r1.images import normalise, patchify, target_size, to_patches


@dataclass(frozen=True)
class Taps:
    """Integer weights of a one-dimensional resize: out[i] = (sum_t weight[i, t] in[first[i] + t] + 2^(precision-1)) >> precision."""

    first: torch.Tensor  # (new,) i32
    weight: torch.Tensor  # (new, taps) i32, zero beyond the filter
    precision: int


@cache
def taps(size: int, new: int, device: torch.device) -> Taps:
    """The taps of a bicubic (a = -0.5) antialiased resize from `size` to `new` pixels."""
    scale = size / new
    stretch = max(scale, 1.0)
    center = scale * (torch.arange(new, dtype=torch.float64) + 0.5)
    first = (center - 2 * stretch + 0.5).long().clamp_min(0)
    count = (center + 2 * stretch + 0.5).long().clamp_max(size) - first
    t = torch.arange(int(count.max()))
    weight = cubic((t + first[:, None] - center[:, None] + 0.5) / stretch) * (t < count[:, None])
    weight = weight / weight.sum(1, keepdim=True)
    precision = next(p for p in range(23) if p == 22 or int(0.5 + weight.max().item() * 2 ** (p + 1)) >= 1 << 15)
    integer = (weight * 2**precision + 0.5 * weight.sign()).trunc()
    return Taps(first.int().to(device), integer.int().contiguous().to(device), precision)


def cubic(x: torch.Tensor) -> torch.Tensor:
    """Keys' cubic kernel with a = -0.5."""
    a, x = -0.5, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_axis(pixels: torch.Tensor, cut: Taps) -> torch.Tensor:
    """u8[..., size] -> u8[..., new], the twin of the kernels."""
    index = (cut.first[:, None] + torch.arange(cut.weight.shape[1], device=pixels.device)).clamp_max(pixels.shape[-1] - 1)
    total = (pixels[..., index.long()].int() * cut.weight).sum(-1) + (1 << (cut.precision - 1))
    return (total >> cut.precision).clamp(0, 255).to(torch.uint8)


def resize_exact(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """u8[N, 3, h, w] -> u8[N, 3, height, width]: columns, then rows; an axis that keeps its length is left alone."""
    if frames.shape[-1] != width:
        frames = resize_axis(frames, taps(frames.shape[-1], width, frames.device))
    if frames.shape[-2] != height:
        frames = resize_axis(frames.mT, taps(frames.shape[-2], height, frames.device)).mT
    return frames


def resize_to_patches(frames: torch.Tensor, vision: VisionConfig, height: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """u8[N, 3, h, w] -> normalised patches [N * places, patch_dim] of the pictures resized to height x width."""
    if not on_gpu(frames) or frames.shape[-2] == height:
        return patchify(normalise(resize_exact(frames, height, width)), vision).to(dtype)
    n, channels, h, w = frames.shape
    if w != width:
        cut, narrow = taps(w, width, frames.device), torch.empty(n, channels, h, width, device=frames.device, dtype=torch.uint8)
        _triton().resize_columns_kernel[(n * channels * h, ceil_div(width, 256))](
            frames, cut.first, cut.weight, narrow, w, width, cut.precision, TAPS=cut.weight.shape[1], BX=256, num_warps=4
        )
        frames = narrow
    cut = taps(h, height, frames.device)
    places = (height // vision.patch) * (width // vision.patch)
    out = torch.empty(n * places, vision.patch_dim, device=frames.device, dtype=dtype)
    _triton().resize_rows_kernel[(n * channels, height, ceil_div(width, 256))](
        *(frames, cut.first, cut.weight, out, h, height, width, cut.precision, channels),
        **{"TAPS": cut.weight.shape[1], "PATCH": vision.patch, "MERGE": vision.merge, "TIME": vision.temporal_patch, "BX": 256},
        num_warps=4,
    )
    return out


class Uploader:
    """Brings frames to the device through a pinned buffer, image by image, so that copying and sending overlap."""

    def __init__(self, device: torch.device):
        self.device = device
        self._pinned = torch.empty(0, dtype=torch.uint8)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """frames u8[N, 3, h, w] anywhere -> on the device."""
        if self.device.type != "cuda" or frames.device.type != "cpu":
            return frames.to(self.device).contiguous()
        if frames.is_pinned():
            return frames.to(self.device, non_blocking=True).contiguous()
        if self._pinned.numel() < frames.numel():
            self._pinned = torch.empty(frames.numel(), dtype=torch.uint8, pin_memory=True)
        staged = self._pinned[: frames.numel()].view(frames.shape)
        out = torch.empty(frames.shape, dtype=torch.uint8, device=self.device)
        for i, frame in enumerate(frames):
            out[i].copy_(staged[i].copy_(frame), non_blocking=True)
        return out


def patches(
    frames: torch.Tensor, vision: VisionConfig, budget: tuple[int, int], upload: Uploader, dtype: torch.dtype, exact_cpu: bool = False
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Frames u8[N, 3, h, w] -> patches on the device and the grid of every image. exact_cpu: resized on the CPU, as the specification."""
    if exact_cpu or upload.device.type == "cpu":
        made, grid = to_patches(frames, vision, *budget)
        return made.to(upload.device), grid
    height, width = target_size(frames.shape[-2], frames.shape[-1], *budget, vision.patch * vision.merge)
    made = resize_to_patches(upload(frames), vision, height, width, dtype)
    return made, (height // vision.patch, width // vision.patch)
