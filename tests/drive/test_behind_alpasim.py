"""Our world behind AlpaSim's driver calls: pictures, poses and routes go out as its simulator sends them, and the drive is the same."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, H
from alpamayo_r1.drive.drivers import Intent
from alpamayo_r1.drive.simulation import FIRST, Setting, Simulation
from alpamayo_r1.drive.tracking import Reference
from support.alpasim import Driver, Pose

SETTING = Setting(seconds=1.2, replan=0.4, width=112, height=64)
SEED = 830_004


def png(picture: torch.Tensor) -> bytes:
    """A picture u8[3, h, w] without loss."""
    stream = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(stream, "PNG")
    return stream.getvalue()


class Behind:
    """AlpaSim's driver behind its calls: told what is new since the last time, it answers in the scene's frame."""

    def __init__(self, driver: Driver):
        self.driver, self.told = driver, -1
        driver.start_session("one", SEED, CAMERAS)

    def __call__(self, simulation: Simulation) -> Intent:
        now, frames = simulation.now, simulation.frames()[0]
        poses = {n: simulation.scene.ego[0, n].double().tolist() for n in range(max(self.told + 1, now - H - 4), now + 1)}
        self.driver.submit_egomotion_observation("one", {n * 100_000: Pose((x, y, 0.0), yaw) for n, (x, y, yaw) in poses.items()})
        for n in range(max(self.told + 1, now - FRAMES + 1), now + 1):
            for camera, pictures in zip(CAMERAS, frames, strict=True):
                self.driver.submit_image_observation("one", camera, n * 100_000, png(pictures[n - now + FRAMES - 1]))
        self.driver.submit_route("one", np.full((20, 3), np.nan))
        self.told = now
        answer = self.driver.drive("one", now * 100_000)
        there = torch.tensor([[*pose.xyz[:2], pose.yaw] for pose in answer.poses], dtype=torch.float64)
        return Intent(Reference(there[None]), (answer.reasoning_text,))


class Direct:
    """The same model and seeds, asked about the simulation's observations without AlpaSim between."""

    def __init__(self, driver: Driver):
        self.driver, self.count = driver, 0

    def __call__(self, simulation: Simulation) -> Intent:
        (seen,) = simulation.observations()
        path = [Pose(tuple(xyz.tolist()), float(yaw)) for xyz, yaw in zip(seen.history.xyz, yaw_of(seen.history.rot), strict=True)]
        xyz, rot, extra = self.driver.infer(self.driver.inputs(seen.frames.flatten(0, 1), path), SEED + self.count)
        self.count += 1
        plan = simulation.to_world(xyz[0, 0, :1].float(), yaw_of(rot[0, 0, :1].float()))
        return Intent(plan, (str(extra["cot"][0, 0]),))


def driven(choose) -> tuple[torch.Tensor, list[str]]:
    """Where the ego was, and what was said."""
    simulation, said = Simulation([SEED], SETTING), []
    for n in range(SETTING.steps):
        if n % 4 == 0:
            intent = choose(simulation)
            said += intent.words
        simulation.step(intent.reference, n % 4 * DT)
    return simulation.scene.ego[0, FIRST : simulation.now + 1], said


@pytest.mark.slow
def test_a_scene_is_driven_alike_behind_alpasims_calls():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        driver = Driver("alpamayo1", str(SMALL), CAMERAS, determinism=True)
        (behind, words), (direct, same_words) = driven(Behind(driver)), driven(Direct(driver))
    assert words == same_words and len(words) == 3
    assert (behind[:, :2] - direct[:, :2]).norm(dim=-1).max() < 0.02
    assert (behind[-1, :2] - behind[0, :2]).norm() > 1
