"""The parts of a page, each drawn into axes it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from alpamayo_r1.core.types import Marking, Obstacle, Plan, Sample, Surroundings
from alpamayo_r1.draw import style
from alpamayo_r1.draw.style import FAINT, INK, PAST, PLAN, SOFT, TRUTH
from alpamayo_r1.metrics.choice import Choice
from alpamayo_r1.metrics.paths import ade

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.ticker import MultipleLocator

TITLES = {
    "camera_cross_left_120fov": "cross left",
    "camera_front_wide_120fov": "front wide",
    "camera_cross_right_120fov": "cross right",
    "camera_front_tele_30fov": "front tele",
    "camera_rear_left_70fov": "rear left",
    "camera_rear_tele_30fov": "rear tele",
    "camera_rear_right_70fov": "rear right",
}
"""Camera name -> what a picture is titled."""

BASELINES = {"constant_velocity": "constant velocity", "constant_turn_rate_and_acceleration": "constant turn and accel."}
"""Baseline -> what its bar is titled."""

STROKES: dict[str, dict[str, Any]] = {
    "edge": {"color": style.PAINT, "linewidth": 1.3},
    "lane": {"color": style.PAINT, "linewidth": 1.0, "linestyle": (0, (5, 5))},
    "centre": {"color": style.MIDDLE, "linewidth": 1.6},
    "stop": {"color": style.PAINT, "linewidth": 3.0},
    "crosswalk": {"color": style.PAINT, "linewidth": 5.0, "linestyle": (0, (0.35, 0.35))},
}
"""Kind of a marking -> how it is drawn from above."""


SMALL_ONES = {"pedestrian": ("o", "#7a3ea8"), "cone": ("^", "#d07000")}
"""Kind of an obstacle too small for an outline -> marker and colour."""

Quantity = Callable[[torch.Tensor, float], torch.Tensor]
"""A path [N, 3] and its dt in seconds -> values [N - 1] between its steps."""


def picture(axes: Axes, image: np.ndarray, title: str) -> None:
    """A camera picture u8[h, w, 3] with its name in the corner."""
    axes.imshow(image, aspect="auto")
    axes.set_axis_off()
    label = {"boxstyle": "round,pad=0.35", "facecolor": "#101418", "edgecolor": "none", "alpha": 0.62}
    place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (8, -8), "textcoords": "offset points", "ha": "left", "va": "top"}
    axes.annotate(style.fitted(title, 3, style.SMALL), **place, size=style.SMALL, color="white", bbox=label, parse_math=False)


def birds_eye(axes: Axes, sample: Sample, plan: Plan, choice: Choice, extent: float = 8.0) -> None:
    """From above, forward is up: (x, y) of the ego frame is drawn at (-y, x). Metres, one scale for both axes; a dot each second.

    Lanes, vehicles, people and cones are drawn where the sample's surroundings are known. `extent` is the least half width in metres.
    """
    truth, history, chosen = sample.future, sample.observation.history, plan.xyz[choice.sample]
    around: Surroundings = sample.meta.get("surroundings", Surroundings())
    known = bool(around.markings or around.obstacles)
    style.plain(axes, "From above", "m to the right", "m ahead")
    others = [xyz for i, xyz in enumerate(plan.xyz) if i != choice.sample]
    for i, xyz in enumerate(others):
        axes.plot(*_up(_from_car(xyz)), color=PLAN, linewidth=1.1, alpha=0.4, zorder=3, label=None if i else "other samples")
    axes.plot(*_up(history.xyz), color=PAST, linewidth=2.2, zorder=2, solid_capstyle="round", label="history")
    if truth is not None:
        axes.plot(*_up(_from_car(truth.xyz)), color=TRUTH, linewidth=2.6, zorder=4, solid_capstyle="round", label="driven")
        axes.plot(*_up(truth.xyz[9::10]), "o", color=TRUTH, markersize=4.4, zorder=4, markeredgewidth=0)
    label = f"planned ({of(choice, len(plan.xyz))})" if others else "planned"
    axes.plot(*_up(_from_car(chosen)), color=PLAN, linewidth=1.8, zorder=5, solid_capstyle="round", label=label)
    axes.plot(*_up(chosen[9::10]), "o", color="white", markersize=4.4, zorder=6, markeredgecolor=PLAN, markeredgewidth=1.2)
    _car(axes, sample)
    paths = [plan.xyz.flatten(0, 1), history.xyz] + ([truth.xyz] if truth is not None else [])
    _frame(axes, torch.cat(paths), extent)
    _seconds(axes, chosen)
    _scale_bar(axes)
    if known:
        axes.grid(False)
        _surroundings(axes, around)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.065), "ncol": 2, "columnspacing": 1.2, "handlelength": 1.4}
    axes.legend(fontsize=style.SMALL, frameon=False, labelcolor=SOFT, borderaxespad=0.2, **place)
    if known:
        words = "lanes and vehicles: from the clip, not from the model"
        axes.annotate(words, (0.5, -0.155), xycoords="axes fraction", size=style.SMALL - 1, color=FAINT, ha="center", va="top")


def of(choice: Choice, samples: int) -> str:
    """The chosen sample in few words: "best of 6"."""
    return f"{'best' if choice.by == 'truth' else 'first'} of {samples}"


def speed(axes: Axes, sample: Sample, plan: Plan, chosen: int) -> None:
    """Speed in m/s against time in seconds: history, all samples, truth."""
    style.plain(axes, "Speed", "", "m/s")
    _over_time(axes, sample, plan, chosen, _speed)
    axes.set_ylim(0, max(2.0, axes.get_ylim()[1] * 1.08))


def curvature(axes: Axes, sample: Sample, plan: Plan, chosen: int) -> None:
    """Turn of the path per metre, positive to the left, against time; not drawn where the car stands."""
    style.plain(axes, "Curvature", "seconds from now", "1/m")
    _over_time(axes, sample, plan, chosen, _curvature)
    reach = max(0.02, 1.15 * max(abs(v) for v in axes.get_ylim()))
    axes.set_ylim(-reach, reach)


def errors(axes: Axes, sample: Sample, plan: Plan, choice: Choice, baselines: Mapping[str, float | None]) -> None:
    """Average displacement of the plan, of its samples on average, and of the baselines, as bars with their values in metres."""
    style.heading(axes, "ADE over 6.4 s")
    axes.set_axis_off()
    shown: list[tuple[str, float | None, str]] = []
    if sample.future is not None:
        error = ade(plan.xyz, sample.future.xyz)
        own = error.value[choice.sample].item() if bool(error.valid[choice.sample]) else None
        shown.append((f"plan, {of(choice, len(plan.xyz))}" if len(plan.xyz) > 1 else "plan", own, PLAN))
        if len(plan.xyz) > 1:
            shown.append((f"plan, mean of {len(plan.xyz)}", error.mean(), "#7fb0ee"))
    shown += [(BASELINES.get(name, name.replace("_", " ")), value, "#aab2bb") for name, value in baselines.items()]
    bars = [(name, value, colour) for name, value, colour in shown if value is not None and math.isfinite(value)]
    if not bars:
        axes.text(0, 0.9, "the future of this clip is not known", size=style.BODY, color=SOFT, va="top", transform=axes.transAxes)
        return
    longest = max(0.5, *(value for _, value, _ in bars))
    for y, (name, value, colour) in enumerate(bars):
        axes.barh(y, max(value, 0.012 * longest), height=0.36, color=colour, zorder=2)
        axes.text(0, y - 0.27, style.fitted(name, 2.6, style.SMALL), size=style.SMALL, color=SOFT, va="bottom", parse_math=False)
        place = max(value, 0.012 * longest) + 0.025 * longest
        axes.text(place, y, f"{value:.2f} m", size=style.BODY, color=INK, va="center", weight="bold" if y == 0 else "normal")
    axes.set_xlim(0, longest * 1.38)
    axes.set_ylim(len(bars) - 0.6, -0.75)


def _over_time(axes: Axes, sample: Sample, plan: Plan, chosen: int, quantity: Quantity) -> None:
    """Draws quantity(path [N, 3], dt) -> [N - 1] between the steps of history, samples and truth."""
    history, dt = sample.observation.history, sample.observation.history.dt
    past = quantity(history.xyz, dt)
    when = dt * (torch.arange(len(past)) - len(past) + 0.5)
    axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.plot(when, past, color=PAST, linewidth=1.8, zorder=2)
    for i, xyz in enumerate(plan.xyz):
        _future(axes, xyz, dt, quantity, PLAN, *((1.6, 1.0, 5) if i == chosen else (0.9, 0.4, 3)))
    if sample.future is not None:
        _future(axes, sample.future.xyz, dt, quantity, TRUTH, 3.2, 1.0, 4)
    axes.set_xlim(float(when[0]) - dt / 2, dt * plan.xyz.shape[1])


def _future(axes: Axes, xyz: torch.Tensor, dt: float, quantity: Quantity, colour: str, width: float, opacity: float, order: int) -> None:
    value = quantity(_from_car(xyz), dt)
    when = dt * (torch.arange(len(value)) + 0.5)
    axes.plot(when, value, solid_capstyle="round", color=colour, linewidth=width, alpha=opacity, zorder=order)


def _speed(xyz: torch.Tensor, dt: float) -> torch.Tensor:
    return xyz[:, :2].diff(dim=0).norm(dim=-1) / dt


def _curvature(xyz: torch.Tensor, dt: float) -> torch.Tensor:
    """Curvature at the steps between, NaN below 1 m/s."""
    step = xyz[:, :2].diff(dim=0)
    length = step.norm(dim=-1)
    yaw = torch.atan2(step[:, 1], step[:, 0])
    turn = torch.remainder(yaw.diff() + torch.pi, 2 * torch.pi) - torch.pi
    curve = turn * 2 / (length[1:] + length[:-1])
    curve = curve.masked_fill(length[1:].minimum(length[:-1]) < dt, torch.nan)
    return torch.cat([curve[:1], curve])


def _from_car(xyz: torch.Tensor) -> torch.Tensor:
    """A future path with the car's place at t0 put before it."""
    return torch.cat([xyz.new_zeros(1, 3), xyz])


