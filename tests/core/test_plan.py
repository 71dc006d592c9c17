"""The edges of what a plan may be asked: odd observations, one token, no words, values that would mislead without notice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.planner import Planner, make_engine, runs_fast
from conftest import GOLDEN

SCENE = testing.random_observation(0, 64, 96)
HISTORY = SCENE.history


@pytest.mark.parametrize(
    "observation",
    [
        replace(SCENE, frames=SCENE.frames[:1], cameras=SCENE.cameras[:1]),
        replace(SCENE, frames=SCENE.frames[:, :1]),
        replace(SCENE, frames=SCENE.frames[..., :37, :91]),
        replace(SCENE, frames=SCENE.frames[..., :1, :1]),
        replace(SCENE, frames=SCENE.frames.flip(-1).mT),
        replace(SCENE, history=replace(HISTORY, xyz=0 * HISTORY.xyz)),
    ],
    ids=["one camera", "one frame", "odd size", "one pixel", "strided", "standing"],
)
@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_unusual_observations_are_planned(tiny, observation):
    done = Planner(*tiny).plan(observation, seed=0, max_tokens=1, steps=1)
    assert done.xyz.isfinite().all() and done.xyz.shape == (1, 64, 3) and len(done.tokens[0]) == 1


@pytest.mark.parametrize(
    "observation,words",
    [
        (replace(SCENE, frames=SCENE.frames[:0], cameras=()), "at least one picture"),
        (replace(SCENE, frames=SCENE.frames[:, :0]), "at least one picture"),
        (replace(SCENE, frames=SCENE.frames[:, :, :1]), "expected u8"),
        (replace(SCENE, history=replace(HISTORY, dt=0.05)), "resample it to 10 Hz"),
        (replace(SCENE, history=replace(HISTORY, xyz=HISTORY.xyz + 1000)), "ego frame at t0"),
        (replace(SCENE, history=replace(HISTORY, xyz=HISTORY.xyz * torch.nan)), "NaN"),
        (replace(SCENE, history=replace(HISTORY, xyz=HISTORY.xyz[8:], rot=HISTORY.rot[8:])), "8 steps, expected 16"),
        (replace(SCENE, history=replace(HISTORY, rot=rot_z(torch.full((16,), 1.5)))), "yaw of 1.50 rad"),
        (replace(SCENE, history=replace(HISTORY, rot=rot_z(torch.full((16,), -1.5)))), "yaw of -1.50 rad"),
        (replace(SCENE, history=replace(HISTORY, rot=2 * HISTORY.rot)), "no rotation"),
        (replace(SCENE, history=replace(HISTORY, xyz=1000 * HISTORY.xyz)), "give metres"),
        (replace(SCENE, cameras=SCENE.cameras[::-1]), "it is all the model knows"),
        (replace(SCENE, cameras=(SCENE.cameras[0],) * 4), "each once"),
    ],
    ids=[
        "no camera",
        "no frame",
        "grey",
        "20 Hz",
        "world frame",
        "NaN",
        "short",
        "turned left",
        "turned right",
        "scaled",
        "mm",
        "cameras",
        "one camera",
    ],
)
def test_observations_that_would_mislead_are_refused(tiny, observation, words):
    with pytest.raises(ValueError, match=words):
        Planner(*tiny).plan(observation, seed=0, max_tokens=1, steps=1)


@pytest.mark.parametrize(
    "observation,words",
    [
        (replace(SCENE, frames=SCENE.frames.numpy()), "torch.from_numpy"),
        (replace(SCENE, frames=[1]), "of type list"),
        (replace(SCENE, history=replace(HISTORY, xyz=HISTORY.xyz.long())), "floating-point"),
        (SCENE.frames, "expected an Observation"),
    ],
    ids=["array", "list", "whole numbers", "no observation"],
)
def test_observations_of_other_types_are_refused(tiny, observation, words):
    with pytest.raises(TypeError, match=words):
        Planner(*tiny).plan(observation, seed=0, max_tokens=1, steps=1)


@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_an_odd_layout_is_warned_of(tiny):
    with pytest.warns(UserWarning, match="1 cameras with 4 frames each: the model was trained on 4 cameras with 4"):
        Planner(*tiny).plan(replace(SCENE, frames=SCENE.frames[:1], cameras=SCENE.cameras[:1]), seed=0, max_tokens=1, steps=1)


@pytest.mark.parametrize(
    "options",
    [{"samples": 1.5}, {"max_tokens": 2.0}, {"steps": "3"}, {"seed": 1.5}, {"noise": [1]}, {"reasoning": [1]}, {"reasoning": b"hi"}],
)
def test_arguments_of_other_types_are_refused_before_any_work(tiny, options, monkeypatch):
    monkeypatch.setattr("alpamayo_r1.core.plan.build_prompt", None)
    with pytest.raises(TypeError, match=next(iter(options))):
        Planner(*tiny).plan(SCENE, **{"seed": 0, "steps": 1, **options})


@pytest.mark.parametrize("engine", [False, True], ids=["specification", "engine"])
@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_a_plan_is_the_callers(tiny, engine):
    done = Planner(*tiny, make_engine(*tiny) if engine else None).plan(SCENE, seed=0, max_tokens=2, steps=1)
    weight = torch.ones((), requires_grad=True)
    (done.actions * weight).sum().backward()
    done.xyz[..., 0] += 1
    done.rot.mul_(2)
    assert weight.grad == done.actions.sum()


@pytest.mark.parametrize("engine", [False, True], ids=["specification", "engine"])
@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_without_a_seed_plans_share_a_fresh_one(tiny, engine):
    planner = Planner(*tiny, make_engine(*tiny) if engine else None)
    first, second = planner.plans([SCENE, SCENE], max_tokens=2, steps=1)
    assert torch.equal(first.xyz, second.xyz)
    assert not torch.equal(first.xyz, planner.plans([SCENE], max_tokens=2, steps=1)[0].xyz)


@pytest.mark.parametrize(
    "options,words",
    [
        ({"noise": torch.full((1, 64, 2), torch.nan)}, "NaN"),
        ({"temperature": float("nan")}, "temperature"),
        ({"reasoning": "go <|image_pad|> now"}, "special token"),
        ({"reasoning": "go <|im_start|>"}, "special token"),
        ({"reasoning": "go <i7>"}, "special token"),
        ({"reasoning": "", "max_tokens": 1}, "takes 2 tokens"),
    ],
)
def test_arguments_that_would_mislead_are_refused_before_any_work(tiny, options, words, monkeypatch):
    monkeypatch.setattr("alpamayo_r1.core.plan.build_prompt", None)
    with pytest.raises(ValueError, match=words):
        Planner(*tiny).plan(SCENE, seed=0, steps=1, **options)


@pytest.mark.parametrize("text", ["", "über 🚗 停"])
def test_any_plain_words_can_be_said(tiny, text):
    done = Planner(*tiny).plan(SCENE, seed=0, steps=1, reasoning=text)
    assert done.reasoning == (text,) and done.ended == (True,)


@pytest.mark.parametrize("engine", [False, True], ids=["specification", "engine"])
@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_damaged_weights_are_said(engine):
    model, vocabulary = load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32)
    model.language.norm.weight.fill_(torch.nan)
    model.expert.norm.weight.fill_(torch.nan)
    planner = Planner(model, vocabulary, make_engine(model, vocabulary) if engine else None)
    with pytest.raises(ValueError, match="actions are not finite"):
        planner.plan(SCENE, seed=0, max_tokens=2, steps=1)


@pytest.mark.parametrize("engine", [False, True], ids=["specification", "engine"])
@pytest.mark.filterwarnings("ignore::alpamayo_r1.core.notes.NoteWarning")
def test_autocast_around_a_plan_changes_nothing(tiny, engine):
    planner = Planner(*tiny, make_engine(*tiny) if engine else None)
    options = {"seed": 0, "max_tokens": 3, "steps": 2}
    plain = planner.plan(SCENE, **options)
    with torch.autocast("cpu", torch.bfloat16):
        one, (other,) = planner.plan(SCENE, **options), planner.plans([SCENE], **options)
    assert torch.equal(one.xyz, plain.xyz) and torch.equal(other.xyz, plain.xyz)


def test_which_path_plans(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("alpamayo_r1.planner.find_spec", lambda name: object())
    assert [runs_fast(cpu), runs_fast(cuda), runs_fast(cpu, True), runs_fast(cuda, False)] == [True, True, True, False]
    assert not runs_fast(cpu, dtype=torch.bfloat16) and not runs_fast(cpu, False)
    monkeypatch.setattr("alpamayo_r1.planner.find_spec", lambda name: None)
    assert runs_fast(cuda, True) and not runs_fast(cuda, False) and not runs_fast(cpu), "nothing is there to run fast"
    with pytest.warns(UserWarning, match="Triton is not installed"):
        assert not runs_fast(cuda)
