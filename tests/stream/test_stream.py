"""Streams: every step's plan is the fresh one, to the bit, and what was seen before is not seen again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.request import prepare
from alpamayo_r1.core.types import CAMERAS, Plan
from alpamayo_r1.planner import Planner, load
from alpamayo_r1.stream import Reused
from alpamayo_r1.stream import stream as module
from alpamayo_r1.stream.album import Album, same
from alpamayo_r1.stream.window import Window
from alpamayo_r1.testing import same_bits, tiny_checkpoint
from conftest import GOLDEN
from support.drive import T0_US, picture, seen

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

OPTIONS = {"samples": 2, "seed": 42, "max_tokens": 5, "steps": 2}


@pytest.fixture(scope="module", params=[False, True], ids=["specification", "engine"])
def planner(request):
    return Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32), fast=request.param)


@pytest.fixture(scope="module")
def engine():
    return Planner.of(*load_checkpoint(GOLDEN / "checkpoint", dtype=torch.float32), fast=True)


def equal(got: Plan, want: Plan) -> bool:
    """Whether two plans are the same to the bit, in everything but how long they took."""
    same_words = (got.tokens, got.reasoning, got.ended, got.notes) == (want.tokens, want.reasoning, want.ended, want.notes)
    return same_words and same_bits(got, want)


DRIVES = {
    "on time": [seen(m) for m in range(4)],
    "dropped": [seen(0), seen(1), seen(3), seen(4), seen(9), seen(10)],
    "twice": [seen(0), seen(1), seen(1), seen(2)],
    "late": [seen(0), seen(1), seen(3), seen(2), seen(4)],
    "a stale camera": [seen(0), seen(1), seen(2, stale=1), seen(3, stale=0), seen(4)],
    "another size": [seen(0), seen(1), seen(2, size=(64, 64)), seen(3, size=(64, 64)), seen(4)],
    "another rig": [seen(0), seen(1), seen(2, cameras=CAMERAS[:2]), seen(3, cameras=CAMERAS[1:]), seen(4)],
}


@pytest.mark.parametrize("name", DRIVES)
def test_every_step_is_the_fresh_plan(planner, name):
    stream = planner.stream(**OPTIONS)
    for observation in DRIVES[name]:
        assert equal(stream.step(observation), planner.plan(observation, **OPTIONS)), f"t0 {observation.t0_us}"
        stream.read_ahead()


def test_what_was_seen_is_not_seen_again(planner):
    stream, reused = planner.stream(**OPTIONS), []
    for observation in (seen(0), seen(1), seen(2), seen(2), seen(3, stale=2), seen(9)):
        stream.step(observation)
        reused.append(stream.reused.pictures)
        stream.read_ahead()
    assert reused == [0, 12, 12, 16, 12, 0]


def test_the_engine_reads_ahead_what_comes_next(engine):
    stream = engine.stream(**OPTIONS)
    stream.step(seen(0))
    assert stream.read_ahead() == 0, "nothing says yet that pictures come again"
    stream.step(seen(1))
    count = stream.read_ahead()
    assert count >= 16 and stream.read_ahead() == 0
    for observation, tokens in ((seen(2), count), (seen(2), 0), (seen(4), 0), (seen(5), count)):
        assert equal(stream.step(observation), engine.plan(observation, **OPTIONS))
        assert stream.reused.tokens == tokens, observation.t0_us
        stream.read_ahead()


def test_one_changed_pixel_is_a_new_picture(planner):
    stream = planner.stream(**OPTIONS)
    stream.step(seen(0))
    for place in ((0, 0, 0, 0, 0), (3, 3, 2, 47, 79), (1, 2, 1, 20, 33)):
        frames = seen(0).frames
        frames[place] ^= 1
        changed = replace(seen(0), frames=frames)
        assert equal(stream.step(changed), planner.plan(changed, **OPTIONS))
        assert stream.reused == Reused(15)
        stream.step(seen(0))


def test_a_buffer_that_is_written_again_is_read_again(planner):
    stream, observation = planner.stream(**OPTIONS), seen(0)
    stream.step(observation)
    observation.frames.copy_(seen(7).frames)
    assert equal(stream.step(observation), planner.plan(seen(7), **OPTIONS))


def test_options_of_one_step_and_other_plans_between(planner):
    stream = planner.stream(**OPTIONS)
    stream.step(seen(0))
    planner.plan(seen(5), seed=1, samples=3, max_tokens=9, steps=1)
    changes = {"samples": 3, "temperature": 1.3, "seed": 7}
    assert equal(stream.step(seen(1), **changes), planner.plan(seen(1), **(OPTIONS | changes))) and stream.seed == 7
    assert equal(stream.step(seen(2)), planner.plan(seen(2), **OPTIONS))


def test_fresh_draws_are_those_of_the_seeds_that_follow(planner):
    stream = planner.stream(**OPTIONS, draws="fresh")
    for n in range(3):
        got = stream.step(seen(n))
        assert stream.seed == 42 + n and equal(got, planner.plan(seen(n), **(OPTIONS | {"seed": 42 + n})))
    with pytest.raises(ValueError, match="draws is 'new', expected 'kept'"):
        planner.stream(draws="new")


def test_the_streams_own_request_is_made_once(planner, monkeypatch):
    stream, made = planner.stream(**OPTIONS), []
    monkeypatch.setattr(module, "prepare", lambda *how: made.append(how) or prepare(*how))
    for n in range(3):
        stream.step(seen(n))
    assert len(made) == 1
    stream.step(seen(3), samples=1)
    assert len(made) == 2


def test_a_stream_without_a_seed_keeps_the_one_it_took(planner):
    stream = planner.stream(**(OPTIONS | {"seed": None}))
    first = stream.step(seen(0))
    assert stream.step(seen(0)).tokens == first.tokens and planner.stream(**(OPTIONS | {"seed": None})).seed != stream.seed
    assert equal(first, planner.plan(seen(0), **(OPTIONS | {"seed": stream.seed})))


@pytest.mark.slow
def test_memory_is_flat(engine):
    stream = engine.stream(**(OPTIONS | {"max_tokens": 1, "steps": 1, "samples": 1}))
    held = []
    for moment in range(40):
        stream.step(seen(moment, stale=moment % 9 if moment % 9 < 4 else None))
        stream.read_ahead()
        held.append(len(stream._album))
    assert max(map(len, stream._window._times.values())) == Window.KEPT
    assert max(held) <= 24 and len(set(held[8:])) == 1


def test_nothing_half_done_is_kept_after_an_error(planner, monkeypatch):
    stream = planner.stream(**OPTIONS)
    stream.step(seen(0))
    with pytest.raises(ValueError, match="history"):
        stream.step(replace(seen(1), history=replace(seen(1).history, xyz=seen(1).history.xyz + 9)))
    assert equal(stream.step(seen(2)), planner.plan(seen(2), **OPTIONS)) and stream.reused.pictures == 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp8", "w8", "w4"])
def test_weights_of_few_bits_stream_too(precision, tmp_path):
    planner = load(tiny_checkpoint(tmp_path / "tiny"), fast=True, device="cpu", precision=precision)
    stream = planner.stream(**OPTIONS)
    for observation in (seen(0), seen(1, stale=1), seen(2)):
        assert equal(stream.step(observation), planner.plan(observation, **OPTIONS))
        stream.read_ahead()


# ----------------------------------------------------------------------------------------------------------------- the newest alone


def newest(moment, size=(48, 80), without=()):
    return {name: picture(i, moment, size) for i, name in enumerate(CAMERAS) if name not in without}


def arrive(stream, moment, **changes):
    return stream.step(newest(moment, **changes), seen(0).history, np.int64(T0_US + 100_000 * moment))


def noted(plan, code):
    """What a plan's note of a code says."""
    (text,) = (note.text for note in plan.notes if note.code == code)
    return text


