"""Whole pictures: the page of one prediction, the grid of what the cameras saw, the view from above. Each gives a Figure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.draw import panels, style
from alpamayo_r1.draw.overlay import overlay, ribbons
from alpamayo_r1.metrics.paths import best_sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRONT = "camera_front_wide_120fov"

LEFT, TOP, WIDE, GAP = 0.3, 1.3, 8.75, 0.1
"""The block of camera pictures on a page, inches from the top left corner."""


def page(sample: Sample, plan: Plan, result: dict[str, Any]) -> Figure:
    """One slide (16 x 9 inches) for one prediction: reasoning, cameras with the plan on the road, view from above, speed, errors.

    `result` is the record of results.result(sample, plan, seed).
    """
    figure = style.sheet(16, 9)
    best = best_of(sample, plan)
    _header(figure, result)
    _cameras(figure, sample, plan, best)
    panels.birds_eye(style.box(figure, 9.75, TOP + 0.27, 2.65, 6.0), sample, plan, best)
    panels.speed(style.box(figure, 13.05, TOP + 0.27, 2.65, 1.55), sample, plan, best)
    panels.curvature(style.box(figure, 13.05, TOP + 2.32, 2.65, 1.55), sample, plan, best)
    panels.errors(style.box(figure, 13.05, TOP + 4.65, 2.65, 1.92), result)
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
            panels.picture(axes, image, f"{panels.TITLES.get(name, name)}  {when:.2f} s")
    return figure


def birds_eye(sample: Sample, plan: Plan) -> Figure:
    """The view from above alone."""
    figure = style.sheet(5, 7)
    panels.birds_eye(style.box(figure, 0.7, 0.5, 4.0, 5.9), sample, plan, best_of(sample, plan))
    return figure


def best_of(sample: Sample, plan: Plan) -> int:
    """The sample with the smallest ADE; without a known future the one nearest to the mean of all."""
    target = plan.xyz.mean(0) if sample.future is None else sample.future.xyz
    return int(best_sample(plan.xyz, target))


def _header(figure: Figure, result: dict[str, Any]) -> None:
    """What the model thought, as the headline; where and when, small above it."""
    place = f"{result['clip_id']}   ·   t0 = {result['t0_us'] / 1e6:g} s"
    if result.get("request", {}).get("reasoning"):
        place += "   ·   these words were given, not the model's own"
    style.write(figure, 0.3, 0.22, place, style.BODY, style.FAINT)
    said = panels.sentences(tuple(result["reasoning"]))
    many = len(result["reasoning"]) > 1
    size, shown = (style.TITLE, 1) if len(said) == 1 else (style.HEAD + 1, 3)
    for line, (text, count) in enumerate(said[:shown]):
        tally = f"{count} ×  " if many else ""
        rest = f"   (+ {len(said) - shown} more)" if line == shown - 1 and len(said) > shown else ""
        room = 125 if shown == 1 else 165
        lines = textwrap.wrap(tally + text + rest, room) or [""]
        shortened = lines[0] if len(lines) == 1 else lines[0] + " …"
        weight = "bold" if line == 0 else "normal"
        style.write(figure, 0.3, 0.5 + line * 0.24, shortened, size, style.INK if line == 0 else style.SOFT, weight=weight)


def _cameras(figure: Figure, sample: Sample, plan: Plan, best: int) -> None:
    """The front camera large, the others in a row below it, all at t0 with the plan on the road."""
    frames, names = sample.observation.frames, sample.observation.cameras
    aspect = frames.shape[-2] / frames.shape[-1]
    large = FRONT if FRONT in names else names[0]
    others = [name for name in names if name != large]
    _camera(figure, sample, plan, best, large, (LEFT, TOP, WIDE, _whole(WIDE * aspect)))
    wide = _whole((WIDE - GAP * (len(others) - 1)) / max(len(others), 1))
    for i, name in enumerate(others):
        place = (LEFT + i * (wide + GAP), TOP + _whole(WIDE * aspect) + GAP, wide, _whole(wide * aspect))
        _camera(figure, sample, plan, best, name, place)


def _whole(inches: float) -> float:
    """A length rounded to whole dots, so that pictures are shown pixel by pixel."""
    return round(inches * style.DPI) / style.DPI


def _camera(figure: Figure, sample: Sample, plan: Plan, best: int, name: str, place: tuple[float, float, float, float]) -> None:
    frame = sample.observation.frames[sample.observation.cameras.index(name), -1]
    image = painted(frame, sample, plan, best, name, width=round(place[2] * style.DPI))
    panels.picture(style.box(figure, *place), image, panels.TITLES.get(name, name))


def painted(frame: torch.Tensor, sample: Sample, plan: Plan, best: int, camera: str, *, width: int | None = None) -> np.ndarray:
    """A frame u8[3, h, w] of a camera with plan and truth on the road, as far as the camera's calibration is known: u8[h', w', 3]."""
    calibration = sample.meta.get("calibration", {}).get(camera)
    if calibration is None:
        return frame.permute(1, 2, 0).cpu().numpy()
    truth = None if sample.future is None else sample.future.xyz
    return overlay(frame, calibration, ribbons(plan.xyz, truth, best, float(sample.car["width"])), width=width)


def _footer(figure: Figure, result: dict[str, Any]) -> None:
    """Time by stage and the licence notice."""
    timing = "   ".join(f"{stage} {ms:,.0f} ms" for stage, ms in result["timing_ms"].items())
    style.write(figure, 0.3, 8.6, timing, style.SMALL, style.FAINT)
    notice = textwrap.shorten(result["notice"], 150, placeholder=" …")
    style.write(figure, 15.7, 8.6, notice, style.SMALL, style.FAINT, ha="right")
