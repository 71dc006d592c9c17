"""The command line: what it says where something is wrong, and one clip's trouble."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--checkpoint", "no/such/place here"], "neither a folder"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
        (["--clip", "not-a-clip"], "not-a-clip"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "gpu"], "expected 'auto'"),
        (["--out", __file__], "choose another folder"),
        (["--t0", "0.2"], "0.2"),
        (["--top-p", "1.5"], "--top-p"),
    ],
)
def test_bad_arguments_are_said(tmp_path, arguments, words):
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["run", *out, *arguments])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.exception
    assert words in done.stderr and "Traceback" not in done.output


@pytest.mark.slow
def test_a_process_says_what_is_wrong_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "alpamayo_r1.cli.__main__", "run", "--out", str(tmp_path / "out"), "--data", "/no/such/folder"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "/no/such/folder" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command,words",
    [
        ("eval --out {file}", "choose another folder"),
        ("eval --out {out} --workers 2", "--ray local"),
        ("eval --out {out} --temperature -1", "'-1' was given, expected a number from 0 to 1000"),
        ("compare a b", "a holds no evaluation"),
        ("compare {folder} {folder} --out {folder}", "is a folder"),
        ("train --out {out} --preset foo", "expected one of small, tiny"),
        ("world --out {out} --width 101 --height 57 --clips 1", "even numbers"),
        ("bench --size small --samples 1,x", "whole numbers"),
        ("film clip --out {folder}", "is a folder"),
        ("run --out {out} --t0 nan", "'nan' was given, expected a number from -9e+09 to 9e+09"),
        ("run --out {out} --device meta", "expected 'auto'"),
        ("run --out {out} --top-k nan --top-k 5", "'--top-k' was given twice"),
        ("eval --out {out} --report --no-report", "'--no-report' was given twice"),
        ("run --out={out} --seed 1 --out {out}", "'--out' was given twice"),
    ],
)
def test_every_verb_says_what_is_wrong(tmp_path, command, words):
    (tmp_path / "file").touch()
    places = {"file": tmp_path / "file", "folder": tmp_path, "out": tmp_path / "out"}
    done = CliRunner().invoke(app, [part.format(**places) for part in command.split()])
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), done.output
    assert words in " ".join(done.output.split())


def test_a_model_that_does_not_fit_is_refused_before_it_is_built(monkeypatch):
    from alpamayo_r1 import bench

    monkeypatch.setattr(bench, "free_memory", lambda: 1e9)
    monkeypatch.setattr(bench, "random_model", None)
    with pytest.raises(ValueError, match=r"take 44\.3 GB in float32, 1\.0 GB are free on cpu: give --size small"):
        bench.bench("10b", device="cpu", say=lambda line: None)


def test_words_are_shown_as_they_are():
    from rich.console import Console

    from alpamayo_r1.cli.run import show
    from alpamayo_r1.predict.run import Done

    record = {
        "clip_id": "[b]clip",
        "reasoning": ["another sample's", "Stop [red light] ahead [/x]"],
        "chosen": {"sample": 1, "by": "truth"},
        "min_ade": None,
        "baselines": {},
        "timing_ms": {},
    }
    console = Console(record=True, width=120)
    show(console, [Done(record, (), 0.0, 0.0)], "clips of [/here]")
    shown = console.export_text()
    assert "another" not in shown, "the words of the sample whose error is shown"
    assert "Stop [red light] ahead [/x]" in shown and "[b]clip" in shown and "[/here]" in shown


@pytest.mark.slow
def test_a_broken_clip_is_passed_over(tmp_path):
    import alpamayo_r1
    from alpamayo_r1.core.options import PlanOptions
    from alpamayo_r1.data.errors import BadVideo
    from alpamayo_r1.predict.run import Done, Failed, run

    source = alpamayo_r1.open_source("sample")
    broken, whole = source.clip_ids[:2]

    class Half:
        def clip(self, clip_id):
            if clip_id == broken:
                raise BadVideo(given="a truncated video", expected="151 frames", do="fetch it again")
            return source.clip(clip_id)

    outcomes = list(run(alpamayo_r1.load("small"), Half(), [broken, whole], tmp_path, PlanOptions(seed=42)))
    assert [type(one) for one in outcomes] == [Failed, Done]
    assert outcomes[0].clip_id == broken and "truncated" in str(outcomes[0].error)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{whole}.json", f"{whole}.png"]
    record = json.loads((tmp_path / f"{whole}.json").read_text())
    wanted = "clip_id t0_us seed reasoning pred_xyz pred_rot gt_xyz min_ade ade_by_horizon baselines timing_ms".split()
    assert set(wanted) <= set(record) and len(record["pred_xyz"]) == 1 and len(record["pred_xyz"][0]) == len(record["gt_xyz"]) == 64
    options = PlanOptions(seed=42, reasoning="Keep the lane", steps=2)
    list(run(alpamayo_r1.load("small"), source, [whole], tmp_path, options, t0_us=6_500_000, about={"checkpoint": "small"}))
    later = json.loads((tmp_path / f"{whole}_6.5s.json").read_text())
    asked = {"samples": 1, "reasoning": "Keep the lane", "temperature": 0.6, "top_p": 0.98, "max_tokens": 256, "steps": 2}
    assert later["request"] == {"checkpoint": "small", **asked} and later["ended"] == [True]
    assert record["t0_us"] == 5_100_000 and (tmp_path / f"{whole}.json").exists(), "the first is still there"


@pytest.mark.parametrize("word", ["d\udcc3\udca4t\udcc3", "\udcff"])
def test_a_word_that_is_no_text_is_told_before_anything_is_read(word):
    result = CliRunner().invoke(app, ["run", "--data", word, "--out", "out"])
    assert result.exit_code == 2 and "is no text in" in result.output and "PYTHONUTF8=1" in result.output
