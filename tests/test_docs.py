"""What the documents name exists, and their pictures are the ones that the script draws."""

from __future__ import annotations

import contextlib
import re
import runpy
import shlex
from pathlib import Path

import pytest
import torch
import typer

import alpamayo_r1
from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.testing import tiny_checkpoint

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
VERBS = "|".join(typer.main.get_command(app).commands)
RUN = {
    "own-data.md": "tests/test_own_data.py",
    "serving.md": "tests/serve/test_client.py",
    "streaming.md": "tests/stream/test_docs_streaming.py",
}
"""Pages whose Python runs in a test of its own."""
HERE = ("index.md", "precision.md")


def python_of(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S))


def commands() -> list[tuple[str, str]]:
    """The command lines of every page: those that stand on lines of their own."""
    found = []
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in ("log.md", "own-data.md"):  # what was typed once; what test_own_data.py runs
            lines = re.findall(rf"^ *(alpamayo-r1 (?:{VERBS}) .*)$", page.read_text(), re.M)
            found += [(page.name, re.split(r" #|   ", line)[0].strip()) for line in lines]
    return found


OURS = ["differences.md", "conventions.md", "reading-order.md", "own-data.md"]


def test_every_difference_is_held_by_a_test():
    rows = [line for line in (DOCS / "differences.md").read_text().splitlines() if line.startswith("|")]
    departures = [row for row in rows if not re.match(r"\|(-|\s*the original \|)", row)]
    assert len(departures) > 20
    for row in departures:
        file, name = re.search(r"`(test_\w+\.py)::(test_\w+)` \|$", row).groups()
        (path,) = (ROOT / "tests").rglob(file)
        assert re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), f"{file} has no {name}"


@pytest.mark.parametrize("document", OURS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / document).read_text()):
        assert (DOCS / target).is_file(), target


def test_every_picture_is_drawn_and_shown():
    pictures = runpy.run_path(str(DOCS / "make_pictures.py"))["PICTURES"]
    shown = re.findall(r"img/([\w-]+)\.png", (DOCS / "conventions.md").read_text())
    in_readme = set(re.findall(r"img/([\w-]+)\.png", (DOCS.parent / "README.md").read_text()))
    assert set(shown) == set(pictures)
    measured = set(re.findall(r"img/([\w-]+)\.png", (DOCS / "own-data.md").read_text()))  # by a command beside it
    assert {path.stem for path in (DOCS / "img").glob("*.png")} == set(pictures) | in_readme | measured
    assert pictures["timeline"]().axes[0].texts


def test_every_page_with_python_has_a_test_that_runs_it():
    with_python = {page.name for page in DOCS.glob("*.md") if "```python" in page.read_text()}
    assert with_python == {*RUN, *HERE}
    for page, test in RUN.items():
        assert page in (ROOT / test).read_text()


def test_the_index_begins_as_the_readme_does():
    """Whose Python runs in test_readme.py."""
    readme = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    runs = [line.split("  #")[0].rstrip() for line in readme.splitlines()]
    assert [line for line in python_of("index.md").splitlines() if line.strip() and line not in runs] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_python_about_precision_runs(tmp_path):
    names = {"alpamayo_r1": alpamayo_r1, "CHECKPOINT": tiny_checkpoint(tmp_path / "tiny")}
    everywhere, on_a_card = python_of("precision.md").splitlines()
    exec(everywhere, names)
    assert names["planner"].vocabulary is not None
    with contextlib.nullcontext() if torch.cuda.is_available() else pytest.raises(ValueError, match="only a CUDA device's memory"):
        exec(on_a_card, names)


@pytest.mark.parametrize("page, command", commands())
def test_every_command_line_of_every_page_parses(page, command):
    words = shlex.split(command.replace("...", ""))
    typer.main.get_command(app).commands[words[1]].make_context(words[1], words[2:])


def test_command_lines_are_found():
    assert len(commands()) >= 12
