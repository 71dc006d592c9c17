"""The parts of a page, each drawn into axes it is given."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from alpamayo_r1.core.types import Plan, Sample
from alpamayo_r1.draw import style
from alpamayo_r1.draw.style import FAINT, INK, PAST, PLAN, SOFT, TRUTH

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

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


def picture(axes: Axes, image: np.ndarray, title: str) -> None:
    """A camera picture u8[h, w, 3] with its name in the corner."""
    axes.imshow(image, aspect="auto")
    axes.set_axis_off()
    label = {"boxstyle": "round,pad=0.35", "facecolor": "#101418", "edgecolor": "none", "alpha": 0.62}
    place = {"xy": (0, 1), "xycoords": "axes fraction", "xytext": (8, -8), "textcoords": "offset points", "ha": "left", "va": "top"}
    axes.annotate(title, **place, size=style.SMALL, color="white", bbox=label)


def birds_eye(axes: Axes, sample: Sample, plan: Plan, best: int, extent: float = 8.0) -> None:
    """From above, forward is up: (x, y) of the ego frame is drawn at (-y, x). Metres, one scale for both axes; a dot each second.

    `extent` is the least half width in metres that is shown.
    """
    truth, history = sample.future, sample.observation.history
    style.plain(axes, "From above", "m to the right", "m ahead")
    others = [xyz for i, xyz in enumerate(plan.xyz) if i != best]
    for i, xyz in enumerate(others):
        axes.plot(*_up(_from_car(xyz)), color=PLAN, linewidth=1.1, alpha=0.4, zorder=3, label=None if i else "other samples")
    axes.plot(*_up(history.xyz), color=PAST, linewidth=2.2, zorder=2, solid_capstyle="round", label="history")
    if truth is not None:
        axes.plot(*_up(_from_car(truth.xyz)), color=TRUTH, linewidth=2.6, zorder=4, solid_capstyle="round", label="driven")
        axes.plot(*_up(truth.xyz[9::10]), "o", color=TRUTH, markersize=4.4, zorder=4, markeredgewidth=0)
    axes.plot(*_up(_from_car(plan.xyz[best])), color=PLAN, linewidth=1.8, zorder=5, solid_capstyle="round", label=_chosen(sample, plan))
    axes.plot(*_up(plan.xyz[best][9::10]), "o", color="white", markersize=4.4, zorder=6, markeredgecolor=PLAN, markeredgewidth=1.2)
    _car(axes, sample)
    paths = [plan.xyz.flatten(0, 1), history.xyz] + ([truth.xyz] if truth is not None else [])
    _frame(axes, torch.cat(paths), extent)
    _scale_bar(axes)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.065), "ncol": 2, "columnspacing": 1.2, "handlelength": 1.4}
    axes.legend(fontsize=style.SMALL, frameon=False, labelcolor=SOFT, borderaxespad=0.2, **place)


def _chosen(sample: Sample, plan: Plan) -> str:
    """What the sample that is drawn boldly is called; see page.best_of."""
    which = "middle" if sample.future is None else "best"
    return "planned" if len(plan.xyz) == 1 else f"planned ({which} of {len(plan.xyz)})"


def speed(axes: Axes, sample: Sample, plan: Plan, best: int) -> None:
    """Speed in m/s against time in seconds: history, all samples, truth."""
    style.plain(axes, "Speed", "", "m/s")
    _over_time(axes, sample, plan, best, _speed)
    axes.set_ylim(0, max(2.0, axes.get_ylim()[1] * 1.08))


def curvature(axes: Axes, sample: Sample, plan: Plan, best: int) -> None:
    """Turn of the path per metre, positive to the left, against time; not drawn where the car stands."""
    style.plain(axes, "Curvature", "seconds from now", "1/m")
    _over_time(axes, sample, plan, best, _curvature)
    reach = max(0.02, 1.15 * max(abs(v) for v in axes.get_ylim()))
    axes.set_ylim(-reach, reach)


def errors(axes: Axes, result: dict[str, Any]) -> None:
    """Average displacement of the plan and of the baselines, as bars with their values in metres."""
    names = {"constant_velocity": "constant velocity", "constant_turn_rate_and_acceleration": "constant turn and accel."}
    count = len(result["pred_xyz"])
    rows = [("plan" if count == 1 else f"plan (best of {count})", result["min_ade"], PLAN)]
    rows += [(names.get(name, name.replace("_", " ")), value, "#b9c0c8") for name, value in result["baselines"].items()]
    rows = [(name, value, colour) for name, value, colour in rows if value is not None]
    axes.set_title("ADE over 6.4 s", loc="left", size=style.HEAD, color=INK, weight="bold", pad=7)
    axes.set_axis_off()
    if not rows:
        axes.text(0, 0.9, "the future of this clip is not known", size=style.BODY, color=SOFT, va="top", transform=axes.transAxes)
        return
    longest = max(0.5, *(value for _, value, _ in rows))
    for y, (name, value, colour) in enumerate(rows):
        axes.barh(y, value, height=0.34, color=colour, zorder=2)
        axes.text(0, y - 0.27, name, size=style.SMALL, color=SOFT, va="bottom")
        axes.text(
            value + 0.02 * longest, y, f"{value:.2f} m", size=style.BODY, color=INK, va="center", weight="bold" if y == 0 else "normal"
        )
    axes.set_xlim(0, longest * 1.38)
    axes.set_ylim(len(rows) - 0.6, -0.75)


def sentences(reasoning: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each distinct reasoning with its count, most frequent first; "" becomes a remark."""
    return Counter(text.strip() or "(no finished reasoning)" for text in reasoning).most_common()


def _over_time(axes: Axes, sample: Sample, plan: Plan, best: int, quantity) -> None:
    """Draws quantity(path [N, 3], dt) -> [N - 1] between the steps of history, samples and truth."""
    history, dt = sample.observation.history, sample.observation.history.dt
    past = quantity(history.xyz, dt)
    when = dt * (torch.arange(len(past)) - len(past) + 0.5)
    axes.axvline(0, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.plot(when, past, color=PAST, linewidth=1.8, zorder=2)
    for i, xyz in enumerate(plan.xyz):
        _future(
            axes,
            xyz,
            dt,
            quantity,
            color=PLAN,
            linewidth=1.6 if i == best else 0.9,
            alpha=1 if i == best else 0.4,
            zorder=5 if i == best else 3,
        )
    if sample.future is not None:
        _future(axes, sample.future.xyz, dt, quantity, color=TRUTH, linewidth=3.2, zorder=4)
    axes.set_xlim(float(when[0]) - dt / 2, dt * plan.xyz.shape[1])


def _future(axes: Axes, xyz: torch.Tensor, dt: float, quantity, **line) -> None:
    value = quantity(_from_car(xyz), dt)
    axes.plot(dt * (torch.arange(len(value)) + 0.5), value, solid_capstyle="round", **line)


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
    w, h = axes.get_position().size * axes.figure.get_size_inches()
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


def _every(metres: float):
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(metres)


def _scale_bar(axes: Axes) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    length = max(n for n in (1, 2, 5, 10, 20, 50) if n <= max(1, (right - left) / 4))
    x, y = left + 0.06 * (right - left), low + 0.02 * (high - low)
    axes.plot([x, x + length], [y, y], color=INK, linewidth=2, solid_capstyle="butt", zorder=8)
    axes.text(x + length / 2, y + 0.006 * (high - low), f"{length} m", size=style.SMALL, color=INK, ha="center", va="bottom", zorder=8)
