"""The page of questions about a scene: what the cameras saw at t0, each question, and what was answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alpamayo_r1.core.types import Answers, Sample
from alpamayo_r1.draw import panels, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, EDGE, GAP, LINE = 16.0, 0.3, 0.1, 0.2
"""The page's width, its margin, the room between pictures, and a line of text, in inches."""

MOST_LINES = 6
"""Lines of one answer that a page shows."""


def answers_page(sample: Sample, answers: Sequence[Answers], notice: str = "") -> Figure:
    """16 inches wide, as high as its text: the cameras at t0 in a row, below them each question in bold with its answers.

    notice: what the data's licence asks to be said.
    """
    observation, room = sample.observation, WIDTH - 2 * EDGE
    count, aspect = len(observation.cameras), observation.frames.shape[-2] / observation.frames.shape[-1]
    wide = min(room / 2, (room - GAP * (count - 1)) / count)
    text = [line for one in answers for line in _lines(one, room)]
    top = 0.6 + wide * aspect + 0.25
    figure = style.sheet(WIDTH, top + LINE * len(text) + 0.4)
    style.write(figure, EDGE, 0.2, f"{sample.clip_id} · t0 = {observation.t0_us / 1e6:.10g} s", style.BODY, style.FAINT, room=room)
    for i, name in enumerate(observation.cameras):
        axes = style.box(figure, EDGE + i * (wide + GAP), 0.6, wide, wide * aspect)
        panels.picture(axes, observation.frames[i, -1].permute(1, 2, 0).cpu().numpy(), panels.TITLES.get(name, name))
    for i, (line, colour, weight) in enumerate(text):
        style.write(figure, EDGE, top + LINE * i, line, style.HEAD, colour, weight=weight, room=room)
    style.write(figure, WIDTH - EDGE, top + LINE * len(text) + 0.1, notice, style.SMALL, style.FAINT, align="right", room=room)
    return figure


def _lines(one: Answers, room: float) -> list[tuple[str, str, str]]:
    """A question, its answers, its notes and an empty line, each as (text, colour, weight)."""
    found = [(line, style.INK, "bold") for line in style.wrapped(one.question, room, style.HEAD, "bold", lines=2)]
    for answer, whole in zip(one.answers, one.ended, strict=True):
        said = f"{answer.strip() or '(nothing)'}{'' if whole else ' ... (cut off)'}"
        found += [(line, style.PLAN, "normal") for line in style.wrapped(said, room, style.HEAD, lines=MOST_LINES)]
    found += [(f"\N{WARNING SIGN} {note.code}: {note.text}", style.NOTICE, "normal") for note in one.notes]
    return [*found, ("", style.INK, "normal")]
