"""A few hundred mutated inputs of every kind. By hand: python checks/fuzz.py --cases 10000 --seed 1."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "checks" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    """checks/fuzz.py as a module."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz"]
    sys.path[:] = path


@pytest.mark.slow
def test_mutated_inputs_work_or_are_noted_or_end_in_typed_errors(fuzz: ModuleType):
    assert fuzz.run(240, seed=20251125) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "judge,wrong",
    [
        ("untyped", lambda draw, folder: {}["missing"]),
        ("silent", lambda draw, folder: "a mirrored car passes"),
        ("outside", lambda draw, folder: Path("../../escaped").write_text("x")),
        ("outside", lambda draw, folder: Path("../../beside/x").write_text("other")),
        ("network", lambda draw, folder: socket.create_connection(("localhost", 1))),
        ("memory", lambda draw, folder: bytearray(os.urandom(1)) * (1_100 * 2**20)),
        ("slow", lambda draw, folder: sum(range(10_000_000))),
    ],
)
def test_each_judge_sees_what_it_is_for(fuzz: ModuleType, judge, wrong, tmp_path, monkeypatch):
    if judge == "memory" and not fuzz.memory("VmHWM"):
        pytest.skip("this system does not tell a process's peak")
    monkeypatch.setattr(fuzz, "SECONDS", 0.02)
    assert judge in [found for found, _ in fuzz.judged(wrong, 0, 1, tmp_path)]
