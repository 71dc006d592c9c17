"""What a checkpoint's family knows, as data: its prompt, its special tokens, what ends and what is never said.

R1 and ALPAMAYO_15 are two such records; a checkpoint's config picks one. A third family costs one more record in FAMILIES.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

ORDER = (
    "camera_cross_left_120fov",
    "camera_front_wide_120fov",
    "camera_cross_right_120fov",
    "camera_rear_left_70fov",
    "camera_rear_tele_30fov",
    "camera_rear_right_70fov",
    "camera_front_tele_30fov",
)
"""The data set's seven cameras in the released order: a camera's index is its place here."""

KINDS = ("cot", "meta_action", "answer")
"""What may stand between `<|kind_start|>` and `<|kind_end|>` in what a model says."""


@dataclass(frozen=True)
class Turn:
    """One kind of answer of the assistant: what opens it, what a whole one closes with, and what is never said in it.

    The first of `closes` ends the text. `ends`: the token that ends the turn before `<|im_end|>` does, None where nothing does; its keys
    and values stay in the cache, because the actions follow it.
    """

    opens: str
    closes: tuple[str, ...]
    ends: str | None
    blocks_trajectory: bool


PLANNING = Turn(opens="cot_start", closes=("cot_end", "traj_future_start"), ends="traj_future_start", blocks_trajectory=True)
"""Reasoning, then the actions."""

ANSWERING = Turn(opens="answer_start", closes=("answer_end", "im_end"), ends=None, blocks_trajectory=False)
"""The answer to a question: any token may be said, and only `<|im_end|>` ends it."""

SPECIAL = (
    "prompt_start",
    "prompt_end",
    "image_start",
    "image_pre_tkn",
    "image_end",
    "traj_history_start",
    "traj_history_pre_tkn",
    "traj_history_end",
    "cot_start",
    "cot_end",
    "meta_action_start",
    "meta_action_end",
    "traj_future_start",
    "traj_future_pre_tkn",
    "traj_future_end",
    "traj_history",
    "traj_future",
    "image_pad",
    "vectorized_wm",
    "vectorized_wm_start",
    "vectorized_wm_end",
    "vectorized_wm_pre_tkn",
    "route_start",
    "route_pad",
    "route_end",
    "question_start",
    "question_end",
    "answer_start",
    "answer_end",
)
"""R1's special tokens in order, each written `<|name|>`; image_pad exists already in Qwen's vocabulary."""

RENAMED = (
    "image_pre_tkn",
    "traj_history_pre_tkn",
    "meta_action_start",
    "meta_action_end",
    "traj_future_pre_tkn",
    "vectorized_wm",
    "vectorized_wm_start",
    "vectorized_wm_end",
    "vectorized_wm_pre_tkn",
)
"""Tokens that Alpamayo 1.5 never uses: there they are `<|_padding_0|>` .. `<|_padding_8|>`, in this order."""


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    model_type, architecture, package: by which a config.json says that it is of this family. cameras: those it was trained with, in prompt
    order. layout: (cameras, frames per camera) where it knows one layout alone, None where any subset and any number of frames will do.
    names: how the prompt calls a camera by its index in ORDER; None where pictures stand without headers. navigates: whether the prompt may
    hold a navigation text. question: how questions are answered, None where they are not. system, task: what the prompt says.
    facade_tokens: new tokens at most where the original's methods are not told.
    """

    name: str
    model_type: str
    architecture: str
    package: str
    special: tuple[str, ...]
    cameras: tuple[str, ...]
    layout: tuple[int, int] | None
    names: tuple[str, ...] | None
    navigates: bool
    question: Turn | None
    facade_tokens: int
    planning: Turn = PLANNING
    system: str = "You are a driving assistant that generates safe and accurate actions."
    task: str = "output the chain-of-thought reasoning of the driving process, then output the future trajectory."

    def headers(self, indices: Sequence[int]) -> list[str]:
        """What the prompt says before each picture, given each one's camera index: the camera where it changes, then the frame's number.

        In: [1, 1, 6]  Out: ["Front camera: frame 0 ", "frame 1 ", "Front telephoto camera: frame 0 "]
        """
        said, frame, before = [], 0, None
        for index in indices:
            frame = frame + 1 if index == before else 0
            said.append(f"{'' if index == before else f'{self.camera_name(index)}: '}frame {frame} ")
            before = index
        return said

    def camera_name(self, index: int) -> str:
        """How the prompt calls a camera."""
        names = self.names or ()
        return names[index] if 0 <= index < len(names) else f"Camera {index}"

    def needs_navigation(self, what: str) -> None:
        """Raises ValueError where this family knows no navigation text."""
        if not self.navigates:
            raise ValueError(f"{what} was given, but this checkpoint is {self.name}, trained without navigation: {ADVICE}")

    def answering(self) -> Turn:
        """How questions are answered. Raises ValueError where they are not."""
        if self.question is None:
            raise ValueError(f"a question was asked, but this checkpoint is {self.name}, trained to plan alone: {ADVICE}")
        return self.question


ADVICE = "leave it out, or load an Alpamayo 1.5 checkpoint"

R1 = Family(
    name="Alpamayo-R1",
    model_type="alpamayo_r1",
    architecture="AlpamayoR1",
    package="alpamayo_r1.",
    special=SPECIAL,
    cameras=(ORDER[0], ORDER[1], ORDER[2], ORDER[6]),
    layout=(4, 4),
    names=None,
    navigates=False,
    question=None,
    facade_tokens=256,
)

ALPAMAYO_15 = replace(
    R1,
    name="Alpamayo 1.5",
    model_type="alpamayo1_5",
    architecture="Alpamayo1_5",
    package="alpamayo1_5.",
    special=tuple(f"_padding_{RENAMED.index(name)}" if name in RENAMED else name for name in SPECIAL),
    cameras=ORDER,
    layout=None,
    names=(
        "Front left camera",
        "Front camera",
        "Front right camera",
        "Rear left camera",
        "Rear camera",
        "Rear right camera",
        "Front telephoto camera",
    ),
    navigates=True,
    question=ANSWERING,
    facade_tokens=128,
)

FAMILIES = (R1, ALPAMAYO_15)


def family_of(released: Mapping[str, Any]) -> Family:
    """The family a released config says it is of, by model_type, architectures or the package of its targets; R1 where it says nothing.

    Raises:
        ValueError: they name two families.
    """
    said = {released.get("model_type"), *(released.get("architectures") or ()), *(f"{t.split('.')[0]}." for t in targets_of(released))}
    found = [family for family in FAMILIES if {family.model_type, family.architecture, family.package} & said]
    if len(found) > 1:
        raise ValueError(
            f"the config names {' and '.join(family.name for family in found)}: model_type, architectures and every _target_ must be of one"
        )
    return found[0] if found else R1


def targets_of(released: Mapping[str, Any]) -> list[str]:
    """The `_target_` of every section."""
    targets = [section.get("_target_") for section in released.values() if isinstance(section, Mapping)]
    return [target for target in targets if isinstance(target, str)]
