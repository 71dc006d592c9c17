"""Navigation, guidance and questions: the specification's own laws, and the engine equal to it."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import pytest
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.notes import NoteWarning
from alpamayo_r1.core.prompt import build_prompt, build_question
from alpamayo_r1.core.types import Observation, Trajectory
from alpamayo_r1.planner import Planner
from support.golden15 import CASES15, GOLDEN15, recording
from support.scenes15 import seen_by

pytestmark = pytest.mark.slow

SCENE = seen_by((0, 1, 2, 6), 4)
LEFT, RIGHT = "Turn left in 30m", "Turn right in 9m"
TEXTS = ["Nudge left to clear the cones.", "Yield."]
CASES = {
    "sampled": {"samples": 3, "max_tokens": 12},
    "forced": {"samples": 2, "reasoning": TEXTS, "max_tokens": 32},
    "hot": {"samples": 2, "temperature": 1.3, "top_k": 5, "max_tokens": 9},
    "cool": {"samples": 1, "temperature": 0.0, "flow_temperature": 0.6, "max_tokens": 6},
}


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def device(request):
    return request.param


@pytest.fixture(scope="module")
def slow(device):
    return Planner(*load_checkpoint(GOLDEN15 / "checkpoint", dtype=torch.float32, device=device))


@pytest.fixture(scope="module")
def fast(device):
    return Planner.of(*load_checkpoint(GOLDEN15 / "checkpoint", dtype=torch.float32, device=device), fast=True)


@pytest.fixture(scope="module", params=["slow", "fast"])
def planner(request, slow, fast):
    return slow if request.param == "slow" else fast


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def equal(got, want, atol=1e-4):
    assert got.tokens == want.tokens and got.ended == want.ended and got.reasoning == want.reasoning
    torch.testing.assert_close(got.xyz, want.xyz, atol=atol, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [None, 0.0, 1.5, 3.0])
@pytest.mark.parametrize("case", CASES)
def test_the_engine_guides_as_the_specification(slow, fast, case, guidance):
    options = {"seed": 3, "steps": 4, "navigation": LEFT, "guidance": guidance, **CASES[case]}
    equal(fast.plan(SCENE, **options), slow.plan(SCENE, **options))


def test_several_guided_scenes_at_once(slow, fast):
    scenes = [seen_by((1,), 2, seed=1), SCENE, seen_by((1, 6), 3, seed=2)]
    options = {"seed": 5, "samples": 2, "steps": 3, "navigation": RIGHT, "guidance": 2.0, "max_tokens": 8}
    for got, want in zip(fast.plans(scenes, **options), slow.plans(scenes, **options), strict=True):
        equal(got, want)


def test_weight_one_is_the_plain_plan(planner):
    options = {"seed": 1, "samples": 2, "navigation": LEFT, "reasoning": TEXTS, "max_tokens": 32}
    guided, plain = planner.plan(SCENE, **options, guidance=1.0), planner.plan(SCENE, **options)
    assert guided.tokens == plain.tokens
    if planner.engine is None:
        assert torch.equal(guided.xyz, plain.xyz), "the same kernels on the same numbers"
    torch.testing.assert_close(guided.xyz, plain.xyz, atol=1e-4, rtol=0)


def test_weight_zero_is_the_plan_without_navigation_after_the_same_words(planner):
    options = {"seed": 1, "samples": 2, "reasoning": TEXTS, "max_tokens": 32}
    guided = planner.plan(SCENE, **options, navigation=LEFT, guidance=0.0)
    plain = planner.plan(SCENE, **options)
    equal(guided, plain)
    assert (guided.xyz - planner.plan(SCENE, **options, navigation=LEFT).xyz).abs().max() > 1e-3, "the text does count"


def test_guidance_extrapolates(planner):
    """v is linear in w, so one Euler step's actions are too."""
    options = {"seed": 1, "steps": 1, "navigation": LEFT, "reasoning": TEXTS[0], "max_tokens": 32}
    zero, one, three = (planner.plan(SCENE, **options, guidance=w).actions for w in (0.0, 1.0, 3.0))
    torch.testing.assert_close(three - zero, 3 * (one - zero), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_list_of_texts_gives_plans_that_see_once(planner, monkeypatch):
    options = {"seed": 2, "samples": 2, "steps": 3, "max_tokens": 10}
    alone = [planner.plan(SCENE, **options, navigation=text) for text in (LEFT, None, RIGHT, RIGHT)]
    looks = count_looks(planner, monkeypatch)
    planner.plan(SCENE, **options)
    once = sum(looks)
    together = planner.plan(SCENE, **options, navigation=[LEFT, None, RIGHT, RIGHT])
    assert sum(looks) == 2 * once
    for got, want in zip(together, alone, strict=True):
        equal(got, want)
    guided = planner.plan(SCENE, **options, navigation=[LEFT, RIGHT], guidance=2.0)
    equal(guided[1], planner.plan(SCENE, **options, navigation=RIGHT, guidance=2.0))
    assert planner.plan(SCENE, navigation=[]) == []


def count_looks(planner, monkeypatch) -> list:
    """Grows with every pass of the vision tower, by its patches."""
    looks, tower = [], planner.model.vision
    embed = tower.patch_embed.forward
    monkeypatch.setattr(tower.patch_embed, "forward", lambda x: looks.append(len(x)) or embed(x))
    return looks


@pytest.mark.parametrize(
    "given,error,words",
    [
        ({"guidance": 2.0}, ValueError, "no navigation for it to weigh"),
        ({"guidance": float("nan"), "navigation": LEFT}, ValueError, "finite"),
        ({"guidance": "2", "navigation": LEFT}, TypeError, "expected a number"),
        ({"navigation": 30}, TypeError, "Turn left in 30m"),
        ({"navigation": " "}, ValueError, "navigation is empty"),
        ({"navigation": "go <|route_end|>"}, ValueError, r"special token <\|route_end\|>"),
        ({"navigation": "<i7>"}, ValueError, "special token <i7>"),
        ({"navigation": [LEFT, "<|image_pad|>"]}, ValueError, "special token"),
        ({"flow_temperature": -1.0}, ValueError, "flow_temperature is -1.0"),
        ({"flow_temperature": float("inf")}, ValueError, "finite"),
    ],
)
def test_odd_requests_are_refused(planner, given, error, words):
    with pytest.raises(error, match=words):
        planner.plan(SCENE, seed=0, max_tokens=1, steps=1, **given)


def test_noise_is_before_the_flows_temperature(planner):
    options = {"seed": 1, "steps": 2, "reasoning": TEXTS[1], "max_tokens": 8}
    noise = torch.randn(1, 64, 2, generator=torch.Generator().manual_seed(0))
    equal(planner.plan(SCENE, noise=noise, flow_temperature=0.5, **options), planner.plan(SCENE, noise=0.5 * noise, **options), atol=1e-6)


QUESTIONS = ["Describe the scene.", "Is it safe?\nSay why.", "What is ahead?"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"samples": 3, "max_tokens": 9}, {"temperature": 0.0, "max_tokens": 5}, {"answers": "A quiet road.", "samples": 2}]
)
def test_the_engine_answers_as_the_specification(slow, fast, options):
    for question in QUESTIONS:
        got, want = (p.ask(SCENE, question, seed=4, **options) for p in (fast, slow))
        assert (got.tokens, got.answers, got.ended, got.question) == (want.tokens, want.answers, want.ended, question)
    together = fast.ask(SCENE, QUESTIONS, seed=4, **options)
    assert [one.tokens for one in together] == [slow.ask(SCENE, q, seed=4, **options).tokens for q in QUESTIONS]


