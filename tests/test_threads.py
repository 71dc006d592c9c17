"""Threads sleep where they would spin, in Python as on the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


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
