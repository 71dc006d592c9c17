"""Paths on a camera picture: a road corridor as wide as the car, or a thin line, through the lens of that camera.

Works on pixels, so the same function serves a page, a film and a viewer. All paths lie in the ego frame at t0, on the ground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.draw.style import LIGHT, ROAD, TRUTH

SPACING = 0.15
"""Metres between two points of a path that is drawn."""

SMOOTH = 2
"""The mask is drawn this many times larger, then shrunk."""

LIMIT = math.radians(150)
"""Angle from a camera's axis beyond which nothing is drawn."""


@dataclass(frozen=True)
class Ribbon:
    """A path to draw: xyz f32[T, 3] from the car on, a colour, a width on the ground in m (corridor) or None (a line of `line` pixels)."""

    xyz: torch.Tensor
    colour: str = ROAD
    width: float | None = None
    line: float = 2.0
    opacity: float = 1.0


def ribbons(plan_xyz: torch.Tensor, truth_xyz: torch.Tensor | None, best: int, width: float) -> list[Ribbon]:
    """What a page shows, in drawing order: best sample as a corridor, the others as thin lines, the truth as a thin red line."""
    others = [Ribbon(xyz, LIGHT, line=1.5, opacity=0.7) for i, xyz in enumerate(plan_xyz) if i != best]
    truth = [] if truth_xyz is None else [Ribbon(truth_xyz, TRUTH, line=2.6)]
    return [Ribbon(plan_xyz[best], width=width, opacity=0.45), *others, *truth]


def overlay(frame: torch.Tensor, calibration: Calibration, paths: list[Ribbon], *, width: int | None = None) -> np.ndarray:
    """frame u8[3, h, w] with paths painted on it -> u8[h', w', 3]; `width` enlarges it first, for finer lines. The lens may be of another
    size than the frame. Parts behind the camera or beyond the edge of the lens are not drawn."""
    from PIL import Image, ImageColor

    image = Image.fromarray(frame.permute(1, 2, 0).cpu().numpy())
    if width is not None and width != image.width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.BICUBIC)
    lens = calibration.lens.resized(*image.size)
    camera = Calibration(lens, calibration.position, calibration.rot)
    canvas = np.asarray(image, dtype=np.float32)
    for path in paths:
        mask = _mask(camera, path)
        canvas = canvas + mask[..., None] * (np.float32(ImageColor.getrgb(path.colour)) - canvas)
    return canvas.round().clip(0, 255).astype(np.uint8)


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


def _mask(camera: Calibration, path: Ribbon) -> np.ndarray:
    """Opacity f32[h, w] in 0..1 of one path."""
    from PIL import Image, ImageDraw

    size = (camera.lens.width, camera.lens.height)
    mask = Image.new("L", tuple(SMOOTH * n for n in size))
    pen = ImageDraw.Draw(mask)
    if path.width is None:
        centre = _even(torch.cat([path.xyz.new_zeros(1, 3), path.xyz]))
        _line(pen, camera, centre, path.line, round(255 * path.opacity))
    else:
        left, right = edges(path.xyz, path.width)
        _fill(pen, camera, left, right, path.opacity)
        for side in (left, right):
            _line(pen, camera, side, path.line, round(255 * min(1.0, 2 * path.opacity)))
    return np.asarray(mask.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255


def _fill(pen, camera: Calibration, left: torch.Tensor, right: torch.Tensor, opacity: float) -> None:
    """Quads from far to near, fading with distance."""
    (a, a_seen), (b, b_seen) = (project(camera, side) for side in (left, right))
    fade = torch.linspace(1, 0.6, len(left)).tolist()
    seen = (a_seen & b_seen).tolist()
    a, b = (_canvas(p) for p in (a, b))
    for i in reversed(range(len(a) - 1)):
        if seen[i] and seen[i + 1]:
            pen.polygon([a[i], a[i + 1], b[i + 1], b[i]], fill=round(255 * opacity * fade[i]))


def _line(pen, camera: Calibration, xyz: torch.Tensor, width: float, value: int) -> None:
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
    """The angle between the optical axis and the picture's farthest corner."""
    w, h = camera.lens.width - 1.0, camera.lens.height - 1.0
    corner = camera.lens.rays(torch.tensor([[0.0, 0.0], [w, 0.0], [0.0, h], [w, h]]))
    return float(torch.atan2(corner[:, :2].norm(dim=-1), corner[:, 2]).max())


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
