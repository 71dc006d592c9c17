"""A client gives what the planner behind it gives: the same plans to the bit, and the same errors."""

from __future__ import annotations

import json
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alpamayo_r1.client import Client, ServiceBusy, ServiceError
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.types import CAMERAS, Trajectory
from alpamayo_r1.core.wire import pack, plan_as_json, plan_of_json, unpack
from alpamayo_r1.data.source import open_source
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import random_observation
from conftest import GOLDEN
from support.drive import seen
from support.golden15 import GOLDEN15
from support.service import served

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

SMALL = {"max_tokens": 5, "steps": 2}


@pytest.fixture(scope="module")
def planner():
    return Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32), fast=False)  # the engine learns to take fewer passes


@pytest.fixture(scope="module")
def planner15():
    return Planner.of(*load_checkpoint(GOLDEN15 / "checkpoint", dtype=torch.float32), fast=False)


@pytest.fixture(scope="module")
def client(planner):
    with open_source("sample") as source, served(planner, source) as url, Client(url) as found:
        yield found


@pytest.fixture(scope="module")
def client15(planner15):
    with open_source("sample") as source, served(planner15, source) as url, Client(url) as found:
        yield found


@pytest.fixture(params=["planner", "client"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["planner15", "client15"])
def either15(request):
    return request.getfixturevalue(request.param)


def equal(got, want) -> bool:
    """Whether two plans are the same to the bit, in everything but how long they took."""
    same_words = (got.tokens, got.reasoning, got.ended, got.notes, got.passes) == (
        want.tokens,
        want.reasoning,
        want.ended,
        want.notes,
        want.passes,
    )
    return same_words and all(torch.equal(getattr(got, name), getattr(want, name)) for name in ("xyz", "rot", "actions"))


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 42},
        {"seed": 2**40 + 1, "samples": 3, "temperature": 1.2, "top_k": 7, "top_p": 0.5},
        {"seed": 1, "samples": 2, "reasoning": "Stop"},
        {"seed": 1, "samples": 2, "reasoning": ("Stop", "Go"), "flow_temperature": 0.5},
        {"seed": 3, "samples": 2, "noise": torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(5))},
    ],
    ids=["seed", "sampling", "a reason", "two reasons", "noise"],
)
def test_plans_are_the_planners_to_the_bit(planner, client, options):
    observation = random_observation(0, 96, 160)
    assert equal(client.plan(observation, **options, **SMALL), planner.plan(observation, **options, **SMALL))


def test_plans_of_several_scenes_are_the_planners(planner, client):
    scenes = [random_observation(i, 96, 160) for i in range(3)]
    for got, want in zip(client.plans(scenes, seed=4, **SMALL), planner.plans(scenes, seed=4, **SMALL), strict=True):
        assert equal(got, want)
    assert client.plans([]) == []


def test_options_as_a_record_and_changed_by_name(either):
    observation = random_observation(0, 96, 160)
    plan = either.plan(observation, PlanOptions(seed=1, **SMALL), samples=2)
    assert plan.xyz.shape == (2, 64, 3) and plan.xyz.dtype == torch.float32 and len(plan.reasoning) == 2


def test_without_a_seed_two_plans_differ(either):
    observation = random_observation(0, 96, 160)
    assert not torch.equal(either.plan(observation, **SMALL).xyz, either.plan(observation, **SMALL).xyz)


