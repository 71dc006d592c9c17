"""The film: as long as its t0 range, in H.264, and its pictures change with t0."""

import warnings
from itertools import pairwise
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.worker import threads
from alpamayo_r1.planner import load
from alpamayo_r1.predict.film import SIZE, film
from alpamayo_r1.predict.record import result
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One clip that can be planned from 5.05 to 5.45 s."""
    out = tmp_path_factory.mktemp("film") / "clips"
    with threads(1):
        write_clips([810_010], out, width=128, height=72, seconds=0.7, t_start=4.75, supersample=1, threads=1)
    with open_source(out) as opened:
        yield opened


@pytest.fixture(scope="module")
def planner():
    with threads(1):
        yield load(GOLDEN / "checkpoint")


OPTIONS = PlanOptions(samples=2, seed=42, max_tokens=4, steps=2)


@pytest.fixture(scope="module")
def filmed(source, planner, tmp_path_factory):
    """A film of 5.1 to 5.3 s: its file, its pictures, and the samples and plans that they show."""
    (clip,), shown, file = source.clip_ids, [], tmp_path_factory.mktemp("filmed") / "film.mp4"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(action="ignore"):
        patch.setattr(
            "alpamayo_r1.predict.film.result", lambda sample, plan, seed: shown.append((sample, plan)) or result(sample, plan, seed)
        )
        pictures = list(film(source, clip, planner, file, OPTIONS, start=5.1, end=5.3, step=0.1))
    return file, pictures, shown


@pytest.mark.slow
def test_a_film_rolls_through_the_clip(filmed):
    file, pictures, _ = filmed
    assert len(pictures) == 3 and all(p.shape == (SIZE[1], SIZE[0], 3) and p.dtype == np.uint8 for p in pictures)
    with av.open(str(file)) as container:
        (stream,) = container.streams.video
        assert stream.codec_context.name == "h264" and stream.average_rate == 10
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(shown) == 3 and abs(float(shown[2].mean()) - float(pictures[2].mean())) < 2
    assert all(np.abs(a.astype(int) - b).mean() > 0.1 for a, b in pairwise(pictures))
    assert all(np.abs(a.astype(int) - b).mean() < np.abs(a.astype(int) - c).mean() for a, b, c in zip(pictures, shown, shown[1:]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*ended without")
def test_a_film_that_fails_leaves_the_one_before(source, planner, tmp_path):
    def plan(observation):
        if observation.t0_us > 5_150_000:
            raise RuntimeError("out of luck")
        return planner.plan(observation, OPTIONS)

    before = tmp_path / "film.mp4"
    before.write_bytes(b"the film before")
    with pytest.raises(RuntimeError, match="out of luck"):
        list(film(source, source.clip_ids[0], SimpleNamespace(stepper=lambda options: plan), before, OPTIONS, start=5.1, end=5.3))
    assert before.read_bytes() == b"the film before" and list(tmp_path.iterdir()) == [before]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*ended without")
def test_a_films_plans_are_those_of_its_moments(planner, filmed):
    *_, shown = filmed
    assert len(shown) == 3
    for sample, plan in shown:
        fresh = planner.plan(sample.observation, OPTIONS)
        assert plan.tokens == fresh.tokens and torch.equal(plan.xyz, fresh.xyz)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*ended without")
def test_ranges(source, planner, tmp_path):
    (clip,) = source.clip_ids
    low, high = (t / 1e6 for t in source.clip(clip).valid_t0(need_future=False))
    whole = sum(1 for _ in film(source, clip, planner, tmp_path / "film.mp4", OPTIONS, step=0.25))
    assert whole == int((high - low) / 0.25 + 1e-9) + 1 == 2
    with pytest.raises(ValueError, match=r"start at 5.2 s and end at 5 s"):
        list(film(source, clip, planner, tmp_path / "film.mp4", OPTIONS, start=5.2, end=5.0))
    for start, end in ((1.0, 1.0), (5.1, 99.0)):
        with pytest.raises(ValueError, match=f"clip {clip} allows {low:g} s to {high:g} s"):
            next(film(source, clip, None, tmp_path / "film.mp4", OPTIONS, start=start, end=end))
    with pytest.raises(ValueError, match=r"ends in \.mp4"):
        next(film(source, clip, None, tmp_path / "film.webm", OPTIONS))
