"""The figures of routes and answers: what is planned and answered in batches is what the product plans and answers."""

from __future__ import annotations

import pytest
import torch

import alpamayo_r1.train.following as following
import alpamayo_r1.train.material as material
import alpamayo_r1.train.validate as validate
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import tiny_checkpoint
from alpamayo_r1.train.following import answers, expert_turn, paths_as_told, share, taken, turn_of, validate_answers, validate_routes
from alpamayo_r1.train.material import make_layout
from alpamayo_r1.train.validate import MAX_TOKENS, SEED, show_scenes
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.scene import Route
from alpamayo_r1.world.simulate import simulate

SEEDS, STEP = [812_000, 812_001, 812_004], 60
FAMILIES = ["junction_left", "junction_right", "junction_right"]
TOLD = ["Turn left in 30m", None, "Turn right now"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the pictures are")]


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    """A tiny planner of 1.5 that sees pictures of a few pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "RENDER_SIZE", (64, 36))
        patch.setattr(validate, "PICTURE_SIZE", (64, 36))
        yield Planner.of(*load_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("t"), preset="tiny-1.5"), dtype=torch.float32), False)


@pytest.fixture(scope="module")
def seen(planner):
    """Scenes as the validation shows them, and the same as samples."""
    shown = show_scenes(planner.model, make_layout(planner.model.config, planner.vocabulary), SEEDS, STEP, FAMILIES, supersample=1)
    scene = simulate(SEEDS, seconds=STEP / 10 + 0.1, families=FAMILIES)
    return shown, [sample.observation for sample in sample_batch(scene, STEP, width=64, height=36, supersample=1)]


@pytest.mark.parametrize("guidance", [None, 1.5])
def test_paths_as_told_are_the_products(planner, seen, guidance):
    shown, observations = seen
    words, xyz, yaw = paths_as_told(planner.model, planner.vocabulary, shown, TOLD, guidance)
    for row, (one, text) in enumerate(zip(observations, TOLD, strict=True)):
        weight = guidance if text is not None else None
        plan = planner.plan(one, samples=1, seed=SEED, max_tokens=MAX_TOKENS, navigation=text, guidance=weight)
        torch.testing.assert_close(xyz[row], plan.xyz[0], atol=1e-3, rtol=1e-4)
        assert words[row] == plan.reasoning[0]
        assert float(turn_of(yaw)[row]) == pytest.approx(float(torch.atan2(plan.rot[0, -1, 1, 0], plan.rot[0, -1, 0, 0])), abs=1e-3)


def test_answers_are_the_products(planner, seen, monkeypatch):
    monkeypatch.setattr(following, "spoken", lambda vocabulary, ids, kind, opened: tuple(ids))  # random weights end no answer
    shown, observations = seen
    asked = ["What is ahead?", "Count the cones.", "May the car turn left now?"]
    said = answers(planner.model, planner.vocabulary, shown, asked)
    for one, question, text in zip(observations, asked, said, strict=True):
        found = planner.ask(one, question, samples=1, seed=SEED, max_tokens=MAX_TOKENS)
        assert text == found.tokens[0] and len(text) > 1


def test_the_expert_turns_as_it_is_routed():
    scene = simulate(SEEDS, seconds=STEP / 10 + 0.1, families=FAMILIES)
    own = expert_turn(scene, STEP, FAMILIES)
    drove = scene.ego[:, STEP + 64, 2] - scene.ego[:, STEP, 2]
    torch.testing.assert_close(own, drove.double(), atol=0.03, rtol=0)
    other = expert_turn(scene, STEP, ["junction_right", "junction_left", "junction_left"])
    assert other[0] < 0.1 and (other[1:] > -0.1).all() and not torch.allclose(own, other, atol=0.3)


def test_what_counts_as_taken():
    assert taken(Route.LEFT, 0.8, 1.5) and not taken(Route.LEFT, 0.7, 1.5) and not taken(Route.LEFT, -0.9, 1.5)
    assert taken(Route.RIGHT, -0.5, -0.8) and not taken(Route.RIGHT, -0.3, -0.4) and taken(Route.STRAIGHT, 0.1, 0.0)
    assert share([True, False]) == {"share": 0.5, "of": 2}


def test_the_validation_counts(planner):
    routes = validate_routes(planner.model, planner.vocabulary, 2, supersample=1)
    assert sum(routes["told"][way]["of"] for way in ("left", "right", "straight")) == routes["told"]["all"]["of"] > 0
    found = validate_answers(planner.model, planner.vocabulary, 2, steps=(51,), supersample=1)
    assert found["kinds"]["day"]["of"] == 2 and 0 <= found["kinds"]["day"]["share"] <= 1
