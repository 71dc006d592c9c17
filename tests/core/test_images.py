"""Resizing and patches."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1.core.images import resize, resize_by_products, target_size, to_patches


@pytest.mark.parametrize("size", [(1080, 1920), (541, 963), (252, 448), (96, 96), (300, 128)])
def test_matrix_products_give_torch_bytes(size):
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for target in (target_size(*size, 163840, 196608), (128, 224)):
        assert torch.equal(resize_by_products(frames, *target), resize(frames, *target))


def test_bad_frames_are_refused(tiny):
    model, _ = tiny
    with pytest.raises(TypeError, match=r"float32.*uint8"):
        to_patches(torch.zeros(1, 3, 64, 64), model.config.vision, 4096, 8192)
    with pytest.raises(ValueError, match="expected \\[N, 3"):
        to_patches(torch.zeros(1, 64, 64, 3, dtype=torch.uint8), model.config.vision, 4096, 8192)
    with pytest.raises(ValueError, match="aspect ratio"):
        target_size(4, 4000, 4096, 8192)
