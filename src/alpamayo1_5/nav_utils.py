"""The original's `nav_utils`: navigation texts in prompts, and plans with, without and against them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alpamayo1_5 import helper
from alpamayo1_5.models.alpamayo1_5 import GUIDANCE, Alpamayo1_5
from alpamayo_r1.models.tokenizer import Tokenizer

DIRECTION = re.compile(r"\b(left|right)\b", re.IGNORECASE)


@dataclass(frozen=True)
class NavComparisonResult:
    """Plans of one scene from the same random numbers: f32[1, 1, S, 64, 3] on the CPU, and what was said (None unless asked for).

    A text that names neither left nor right has no counterfactual: pred_counterfactual and nav_text_swapped are then None.
    """

    pred_with_nav: torch.Tensor
    pred_no_nav: torch.Tensor
    pred_counterfactual: torch.Tensor | None
    nav_text: str
    nav_text_swapped: str | None
    extra_with_nav: dict[str, np.ndarray] | None = None
    extra_no_nav: dict[str, np.ndarray] | None = None
    extra_counterfactual: dict[str, np.ndarray] | None = None


def swap_direction(text: str, *, keep_capitals: bool = False) -> str:
    """A text with left and right exchanged, whole words in any case.

    As the original, which writes every left as "right", and every right as "left", or "Left" if it began with a capital. keep_capitals:
    LEFT becomes RIGHT, Left becomes Right and left becomes right, and back.
    """

    def swapped(match: re.Match[str]) -> str:
        word = match[0]
        other = "right" if word.lower() == "left" else "left"
        if keep_capitals:
            return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
        return other.capitalize() if other == "left" and word[0].isupper() else other

    return DIRECTION.sub(swapped, text)


def get_nav_token_span(input_ids: torch.Tensor, tokenizer: Tokenizer, batch_idx: int = 0) -> tuple[int, int]:
    """Where `<|route_start|>` and `<|route_end|>` stand first in a row of input_ids [B, T].

    Raises:
        ValueError: one of them is absent, or they stand the wrong way round.
    """
    row = input_ids[batch_idx].tolist()
    names = ("<|route_start|>", "<|route_end|>")
    found = [tokenizer.convert_tokens_to_ids(name) for name in names]
    for name, token in zip(names, found, strict=True):
        if token not in row:
            raise ValueError(f"row {batch_idx} of input_ids has no {name}: build the prompt with create_message(..., nav_text=...)")
    start, end = (row.index(token) for token in found)
    if end < start:
        raise ValueError(f"row {batch_idx} of input_ids has <|route_end|> before <|route_start|>: it is no prompt with a navigation text")
    return start, end


def remove_nav_text(input_ids: torch.Tensor, tokenizer: Tokenizer, batch_idx: int = 0) -> torch.Tensor:
    """A row of input_ids [B, T] without its navigation text and the tokens around it -> [1, T'].

    Raises:
        ValueError: as `get_nav_token_span`.
    """
    start, end = get_nav_token_span(input_ids, tokenizer, batch_idx)
    row = input_ids[batch_idx]
    return torch.cat([row[:start], row[end + 1 :]])[None]


def compare_nav_conditions(
    model: Alpamayo1_5,
    processor: helper.Processor,
    data: Mapping[str, Any],
    nav_text: str,
    num_traj_samples: int = 16,
    top_p: float = 0.98,
    temperature: float = 0.6,
    max_generation_length: int = 256,
    return_extra: bool = True,
    nav_inference_fn: Callable[..., Any] | None = None,
    inference_fn: Callable[..., Any] | None = None,
    additional_nav_inference_kwargs: Mapping[str, Any] | None = None,
) -> NavComparisonResult:
    """Plans a scene with a navigation text, without, and with the opposite text, all three from the same random numbers.

    data: the loader's. nav_inference_fn plans the two with a text, inference_fn the one without (None: the model's plain method). The
    additional arguments go to all three, but for those of guidance, which has nothing to weigh where there is no text.

    Raises:
        ValueError: an empty text; what the methods raise.
    """
    if not nav_text:
        raise ValueError("nav_text is empty: there is nothing to compare with")
    opposite = swap_direction(nav_text, keep_capitals=True)
    with_text = dict(additional_nav_inference_kwargs or {})
    without = dict(with_text)
    if with_text.get("diffusion_kwargs"):
        without["diffusion_kwargs"] = {key: value for key, value in with_text["diffusion_kwargs"].items() if key not in GUIDANCE}
    method = model.sample_trajectories_from_data_with_vlm_rollout
    seed = int(torch.randint(2**31, ()))

    def plan(text: str | None, function: Callable[..., Any] | None, more: Mapping[str, Any]) -> tuple[torch.Tensor, Any]:
        inputs = model_inputs(processor, data, text)
        inputs = helper.to_device(inputs, model.device)
        arguments = {
            "data": inputs, "top_p": top_p, "temperature": temperature, "num_traj_samples": num_traj_samples,
            "max_generation_length": max_generation_length, "return_extra": return_extra,
        }  # fmt: skip
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            xyz, _, *extra = (function or method)(**arguments, **more)
        return xyz.cpu(), extra[0] if extra else None

    guided, extra_guided = plan(nav_text, nav_inference_fn, with_text)
    alone, extra_alone = plan(None, inference_fn, without)
    against, extra_against = (None, None) if opposite == nav_text else plan(opposite, nav_inference_fn, with_text)
    return NavComparisonResult(
        guided, alone, against, nav_text, None if opposite == nav_text else opposite, extra_guided, extra_alone, extra_against
    )


def model_inputs(processor: helper.Processor, data: Mapping[str, Any], nav_text: str | None) -> dict[str, Any]:
    """A loader's clip as the model takes it, with or without a navigation text."""
    frames = data["image_frames"]
    messages = helper.create_message(frames.flatten(0, 1), data["camera_indices"], frames.shape[1], nav_text)
    history = {key: data[key] for key in ("ego_history_xyz", "ego_history_rot")}
    return {"tokenized_data": processor.apply_chat_template(messages), **history}
