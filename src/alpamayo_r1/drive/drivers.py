"""Who drives: the model with its words or without, the expert, and what needs no model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import F, Observation, Plan
from alpamayo_r1.drive.others import ACCELERATION, interaction
from alpamayo_r1.drive.simulation import Simulation
from alpamayo_r1.drive.tracking import Reference
from alpamayo_r1.metrics.baselines import constant_velocity
from alpamayo_r1.planner import Planner
from alpamayo_r1.world.expert import unicycle
from alpamayo_r1.world.families import EGO_FRONT, LEAD
from alpamayo_r1.world.navigation import navigation
from alpamayo_r1.world.scene import Kind


@dataclass(frozen=True)
class Intent:
    """What a driver means to do: a reference in the world, and, of a model, its words and what they were about."""

    reference: Reference
    words: tuple[str, ...] = ()
    plans: tuple[Plan, ...] = ()
    observations: tuple[Observation, ...] = ()
    told: tuple[str, ...] = ()  # what a navigator said, "" nothing


Driver = Callable[[Simulation], Intent]
"""Plans for all scenes of a simulation at its present step."""


ROUTE = "route"
"""Navigation that is the scene's route, its next step and in how many metres it comes."""


class Model:
    """The model's first sample of every plan, through one stream per scene on the CPU, all scenes at once on a GPU.

    navigation: what it is told at each plan: ROUTE, a text, or None.
    """

    def __init__(self, planner: Planner, options: PlanOptions, navigation: str | None = None):
        self.planner, self.options, self.navigation = planner, options, navigation
        self.steppers: list[Callable[..., Plan]] = []

    def __call__(self, simulation: Simulation) -> Intent:
        seen = simulation.observations()
        told: list[str | None] = [self.navigation] * len(seen)
        if self.navigation == ROUTE:
            told = [*navigation(simulation.scene, simulation.now, 0)]
        if self.planner.model.device.type == "cuda":
            plans = self.planner.plans(seen, self.options, navigation=told)
        else:
            self.steppers = self.steppers or [self.planner.stepper(self.options) for _ in seen]
            plans = [step(one, navigation=text) for step, one, text in zip(self.steppers, seen, told, strict=True)]
        xyz, rot = torch.stack([plan.xyz[0] for plan in plans]), torch.stack([plan.rot[0] for plan in plans])
        words = tuple(plan.reasoning[0] for plan in plans)
        return Intent(simulation.to_world(xyz, yaw_of(rot)), words, tuple(plans), tuple(seen), tuple(text or "" for text in told))


def silent(planner: Planner, options: PlanOptions, navigation: str | None = None) -> Model:
    """The model without its words: its reasoning is empty."""
    return Model(planner, replace(options, reasoning=""), navigation)


def expert(simulation: Simulation) -> Intent:
    """The world's own driver, from wherever the car is."""
    return Intent(simulation.expert_plan())


def constant(simulation: Simulation) -> Intent:
    """Straight on at the present speed."""
    path = constant_velocity(simulation.history())
    return Intent(simulation.to_world(path.xyz, torch.zeros(path.xyz.shape[:-1])))


def lane(simulation: Simulation) -> Intent:
    """Along the lane's middle by the intelligent driver model: it minds the vehicle ahead and bends, no lights, signs or pedestrians."""
    script, start = simulation.expert.script, simulation.expert.copy()
    nowhere, never = np.full_like(script.target, np.nan), np.full_like(script.target, np.inf)
    start.script = replace(script, stop_line=nowhere, crosswalk=nowhere, lead_from=never)
    start.profile = lambda s: (0 * s, 0 * s, 0 * s)
    pose, speed = simulation.car.pose.numpy(), simulation.car.speed.numpy()
    lead_s, lead_v = simulation.others.lead_from(simulation.now, F)
    there = script.kind[:, LEAD] != Kind.NONE
    reach = script.size[:, LEAD, 0] / 2
    poses = [pose]
    for n in range(F):
        a, k = start.act(simulation.now + n, pose, speed, lead_s[:, n], lead_v[:, n])
        gap = lead_s[:, n] - reach - start.s - EGO_FRONT
        a = a.clip(max=ACCELERATION)
        near = there & (gap > -5)
        a[near] = a.clip(max=interaction(speed, gap, lead_v[:, n]))[near]
        start.a = a
        pose, speed = unicycle(pose, speed, a, k)
        poses.append(pose)
    return Intent(Reference(torch.stack([torch.from_numpy(p) for p in poses], 1)))


CONTROLS: dict[str, Driver] = {"expert": expert, "constant": constant, "lane": lane}
"""Drivers that need no model."""

MODELS = {"model": Model, "silent": silent}
"""Drivers that are made of a planner and its options."""
