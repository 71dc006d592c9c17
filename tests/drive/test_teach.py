"""Lessons from one's own errors: what the model saw, and the expert's way on."""

import numpy as np
import pytest
import torch

from alpamayo_r1.core.vla import VLA
from alpamayo_r1.drive import teach
from alpamayo_r1.drive.simulation import FIRST, Setting, Simulation
from alpamayo_r1.drive.tracking import Reference
from alpamayo_r1.planner import load
from alpamayo_r1.train import material

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def planner():
    return load("small", device="cpu", fast=False)


class Swerving(teach.Learner):
    """Drives to the left at 3 degrees, whatever it sees."""

    def plan(self, simulation, frames, seed):
        pose, away = simulation.car.pose, 0.05
        metres = simulation.car.speed[:, None] * 0.1 * torch.arange(65)
        x = pose[:, :1] + metres * (pose[:, 2:] + away).cos()
        y = pose[:, 1:2] + metres * (pose[:, 2:] + away).sin()
        return Reference(torch.stack([x, y, (pose[:, 2:] + away).expand_as(x)], -1)), []


def small_pictures(monkeypatch):
    monkeypatch.setattr(material, "RENDER_SIZE", (64, 36))


def test_lessons_lead_back_to_the_way(planner, monkeypatch):
    small_pictures(monkeypatch)
    monkeypatch.setattr(teach, "Learner", Swerving)
    monkeypatch.setattr(teach, "frozen", lambda model: model)
    lessons = teach.Lessons(planner.model.config, planner.vocabulary, torch.device("cpu"), 6, 5, 2.0, after=0.5, first=600_001)
    assert lessons(planner.model, 0.4) is None, "too early"
    first, second = lessons(planner.model, 0.5), lessons(planner.model, 0.6)
    assert first is not None and second is not None
    sim = lessons.simulation
    moving = sim.recorded.speed[:, FIRST] > 5
    d = [s.road.frenet(s.ego[:, FIRST + 5 : FIRST + 6, :2])[:, 0, 1] for s in (sim.scene, sim.recorded)]
    assert (d[0] - d[1])[moving].min() > 0.05 and moving.sum() > 1
    back = second.future[:, 20, 1] - first.future[:, 20, 1]
    assert back[moving].max() < 0, "who is left of the way is taught to the right"
    assert second.frames.shape[1:3] == (16, 3) and len(second.length) == 6


def test_who_has_crashed_teaches_nothing(planner, monkeypatch):
    small_pictures(monkeypatch)
    monkeypatch.setattr(teach, "Learner", Swerving)
    monkeypatch.setattr(teach, "frozen", lambda model: model)
    lessons = teach.Lessons(planner.model.config, planner.vocabulary, torch.device("cpu"), scenes=4, every=1, seconds=2.0, after=0.0)
    lessons.simulation.car.pose[1, :2] += 500.0
    lessons(planner.model, 1.0)
    assert lessons.alive.tolist() == [True, False, True, True]
    rows = lessons(planner.model, 1.0)
    assert rows is not None and len(rows.length) == 3


def test_the_learner_plans_as_the_specification(planner, monkeypatch):
    monkeypatch.setattr(material, "RENDER_SIZE", (224, 126))
    sim = Simulation([810_003], Setting(seconds=0.5))
    frames = teach.eyes_on(torch.device("cpu"), 1).frames(sim)
    reference, words = teach.Learner(planner.model, planner.vocabulary).plan(sim, frames, seed=42)
    seen = sim.observations()[0]
    plan = planner.plan(type(seen)(frames[0], seen.cameras, seen.history, seen.t0_us), samples=1, seed=42)
    assert words == list(plan.reasoning)
    yaw = torch.atan2(plan.rot[..., 1, 0], plan.rot[..., 0, 0])
    np.testing.assert_allclose(reference.poses, sim.to_world(plan.xyz, yaw).poses, atol=1e-3)


def test_a_frozen_copy_says_the_same_and_learns_nothing(planner):
    copy = teach.frozen(planner.model)
    assert isinstance(copy, VLA) and not any(p.requires_grad for p in copy.parameters())
    for (name, a), (other, b) in zip(planner.model.state_dict().items(), copy.state_dict().items(), strict=True):
        assert name == other and torch.equal(a.to(torch.bfloat16), b)
