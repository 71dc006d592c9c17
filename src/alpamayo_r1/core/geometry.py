"""Rotations, frames and the f-theta lens. Pure functions on tensors; any leading batch dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


def yaw_of(rot: torch.Tensor) -> torch.Tensor:
    """Yaw of a rotation matrix, atan2(R10, R00): rot [..., 3, 3] -> [...] radians."""
    return torch.atan2(rot[..., 1, 0], rot[..., 0, 0])


def rot_z(yaw: torch.Tensor) -> torch.Tensor:
    """Rotation about z: yaw [...] -> [..., 3, 3]."""
    c, s, o, i = yaw.cos(), yaw.sin(), torch.zeros_like(yaw), torch.ones_like(yaw)
    return torch.stack([c, -s, o, s, c, o, o, o, i], -1).unflatten(-1, (3, 3))


def unwrap(angle: torch.Tensor) -> torch.Tensor:
    """Removes jumps of 2 pi along the last axis, like numpy.unwrap."""
    d = angle.diff(dim=-1)
    d = torch.remainder(d + torch.pi, 2 * torch.pi) - torch.pi
    return torch.cat([angle[..., :1], angle[..., :1] + d.cumsum(-1)], -1)


def to_frame(xyz: torch.Tensor, rot: torch.Tensor, origin: torch.Tensor, axes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """World to local: (R^T (x - o), R^T rot). xyz [..., T, 3], rot [..., T, 3, 3], origin [..., 3], axes [..., 3, 3]."""
    local = (xyz - origin[..., None, :]) @ axes
    return local, axes.transpose(-1, -2)[..., None, :, :] @ rot


class Lens(Protocol):
    """A camera model for pictures of one size: points in the camera frame (x right, y down, z forward) to pixels, and pixels to rays."""

    @property
    def width(self) -> int:
        """Pixels across."""
        ...

    @property
    def height(self) -> int:
        """Pixels down."""
        ...

    @property
    def focal(self) -> float:
        """Pixels per radian on the axis."""
        ...

    def project(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points [..., 3] -> pixels [..., 2] and whether they are seen [...]."""
        ...

    def rays(self, pixel: torch.Tensor) -> torch.Tensor:
        """Pixels [..., 2] -> unit rays [..., 3]."""
        ...

    def resized(self, width: int, height: int) -> Lens:
        """The same lens behind a picture scaled to width x height."""
        ...


@dataclass(frozen=True)
class FTheta:
    """An f-theta lens: a ray at angle theta from the optical axis lands r(theta) = sum_i fw[i] theta^i pixels from (cx, cy).

    Camera frame x right, y down, z forward. An integer pixel index is the pixel's centre. `bw` is the inverse polynomial theta(r).
    """

    width: int
    height: int
    cx: float
    cy: float
    fw: tuple[float, ...]
    bw: tuple[float, ...]

    @property
    def focal(self) -> float:
        """Pixels per radian on the axis."""
        return self.fw[1]

    def project(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in the camera frame [..., 3] -> pixels [..., 2] and a mask [...]: in front of the camera and inside the picture."""
        radial = point[..., :2].norm(dim=-1)
        theta = torch.atan2(radial, point[..., 2])
        r = evaluate_polynomial(self.fw, theta)
        direction = point[..., :2] / radial.clamp_min(1e-9)[..., None]
        pixel = torch.stack([self.cx + r * direction[..., 0], self.cy + r * direction[..., 1]], -1)
        inside = (pixel > -0.5).all(-1) & (pixel[..., 0] < self.width - 0.5) & (pixel[..., 1] < self.height - 0.5)
        return pixel, inside & (point[..., 2] > 0)

    def rays(self, pixel: torch.Tensor) -> torch.Tensor:
        """Pixels [..., 2] -> unit rays in the camera frame [..., 3]."""
        offset = pixel - torch.tensor([self.cx, self.cy], dtype=pixel.dtype, device=pixel.device)
        r = offset.norm(dim=-1)
        theta = evaluate_polynomial(self.bw, r)
        direction = offset / r.clamp_min(1e-9)[..., None]
        return torch.cat([theta.sin()[..., None] * direction, theta.cos()[..., None]], -1)

    def resized(self, width: int, height: int) -> FTheta:
        """The same lens behind a picture scaled to width x height (same aspect ratio within a pixel)."""
        k = width / self.width
        return FTheta(
            width,
            height,
            (self.cx + 0.5) * k - 0.5,
            (self.cy + 0.5) * height / self.height - 0.5,
            tuple(c * k for c in self.fw),
            tuple(c / k**i for i, c in enumerate(self.bw)),
        )


@dataclass(frozen=True)
class Calibration:
    """One camera on the car: its lens and its pose in the ego frame, p_ego = rot @ p_camera + position."""

    lens: Lens
    position: tuple[float, float, float]
    rot: tuple[tuple[float, float, float], ...]

    def project(self, point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points in the ego frame [..., 3] -> pixels [..., 2] and visibility [...]."""
        rot = torch.tensor(self.rot, dtype=point.dtype, device=point.device)
        position = torch.tensor(self.position, dtype=point.dtype, device=point.device)
        return self.lens.project((point - position) @ rot)


def evaluate_polynomial(coefficients: Sequence[float], x: torch.Tensor) -> torch.Tensor:
    """sum_i c_i x^i, by Horner's rule."""
    y = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        y = y * x + c
    return y
