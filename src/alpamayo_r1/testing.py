"""Stand-ins for tests and benches, ours and yours: observations of noise, random models, vocabularies, tiny checkpoints.

    planner = Planner(random_model(size_config("small"), "cpu", torch.float32), StandIn(size_config("small")))
    planner.plan(random_observation(0), seed=0, reasoning=words(5))

Random weights take as long as trained ones where the number of reasoning tokens is forced, and the stand-in vocabulary makes the prompt's
length the released one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from alpamayo_r1.core.checkpoint import (
    WORD_TABLE,
    build_meta,
    derived_buffers,
    derived_value,
    save_checkpoint,
    set_quantised,
    set_tensor,
)
from alpamayo_r1.core.config import KNOWN_VLMS, ModelConfig, parse_config, read_config
from alpamayo_r1.core.family import R1, Family
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.core.precision import precision_named
from alpamayo_r1.core.quantised import quantised_by_rows
from alpamayo_r1.core.types import CAMERAS, FRAMES, H, Observation, Plan, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import special
from alpamayo_r1.train.presets import write_skeleton

VLM = "Qwen/Qwen3-VL-8B-Instruct"
RELEASED: Mapping[str, Any] = {
    "vlm_name_or_path": VLM,
    "vocab_size": 155697,
    "traj_token_start_idx": 151669,
    "traj_vocab_size": 4000,
    "model_dtype": "bfloat16",
    "expert_cfg": {"hidden_size": 2048, "num_attention_heads": 16, "intermediate_size": 8256},
    "action_in_proj_cfg": {"hidden_size": 512, "num_enc_layers": 2},
}
"""What the released 10B's config says of its shape."""

SMOOTH = 0.002
"""Factor on what a random action encoder reads of its input: the velocity field is then as smooth as a trained one's."""


def size_config(size: str, family: Family = R1) -> ModelConfig:
    """The configuration of "10b" or "small", of a family."""
    if size == "10b":
        return parse_config({**RELEASED, "model_type": family.model_type}, KNOWN_VLMS[VLM])
    if size != "small":
        raise ValueError(f"size is {size!r}, expected '10b' or 'small'")
    return replace(read_config(SMALL), family=family)


@torch.no_grad()
def random_model(
    config: ModelConfig,
    device: torch.device | str,
    dtype: torch.dtype,
    seed: int = 0,
    std: float = 0.02,
    precision: str = "bf16",
    words_on_host: bool = False,
    parts: tuple[str, ...] = ("",),
) -> VLA:
    """The model with normal weights, unit norms and a smooth velocity field, made on the device.

    precision: weights of few bits are made so one after the other, of the same numbers. words_on_host: as in `load`.
    parts: as in `load_model`; weights have the numbers that they have in a whole model.
    """
    model, few = build_meta(config).to(dtype), precision_named(precision)
    generator = torch.Generator(device).manual_seed(seed)
    for name, meta in list(model.named_parameters()):
        weight = torch.empty(meta.shape, device=device, dtype=dtype)
        if meta.ndim == 1:
            weight.fill_(1.0 if name.endswith(".weight") else 0.0)
        else:
            weight.normal_(0, std, generator=generator)
        if name == "action_in_proj.encoder.trunk.0.weight":
            weight[:, : 2 * config.projection.features] *= SMOOTH
        if not name.startswith(parts):
            continue
        scheme = few.scheme(name, weight.shape)
        if scheme is not None:
            set_quantised(model, name, quantised_by_rows(weight, scheme), dtype)
        else:
            set_tensor(model, name, weight.cpu() if words_on_host and name == WORD_TABLE else weight)
    for name in derived_buffers(build_meta(config)):
        set_tensor(model, name, derived_value(config, name).to(device=device, dtype=dtype))
    if words_on_host:
        model.move_words_to_host()
    return model.eval().requires_grad_(False)


def random_observation(seed: int, height: int = 1080, width: int = 1920) -> Observation:
    """Frames of noise from the released rig and a car going straight at 10 m/s."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (len(CAMERAS), FRAMES, 3, height, width), dtype=torch.uint8, generator=generator)
    xyz = torch.zeros(H, 3)
    xyz[:, 0] = torch.arange(1 - H, 1.0)
    return Observation(frames, CAMERAS, Trajectory(xyz, torch.eye(3).expand(H, 3, 3).clone()), 5_100_000)


def tiny_checkpoint(folder: Path, seed: int = 0, preset: str = "tiny") -> Path:
    """Writes a checkpoint of a few hundred thousand random weights in the released layout, tokenizer and all; returns its folder.

    preset: "tiny" (R1) or "tiny-1.5".
    """
    write_skeleton(folder, preset)
    model = random_model(read_config(folder), "cpu", torch.float32, seed)
    save_checkpoint(folder, model, (folder / "config.json").read_text(encoding="utf-8"))
    return folder


class StandIn:
    """A vocabulary of the released size without its files: special tokens have their ids, any other piece of text an id by its hash."""

    PIECES = re.compile(r"<\|\w+\|>|-\w{2}| ?\w+|[^\w]")
    QWEN = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<|{i}|>" for i in range(6)),
        "<|vision_start|>",
        "<|vision_end|>",
        "",
        "<|image_pad|>",
    )

    def __init__(self, config: ModelConfig):
        self.words = config.tokens.first - 26
        names = [name for name in config.family.special if name != "image_pad"]
        after = config.tokens.first + config.tokens.count
        self.extra = {token: self.words + i for i, token in enumerate(self.QWEN)} | {
            special(name): after + i for i, name in enumerate(names)
        }
        self.ids = {name: self.extra[special(name)] for name in (*config.family.special, "im_end")}
        self.pad_token_id, self.eos_token_id = self.extra["<|endoftext|>"], self.extra["<|im_end|>"]

    def id(self, token: str) -> int:
        """The id of one token."""
        return self.extra[token]

    def encode(self, text: str) -> list[int]:
        """Text -> ids, about as many as the real tokenizer's."""
        return [self.extra.get(piece, crc32(piece.encode()) % self.words) for piece in self.PIECES.findall(text)]

    def plain_ids(self, text: str, what: str) -> list[int]:
        """A user's text -> ids. Raises ValueError where it holds a special token."""
        if found := [piece for piece in self.PIECES.findall(text) if piece in self.extra]:
            raise ValueError(f"{what} must be plain words; got the special token {found[0]} in {text!r}: leave it out")
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """How many tokens there are, as text."""
        return f"{len(list(ids))} tokens"


def words(tokens: int) -> str:
    """Reasoning that takes so many tokens, the two that end it included."""
    if tokens < 3:
        raise ValueError(f"tokens is {tokens}, expected at least 3: a word and the two tokens that end reasoning")
    return " go" * (tokens - 2)


def same_bits(got: Plan, want: Plan) -> bool:
    """Whether two plans say the same tokens and have the same actions and paths, to the bit."""
    return got.tokens == want.tokens and all(torch.equal(getattr(got, name), getattr(want, name)) for name in ("actions", "xyz", "rot"))
