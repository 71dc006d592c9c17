"""Two devices in a row plan what one plans, to the bit, and each holds only the weights that it needs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alpamayo_r1.core.checkpoint import READS, SPEAKS
from alpamayo_r1.engine import pair
from alpamayo_r1.planner import load
from alpamayo_r1.testing import same_bits
from conftest import GOLDEN
from support.drive import seen
from support.golden15 import GOLDEN15
from support.scenes15 import seen_by

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CHECKPOINT = GOLDEN / "checkpoint"
OPTIONS = {"samples": 2, "seed": 42, "max_tokens": 5, "steps": 2}


def test_plans_are_those_of_one_device(one, two):
    for observation in (seen(0), seen(1)):
        assert same_bits(two.plan(observation, **OPTIONS), one.plan(observation, **OPTIONS))
    changes = OPTIONS | {"samples": 3, "max_tokens": 9}
    assert same_bits(two.plan(seen(2, size=(64, 64)), **changes), one.plan(seen(2, size=(64, 64)), **changes))


def test_many_scenes_and_prepared_prompts_too(one, two):
    scenes = [seen(0), seen(3)]
    assert all(map(same_bits, two.plans(scenes, **OPTIONS), one.plans(scenes, **OPTIONS)))


def test_guided_plans_and_questions_too():
    one, two = (load(GOLDEN15 / "checkpoint", device=device, fast=True) for device in ("cpu", "cpu,cpu"))
    scene, text, few = seen_by((0, 1, 2, 6), 4), "Turn left in 30m", {"seed": 1, "max_tokens": 4}
    for changes in ({"navigation": text, "guidance": 1.5}, {"navigation": None}):
        assert same_bits(*(planner.plan(scene, samples=2, steps=2, **few, **changes) for planner in (one, two)))
    several = [planner.plan(scene, samples=1, steps=2, navigation=[text, None], **few) for planner in (one, two)]
    assert all(map(same_bits, *several))
    asked = [planner.ask(scene, ["Describe the scene.", "Why?"], **few) for planner in (one, two)]
    assert [[one.answers for one in answers] for answers in asked[:1]] == [[one.answers for one in answers] for answers in asked[1:]]


def test_each_device_has_its_part_alone(two):
    for model, parts in ((two.engine.reader.model.vla, READS), (two.model, SPEAKS)):
        held = {name for name, weight in model.named_parameters() if not weight.is_meta}
        assert held == {name for name, _ in model.named_parameters() if name.startswith(parts)}
    assert two.engine.reader.lane is not two.engine.lane and two.engine.reader.graphs is not two.engine.graphs


@pytest.mark.parametrize("broken", ["a layer stays", "the last token of another", "too few keys"])
def test_what_is_broken_on_purpose_is_seen(one, two, monkeypatch, broken):
    logits = pair.Travelling.logits

    def wrong(self, *given):
        if broken == "a layer stays":
            self = replace(self, kv=(*self.kv[:1], *((k * 0, v * 0) for k, v in self.kv[1:])))
        elif broken == "too few keys":
            self = replace(self, kv=tuple((k[:, :, :64], v[:, :, :64]) for k, v in self.kv))
        else:
            self = replace(self, last=self.last.roll(1, 1))
        return logits(self, *given)

    monkeypatch.setattr(pair.Travelling, "logits", wrong)
    two.engine.arena = None
    assert not same_bits(two.plan(seen(0), **OPTIONS), one.plan(seen(0), **OPTIONS))


@pytest.mark.parametrize(
    "device,words",
    [
        ("cuda:0,cuda:0", "twice the same card"),
        ("cuda:0,cuda:1,cuda:2", "3 devices: expected two cards"),
        ("cpu,cuda:0", "expected two cards such as 'cuda:0,cuda:1'"),
        ("cuda,cuda:1", "expected two cards such as 'cuda:0,cuda:1'"),
        ("auto,cpu", "expected two cards"),
        ("cuda:0,cuda:7", "this machine has 2 CUDA devices"),
        ("cuda:0,", "device is ''"),
        ("cuda:0,tpu:1", "device is 'tpu:1'"),
    ],
)
def test_wrong_pairs_are_refused(monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError) as caught:
        load(CHECKPOINT, device=device)
    assert words in str(caught.value) and "device is" in str(caught.value)


def test_two_devices_are_the_engines(monkeypatch):
    with pytest.raises(ValueError, match="fast is False, but two devices"):
        load(CHECKPOINT, device="cpu,cpu", fast=False)
    found = "alpamayo_r1.planner.find_spec"
    monkeypatch.setattr(found, lambda name: None if name == "alpamayo_r1.engine.pair" else name)
    with pytest.raises(ValueError, match=r"engine/pair\.py, which this copy of the package lacks"):
        load(CHECKPOINT, device="cpu,cpu")
