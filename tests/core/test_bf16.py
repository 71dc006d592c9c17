"""bf16 against the recordings: as far from them as rounding makes it, whichever order attention sums in."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
import warnings
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "checks" / "bf16.py"


@pytest.fixture(scope="module")
def report():
    """What the check prints, run in this process."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(printed):
        patch.syspath_prepend(CHECK.parent)
        patch.setattr(sys, "argv", [str(CHECK), "--device", "cpu"])
        runpy.run_path(str(CHECK), run_name="__main__")
        del sys.modules["_head"]  # it sets the path of whoever imports it first
    return json.loads(printed.getvalue().splitlines()[-1])["result"]


@pytest.mark.slow
def test_keys_values_logits_and_velocity_are_at_the_noise_floor(report):
    """No farther from the truth than twice what the order of sums alone changes, and as far as the original's other order."""
    for rows in report.values():
        for stage in ("keys", "values", "logits", "velocity"):
            assert 0 < rows["sdpa"][stage] < 2 * rows["floor"][stage]
            assert rows["sdpa"][stage] < 1.5 * rows["eager"][stage]
