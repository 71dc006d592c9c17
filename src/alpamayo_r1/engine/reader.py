"""Who reads: pictures are seen and prompts are read on the device that speaks, or on another one (pair.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.vision import Grid
from alpamayo_r1.engine import forward
from alpamayo_r1.engine.arena import Buffers
from alpamayo_r1.engine.graphs import Graphs
from alpamayo_r1.engine.lane import Lane, in_turn
from alpamayo_r1.engine.memory import Known, early, scene_kv
from alpamayo_r1.engine.pixels import Uploader, patches

Features = Sequence[torch.Tensor]
"""What was seen: image tokens [n, hidden], then each DeepStack layer's features."""


class Reading(Protocol):
    """A prompt that is being read, or is about to be."""

    def logits(self, speaker: forward.Model, buffers: Buffers, scene: int) -> torch.Tensor:
        """Brings the prompt's keys and values into a scene's prefix: logits [1, vocab] of the token that follows the prompt."""
        ...


@dataclass(frozen=True)
class Ahead:
    """What a plan need not find out about its first prompt.

    reading: it, begun. last: what each row said a step ago, () where nothing. then: called once the device has all work of the plan, for
    what nobody shall wait for.
    """

    reading: Reading
    last: Sequence[Sequence[int]] = ()
    then: Callable[[], None] = lambda: None


class Reader:
    """Sees and reads on the lane that speaks too, by the same model and graphs. exact_cpu: see `Engine`."""

    apart: ClassVar[bool] = False
    """Whether it reads the next prompt while another one is spoken about."""

    def __init__(self, model: forward.Model, lane: Lane, graphs: Graphs, exact_cpu: bool = False):
        self.model, self.lane, self.graphs, self.exact_cpu = model, lane, graphs, exact_cpu
        self.config, self.device, self.dtype = model.vla.config, model.vla.device, model.vla.dtype
        self.upload = Uploader(self.device)

    @in_turn
    @torch.inference_mode()
    def patches(self, frames: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, Grid]:
        """Pictures u8[3, h, w], all of one size -> their patches on the device, and the grid of each."""
        c = self.config
        return patches(frames, c.vision, (c.min_pixels, c.max_pixels), self.upload, self.dtype, self.exact_cpu)

    @in_turn
    @torch.inference_mode()
    def look(self, frames: torch.Tensor, clock: Stopwatch) -> tuple[torch.Tensor, tuple[Grid, ...], list[torch.Tensor]]:
        """Patches, grids and features of all pictures u8[N, 3, h, w]: while a GPU sees the first, the host copies the next."""
        made: list[torch.Tensor] = []
        seen: list[list[torch.Tensor]] = []
        grids: list[Grid] = []
        for some in frames.split(self.model.together):
            with clock("preprocess"):
                found, grid = self.patches(some)
            with clock("vision"):
                seen.append(forward.encode(self.model, found.to(self.device), (grid,) * len(some), self.graphs))
            made.append(found)
            grids += [grid] * len(some)
        with clock("vision"):
            return torch.cat(made), tuple(grids), joined(seen)

    @in_turn
    @torch.inference_mode()
    def see(self, frames: Sequence[torch.Tensor], clock: Stopwatch) -> list[tuple[torch.Tensor, ...]]:
        """Each picture u8[3, h, w], all of one size, as the language model sees it: image tokens [n, hidden], then DeepStack features."""
        with clock("preprocess"):
            made, grid = self.patches(frames)
        with clock("vision"):
            features = forward.encode(self.model, made.to(self.device), (grid,) * len(frames), self.graphs)
            apart = zip(*(one.chunk(len(frames)) for one in features), strict=True)
            seen = [tuple(part.clone() for part in of_one) for of_one in apart]  # each on its own, to be forgotten on its own
        if self.lane.stream is not None:
            for frame in frames:
                if frame.is_cuda:
                    frame.record_stream(self.lane.stream)  # whoever made it may let it go before it was read
        return seen

    @in_turn
    @torch.inference_mode()
    def read_ahead(self, prompt: Prompt, pictures: Sequence[Features], into: Known) -> None:
        """Reads a prompt's first `into.count` tokens. pictures: features of at least those that stand in them."""
        forward.read_early(self.model, prompt, joined(pictures), into.kv)

    def early(self, prompt: Prompt) -> int:
        """How many tokens of a prompt may be read ahead."""
        return early(prompt, self.model.tile)

    @in_turn
    def keys_for(self, count: int) -> Known:
        """Room for the keys and values of so many tokens."""
        text = self.config.text
        shape = 1, text.kv_heads, count, text.head_dim
        layers = ((torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in range(2)) for _ in range(text.layers))
        return Known(tuple((keys, values) for keys, values in layers), count)

    @in_turn
    @torch.inference_mode()
    def joined(self, pictures: Sequence[Features], clock: Stopwatch) -> list[torch.Tensor]:
        """Features of each picture -> features of all."""
        with clock("vision"):
            return joined(pictures)

    def read(self, prompt: Prompt, clock: Stopwatch, images: list[torch.Tensor] | None = None, known: Known | None = None) -> Reading:
        """Begins to read a prompt. images: features of all its pictures, where they were seen; known: keys of its first tokens."""
        return Near(self.model, prompt, self._encode(prompt, clock) if images is None else images, known, clock)

    @in_turn
    @torch.inference_mode()
    def _encode(self, prompt: Prompt, clock: Stopwatch) -> list[torch.Tensor]:
        """Features of all pictures of a prompt."""
        with clock("vision"):
            return forward.encode(self.model, prompt.patches.to(self.device), prompt.grids, self.graphs)


@dataclass
class Near(Reading):
    """A prompt that is read when its keys are wanted, straight into the prefix."""

    model: forward.Model
    prompt: Prompt
    images: list[torch.Tensor]
    known: Known | None
    clock: Stopwatch

    def logits(self, speaker: forward.Model, buffers: Buffers, scene: int) -> torch.Tensor:
        with self.clock("prefill"):
            cache = scene_kv(buffers, scene, len(self.prompt))
            return forward.first_logits(speaker, forward.prefill(self.model, self.prompt, self.images, cache, self.known))


def joined(pictures: Sequence[Features]) -> list[torch.Tensor]:
    """Features of each picture -> features of all, as `forward.encode` gives them."""
    return [torch.cat(features) for features in zip(*pictures, strict=True)]
