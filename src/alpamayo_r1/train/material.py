"""Scenes as rows that training draws from: one prompt layout, pictures rendered on the device, rings of the latest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.images import resize, target_size
from alpamayo_r1.core.prompt import chat_text, images_text, plan_text, question_text, rope_positions
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.train.stream import Chunk
from alpamayo_r1.world.render import render
from alpamayo_r1.world.view import Metres

RENDER_SIZE = (224, 126)
"""Width and height of training pictures: 16:9 like the clips, then resized like them."""
ELSEWHERE = (0.3, 0.15, 0.3)
"""Metres along, beside and above that the cameras of other cars are taken to be from the nominal places, at most."""


@dataclass(frozen=True)
class Layout:
    """The one prompt that all training rows share, up to the 48 history tokens."""

    ids: torch.Tensor  # (T,)
    positions: torch.Tensor  # (3, T)
    next_position: int
    history: slice  # where the history tokens stand; nowhere in a question
    image: torch.Tensor  # (T,) bool
    size: tuple[int, int]  # height, width that the model sees
    grid: tuple[int, int]


def make_layout(config: ModelConfig, vocabulary: Vocabulary, navigation: str | None = None, question: str | None = None) -> Layout:
    """The prompt layout for 4 x 4 frames of RENDER_SIZE: to plan, with a navigation text or without, or to answer a question."""
    height, width = target_size(RENDER_SIZE[1], RENDER_SIZE[0], config.min_pixels, config.max_pixels)
    grid = (height // config.vision.patch, width // config.vision.patch)
    images = len(CAMERAS) * FRAMES
    family = config.family
    headers = family.headers([ORDER.index(camera) for camera in CAMERAS for _ in range(FRAMES)]) if family.names is not None else ()
    pictures = images_text([grid[0] * grid[1] // 4] * images, headers)
    if question is not None:
        text = chat_text(pictures, question_text(question), family.answering(), family)
    else:
        text = chat_text(pictures, plan_text(config.tokens.history_tokens, family, navigation), family.planning, family)
    ids = torch.tensor(vocabulary.encode(text))
    image_id = vocabulary.id(config.image_token)
    positions, following = rope_positions(ids, [grid] * images, image_id)
    places = (ids == vocabulary.ids["traj_history"]).nonzero()[:, 0].tolist()
    history = slice(places[0], places[0] + len(places)) if places else slice(0, 0)
    return Layout(ids, positions, following, history, ids == image_id, (height, width), grid)


@dataclass(frozen=True)
class Rows:
    """Rendered scenes on the device, as the model's resolution sees them; see Chunk."""

    frames: torch.Tensor  # (N, 16, 3, h, w) u8
    history_ids: torch.Tensor
    words: torch.Tensor
    length: torch.Tensor
    natural: torch.Tensor
    action: torch.Tensor
    future: torch.Tensor

    def map(self, f) -> Rows:
        """f on every tensor."""
        return type(self)(*(f(getattr(self, name)) for name in self.__dataclass_fields__))


C = TypeVar("C", bound=Chunk)
R = TypeVar("R", bound=Rows)


def render_rows(chunk: Chunk, layout: Layout, device: torch.device, fused: bool = False, aside: Mapping[str, Metres] | None = None) -> Rows:
    """Renders the scenes of a chunk and brings all of it to the device. fused: with torch.compile. aside: as in `render_at`."""
    scene, rows = chunk.scene.to(device), len(chunk.length)
    step = torch.full((rows,), FRAMES - 1, device=device)
    whole = rows if device.type == "cuda" else None
    how = {"supersample": 1, "chunk": whole, "compile": fused, "dense": False, "aside": aside}
    frames = render(scene, step, width=RENDER_SIZE[0], height=RENDER_SIZE[1], **how)
    return rows_of(frames, chunk, layout, device)


def rows_of(frames: torch.Tensor, chunk: Chunk, layout: Layout, device: torch.device) -> Rows:
    """Pictures u8 (B, C, K, 3, h, w) on the device with the rest of a chunk."""
    frames = resize(frames.flatten(0, 2), *layout.size).unflatten(0, (len(chunk.length), -1))
    rest = ("history_ids", "words", "length", "natural", "action", "future")
    return Rows(frames, *(getattr(chunk, name).to(device) for name in rest))


class Pool:
    """The latest scenes, as a ring."""

    def __init__(self, size: int):
        self.size, self.written = size, 0
        self.rows: Rows | None = None

    def add(self, new: Rows) -> None:
        """Writes rows over the oldest ones."""
        count = len(new.length)
        if self.rows is None:
            self.rows = new.map(lambda x: torch.empty(self.size, *x.shape[1:], dtype=x.dtype, device=x.device))
        at = (torch.arange(count, device=new.length.device) + self.written) % self.size
        for name in new.__dataclass_fields__:
            getattr(self.rows, name)[at] = getattr(new, name)
        self.written += count

    def draw(self, count: int, generator: torch.Generator) -> Rows:
        """Random rows. Raises ValueError where there are none."""
        if self.rows is None:
            raise ValueError("the pool is empty, expected rows: add some first")
        at = torch.randint(min(self.written, self.size), (count,), generator=generator, device=generator.device)
        return self.rows.map(lambda x: x[at])


def joined_rows(a: Rows, b: Rows) -> Rows:
    """Both in one."""
    return Rows(*(torch.cat([getattr(a, name), getattr(b, name)]) for name in Rows.__dataclass_fields__))


def split_rows(chunk: C, count: int) -> Iterator[C]:
    """A chunk in pieces of `count` rows. Raises ValueError for one with fewer."""
    if count > len(chunk.length):
        raise ValueError(f"a chunk of the stream has {len(chunk.length)} scenes, but {count} are rendered at a time: raise its chunk")
    for first in range(0, len(chunk.length) - count + 1, count):
        rows = slice(first, first + count)
        yield type(chunk)(*(getattr(chunk, name)[rows] for name in chunk.__dataclass_fields__))


def rendering(source: Iterator[C], count: int, render_all: Callable[[C], R]) -> Callable[[], tuple[R, float]]:
    """Renders the next `count` scenes of a stream per call, and says how many seconds it waited for them."""
    pieces = (part for chunk in source for part in split_rows(chunk, count))

    def make() -> tuple[R, float]:
        begin = time.monotonic()
        piece = next(pieces)
        waited = time.monotonic() - begin
        return render_all(piece), waited

    return make


def elsewhere(draw: np.random.Generator) -> dict[str, Metres]:
    """How far the cameras of another car, whose pictures are re-rendered for the nominal rig, stand from its places."""
    return {name: tuple(draw.uniform(-1, 1, 3) * ELSEWHERE) for name in CAMERAS}