def test_the_newest_pictures_are_enough(planner):
    stream = planner.stream(**OPTIONS)
    first = arrive(stream, 0)
    assert "(3 of 4)" in noted(first, "stream-gap")
    for moment in range(1, 5):
        got = arrive(stream, moment)
        if moment >= 3:
            assert torch.equal(stream.observation.frames, seen(moment).frames)
            assert equal(got, planner.plan(seen(moment), **OPTIONS))
            assert stream.reused.pictures == 12
        stream.read_ahead()


def test_the_newest_pictures_follow_whole_observations(planner):
    stream = planner.stream(**OPTIONS)
    stream.step(seen(2))
    got = arrive(stream, 3)
    assert equal(got, planner.plan(seen(3), **OPTIONS)) and stream.reused.pictures == 12
    assert equal(stream.step(seen(4)), planner.plan(seen(4), **OPTIONS))


def test_the_newest_pictures_may_come_late_twice_or_not(planner):
    stream = planner.stream(**OPTIONS)
    for moment in (0, 1, 2, 3, 3, 5, 4, 6, 7):
        got = arrive(stream, moment)
        again = planner.plan(stream.observation, **OPTIONS)
        assert got.tokens == again.tokens and torch.equal(got.xyz, again.xyz), moment
    assert torch.equal(stream.observation.frames, seen(7).frames) and equal(got, planner.plan(seen(7), **OPTIONS))


def test_a_camera_that_brings_nothing_shows_its_newest(planner):
    stream = planner.stream(**OPTIONS)
    for moment in range(4):
        arrive(stream, moment)
    got = arrive(stream, 4, without=CAMERAS[:1])
    assert torch.equal(stream.observation.frames[0, 3], picture(0, 3)) and torch.equal(stream.observation.frames[1], seen(4).frames[1])
    assert f"{CAMERAS[0]} (1 of 4)" in noted(got, "stream-gap")
    for moment in range(5, 12):
        got = arrive(stream, moment, without=CAMERAS[:1])
    assert stream.observation.cameras == CAMERAS[1:], "a camera that is silent for longer is gone"