BAD = [
    (lambda p, o: p.plan(o, 5), TypeError, "options are of type int, expected PlanOptions"),
    (lambda p, o: p.plan(o, AskOptions()), TypeError, "options are of type AskOptions, expected PlanOptions"),
    (lambda p, o: p.plan(o, 5, navigation=[None]), TypeError, "options are of type int"),
    (lambda p, o: p.plan(o, drafts="yes"), TypeError, "drafts is 'yes', expected True or False"),
    (lambda p, o: p.plan(o, sample=2), TypeError, r"sample= is no option of a plan \(did you mean samples=\?\)"),
    (lambda p, o: p.plan(o, samples=0), ValueError, "samples is 0, expected at least 1"),
    (lambda p, o: p.plans(None), TypeError, "observations are of type NoneType, expected a list"),
    (lambda p, o: p.plans([o, None]), TypeError, "a NoneType was given, expected an Observation"),
    (lambda p, o: p.plan(replace(o, frames=o.frames.float())), TypeError, "frames are torch.float32, expected torch.uint8"),
    (lambda p, o: p.plan(replace(o, frames=o.frames.numpy())), TypeError, "frames are of type ndarray, expected a torch.Tensor"),
    (lambda p, o: p.plan(replace(o, cameras=CAMERAS[::-1])), ValueError, "expected each once and in the order"),
    (lambda p, o: p.plan(replace(o, history=Trajectory(o.history.xyz[:9], o.history.rot[:9]))), ValueError, "history has 9 steps"),
    (lambda p, o: p.plan(o, reasoning="a <|cot_end|> b"), ValueError, "must be plain words"),
    (lambda p, o: p.plan(o, reasoning="word " * 90, max_tokens=4), ValueError, "raise max_tokens or shorten the text"),
    (lambda p, o: p.plan(o, noise=torch.zeros(2, 64, 2)), ValueError, r"noise has shape \(2, 64, 2\), expected \(1, 64, 2\)"),
    (lambda p, o: p.plan(o, noise=[1.0]), TypeError, "noise is of type list, expected a tensor of shape"),
    (lambda p, o: p.plan(o, navigation="Turn left in 30m"), ValueError, "navigation= was given, but this checkpoint is Alpamayo-R1"),
    (lambda p, o: p.ask(o, "Why?"), ValueError, "a question was asked, but this checkpoint is Alpamayo-R1"),
    (lambda p, o: p.stream(draws="new"), ValueError, "draws is 'new', expected 'kept'"),
]


@pytest.mark.parametrize("call, kind, message", BAD)
def test_what_does_not_fit_is_refused_alike(either, call, kind, message):
    with pytest.raises(kind, match=message):
        call(either, random_observation(0, 96, 160))


def test_after_an_error_the_next_plan_is_right(planner, client):
    observation = random_observation(0, 96, 160)
    with pytest.raises(ValueError, match="plain words"):
        client.plan(observation, reasoning="<|cot_end|>")
    assert equal(client.plan(observation, seed=9, **SMALL), planner.plan(observation, seed=9, **SMALL))


def test_streams_are_the_planners_to_the_bit(planner, client):
    options = {"samples": 2, "seed": 42, **SMALL}
    with client.stream(**options) as stream:
        for n in (0, 1, 2, 4, 3):
            assert equal(stream.step(seen(n)), planner.plan(seen(n), **options))
        assert equal(stream.step(seen(5), seed=7, samples=1), planner.plan(seen(5), **(options | {"seed": 7, "samples": 1})))
        with pytest.raises(TypeError, match=r"frames are torch\.float32"):
            stream.step(replace(seen(1), frames=seen(1).frames.float()))
        with pytest.raises(ValueError, match="plain words"):
            stream.step(seen(1), reasoning="<|cot_end|>")
        assert equal(stream.step(seen(6)), planner.plan(seen(6), **options))
    with client.stream(draws="fresh", **options) as stream:
        for n in range(2):
            assert equal(stream.step(seen(n)), planner.plan(seen(n), **(options | {"seed": 42 + n})))
            assert stream.seed == 42 + n


