"""`alpamayo-r1 bench --stream`: what it replays is accepted as often as it says, and its table is whole."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alpamayo_r1.bench import stream as bench
from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.config import read_config
from conftest import GOLDEN

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


def test_drafts_are_right_as_often_as_asked():
    ids = list(range(100, 140, 2))
    for share in (0.0, 0.5, 1.0):
        table = bench.Replay(ids, share)
        right = [table.guess(ids[:n], 0.5) == ids[n] for _ in range(50) for n in range(len(ids))]
        assert abs(sum(right) / len(right) - share) < 0.05
    assert table.guess(ids, 0.5) is None


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_the_bench_counts_passes_and_reuse(monkeypatch, device):
    monkeypatch.setattr(bench, "WARMUP", 5)
    monkeypatch.setattr(bench, "size_config", lambda size: read_config(GOLDEN / "checkpoint"))
    lines = []
    report = bench.bench_stream("small", (1,), 3, (0.0, 1.0), repeats=2, device=device, pictures=(36, 64), say=lines.append)
    none, every = report["runs"]
    assert (none["passes_mean"], every["passes_mean"]) == (3, 1) and none["reused"]["pictures"] == every["reused"]["pictures"] == 12
    assert none["reused"]["tokens"] > 0 and none["latency_ms"] > 0 and none["period_ms"] > 0
    assert json.loads(lines[-1]) == report and [row["passes"] for row in report["by_passes"]] == [1, 3]


@pytest.mark.parametrize(
    "given,words",
    [
        (["--acceptance", "0.5,x"], "expected shares between 0 and 1"),
        (["--acceptance", "1.5"], "expected shares between 0 and 1"),
        (["--batch", "2"], "leave --batch, --no-fast"),
        (["--no-fast"], "leave --batch, --no-fast"),
        (["--size", "11b"], "size is '11b'"),
        (["--device", "cuda:3,cuda:3"], "device is 'cuda:3"),
        (["--device", "cpu,cuda:0"], "device is"),
    ],
)
def test_odd_requests_are_refused(given, words):
    result = CliRunner().invoke(app, ["bench", "--stream", *given])
    assert result.exit_code in (1, 2)
    assert words in (str(result.exception) if result.exception else "") + result.output