def test_another_clip_or_size_begins_anew(planner):
    stream = planner.stream(**OPTIONS)
    for moment in (0, 1, 2, 3, 500):
        arrive(stream, moment)
    assert torch.equal(stream.observation.frames, torch.stack([picture(i, 500)[None].expand(4, -1, -1, -1) for i in range(4)]))
    arrive(stream, 501, size=(64, 64))
    assert stream.observation.frames.shape[-2:] == (64, 64)


@pytest.mark.parametrize(
    "given,error,words",
    [
        (({},), TypeError, "history and t0_us"),
        ((newest(0), seen(0).history, 5.1), TypeError, "microseconds as an integer"),
        (({}, seen(0).history, 1), ValueError, "no pictures"),
        (({CAMERAS[0]: picture(0, 0), CAMERAS[1]: picture(1, 0, (8, 8))}, seen(0).history, 1), ValueError, "2 sizes"),
        (({CAMERAS[0]: torch.zeros(3, 4, 4)}, seen(0).history, 1), TypeError, "an image is Tensor"),
        (([picture(0, 0)], seen(0).history, 1), TypeError, "expected an Observation, or the newest pictures"),
        ((newest(0), None, 1), TypeError, "step(pictures, history, t0_us)"),
        ((newest(0), "history", 1), TypeError, "history is of type str"),
    ],
)
def test_odd_steps_are_refused(planner, given, error, words):
    stream = planner.stream(**OPTIONS)
    with pytest.raises(error) as caught:
        stream.step(*given)
    assert words in str(caught.value)
    assert equal(stream.step(seen(0)), planner.plan(seen(0), **OPTIONS))


# ------------------------------------------------------------------------------------------------------------- broken on purpose


def by_place(monkeypatch):
    """Pictures known by where they stand."""
    monkeypatch.setattr("alpamayo_r1.stream.album.same", lambda one, other: True)
    monkeypatch.setattr("alpamayo_r1.stream.album.keys_of", lambda frames: list(range(len(frames))))


def some_pixels(monkeypatch):
    """Pictures known by the pixels that they are looked up by."""
    monkeypatch.setattr("alpamayo_r1.stream.album.same", lambda one, other: True)


def other_draws(monkeypatch):
    """A uniform number too far."""
    request = module.Stream._request

    def late(stream, options):
        how = request(stream, options)
        return replace(how, draws=replace(how.draws, uniform=how.draws.uniform.roll(1, 1)))

    monkeypatch.setattr(module.Stream, "_request", late)


def wrong_slot(monkeypatch):
    """The pictures of this step read ahead where those of the next belong."""
    ahead = module.Stream.read_ahead

    def slip(stream):
        if stream._coming is not None:
            stream._coming = replace(stream._coming, pictures=stream._step.pictures[:3])
        return ahead(stream)

    monkeypatch.setattr(module.Stream, "read_ahead", slip)


def never_checked(monkeypatch):
    """What was read ahead taken without a look at whether it fits."""
    monkeypatch.setattr(module.ReadAhead, "fits", lambda *anything: True)


@pytest.mark.parametrize("broken", [by_place, some_pixels, other_draws, wrong_slot, never_checked], ids=lambda one: one.__name__)
def test_what_is_broken_on_purpose_is_seen(engine, monkeypatch, broken):
    nearly = seen(2).frames
    nearly[2, 1, 0, 0, 0] ^= 1
    drive = [seen(0), seen(1), seen(2), replace(seen(2), frames=nearly), seen(5)]
    wanted = [engine.plan(observation, **OPTIONS) for observation in drive]
    broken(monkeypatch)
    stream, right = engine.stream(**OPTIONS), []
    for observation, want in zip(drive, wanted, strict=True):
        right.append(equal(stream.step(observation), want))
        stream.read_ahead()
    assert not all(right)


# ------------------------------------------------------------------------------------------------------------------------- parts


def test_pictures_are_compared_byte_by_byte_whatever_their_layout():
    one = picture(0, 0, (5, 7))  # 105 bytes: not whole words
    assert same(one, one.clone()) and not same(one, one + 1)
    turned = one.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not turned.is_contiguous() and same(one, turned)
    album = Album()
    assert album.find([one, one.clone(), turned, picture(0, 1, (5, 7))]) == [0, 0, 0, 1]
    album.keep(1)
    album.settle()
    assert album.find([one]) == [2] and len(album) == 2, "0 was found longest ago"


def test_a_window_takes_the_nearest_in_time():
    window = Window()
    for t in (0, 100_000, 205_000, 300_000):
        window.put(t, {CAMERAS[0]: t})
    assert window.choose(300_000, CAMERAS, lambda n: True).numbers == (0, 100_000, 205_000, 300_000)
    assert window.choose(300_000, CAMERAS, lambda n: n != 205_000).notes[0].code == "stream-gap"
    assert window.choose(900_000, CAMERAS, lambda n: True).cameras == ()