def test_navigation_guidance_and_questions(planner15, client15):
    observation = random_observation(0, 96, 160)
    for asked in ({"navigation": ["Turn left in 30m", None]}, {"navigation": ["Turn left in 30m", "Turn right"], "guidance": 1.5}):
        got, want = (one.plan(observation, seed=2, **asked, **SMALL) for one in (client15, planner15))
        assert len(got) == 2 and all(map(equal, got, want))
    one = {"navigation": "Turn left in 30m", "guidance": 2.0, "seed": 2, **SMALL}
    assert equal(client15.plan(observation, **one), planner15.plan(observation, **one))
    for question in ("Why?", ["Why?", "What is ahead?"]):
        got, want = (p.ask(observation, question, seed=3, samples=2, max_tokens=4) for p in (client15, planner15))
        for a, b in zip(*((x if isinstance(question, list) else [x]) for x in (got, want)), strict=True):
            assert (a.question, a.answers, a.ended, a.tokens, a.notes) == (b.question, b.answers, b.ended, b.tokens, b.notes)


@pytest.mark.parametrize("call, kind, message", [
    (lambda p, o: p.ask(o, ""), (ValueError, TypeError), "question"),
    (lambda p, o: p.ask(o, "Why?", answers="<|cot_end|>"), ValueError, "plain words"),
    (lambda p, o: p.plan(o, navigation=["Turn left", ""]), ValueError, "navigation is empty"),
    (lambda p, o: p.plan(o, guidance=2.0), ValueError, "there is no navigation for it to weigh"),
])  # fmt: skip
def test_what_does_not_fit_alpamayo_15_is_refused_alike(either15, call, kind, message):
    with pytest.raises(kind, match=message):
        call(either15, random_observation(0, 96, 160))


def test_clips_and_observations_come_over_the_wire(client):
    with open_source("sample") as source:
        clips = client.clips("nudge")
        want = source.clip(clips[0]["clip_id"]).sample().observation
        got = client.observation(clips[0]["short"])
    assert torch.equal(got.frames, want.frames) and torch.equal(got.history.xyz, want.history.xyz)
    assert (got.cameras, got.t0_us) == (want.cameras, want.t0_us)
    with pytest.raises(LookupError, match="no clip"):
        client.observation("nothing-like-it")


def test_the_wire_keeps_every_bit():
    observation = random_observation(3, 64, 64)
    back, request, noise = unpack(pack(observation, {"options": {"seed": 1}}, torch.ones(1, 64, 2)))
    assert torch.equal(back.frames, observation.frames) and torch.equal(back.history.rot, observation.history.rot)
    assert (request, back.cameras) == ({"options": {"seed": 1}}, CAMERAS) and noise is not None
    from alpamayo_r1.core.types import Plan

    values = torch.randn(1, 64, 3) * 1e-30
    plan = Plan(values, torch.randn(1, 64, 3, 3), ("x",), torch.full((1, 64, 2), torch.nan), (True,), {"flow": 1.5}, ((1, 2),))
    again = plan_of_json(json.loads(json.dumps(plan_as_json(plan), allow_nan=False)))
    assert torch.equal(again.xyz, values) and again.actions.isnan().all() and again.tokens == ((1, 2),)


def test_the_code_of_the_documents_runs(client):
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S).group(1)
    names: dict = {}
    exec(compile(code.replace("http://127.0.0.1:8000", client.url), "serving.md", "exec"), names)
    assert names["plan"].xyz.shape == (6, 64, 3)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", 5, "http://"])
def test_an_address_that_is_none_is_named(url):
    with pytest.raises(ValueError, match="expected the address of a service such as"):
        Client(url)


def test_nobody_there_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ServiceError, match=r"can't be reached .* is `alpamayo-r1 serve` running there"):
            Client(f"http://127.0.0.1:{free.getsockname()[1]}", patience=0)


def test_a_busy_service_is_asked_again_until_patience_ends():
    answers = [
        b"HTTP/1.1 503 x\r\nretry-after: 1\r\ncontent-length: 47\r\n\r\n" + b'{"error": {"type": "Busy", "text": "full up"}}  '[:47]
    ] * 2
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reply():
            connection, _ = listener.accept()
            with connection:
                for answer in answers:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        with pytest.raises(ServiceBusy, match="full up"):
            Client(f"http://127.0.0.1:{listener.getsockname()[1]}", patience=1.5)
        thread.join(5)
        assert not thread.is_alive(), "it was asked once"
