"""The engine's memory, planned before the first token: static buffers for a capacity, views of them for a plan's shape.

prefix   [L, 2, B, Hkv, T, d]        keys and values of the prompt, once a scene
suffix   [L, 2, R, Hkv, N + F, d]    of what each row says, R = B S, and behind it of its F action tokens, anew at each Euler step
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import prod

import torch

from alpamayo_r1.core.card import free_bytes
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.plan import DoesNotFit
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.engine.graphs import capturing
from alpamayo_r1.engine.ops.launch import ceil_div

MLP_ROWS = 1536
"""Rows of a prompt that the MLP takes at a time: enough to fill the card, at half the memory of a whole prompt's."""


@dataclass(frozen=True)
class Capacity:
    """The largest plan that buffers are made for."""

    scenes: int
    samples: int
    tokens: int  # reasoning tokens a row
    prompt: int  # prompt tokens a scene

    @property
    def rows(self) -> int:
        """Rows of reasoning."""
        return self.scenes * self.samples

    @property
    def read_at_once(self) -> int:
        """Words that a pass of this many rows, or of fewer, reads at most."""
        return max(self.rows, min(64, LONGEST_BLOCK * self.rows))

    def rounded(self) -> Capacity:
        """Token counts rounded up, so that neighbouring requests share buffers."""
        return replace(self, tokens=ceil_div(self.tokens, 32) * 32, prompt=ceil_div(self.prompt, 32) * 32)

    def holds(self, other: Capacity) -> bool:
        """Whether a plan of the other capacity fits into buffers of this one."""
        return self.rows >= other.rows and all(getattr(self, f.name) >= getattr(other, f.name) for f in fields(self) if f.name != "samples")

    def joined(self, other: Capacity) -> Capacity:
        """The least capacity that holds both; its samples are as many as give enough rows."""
        scenes = max(self.scenes, other.scenes)
        samples = ceil_div(max(self.rows, other.rows), scenes)
        return Capacity(scenes, samples, max(self.tokens, other.tokens), max(self.prompt, other.prompt))


LONGEST_BLOCK = 16
"""Tokens of a row that are read at once at most: one that was said, and drafts."""


