"""Draws the pictures of conventions.md and of the README into docs/img: `python docs/make_pictures.py [NAME ...]`.

The film takes about two minutes on two cores.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle, Wedge
from PIL import Image

from alpamayo_r1.core.action import to_trajectory
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, F, H
from alpamayo_r1.data.clips import ORDER
from alpamayo_r1.data.source import open_source
from alpamayo_r1.draw import page
from alpamayo_r1.draw.style import FAINT, INK, PAST, PLAN, RULE, SMALL, SOFT, TRUTH, png, sheet
from alpamayo_r1.planner import load
from alpamayo_r1.predict.record import result
from alpamayo_r1.world.rig import RIG, VEHICLE

OUT = Path(__file__).parent / "img"
TINTS = ("#1668dc", "#2e9e6b", "#b3560f", "#8a4fd0")


def up(xyz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ego x forward, y left -> picture right, up."""
    return -xyz[..., 1], xyz[..., 0]


def bare(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    """Axes without a frame, at (left, bottom, width, height) in fractions."""
    axes = figure.add_axes(place)
    axes.set_axis_off()
    return axes


def car(axes: Axes) -> None:
    """The car's outline around the rear axle, the windscreen side marked."""
    rear = VEHICLE.rear_axle_to_bbox_center - VEHICLE.length / 2
    axes.add_patch(Rectangle((-VEHICLE.width / 2, rear), VEHICLE.width, VEHICLE.length, facecolor="#eef1f4", edgecolor=SOFT, linewidth=1))
    front = rear + VEHICLE.length
    nose = [(-0.7, front - 1.6), (0.7, front - 1.6), (0.85, front - 0.9), (-0.85, front - 0.9)]
    axes.add_patch(Polygon(nose, facecolor="#d5dbe1", edgecolor="none"))


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str, colour: str = INK) -> None:
    """An arrow with a word at its tip."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6})
    axes.annotate(text, end, xytext=(5, 3), textcoords="offset points", size=SMALL + 1, color=colour)


def ego_frame() -> Figure:
    """The ego frame at t0: origin, axes, history behind, future ahead, the sign of curvature."""
    figure = sheet(6.4, 5.6)
    axes = bare(figure, (0.02, 0.02, 0.96, 0.96))
    speed, curvature = torch.tensor(5.0), 0.035
    action = torch.tensor([0.0, curvature]).expand(F, 2)
    future = to_trajectory(action, speed, torch.tensor(0.0), DT).xyz
    history = torch.zeros(H, 3)
    history[:, 0] = speed * DT * torch.arange(1 - H, 1)
    car(axes)
    axes.plot(*up(history), "o", color=PAST, markersize=3.2)
    axes.plot(*up(future), "o", color=PLAN, markersize=3.2)
    axes.plot(0, 0, "o", color=TRUTH, markersize=6, zorder=5)
    arrow(axes, (0, 0), (0, 9.5), "x forward")
    arrow(axes, (0, 0), (-6.5, 0), "")
    axes.annotate("y left", (-6.5, 0), xytext=(-4, 7), textcoords="offset points", size=SMALL + 1, color=INK)
    notes = [
        ((1.6, -0.4), "origin: rear axle on the ground, at t0\nz up, out of the picture", TRUTH),
        ((1.6, -5.0), f"history: {H} steps at 10 Hz, the last one is the origin", SOFT),
        ((-9.8, 22.5), f"future: {F} steps at 10 Hz, the first one is t0 + 0.1 s", PLAN),
        ((3.2, 13.0), "turning left: yaw grows,\ncurvature is positive", SOFT),
    ]
    for (x, y), text, colour in notes:
        axes.text(x, y, text, size=SMALL + 0.5, color=colour, va="center")
    axes.set_aspect("equal")
    axes.set_xlim(-19, 23)
    axes.set_ylim(-9, 28)
    return figure


def timeline() -> Figure:
    """What is known at t0 and what is asked."""
    figure = sheet(8.4, 2.7)
    axes = bare(figure, (0.02, 0.02, 0.96, 0.96))
    axes.plot([-1.95, 6.8], [0, 0], color=RULE, linewidth=1.5, zorder=0)
    axes.plot([0, 0], [-0.55, 2.3], color=TRUTH, linewidth=1.2, zorder=0)
    axes.text(0, 2.4, "t0", color=TRUTH, ha="center", size=SMALL + 2)
    axes.plot(DT * torch.arange(1 - H, 1), torch.full((H,), 0.0), "o", color=PAST, markersize=3.4)
    axes.plot(DT * torch.arange(1, F + 1), torch.full((F,), 0.0), "o", color=PLAN, markersize=3.4)
    for i, camera in enumerate(CAMERAS):
        height = 0.45 + 0.4 * (len(CAMERAS) - 1 - i)
        taken = DT * torch.arange(1 - FRAMES, 1) - 0.008 * (i + 1)
        axes.plot(taken, torch.full((FRAMES,), height), "|", color=TINTS[i], markersize=8, markeredgewidth=2)
        axes.text(0.12, height, camera, color=TINTS[i], size=SMALL, va="center")
    axes.text(-1.95, 1.05, f"{FRAMES} frames a camera,\n10 Hz: the last one\nat or before each time", color=SOFT, size=SMALL, va="center")
    for x, text, colour in ((-1.5, "-1.5 s", SOFT), (0.0, "0", TRUTH), (0.1, "", PLAN), (6.4, "+6.4 s", PLAN)):
        axes.text(x, -0.32, text, color=colour, ha="center", size=SMALL, va="center")
    axes.text(-0.75, -0.75, f"history, {H} poses", color=SOFT, ha="center", size=SMALL + 0.5)
    axes.text(3.3, -0.75, f"future, {F} poses: planned, or driven", color=PLAN, ha="center", size=SMALL + 0.5)
    axes.set_ylim(-1.1, 2.75)
    return figure


def cameras() -> Figure:
    """Where the four cameras look, in the order in which the prompt shows them."""
    figure = sheet(6.4, 4.6)
    axes = bare(figure, (0.02, 0.02, 0.96, 0.96))
    reach = dict(zip(CAMERAS, (9.0, 12.0, 9.0, 17.0)))
    places = ((-12.5, 4.5), (-5.6, 12.6), (5.6, 4.5), (1.0, 18.0))
    for i, camera in enumerate(CAMERAS):
        record, opening = RIG[camera], float(camera.rsplit("_", 1)[1].removesuffix("fov"))
        forward = torch.tensor(record.rot)[:, 2]
        centre = torch.rad2deg(torch.atan2(forward[0], -forward[1])).item()
        at = (-record.position[1], record.position[0])
        fan = {"facecolor": TINTS[i], "alpha": 0.16, "edgecolor": TINTS[i]}
        axes.add_patch(Wedge(at, reach[camera], centre - opening / 2, centre + opening / 2, **fan))
        text = f"{i + 1}. {camera.removeprefix('camera_')}\nindex {ORDER.index(camera)}"
        axes.text(*places[i], text, color=TINTS[i], size=SMALL + 0.5, va="center")
    car(axes)
    axes.set_aspect("equal")
    axes.set_xlim(-14, 14)
    axes.set_ylim(-5, 20)
    return figure


def sequence() -> Figure:
    """What the language model reads and says, and what the expert reads."""
    figure = sheet(8.4, 2.1)
    axes = bare(figure, (0.02, 0.02, 0.96, 0.96))
    parts = [
        (1.0, "system", "", "#eef1f4"),
        (4.6, "16 images, camera by camera, oldest to newest", "180 tokens each", "#d7e6fb"),
        (1.5, "history", "48 tokens", "#e7e9ec"),
        (1.1, "task", "", "#eef1f4"),
        (2.0, "reasoning", "sampled", "#fbe3cf"),
        (2.2, "actions", "64 tokens", "#d9efe3"),
    ]
    x = 0.0
    for width, title, note, colour in parts:
        axes.add_patch(Rectangle((x, 0), width - 0.05, 1, facecolor=colour, edgecolor="none"))
        axes.text(x + width / 2, 0.62, title, ha="center", va="center", size=SMALL, color=INK)
        axes.text(x + width / 2, 0.3, note, ha="center", va="center", size=SMALL - 1, color=SOFT)
        x += width
    split = x - parts[-1][0]
    for left, right, y, text in (
        (0.0, split - 2.0, 1.25, "prompt: 3,006 tokens at 1080 x 1920"),
        (0.0, split, -0.3, "keys and values of every layer, read by the expert's layer of the same number"),
        (split, x, -0.3, "10 Euler steps"),
    ):
        axes.plot([left, right - 0.05], [y, y], color=FAINT, linewidth=1)
        axes.text((left + right) / 2, y + (0.15 if y > 0 else -0.2), text, ha="center", va="center", size=SMALL, color=SOFT)
    axes.set_xlim(-0.1, x + 0.1)
    axes.set_ylim(-0.8, 1.6)
    return figure


def a_page() -> Figure:
    """What `alpamayo-r1 run` draws of the first bundled clip."""
    source, planner = open_source("sample"), load("small")
    sample = source.clip(source.clip_ids[0]).sample(need_future=False)
    plan = planner.plan(sample.observation, samples=6, seed=42)
    figure = page(sample, plan, result(sample, plan, 42))
    figure.set_dpi(90)
    return figure


FILM_CLIP, FILM_TIMES = "e7ad8277-cabf-5f2a-b8e9-bf9d98b73490", range(4_000_000, 7_400_000, 200_000)
"""The bundled clip of a vehicle that cuts in, and the t0 of the film's pictures in microseconds."""


