"""`alpamayo-r1 precision`: the same clips and draws in each precision, compared pair by pair."""

import json
from dataclasses import replace

import pytest
import torch

from alpamayo_r1 import load, testing
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.price import Outcome, price, prices, save, table

pytestmark = pytest.mark.slow

OPTIONS = PlanOptions(samples=2, seed=3, max_tokens=4)


def outcome(i: int, shift: float = 0.0, words: tuple[str, ...] = ("Go", "Stop")) -> Outcome:
    xyz = torch.zeros(2, 64, 3, dtype=torch.float64)
    xyz[:, :, 1] = shift
    return Outcome(f"clip{i}", 0.1 * i + shift, 0.2 * i + shift, 0.5, words, xyz, 10.0 + i)


def test_differences_are_those_of_the_same_clips():
    exact = [outcome(i) for i in range(12)]
    moved = [outcome(i, 0.03, ("Go", "Stop" if i % 2 else "Turn")) for i in range(12)]
    found = price("w8", moved, exact, 12.5)
    assert found.min_ade_difference.mean == pytest.approx(0.03) and found.min_ade_difference.low == pytest.approx(0.03)
    assert found.min_ade.low < found.min_ade.mean < found.min_ade.high
    assert found.words_equal == 0.75 and found.moved == pytest.approx(0.03) and found.milliseconds == 15.5
    unlike = price("w4", [replace(one, words=("a", "b")) for one in moved], exact, None)
    assert unlike.words_equal == 0 and unlike.moved != unlike.moved
    assert "nan" in table([found, unlike])


@pytest.mark.filterwarnings("ignore:.*ended without")
def test_precisions_are_compared_on_clips(tmp_path):
    folder = testing.tiny_checkpoint(tmp_path / "tiny")
    with open_source("sample") as source:
        made = []

        def planner(name: str):
            made.append(name)
            return load(folder, device="cpu", precision=name)

        steps = []
        found = prices(planner, ("bf16", "w8", "tight"), source, source.clip_ids[:1], OPTIONS, 5_100_000, lambda: steps.append(1))
        with pytest.raises(ValueError, match="expected two or more different ones"):
            prices(planner, ("bf16", "bf16"), source, source.clip_ids[:1], OPTIONS, 5_100_000)
        with pytest.raises(ValueError, match="there is no clip"):
            prices(planner, ("bf16", "w8"), source, [], OPTIONS, 5_100_000)
    assert made == ["bf16", "w8", "tight"] and len(steps) == 3
    assert found[0].words_equal == 1 and found[0].moved == 0 and found[0].min_ade_difference.mean == 0
    assert found[1].min_ade_difference.mean != 0 and found[1].gigabytes is None
    save(found, tmp_path, {"checkpoint": "tiny", "data": "sample"})
    stored = json.loads((tmp_path / "prices.json").read_text())
    assert [one["precision"] for one in stored["prices"]] == made
    assert stored["prices"][1]["min_ade_difference"]["low"] is None, "one clip has no interval"
    assert (tmp_path / "prices.png").read_bytes().startswith(b"\x89PNG") and "too few clips" in (tmp_path / "prices.txt").read_text()
