"""The gate for pictures: what cannot be one is refused, what shows nothing is noted, ordinary pictures pass without a word."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image

from alpamayo_r1.core.family import R1
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.gate.pictures import as_pixels, check_pictures
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.testing import random_observation, size_config
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate

NOISE = random_observation(0, 90, 160).frames


def codes(frames: torch.Tensor) -> list[str]:
    return [note.code for note in check_pictures(frames, CAMERAS[: len(frames)], R1)]


@pytest.mark.slow
def test_pictures_of_the_world_pass():
    for sample in sample_batch(simulate(range(900_000, 900_012)), 51, width=128, height=80):
        assert check_pictures(sample.observation.frames, sample.observation.cameras, R1) == ()


def test_pictures_of_one_colour_are_noted_by_camera():
    black = NOISE.clone()
    black[1:] = 3
    black[1:, :, :, ::2] = 7  # nearly
    (note,) = check_pictures(black, CAMERAS, R1)
    assert note.code == "pictures-flat" and "camera_front_wide_120fov (4 of 4)" in note.text and "cross_left" not in note.text


def test_tiny_pictures_and_other_layouts_are_noted():
    assert codes(NOISE[..., :63, :]) == ["pictures-small"]
    assert codes(NOISE[..., :1, :1]) == ["pictures-small", "pictures-flat"]
    assert codes(NOISE[:3]) == codes(NOISE[:, :2]) == ["pictures-layout"]


@pytest.mark.parametrize("cameras", ["abcd", None, (1, 2, 3, 4)])
def test_cameras_are_names(cameras):
    with pytest.raises(TypeError, match="tuple of names"):
        check_pictures(NOISE, cameras, R1)


def test_floats_and_empty_pictures_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        check_pictures(NOISE.float(), CAMERAS, R1)
    with pytest.raises(ValueError, match="at least one pixel"):
        check_pictures(NOISE[..., :0], CAMERAS, R1)


def test_checking_sixteen_pictures_of_1080p_takes_a_millisecond():
    observation, config = random_observation(0), size_config("10b")
    times = []
    for _ in range(20):
        start = time.perf_counter()
        check_observation(observation, config)
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


def test_pictures_of_three_kinds_are_the_same_pixels():
    array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    wanted = torch.from_numpy(array).permute(2, 0, 1)
    assert all(torch.equal(as_pixels(image), wanted) for image in (array, wanted, Image.fromarray(array), array[::-1][::-1]))
    assert torch.equal(as_pixels(array[::-1]), wanted.flip(1))


def test_a_cut_picture_file_is_refused(tmp_path):
    Image.fromarray(NOISE[0, 0].permute(1, 2, 0).numpy()).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:3000])
    with pytest.raises(ValueError, match="cannot be decoded"):
        as_pixels(Image.open(tmp_path / "cut.png"))
