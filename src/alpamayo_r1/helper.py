"""The original's `helper`: frames -> chat messages -> model inputs, and nested tensors to a device.

The chat template is Qwen's for what the release says: an optional system turn, then user turns with images and text, then assistant turns
with text. Tools and videos are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from alpamayo_r1.core.config import KNOWN_VLMS, MAX_PIXELS, MIN_PIXELS, VisionConfig, vision_config
from alpamayo_r1.core.family import R1, Family, Turn
from alpamayo_r1.core.gate.pictures import as_pixels
from alpamayo_r1.core.gate.values import check_flag, check_type
from alpamayo_r1.core.images import to_patches
from alpamayo_r1.core.prompt import plan_text
from alpamayo_r1.core.vocab import special
from alpamayo_r1.models.tokenizer import Batch, as_tensor, pad_left

HISTORY_TOKENS = 48
"""Placeholders of the car's past: (x, y, z) of 16 steps."""

Message = Mapping[str, Any]
"""{"role": "system" | "user" | "assistant", "content": parts}; parts are a text, or a list of {"type": "text", "text": ...} and
{"type": "image", "image": ...}."""


def create_message(frames: torch.Tensor) -> list[dict[str, Any]]:
    """The release's conversation about frames u8[N, 3, h, w], camera by camera, oldest to newest.

    Raises:
        ValueError: frames that are not [N, 3, h, w].
    """
    return messages_of(frames, (), plan_text(HISTORY_TOKENS), R1.planning, R1)


def messages_of(frames: torch.Tensor, headers: Sequence[str], body: str, turn: Turn, family: Family) -> list[dict[str, Any]]:
    """A conversation about frames u8[N, 3, h, w], each behind its header where there are headers, then the body, the answer opened.

    Raises:
        ValueError: frames that are not [N, 3, h, w].
    """
    if not isinstance(frames, torch.Tensor):
        raise TypeError(f"frames are of type {type(frames).__name__}, expected a torch.Tensor u8[N, 3, h, w]")
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(
            f"frames have shape {tuple(frames.shape)}, expected [N, 3, height, width]: flatten cameras and times with flatten(0, 1)"
        )
    pictures = [{"type": "image", "image": frame} for frame in frames]
    if headers:
        pictures = [part for header, picture in zip(headers, pictures, strict=True) for part in (as_text(header), picture)]
    return [
        {"role": "system", "content": [as_text(family.system)]},
        {"role": "user", "content": [*pictures, as_text(body)]},
        {"role": "assistant", "content": [as_text(special(turn.opens))]},
    ]


def as_text(text: str) -> dict[str, str]:
    """A text part of a message."""
    return {"type": "text", "text": text}


def get_processor(tokenizer: Any) -> Processor:
    """The processor that belongs to a model's tokenizer; with a foreign tokenizer the release's picture sizes are taken."""
    config = getattr(tokenizer, "model_config", None)
    if config is None:
        released = vision_config(KNOWN_VLMS["Qwen/Qwen3-VL-8B-Instruct"]["vision_config"])
        return Processor(tokenizer, released, MIN_PIXELS, MAX_PIXELS)
    return Processor(tokenizer, config.vision, config.min_pixels, config.max_pixels)