def block_length(rows: int) -> int:
    """Tokens of each row that are read at once: more cost time where there are many rows."""
    return max(1, min(LONGEST_BLOCK, 64 // rows))


def kv_bytes(config: ModelConfig, width: int) -> int:
    """Bytes of one token's keys and values in all layers; width is the bytes of a number."""
    return config.text.layers * 2 * config.text.kv_heads * config.text.head_dim * width


def buffer_bytes(config: ModelConfig, capacity: Capacity, width: int) -> int:
    """Bytes of the static buffers."""
    kept = capacity.prompt if config.family.question else 0  # of the last scene, for questions
    tokens = capacity.scenes * capacity.prompt + capacity.rows * (capacity.tokens + config.action.n_waypoints) + kept
    return tokens * kv_bytes(config, width) + capacity.read_at_once * config.tokens.vocab * width


def working_bytes(config: ModelConfig, capacity: Capacity, width: int) -> int:
    """Bytes of intermediate results at the largest moment: an upper estimate for prefill, sampling and flow."""
    text, expert = config.text, config.expert
    prefill = width * (min(capacity.prompt, MLP_ROWS) * 2 * text.intermediate + capacity.prompt * 10 * text.hidden)
    sampling = capacity.read_at_once * config.tokens.vocab * 48  # top-k's sort; without it a fifth
    flow = capacity.rows * config.action.n_waypoints * (3 * expert.intermediate * width + 8 * expert.heads * expert.head_dim * 4)
    return max(prefill, sampling + flow)


class Arena:
    """Static buffers on one device. Addresses never change while the arena lives, so captured graphs may hold them."""

    def __init__(self, config: ModelConfig, capacity: Capacity, device: torch.device, dtype: torch.dtype):
        self.config, self.capacity, self.device, self.dtype = config, capacity, device, dtype
        c, text, rows = capacity, config.text, capacity.rows
        self._check()

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        self._prefix = zeros(text.layers * 2 * c.scenes * text.kv_heads * self._read * text.head_dim, dtype=dtype)
        self._suffix = zeros(text.layers * 2 * rows * text.kv_heads * self._said * text.head_dim, dtype=dtype)
        self._logits = zeros(c.read_at_once, config.tokens.vocab, dtype=dtype)
        self._uniform = zeros(rows, c.tokens, dtype=torch.float32)
        self._forced, self._next, self._block = zeros(rows, c.tokens), zeros(rows), zeros(rows, LONGEST_BLOCK)
        self._state = zeros(rows, STATE + c.tokens)
        self.crowded = zeros(c.read_at_once, dtype=torch.uint8)
        self._noise = zeros(rows, config.action.n_waypoints, 2, dtype=torch.float32)
        self._actions = torch.zeros_like(self._noise)
        self._prompt = zeros(c.scenes)
        self.limit = zeros(1)
        self.guidance = zeros(1, dtype=torch.float32)
        pinned = device.type == "cuda"
        self._host = torch.zeros(2, rows, STATE + c.tokens, dtype=torch.long, pin_memory=pinned)
        self.crowded_host = torch.zeros(c.read_at_once, dtype=torch.uint8, pin_memory=pinned)
        self._drafts = torch.zeros(rows, LONGEST_BLOCK - 1, dtype=torch.long, pin_memory=pinned)

    @property
    def _said(self) -> int:
        """Keys a row's suffix has room for."""
        return self.capacity.tokens + self.config.action.n_waypoints

    @property
    def _read(self) -> int:
        """Keys a scene's prefix has room for: on a CPU, whose attention wants all keys in a row, those of one row's suffix too."""
        return self.capacity.prompt + (self._said if self.device.type == "cpu" else 0)

    def _check(self) -> None:
        """Raises DoesNotFit unless the device has room for buffers and intermediate results."""
        if self.device.type != "cuda":
            return
        with capturing:
            torch.cuda.empty_cache()
        free = free_bytes(self.device)
        if self._bytes(self.capacity) <= free:
            return
        smaller = [replace(self.capacity, samples=s) for s in range(1, self.capacity.samples)]
        fits = [c.samples for c in smaller if self._bytes(c) <= free]
        advice = f"samples={fits[-1]} would fit" if fits else "not even one sample fits; plan fewer scenes at once or lower max_tokens"
        raise DoesNotFit(
            f"{self.capacity} needs {self._bytes(self.capacity) / 1e9:.2f} GB beside the weights, {free / 1e9:.2f} GB are free: {advice}"
        )

    def _bytes(self, capacity: Capacity) -> int:
        width = self.dtype.itemsize
        return buffer_bytes(self.config, capacity, width) + working_bytes(self.config, capacity, width)

    def view(self, scenes: int, samples: int) -> Buffers:
        """The buffers of a plan of B scenes with S samples each."""
        rows, text = scenes * samples, self.config.text
        prefix = self._view(self._prefix, text.layers, 2, scenes, text.kv_heads, self._read, text.head_dim)
        suffix = self._view(self._suffix, text.layers, 2, rows, text.kv_heads, self._said, text.head_dim)
        return Buffers(
            prefix=tuple((layer[0], layer[1]) for layer in prefix),
            suffix=tuple((layer[0], layer[1]) for layer in suffix),
            prompt=self._prompt[:scenes],
            limit=self.limit,
            guidance=self.guidance,
            crowded=(self.crowded, self.crowded_host),
            logits=self._logits[: rows * block_length(rows)],
            **{
                name: getattr(self, f"_{name}")[:rows]
                for name in ("uniform", "forced", "block", "drafts", "state", "next", "noise", "actions")
            },
            host=(self._host[0, :rows], self._host[1, :rows]),
        )

    @staticmethod
    def _view(flat: torch.Tensor, *shape: int) -> torch.Tensor:
        return flat[: prod(shape)].view(shape)


STATE = 4
"""Numbers of a row's state before its ids."""


@dataclass(frozen=True)
class Said:
    """What R rows have said so far, as views of one tensor, so that one copy brings all of it to the host."""

    length: torch.Tensor  # (R,) i64: tokens said
    cached: torch.Tensor  # (R,) i64: of them with keys in the suffix; -1 before the first is said
    over: torch.Tensor  # (R,) i64: 1 where nothing more will be said
    ended: torch.Tensor  # (R,) i64: 1 where the token that ends the turn (<|traj_future_start|>) was said
    ids: torch.Tensor  # (R, N) i64

    @classmethod
    def of(cls, state: torch.Tensor) -> Said:
        """Views of a state [R, 4 + N]."""
        length, cached, over, ended = state[:, :STATE].unbind(1)
        return cls(length, cached, over, ended, state[:, STATE:])


@dataclass(frozen=True)
class Buffers:
    """All state of one plan. R = B S rows, scene-major."""

    prefix: tuple[KV, ...]  # per layer, [B, Hkv, T, d]
    suffix: tuple[KV, ...]  # per layer, [R, Hkv, N + F, d]
    prompt: torch.Tensor  # (B,) i64: tokens of the prompt
    limit: torch.Tensor  # (1,) i64: tokens that a row may say
    guidance: torch.Tensor  # (1,) f32: weight of the navigation; the second half of the scenes is then without it
    crowded: tuple[torch.Tensor, torch.Tensor]  # (>= R K,) u8, here and on the host: draws that took the long way; see draw_tokens
    logits: torch.Tensor  # (R K, vocab): what follows each token that was read; of the prompt's last token at first
    uniform: torch.Tensor  # (R, N) f32
    forced: torch.Tensor  # (R, N) i64: the token to say, or -1 to sample
    block: torch.Tensor  # (R, K) i64: the token said last, then its drafts
    drafts: torch.Tensor  # (R, K - 1) i64, on the host: the drafts that the next pass reads
    state: torch.Tensor  # (R, 4 + N) i64: length, cached, over, ended, ids; see Said
    host: tuple[torch.Tensor, torch.Tensor]  # (R, 4 + N) i64, on the host: the state after the last pass, and after the one before
    next: torch.Tensor  # (R,) i64: the position of the first token said
    noise: torch.Tensor  # (R, F, 2) f32
    actions: torch.Tensor  # (R, F, 2) f32, normalised

    @property
    def said(self) -> Said:
        """The state by name."""
        return Said.of(self.state)
