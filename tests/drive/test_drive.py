"""The closed loop: a car that follows, others that react, and an expert that drives from wherever the car is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alpamayo_r1.drive.drivers import CONTROLS
from alpamayo_r1.drive.others import HEADWAY, STANDSTILL, interaction
from alpamayo_r1.drive.simulation import FIRST, Setting, Simulation
from alpamayo_r1.drive.tracking import Reference, follow
from alpamayo_r1.drive.vehicle import Car
from alpamayo_r1.world.simulate import collisions

pytestmark = pytest.mark.slow

SEEDS = range(830_000, 830_028)


def driven(name: str, setting: Setting, seeds=SEEDS, families=None) -> Simulation:
    simulation = Simulation(seeds, setting, families)
    for _ in range(setting.steps):
        simulation.step(CONTROLS[name](simulation).reference, 0.0)
    return simulation


def car(speed: float) -> Car:
    zero = torch.zeros(1, dtype=torch.float64)
    return Car(torch.zeros(1, 3, dtype=torch.float64), zero + speed, zero, zero)


def test_a_car_on_full_lock_drives_a_circle():
    start, k = car(5.0), torch.tensor([0.1], dtype=torch.float64)
    for _ in range(20):
        start = start.after(torch.zeros(1, dtype=torch.float64), k, 0.1)
    settled = start
    for _ in range(round(2 * math.pi * 10 / 5 / 0.1)):
        start = start.after(torch.zeros(1, dtype=torch.float64), k, 0.1)
    assert (start.pose[:, :2] - settled.pose[:, :2]).norm() < 0.2 and abs(float(start.speed) - 5.0) < 1e-9


def test_a_braking_car_comes_to_rest_and_stays():
    moving = car(3.0)
    for _ in range(10):
        moving = moving.after(torch.tensor([-8.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), 0.1)
    assert float(moving.speed) == 0 and 0.5 < float(moving.pose[0, 0]) < 1.2


@pytest.mark.parametrize("bend", [0.0, 0.05])
def test_the_tracker_comes_back_to_its_path(bend):
    """From half a metre beside and 1 m/s too slow."""
    s = torch.arange(120, dtype=torch.float64) * 0.8
    yaw = bend * s
    x, y = (s, 0 * s) if bend == 0 else (yaw.sin() / bend, (1 - yaw.cos()) / bend)
    reference = Reference(torch.stack([x, y, yaw], -1)[None])
    moving = car(7.0)
    moving = Car(moving.pose + torch.tensor([[0.0, 0.5, 0.0]]), moving.speed, moving.acceleration, moving.curvature)
    for n in range(60):
        moving = moving.after(*follow(moving, reference, n * 0.1), 0.1)
    off = reference.since(6.0, 1)[:, 0] - moving.pose
    assert off.abs().max() < 0.1 and abs(float(moving.speed) - 8.0) < 0.05


@pytest.mark.parametrize("tracking, bound", [("perfect", 0.5), ("mpc", 6.0)])
def test_the_expert_drives_in_closed_loop_as_it_was_recorded(tracking, bound):
    simulation = driven("expert", Setting(seconds=8.0, tracking=tracking))
    off = (simulation.scene.ego[:, : simulation.now + 1, :2] - simulation.recorded.ego[:, : simulation.now + 1, :2]).norm(dim=-1)
    assert off[:, : FIRST + 1].max() == 0 and off.max() < bound
    assert not collisions(simulation.driven()).any()


def test_nothing_ahead_leaves_a_vehicle_to_its_script_and_a_wall_stops_it():
    v = np.array([10.0])
    assert interaction(v, np.array([1e9]), v)[0] > 1.7
    assert interaction(v, STANDSTILL + v * HEADWAY, v)[0] == pytest.approx(0.0)
    assert interaction(v, np.array([6.0]), 0 * v)[0] == -8.0


def test_whoever_is_behind_brakes_for_an_ego_that_stops():
    """A follower that minds the ego does not hit it; one that repeats a recording could not know."""
    simulation = Simulation(SEEDS, Setting(seconds=8.0))
    assert len(simulation.others.behind.rows) > len(SEEDS) / 2
    for _ in range(simulation.setting.steps):
        stay = simulation.car.pose[:, None, :2].expand(-1, 64, -1) * 0
        simulation.step(simulation.to_world(stay, stay[..., 0]), 0.0)
    rows, slots = simulation.others.behind.rows, simulation.others.behind.slots
    gap = (simulation.scene.track[rows, slots, simulation.now, :2] - simulation.scene.ego[rows, simulation.now, :2]).norm(dim=-1)
    assert (simulation.others.behind.v < 0.1).all() and gap.min() > 4.5
    assert not (collisions(simulation.driven())[rows, -1] & (gap < 4.8)).any()


def test_replayed_others_keep_to_the_recording():
    simulation = driven("constant", Setting(seconds=3.0, others="replay"))
    assert torch.equal(simulation.scene.track, simulation.recorded.track)


def test_the_same_drive_twice_is_the_same_to_the_bit():
    one, other = (driven("lane", Setting(seconds=3.0)) for _ in range(2))
    assert torch.equal(one.scene.ego, other.scene.ego) and torch.equal(one.scene.track, other.scene.track)


def test_a_scene_does_not_depend_on_its_neighbours():
    together, alone = (driven("expert", Setting(seconds=3.0), seeds) for seeds in (SEEDS, SEEDS[5:6]))
    assert torch.allclose(together.scene.ego[5:6], alone.scene.ego, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"replan": 0.15}, {"seconds": 0.0}, {"delay": -0.1}, {"tracking": "none"}, {"others": "away"}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Setting(**wrong)
