"""The original's `helper`: frames, navigation and questions -> chat messages -> model inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from alpamayo_r1.core.family import ALPAMAYO_15
from alpamayo_r1.core.prompt import plan_text, question_text
from alpamayo_r1.helper import HISTORY_TOKENS, Processor, get_processor, messages_of, to_device

__all__ = ["CAMERA_DISPLAY_NAMES", "Processor", "create_message", "create_vqa_message", "get_processor", "to_device"]

CAMERA_DISPLAY_NAMES = dict(enumerate(ALPAMAYO_15.names or ()))
"""Camera index -> what the prompt calls it; another index n is "Camera n"."""

CONTROL = re.compile(r"<\|[^|<>]*\|>|<i\d+>|</?(?:think|tool_call|tool_response)>")
"""What a tokenizer reads as one of the model's own tokens."""

Indices = torch.Tensor | Sequence[int]


def create_message(
    frames: torch.Tensor,
    camera_indices: Indices | None = None,
    num_frames_per_camera: int = 4,
    nav_text: str | None = None,
    use_nav_prompt: bool = False,
) -> list[dict[str, Any]]:
    """The conversation to plan from frames u8[C * K, 3, h, w], camera by camera, oldest to newest.

    camera_indices [C]: name cameras and frames; K is then what the frames give. num_frames_per_camera and use_nav_prompt change nothing.

    Raises:
        ValueError: frames of another shape, that C cameras cannot share, or other than a stated K; a control token in the navigation text.
    """
    check_plain("nav_text", nav_text)
    headers = headers_of(frames, camera_indices, num_frames_per_camera)
    return messages_of(frames, headers, plan_text(HISTORY_TOKENS, ALPAMAYO_15, nav_text), ALPAMAYO_15.planning, ALPAMAYO_15)


def create_vqa_message(
    frames: torch.Tensor, question: str, camera_indices: Indices | None = None, num_frames_per_camera: int = 4
) -> list[dict[str, Any]]:
    """The conversation to ask something about frames u8[C * K, 3, h, w]; arguments and errors as `create_message`."""
    check_plain("question", question)
    headers = headers_of(frames, camera_indices, num_frames_per_camera)
    return messages_of(frames, headers, question_text(question), ALPAMAYO_15.answering(), ALPAMAYO_15)


def headers_of(frames: torch.Tensor, camera_indices: Indices | None, stated: int) -> list[str]:
    """What stands before each picture: nothing without camera indices."""
    if camera_indices is None:
        return []
    indices = [int(index) for index in camera_indices]
    each, rest = divmod(len(frames), len(indices)) if indices else (0, 1)
    if rest or not each:
        raise ValueError(f"{len(frames)} frames for {len(indices)} cameras ({indices}): expected as many frames for each camera")
    if stated not in (4, each):
        raise ValueError(f"num_frames_per_camera is {stated}, but {len(frames)} frames of {len(indices)} cameras are {each} each")
    if min(indices) < 0:
        raise ValueError(f"camera_indices are {indices}, expected indices of at least 0")
    return ALPAMAYO_15.headers([index for index in indices for _ in range(each)])


def check_plain(name: str, text: str | None) -> None:
    """Raises TypeError, ValueError for a text of the user's that is none, or would be read as control tokens."""
    if text is None:
        return
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}, expected text")
    if found := CONTROL.search(text):
        raise ValueError(f"{name} must be plain words; got the special token {found[0]} in {text!r}: leave it out")