def a_film() -> bytes:
    """An animated WebP: pages of one bundled clip while t0 rolls on, at real speed, 960 pixels wide."""
    source, planner, pictures = open_source("sample"), load("small"), []
    for t0_us in FILM_TIMES:
        sample = source.clip(FILM_CLIP).sample(t0_us, need_future=False)
        plan = planner.plan(sample.observation, samples=6, seed=42)
        picture = Image.open(io.BytesIO(png(page(sample, plan, result(sample, plan, 42))))).convert("RGB")
        pictures.append(picture.resize((960, 540), Image.Resampling.LANCZOS))
    file, pace = io.BytesIO(), FILM_TIMES.step // 1000
    pictures[0].save(file, "WEBP", save_all=True, append_images=pictures[1:], duration=pace, loop=0, quality=62, method=4)
    return file.getvalue()


PICTURES = {"ego-frame": ego_frame, "timeline": timeline, "cameras": cameras, "sequence": sequence}


def main(wanted: list[str]) -> None:
    """Draws the wanted pictures, all where none is named."""
    OUT.mkdir(exist_ok=True)
    for name, draw in (PICTURES | {"page": a_page}).items():
        if not wanted or name in wanted:
            (OUT / f"{name}.png").write_bytes(png(draw()))
    if not wanted or "film" in wanted:
        (OUT / "film.webp").write_bytes(a_film())


if __name__ == "__main__":
    main(sys.argv[1:])
