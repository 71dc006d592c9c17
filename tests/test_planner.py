"""Loading: where the word table goes."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1 import load, planner
from alpamayo_r1.core.checkpoint import load_checkpoint, load_model
from alpamayo_r1.core.notes import NoteWarning
from alpamayo_r1.core.options import AskOptions
from alpamayo_r1.core.plan import DoesNotFit
from alpamayo_r1.planner import Planner, fills
from alpamayo_r1.testing import random_observation, size_config
from conftest import GOLDEN

OBSERVATION = random_observation(0, 96, 160)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_the_word_table_goes_to_the_host_where_the_weights_fill_the_card(monkeypatch):
    model = load_model(GOLDEN / "checkpoint")
    size = sum(parameter.nbytes for parameter in model.parameters())
    for memory, full in ((int(size * 1.2), True), (int(size * 1.3), False)):
        monkeypatch.setattr(planner, "card_bytes", lambda device, memory=memory: memory)
        assert fills(model.config, None, model.dtype, torch.device("cuda")) is full


def test_loading_asks_the_card_unless_told(monkeypatch):
    moved = []
    monkeypatch.setattr(planner, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(planner, "chosen", lambda *_: None)
    monkeypatch.setattr(planner, "load_checkpoint", lambda *_, words_on_host, **__: (moved.append(words_on_host), None))
    monkeypatch.setattr(Planner, "of", lambda *_: None)
    for word_table, full, wanted in (("auto", True, True), ("auto", False, False), ("host", False, True), ("device", True, False)):
        monkeypatch.setattr(planner, "fills", lambda *_, full=full: full)
        moved.clear()
        load("small", word_table=word_table)
        assert moved == [wanted]


TEN = size_config("10b")


@pytest.fixture
def card(monkeypatch):
    """A card with so many GB free; has_fp8_products is cached per device, hence a new one each time."""

    def of(gigabytes: float, fp8: bool = True) -> torch.device:
        monkeypatch.setattr(planner, "free_bytes", lambda device: gigabytes * 1e9)
        monkeypatch.setattr("alpamayo_r1.engine.ops.eight.has_fp8_products", lambda device: fp8)
        return torch.device("cuda")

    return of


@pytest.mark.parametrize(
    ("free", "fp8", "took"), [(80, True, "bf16"), (14, True, "fp8"), (14, False, "w8"), (10, True, "w4"), (7.8, True, "tight")]
)
def test_auto_takes_the_best_that_fits_and_says_so(card, free, fp8, took):
    with pytest.warns(NoteWarning, match=f"precision auto took {took}: .* GB are free, room for .* samples of 256 tokens"):
        found = planner.chosen(TEN, "auto", card(free, fp8), torch.bfloat16)
    assert found is not None and found.name == took


def test_a_card_without_products_of_fp8_gets_int8_and_a_note(card):
    with pytest.warns(NoteWarning, match="the weights become int8"):
        found = planner.chosen(TEN, "fp8", card(80, fp8=False), torch.bfloat16)
    assert found is not None and found.name == "w8"


@pytest.mark.parametrize("name", [None, "bf16", "w8"])
def test_what_does_not_fit_is_said_before_it_is_loaded(card, name):
    with pytest.raises(DoesNotFit, match=r"do not fit: 9\.5 GB are free on cuda\. What fits: w4 with \d+ samples?, tight with"):
        planner.chosen(TEN, name, card(9.5), torch.bfloat16)


def test_on_the_cpu_weights_become_what_was_asked():
    cpu = torch.device("cpu")
    assert planner.chosen(TEN, None, cpu, torch.float32) is None
    assert planner.chosen(TEN, "auto", cpu, torch.float32) is None
    found = planner.chosen(TEN, "w4", cpu, torch.float32)
    assert found is not None and found.name == "w4"


def test_a_small_model_of_few_bits_plans_nearly_the_same():
    plans = [load(GOLDEN / "checkpoint", precision=name).plan(OBSERVATION, seed=1, reasoning="Go") for name in (None, "bf16", "w8", "w4")]
    assert torch.equal(plans[0].xyz, plans[1].xyz)
    far = [(one.xyz - plans[0].xyz).norm(dim=-1).max().item() for one in plans[2:]]
    assert 0 < far[0] < far[1]


def test_memory_and_precision_that_there_are_not_are_errors():
    with pytest.raises(ValueError, match="precision is 'int3', expected one of bf16, fp8, w8, w4, tight, or auto"):
        load("small", precision="int3")
    with pytest.raises(ValueError, match="memory is 12, but the model is on the cpu"):
        load("small", device="cpu", memory=12)


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
