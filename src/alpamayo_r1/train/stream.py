"""Chunks of world scenes as training material, made on CPU workers: the window to render, the words, the actions.

Moments lie anywhere in a scene, and a share of the drivers was pushed off its way until then: what they do next leads back to it, as a
car that drives itself must find back from its own errors.
A share of the scenes is driven against the expert's decision (a directive) with words that say so: those rows teach the action expert that
words decide, and are left out of the language loss, since the car should not say them by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from alpamayo_r1.core.action import Scale, to_action
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.family import PLANNING
from alpamayo_r1.core.types import FRAMES, Trajectory
from alpamayo_r1.core.types import F as FUTURE
from alpamayo_r1.core.vocab import Vocabulary, history_ids, whole_ids
from alpamayo_r1.world.expert import DIRECTIVES
from alpamayo_r1.world.families import FAMILIES, T0_STEP, family_of
from alpamayo_r1.world.language import Label, directive_text, labels, opposite
from alpamayo_r1.world.samples import Paths, paths
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import collisions, concatenate, simulate

LAST_TRAINING_SEED = 799_999
"""Seeds above are for tests (800,000 ..), samples (850,000 ..) and later checks (900,000 ..)."""


MOMENTS = (16, 120)
"""First and last step that a plan is made at: 1.6 to 12 s."""


@dataclass(frozen=True)
class Chunk:
    """B scenes at their t0. The scene holds the steps t0-3 .. t0 only."""

    scene: SceneBatch
    history_ids: torch.Tensor  # (B, 48)
    words: torch.Tensor  # (B, L) reasoning ids, padded
    length: torch.Tensor  # (B,) words that count
    natural: torch.Tensor  # (B,) bool: the expert's own decision
    action: torch.Tensor  # (B, 64, 2) normalised
    future: torch.Tensor  # (B, 64, 3) m, ego frame at t0


@dataclass(frozen=True)
class StreamConfig:
    """What a training stream draws. Seeds run from first_seed on; after the last they start again with other moments and directives."""

    first_seed: int = 0
    chunk: int = 512
    group: int = 32  # scenes that share a moment
    words: int = 24
    other_t0: float = 0.7  # share of groups whose moment is drawn from MOMENTS instead of 5.1 s
    directed: float = 0.3  # share of scenes that are driven against the expert's decision
    pushed: float = 0.65  # share of scenes whose driver was pushed off its way
    noisy: float = 0.5  # share of scenes whose history is as positioning logs it, a few millimetres off
    hard: tuple[str, ...] = ()  # families of which every third scene is one, in turn
    silent: bool = False  # no words at all: what reasoning is worth shows beside a model that was trained so


def families_of(seeds: np.ndarray, hard: Sequence[str]) -> list[str] | None:
    """The family of each seed's scene, every third of them one of `hard` in turn. None: all are the seeds' own."""
    if not hard:
        return None
    own = (FAMILIES[number] for number in family_of(seeds))
    return [str(hard[seed // 3 % len(hard)]) if seed % 3 == 0 else name for seed, name in zip(seeds.tolist(), own, strict=True)]


def window(scene: SceneBatch, step: int) -> SceneBatch:
    """The scene cut to the steps step-3 .. step, all that a renderer needs."""
    return scene.cut(slice(step - FRAMES + 1, step + 1))


def make_chunk(
    seeds: np.ndarray,
    step: int,
    directed: np.ndarray,
    pushed: np.ndarray,
    config: ModelConfig,
    vocabulary: Vocabulary,
    words: int,
    silent: bool = False,
    families: Sequence[str] | None = None,
    noisy: float = 0.0,
) -> Chunk:
    """Simulates the seeds and encodes words and actions at `step`.

    directed (B,): who then drives against its label. pushed (B,): who was pushed off its way until then, unless that ends in a collision.
    silent: nobody says anything. families: a name per scene, or None for the seed's own. noisy: share of scenes whose history is `logged`.
    """
    seconds = max(step, T0_STEP) / 10 + 0.1
    scene = simulate(seeds, seconds=seconds, families=families, pushed=pushed, pushed_until=step)
    hit = pushed & collisions(scene)[:, : step + FUTURE + 1].any(1).numpy()
    if hit.any():
        pushed = pushed & ~hit
        scene = simulate(seeds, seconds=seconds, families=families, pushed=pushed, pushed_until=step)
    made = labels(scene, step)
    texts = [label.text for label in made]
    if directed.any():
        orders = [order(label, int(seed)) if d else None for label, seed, d in zip(made, seeds, directed, strict=True)]
        scene = simulate(seeds, seconds=seconds, families=families, directive=orders, directed_from=step, pushed=pushed, pushed_until=step)
        texts = [directive_text(o, scene, row, step) if o else text for row, (o, text) in enumerate(zip(orders, texts, strict=True))]
    at = paths(scene, torch.full((len(seeds),), step))
    texts = [""] * len(texts) if silent else texts
    chunk = encoded(window(scene, step), at, texts, torch.from_numpy(~directed), config, vocabulary, words)
    return replace(chunk, history_ids=history_ids(logged(at.history_xyz, seeds, noisy), config.tokens)) if noisy else chunk


def logged(history: torch.Tensor, seeds: np.ndarray, share: float) -> torch.Tensor:
    """Histories (B, H, 3) in metres, a share of them with white noise of 0.5 to 3 mm (up to 5 mm in height) and a wander as large per step.

    The last place stays the origin. Drawn from the seeds.
    """
    draw = np.random.default_rng([11, *map(int, seeds)])
    size = draw.uniform([0.5e-3, 0.5e-3, 0.0], [3e-3, 3e-3, 5e-3], (len(seeds), 1, 3)) * (draw.random((len(seeds), 1, 1)) < share)
    white, step = size * draw.standard_normal((2, *history.shape))
    off = torch.from_numpy(white + step.cumsum(1)).to(history.dtype)
    return history + off - off[:, -1:]


def encoded(
    scene: SceneBatch, at: Paths, texts: Sequence[str], natural: torch.Tensor, config: ModelConfig, vocabulary: Vocabulary, words: int
) -> Chunk:
    """A chunk of what is seen (a window), of the paths around it and the words to it."""
    history, future = Trajectory(at.history_xyz, at.history_rot), Trajectory(at.future_xyz, at.future_rot)
    scale = Scale((config.action.accel_mean, config.action.curvature_mean), (config.action.accel_std, config.action.curvature_std))
    rows = [whole_ids(vocabulary, text, PLANNING, "reasoning") for text in texts]
    return Chunk(
        scene=scene,
        history_ids=history_ids(at.history_xyz, config.tokens),
        words=torch.tensor([row + [vocabulary.pad_token_id] * (words - len(row)) for row in rows]),
        length=torch.tensor([len(row) for row in rows]),
        natural=natural,
        action=scale.normalised(to_action(history, future, config.action)),
        future=at.future_xyz,
    )


def joined(parts: Sequence[Chunk]) -> Chunk:
    """Chunks as one."""
    kind = type(parts[0])
    rest = [name for name in kind.__dataclass_fields__ if name != "scene"]
    return kind(concatenate([part.scene for part in parts]), *(torch.cat([getattr(part, name) for part in parts]) for name in rest))


def order(label: Label, seed: int) -> str:
    """A directive for a scene: mostly the opposite of its label, sometimes any other."""
    draw = np.random.default_rng([seed, 7])
    return opposite(label) if draw.random() < 0.65 else str(draw.choice(DIRECTIVES))


class Stream(IterableDataset):
    """Endless chunks; each worker of each process takes its own seeds, so no scene comes twice."""

    def __init__(self, stream: StreamConfig, config: ModelConfig, folder: str, rank: int, world: int):
        self.stream, self.config, self.folder, self.rank, self.world = stream, config, folder, rank, world

    def __iter__(self) -> Iterator[Chunk]:
        from pathlib import Path

        from alpamayo_r1.core.vocab import load_vocabulary

        vocabulary = load_vocabulary(Path(self.folder) / self.config.vlm, self.config.tokens, self.config.family)
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        number, stride = self.rank * workers + worker, self.world * workers
        s = self.stream
        while True:
            lap, first = divmod(s.first_seed + number * s.chunk, LAST_TRAINING_SEED + 1 - s.chunk)
            draw, parts = np.random.default_rng([first, 3, lap]), []
            for start in range(first, first + s.chunk, s.group):
                step = int(draw.integers(MOMENTS[0], MOMENTS[1] + 1)) if draw.random() < s.other_t0 else T0_STEP
                seeds = np.arange(start, min(start + s.group, first + s.chunk))
                directed, pushed = draw.random((2, len(seeds))) < np.array([[0.0 if s.silent else s.directed], [s.pushed]])
                parts.append(self.make(seeds, step, directed, pushed, vocabulary))
            yield joined(parts)
            number += stride

    def make(self, seeds: np.ndarray, step: int, directed: np.ndarray, pushed: np.ndarray, vocabulary: Vocabulary) -> Chunk:
        """The rows of some seeds at one moment."""
        families = families_of(seeds, self.stream.hard)
        s = self.stream
        return make_chunk(seeds, step, directed, pushed, self.config, vocabulary, s.words, s.silent, families, s.noisy)


def chunks(stream: StreamConfig, config: ModelConfig, folder: str, workers: int, rank: int = 0, world: int = 1) -> Iterator[Chunk]:
    """The stream of one of `world` training processes through its `workers` processes (0: in this one)."""
    return through(Stream(stream, config, folder, rank, world), workers)


def through(source: Stream, workers: int) -> Iterator[Chunk]:
    """A stream through so many processes (0: in this one)."""
    return iter(DataLoader(source, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None))
