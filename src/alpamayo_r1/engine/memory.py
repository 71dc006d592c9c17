"""What the engine knows of a prompt already: keys and values of its first tokens, in another scene's buffers or from the last scene read.

Prompts about the same pictures begin alike: with or without navigation, or asking something else. What they share is read once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.types import FRAMES
from alpamayo_r1.engine.arena import Buffers


@dataclass(frozen=True)
class Known:
    """Keys and values of a prompt's first `count` tokens: per layer [1, Hkv, >= count, d] each."""

    kv: tuple[KV, ...]
    count: int


def early(prompt: Prompt, tile: int) -> int:
    """Tokens of a prompt that a stream knows a step ahead, rounded down to whole tiles: those before its FRAMES-th picture.

    At the next step the first camera's pictures stand one place further ahead, and only its newest is not known yet.
    """
    image = prompt.ids == prompt.image_id
    starts = (image & ~torch.nn.functional.pad(image, (1, 0))[:-1]).nonzero()[:, 0]
    return int(starts[FRAMES - 1]) // tile * tile if len(starts) >= FRAMES else 0


@dataclass(frozen=True)
class Seen:
    """The last scene that was read: its pictures, the ids of its prompt, and their keys and values."""

    patches: torch.Tensor
    grids: tuple[tuple[int, int], ...]
    ids: torch.Tensor
    kv: tuple[KV, ...]

    @classmethod
    def of(cls, prompt: Prompt, buffers: Buffers, scene: int) -> Seen:
        """A copy of what a scene's buffers hold."""
        kv = tuple((k.clone(), v.clone()) for k, v in scene_kv(buffers, scene, len(prompt)))
        return cls(prompt.patches, prompt.grids, prompt.ids, kv)

    def known(self, prompt: Prompt) -> Known | None:
        """What a prompt shares with this scene: nothing unless its pictures are the same, pixel by pixel."""
        if self.grids != prompt.grids or self.patches.shape != prompt.patches.shape or not torch.equal(self.patches, prompt.patches):
            return None
        count = shared_tokens(self.ids, prompt)
        return Known(self.kv, count) if count else None


def known_from(first: Prompt, prompt: Prompt, buffers: Buffers, scene: int) -> Known | None:
    """What a prompt shares with one that was read into a scene's buffers and has the same patches."""
    count = shared_tokens(first.ids, prompt)
    return Known(scene_kv(buffers, scene, count), count) if count else None


def scene_kv(buffers: Buffers, scene: int, count: int) -> tuple[KV, ...]:
    """The first `count` keys and values of a scene's prefix: per layer [1, Hkv, count, d] each."""
    return tuple(scene_cache(layer, scene, count) for layer in buffers.prefix)


def scene_cache(prefix: KV, scene: int, count: int) -> KV:
    """The first `count` keys and values of a scene in one layer's prefix, each [1, Hkv, count, d]: views."""
    keys, values = prefix
    return keys[scene : scene + 1, :, :count], values[scene : scene + 1, :, :count]


def shared_tokens(ids: torch.Tensor, prompt: Prompt) -> int:
    """How many leading tokens a prompt has in common with other ids [T], at least its last one left out; 0 where images stand behind."""
    n = min(len(ids), len(prompt) - 1)
    different = (ids[:n] != prompt.ids[:n]).nonzero()
    count = int(different[0]) if len(different) else n
    return 0 if (prompt.ids[count:] == prompt.image_id).any() else count
