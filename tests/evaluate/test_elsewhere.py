"""Evaluations on other systems, by what they lack: file locks of Unix and Windows, modes, folders that open, a locale that knows UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.worker import threads
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN

SAID = "Weiter, denn Fußgänger warten – 雪"

HEAD = f"""
import dataclasses, sys
import alpamayo_r1.evaluate.report as report
import alpamayo_r1.evaluate.worker as worker
from alpamayo_r1.cli.__main__ import app

plain = worker.score
worker.score = lambda sample, plan: plain(sample, dataclasses.replace(plan, reasoning=({SAID!a},) * len(plan.reasoning)))
report.EACH = 1
"""
"""The command line, with a model that says SAID, and reports that show few clips."""

WITHOUT = {
    "locks, modes and folders that open": """
sys.modules["fcntl"] = sys.modules["msvcrt"] = None
import os
del os.fchmod
opened = os.open
def refuse(path, flags, *rest, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "a folder", str(path))
    return opened(path, flags, *rest, **named)
os.open = refuse
""",
    "a locale": "",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Two small clips whose names are not ASCII."""
    out = tmp_path_factory.mktemp("clips") / "street"
    with threads(1), pytest.MonkeyPatch.context() as patch:
        patch.setattr("alpamayo_r1.world.clips.clip_id", lambda seed: f"Fußweg-雪-{seed}")
        write_clips(range(810_000, 810_002), out, width=64, height=64, seconds=0.5, t_start=4.75, supersample=1, threads=1)
    return out


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> Path:
    """What this system writes."""
    return run(clips, tmp_path_factory.mktemp("whole"), "")


def run(clips: Path, folder: Path, without: str, **environment: str) -> Path:
    """An evaluation from the command line, of a list that is not ASCII, in a process that lacks something; its folder."""
    with open_source(clips) as source:
        lines = ["# Überquert", *source.clip_ids]
    (folder / "Liste-ü.txt").write_text("\n".join(lines), encoding="utf-8")
    options = ["--samples", "2", "--max-tokens", "4", "--steps", "2", "--threads", "1", "--device", "cpu"]
    where = ["--checkpoint", str(GOLDEN / "checkpoint"), "--data", str(clips), "--clips", "Liste-ü.txt", "--out", "Läufe"]
    code = f"import sys\n{without}\n{HEAD}\napp()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "eval", *where, *options],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        timeout=120,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr).decode(errors="replace")
    return folder / "Läufe"


@pytest.mark.slow
@pytest.mark.parametrize("lacking", WITHOUT)
def test_an_evaluation_is_the_same_without(lacking, clips, whole, tmp_path):
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0"} if lacking == "a locale" else {}
    out = run(clips, tmp_path, WITHOUT[lacking], **environment)
    for name in ("results.parquet", "work.parquet", "inputs.json", "config.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    rows = pq.read_table(out / "results.parquet").to_pylist()
    assert [row["clip_id"] for row in rows] == ["Fußweg-雪-810000", "Fußweg-雪-810001"] and rows[0]["reasoning"] == [SAID, SAID]
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["config"]["clips"] == "Liste-ü.txt"
    assert SAID in (out / "report.html").read_text(encoding="utf-8")
