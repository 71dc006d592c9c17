"""What the documents name exists, and their pictures are the ones that the script draws."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
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
    assert {path.stem for path in (DOCS / "img").glob("*.png")} == set(pictures) | in_readme
    assert pictures["timeline"]().axes[0].texts
