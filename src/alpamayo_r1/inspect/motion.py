"""How a camera moved over the road, from its pictures alone.

The road before a camera is resampled to a map in metres, as its calibration says: x along the camera's azimuth, y to the left. If that is
right, the maps of two pictures differ by a rigid motion of the plane: the correlation of their spectra finds it coarsely, Gauss-Newton on
the brightness exactly, with the error of the camera's pitch as one more unknown. Turning is read from what is far, the strip above the
horizon, which shifts by the angle that the car turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from alpamayo_r1.core.geometry import Calibration

CELL = 0.15
"""Metres between two points of the map."""

NEAR, LENGTH, WIDTH = 1.6, 60, 80
"""The map begins so many camera heights ahead, and has so many cells along and across."""

SURE = 0.5
"""Correlation from which a step is believed."""

ROUNDS = 8
"""Steps of Gauss-Newton."""

STRIP = (240, 24)
"""Columns and rows of the strip above the horizon: 80 degrees across, 1 to 17 degrees up."""


@dataclass(frozen=True)
class Motion:
    """What pictures say of N steps between frames, in the ego frame as the calibration has it.

    step f64[N, 2]: metres that the car moved, forward and left. match f64[N]: correlation of the two maps after it, 1 is perfect.
    turn f64[N]: radians that it turned to the left, by the strip; match_far f64[N]: correlation of the strips. pitch f64[N]: radians by
    which the camera looks further down than its calibration says, by how the road's speed changes with distance.
    """

    step: np.ndarray
    match: np.ndarray
    turn: np.ndarray
    match_far: np.ndarray
    pitch: np.ndarray

    @cached_property
    def sure(self) -> np.ndarray:
        """Steps whose maps fit: bool [N]."""
        return self.match > SURE


@dataclass(frozen=True)
class Ground:
    """A camera's map of the road: where its picture is sampled, f32 [1, LENGTH, WIDTH, 2]; share of the map that it sees; and likewise of
    the strip. azimuth: of the optical axis, radians to the left; position: of the camera on the car.
    """

    grid: torch.Tensor
    seen: torch.Tensor
    strip: torch.Tensor
    strip_seen: torch.Tensor
    azimuth: float
    position: tuple[float, float, float]

    @property
    def coverage(self) -> float:
        """Share of the map that the camera sees."""
        return float(self.seen.float().mean())


def ground_of(camera: Calibration) -> Ground:
    """The map of a camera."""
    rot = torch.tensor(camera.rot, dtype=torch.float64)
    axis = rot[:, 2]
    azimuth = math.atan2(float(axis[1]), float(axis[0]))
    c, s = math.cos(azimuth), math.sin(azimuth)
    along = torch.tensor([c, s, 0.0], dtype=torch.float64)
    left = torch.tensor([-s, c, 0.0], dtype=torch.float64)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    height = max(camera.position[2], 0.05)
    x = NEAR * height + CELL * torch.arange(LENGTH, dtype=torch.float64)
    y = CELL * (torch.arange(WIDTH, dtype=torch.float64) - (WIDTH - 1) / 2)
    ray = x[:, None, None] * along + y[None, :, None] * left - height * up
    angle = torch.deg2rad(torch.linspace(40, -40, STRIP[0], dtype=torch.float64))
    rise = torch.deg2rad(torch.linspace(17, 1, STRIP[1], dtype=torch.float64))
    flat = angle.cos()[:, None] * along + angle.sin()[:, None] * left
    far = rise.cos()[:, None, None] * flat + rise.sin()[:, None, None] * up
    grid, seen = _grid(camera, ray @ rot)
    strip, strip_seen = _grid(camera, far @ rot)
    return Ground(grid, seen, strip, strip_seen, azimuth, camera.position)


def motion_of(ground: Ground, first: torch.Tensor, second: torch.Tensor, moving: np.ndarray) -> Motion:
    """The motion between grey pictures f32 [N, 1, h, w] and those a step later. moving: whether the car moves in a step, bool [N].

    Steps are found twice: freely, and with the median of their pitches for all, which steadies them.
    """
    if not len(first):
        nothing = np.zeros(0)
        return Motion(np.zeros((0, 2)), nothing, nothing, nothing, nothing)
    maps = _across(_sampled(torch.cat([first, second]), ground.grid), ground)
    before, after = maps[: len(first)], maps[len(first) :]
    height = max(ground.position[2], 0.05)
    free, match = _aligned(before, after, height, torch.from_numpy(moving))
    fits = match > SURE
    pitch = float(free[fits, 3].median()) if fits.any() else 0.0
    parameters, match = _aligned(before, after, height, torch.from_numpy(moving), pitch)
    far_before, far_after = (_high(_sampled(p, ground.strip), ground.strip_seen) for p in (first, second))
    turn, match_far = _slide(far_before, far_after, ground.strip_seen)
    found = parameters.double().numpy()
    return Motion(_in_ego(ground, CELL * found[:, :2], found[:, 2]), match.double().numpy(), turn, match_far, free[:, 3].double().numpy())


def _in_ego(ground: Ground, shift: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The map's motion -> how far the rear axle moved. A point p of the second map was at q = R(turn) (p - m) + m + shift in the first,
    with m the middle of the map; the car's own point moves along with it.
    """
    middle = np.array([NEAR * ground.position[2] + CELL * (LENGTH - 1) / 2, 0.0])
    c, s = math.cos(ground.azimuth), math.sin(ground.azimuth)
    axes = np.array([[c, -s], [s, c]])
    here = axes @ middle + np.array(ground.position[:2])
    moved = shift @ axes.T
    turned = np.stack([np.cos(turn) * here[0] - np.sin(turn) * here[1], np.sin(turn) * here[0] + np.cos(turn) * here[1]], -1)
    return moved + here - turned


