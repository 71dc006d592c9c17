"""Paths on a camera picture: a road corridor as wide as the car, or a thin line, through the lens of that camera.

Works on pixels, so the same function serves a page, a film and a viewer. All paths lie in the ego frame at t0, on the ground. Where the
boxes around the car are known, what lies behind them is not drawn; where they are not, paths are drawn over whatever stands on the road.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.core.types import Obstacle
from alpamayo_r1.draw.style import LIGHT, ROAD, TRUTH

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Pen

SPACING = 0.15
"""Metres between two points of a path that is drawn."""

SMOOTH = 2
"""The mask is drawn this many times larger, then shrunk."""

LIMIT = math.radians(150)
"""Angle from a camera's axis beyond which nothing is drawn."""


SHAPES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "car": ((-0.5, 0.5, 0.6), (-0.33, 0.24, 1.0)),
    "truck": ((-0.5, 0.5, 0.8), (-0.5, 0.24, 1.0)),
}
"""What of an obstacle's box is opaque: parts from x to x (shares of the length) as high as a share of the height; others wholly."""

LABEL, READABLE = 13, 600
"""Height in pixels of the numbers at the marks on a picture 1000 pixels wide, and the width in pixels below which there are none."""


@dataclass(frozen=True)
class Ribbon:
    """A path to draw: xyz f32[T, 3] from the car on, a colour, a width on the ground in m (corridor) or None (a line of `line` pixels).

    marks: indices of xyz at which a line is drawn across a corridor and numbered 1, 2, 3, ... begins_at_car: a line starts at the origin.
    """

    xyz: torch.Tensor
    colour: str = ROAD
    width: float | None = None
    line: float = 2.0
    opacity: float = 1.0
    marks: tuple[int, ...] = ()
    begins_at_car: bool = True


def ribbons(plan_xyz: torch.Tensor, truth_xyz: torch.Tensor | None, chosen: int, width: float) -> list[Ribbon]:
    """What a page shows, in drawing order: the chosen sample as a corridor with its seconds marked, the others and the truth as lines."""
    others = [Ribbon(xyz, LIGHT, line=1.5, opacity=0.7) for i, xyz in enumerate(plan_xyz) if i != chosen]
    truth = [] if truth_xyz is None else [Ribbon(truth_xyz, TRUTH, line=2.6)]
    seconds = tuple(range(9, plan_xyz.shape[1], 10))
    return [Ribbon(plan_xyz[chosen], width=width, opacity=0.45, marks=seconds), *others, *truth]


def overlay(
    frame: torch.Tensor,
    calibration: Calibration,
    paths: Sequence[Ribbon],
    *,
    width: int | None = None,
    obstacles: Sequence[Obstacle] = (),
) -> np.ndarray:
    """frame u8[3, h, w] with paths painted on it -> u8[h', w', 3]; `width` enlarges it first, for finer lines.

    The lens may be of another size than the frame. Parts behind the camera, beyond the lens's edge or behind an obstacle are not drawn.
    """
    from PIL import Image, ImageColor

    image = Image.fromarray(frame.permute(1, 2, 0).cpu().numpy())
    if width is not None and width != image.width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BICUBIC)
    lens = calibration.lens.resized(*image.size)
    camera = Calibration(lens, calibration.position, calibration.rot)
    masks = [_mask(camera, path) for path in paths]
    seen = _in_front(camera, np.any([np.asarray(m) > 0 for m in masks], axis=0), obstacles) if obstacles and masks else None
    canvas = np.asarray(image, dtype=np.float32)
    for path, mask in zip(paths, masks):
        if seen is not None:
            mask = Image.fromarray(np.asarray(mask) * seen)
        share = np.asarray(mask.resize(image.size, Image.Resampling.BOX), dtype=np.float32) / 255
        canvas = canvas + share[..., None] * (np.asarray(ImageColor.getrgb(path.colour), dtype=np.float32) - canvas)
    painted = Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8))
    for path in paths:
        _number(painted, camera, path, seen)
    return np.asarray(painted).copy()


