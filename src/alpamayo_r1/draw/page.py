"""Whole pictures: the page of one prediction, the grid of what the cameras saw, the view from above. Each gives a Figure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.gate.values import check_type, need_keys
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import Plan, Sample, Surroundings
from alpamayo_r1.draw import panels, style
from alpamayo_r1.draw.overlay import overlay, ribbons
from alpamayo_r1.metrics.choice import Choice, choose_sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRONT = "camera_front_wide_120fov"

LEFT, TOP, WIDE, HIGH, GAP = 0.3, 1.35, 8.75, 6.6, 0.1
"""The block of camera pictures on a page, inches from the top left corner."""

REASONS = {
    "only": "the only sample",
    "truth": "nearest to what was driven (best by the truth)",
    "first": "the first one (what was really driven is not known)",
}
"""How the sample that is drawn boldly was chosen, in words."""

RECORD = "the record of it: predict.record.result(sample, plan, seed)"

NO_WORDS = "(no finished reasoning)"

MOST_NOTES = 3
"""Notes that have room on a page; the record holds all."""


def page(sample: Sample, plan: Plan, result: dict[str, Any]) -> Figure:
    """One slide (16 x 9 inches) for one prediction: reasoning, cameras with the plan on the road, view from above, speed, errors.

    `result` is the record of predict.record.result(sample, plan, seed). The chosen sample's path and its own words are in one colour.
    """
    check_type("sample", sample, Sample, "a Sample: source.clip(...).sample()")
    check_type("plan", plan, Plan, "a Plan: planner.plan(sample.observation)")
    need_keys("result", result, ("clip_id", "t0_us", "seed", "baselines", "timing_ms", "notice"), RECORD)
    figure = style.sheet(16, 9)
    choice = choose_sample(plan.xyz, None if sample.future is None else sample.future.xyz)
    _header(figure, result, plan, choice)
    _cameras(figure, sample, plan, choice.sample)
    panels.birds_eye(style.box(figure, 9.75, TOP + 0.22, 2.65, 5.8), sample, plan, choice)
    panels.speed(style.box(figure, 13.05, TOP + 0.22, 2.65, 1.5), sample, plan, choice.sample)
    panels.curvature(style.box(figure, 13.05, TOP + 2.22, 2.65, 1.5), sample, plan, choice.sample)
    panels.errors(style.box(figure, 13.05, TOP + 4.45, 2.65, 2.3), sample, plan, choice, result["baselines"])
    _notes(figure, sample.notes + plan.notes)
    _footer(figure, result)
    return figure


def camera_grid(sample: Sample) -> Figure:
    """All frames: a row for each camera, oldest at the left, each with its time relative to t0."""
    frames = sample.observation.frames
    cameras, count = frames.shape[:2]
    tall = 3.0 * frames.shape[-2] / frames.shape[-1]
    figure = style.sheet(0.3 + count * 3.1 + 0.2, 0.3 + cameras * (tall + 0.1) + 0.2)
    times = sample.meta.get("frame_timestamps_us")
    for row, name in enumerate(sample.observation.cameras):
        for column in range(count):
            image = frames[row, column].permute(1, 2, 0).cpu().numpy()
            when = 0.1 * (column + 1 - count) if times is None else (int(times[row, column]) - sample.observation.t0_us) / 1e6
            axes = style.box(figure, 0.3 + column * 3.1, 0.3 + row * (tall + 0.1), 3.0, tall)
            panels.picture(axes, image, f"{panels.TITLES.get(name, name)} {when:.2f} s")
    return figure


def birds_eye(sample: Sample, plan: Plan) -> Figure:
    """The view from above alone."""
    figure = style.sheet(5, 7)
    choice = choose_sample(plan.xyz, None if sample.future is None else sample.future.xyz)
    panels.birds_eye(style.box(figure, 0.7, 0.5, 4.0, 5.7), sample, plan, choice)
    return figure


def how_chosen(choice: Choice, samples: int) -> str:
    """Whose path and words are drawn boldly, and why: "sample 3 of 6, nearest to what was driven (best by the truth)"."""
    if choice.by == "only":
        return REASONS["only"]
    return f"sample {choice.sample + 1} of {samples}, {REASONS[choice.by]}"


def _header(figure: Figure, result: dict[str, Any], plan: Plan, choice: Choice) -> None:
    """The chosen sample's words as the headline, in the colour of its path; where and when above, what the others said below."""
    request = result.get("request", {})
    place = f"{result['clip_id']} · t0 = {result['t0_us'] / 1e6:.10g} s"
    if request.get("reasoning"):
        place += " · these words were given, not the model's own"
    if request.get("navigation"):
        place += f" · navigation given: {request['navigation']}"
    style.write(figure, LEFT, 0.2, place, style.BODY, style.FAINT, room=15.4)
    said = [text.strip() or NO_WORDS for text in plan.reasoning]
    own = said[choice.sample]
    lines = style.wrapped(own, 15.4, style.TITLE, "bold", lines=1)
    size = style.TITLE if not lines[0].endswith(" …") else style.HEAD
    for i, line in enumerate(style.wrapped(own, 15.4, size, "bold", lines=2)):
        style.write(figure, LEFT, 0.42 + 0.2 * i, line, size, style.PLAN, weight="bold")
    same = said.count(own) - 1
    chosen = how_chosen(choice, len(said)) + (f"; {same} other{'s say' if same > 1 else ' says'} the same" if same else "")
    style.write(figure, LEFT, 0.83, f"Blue path and words: {chosen}.", style.BODY, style.SOFT, room=15.4)
    others = Counter(text for text in said if text != own).most_common()
    if others:
        listed = " · ".join(f"{count} × {text}" for text, count in others)
        style.write(figure, LEFT, 1.04, f"Others: {listed}", style.BODY, style.SOFT, room=15.4)


