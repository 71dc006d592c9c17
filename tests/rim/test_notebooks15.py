"""Alpamayo 1.5's four notebooks, cell by cell on the recorded tiny checkpoint: model and clips are named otherwise, and the words, which a
random model never ends, are cut off sooner; nothing else."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from alpamayo_r1.data.source import open_source
from support.golden15 import GOLDEN15

BOOKS = Path(__file__).parents[2] / "notebooks" / "alpamayo1_5"
NAMES = sorted(path.name for path in BOOKS.glob("*.ipynb"))


def cells(name: str) -> list[dict]:
    """The code cells of a notebook."""
    return [cell for cell in json.loads((BOOKS / name).read_text())["cells"] if cell["cell_type"] == "code"]


def run(name: str) -> dict[str, object]:
    """What a notebook's cells leave behind."""
    with open_source("sample") as source:
        first, second = source.clip_ids[:2]
    space: dict[str, object] = {}
    for cell in cells(name):
        text = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            text = f"MODEL, DATA, CLIP_ID = {str(GOLDEN15 / 'checkpoint')!r}, 'sample', {first!r}"
            text += f"; TURN, TURN_T0_US, NEAR, NEAR_T0_US = {first!r}, 4_000_000, {second!r}, 5_100_000"
        text = text.replace("max_generation_length=256", "max_generation_length=8")
        if "compare_nav_conditions(" in text:
            text = text.replace("num_traj_samples=16,", "num_traj_samples=16, max_generation_length=8,")
        exec(compile(text, name, "exec"), space)
    return space


def test_there_are_four():
    assert NAMES == ["inference.ipynb", "inference_cam_num.ipynb", "inference_nav.ipynb", "inference_vqa.ipynb"]
    assert not any(cell["outputs"] or cell["execution_count"] for name in NAMES for cell in cells(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_they_run(name, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = run(name)
    said = capsys.readouterr().out
    if name == "inference_vqa.ipynb":
        assert len(left["answers"]) == 2 and "key traffic elements" in said
    elif name == "inference_nav.ipynb":
        assert left["result"].nav_text_swapped == "Turn left in 30m" and left["guided"].extra_with_nav is None
        assert "moved by" in said and len(left["figure"].subfigs[1].axes) == 3
    else:
        assert "minADE:" in said and left["pred_xyz"].shape[2] == (16 if "cam" in name else 1)
