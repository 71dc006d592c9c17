"""`alpamayo-r1 ask`, and plans with navigation, on the recorded tiny checkpoint of Alpamayo 1.5."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from support.golden15 import GOLDEN15

CLIP, TINY = "de5c9638", str(GOLDEN15 / "checkpoint")


def invoke(*words: str):
    """The outcome of a command line."""
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_questions_are_answered():
    done = invoke("ask", CLIP, "Describe the scene.", "Is it safe?", "--checkpoint", TINY, "--max-tokens", "4", "--samples", "2")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("(cut off)") == 4 and "Is it safe?" in done.stdout and "answer-unfinished" in done.stderr


@pytest.mark.slow
def test_answers_as_json_of_one_camera():
    done = invoke("ask", CLIP, "Why?", "--checkpoint", TINY, "--max-tokens", "3", "--camera", "camera_front_wide_120fov", "--json")
    (one,) = json.loads(done.stdout)
    assert one["question"] == "Why?" and one["ended"] == [False] and one["clip_id"].startswith(CLIP)


def test_answers_on_a_page(tmp_path):
    from PIL import Image

    heights = []
    for number, questions in enumerate((["Why?"], ["Why?", "Is it safe?", "What is on the left?"])):
        file = tmp_path / "new" / f"{number}.png"
        done = invoke("ask", CLIP, *questions, "--checkpoint", TINY, "--max-tokens", "3", "--page", str(file))
        assert done.exit_code == 0, done.output
        heights.append(Image.open(file).height)
    assert heights[1] >= heights[0] + 2 * 4 * 24  # two more questions, each with an answer, a note and a gap: lines of 24 pixels


@pytest.mark.slow
def test_a_plan_with_navigation_is_in_its_record(tmp_path):
    given = ("--checkpoint", TINY, "--clip", CLIP, "--out", str(tmp_path), "--max-tokens", "3", "--samples", "1")
    done = invoke("run", *given, "--navigation", "Turn left in 30m", "--guidance", "1.5")
    assert done.exit_code == 0, done.output
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*.json"))
    assert record["request"]["navigation"] == "Turn left in 30m" and record["request"]["guidance"] == 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "words,said",
    [
        (("run", "--out", "x", "--guidance", "2"), "there is no navigation for it to weigh"),
        (("run", "--navigation", "Turn left", "--checkpoint", "small"), "trained without navigation"),
        (("ask", CLIP, "Why?", "--checkpoint", "small"), "trained to plan alone"),
        (("ask", CLIP, "<|im_end|>", "--checkpoint", TINY), "special token"),
    ],
)
def test_what_does_not_fit_is_an_error_without_a_traceback(words, said, tmp_path):
    words = (*words, "--out", str(tmp_path)) if words[:2] == ("run", "--navigation") else words
    done = invoke(*words)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.output, done.output
