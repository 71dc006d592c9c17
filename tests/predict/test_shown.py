"""What shows itself: plans and samples in a notebook, the tour, and a recording for Rerun."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import Plan
from alpamayo_r1.data.source import open_source
from alpamayo_r1.testing import tiny_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def plan(samples: int = 2) -> Plan:
    xyz = torch.zeros(samples, 64, 3)
    xyz[..., 0] = torch.arange(1.0, 65.0)
    return Plan(
        xyz, torch.eye(3).expand(samples, 64, 3, 3), ("Go on", "<b>Stop</b>")[:samples], torch.zeros(samples, 64, 2), (True,) * samples, {}
    )


def test_a_plan_shows_its_words_and_paths_in_a_notebook():
    shown = replace(plan(), notes=(Note("code", "a & b"),))._repr_html_()
    assert shown.count("<polyline") == 2 and "<li>Go on</li>" in shown and "&lt;b&gt;Stop" in shown and "a &amp; b" in shown
    heights = [float(point.split(",")[1]) for point in re.search(r"points='([^']+)'", shown).group(1).split()]
    assert heights == sorted(heights, reverse=True) and 0 <= min(heights) < max(heights) <= 380, "forward is up, all in the drawing"


def test_a_plan_of_no_numbers_shows_its_words():
    broken = plan(1)
    broken.xyz[:] = torch.nan
    assert "Go on" in broken._repr_html_()


def test_a_sample_shows_its_pictures_history_and_future():
    with open_source("sample") as source:
        sample = source.clip(source.clip_ids[0]).sample()
    shown = sample._repr_html_()
    assert shown.count("<img ") == 4 and shown.count("<polyline") == 2 and len(shown) < 400_000
    assert replace(sample, future=None)._repr_html_().count("<polyline") == 1


@pytest.mark.slow
def test_the_tour_runs(tmp_path, monkeypatch):
    """Each cell as IPython runs it, in this process: what it shows is its last value."""
    shells = pytest.importorskip("IPython.core.interactiveshell")
    notebook = pytest.importorskip("nbformat").read(ROOT / "notebooks" / "tour.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == 10 and all(not cell.outputs for cell in code)
    monkeypatch.chdir(tmp_path)
    shell = shells.InteractiveShell()
    done = [shell.run_cell(cell.source) for cell in code]
    assert all(one.success for one in done)
    assert sum("text/html" in shell.display_formatter.format(one.result)[0] for one in done if one.result is not None) >= 3


@pytest.fixture
def tiny(tmp_path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


def test_a_run_writes_a_recording_for_rerun(tiny, tmp_path):
    pytest.importorskip("rerun", reason="needs the extra rerun")
    options = ["--checkpoint", str(tiny), "--samples", "2", "--max-tokens", "4", "--steps", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, ["run", "--clip", "026c", "--out", str(tmp_path / "out"), "--rerun", str(tmp_path / "a.rrd"), *options])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(
        app,
        ["film", "026c", "--out", str(tmp_path / "a.mp4"), "--start", "5", "--end", "5.1", "--rerun", str(tmp_path / "b.rrd"), *options],
    )
    assert done.exit_code == 0, done.output
    for name, moments in (("a.rrd", 1), ("b.rrd", 2)):
        rows = rows_of(tmp_path / name)
        assert {"/car/plan/0", "/car/plan/1", "/car/driven", "/car/history", "/words", "/car/camera_front_wide_120fov"} <= set(rows)
        assert rows["/car/plan/0"] == moments and rows["/words"] >= 2 * moments


def rows_of(file: Path) -> Counter[str]:
    """Entity path -> rows that a recording holds of it, as Rerun's own tool prints them."""
    printed = subprocess.run([sys.executable, "-m", "rerun", "rrd", "print", str(file)], capture_output=True, text=True, check=True).stdout
    found: Counter[str] = Counter()
    for rows, path in re.findall(r"with (\d+) rows.* - (/\S+)", printed):
        found[path] += int(rows)
    return found


def test_a_recording_needs_its_ending(tiny, tmp_path):
    done = CliRunner().invoke(
        app, ["run", "--clip", "026c", "--out", str(tmp_path), "--checkpoint", str(tiny), "--rerun", str(tmp_path / "a.txt")]
    )
    assert done.exit_code == 2 and "expected a name that ends in .rrd" in done.output