def _up(xyz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Right and ahead of the car."""
    return -xyz[..., 1].cpu(), xyz[..., 0].cpu()


def _car(axes: Axes, sample: Sample) -> None:
    """The car's outline at t0."""
    from matplotlib.patches import FancyBboxPatch

    length, width, centre = (float(sample.car[name]) for name in ("length", "width", "rear_axle_to_bbox_center"))
    shape = f"round,pad=0,rounding_size={width / 4}"
    place = (-width / 2, centre - length / 2)
    axes.add_patch(FancyBboxPatch(place, width, length, boxstyle=shape, facecolor="#2b3138", edgecolor="white", linewidth=0.8, zorder=7))


def _frame(axes: Axes, xyz: torch.Tensor, extent: float) -> None:
    """Limits that hold all points and fill the axes at one scale."""
    right, ahead = _up(xyz[xyz.isfinite().all(-1)])
    w, h = axes.bbox.size
    low, high = min(float(ahead.min()), -6.0) - 3, max(float(ahead.max()), 24.0) + 6
    aside = max(extent, 1.12 * max(float(right.max()), -float(right.min())))
    scale = max((high - low) / h, 2 * aside / w)
    middle = (low + high) / 2
    axes.set_xlim(-scale * w / 2, scale * w / 2)
    axes.set_ylim(middle - scale * h / 2, middle + scale * h / 2)
    axes.set_aspect("equal", adjustable="box")
    ticks = next((t for t in (5, 10, 20, 25, 50, 100) if scale * w / t <= 6), 10 ** math.ceil(math.log10(scale * w / 6)))
    axes.xaxis.set_major_locator(_every(ticks))
    axes.yaxis.set_major_locator(_every(ticks))


def _every(metres: float) -> MultipleLocator:
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(metres)


def _scale_bar(axes: Axes) -> None:
    from matplotlib.patheffects import withStroke

    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    length = max(n for n in (1, 2, 5, 10, 20, 50) if n <= max(1, (right - left) / 4))
    x, y = left + 0.06 * (right - left), low + 0.02 * (high - low)
    halo = [withStroke(linewidth=4, foreground="white")]
    axes.plot([x, x + length], [y, y], color=INK, linewidth=2, solid_capstyle="butt", zorder=8, path_effects=halo)
    place = {"size": style.SMALL, "color": INK, "ha": "center", "va": "bottom", "zorder": 8, "path_effects": halo}
    axes.text(x + length / 2, y + 0.006 * (high - low), f"{length} m", **place)


def _seconds(axes: Axes, chosen: torch.Tensor) -> None:
    """Numbers beside the dots at whole seconds, where the dots are far enough apart; in the axes' final limits."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    low, high = axes.get_ylim()
    last = torch.zeros(3)
    for second, here in enumerate(chosen[9::10].cpu(), 1):
        if float((here - last).norm()) > 0.03 * (high - low):
            place = {
                "textcoords": "offset points",
                "xytext": (6, 0),
                "size": style.SMALL,
                "color": PLAN,
                "va": "center",
                "zorder": 8,
                "path_effects": halo,
            }
            right, ahead = _up(here)
            axes.annotate(f"{second} s", (float(right), float(ahead)), annotation_clip=True, **place)
            last = here


def _surroundings(axes: Axes, around: Surroundings) -> None:
    """The road between its outermost lines, its markings, and the boxes that stand on it, below all paths."""
    for marking in around.markings:
        _marking(axes, marking)
    for obstacle in around.obstacles:
        _obstacle(axes, obstacle)


def _marking(axes: Axes, marking: Marking) -> None:
    right, ahead = _up(marking.xy)
    axes.plot(right, ahead, zorder=1, solid_capstyle="butt", dash_capstyle="butt", **STROKES.get(marking.kind, STROKES["edge"]))


def _obstacle(axes: Axes, obstacle: Obstacle) -> None:
    """A vehicle's outline from above with its nose marked; a person as a dot, a cone as a triangle."""
    from matplotlib.patches import Polygon

    if obstacle.kind in SMALL_ONES:
        marker, colour = SMALL_ONES[obstacle.kind]
        axes.plot(-obstacle.y, obstacle.x, marker, color=colour, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6, zorder=2)
        return

    c, s = math.cos(obstacle.yaw), math.sin(obstacle.yaw)

    def corner(x: float, y: float) -> tuple[float, float]:
        x, y = x * obstacle.length, y * obstacle.width
        return -(obstacle.y + s * x + c * y), obstacle.x + c * x - s * y

    shape = [corner(x, y) for x, y in ((-0.5, -0.5), (0.4, -0.5), (0.5, -0.32), (0.5, 0.32), (0.4, 0.5), (-0.5, 0.5))]
    axes.add_patch(Polygon(shape, closed=True, facecolor=style.OBJECT, edgecolor="white", linewidth=0.6, zorder=2))
