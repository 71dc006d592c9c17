"""Loading: where the word table goes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from alpamayo_r1 import load, planner
from alpamayo_r1.core.checkpoint import load_checkpoint, load_model
from alpamayo_r1.core.options import AskOptions
from alpamayo_r1.planner import Planner, fills
from alpamayo_r1.testing import random_observation
from conftest import GOLDEN

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_word_table_goes_to_the_host_where_the_weights_fill_the_card(monkeypatch):
    model = load_model(GOLDEN / "checkpoint")
    size = sum(parameter.nbytes for parameter in model.parameters())
    for memory, full in ((int(size * 1.2), True), (int(size * 1.3), False)):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, memory=memory: SimpleNamespace(total_memory=memory))
        assert fills(model, torch.device("cuda")) is full


def test_loading_asks_the_card_unless_told(monkeypatch):
    moved = []
    monkeypatch.setattr(planner, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(planner, "load_checkpoint", lambda *_, **__: (SimpleNamespace(move_words_to_host=lambda: moved.append(1)), None))
    monkeypatch.setattr(Planner, "of", lambda *_: None)
    for word_table, full, wanted in (("auto", True, 1), ("auto", False, 0), ("host", False, 1), ("device", True, 0)):
        monkeypatch.setattr(planner, "fills", lambda *_, full=full: full)
        moved.clear()
        load("small", word_table=word_table)
        assert len(moved) == wanted


def test_another_word_table_is_an_error():
    with pytest.raises(ValueError, match="word_table is 'disk', expected one of auto, device, host"):
        load("small", word_table="disk")


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.filterwarnings("ignore:.*ended without")
def test_plans_are_the_same_with_the_word_table_on_the_host(fast):
    here, there = (load(GOLDEN / "checkpoint", device="cuda", fast=fast, word_table=where) for where in ("device", "host"))
    assert there.model.language.embed_tokens.weight.is_pinned()
    observation = random_observation(0, 96, 160)
    for samples in (1, 5):
        a, b = (one.plan(observation, samples=samples, seed=4, max_tokens=12) for one in (here, there))
        assert a.tokens == b.tokens and torch.equal(a.xyz, b.xyz)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p, o: p.plan(o, 5), "options are of type int, expected PlanOptions"),
        (lambda p, o: p.plan(o, AskOptions()), "options are of type AskOptions, expected PlanOptions"),
        (lambda p, o: p.plan(o, 5, navigation=[None]), "options are of type int"),
        (lambda p, o: p.plan(o, drafts="yes"), "drafts is 'yes', expected True or False"),
        (lambda p, o: p.plan(o, sample=2), r"sample= is no option of a plan \(did you mean samples=\?\)\. There are samples"),
        (lambda p, o: p.plans(None), "observations are of type NoneType, expected a list"),
        (lambda p, o: p.plans([o, None]), "a NoneType was given, expected an Observation"),
        (lambda p, o: load(None), "the checkpoint is of type NoneType, expected 'small', a folder or a repository name"),
    ],
)
def test_other_types_are_named(call, message):
    small = Planner.of(*load_checkpoint(GOLDEN / "checkpoint"))
    with pytest.raises(TypeError, match=message):
        call(small, random_observation(0, 96, 160))