def project(camera: Calibration, xyz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Points [..., 3] of the ego frame -> pixels [..., 2], which may lie beside the picture, and whether they may be drawn [...].

    Beyond the picture's farthest corner the lens goes on in a straight line, where its polynomial would fold back; so a shape that begins
    behind the camera leaves the picture where it should. Directions within LIMIT of straight back are not drawn.
    """
    rot, position = torch.tensor(camera.rot, dtype=xyz.dtype), torch.tensor(camera.position, dtype=xyz.dtype)
    local = (xyz - position) @ rot
    aside = local[..., :2] / local[..., :2].norm(dim=-1, keepdim=True).clamp_min(1e-9)
    angle = torch.atan2(local[..., :2].norm(dim=-1), local[..., 2])
    edge = _edge(camera)
    pixel = _at_angle(camera, aside, angle.clamp_max(edge))
    slope = (_at_angle(camera, aside, torch.full_like(angle, edge)) - _at_angle(camera, aside, torch.full_like(angle, edge - 0.01))) / 0.01
    return pixel + slope * (angle - edge).clamp_min(0)[..., None], angle < LIMIT


def edges(xyz: torch.Tensor, width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Left and right border [N, 3] of a corridor along a path [T, 3] that starts at the car; resampled evenly."""
    centre = _even(torch.cat([xyz.new_zeros(1, 3), xyz]))
    along = torch.nn.functional.pad(centre.diff(dim=0), (0, 0, 1, 0))
    along[0] = along[1] if len(along) > 1 else along.new_tensor([1.0, 0.0, 0.0])
    along = torch.nn.functional.normalize(_soft(along), dim=-1)
    left = torch.stack([-along[:, 1], along[:, 0], torch.zeros_like(along[:, 0])], -1) * width / 2
    return centre + left, centre - left


def marks(path: Ribbon) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
    """Number and the two ends [3] of each line across a corridor; left out where the car is almost where it was at the mark before."""
    if path.width is None or not path.marks:
        return []
    found, before = [], path.xyz.new_zeros(3)
    for number, index in enumerate(path.marks, 1):
        here = path.xyz[index]
        if float((here - before).norm()) > 1.0:
            left, right = edges(path.xyz[: index + 1], 1.25 * path.width)
            found.append((number, left[-1], right[-1]))
            before = here
    return found


def _mask(camera: Calibration, path: Ribbon) -> Picture:
    """Opacity of one path as a picture in grey, SMOOTH times as large as the camera's."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (SMOOTH * camera.lens.width, SMOOTH * camera.lens.height))
    pen = ImageDraw.Draw(mask)
    if path.width is None:
        centre = _even(torch.cat([path.xyz.new_zeros(int(path.begins_at_car), 3), path.xyz]))
        _line(pen, camera, centre, path.line, round(255 * path.opacity))
        return mask
    left, right = edges(path.xyz, path.width)
    _fill(pen, camera, left, right, path.opacity)
    strong = round(255 * min(1.0, 2 * path.opacity))
    for side in (left, right):
        _line(pen, camera, side, path.line, strong)
    for _, a, b in marks(path):
        _line(pen, camera, _even(torch.stack([a, b])), path.line, strong)
    return mask


def _number(image: Picture, camera: Calibration, path: Ribbon, seen: np.ndarray | None) -> None:
    """Writes "1 s", "2 s", ... beside the marks of a path, where they can be read and nothing stands before them."""
    from PIL import ImageDraw, ImageFont

    if image.width < READABLE:
        return
    size = LABEL * image.width / 1000
    outline: dict[str, Any] = {"stroke_width": round(size / 8), "stroke_fill": "#0b3d7d"}
    font, pen, last = ImageFont.load_default(size), ImageDraw.Draw(image), math.inf
    for number, _, right in marks(path):
        pixel, drawn = project(camera, right)
        x, y = pixel.tolist()
        inside = bool(drawn) and size < x < image.width - 2.2 * size and size < y < image.height - size
        if inside and last - y > 1.1 * size and (seen is None or seen[round(SMOOTH * y), round(SMOOTH * x)]):
            pen.text((x + 0.3 * size, y), f"{number} s", fill="white", font=font, anchor="lm", **outline)
            last = y


def _in_front(camera: Calibration, wanted: np.ndarray, obstacles: Sequence[Obstacle]) -> np.ndarray:
    """u8[h, w] for wanted bool[h, w] pixels of the enlarged picture: 0 where an obstacle stands before the ground, else 1.

    A ray from the camera meets the ground at t_g = -o_z / d_z, and an upright box where it has entered all three slabs and left none,
    t_in = max over axes of the nearer plane, t_out = min of the farther; the ground is hidden where 0 < t_in < min(t_out, t_g).
    """
    row, column = np.nonzero(wanted)
    pixel = torch.from_numpy(np.stack([column, row], -1)).double() / SMOOTH - 0.5 + 0.5 / SMOOTH
    ray = camera.lens.rays(pixel) @ torch.tensor(camera.rot, dtype=torch.float64).T
    ground = torch.where(ray[:, 2] < -1e-6, -camera.position[2] / ray[:, 2], torch.inf)
    hidden = torch.zeros(len(ray), dtype=torch.bool)
    for obstacle in obstacles:
        some = _toward(obstacle, camera, ray)
        c, s = math.cos(obstacle.yaw), math.sin(obstacle.yaw)
        turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
        foot = torch.tensor([obstacle.x, obstacle.y, 0.0], dtype=torch.float64)
        eye, along = (torch.tensor(camera.position, dtype=torch.float64) - foot) @ turn, ray[some] @ turn
        slope = torch.where(along.abs() < 1e-12, 1e-12, along)
        for centre, half in _parts(obstacle):
            near, far = ((side * half - (eye - centre)) / slope for side in (-along.sign(), along.sign()))
            enter, leave = near.amax(-1), far.amin(-1)
            hidden[some] |= (enter > 0) & (enter < leave) & (enter < ground[some] - 0.05)
    seen = np.ones(wanted.shape, dtype=np.uint8)
    seen[row, column] = ~hidden.numpy()
    return seen


def _toward(obstacle: Obstacle, camera: Calibration, ray: torch.Tensor) -> torch.Tensor:
    """Indices of the unit rays [N, 3] that may meet an obstacle: those within the cone around the ball that holds it."""
    radius = math.hypot(obstacle.length, obstacle.width, obstacle.height) / 2
    way = torch.tensor([obstacle.x, obstacle.y, obstacle.height / 2], dtype=ray.dtype) - torch.tensor(camera.position, dtype=ray.dtype)
    distance = float(way.norm())
    least = math.sqrt(1 - (radius / distance) ** 2) if distance > radius else -math.inf
    return (ray @ (way / max(distance, radius)) >= least - 1e-9).nonzero()[:, 0]


def _parts(obstacle: Obstacle) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Centre [3] in the obstacle's own axes and half extents [3] of its opaque boxes."""
    found = []
    for rear, front, high in SHAPES.get(obstacle.kind, ((-0.5, 0.5, 1.0),)):
        centre = (obstacle.length * (rear + front) / 2, 0.0, obstacle.height * high / 2)
        half = (obstacle.length * (front - rear) / 2, obstacle.width / 2, obstacle.height * high / 2)
        found.append((torch.tensor(centre, dtype=torch.float64), torch.tensor(half, dtype=torch.float64)))
    return found


def _fill(pen: Pen, camera: Calibration, left: torch.Tensor, right: torch.Tensor, opacity: float) -> None:
    """Quads from far to near, fading with distance."""
    (a, a_seen), (b, b_seen) = (project(camera, side) for side in (left, right))
    fade = torch.linspace(1, 0.6, len(left)).tolist()
    seen = (a_seen & b_seen).tolist()
    a, b = (_canvas(p) for p in (a, b))
    for i in reversed(range(len(a) - 1)):
        if seen[i] and seen[i + 1]:
            pen.polygon([a[i], a[i + 1], b[i + 1], b[i]], fill=round(255 * opacity * fade[i]))


def _line(pen: Pen, camera: Calibration, xyz: torch.Tensor, width: float, value: int) -> None:
    pixel, seen = project(camera, xyz)
    points, seen = _canvas(pixel), seen.tolist()
    run: list[tuple[float, float]] = []
    for point, visible in [*zip(points, seen), (None, False)]:
        if visible:
            run.append(point)
            continue
        if len(run) > 1:
            pen.line(run, fill=value, width=round(SMOOTH * width), joint="curve")
        run = []


def _canvas(pixel: torch.Tensor) -> list[tuple[float, float]]:
    """Pixel centres -> coordinates of the enlarged mask."""
    return [tuple(p) for p in ((pixel + 0.5) * SMOOTH).clamp(-1e5, 1e5).tolist()]


def _at_angle(camera: Calibration, aside: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Pixel of the ray at an angle from the optical axis, to the side aside [..., 2] (unit)."""
    return camera.lens.project(torch.cat([aside * angle.sin()[..., None], angle.cos()[..., None]], -1))[0]


def _edge(camera: Calibration) -> float:
    """The angle between the optical axis and the farthest corner or side of the picture that the lens sees."""
    w, h = camera.lens.width - 1.0, camera.lens.height - 1.0
    border = torch.tensor([[0.0, 0.0], [w, 0.0], [0.0, h], [w, h], [w / 2, 0.0], [w / 2, h], [0.0, h / 2], [w, h / 2]])
    ray = camera.lens.rays(border.double())
    return float(torch.atan2(ray[:, :2].norm(dim=-1), ray[:, 2]).nan_to_num(0.0).max())


def _even(xyz: torch.Tensor) -> torch.Tensor:
    """The same path with a point every SPACING metres, [T, 3] -> [N, 3], N >= 1."""
    length = torch.cat([xyz.new_zeros(1), xyz.diff(dim=0).norm(dim=-1).cumsum(0)])
    total = float(length[-1])
    at = torch.linspace(0, total, max(round(total / SPACING), 1) + 1, dtype=xyz.dtype) if total > SPACING else xyz.new_zeros(1)
    upper = torch.searchsorted(length, at).clamp(1, len(length) - 1)
    share = ((at - length[upper - 1]) / (length[upper] - length[upper - 1]).clamp_min(1e-9))[:, None]
    return xyz[upper - 1] + share * (xyz[upper] - xyz[upper - 1])


def _soft(along: torch.Tensor) -> torch.Tensor:
    """Directions averaged over about a metre, so that borders don't kink where a path does."""
    reach = min(7, (len(along) - 1) // 2 * 2 + 1)
    padded = torch.nn.functional.pad(along.T[None], (reach // 2, reach // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, reach, stride=1)[0].T