class Processor:
    """Conversations -> input_ids, attention_mask, pixel_values, image_grid_thw."""

    def __init__(self, tokenizer: Any, vision: VisionConfig, min_pixels: int, max_pixels: int):
        self.tokenizer, self.vision, self.min_pixels, self.max_pixels = tokenizer, vision, min_pixels, max_pixels

    def apply_chat_template(
        self,
        conversation: Sequence[Message] | Sequence[Sequence[Message]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        continue_final_message: bool = True,
        return_dict: bool = True,
        return_tensors: str = "pt",
    ) -> Batch | torch.Tensor | str | list[str]:
        """One conversation, or a list of them (padded on the left).

        Out: input_ids i64[B, T], attention_mask i64[B, T], pixel_values f32[patches, 1536], image_grid_thw i64[images, 3] (time, height and
        width in patches); only input_ids where return_dict is False. With tokenize=False the text (or texts), a single `<|image_pad|>`
        an image.

        Raises:
            ValueError, TypeError: messages or pictures that the template cannot say, said by name.
        """
        flags = {"tokenize": tokenize, "return_dict": return_dict}
        flags |= {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        for name, flag in flags.items():
            check_flag(name, flag)
        if add_generation_prompt and continue_final_message:
            raise ValueError("add_generation_prompt opens a new turn and continue_final_message continues the last one: choose one of them")
        if not isinstance(conversation, Sequence) or isinstance(conversation, str):
            check_messages(conversation)
        single = not conversation or isinstance(conversation[0], Mapping)
        conversations: list[Any] = [conversation] if single else list(conversation)
        how = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        if not tokenize:
            texts = [render(c, [1] * len(images_of(c)), **how) for c in conversations]
            return texts[0] if single else texts
        rows, patches, grids = [], [], []
        for c in conversations:
            pictures = [self._patches(group) for group in same_sized(images_of(c))]
            patches += [p for p, _ in pictures]
            own = [grid for _, group in pictures for grid in group]
            grids += own
            text = render(c, [h * w // self.vision.merge**2 for h, w in own], **how)
            rows.append(self.tokenizer.encode(text, add_special_tokens=False))
        ids, mask = (as_tensor(r, return_tensors) for r in pad_left(rows, self.tokenizer.pad_token_id))
        if not return_dict:
            return ids
        batch = Batch(input_ids=ids, attention_mask=mask)
        return Batch(batch, pixel_values=torch.cat(patches), image_grid_thw=torch.tensor([[1, h, w] for h, w in grids])) if grids else batch

    def decode(self, token_ids: Any, **options: Any) -> str:
        """Ids -> text."""
        return self.tokenizer.decode(token_ids, **options)

    def batch_decode(self, sequences: Any, **options: Any) -> list[str]:
        """Rows of ids -> texts."""
        return self.tokenizer.batch_decode(sequences, **options)

    def _patches(self, images: torch.Tensor) -> tuple[torch.Tensor, list[tuple[int, int]]]:
        """u8[N, 3, h, w] -> patches, and the grid of every image."""
        patches, grid = to_patches(images, self.vision, self.min_pixels, self.max_pixels)
        return patches, [grid] * len(images)


def render(
    conversation: Sequence[Message], image_tokens: Sequence[int], *, add_generation_prompt: bool, continue_final_message: bool
) -> str:
    """A conversation in Qwen's chat template, image i as `image_tokens[i]` placeholders."""
    counts = iter(image_tokens)
    check_roles(conversation)
    text = "".join(f"<|im_start|>{m['role']}\n{content_text(m, counts)}<|im_end|>\n" for m in conversation)
    if continue_final_message:
        return text.removesuffix("<|im_end|>\n")
    return text + "<|im_start|>assistant\n" * add_generation_prompt


def check_roles(conversation: Sequence[Message]) -> None:
    """Raises unless these are messages with content whose roles are an optional system first, then user and assistant turns."""
    check_messages(conversation)
    roles = [message.get("role") for message in conversation]
    if not roles:
        raise ValueError("the conversation is empty: start from helper.create_message(frames)")
    if unknown := set(roles) - {"system", "user", "assistant"}:
        raise ValueError(f"roles {sorted(map(str, unknown))} are not in this template, expected system, user or assistant")
    if "system" in roles[1:]:
        raise ValueError("a system message stands after the first message: Qwen's template would drop it; put it first")


def check_messages(conversation: Any) -> None:
    """Raises TypeError, ValueError unless a conversation is a list of messages, each with a role and a content of texts and images."""
    if not isinstance(conversation, Sequence) or isinstance(conversation, str):
        raise TypeError(f"a conversation is of type {type(conversation).__name__}, expected messages: helper.create_message(frames)")
    for message in conversation:
        if not isinstance(message, Mapping):
            raise TypeError(f"a message is of type {type(message).__name__}, expected {{'role': ..., 'content': ...}}")
        if "content" not in message:
            raise ValueError(f"a message holds {sorted(map(str, message))}, expected role and content")
        content = message["content"]
        if not isinstance(message.get("role"), str) or not isinstance(content, str | list | tuple):
            raise TypeError(f"role is {message.get('role')!r} and content of type {type(content).__name__}, expected texts or parts")
        for part in () if isinstance(content, str) else content:
            if not isinstance(part, Mapping):
                raise TypeError(f"a part of a message is of type {type(part).__name__}, expected {{'type': 'text', 'text': ...}}")
            if not is_image(part) and not isinstance(part.get("text", ""), str):
                raise TypeError(f"a part's text is {part['text']!r}, expected a text")


def content_text(message: Message, counts: Iterator[int]) -> str:
    """What one message says, images as placeholders."""
    if isinstance(message["content"], str):
        return message["content"]
    return "".join(part_text(part, message["role"], counts) for part in message["content"])


def part_text(part: Mapping[str, Any], role: str, counts: Iterator[int]) -> str:
    """One part of a message: an image as `<|vision_start|>`, its placeholders, `<|vision_end|>`; text as it is."""
    if is_image(part):
        if role != "user":
            raise ValueError(f"an image in a {role} message: Qwen's template shows images in user messages only")
        return f"<|vision_start|>{special('image_pad') * next(counts)}<|vision_end|>"
    if "text" in part:
        return part["text"]
    raise ValueError(f"a part of a {role} message holds {sorted(part)}: expected type text with text=, or type image with image=")


def is_image(part: Mapping[str, Any]) -> bool:
    """Whether a part of a message is an image."""
    return part.get("type") == "image" or "image" in part


def images_of(conversation: Sequence[Message]) -> list[torch.Tensor]:
    """All images of a conversation in order, u8[3, h, w] each."""
    check_messages(conversation)
    parts = (part for message in conversation if not isinstance(message["content"], str) for part in message["content"])
    return [as_pixels(part.get("image")) for part in parts if is_image(part)]


def same_sized(images: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Runs of images of one size, stacked: u8[N, 3, h, w] each."""
    for _, run in groupby(images, key=lambda image: image.shape):
        yield torch.stack(list(run))


def to_device(data: Any, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
    """A copy of nested dicts, lists and tuples with every tensor on `device`, floating ones in `dtype`; integers keep theirs."""
    check_type("dtype", dtype, (torch.dtype, type(None)), "a torch.dtype, or None")
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise ValueError(f"device is {device!r}, expected one that is here, such as 'cpu' or 'cuda:0' ({str(error)[:80]})") from None
    return moved_to(data, device, dtype)


def moved_to(data: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Any:
    """What `to_device` gives, its arguments checked."""
    if isinstance(data, torch.Tensor):
        return data.to(device=device, dtype=dtype if data.is_floating_point() else None)
    if isinstance(data, Mapping):
        moved = {key: moved_to(value, device, dtype) for key, value in data.items()}
        return Batch(moved) if isinstance(data, Batch) else moved
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(moved_to(value, device, dtype) for value in data))
    if isinstance(data, list | tuple):
        return type(data)(moved_to(value, device, dtype) for value in data)
    return data
