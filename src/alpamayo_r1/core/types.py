"""The records that cross every boundary, the axis letters, the units and the frames.

Axis letters used in every docstring of the package:
    B scenes · S samples of one scene · C cameras · K frames per camera · H = 16 history steps · F = 64 future steps · T tokens or times.

Units: metres, seconds, radians; clip time in integer microseconds. Steps are 10 Hz (dt = 0.1 s).
Frame: **ego frame at t0**: origin at the rear axle projected on the ground, x forward, y left, z up. Every Trajectory below is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from alpamayo_r1.core.family import R1
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.show import plan_html, sample_html

H, F, DT = 16, 64, 0.1
"""History steps, future steps and the time between two steps in seconds (spec section 2 and 6)."""

CAMERAS = R1.cameras
"""The four cameras of the release, in prompt order (spec section 2)."""

CAR = {"length": 4.9, "width": 1.9, "height": 1.5, "rear_axle_to_bbox_center": 1.4}
"""Measures of an ordinary car in metres."""

FRAMES = 4
"""Frames per camera, at t0-0.3, t0-0.2, t0-0.1 and t0 seconds."""


@dataclass(frozen=True)
class Trajectory:
    """A path with attitude at a fixed rate: xyz f32[..., T, 3], rot f32[..., T, 3, 3], dt seconds between steps."""

    xyz: torch.Tensor
    rot: torch.Tensor
    dt: float = DT


@dataclass(frozen=True)
class Observation:
    """What the car may know at t0: frames u8[C, K, 3, h, w] (oldest to newest), camera names, history [H] ending at the origin."""

    frames: torch.Tensor
    cameras: tuple[str, ...]
    history: Trajectory
    t0_us: int


@dataclass(frozen=True)
class Marking:
    """A line on the road: kind "edge", "lane", "centre", "stop" or "crosswalk", xy f32[N, 2] in the ego frame at t0."""

    kind: str
    xy: torch.Tensor


@dataclass(frozen=True)
class Obstacle:
    """A box that stands on the ground at t0: kind "car", "van", "truck", "pedestrian" or "cone", its centre and yaw in the ego frame, m."""

    kind: str
    x: float
    y: float
    yaw: float
    length: float
    width: float
    height: float


@dataclass(frozen=True)
class Surroundings:
    """What is around the car at t0, as far as the source knows it. For pictures only: no model sees it."""

    markings: tuple[Marking, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()


@dataclass(frozen=True)
class Sample:
    """What we know: an observation, the future that was really driven ([F], or None), and where it came from.

    `meta` may hold: "calibration" (geometry.Calibration per camera name), "vehicle" (length, width, height in m),
    "label" (world.language.Label), "surroundings" (Surroundings, for pictures),
    "source" (a word for the licence notice: "world", "physical-ai-av").
    `notes`: what to know about how it was read.
    """

    observation: Observation
    future: Trajectory | None
    clip_id: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @property
    def car(self) -> Mapping[str, float]:
        """The car's measures in metres, those of CAR where the clip does not tell."""
        return CAR | self.meta.get("vehicle", {})

    def _repr_html_(self) -> str:
        """How a notebook shows it: pictures at t0, history and future from above, notes."""
        seen, future = self.observation, None if self.future is None else self.future.xyz
        title, notes = f"{self.clip_id} at t0 = {seen.t0_us / 1e6:.10g} s", [f"{note.code}: {note.text}" for note in self.notes]
        return sample_html(title, seen.cameras, seen.frames, seen.history.xyz, future, notes)


@dataclass(frozen=True)
class Plan:
    """S planned futures with the words that led to them.

    xyz f32[S, F, 3], rot f32[S, F, 3, 3], actions f32[S, F, 2] (acceleration m/s^2, curvature 1/m), reasoning one string a sample,
    ended: whether each sample's reasoning reached `<|traj_future_start|>`, timing: stage name -> milliseconds,
    tokens: the ids each sample said, from which `reasoning` is read. notes: what to know about the observation and this plan.
    passes: how often the engine's language model ran to say them; 0 from the specification.
    """

    xyz: torch.Tensor
    rot: torch.Tensor
    reasoning: tuple[str, ...]
    actions: torch.Tensor
    ended: tuple[bool, ...]
    timing: Mapping[str, float]
    tokens: tuple[tuple[int, ...], ...] = ()
    notes: tuple[Note, ...] = ()
    passes: int = 0

    def _repr_html_(self) -> str:
        """How a notebook shows it: each sample's words, all paths from above, notes."""
        return plan_html(self.xyz, self.reasoning, [f"{note.code}: {note.text}" for note in self.notes])


@dataclass(frozen=True)
class Answers:
    """S answers to one question about one scene.

    answers: one text per sample, as far as it was said. ended: whether each is whole, that is reached `<|answer_end|>`; the others were cut
    off by the length. tokens: the ids each sample said. timing: stage name -> milliseconds. notes: what to know about them.
    """

    question: str
    answers: tuple[str, ...]
    ended: tuple[bool, ...]
    tokens: tuple[tuple[int, ...], ...]
    timing: Mapping[str, float]
    notes: tuple[Note, ...] = ()
