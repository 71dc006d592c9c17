"""Observation -> prompt: token ids with the history fused in, 3-axis positions, image patches (spec section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.family import ORDER, R1, Family, Turn
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.images import to_patches
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import Observation, Trajectory
from alpamayo_r1.core.vocab import Vocabulary, history_ids, special


@dataclass(frozen=True)
class Prompt:
    """One scene as the language model reads it. `next_position` is where the first generated token stands on all three axes."""

    ids: torch.Tensor  # (T,) i64
    positions: torch.Tensor  # (3, T) i64: time, height, width
    next_position: int
    patches: torch.Tensor  # (N, 1536) f32, or the model's dtype from the engine
    grids: tuple[tuple[int, int], ...]  # patches high and wide, per image
    image_id: int  # the placeholder's id: ids == image_id marks image tokens
    navigation: slice | None = None  # where the navigation text stands in ids, with the tokens around it
    notes: tuple[Note, ...] = ()  # on what it was made of

    def __len__(self) -> int:
        return len(self.ids)

    def without_navigation(self) -> Prompt:
        """The prompt as it is without its navigation text, id for id; what stands before that text stays where it is."""
        if self.navigation is None:
            return self
        start, stop = self.navigation.start, self.navigation.stop
        ids = torch.cat([self.ids[:start], self.ids[stop:]])
        positions = torch.cat([self.positions[:, :start], self.positions[:, stop:] - (stop - start)], 1)
        return replace(self, ids=ids, positions=positions, next_position=self.next_position - (stop - start), navigation=None)


def images_text(image_tokens: Sequence[int], headers: Sequence[str] = ()) -> str:
    """Images as so many placeholders each, every one behind its header where there are headers."""
    images = [f"<|vision_start|>{'<|image_pad|>' * n}<|vision_end|>" for n in image_tokens]
    return "".join(header + image for header, image in zip(headers or [""] * len(images), images, strict=True))


def plan_text(history_tokens: int, family: Family = R1, navigation: str | None = None) -> str:
    """What the user's turn says after the images: the history's placeholders, the navigation, the task."""
    told = f"<|route_start|>{navigation}<|route_end|>" if navigation is not None else ""
    return f"<|traj_history_start|>{'<|traj_history|>' * history_tokens}<|traj_history_end|>{told}{family.task}"


def question_text(question: str) -> str:
    """What the user's turn says after the images to ask something."""
    return f"<|question_start|>{question}<|question_end|>"


def chat_text(images: str, body: str, turn: Turn = R1.planning, family: Family = R1) -> str:
    """The whole prompt in Qwen's chat template, the assistant's turn open after `<|cot_start|>` or `<|answer_start|>`."""
    return (
        f"<|im_start|>system\n{family.system}<|im_end|>\n"
        f"<|im_start|>user\n{images}{body}<|im_end|>\n"
        f"<|im_start|>assistant\n{special(turn.opens)}"
    )


def fuse_history(ids: torch.Tensor, xyz: torch.Tensor, vocabulary: Vocabulary, config: ModelConfig) -> torch.Tensor:
    """Replaces the history placeholders in ids [T] by the tokens of the positions xyz [16, 3].

    Raises:
        ValueError: a wrong number of placeholders or history steps.
    """
    slots = ids == vocabulary.ids["traj_history"]
    tokens = history_ids(xyz, config.tokens)
    if int(slots.sum()) != len(tokens):
        raise ValueError(
            f"{len(tokens)} history tokens from {len(xyz)} steps, but {int(slots.sum())} placeholders: "
            f"expected {config.tokens.history_tokens // 3} steps at 10 Hz, the last one at t0"
        )
    return ids.masked_scatter(slots, tokens.to(ids.device))