def _grid(camera: Calibration, ray: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    pixel, seen = camera.lens.project(ray)
    size = pixel.new_tensor([camera.lens.width, camera.lens.height])
    return (2 * (pixel + 0.5) / size - 1).nan_to_num(2.0).clamp(-2, 2).float()[None], seen


def _sampled(picture: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    grid = grid.expand(len(picture), -1, -1, -1)
    return torch.nn.functional.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0]


def _across(x: torch.Tensor, ground: Ground) -> torch.Tensor:
    """Maps' changes along the car's own x axis: lines painted along the road, which say nothing of how far it went, vanish. Every place
    counts alike, by its local contrast.
    """
    c, s = math.cos(ground.azimuth), -math.sin(ground.azimuth)
    rows, columns = torch.gradient(x, dim=(1, 2))
    change = torch.where(_inner(ground.seen), c * rows + s * columns, 0.0)
    change = change - change.mean(0) * (len(x) > 8)  # what stays in place in all pictures is the car's own, or of the pixels
    level = change.flatten(1).std(1)
    local = _local_mean(change**2, 13).sqrt()
    return (change / (local + 0.2 * level[:, None, None] + 0.3)).clamp(-2.5, 2.5)


def _local_mean(x: torch.Tensor, side: int) -> torch.Tensor:
    """Means [N, a, b] over squares of an odd side about each place, as far as they lie inside."""
    for shape in ((side, 1), (1, side)):
        x = torch.nn.functional.avg_pool2d(x, shape, 1, (shape[0] // 2, shape[1] // 2), count_include_pad=False)
    return x


def _inner(seen: torch.Tensor) -> torch.Tensor:
    """Cells whose neighbours are seen too."""
    return torch.nn.functional.avg_pool2d(seen.float()[None, None], 3, 1, 1, count_include_pad=False)[0, 0] > 0.99


def _high(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Strips [N, a, b] without their slow changes and with unit deviation, 0 where not seen."""
    slow = _local_mean(x, 15)
    high = torch.where(seen, x - slow, 0.0)
    level = high.flatten(1).std(1)
    return high / level.clamp_min(0.3)[:, None, None]


def _aligned(
    a: torch.Tensor, b: torch.Tensor, height: float, moving: torch.Tensor, pitch: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift in cells (2), turn and pitch (given, or found) by which maps b lie on maps a, [N, 4]; and their correlation [N]."""
    coarse = torch.cat([_correlate(a, b, moving), torch.zeros(len(a), 2)], 1)
    coarse[:, 3] = pitch or 0.0
    field = torch.stack([a, *torch.gradient(a, dim=(1, 2))], 1)
    parameters = coarse
    for step in range(ROUNDS):
        parameters = parameters + _gauss_newton(field, b, parameters, height, 0.5 if step < 3 else 1.0, pitch is None)
    before, after = (_matched(a, b, p, height) for p in (coarse, parameters))
    better = after >= before
    return torch.where(better[:, None], parameters, coarse), torch.maximum(before, after)


def _correlate(a: torch.Tensor, b: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """Whole-cell shifts [N, 2] by which maps b lie on maps a: the peak of the cross-correlation, weighed by what still overlaps. Where the
    car moves, no shift is no answer: what stays in place belongs to the pixels.
    """
    size = (2 * a.shape[1], 2 * a.shape[2])
    spectrum = torch.fft.rfft2(a, s=size) * torch.fft.rfft2(b, s=size).conj()
    peak = torch.fft.irfft2(spectrum, s=size)
    shifts = [torch.fft.fftfreq(n, 1 / n) for n in size]
    left = [(1 - shift.abs() * 2 / n).clamp_min(0) for shift, n in zip(shifts, size)]
    overlap = left[0][:, None] * left[1][None, :]
    allowed = (overlap > 0.2) & ~(moving[:, None, None] & (shifts[0].abs() < 2)[:, None] & (shifts[1].abs() < 2)[None, :])
    peak = torch.where(allowed, peak / overlap.clamp_min(0.05).sqrt(), -torch.inf)
    at = peak.flatten(1).argmax(1)
    return torch.stack([shifts[0][at // size[1]], shifts[1][at % size[1]]], 1)


def _cells(height: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows and columns of the map's cells about its middle, [LENGTH, 1] and [1, WIDTH], and rows counted from the camera's foot."""
    rows = (torch.arange(LENGTH, dtype=torch.float32) - (LENGTH - 1) / 2)[:, None]
    columns = (torch.arange(WIDTH, dtype=torch.float32) - (WIDTH - 1) / 2)[None, :]
    return rows, columns, rows + (LENGTH - 1) / 2 + NEAR * height / CELL


def _moved(parameters: torch.Tensor, height: float) -> torch.Tensor:
    """Where cells of b lie on a: [N, LENGTH, WIDTH, 2] in cells about the middle.

    A camera that looks further down by e than it says puts a point p of the road at p - e (h + x^2 / h, x y / h); a shift d is then seen
    as (dx (1 - 2 e x / h), dy - e (y dx + x dy) / h).
    """
    r, c, x = _cells(height)
    dx, dy, turn, pitch = (p[:, None, None] for p in parameters.unbind(1))
    k = pitch * CELL / height
    return torch.stack(
        [turn.cos() * r - turn.sin() * c + dx * (1 - 2 * k * x), turn.sin() * r + turn.cos() * c + dy - k * (c * dx + x * dy)], -1
    )


def _taken(field: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [N, channels, LENGTH, WIDTH] at cells [N, LENGTH, WIDTH, 2] about the middle, and whether those lie inside."""
    half = where.new_tensor([(LENGTH - 1) / 2, (WIDTH - 1) / 2])
    grid = (where / half).flip(-1)
    return torch.nn.functional.grid_sample(field, grid, align_corners=True), (grid.abs() <= 1).all(-1)


def _gauss_newton(field: torch.Tensor, b: torch.Tensor, parameters: torch.Tensor, height: float, most: float, tilts: bool) -> torch.Tensor:
    """One step of least squares on a(moved) - b over shift, turn and pitch; field: a and its slopes."""
    taken, inside = _taken(field, _moved(parameters, height))
    value, down, across = taken.unbind(1)
    r, c, x = _cells(height)
    dx, dy = (p[:, None, None] for p in parameters[:, :2].unbind(1))
    k = CELL / height
    tilt = -k * tilts * (2 * x * dx * down + (c * dx + x * dy) * across)
    jacobian = torch.stack([down, across, across * r - down * c, tilt], -1).flatten(1, 2) * inside.flatten(1)[..., None]
    error = ((b - value) * inside).flatten(1)
    normal = jacobian.transpose(1, 2) @ jacobian + torch.diag(torch.tensor([1.0, 1.0, 100.0, 100.0]))
    step = torch.linalg.solve(normal, (jacobian.transpose(1, 2) @ error[..., None]))[..., 0]
    bound = step.new_tensor([most, most, 0.02, 0.03])
    return step.clamp(-bound, bound)


def _matched(a: torch.Tensor, b: torch.Tensor, parameters: torch.Tensor, height: float) -> torch.Tensor:
    """Correlation [N] of a (moved) with b where both are."""
    value, inside = _taken(a[:, None], _moved(parameters, height))
    share = inside.float().flatten(1)
    count = share.sum(1, keepdim=True).clamp_min(1)
    v, w = ((x.flatten(1) - (x.flatten(1) * share).sum(1, keepdim=True) / count) * share for x in (value[:, 0], b))
    found = (v * w).sum(1) / ((v**2).sum(1) * (w**2).sum(1)).sqrt().clamp_min(1e-6)
    return torch.where(count[:, 0] > 0.12 * share.shape[1], found, 0.0)


def _slide(a: torch.Tensor, b: torch.Tensor, seen: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Radians [N] to the left that the car turned between strips, and their correlation: the best shift, to a fraction of a column."""
    reach = 36
    kept = seen.all(0)
    columns = slice(reach, STRIP[0] - reach)
    scores = []
    # a point at azimuth u (columns go from left to right) is at u - turn after a turn to the left: it moves to the right
    for shift in range(-reach, reach + 1):
        part = slice(reach + shift, STRIP[0] - reach + shift)
        both = (kept[columns] & kept[part]).float()
        v, w = a[:, :, columns] * both, b[:, :, part] * both
        scores.append((v * w).sum((1, 2)) / ((v**2).sum((1, 2)) * (w**2).sum((1, 2))).sqrt().clamp_min(1e-6))
    table = torch.stack(scores, 1)
    best = table.argmax(1).clamp(1, 2 * reach - 1)
    row = torch.arange(len(table))
    low, mid, high = (table[row, best + d] for d in (-1, 0, 1))
    fraction = ((low - high) / (2 * (low - 2 * mid + high)).clamp_max(-1e-9)).clamp(-0.5, 0.5)
    per_column = math.radians(80 / (STRIP[0] - 1))
    return ((best - reach + fraction) * per_column).double().numpy(), mid.double().numpy()
