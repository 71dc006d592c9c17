"""The contract of samples accepts a good one and refuses bad ones."""

import pytest
import torch

from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.core.types import CAMERAS, H
from support.contract import check_sample, sample_of


def test_the_contract_accepts():
    check_sample(sample_of())


@pytest.mark.parametrize(
    "changes",
    [
        {"xyz": torch.zeros(H, 3) + 1},
        {"xyz": torch.zeros(H, 3, dtype=torch.float64)},
        {"rot": rot_z(torch.full((H,), 0.1))},
        {"rot": torch.eye(3).expand(H, 3, 3) * 1.1},
        {"frames": torch.zeros(4, 4, 3, 8, 8)},
        {"frames": torch.zeros(16, 3, 8, 8, dtype=torch.uint8)},
        {"cameras": CAMERAS[::-1]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_the_contract_refuses(changes):
    with pytest.raises(AssertionError):
        check_sample(sample_of(**changes))