def test_a_planned_scene_is_not_read_again_for_a_question(fast, monkeypatch):
    scene = seen_by((1, 6), 4, seed=9)
    fresh = fast.ask(scene, QUESTIONS[0], seed=1, max_tokens=8)
    fast.plan(scene, seed=0, max_tokens=8, steps=1, navigation=LEFT, guidance=2.0)
    looks = count_looks(fast, monkeypatch)
    assert fast.ask(replace(scene, frames=scene.frames.clone()), QUESTIONS[0], seed=1, max_tokens=8).tokens == fresh.tokens
    assert not looks
    other = scene.frames.clone()
    other[0, 0, 0, 0, 0] ^= 255
    fast.ask(replace(scene, frames=other), QUESTIONS[0], seed=1, max_tokens=8)
    assert looks, "another pixel is another scene"


def test_several_questions_see_once(planner, monkeypatch):
    looks = count_looks(planner, monkeypatch)
    answers = planner.ask(seen_by((1,), 3, seed=11), QUESTIONS, seed=1, max_tokens=4)
    once = sum(looks)
    planner.ask(seen_by((1,), 3, seed=12), QUESTIONS[:1], seed=1, max_tokens=4)
    assert sum(looks) == 2 * once and [one.question for one in answers] == QUESTIONS and planner.ask(SCENE, [], seed=1) == []


