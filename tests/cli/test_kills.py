"""A world that is killed and written again equals a whole one (evaluations: test_eval.py). By hand: python checks/kills.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "checks" / "kills.py"


@pytest.mark.slow
def test_a_world_that_was_killed_ends_in_the_bytes_of_a_whole_one():
    command = [sys.executable, str(SCRIPT), "--eval", "0", "--world", "1", "--clips", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split(",")[0] for line in lines] == ["world: 1 kills"] and lines[0].endswith("0 differ from a whole run")
