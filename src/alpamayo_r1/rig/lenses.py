"""Camera models: a pinhole with OpenCV's distortion, and radial lenses (Kannala-Brandt fisheye, f-theta).

Each is a record in pixels of one picture size. Camera frame: x right, y down, z forward; an integer pixel index is the pixel's centre.
A lens is used where it is one-to-one, its valid field: outside it, `project` says "not seen" and `rays` gives NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from alpamayo_r1.core.geometry import Lens, evaluate_polynomial

FINE = 4001
"""Points of the table in which the end of a lens's valid field is sought."""

NEWTON = 30
"""Newton steps at most when a lens is inverted; 4 to 8 are needed."""

EXACT = 1e-11
"""Residual of an inversion, in units of the focal length, that counts as solved."""

WIDEST = 5.0
"""Tangent of the largest angle from the axis at which a pinhole is used, 79 degrees."""


@dataclass(frozen=True)
class Pinhole:
    """x = X/Z, y = Y/Z, r^2 = x^2 + y^2, then OpenCV's distortion k1 k2 p1 p2 k3 k4 k5 k6 (those not given are 0):

        g  = (1 + k1 r^2 + k2 r^4 + k3 r^6) / (1 + k4 r^2 + k5 r^4 + k6 r^6)
        x' = x g + 2 p1 x y + p2 (r^2 + 2 x^2)        u = fx x' + cx
        y' = y g + p1 (r^2 + 2 y^2) + 2 p2 x y        v = fy y' + cy

    Valid field: up to the radius at which r g(r) stops growing, and no farther than WIDEST.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @property
    def focal(self) -> float:
        """Pixels per radian on the axis."""
        return (self.fx + self.fy) / 2

    @cached_property
    def limit(self) -> float:
        """Largest r of the valid field."""
        r = np.linspace(0, WIDEST, FINE)
        k1, k2, _, _, k3, k4, k5, k6 = self._coefficients
        below = 1 + r**2 * (k4 + r**2 * (k5 + r**2 * k6))
        with np.errstate(divide="ignore", invalid="ignore"):
            distorted = r * (1 + r**2 * (k1 + r**2 * (k2 + r**2 * k3))) / below
        grows = (np.diff(distorted) > 0) & (below[1:] > 0)
        return float(r[-1] if grows.all() else r[np.argmin(grows)])

    def project(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in the camera frame [..., 3] -> pixels [..., 2] and whether they are seen [...]: in the valid field and the picture."""
        ahead = point[..., 2]
        flat = point[..., :2] / torch.where(ahead > 1e-9, ahead, torch.full_like(ahead, torch.nan))[..., None]
        pixel = self._to_pixel(self._distort(flat)[0])
        return pixel, in_picture(self, pixel) & (flat.norm(dim=-1) <= self.limit)

    def rays(self, pixel: torch.Tensor) -> torch.Tensor:
        """Pixels [..., 2] -> unit rays in the camera frame [..., 3] of the same dtype; NaN outside the valid field."""
        target = (pixel.double() - pixel.new_tensor([self.cx, self.cy]).double()) / pixel.new_tensor([self.fx, self.fy]).double()
        guess = target.clone()
        for _ in range(NEWTON):
            value, ((a, b), (c, d)) = self._distort(guess)
            off = value - target
            if bool((off.abs().amax(-1) < EXACT).all()):
                break
            det = a * d - b * c
            det = torch.where(det.abs() < 1e-9, torch.full_like(det, 1e-9), det)
            step = torch.stack([d * off[..., 0] - b * off[..., 1], a * off[..., 1] - c * off[..., 0]], -1) / det[..., None]
            guess = _within(guess - step, 1.2 * self.limit)
        value, ((a, b), (c, d)) = self._distort(guess)
        solved = ((value - target).abs().amax(-1) < 1e3 * EXACT) & (guess.norm(dim=-1) <= self.limit) & (a * d - b * c > 0)
        ray = torch.nn.functional.normalize(torch.cat([guess, torch.ones_like(guess[..., :1])], -1), dim=-1)
        return torch.where(solved[..., None], ray, torch.nan).to(pixel.dtype)

    def resized(self, width: int, height: int) -> Pinhole:
        """The same lens behind a picture scaled to width x height."""
        return replace(self, **_scaled(self, width, height))

    @property
    def _coefficients(self) -> tuple[float, ...]:
        return (*self.distortion, *(0.0,) * (8 - len(self.distortion)))

    def _to_pixel(self, flat: torch.Tensor) -> torch.Tensor:
        return flat * flat.new_tensor([self.fx, self.fy]) + flat.new_tensor([self.cx, self.cy])

    def _distort(self, flat: torch.Tensor) -> tuple[torch.Tensor, tuple[tuple[torch.Tensor, ...], ...]]:
        """(x, y) -> (x', y') and the Jacobian ((dx'/dx, dx'/dy), (dy'/dx, dy'/dy))."""
        k1, k2, p1, p2, k3, k4, k5, k6 = self._coefficients
        x, y = flat.unbind(-1)
        r2 = x * x + y * y
        above, below = (1 + r2 * (a + r2 * (b + r2 * c)) for a, b, c in ((k1, k2, k3), (k4, k5, k6)))
        rise, fall = (a + r2 * (2 * b + 3 * r2 * c) for a, b, c in ((k1, k2, k3), (k4, k5, k6)))
        g, slope = above / below, (rise * below - above * fall) / below**2  # slope = dg / d(r^2)
        value = torch.stack([x * g + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * g + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], -1)
        cross = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
        return value, (
            (g + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x, cross),
            (cross, g + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x),
        )


