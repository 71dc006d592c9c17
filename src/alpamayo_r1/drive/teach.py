"""Lessons from one's own errors: scenes that the model in training drives, and the expert's way on from where it came to.

What a driver meets depends on how it drives; so its states are gathered while it drives, and the expert says what was right there
(DAgger, Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.checkpoint import build_meta
from alpamayo_r1.core.config import ModelConfig
from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import DT
from alpamayo_r1.core.types import H as HISTORY
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.drive.score import judge, on_crossing
from alpamayo_r1.drive.simulation import FIRST, Eyes, Setting, Simulation
from alpamayo_r1.drive.tracking import Reference
from alpamayo_r1.train import material
from alpamayo_r1.train.following import paths_as_told
from alpamayo_r1.train.material import Rows, make_layout, rows_of
from alpamayo_r1.train.stream import LAST_TRAINING_SEED, StreamConfig, encoded, families_of
from alpamayo_r1.train.validate import MAX_TOKENS, predict, read_scenes, show
from alpamayo_r1.world.language import labels
from alpamayo_r1.world.navigation import navigation
from alpamayo_r1.world.samples import paths
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import collisions

FIRST_SEED = 600_000
"""Seed of the first scene that is driven for lessons, beyond those of a stream of training."""

LOST = 1.0
"""Metres beside the road from where on a drive teaches nothing."""


def eyes_on(device: torch.device, scenes: int, fused: bool = False) -> Eyes:
    """Eyes whose pictures stay on the device, one ray per pixel as all of training's."""
    return Eyes(device, material.RENDER_SIZE, keep=device, supersample=1, chunk=scenes if device.type == "cuda" else None, fused=fused)


class Learner:
    """A model as a driver of many scenes at once, whatever the device: the specification's steps, batched over scenes."""

    def __init__(self, model: VLA, vocabulary: Vocabulary):
        self.model, self.vocabulary, self.layout = model, vocabulary, make_layout(model.config, vocabulary)

    @torch.no_grad()
    def plan(self, simulation: Simulation, frames: torch.Tensor, seed: int) -> tuple[Reference, list[str]]:
        """Where each ego means to be from now on, and its words. One sample, one seed; the route is told if it can be."""
        shown = show(self.model, self.layout, simulation.scene, simulation.now, frames)
        if self.model.config.family.navigates:
            words, xyz, yaw = paths_as_told(self.model, self.vocabulary, shown, navigation(simulation.scene, simulation.now, 0), seed=seed)
            return simulation.to_world(xyz, yaw), words
        seen = read_scenes(self.model, self.layout, shown)
        options = PlanOptions(samples=1, seed=seed, max_tokens=MAX_TOKENS)
        words, path = predict(self.model, self.vocabulary, self.layout, seen, options)
        return simulation.to_world(path.xyz[:, 0], yaw_of(path.rot[:, 0])), [said[0] for said in words]


class Lessons:
    """A source of rows for `train`: drives `scenes` scenes at once, `every` steps per call, and others when they are over.

    Nothing is asked of a model that has used less than `after` of its budget: it would drive to places that it will never see again.
    part: which one of how many processes this is; each drives other scenes. first: seed of the first scene. fused: rendered with
    torch.compile. hard: families of which every third scene is one, in turn.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        device: torch.device,
        scenes: int = 256,
        every: int = 3,
        seconds: float = 10.0,
        after: float = 0.2,
        silent: bool = False,
        part: tuple[int, int] = (0, 1),
        first: int = FIRST_SEED,
        fused: bool = False,
        hard: Sequence[str] = (),
    ):
        self.config, self.vocabulary, self.device = config, vocabulary, device
        self.layout = make_layout(config, vocabulary)
        self.scenes, self.every, self.after, self.silent, self.part, self.first = scenes, every, after, silent, part, first
        self.fused, self.hard = fused, hard
        self.seed = first + part[0] * scenes
        self.setting = Setting(seconds=seconds, replan=every * DT)
        self.calls = 0
        self._begin()

    def _begin(self) -> None:
        if self.seed + self.scenes - 1 > LAST_TRAINING_SEED:
            self.seed = self.first + self.part[0] * self.scenes
        seeds = range(self.seed, self.seed + self.scenes)
        self.simulation = Simulation(seeds, self.setting, families_of(np.array(seeds), self.hard))
        self.eyes = eyes_on(self.device, self.scenes, self.fused)
        self.seed += self.part[1] * self.scenes
        self.alive = torch.ones(self.scenes, dtype=torch.bool)

    def __call__(self, model: VLA, share: float) -> Rows | None:
        """The states that the model is in now, as rows with the expert's way on; then it drives on. None: too early in the training."""
        if share < self.after:
            return None
        if self.simulation.now + self.every > FIRST + self.setting.steps or not self.alive.any():
            self._begin()
        sim = self.simulation
        frames = self.eyes.frames(sim)
        rows = self._rows(frames)
        self.calls += 1
        reference, _ = Learner(frozen(model), self.vocabulary).plan(sim, frames, self.calls)
        for n in range(self.every):
            sim.step(reference, n * DT)
        self.alive &= ~(collisions(sim.scene.cut(slice(sim.now, sim.now + 1)))[:, 0] | lost(sim.scene, sim.now))
        return rows

    def _rows(self, frames: torch.Tensor) -> Rows:
        """What is seen and known now, and the expert's way on, of those who have not crashed."""
        sim = self.simulation
        way = sim.expert_plan().poses.float()
        ego = torch.cat([sim.scene.ego[:, sim.now - HISTORY + 1 : sim.now + 1], way[:, 1:]], 1)
        at = paths(replace(sim.scene, ego=ego), torch.full((self.scenes,), HISTORY - 1))
        texts = ["" if self.silent else label.text for label in labels(sim.scene, sim.now)]
        natural = torch.ones(self.scenes, dtype=torch.bool)
        chunk = encoded(sim.scene, at, texts, natural, self.config, self.vocabulary, StreamConfig().words)
        alive = self.alive.to(self.device)
        return rows_of(frames, chunk, self.layout, self.device).map(lambda x: x[alive])


def lost(scene: SceneBatch, step: int) -> torch.Tensor:
    """bool (B,): the rear axle is further than LOST beside the road. Nearer than that there is a way back to be learnt."""
    road = scene.road
    s, d = road.frenet(scene.ego[:, step, :2][:, None])[:, 0].unbind(-1)
    left, right = road.edges()
    return ((d > left + LOST) | (d < right - LOST)) & ~on_crossing(road, s)


def frozen(model: VLA) -> VLA:
    """The same weights in bf16, for driving: not compiled, so that any number of rows runs."""
    copy = build_meta(model.config).to_empty(device=model.device).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    return copy.eval().requires_grad_(False)


def driven_by(
    learner: Learner, seeds: Sequence[int], setting: Setting, seed: int = 42, families: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """What came of each scene when the learner drives all of them at once; see `score.judge`. families: a name per seed, or its own."""
    sim, eyes = Simulation(seeds, setting, families), eyes_on(learner.model.device, len(seeds))
    every = round(setting.replan / DT)
    while sim.now < FIRST + setting.steps:
        reference, _ = learner.plan(sim, eyes.frames(sim), seed)
        for n in range(min(every, FIRST + setting.steps - sim.now)):
            sim.step(reference, n * DT)
    return judge(sim.driven(), sim.recorded, FIRST)
