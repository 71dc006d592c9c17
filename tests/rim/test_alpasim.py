"""AlpaSim's driver on our classes, call by call (docs/alpasim.md): sessions, JPEG frames, a worker thread, determinism."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from alpamayo_r1.core.sampling import doubled_sums, running_sum
from alpamayo_r1.core.types import CAMERAS
from conftest import GOLDEN
from support.alpasim import KEEP, STEP_US, Driver, Pose, decoded, jpeg
from support.golden15 import GOLDEN15

FOLDERS = {"alpamayo1": str(GOLDEN / "checkpoint"), "alpamayo1_5": str(GOLDEN15 / "checkpoint")}
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")])]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def play(driver: Driver, steps: int = 1, seed: int = 7, session: str = "a"):
    """Two seconds of recorded driving, then so many steps."""
    driver.start_session(session, seed, (*CAMERAS, "camera_rear_tele_30fov"))
    answers, period = [], STEP_US // driver.subsample
    frames = 0
    for i in range(20 + steps):
        now = 1_000_000 + i * STEP_US
        driver.submit_egomotion_observation(session, {now: Pose((1.0 * i, 0.01 * i * i, 2.0), 0.02 * i)})
        if i >= 15:
            for k in range(driver.subsample):
                frames += 1
                for camera in driver.cameras:
                    driver.submit_image_observation(session, camera, now - (driver.subsample - 1 - k) * period, jpeg(frames))
        driver.submit_route(session, np.full((20, 3), np.nan))
        if i >= 20:
            answers.append(driver.drive(session, now))
    driver.close_session(session)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("family", FOLDERS)
def test_a_session_is_driven(family, fast):
    """64 poses behind the present one, and what was said as text of an array."""
    answers = play(Driver(family, FOLDERS[family], CAMERAS[::-1], fast=fast), steps=2)
    for answer in answers:
        assert len(answer.poses) == 65 and np.isfinite([pose.xyz for pose in answer.poses]).all()
        assert {pose.xyz[2] for pose in answer.poses} == {2.0} and np.diff(answer.times_us).tolist() == [STEP_US] * 64
        assert answer.reasoning_text.startswith("[")
    assert answers[0].poses != answers[1].poses


def test_too_few_frames_give_an_empty_trajectory():
    driver = Driver("alpamayo1", FOLDERS["alpamayo1"], CAMERAS)
    driver.start_session("a", 0, CAMERAS)
    driver.submit_egomotion_observation("a", {0: Pose((0, 0, 0), 0.0)})
    assert driver.drive("a", 0).poses == ()


@pytest.mark.slow
@pytest.mark.parametrize("guided", [False, True])
def test_one_camera_with_every_third_frame(guided):
    """Alpamayo 1.5 at 30 Hz; its guided method is called without a navigation text."""
    driver = Driver("alpamayo1_5", FOLDERS["alpamayo1_5"], CAMERAS[1:2], subsample=3, guided=guided)
    seen, make = [], driver.helper.create_message
    driver.helper = type("Spy", (), {**vars(driver.helper), "create_message": staticmethod(lambda f, i: seen.append((f, i)) or make(f, i))})
    (answer,) = play(driver)
    ((frames, indices),) = seen
    assert len(answer.poses) == 65 and len(frames) == KEEP and indices.tolist() == [1]
    assert torch.equal(frames[-1], decoded(jpeg(18))) and torch.equal(frames[-2], decoded(jpeg(15)))


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("family", FOLDERS)
def test_forced_determinism_repeats_to_the_bit(family, fast, device):
    """The same session seed twice in worker threads, and seeds beyond 32 bits."""
    driver = Driver(family, FOLDERS[family], CAMERAS, determinism=True, fast=fast, device=device)
    first, again = play(driver, seed=2**32 + 5), play(driver, seed=2**32 + 5, session="b")
    assert first == again and play(driver, seed=8, session="c") != first


def test_the_drivers_plan_is_the_facades():
    """What comes back in the scene's frame is the plan of the same data, moved there."""
    driver = Driver("alpamayo1", FOLDERS["alpamayo1"], CAMERAS, determinism=True)
    kept, infer = [], driver.infer
    driver.infer = lambda data, seed: kept.append((data, seed)) or infer(data, seed)
    (answer,) = play(driver)
    ((data, seed),) = kept
    torch.manual_seed(seed)
    xyz, _ = driver.model.sample_trajectories_from_data_with_vlm_rollout(data, num_traj_samples=1)
    now = answer.poses[0]
    c, s = np.cos(now.yaw), np.sin(now.yaw)
    there = xyz[0, 0, 0, :, :2].numpy() @ np.array([[c, s], [-s, c]]) + now.xyz[:2]
    np.testing.assert_allclose([pose.xyz[:2] for pose in answer.poses[1:]], there, atol=1e-4)


def test_sums_by_doubling_are_cumulative_sums():
    """The way that a GPU takes where cumsum is forbidden."""
    x = torch.rand(3, 4097, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(doubled_sums(x), x.cumsum(-1), atol=1e-10, rtol=0)
    torch.testing.assert_close(running_sum(x), x.cumsum(-1), atol=1e-10, rtol=0)