def _cameras(figure: Figure, sample: Sample, plan: Plan, chosen: int) -> None:
    """The front camera large, the others in a row below it, all at t0 with the plan on the road."""
    frames, names = sample.observation.frames, sample.observation.cameras
    aspect = frames.shape[-2] / frames.shape[-1]
    large = FRONT if FRONT in names else names[0]
    others = [name for name in names if name != large]
    per_inch = aspect * (1 + 1 / max(len(others), 1) * bool(others))
    width = _whole(min(WIDE, (HIGH - GAP) / per_inch))
    _camera(figure, sample, plan, chosen, large, (LEFT, TOP, width, _whole(width * aspect)))
    wide = _whole((width - GAP * (len(others) - 1)) / max(len(others), 1))
    for i, name in enumerate(others):
        place = (LEFT + i * (wide + GAP), TOP + _whole(width * aspect) + GAP, wide, _whole(wide * aspect))
        _camera(figure, sample, plan, chosen, name, place)


def _whole(inches: float) -> float:
    """A length rounded to whole dots, at least one, so that pictures are shown pixel by pixel."""
    return max(1, round(inches * style.DPI)) / style.DPI


def _camera(figure: Figure, sample: Sample, plan: Plan, chosen: int, name: str, place: tuple[float, float, float, float]) -> None:
    frame = sample.observation.frames[sample.observation.cameras.index(name), -1]
    image = painted(frame, sample, plan, chosen, name, width=round(place[2] * style.DPI))
    panels.picture(style.box(figure, *place), image, panels.TITLES.get(name, name))


def painted(frame: torch.Tensor, sample: Sample, plan: Plan, chosen: int, camera: str, *, width: int | None = None) -> np.ndarray:
    """A frame u8[3, h, w] of a camera with plan and truth on the road, as far as the camera's calibration is known: u8[h', w', 3].

    The corridor goes behind what stands on the road where the sample's surroundings are known, and over it where they are not.
    """
    calibration = sample.meta.get("calibration", {}).get(camera)
    if calibration is None:
        return frame.permute(1, 2, 0).cpu().numpy()
    truth = None if sample.future is None else sample.future.xyz
    paths = ribbons(plan.xyz, truth, chosen, float(sample.car["width"]))
    around: Surroundings = sample.meta.get("surroundings", Surroundings())
    return overlay(frame, calibration, paths, width=width, obstacles=around.obstacles)


def _notes(figure: Figure, notes: tuple[Note, ...]) -> None:
    """What to know about this plan, each kind once, below the cameras."""
    found = list({note.code: note for note in notes}.values())
    for line, note in enumerate(found[:MOST_NOTES]):
        more = f" (+ {len(found) - MOST_NOTES} more)" if line == MOST_NOTES - 1 and len(found) > MOST_NOTES else ""
        text = f"\N{WARNING SIGN} {note.code}: {note.text}{more}"
        style.write(figure, LEFT, 8.02 + 0.19 * line, text, style.BODY, style.NOTICE, room=15.4)


def _footer(figure: Figure, result: dict[str, Any]) -> None:
    """Time by stage and the licence notice."""
    timing = " · ".join(f"{stage} {ms:,.0f} ms" for stage, ms in result["timing_ms"].items())
    style.write(figure, LEFT, 8.68, timing, style.SMALL, style.FAINT, room=6.0)
    style.write(figure, 15.7, 8.68, result["notice"] or "", style.SMALL, style.FAINT, align="right", room=9.2)
