"""A few hundred mutated inputs: each works, or ends in a typed error. By hand: python checks/fuzz.py --cases 10000."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "checks" / "fuzz.py"


def test_mutated_inputs_work_or_end_in_typed_errors():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    assert fuzz.run(240, seed=20251125) == []
