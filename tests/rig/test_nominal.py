"""The nominal rig's lenses."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1.core.geometry import evaluate_polynomial
from alpamayo_r1.rig.nominal import RIG


@pytest.mark.parametrize("camera, most", [("camera_front_wide_120fov", 1.3), ("camera_front_tele_30fov", 0.35)])
def test_the_inverse_of_a_lens_is_the_least_squares_one_to_8_digits(camera, most):
    lens = RIG[camera].lens
    theta = torch.linspace(0, most, 2000, dtype=torch.float64)
    r = evaluate_polynomial(lens.fw, theta)
    powers = torch.stack([(r / r[-1]) ** i for i in range(1, 5)], -1)
    weights = torch.linalg.lstsq(powers, theta[:, None]).solution[:, 0]
    found = tuple(float(f"{float(w) / float(r[-1]) ** i:.8g}") for i, w in enumerate(weights, 1))
    assert lens.bw == (0.0, *found)
