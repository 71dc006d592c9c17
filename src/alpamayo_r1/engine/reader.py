"""Who reads: pictures are seen and prompts are read on the device that speaks, or on another one (pair.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch

from alpamayo_r1.core.clock import Stopwatch
from alpamayo_r1.core.prompt import Prompt
from alpamayo_r1.core.transformer import KV
from alpamayo_r1.core.vision import Grid
from alpamayo_r1.engine import forward, reading, seeing
from alpamayo_r1.engine.arena import Buffers
from alpamayo_r1.engine.graphs import Graphs, Run
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
    """Sees and reads on the lane that speaks too, by the same model and graphs.

    prefix: gives the only scene's keys and values of so many tokens, where a prompt is read ahead, by the graphs of a fresh plan.
    exact_cpu: see `Engine`.
    """

    apart: ClassVar[bool] = False
    """Whether it reads the next prompt while another one is spoken about."""

    def __init__(self, model: forward.Model, lane: Lane, graphs: Graphs, prefix: Callable[[int], Sequence[KV]], exact_cpu: bool = False):
        self.model, self.lane, self.graphs, self.prefix, self.exact_cpu = model, lane, graphs, prefix, exact_cpu
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
    def look(self, frames: torch.Tensor, clock: Stopwatch) -> tuple[torch.Tensor, tuple[Grid, ...], list[Features]]:
        """Patches, grids and features, some at a time, of pictures u8[N, 3, h, w]: while a GPU sees the first, the host copies the next."""
        made: list[torch.Tensor] = []
        seen: list[Features] = []
        grids: list[Grid] = []
        for some in frames.split(self.model.together):
            with clock("preprocess"):
                found, grid = self.patches(some)
            with clock("vision"):
                seen.append(seeing.encode(self.model, found.to(self.device), (grid,) * len(some), self.graphs))
            made.append(found)
            grids += [grid] * len(some)
        return torch.cat(made), tuple(grids), seen

    @in_turn
    @torch.inference_mode()
    def see(self, frames: Sequence[torch.Tensor], clock: Stopwatch) -> list[tuple[torch.Tensor, ...]]:
        """Each picture u8[3, h, w], all of one size, as the language model sees it: image tokens [n, hidden], then DeepStack features."""
        with clock("preprocess"):
            made, grid = self.patches(frames)
        with clock("vision"):
            features = seeing.encode(self.model, made.to(self.device), (grid,) * len(frames), self.graphs)
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
        cache = self.prefix(into.count)
        reading.prefill_early(self.model, prompt, self._placed(pictures), cache, self._run(0))
        for layer, of_layer in zip(into.kv, cache, strict=True):
            for keys, read in zip(layer, of_layer, strict=True):
                keys.copy_(read)

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

    def read(self, prompt: Prompt, clock: Stopwatch, pictures: list[Features] | None = None, known: Known | None = None) -> Reading:
        """Begins to read a prompt. pictures: their features in order, where they were seen; known: keys of its first tokens."""
        return Near(self, prompt, [self._encode(prompt, clock)] if pictures is None else pictures, known, clock)

    @in_turn
    @torch.inference_mode()
    def into(self, prompt: Prompt, pictures: list[Features], known: Known | None, buffers: Buffers, scene: int) -> torch.Tensor:
        """Reads a prompt into a scene's prefix; the final norm of its last token [1, hidden]. pictures: emptied.

        In the last scene's place, whose turn comes last, and copied from there: so many scenes are read by the graphs of one.
        """
        images = self._placed(pictures)
        pictures.clear()
        here = len(buffers.prompt) - 1
        cache = scene_kv(buffers, here, len(prompt))
        last = reading.prefill(self.model, prompt, images, cache, self._run(here), known)
        if scene != here:
            reading.copy_keys(Known(cache, len(prompt)), scene_kv(buffers, scene, len(prompt)), len(prompt))
        return last

    def _run(self, place: int) -> Run:
        """What runs the reading of a prompt in the last place of an arena: graphs by that place, which says how many there are."""
        return lambda key, function: self.graphs.run((key, place), function)

    def _placed(self, pictures: Sequence[Features]) -> list[torch.Tensor]:
        """Features of pictures, together where prompts are read from."""
        images = self.model.features(sum(len(features[0]) for features in pictures), self.graphs)
        for into, parts in zip(images, zip(*pictures, strict=True), strict=True):
            torch.cat(parts, out=into)
        return images

    @in_turn
    @torch.inference_mode()
    def _encode(self, prompt: Prompt, clock: Stopwatch) -> Features:
        """Features of all pictures of a prompt."""
        with clock("vision"):
            return seeing.encode(self.model, prompt.patches.to(self.device), prompt.grids, self.graphs)


@dataclass
class Near(Reading):
    """A prompt that is read when its keys are wanted, straight into the prefix."""

    reader: Reader
    prompt: Prompt
    pictures: list[Features]
    known: Known | None
    clock: Stopwatch

    def logits(self, speaker: forward.Model, buffers: Buffers, scene: int) -> torch.Tensor:
        with self.clock("prefill"):
            return forward.first_logits(speaker, self.reader.into(self.prompt, self.pictures, self.known, buffers, scene))
