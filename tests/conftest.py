"""Paths and recordings shared by the tests."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
import typer.testing
from safetensors.torch import load_file

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.types import CAMERAS, Observation, Trajectory
from alpamayo_r1.planner import Planner, load

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())
SHARED = Path(__file__).parents[2] / "shared"
HOW = {
    "tokenize": True,
    "add_generation_prompt": False,
    "continue_final_message": True,
    "return_dict": True,
    "return_tensors": "pt",
}
"""How clients call `apply_chat_template`."""

typer.testing._get_command = functools.cache(typer.testing._get_command)  # else every call of a test builds all the verbs again: 35 ms


def golden(case: str) -> dict[str, torch.Tensor]:
    """The tensors of one recorded case."""
    return load_file(GOLDEN / "cases" / f"{case}.safetensors")


def golden_observation(tensors: dict[str, torch.Tensor]) -> Observation:
    """A recorded pipeline case as an observation."""
    history = Trajectory(tensors["ego_history_xyz"][0, 0], tensors["ego_history_rot"][0, 0])
    return Observation(tensors["image_frames"].unflatten(0, (4, 4)), CAMERAS, history, t0_us=5_100_000)


@pytest.fixture(scope="session")
def tiny():
    """Model and vocabulary of the recorded tiny checkpoint, fp32 on the CPU."""
    return load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the release's config, tensor list and Qwen tokenizer files."""
    if not SHARED.is_dir():
        pytest.skip("needs the release's files beside the repository (../shared); they may not be committed")
    return SHARED


@pytest.fixture(scope="module")
def one() -> Planner:
    """The recorded model on one device."""
    return Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32), fast=True)


@pytest.fixture(scope="module")
def two() -> Planner:
    """The recorded model on two: one reads, the other speaks."""
    return load(GOLDEN / "checkpoint", device="cpu,cpu")
