"""The gate for histories: no car's motion is refused or noted, impossible ones are refused with the likely cause, fast ones noted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.geometry import rot_z, to_frame
from alpamayo_r1.core.types import Trajectory
from alpamayo_r1.data.clips import PAST_US
from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import random_observation
from alpamayo_r1.world.samples import paths
from alpamayo_r1.world.simulate import simulate
from conftest import GOLDEN, golden

RECORDED = sorted(file.stem for file in (GOLDEN / "cases").glob("*.safetensors"))
World = tuple[torch.Tensor, torch.Tensor]


def driven(speed: float, acceleration: float = 0.0, curvature: float = 0.0, heading: float = 2.1, dt: float = 0.1) -> World:
    """A car's log in the world's frame: positions (16, 3) and rotations (16, 3, 3)."""
    v = speed + acceleration * dt * np.arange(16)
    step = (v[1:] + v[:-1]) / 2 * dt
    yaw = heading + curvature * np.concatenate([[0], step.cumsum()])
    middle = (yaw[1:] + yaw[:-1]) / 2
    xyz = np.zeros((16, 3))
    xyz[1:, 0], xyz[1:, 1] = (step * np.cos(middle)).cumsum(), (step * np.sin(middle)).cumsum()
    return torch.from_numpy(xyz), rot_z(torch.from_numpy(yaw))


def at_t0(xyz: torch.Tensor, rot: torch.Tensor) -> Trajectory:
    """A log as a history in the ego frame at its last pose."""
    local, turned = to_frame(xyz, rot, xyz[-1], rot[-1])
    return Trajectory(local.float(), turned.float())


def jittered(log: World, size: float, seed: int) -> World:
    """A log with horizontal noise of a GPS."""
    noise = np.random.default_rng(seed).normal(0, size, (16, 3))
    noise[:, 2] = 0
    return log[0] + torch.from_numpy(noise), log[1]


RIGHT = {
    "standing": lambda i: jittered(driven(0), 0.015, i),
    "creeping": lambda i: jittered(driven(0.1 * (i % 20)), 0.015, i),
    "reversing": lambda i: jittered(driven(-0.3 * (i % 20), curvature=0.2 - 0.02 * (i % 20)), 0.01, i),
    "braking to a stop": lambda i: driven(15 * 0.999, -10),
    "changing direction": lambda i: driven(1.5, -2),
    "turning round": lambda i: jittered(driven(1 + 0.2 * (i % 20), curvature=(-1) ** i * 0.22), 0.01, i),
    "fast": lambda i: jittered(driven(35, curvature=0.0003 * (i % 20 - 10)), 0.01, i),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_cars_do_passes_without_a_note(kind):
    for i in range(60):
        assert check_history(at_t0(*RIGHT[kind](i))) == ()


def test_poses_of_the_cars_middle_pass():
    """1.4 m ahead of the rear axle the car moves sideways in a bend."""
    xyz, rot = driven(4, curvature=0.2)
    assert check_history(at_t0(xyz + 1.4 * rot[..., 0], rot)) == ()


@pytest.mark.parametrize("step", [16, 51, 120])
def test_histories_of_the_world_pass(step):
    made = paths(simulate(range(900_000, 900_100)), torch.full((100,), step))
    for xyz, rot in zip(made.history_xyz, made.history_rot, strict=True):
        assert check_history(Trajectory(xyz, rot)) == ()


def test_histories_of_the_bundled_clips_pass():
    with open_source("sample") as source:
        for clip_id in source.clip_ids:
            log = source.clip(clip_id).egomotion
            for t0_us in range(log.start_us + 1_500_000, log.end_us, 1_000_000):
                assert check_history(log.path(t0_us, PAST_US)) == ()


def test_recorded_histories_pass():
    recorded = [golden(case) for case in RECORDED]
    found = [(case["ego_history_xyz"][0], case["ego_history_rot"][0]) for case in recorded if "ego_history_xyz" in case]
    found += [(case["history_xyz"], case["history_rot"]) for case in recorded if "history_xyz" in case]
    histories = [Trajectory(x, r) for xyz, rot in found for x, r in zip(xyz, rot, strict=True)]
    assert len(histories) >= 10 and all(check_history(history) == () for history in histories)


def other_quaternion_order(rot: torch.Tensor) -> torch.Tensor:
    """Rotations read from quaternions w, x, y, z as if they were x, y, z, w."""
    return torch.from_numpy(Rotation.from_quat(Rotation.from_matrix(rot.numpy()).as_quat()[:, [3, 0, 1, 2]]).as_matrix())


CAR = driven(8, 0.5, 0.03)
LOCAL = at_t0(*CAR)


def longer_last_step(metres: float) -> Trajectory:
    return replace(LOCAL, xyz=LOCAL.xyz - torch.tensor([metres, 0, 0]) * (torch.arange(16) < 15)[:, None])


def moved(**xyz_or_rot: torch.Tensor) -> Trajectory:
    return replace(LOCAL, **xyz_or_rot)


WRONG = {
    "quaternions w first": (at_t0(CAR[0], other_quaternion_order(CAR[1])), "w first"),
    "world to ego": (at_t0(CAR[0], CAR[1].mT), "world-to-ego"),
    "rotations inverted": (moved(rot=LOCAL.rot.mT), "world-to-ego"),
    "no rotations": (at_t0(CAR[0], torch.eye(3).double().expand(16, 3, 3)), "not turned into its axes"),
    "y forward": (moved(xyz=LOCAL.xyz[:, [1, 0, 2]] * torch.tensor([-1.0, 1, 1])), "y forward"),
    "y forward, slowly": (moved(xyz=0.05 * LOCAL.xyz[:, [1, 0, 2]], rot=torch.eye(3).expand(16, 3, 3)), "y forward"),
    "y to the right": (moved(xyz=LOCAL.xyz * torch.tensor([1.0, -1, 1])), "y to the right"),
    "a camera's axes": (moved(xyz=LOCAL.xyz[:, [1, 2, 0]]), "camera's axes"),
    "on its head": (moved(rot=LOCAL.rot @ torch.diag(torch.tensor([1.0, -1, -1]))), "leans"),
    "1 m": (longer_last_step(1), r"jumps 0\.1 s before t0 \(pose 14\)"),
    "3 m": (longer_last_step(3), r"jumps 0\.1 s before t0"),
    "8 m": (longer_last_step(8), r"jumps 0\.1 s before t0"),
    "a stale pose": (moved(xyz=LOCAL.xyz[[*range(8), 7, *range(9, 16)]]), r"jumps 0\.[78] s before t0"),
    "1 Hz": (at_t0(*driven(8, 2, 0.03, dt=1.0)), "another rate"),
    "millimetres": (moved(xyz=1000 * LOCAL.xyz), "millimetres"),
    "centimetres": (moved(xyz=100 * LOCAL.xyz), "centimetres"),
    "kilometres": (moved(xyz=LOCAL.xyz / 1000), "kilometres"),
    "UTM in float32": (at_t0((CAR[0] + torch.tensor([7e5, 5.1e6, 0])).float().double(), CAR[1]), r"UTM"),
    "a grid of 10 cm": (at_t0((CAR[0] * 10).round() / 10, CAR[1]), "grid"),
    "a rate that is no number": (moved(dt=float("nan")), "resample it to 10 Hz"),
    "a mirror": (moved(rot=LOCAL.rot @ torch.diag(torch.tensor([1.0, -1, 1]))), "determinant is -1"),
    "shifted": (moved(xyz=LOCAL.xyz + 1000), "ego frame at t0"),
    "turned": (moved(rot=rot_z(torch.tensor(1.57)) @ LOCAL.rot), "yaw of 1.57 rad"),
    "newest first": (moved(xyz=LOCAL.xyz.flip(0), rot=LOCAL.rot.flip(0)), "newest pose first"),
    "x backward": (moved(xyz=2 * LOCAL.xyz * torch.tensor([-1.0, 1, 1]), rot=torch.eye(3).expand(16, 3, 3)), "Likely cause"),
    "degrees": (at_t0(CAR[0], rot_z(torch.linspace(0, 60, 16).double())), "turns by"),
    "the largest numbers": (moved(xyz=LOCAL.xyz.double() * 1e307), "expected at most"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_no_car_does_is_refused_with_its_cause(kind):
    history, words = WRONG[kind]
    with pytest.raises(ValueError, match=words):
        check_history(history)


@pytest.mark.parametrize("speed", [40, 45, 60, 140])
def test_speeds_beyond_the_tokens_are_noted(speed):
    (note,) = check_history(at_t0(*driven(speed)))
    assert note.code == "history-fast" and f"{speed}.0 m/s" in note.text


def test_every_planner_checks_histories(tiny):
    observation = random_observation(0, 64, 96)
    for planner in (Planner.of(*tiny, False), Planner.of(*tiny, True)):
        with pytest.raises(ValueError, match="y forward"):
            planner.plan(replace(observation, history=WRONG["y forward"][0]), seed=0, max_tokens=1, steps=1)


@pytest.mark.parametrize("fast", [False, True], ids=["specification", "engine"])
def test_notes_reach_the_plan_and_are_warned_of_once(tiny, fast):
    from alpamayo_r1.core.notes import NoteWarning

    observation = replace(random_observation(0, 64, 96), history=at_t0(*driven(60)))
    black = replace(observation, frames=torch.zeros_like(observation.frames[:, :, :, :32]))
    with pytest.warns(NoteWarning) as told:
        done = Planner.of(*tiny, fast).plan(black, seed=0, max_tokens=1, steps=1)
    codes = ["pictures-small", "pictures-flat", "history-fast", "reasoning-unfinished"]
    assert [note.code for note in done.notes] == codes
    assert [one.message.note.code for one in told if isinstance(one.message, NoteWarning)] == codes
