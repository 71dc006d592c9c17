"""The recordings of Alpamayo 1.5 as a client of the original makes its calls."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from alpamayo1_5 import helper
from conftest import HOW

GOLDEN15 = Path(__file__).parents[1] / "golden15"
RECORDED = json.loads((GOLDEN15 / "cases.json").read_text(encoding="utf-8"))
CASES15 = RECORDED["cases"]


def recording(case: str) -> dict[str, torch.Tensor]:
    """The tensors of one recorded case."""
    return load_file(GOLDEN15 / "cases" / f"{case}.safetensors")


def inputs_of(processor: helper.Processor, case: str) -> dict[str, object]:
    """The data of one recorded case."""
    g, facts = recording(case), CASES15[case]
    frames = g["image_frames"].unflatten(0, (facts["scenes"], -1))
    cameras = facts["camera_indices"] and torch.tensor(facts["camera_indices"])
    if facts["question"] is not None:
        messages = [helper.create_vqa_message(frames[0], facts["question"], cameras, facts["frames_per_camera"])]
    else:
        messages = [helper.create_message(f, cameras, facts["frames_per_camera"], n) for f, n in zip(frames, facts["nav_text"])]
    data = {"tokenized_data": processor.apply_chat_template(messages, **HOW)}
    return data | {key: g[key] for key in ("ego_history_xyz", "ego_history_rot") if key in g}
