"""Prompts of Alpamayo 1.5 as training rows of one shape: pictures of some of the cameras, then a plan's or a question's text.

A row is [head of its cameras | tail | padding]: heads are few and shared, tails are encoded by the stream's workers, and both are joined
on the device, so that all rows have static shapes whatever their cameras and texts are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.prompt import chat_text, images_text, plan_text, question_text, rope_positions
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.core.vocab import Vocabulary, whole_ids
from alpamayo_r1.train.stream import Chunk, Stream, StreamConfig, make_chunk
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.navigation import TURN, navigation
from alpamayo_r1.world.questions import KINDS, Question, questions
from alpamayo_r1.world.richer import richer_families
from alpamayo_r1.world.simulate import simulate

SUBSETS = ((0, 1, 2, 3), (1,), (1, 3), (0, 1, 2), (0, 1), (1, 2))
"""Which of CAMERAS a prompt may have; the first is all."""

WHOLE = 0.75
"""Share of the plans with all cameras; questions are asked with all, or rarely with the two that look ahead."""

NAVIGATED = 0.75
"""Share of the plans with navigation; the others teach what is done without, as guidance needs it."""

FAR_TURN = 0.15
"""Share of the scenes without a junction whose navigator speaks of a turn far beyond what is planned."""

PLANS, ASKED, TAIL = 2, 3, 120
"""Texts of each scene: to plan by, to answer; and tokens of a tail with its words."""

RARE = {"left": 6.0, "brakes": 2.0, "cones": 2.0, "cone_side": 3.0, "parked_side": 2.0, "limit": 3.0, "day": 0.5, "pedestrian": 2.0}
"""How much more often a kind of question is put than others; what is there is asked for OF_SOMETHING times as often as what is not."""

OF_SOMETHING = 6.0


@dataclass(frozen=True)
class Heads:
    """What stands before the tails, by subset of cameras: everything up to the last picture, padded to one length T."""

    ids: torch.Tensor  # (S, T)
    positions: torch.Tensor  # (S, 3, T)
    source: torch.Tensor  # (S, T) the row's image token that stands there, -1: none
    length: torch.Tensor  # (S,)
    following: torch.Tensor  # (S,) the next free position

    def to(self, device: torch.device) -> Heads:
        """The same on another device."""
        return Heads(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def make_heads(config: ModelConfig, vocabulary: Vocabulary, grid: tuple[int, int]) -> Heads:
    """The heads of SUBSETS for FRAMES frames per camera with so many patches."""
    family, each = config.family, grid[0] * grid[1] // config.vision.merge**2
    image = vocabulary.id(config.image_token)
    made = []
    for subset in SUBSETS:
        headers = family.headers([ORDER.index(CAMERAS[c]) for c in subset for _ in range(FRAMES)])
        whole = chat_text(images_text([each] * len(headers), headers), "\0", family.planning, family)
        ids = torch.tensor(vocabulary.encode(whole[: whole.index("\0")]))
        positions, following = rope_positions(ids, [grid] * len(headers), image, config.vision.merge)
        source = torch.full((len(ids),), -1)
        source[ids == image] = torch.cat([torch.arange(each * FRAMES) + c * each * FRAMES for c in subset])
        made.append((ids, positions, source, following))
    longest = max(len(ids) for ids, *_ in made)

    def padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
        return torch.stack([torch.nn.functional.pad(row, (0, longest - row.shape[-1]), value=value) for row in rows])

    return Heads(
        ids=padded([ids for ids, *_ in made], vocabulary.pad_token_id),
        positions=padded([positions for _, positions, *_ in made], 0),
        source=padded([source for *_, source, _ in made], -1),
        length=torch.tensor([len(ids) for ids, *_ in made]),
        following=torch.tensor([following for *_, following in made]),
    )


def tail_text(body: str, config: ModelConfig, question: bool = False) -> str:
    """What follows the pictures in a prompt with this body."""
    turn = config.family.answering() if question else config.family.planning
    whole = chat_text("\0", body, turn, config.family)
    return whole[whole.index("\0") + 1 :]


class Tails:
    """Encodes tails; those that differ in the history alone share what was encoded."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary):
        self.config, self.vocabulary = config, vocabulary
        self.plans: dict[str | None, torch.Tensor] = {}
        self.asked: dict[str, torch.Tensor] = {}

    def plan(self, told: str | None, history: torch.Tensor) -> torch.Tensor:
        """The tail (L,) of a plan with history ids (48,) and a navigation text or none, up to the first word."""
        if told not in self.plans:
            text = tail_text(plan_text(self.config.tokens.history_tokens, self.config.family, told), self.config)
            self.plans[told] = torch.tensor(self.vocabulary.encode(text))
        ids = self.plans[told]
        return ids.masked_scatter(ids == self.vocabulary.ids["traj_history"], history)

    def question(self, text: str) -> torch.Tensor:
        """The tail (L,) of a question, up to the first word of its answer."""
        if text not in self.asked:
            self.asked[text] = torch.tensor(self.vocabulary.encode(tail_text(question_text(text), self.config, question=True)))
        return self.asked[text]


