"""Frames to patches: resize to a pixel budget, normalise, cut into 16 x 16 x 2 patches in merge-block order (spec section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as nnf

from alpamayo_r1.core.config import VisionConfig


def target_size(height: int, width: int, min_pixels: int, max_pixels: int, factor: int = 32) -> tuple[int, int]:
    """Qwen's "smart resize": multiples of `factor` within [min_pixels, max_pixels], aspect ratio kept as far as possible.

    In: 1080, 1920, 163840, 196608  Out: (320, 576)

    Raises:
        ValueError: an aspect ratio over 200 (Qwen's own limit), or an empty picture.
    """
    if min(height, width) < 1 or max(height, width) / min(height, width) > 200:
        raise ValueError(f"a picture of {height} x {width} pixels: expected at least 1 pixel a side and an aspect ratio of at most 200")
    h, w = round(height / factor) * factor, round(width / factor) * factor
    if h * w > max_pixels:
        scale = math.sqrt(height * width / max_pixels)
        h, w = (max(factor, math.floor(side / scale / factor) * factor) for side in (height, width))
    elif h * w < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(side * scale / factor) * factor for side in (height, width))
    return h, w


@dataclass(frozen=True)
class Taps:
    """Integer weights of a one-dimensional resize: out[i] = (sum_t weight[i, t] in[first[i] + t] + 2^(precision-1)) >> precision."""

    first: torch.Tensor  # (new,) i32
    weight: torch.Tensor  # (new, taps) i32, zero beyond the filter
    precision: int


@cache
def taps(size: int, new: int, device: torch.device) -> Taps:
    """The taps of a bicubic (a = -0.5) antialiased resize from `size` to `new` pixels, in torch's 16-bit integers."""
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


@cache
def resize_matrix(size: int, new: int, device: torch.device) -> torch.Tensor:
    """The taps as a matrix f64[size, new], divided by 2^precision (exactly, a power of two)."""
    cut = taps(size, new, torch.device("cpu"))  # made there: a GPU has no deterministic scatter_add_
    column = (cut.first[:, None] + torch.arange(cut.weight.shape[1])).clamp_max(size - 1).long()
    matrix = torch.zeros(new, size, dtype=torch.float64)
    return (matrix.scatter_add_(1, column, cut.weight.double()) / 2**cut.precision).T.contiguous().to(device)


def resize_by_products(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The bytes of torch's CPU resize by two matrix products, columns then rows: u8[N, 3, h, w] -> u8[N, 3, height, width].

    Integer sums below 2^53 are exact in f64, so every order of summation and every device gives the same bytes. torch's own antialiased
    resize on CUDA walks all pictures in one thread per output pixel, which takes seconds for hundreds of pictures, and rounds differently.
    """
    for _ in range(2):
        size, new = frames.shape[-1], width
        if size != new:
            frames = (frames.double() @ resize_matrix(size, new, frames.device) + 0.5).floor().clamp(0, 255).to(torch.uint8)
        frames, width, height = frames.mT, height, width
    return frames.contiguous()


def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bicubic with antialias: u8[N, 3, h, w] -> u8[N, 3, height, width]. The bytes are the original's on every device."""
    if frames.shape[-2:] == (height, width):
        return frames
    if frames.device.type == "cpu":
        return nnf.interpolate(frames, size=(height, width), mode="bicubic", antialias=True)
    return resize_by_products(frames, height, width)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """u8 -> f32: (x / 255 - 0.5) / 0.5, computed as (x - 127.5) / 127.5 (the bits of the original).

    By a tensor: CUDA divides by a number as a product with its rounded inverse.
    """
    half = pixels.new_full((), 127.5, dtype=torch.float32)
    return (pixels.float() - half) / half


def patchify(pixels: torch.Tensor, vision: VisionConfig) -> torch.Tensor:
    """[N, 3, h, w] -> [N * h/16 * w/16, 3 * 2 * 16 * 16]: rows in 2 x 2 merge-block order, the frame doubled in time."""
    p, m, t = vision.patch, vision.merge, vision.temporal_patch
    n, c, h, w = pixels.shape
    blocks = pixels.view(n, c, h // (m * p), m, p, w // (m * p), m, p)
    rows = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)  # (N, h/mp, w/mp, m, m, C, p, p)
    rows = rows.unsqueeze(-3).expand(*(-1,) * 6, t, -1, -1)
    return rows.reshape(-1, c * t * p * p)


def to_patches(frames: torch.Tensor, vision: VisionConfig, min_pixels: int, max_pixels: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Frames u8[N, 3, h, w] of one size -> patches f32[N * gh * gw, 1536] and the grid (gh, gw) of every image.

    Raises:
        TypeError, ValueError: frames that are not uint8 RGB of shape [N, 3, h, w].
    """
    check_frames(frames)
    height, width = target_size(frames.shape[-2], frames.shape[-1], min_pixels, max_pixels, vision.patch * vision.merge)
    pixels = normalise(resize(frames, height, width))
    return patchify(pixels, vision), (height // vision.patch, width // vision.patch)


def check_frames(frames: torch.Tensor) -> None:
    """Raises TypeError, ValueError unless frames are u8[N, 3, h, w]."""
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames are {frames.dtype}, expected torch.uint8 in 0..255 (RGB)")
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}, expected [N, 3, height, width]")
