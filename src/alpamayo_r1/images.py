"""Frames to patches: resize to a pixel budget, normalise, cut into 16 x 16 x 2 patches in merge-block order (spec section 2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nnf

from alpamayo_r1.config import VisionConfig


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


def resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bicubic with antialias: u8[N, 3, h, w] -> u8[N, 3, height, width]. On the CPU the bytes are the original's."""
    if frames.shape[-2:] == (height, width):
        return frames
    if frames.device.type == "cpu":
        return nnf.interpolate(frames, size=(height, width), mode="bicubic", antialias=True)
    scaled = nnf.interpolate(frames.float(), size=(height, width), mode="bicubic", antialias=True)
    return scaled.round().clamp(0, 255).to(torch.uint8)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """u8 -> f32: (x / 255 - 0.5) / 0.5, computed as (x - 127.5) / 127.5 (the bits of the original)."""
    return (pixels.float() - 127.5) / 127.5


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
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames are {frames.dtype}, expected torch.uint8 in 0..255 (RGB)")
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames have shape {tuple(frames.shape)}, expected [N, 3, height, width]")
    height, width = target_size(frames.shape[-2], frames.shape[-1], min_pixels, max_pixels, vision.patch * vision.merge)
    pixels = normalise(resize(frames, height, width))
    return patchify(pixels, vision), (height // vision.patch, width // vision.patch)
