"""What is typed is checked before anything heavy happens: bounds, types, names and places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import VERBS, app
from alpamayo_r1.cli.errors import teaching

ODD = ("nan", "inf", "-inf", "1e308", "-1e308", "x", "", "1e3x", str(2**70), str(-(2**70)), "\x1b[31m")
NUMBERS = [
    (verb, option.opts[0])
    for verb, command in typer.main.get_command(app).commands.items()
    for option in command.params
    if option.metavar in ("N", "NUMBER", "SECONDS")
]


def invoke(words: list[str]):
    """The outcome of a command line."""
    return CliRunner().invoke(app, words)


def with_what_it_needs(verb: str, folder: Path) -> list[str]:
    """The verb with its required arguments."""
    required = {
        "film": ["film", "026c0758", "--out", str(folder / "a.mp4")],
        "ask": ["ask", "026c0758", "Why?"],
        "compare": ["compare", str(folder), str(folder)],
        **{name: [name, "--out", str(folder / "out")] for name in ("run", "eval", "world", "train")},
    }
    return required.get(verb, [verb])


def test_every_number_of_every_verb_is_bounded_and_every_option_says_what_it_is():
    assert len(NUMBERS) > 40
    for verb, function in VERBS.items():
        for name, hint in get_type_hints(function, include_extras=True).items():
            if name == "return":
                continue
            option, kinds = hint.__metadata__[0], {hint.__origin__, *get_args(hint.__origin__)}
            assert option.help, f"{verb} --{name} says nothing"
            assert option.parser or not kinds & {int, float}, f"{verb} --{name} has no bounds"


@pytest.mark.slow
@pytest.mark.parametrize("verb,option", NUMBERS)
def test_no_odd_number_passes(verb, option, tmp_path):
    for given in ODD:
        done = invoke([*with_what_it_needs(verb, tmp_path), f"{option}={given}"])
        assert done.exit_code == 2, (given, done.output)
        assert done.stderr.startswith(f"error: Invalid value for '{option}'") and "expected" in done.stderr, done.stderr
        assert "\x1b[31m was" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--out="],
        ["run", "--out", "a\tb"],
        ["run", "--out", "x", "--data="],
        ["run", "--out", "x", "--checkpoint", "small\x00"],
        ["run", "--out", "x", "--clip", " "],
        ["run", "--out", "x", "--reasoning", "Stop\x1b[2J"],
        ["run", "--out", "x", "--device", "cuda:-1"],
        ["eval", "--out", "x", "--t0", "inf"],
        ["eval", "--out", "x", "--clips="],
        ["film", "", "--out", "x.mp4"],
        ["film", "026c0758", "--out", "x.avi"],
        ["compare", "a", "b"],
        ["train", "--out", "x", "--resume", "nowhere.pt"],
        ["bench", "--tokens", "2"],
        ["bench", "--samples", "99999999999999999999"],
        ["bench", "--samples", "²"],
        ["world", "--out", "x", "--clips", "0"],
        ["fly"],
        ["run", "--fly"],
    ],
)
def test_odd_words_are_refused_at_once(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(words)
    assert done.exit_code == 2 and done.stderr.startswith("error: "), done.output
    assert "\x1b[2J" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_number_out_of_bounds_is_refused_before_torch_is_imported(tmp_path):
    code = (
        "import sys\nfrom alpamayo_r1.cli.__main__ import app\n"
        f"try:\n    app(['run', '--out', {str(tmp_path)!r}, '--seed', str(2**70)])\n"
        "except SystemExit as left:\n    print(left.code, [name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 []\n", done.stderr


def test_a_video_larger_than_the_memory_is_refused_before_it_is_rendered(tmp_path, monkeypatch):
    from alpamayo_r1 import bench

    monkeypatch.setattr(bench, "free_memory", lambda: 1e9)
    done = invoke(["world", "--out", str(tmp_path / "out"), "--width", "3840", "--height", "2160", "--seconds", "8"])
    assert done.exit_code == 2 and "takes 48.0 GB" in done.stderr and "1.0 GB are free" in done.stderr
    assert not (tmp_path / "out").exists()


def raised(error: Exception) -> None:
    """Raises the error from a file of the package."""
    from alpamayo_r1.core.options import PlanOptions

    if isinstance(error, TypeError):
        PlanOptions(samples="six")  # pyright: ignore[reportArgumentType]
    raise error


@pytest.mark.parametrize(
    "error,words",
    [
        (TypeError(), "samples is 'six'"),
        (ValueError("a number"), "a number"),
        (OSError(28, "No space left on device"), "out: No space left on device"),
        (OSError(28, "No space left on device", "rows/1"), "rows/1: No space left on device"),
        (MemoryError(), "out of memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "the GPU is out of memory"),
    ],
)
def test_errors_a_person_can_act_on_are_said(error, words, capsys):
    with pytest.raises(typer.Exit) as left, teaching(Path("out")):
        raised(error)
    assert left.value.exit_code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("bug", [lambda: None + 1, lambda: {}["x"], lambda: [].fly, lambda: 1 / 0])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises((TypeError, KeyError, AttributeError, ZeroDivisionError)), teaching():
        bug()


def test_the_version_is_said():
    done = invoke(["--version"])
    assert done.exit_code == 0 and done.output.startswith("alpamayo-r1 0.")


def test_a_completion_script_is_shown():
    code = "import sys; from alpamayo_r1.cli.__main__ import VERBS, app; app(prog_name='alpamayo-r1')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "_ALPAMAYO_R1_COMPLETE": "complete_bash",
            "COMP_WORDS": "alpamayo-r1 comp",
            "COMP_CWORD": "1",
            "PYTHONPATH": ":".join(sys.path),
        },
        capture_output=True,
        text=True,
    )
    assert "compare" in done.stdout