def rope_positions(ids: torch.Tensor, grids: Sequence[tuple[int, int]], image_id: int, merge: int = 2) -> tuple[torch.Tensor, int]:
    """3-axis positions [3, T] of ids [T], and the next free position.

    Text advances all axes together. An image at position p gives its tokens (p, p + row, p + column) and ends at p + max(rows, columns).
    """
    image = ids == image_id
    tokens = [(h // merge) * (w // merge) for h, w in grids]
    if int(image.sum()) != sum(tokens):
        raise ValueError(f"{int(image.sum())} image tokens in the prompt, but the {len(grids)} images give {sum(tokens)}")
    starts = (image & ~torch.nn.functional.pad(image, (1, 0))[:-1]).nonzero().flatten().tolist()
    parts, position, done = [], 0, 0
    for start, (h, w), n in zip(starts, grids, tokens, strict=True):
        parts.append(torch.arange(position, position + start - done).expand(3, -1))
        position += start - done
        rows, columns = torch.meshgrid(torch.arange(h // merge), torch.arange(w // merge), indexing="ij")
        parts.append(position + torch.stack([torch.zeros_like(rows), rows, columns]).flatten(1))
        position, done = position + max(h, w) // merge, start + n
    parts.append(torch.arange(position, position + len(ids) - done).expand(3, -1))
    return torch.cat(parts, 1), position + len(ids) - done


@dataclass(frozen=True)
class Pictures:
    """An observation's pictures as patches, with what the prompt says before each."""

    patches: torch.Tensor  # (N, 1536)
    grids: tuple[tuple[int, int], ...]
    headers: tuple[str, ...]
    notes: tuple[Note, ...] = ()  # on the observation

    def text(self, merge: int) -> str:
        """The pictures as the prompt holds them."""
        return images_text([h * w // merge**2 for h, w in self.grids], self.headers)


def to_pictures(observation: Observation, config: ModelConfig) -> Pictures:
    """The patches of an observation, on its frames' device.

    Raises:
        TypeError, ValueError: frames or history of the wrong type, shape or value, before any heavy work.
    """
    notes = check_observation(observation, config)
    patches, grid = to_patches(observation.frames.flatten(0, 1), config.vision, config.min_pixels, config.max_pixels)
    return Pictures(patches, (grid,) * observation.frames.shape[:2].numel(), picture_headers(observation, config.family), notes)


def picture_headers(observation: Observation, family: Family) -> tuple[str, ...]:
    """What the prompt says before each of an observation's pictures; nothing where the family's prompt has no headers."""
    if family.names is None:
        return ()
    frames = observation.frames.shape[1]
    return tuple(family.headers([ORDER.index(camera) for camera in observation.cameras for _ in range(frames)]))


def build_prompt(
    observation: Observation,
    vocabulary: Vocabulary,
    config: ModelConfig,
    navigation: str | None = None,
    pictures: Pictures | None = None,
) -> Prompt:
    """The prompt to plan from one observation, on the frames' device for patches and the CPU for ids. pictures: if made already.

    Raises:
        TypeError, ValueError: as `to_pictures`.
    """
    pictures = pictures or to_pictures(observation, config)
    ids = torch.tensor(vocabulary.encode(planning_chat(pictures, config, navigation)))
    return assemble(ids, pictures.patches, pictures.grids, observation.history, vocabulary, config, pictures.notes)


def build_question(
    observation: Observation, vocabulary: Vocabulary, config: ModelConfig, question: str, pictures: Pictures | None = None
) -> Prompt:
    """The prompt to ask something about one observation's pictures; the car's past is not in it.

    Raises:
        TypeError, ValueError: as `to_pictures`; a question that is not plain words, or a model that answers none.
    """
    check_question(question, vocabulary)
    pictures = pictures or to_pictures(observation, config)
    ids = torch.tensor(vocabulary.encode(asking_chat(pictures, config, question)))
    return replace(arrange(ids, pictures.patches, pictures.grids, vocabulary, config), notes=pictures.notes)


def planning_chat(pictures: Pictures, config: ModelConfig, navigation: str | None = None) -> str:
    """The text of a prompt to plan."""
    family = config.family
    body = plan_text(config.tokens.history_tokens, family, navigation)
    return chat_text(pictures.text(config.vision.merge), body, family.planning, family)


def asking_chat(pictures: Pictures, config: ModelConfig, question: str) -> str:
    """The text of a prompt to ask something. Raises ValueError where the model answers no questions."""
    family = config.family
    return chat_text(pictures.text(config.vision.merge), question_text(question), family.answering(), family)


def check_question(question: str, vocabulary: Vocabulary) -> None:
    """Raises TypeError, ValueError unless a question is plain words."""
    if not isinstance(question, str):
        raise TypeError(f"question is {question!r}, expected a text such as 'Describe the scene.'")
    if not question.strip():
        raise ValueError("question is empty: ask something, such as 'Describe the scene.'")
    vocabulary.plain_ids(question, "question")


def assemble(
    ids: torch.Tensor,
    patches: torch.Tensor,
    grids: tuple[tuple[int, int], ...],
    history: Trajectory,
    vocabulary: Vocabulary,
    config: ModelConfig,
    notes: tuple[Note, ...] = (),
) -> Prompt:
    """A prompt from ids [T] that still hold the history placeholders, the patches of their images, and a history that was checked."""
    return replace(arrange(fuse_history(ids, history.xyz.cpu(), vocabulary, config), patches, grids, vocabulary, config), notes=notes)


def arrange(
    ids: torch.Tensor, patches: torch.Tensor, grids: tuple[tuple[int, int], ...], vocabulary: Vocabulary, config: ModelConfig
) -> Prompt:
    """A prompt from its final ids [T] and the patches of their images."""
    image_id = vocabulary.id(config.image_token)
    positions, following = rope_positions(ids, grids, image_id, config.vision.merge)
    return Prompt(ids, positions, following, patches, grids, image_id, navigation_span(ids, vocabulary))


def navigation_span(ids: torch.Tensor, vocabulary: Vocabulary) -> slice | None:
    """Where ids [T] hold a navigation text: from the first `<|route_start|>` to the first `<|route_end|>`, both included; None without."""
    starts, ends = ((ids == vocabulary.ids[name]).nonzero().flatten().tolist() for name in ("route_start", "route_end"))
    return slice(starts[0], ends[0] + 1) if starts and ends and starts[0] < ends[0] else None