@dataclass(frozen=True)
class Radial:
    """A lens that turns the angle theta from the axis into a radius: u = fx r(theta) cos(phi) + cx, v = fy r(theta) sin(phi) + cy, with
    r(theta) = sum_i polynomial[i] theta^i.

    Valid field: from the axis to the angle at which r stops growing, at most 180 degrees; theta over 90 degrees is behind the lens's plane
    and may be seen.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    polynomial: tuple[float, ...]

    @property
    def focal(self) -> float:
        """Pixels per radian on the axis."""
        return self.polynomial[1] * (self.fx + self.fy) / 2

    @cached_property
    def limit(self) -> float:
        """Largest theta of the valid field."""
        theta = np.linspace(0, math.pi, FINE)
        grows = np.diff(np.polynomial.polynomial.polyval(theta, self.polynomial)) > 0
        return float(theta[-1] if grows.all() else theta[np.argmin(grows)])

    def project(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in the camera frame [..., 3] -> pixels [..., 2] and whether they are seen [...]: in the valid field and the picture."""
        aside = point[..., :2].norm(dim=-1)
        theta = torch.atan2(aside, point[..., 2])
        direction = point[..., :2] / aside.clamp_min(1e-12)[..., None]
        flat = evaluate_polynomial(self.polynomial, theta)[..., None] * direction
        pixel = flat * flat.new_tensor([self.fx, self.fy]) + flat.new_tensor([self.cx, self.cy])
        return pixel, in_picture(self, pixel) & (theta <= self.limit)

    def rays(self, pixel: torch.Tensor) -> torch.Tensor:
        """Pixels [..., 2] -> unit rays in the camera frame [..., 3] of the same dtype; NaN outside the valid field."""
        flat = (pixel.double() - pixel.new_tensor([self.cx, self.cy]).double()) / pixel.new_tensor([self.fx, self.fy]).double()
        r = flat.norm(dim=-1)
        table = torch.linspace(0, self.limit, FINE, dtype=torch.float64, device=pixel.device)
        radius = evaluate_polynomial(self.polynomial, table)
        at = torch.searchsorted(radius, r.contiguous()).clamp(1, FINE - 1)
        share = ((r - radius[at - 1]) / (radius[at] - radius[at - 1])).clamp(0, 1)
        theta = table[at - 1] + share * (table[at] - table[at - 1])
        slope = tuple(i * c for i, c in enumerate(self.polynomial))[1:]
        for _ in range(4):
            theta = theta - (evaluate_polynomial(self.polynomial, theta) - r) / evaluate_polynomial(slope, theta).clamp_min(1e-6)
        solved = (r <= radius[-1]) & ((evaluate_polynomial(self.polynomial, theta) - r).abs() < 1e3 * EXACT * max(1.0, float(radius[-1])))
        direction = flat / r.clamp_min(1e-12)[..., None]
        ray = torch.cat([theta.sin()[..., None] * direction, theta.cos()[..., None]], -1)
        return torch.where(solved[..., None], ray, torch.nan).to(pixel.dtype)

    def resized(self, width: int, height: int) -> Radial:
        """The same lens behind a picture scaled to width x height."""
        return replace(self, **_scaled(self, width, height))


def fisheye(width: int, height: int, fx: float, fy: float, cx: float, cy: float, k: tuple[float, ...]) -> Radial:
    """Kannala-Brandt as OpenCV's fisheye: r = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)."""
    odd = [0.0, 1.0, *(value for c in k for value in (0.0, c))]
    return Radial(width, height, fx, fy, cx, cy, tuple(odd))


def f_theta(width: int, height: int, cx: float, cy: float, polynomial: tuple[float, ...]) -> Radial:
    """NVIDIA's f-theta: r(theta) = sum_i polynomial[i] theta^i in pixels."""
    return Radial(width, height, 1.0, 1.0, cx, cy, polynomial)


def in_picture(lens: Lens, pixel: torch.Tensor) -> torch.Tensor:
    """Whether pixels [..., 2] lie in the lens's picture [...]; NaN does not."""
    return (pixel >= -0.5).all(-1) & (pixel[..., 0] <= lens.width - 0.5) & (pixel[..., 1] <= lens.height - 0.5)


def _within(flat: torch.Tensor, radius: float) -> torch.Tensor:
    """Points [..., 2] drawn to a circle about the origin."""
    return flat * (radius / flat.norm(dim=-1, keepdim=True).clamp_min(radius))


def _scaled(lens: Pinhole | Radial, width: int, height: int) -> dict[str, float]:
    """The fields that change with the size of the picture."""
    across, down = width / lens.width, height / lens.height
    return {
        "width": width,
        "height": height,
        "fx": lens.fx * across,
        "fy": lens.fy * down,
        "cx": (lens.cx + 0.5) * across - 0.5,
        "cy": (lens.cy + 0.5) * down - 0.5,
    }
