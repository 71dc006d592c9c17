"""docs/streaming.md: its loop runs, and is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "streaming.md").read_text()


@pytest.mark.slow
def test_the_live_loop_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    found: dict[str, object] = {}
    exec(code, found)
    said = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in said] == ["5.2 s:", "5.3 s:"]
    stream, planner, plan = (found[name] for name in ("stream", "planner", "plan"))
    assert stream.reused.pictures == 12
    fresh = planner.plan(stream.observation, samples=1, seed=42)
    assert plan.tokens == fresh.tokens and plan.xyz.equal(fresh.xyz)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT):
        assert (Path(__file__).parents[2] / "docs" / target).is_file(), target
