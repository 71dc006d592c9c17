"""Evaluations of clips that are told where to go."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate import EvalConfig, evaluate
from alpamayo_r1.evaluate.navigation import read_navigation
from alpamayo_r1.evaluate.protocol import identity, work
from alpamayo_r1.planner import load
from conftest import GOLDEN

pytestmark = pytest.mark.slow

FIFTEEN = GOLDEN.parent / "golden15" / "checkpoint"
FIRST, SECOND = "026c0758-997d-5302-aae8-acdbe10b7fad", "1fd81438-8390-517c-aac7-d2aa9a654162"


def test_texts_and_the_releases_json_are_read(tmp_path):
    text, released = tmp_path / "nav.txt", tmp_path / "nav.json"
    text.write_text(f"\ufeff# told\n{FIRST} Turn left in 30m\n{SECOND},Turn right, then stop\n", encoding="utf-8")
    assert read_navigation(text) == {FIRST: "Turn left in 30m", SECOND: "Turn right, then stop"}
    released.write_text(json.dumps([{"clip_id": FIRST, "t0_relative": 4_000_000, "nav_text": "Turn left in 30m", "cot": ""}]))
    assert read_navigation(released) == {FIRST: "Turn left in 30m"}


@pytest.mark.parametrize(
    "content,words",
    [
        ("", "holds no navigation"),
        (f"{FIRST}\n", "expected a text"),
        ("../up Turn left\n", "line 1"),
        (f"{FIRST} Turn left\n{FIRST} Turn right\n", "two texts"),
        (b"\xff\xfe", "can't be read"),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "nav.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words):
        read_navigation(tmp_path / "nav.txt")
    with pytest.raises(ValueError, match="no file"):
        read_navigation(tmp_path / "none.txt")
    (tmp_path / "nav.json").write_text('{"clip_id": 1}')
    with pytest.raises(ValueError, match=r"nav\.json"):
        read_navigation(tmp_path / "nav.json")


@pytest.mark.filterwarnings("ignore")
def test_rows_are_planned_as_told(tmp_path):
    (tmp_path / "nav.txt").write_text(f"{FIRST} Turn left in 30m\n")
    config = EvalConfig(
        str(FIFTEEN), plan=PlanOptions(seed=42, max_tokens=3, steps=2), navigation=str(tmp_path / "nav.txt"), guidance=1.5, threads=1
    )
    list(evaluate(config, tmp_path / "out"))
    (row,) = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert row["navigation"] == "Turn left in 30m" and row["error"] is None
    with open_source("sample") as source, source.fresh(FIRST) as clip:
        sample = clip.sample(row["t0_us"])
        asked = {"seed": 42, "max_tokens": 3, "steps": 2}
        wanted = load(FIFTEEN).plan(sample.observation, navigation="Turn left in 30m", guidance=1.5, **asked)
        assert row["pred_xyz"] == pytest.approx(wanted.xyz.flatten().tolist(), abs=1e-3)
        items = work(config, source)
        plain = [type(item)(item.index, item.clip_id, item.t0_us) for item in items]
    assert identity(config, items, "")["clips"] != identity(config, plain, "")["clips"]


def test_a_model_without_navigation_refuses_it_before_any_row(tmp_path):
    (tmp_path / "nav.txt").write_text(f"{FIRST} Turn left in 30m\n")
    asked = ["eval", "--checkpoint", str(GOLDEN / "checkpoint"), "--out", str(tmp_path / "out"), "--navigation", str(tmp_path / "nav.txt")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 2 and "trained without navigation" in " ".join(done.output.split()), done.output
    with pytest.raises(ValueError, match="no navigation for it"):
        EvalConfig(guidance=2.0)
