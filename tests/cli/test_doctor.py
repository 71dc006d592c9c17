"""`alpamayo-r1 doctor`: what it finds, and that it notices when a plan comes out otherwise."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alpamayo_r1.cli import findings
from alpamayo_r1.cli.__main__ import app

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_the_doctor_finds_this_machine_well_and_the_plan_as_recorded():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    found = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert done.exit_code == 0, done.stdout
    assert {"Python", "torch", "video", "memory", "disk", "cache", "login", "bundled plan"} <= set(found)
    assert "Nudge to the left" in found["bundled plan"]["seen"] and found["bundled plan"]["state"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize(
    "key,value,words", [("reasoning", "Fly", "recorded were the words 'Fly'"), ("waypoints", {"9": [8.01, 0, 0]}, "0.001 m")]
)
def test_another_answer_than_the_recorded_one_is_broken(key, value, words, monkeypatch):
    answer = findings.recorded() | {key: value}
    monkeypatch.setattr(findings, "recorded", lambda: answer)
    finding = findings.bundled_plan()
    assert finding.state == "broken" and words in finding.do


def test_a_checkpoint_that_is_not_here_is_broken_and_the_exit_code_says_so(monkeypatch):
    monkeypatch.setattr(findings, "bundled_plan", lambda: findings.Finding("bundled plan", "ok", "as recorded"))
    done = CliRunner().invoke(app, ["doctor", "--checkpoint", "nobody/nothing"])
    assert done.exit_code == 1 and "broken" in done.stdout and "hf download nobody/nothing" in done.stdout


def test_what_fits_of_the_ten_billion_weights_is_said_for_each_card():
    said = findings.which_cards()
    assert "8 GiB: tight with 2 samples, 12 GiB: w4 with" in said and "16 GiB: fp8" in said and "24 GiB: bf16" in said
    assert findings.room(6e9) == "the 10B does not fit (the small model does)"
    assert findings.room(14.5e9).startswith("the 10B fits in fp8 with 32 samples, w8 with 32 samples, w4 with")
    assert "bf16 with 64 samples" in findings.room(80e9)
    first = next(findings.all_findings(findings.Asked(device="cpu", memory=12)))
    assert first.what == "a card of 12 GiB" and first.seen.startswith("the 10B fits in w4 with 32 samples")


@pytest.mark.slow
def test_the_smoke_clip_is_shown_with_its_published_sentence(tmp_path, monkeypatch):
    """A data set that has a clip of that id, and the small model in the released one's place."""
    import shutil

    from alpamayo_r1.core.hub import SMALL

    checkpoint = shutil.copytree(SMALL, tmp_path / "checkpoint")
    first = findings.recorded()["clip_id"]
    monkeypatch.setattr(findings, "SMOKE_CLIP", first)
    finding = findings.asked_plan(findings.Asked(str(checkpoint), device="cpu"))
    assert finding.state == "ok" and f"published: '{findings.SMOKE_WORDS}'" in finding.seen
