"""What the README says runs: its Python, and every command line's verb and options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from alpamayo_r1.cli.__main__ import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
VERBS = "|".join(typer.main.get_command(app).commands)
COMMANDS = [line.split("#")[0].strip() for line in re.findall(rf"alpamayo-r1 (?:{VERBS}) [^`\n]*", README)]


@pytest.mark.slow
def test_the_python_runs():
    block = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    plan = names["plan"]
    assert plan.xyz.shape == (6, 64, 3) and len(plan.reasoning) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_parses(command):
    words = shlex.split(command.replace("S --out", "1 --out"))
    verb = typer.main.get_command(app).commands[words[1]]
    verb.make_context(words[1], words[2:])


def test_commands_are_found():
    assert len(COMMANDS) >= 6


def test_make_knows_the_two_targets():
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo: setup" in makefile and "\ntest: setup\n\t$(MAKE) -j 2 lint suite\n" in makefile


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
