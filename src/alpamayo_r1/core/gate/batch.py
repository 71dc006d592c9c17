"""The original's batch of tensors: types, shapes, ranges, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from alpamayo_r1.core.config import ModelConfig

EXPECTED = (
    "expected tokenized_data (input_ids, attention_mask, pixel_values, image_grid_thw), ego_history_xyz and ego_history_rot, as a "
    "processor and the loader give them"
)


def need(data: Any, key: str) -> Any:
    """data[key].

    Raises:
        TypeError: data is no mapping. KeyError: it lacks the key; says what it should hold.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"data is of type {type(data).__name__}, expected a dict: {EXPECTED}")
    if key not in data:
        raise KeyError(f"data lacks {key!r}, has {sorted(map(str, data))}: {EXPECTED}")
    return data[key]


def tensor(data: Any, key: str, shape: tuple[int | None, ...], floating: bool) -> torch.Tensor:
    """The tensor data[key] of this shape (None: any length) with floating-point numbers, all finite, or with integers.

    Raises:
        KeyError: it is not there. TypeError: no tensor, or of other numbers. ValueError: another shape, or numbers that are not finite.
    """
    value = need(data, key)
    kind = "floating-point numbers" if floating else "integers"
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{key} is of type {type(value).__name__}, expected a tensor of {kind}")
    if value.is_complex() or value.is_floating_point() != floating:
        raise TypeError(f"{key} is {value.dtype}, expected {kind}")
    if value.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, value.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{key} has shape {tuple(value.shape)}, expected [{wanted}]")
    if floating and not bool(value.isfinite().all()):
        raise ValueError(f"{key} holds NaN or infinity, expected finite numbers")
    return value


def check_tokens(data: Any, config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[list[int]]]:
    """input_ids [B, T], attention_mask [B, T] of bool, pixel_values [N, patch], and image_grid_thw as lists.

    Raises:
        KeyError, TypeError, ValueError: what is missing, of another type, or out of its range.
    """
    tokenized = need(data, "tokenized_data")
    ids = tensor(tokenized, "input_ids", (None, None), floating=False)
    if ids.numel() == 0 or ids.min() < 0 or ids.max() >= config.tokens.vocab:
        said = f"from {int(ids.min())} to {int(ids.max())}" if ids.numel() else "none"
        raise ValueError(f"input_ids are {said}, expected ids from 0 to {config.tokens.vocab - 1}: is the tokenizer this model's?")
    mask = torch.ones_like(ids)
    if tokenized.get("attention_mask") is not None:
        mask = tensor(tokenized, "attention_mask", tuple(ids.shape), floating=False)
        if mask.min() < 0 or mask.max() > 1 or not mask.any(1).all():
            raise ValueError("attention_mask holds other values than 0 and 1, or a row without any 1: expected 0 at padding alone")
    patches = tensor(tokenized, "pixel_values", (None, config.vision.patch_dim), floating=True)
    grids = tensor(tokenized, "image_grid_thw", (None, 3), floating=False).tolist()
    merge = config.vision.merge
    for time, high, wide in grids:
        if min(time, high, wide) < 1 or high % merge or wide % merge:
            raise ValueError(f"image_grid_thw holds {[time, high, wide]}, expected [1, height, width] in patches, multiples of {merge}")
    return ids, mask.bool(), patches, grids
