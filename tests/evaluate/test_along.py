"""An evaluation of many moments of a clip goes along a stream, and its rows are those of fresh plans."""

from __future__ import annotations

import pytest

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.protocol import EvalConfig, Item
from alpamayo_r1.evaluate.worker import Worker, load_worker, read_item, threads
from alpamayo_r1.planner import load
from alpamayo_r1.stream import Stream
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN

pytestmark = pytest.mark.slow

TIMES = ("load_ms", "plan_ms", "timing_ms")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two clips that can be planned from 5.05 to 5.35 s."""
    out = tmp_path_factory.mktemp("along") / "clips"
    with threads(1):
        write_clips([810_010, 810_011], out, width=64, height=36, seconds=0.6, t_start=4.75, supersample=1, threads=1)
    with open_source(out) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("fast", [False, True], ids=["specification", "engine"])
def test_rows_along_a_clip_are_those_of_fresh_plans(source, fast, monkeypatch):
    planner, options = load(GOLDEN / "checkpoint", fast=fast, device="cpu"), PlanOptions(samples=2, seed=42, max_tokens=4, steps=2)
    one, other = source.clip_ids
    moments = [(one, 5_100_000), (one, 5_200_000), (one, 9_900_000), (one, 5_300_000), (other, 5_100_000), (one, 5_200_000)]
    items = [Item(i, clip, t0) for i, (clip, t0) in enumerate(moments)]
    reused, step = [], Stream.step
    monkeypatch.setattr(Stream, "step", lambda stream, seen: (step(stream, seen), reused.append(stream.reused.pictures))[0])
    fresh, along = [], []
    for worker, rows in ((Worker(planner, options), fresh), (Worker(planner, options, along=True), along)):
        rows += [worker.row(item, read_item(source, item)) for item in items]
    assert reused == [0, 12, 12, 0, 0], "an error of reading is no step; another clip is another stream"
    for pair in zip(fresh, along, strict=True):
        want, got = ({name: value for name, value in row.items() if name not in TIMES} for row in pair)
        assert got == want
    assert [row.get("error") is not None for row in fresh] == [False, False, True, False, False, False]


def test_a_grid_goes_along_its_clips(monkeypatch, tmp_path):
    monkeypatch.setattr("alpamayo_r1.evaluate.worker.load", lambda *anything, **options: None)
    times = tmp_path / "t0.txt"
    times.write_text("")
    assert [load_worker(EvalConfig(t0=t0)).along for t0 in ("5.1", "grid", str(times))] == [False, True, True]
