"""An evaluation slow enough to be killed between two rows, and all that it imports: processes are forked from one that has it."""

from __future__ import annotations

import time
from pathlib import Path

import alpamayo_r1.engine.engine
import alpamayo_r1.evaluate.loop
import alpamayo_r1.planner  # noqa: F401
from alpamayo_r1.evaluate import EvalConfig, evaluate


def evaluate_slowly(config: EvalConfig, out: Path) -> None:
    """Evaluates, waits a little after each row and a minute after the last."""
    for _ in evaluate(config, out):
        time.sleep(0.1)
    time.sleep(60)