def test_a_plan_has_the_same_bits_whatever_was_asked_before(fast):
    options = {"seed": 7, "samples": 2, "steps": 2, "max_tokens": 6, "navigation": LEFT}
    before = fast.plan(SCENE, **options)
    fast.ask(SCENE, QUESTIONS, seed=1, max_tokens=4)
    after = fast.plan(SCENE, **options)
    assert torch.equal(before.xyz, after.xyz) and before.tokens == after.tokens


def test_an_answer_cut_off_is_kept_and_marked(planner):
    warnings.simplefilter("always")
    with pytest.warns(UserWarning, match="answer-unfinished"):
        cut = planner.ask(SCENE, QUESTIONS[0], seed=1, max_tokens=5)
    assert cut.ended == (False,) and cut.answers[0] and [note.code for note in cut.notes][-1] == "answer-unfinished"
    warning = NoteWarning(cut.notes[-1])
    assert pickle.loads(pickle.dumps(warning)).note == warning.note == cut.notes[-1], "it reaches another process"
    whole = planner.ask(SCENE, QUESTIONS[0], seed=1, answers="A quiet road.")
    assert whole.ended == (True,) and whole.answers == ("A quiet road.",) and whole.notes == cut.notes[:-1]


def test_questions_may_be_answered_with_any_token(planner):
    """Trajectory tokens are blocked in reasoning alone."""
    first = planner.model.config.tokens.first
    said = planner.ask(SCENE, QUESTIONS[0], seed=1, samples=8, temperature=2.0, top_p=1.0, max_tokens=8).tokens
    assert any(first <= token < first + planner.model.config.tokens.count for row in said for token in row)
    planned = planner.plan(SCENE, seed=1, samples=8, temperature=2.0, top_p=1.0, max_tokens=8, steps=1).tokens
    assert not any(first <= token < first + planner.model.config.tokens.count for row in planned for token in row)


@pytest.mark.parametrize(
    "question,error,words",
    [
        ("", ValueError, "question is empty"),
        ("What <|question_end|>", ValueError, "special token"),
        (["Fine?", 3], TypeError, "Describe the scene"),
    ],
)
def test_odd_questions_are_refused(planner, question, error, words):
    with pytest.raises(error, match=words):
        planner.ask(SCENE, question, seed=0)
    with pytest.raises(TypeError, match="no option of a question"):
        planner.ask(SCENE, "Fine?", steps=3)


@pytest.mark.parametrize("case", ["plain_cameras", "nav", "nav_ragged", "seven_cameras_one_frame", "vqa_forced"])
def test_an_observations_prompt_is_the_recorded_one(slow, fast, case):
    """The planner's own way from an observation, not the facade's, in the specification and in the engine."""
    g, facts = recording(case), CASES15[case]
    frames = g["image_frames"].unflatten(0, (len(facts["camera_indices"]), -1))
    cameras = tuple(ORDER[i] for i in facts["camera_indices"])
    history = Trajectory(g["ego_history_xyz"][0, 0], g["ego_history_rot"][0, 0]) if "ego_history_xyz" in g else SCENE.history
    observation, config = Observation(frames, cameras, history, 0), slow.model.config
    if facts["question"] is not None:
        assert torch.equal(build_question(observation, slow.vocabulary, config, facts["question"]).ids, g["fused_input_ids"][0])
        return
    (text,) = facts["nav_text"]
    for prompt in (build_prompt(observation, slow.vocabulary, config, text), fast.engine.prompt(observation, text)):
        assert torch.equal(prompt.ids, g["fused_input_ids"][0])
