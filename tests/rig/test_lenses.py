"""Lenses: exact round trips inside their valid field, a refusal outside; OpenCV's formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alpamayo_r1.rig.lenses import Pinhole, f_theta, fisheye

LENSES = {
    "plain": Pinhole(1280, 720, 900.0, 905.0, 641.0, 355.0),
    "barrel": Pinhole(1280, 720, 700.0, 705.0, 641.0, 355.0, (-0.30, 0.09, 0.001, -0.0007, -0.01)),
    "rational": Pinhole(1280, 720, 700.0, 700.0, 641.0, 355.0, (0.4, 0.05, 0.0003, -0.0002, 0.01, 0.7, 0.2, 0.02)),
    "fisheye": fisheye(1280, 720, 380.0, 381.0, 640.0, 360.0, (-0.01, 0.004, -0.003, 0.0003)),
    "ftheta": f_theta(1920, 1080, 957.6, 543.1, (0.0, 928.0, 1.4, -9.5, 1.1)),
}


def pixels(lens) -> torch.Tensor:
    rows, columns = (torch.linspace(0, n - 1, 61, dtype=torch.float64) for n in (lens.height, lens.width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1)


@pytest.mark.parametrize("name", LENSES)
def test_pixels_come_back_to_a_millionth(name):
    lens = LENSES[name]
    there = pixels(lens)
    rays = lens.rays(there)
    back, seen = lens.project(3.7 * rays)
    inside = ~rays.isnan().any(-1)
    assert inside.all() and seen.all()
    assert (back - there).abs().max() < 1e-6
    assert torch.allclose(rays.norm(dim=-1), torch.ones(61, 61, dtype=torch.float64))


def test_brown_conrady_is_opencvs():
    """A point worked by hand from the formulas of OpenCV's calib3d."""
    lens = LENSES["barrel"]
    x, y = 0.5, -0.3
    r2 = x * x + y * y
    k1, k2, p1, p2, k3 = lens.distortion
    g = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = 700 * (x * g + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)) + 641
    v = 705 * (y * g + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y) + 355
    pixel, seen = lens.project(torch.tensor([2 * x, 2 * y, 2.0], dtype=torch.float64))
    assert seen and torch.allclose(pixel, torch.tensor([u, v], dtype=torch.float64))


def test_kannala_brandt_is_opencvs_fisheye():
    lens = LENSES["fisheye"]
    theta = math.atan2(0.7, 1.0)
    r = theta * (1 - 0.01 * theta**2 + 0.004 * theta**4 - 0.003 * theta**6 + 0.0003 * theta**8)
    pixel, _ = lens.project(torch.tensor([0.7, 0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(pixel, torch.tensor([380 * r + 640, 360.0], dtype=torch.float64))


def test_behind_a_pinhole_is_not_seen_but_a_fisheye_sees_beside_itself():
    back = torch.tensor([0.1, 0.0, -1.0], dtype=torch.float64)
    assert not LENSES["plain"].project(back)[1] and not LENSES["barrel"].project(torch.tensor([1.0, 0.0, 0.0]))[1]
    wide = fisheye(1280, 720, 250.0, 250.0, 640.0, 360.0, ())
    pixel, seen = wide.project(torch.tensor([1.0, 0.0, -0.1], dtype=torch.float64))
    assert seen and pixel[0] > 640 + 250 * math.pi / 2


def test_where_a_lens_folds_back_it_refuses():
    """Strong barrel distortion maps two directions to one pixel: the outer one, and pixels that none reaches, are refused."""
    lens = Pinhole(1280, 720, 500.0, 500.0, 640.0, 360.0, (-0.30, 0.0, 0.0, 0.0))
    assert lens.limit == pytest.approx(math.sqrt(1 / 0.9), abs=2e-3)
    folded = torch.tensor([1.5, 0.0, 1.0], dtype=torch.float64)
    assert not lens.project(folded)[1]
    rays = lens.rays(torch.tensor([[640.0, 360.0], [1279.0, 719.0]], dtype=torch.float64))
    assert not rays[0].isnan().any() and rays[1].isnan().all()
    fish = fisheye(1280, 720, 380.0, 380.0, 640.0, 360.0, (-0.2, 0.0, 0.0, 0.0))
    assert fish.limit == pytest.approx(math.sqrt(1 / 0.6), abs=2e-3)
    assert fish.rays(torch.tensor([1279.0, 719.0])).isnan().all() and not fish.project(torch.tensor([1.0, 0.0, 0.0]))[1]


@pytest.mark.parametrize("name", LENSES)
def test_a_resized_lens_sees_the_same_directions(name):
    lens = LENSES[name]
    half = lens.resized(lens.width // 2, lens.height // 2)
    there = pixels(lens)[5:-5, 5:-5]
    assert torch.allclose(half.rays((there + 0.5) / 2 - 0.5), lens.rays(there), atol=1e-9)