@dataclass(frozen=True)
class MixedChunk(Chunk):
    """A chunk with V = PLANS + ASKED texts for each scene."""

    head: torch.Tensor  # (B, V) which of SUBSETS
    tail: torch.Tensor  # (B, V, TAIL) i32: the rest of the prompt, then the words, padded
    prompt: torch.Tensor  # (B, V) tokens of the tail before the words
    said: torch.Tensor  # (B, V) words


class MixedStream(Stream):
    """Endless chunks of the richer world with plans and questions."""

    tails: Tails | None = None

    def make(self, seeds: np.ndarray, step: int, directed: np.ndarray, pushed: np.ndarray, vocabulary: Vocabulary) -> MixedChunk:
        """The rows of some seeds at one moment."""
        self.tails = self.tails or Tails(self.config, vocabulary)
        return make_mixed(seeds, step, directed, pushed, self.tails, self.stream)


def make_mixed(seeds: np.ndarray, step: int, directed: np.ndarray, pushed: np.ndarray, tails: Tails, stream: StreamConfig) -> MixedChunk:
    """A chunk with its texts; see `stream.make_chunk`."""
    families = richer_families(seeds)
    chunk = make_chunk(seeds, step, directed, pushed, tails.config, tails.vocabulary, stream.words, families=families, noisy=stream.noisy)
    draw = np.random.default_rng([int(seeds[0]), step, 15])
    # What is asked and told is of the moment, which a window of the scene does not know: it is the same whoever was directed.
    whole = simulate(seeds, seconds=max(step, T0_STEP) / 10 + 0.1, families=families, pushed=pushed, pushed_until=step)
    told, asked = navigation(whole, step), questions(whole, step)
    answering = tails.config.family.answering()
    heads, rows, prompts, said = [], [], [], []
    for b, text in enumerate(told):
        if int(whole.route[b]) == 0 and draw.random() < FAR_TURN:
            side = ("left", "right")[draw.integers(2)]
            text = TURN[draw.integers(len(TURN))].format(side=side, metres=int(draw.integers(90, 200)))
        words = chunk.words[b, : chunk.length[b]]
        for _ in range(PLANS):
            heads.append(0 if draw.random() < WHOLE else int(draw.integers(1, len(SUBSETS))))
            rows.append((tails.plan(text if draw.random() < NAVIGATED else None, chunk.history_ids[b]), words))
        for question in drawn_questions(asked[b], draw):
            heads.append(0 if draw.random() < 0.9 else 2)
            answer = whole_ids(tails.vocabulary, question.answer, answering, "answer")
            rows.append((tails.question(question.text), torch.tensor(answer)))
    tail = torch.full((len(rows), TAIL), tails.vocabulary.pad_token_id, dtype=torch.int32)
    for row, (before, words) in zip(tail, rows, strict=True):
        if len(before) + stream.words > TAIL:
            raise ValueError(f"a prompt has {len(before)} tokens after its pictures, expected at most {TAIL - stream.words}: raise TAIL")
        row[: len(before)], row[len(before) : len(before) + len(words)] = before, words
        prompts.append(len(before))
        said.append(len(words))
    each = PLANS + ASKED
    numbers = (torch.tensor(values).view(-1, each) for values in (heads, prompts, said))
    head, prompt, length = numbers
    rest = {name: getattr(chunk, name) for name in Chunk.__dataclass_fields__}
    return MixedChunk(**rest, head=head, tail=tail.view(-1, each, TAIL), prompt=prompt, said=length)


def drawn_questions(asked: Sequence[Question], draw: np.random.Generator) -> list[Question]:
    """ASKED of a scene's questions, rather rare kinds and things that are there; some twice where there are few."""
    weight = np.array([RARE.get(one.kind, 1.0) * (OF_SOMETHING if one.of_something and one.kind != KINDS[-1] else 1.0) for one in asked])
    few = len(asked) < ASKED
    return [asked[i] for i in draw.choice(len(asked), ASKED, replace=few, p=weight / weight.sum())]
