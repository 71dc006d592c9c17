"""Threads sleep where they would spin, in Python as on the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from conftest import GOLDEN


@pytest.mark.slow
@pytest.mark.parametrize(
    "code, given, expected",
    [
        ("import alpamayo_r1", None, "PASSIVE"),
        ("import alpamayo_r1", "ACTIVE", "ACTIVE"),
        ("import torch, alpamayo_r1", None, "None"),
    ],
)
def test_openmp_is_asked_to_sleep_before_torch_reads_it(code, given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    command = [sys.executable, "-c", f"{code}\nimport os; print(os.environ.get('OMP_WAIT_POLICY'))"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == expected


LOADED_TWICE = f"""
import alpamayo_r1, torch, warnings
from alpamayo_r1.core.notes import NoteWarning
torch.set_num_threads(2)
with warnings.catch_warnings(record=True) as given:
    warnings.simplefilter("always")
    for _ in range(2):
        alpamayo_r1.load({str(GOLDEN / "checkpoint")!r}, device="cpu")
print([(warning.message.note.code, warning.filename) for warning in given if isinstance(warning.message, NoteWarning)])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first, given, expected",
    [
        ("import torch", None, "[('threads-spin', '<string>')]"),
        ("import torch", "ACTIVE", "[]"),
        ("import alpamayo_r1", None, "[]"),
    ],
)
def test_threads_that_spin_are_warned_of_once(first, given, expected):
    """The one who loads on the CPU is warned where torch was there first, for it has read OMP_WAIT_POLICY by then."""
    settled = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in settled}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    command = [sys.executable, "-c", f"{first}\n{LOADED_TWICE}"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip() == expected
