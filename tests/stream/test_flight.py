"""Steps on their way: plans in the order of their steps, equal to fresh ones, on one device, on two and by the specification."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import replace
from threading import Event

import pytest
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.engine.pair import FarReader
from alpamayo_r1.planner import Planner
from alpamayo_r1.stream.flight import AT_ONCE
from alpamayo_r1.testing import same_bits
from conftest import GOLDEN
from support.drive import T0_US, picture, seen

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CHECKPOINT = GOLDEN / "checkpoint"
OPTIONS = {"samples": 1, "seed": 42, "max_tokens": 4, "steps": 1}
SHORT = OPTIONS | {"max_tokens": 1}
DRIVE = [seen(0), seen(1), seen(2), seen(2), seen(1, stale=1), seen(9, size=(64, 64)), seen(10, size=(64, 64)), seen(11)]


@pytest.fixture(scope="module")
def fresh(one):
    return [one.plan(observation, **OPTIONS) for observation in DRIVE]


@pytest.mark.parametrize("devices", ["one", "two"])
def test_submitted_steps_are_fresh_plans(one, two, fresh, devices):
    stream = {"one": one, "two": two}[devices].stream(**OPTIONS)
    coming = [stream.submit(observation) for observation in DRIVE]
    assert all(same_bits(future.result(), want) for future, want in zip(coming, fresh, strict=True))
    assert stream.steps == len(DRIVE) and same_bits(stream.step(DRIVE[0]), fresh[0])


def test_steps_of_two_devices_are_fresh_plans_and_read_ahead_by_themselves(two, fresh):
    stream, tokens = two.stream(**OPTIONS), []
    for observation, want in zip(DRIVE, fresh, strict=True):
        assert same_bits(stream.step(observation), want)
        tokens.append(stream.reused.tokens)
        assert stream.read_ahead() == 0
    assert tokens[2] >= 16 and not any(tokens[:2] + tokens[3:])


def test_the_specification_takes_steps_too(fresh):
    planner = Planner.of(*load_checkpoint(CHECKPOINT, dtype=torch.float32), fast=False)
    stream = planner.stream(**OPTIONS)
    coming = [stream.submit(observation) for observation in DRIVE[:3]]
    plans = [future.result() for future in coming]
    assert all(same_bits(plan, planner.plan(observation, **OPTIONS)) for plan, observation in zip(plans, DRIVE, strict=False))


def test_pictures_are_the_callers_again(two, fresh):
    stream, buffer = two.stream(**OPTIONS), {name: torch.empty(3, 48, 80, dtype=torch.uint8) for name in CAMERAS}
    coming = []
    for moment in range(5):
        for camera, pixels in enumerate(buffer.values()):
            pixels.copy_(picture(camera, moment))
        coming.append(stream.submit(buffer, seen(0).history, T0_US + 100_000 * moment))
        for pixels in buffer.values():
            pixels.zero_()
    assert torch.equal(stream.observation.frames, seen(4).frames)
    assert same_bits(coming[-1].result(), two.plan(seen(4), **OPTIONS)) and same_bits(coming[3].result(), two.plan(seen(3), **OPTIONS))


@pytest.fixture
def held(two, monkeypatch):
    """Speaking waits until the event is set; `started` is set when it begins to."""
    go, started, plan_prompts = Event(), Event(), two.engine.plan_prompts

    def late(*given):
        started.set()
        assert go.wait(20)
        return plan_prompts(*given)

    monkeypatch.setattr(two.engine, "plan_prompts", late)
    yield go, started
    go.set()


def test_the_next_step_is_read_while_the_last_is_spoken_about(two, fresh, held, monkeypatch):
    (go, started), read, began = held, FarReader.read, []
    monkeypatch.setattr(FarReader, "read", lambda *given: (began.append(go.is_set()), read(*given))[1])
    stream = two.stream(**OPTIONS)
    first = stream.submit(DRIVE[0])
    assert started.wait(20)
    second = stream.submit(DRIVE[1])
    while len(began) < 2:
        time.sleep(0.01)
    assert began == [False, False] and not first.done() and not second.done()
    go.set()
    assert same_bits(first.result(), fresh[0]) and same_bits(second.result(), fresh[1])


def test_a_third_step_waits(two, fresh, held):
    from concurrent.futures import ThreadPoolExecutor

    (go, started), stream = held, two.stream(**OPTIONS)
    coming = [stream.submit(observation) for observation in DRIVE[:AT_ONCE]]
    assert started.wait(20)
    with ThreadPoolExecutor(1) as other:
        third = other.submit(stream.submit, DRIVE[AT_ONCE])
        time.sleep(0.2)
        assert not third.done()
        go.set()
        coming.append(third.result())
    assert all(same_bits(future.result(), want) for future, want in zip(coming, fresh, strict=False))


def test_a_plan_asked_for_between_steps_waits_its_turn(two, fresh):
    stream = two.stream(**OPTIONS)
    coming = [stream.submit(observation) for observation in DRIVE[:2]]
    assert same_bits(two.plan(DRIVE[3], **OPTIONS), fresh[3])
    coming.append(stream.submit(DRIVE[2]))
    assert all(same_bits(future.result(), want) for future, want in zip(coming, fresh, strict=False))


@pytest.mark.parametrize("where", ["taking", "reading", "speaking"])
def test_a_failing_step_fails_alone(two, fresh, monkeypatch, where):
    stream, odd = two.stream(**OPTIONS), DRIVE[1]
    name = {"reading": "read", "speaking": "plan_prompts"}.get(where)
    owner = two.engine.reader if where == "reading" else two.engine
    if name is None:
        odd = replace(odd, history=replace(odd.history, xyz=odd.history.xyz + 9))
    else:
        genuine, calls = getattr(owner, name), []

        def second(*given):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of luck")
            return genuine(*given)

        monkeypatch.setattr(owner, name, second)
    coming = [stream.submit(observation) for observation in (DRIVE[0], odd, DRIVE[2], DRIVE[3])]
    with pytest.raises((ValueError, RuntimeError), match="history" if name is None else "out of luck"):
        coming[1].result()
    for i in (0, 2, 3):
        assert same_bits(coming[i].result(), fresh[i]), i
    assert same_bits(stream.step(DRIVE[4]), fresh[4])


def test_fresh_draws_follow_the_order_of_steps(two):
    stream = two.stream(**OPTIONS, draws="fresh")
    coming = [stream.submit(DRIVE[n]) for n in range(3)]
    for n, future in enumerate(coming):
        assert same_bits(future.result(), two.plan(DRIVE[n], **(OPTIONS | {"seed": 42 + n})))


# ---------------------------------------------------------------------------------------------------------------------- a long drive

CIRCLE = 9
"""Moments after which the same pictures come again: by then they are forgotten."""


def long_drive(steps):
    """Moments of a drive, stale cameras and sizes: some steps are dropped, some come twice, some late, some with a picture of before."""
    chance, moment = random.Random(0), 0
    for n in range(steps):
        moment += chance.choice([1] * 8 + [0, 2, 3, -1])
        yield moment % CIRCLE, 1 if chance.random() < 0.15 else None, (64, 64) if n % 50 > 42 else (48, 80)


@pytest.fixture(scope="module")
def plans():
    """Fresh plans by the bytes of their pictures."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["one", "two"])
def test_two_hundred_steps_are_fresh_plans(one, two, plans, devices):
    """Steps of one device wait and read ahead, those of two are submitted; half bring the newest pictures alone."""
    stream, coming = {"one": one, "two": two}[devices].stream(**SHORT), deque()

    def check():
        key, observation, plan = coming.popleft()
        if key not in plans:
            plans[key] = one.plan(observation, **SHORT)
        assert same_bits(plan.result() if devices == "two" else plan, plans[key]), key

    reused = [0, 0]
    for n, (moment, stale, size) in enumerate(long_drive(200)):
        given = (seen(moment, stale, size),)
        if n % 2 and stale is None:
            given = ({name: picture(i, moment, size) for i, name in enumerate(CAMERAS)}, seen(0).history, T0_US + 100_000 * moment)
        plan = (stream.submit if devices == "two" else stream.step)(*given)
        observation = stream.observation
        coming.append((observation.frames.numpy().tobytes(), observation, plan))
        if devices == "one" and n % 3:
            stream.read_ahead()
        if len(coming) > AT_ONCE:
            check()
        reused = [reused[0] + (stream.reused.pictures > 8), reused[1] + (stream.reused.tokens > 0)]
    while coming:
        check()
    assert reused[0] > 100 and reused[1] > 20
