"""Driving with a route: the navigator counts down, a model that navigates hears it, and others are not told."""

from __future__ import annotations

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.drive.drivers import Model
from alpamayo_r1.drive.simulation import Setting, Simulation
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import tiny_checkpoint

pytestmark = pytest.mark.slow
SEEDS = (830_000, 830_003)


@pytest.fixture(scope="module")
def tiny15(tmp_path_factory):
    """A tiny checkpoint of 1.5."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny15"), preset="tiny-1.5")


def test_a_drive_is_told_its_route_at_each_plan(tiny15, tmp_path):
    out = tmp_path / "out"
    options = ["--checkpoint", str(tiny15), "--seconds", "1", "--replan", "0.5", "--width", "64", "--height", "36", "--no-film"]
    run = ["drive", "--out", str(out), "--family", "junction_right", "--first-seed", "830000", "--device", "cpu", *options]
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 0, done.output
    row = json.loads((out / "rows/000000.json").read_text(encoding="utf-8"))
    metres = [int(re.fullmatch(r"Turn right in (\d+)m", text)[1]) for _, text in row["told"]]
    assert len(metres) == 2 and metres[0] - 5 <= metres[1] < metres[0], "half a second at 8 m/s nearer"
    refused = CliRunner().invoke(app, [*run, "--navigation", "Turn left"])
    assert refused.exit_code != 0 and "navigation" in refused.output, "another drive"


def test_who_cannot_be_told_says_so(tmp_path):
    for more, message in ((["--checkpoint", "small"], "trained without navigation"), (["--driver", "expert"], "can't be told")):
        done = CliRunner().invoke(app, ["drive", "--out", str(tmp_path / "o"), "--navigation", "Turn left", *more])
        assert done.exit_code != 0 and message in str(done.output) + str(done.exception)


@pytest.mark.parametrize("fast", [False, True])
def test_each_scene_is_planned_with_its_own_text(tiny15, fast):
    model, vocabulary = load_checkpoint(tiny15, dtype=torch.float32)
    planner = Planner.of(model, vocabulary, fast)
    seen = Simulation(SEEDS, Setting(width=64, height=36), ["junction_left", "junction_right"]).observations()
    options = PlanOptions(samples=1, seed=1, steps=2, reasoning="Yield")
    texts = ["Turn left in 30m", None]
    together = planner.plans(seen, options, navigation=texts)
    for plan, one, text in zip(together, seen, texts, strict=True):
        torch.testing.assert_close(plan.xyz, planner.plan(one, options, navigation=text).xyz, atol=1e-4, rtol=0)
    assert not torch.allclose(together[0].xyz, planner.plan(seen[0], options).xyz, atol=1e-5)
    with pytest.raises(ValueError, match="1 texts for 2 observations"):
        planner.plans(seen, options, navigation=["Turn left"])
    with pytest.raises(ValueError, match="special token"):
        planner.plans(seen, options, navigation=["Turn left", "<|route_end|>"])


def test_a_model_hears_one_text_or_the_route(tiny15):
    model, vocabulary = load_checkpoint(tiny15, dtype=torch.float32)
    planner, simulation = Planner.of(model, vocabulary, False), Simulation(SEEDS[:1], Setting(width=64, height=36), ["junction_left"])
    options = PlanOptions(seed=1, steps=1, reasoning="Yield")
    assert Model(planner, options, "Turn left")(simulation).told == ("Turn left",)
    assert Model(planner, options, "route")(simulation).told[0].startswith("Turn left in ")
    assert Model(planner, options)(simulation).told == ("",)
