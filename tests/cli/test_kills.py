"""Runs that are killed and given again equal whole ones. By hand: python checks/kills.py --eval 40 --world 20."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "checks" / "kills.py"


@pytest.mark.slow
def test_killed_runs_of_eval_and_world_end_in_the_bytes_of_whole_ones():
    command = [sys.executable, str(SCRIPT), "--eval", "1", "--world", "1", "--clips", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["eval: 1 kills", "world: 1 kills"]
    assert all(line.endswith("0 differ from a whole run") for line in lines)
