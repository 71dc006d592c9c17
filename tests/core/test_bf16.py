"""bf16 against the recordings: as far from them as rounding makes it, whichever order attention sums in."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "bf16_deviation.py"


@pytest.fixture(scope="module")
def report():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return runpy.run_path(str(BENCH))["report"]("cpu")


def test_keys_values_logits_and_velocity_are_at_the_noise_floor(report):
    """No farther from the truth than twice what the order of sums alone changes, and as far as the original's other order."""
    for rows in report.values():
        for stage in ("keys", "values", "logits", "velocity"):
            assert 0 < rows["sdpa"][stage] < 2 * rows["floor"][stage]
            assert rows["sdpa"][stage] < 1.5 * rows["eager"][stage]
