"""The nominal rig's pictures, re-rendered from whatever cameras see that direction.

By rotation: a pixel of the nominal camera looks along a direction, and takes the colour that a real camera sees along it, as if all were
infinitely far. What is near shifts by the distance between the two cameras over its own; mount the real ones near the nominal places. With
`road`, a pixel below the horizon takes the colour of the point where it meets a flat road instead: lines and the feet of all that stands on
the road are then where they belong, and a thing's height below the horizon is off by the ratio of the two cameras' heights.

Resampling: where the real picture is finer than the view, it is first averaged over blocks of `reduce` pixels, then every pixel of the view
averages `fine` x `fine` bilinear samples. Both are chosen from how many real pixels a view's pixel spans, so nothing aliases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alpamayo_r1.core.geometry import Calibration

GREY = 127
"""What stands where no camera sees; never black, which a model takes for night or a covered lens."""

FINEST = 4
"""Bilinear samples per pixel and axis at most."""

COARSE = 96
"""Columns of the grid on which coverage is told quickly."""

WORTH = 0.002
"""Share of a view that one more camera must add to be used for it."""


@dataclass(frozen=True)
class Part:
    """What one real camera gives to a box of a view (first row and column, then those behind the last): where its picture is sampled
    f32 [1, fine h, fine w, 2], which of the samples count, and the share that it fills f32 [h, w].
    """

    camera: str
    size: tuple[int, int]
    reduce: int
    fine: int
    box: tuple[int, int, int, int]
    grid: torch.Tensor
    mask: torch.Tensor
    share: torch.Tensor


@dataclass(frozen=True)
class View:
    """A nominal camera as the real ones can show it. coverage: the share of its pixels that one of them sees."""

    calibration: Calibration
    parts: tuple[Part, ...]
    coverage: float

    @property
    def cameras(self) -> tuple[str, ...]:
        """The real cameras that are needed, the one that fills most first."""
        return tuple(part.camera for part in self.parts)

    def to(self, device: torch.device | str) -> View:
        """The same view, its grids on a device."""
        parts = tuple(
            Part(p.camera, p.size, p.reduce, p.fine, p.box, *(t.to(device) for t in (p.grid, p.mask, p.share))) for p in self.parts
        )
        return View(self.calibration, parts, self.coverage)

    def render(self, pictures: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Pictures of every needed camera u8 [K, 3, h', w'] -> the view u8 [K, 3, h, w], grey where none sees.

        Raises:
            ValueError: pictures of another size than the calibration's.
        """
        height, width = self.calibration.lens.height, self.calibration.lens.width
        count = len(next(iter(pictures.values()))) if pictures else 1
        device = self.parts[0].grid.device if self.parts else None
        view = torch.full((count, 3, height, width), float(GREY), device=device)
        for part in self.parts:
            picture = pictures[part.camera]
            if tuple(picture.shape[-2:]) != part.size:
                raise ValueError(
                    f"pictures of {part.camera} are {picture.shape[-1]} x {picture.shape[-2]} pixels, but its calibration is for "
                    f"{part.size[1]} x {part.size[0]}: give `size` as the pictures are"
                )
            top, left, bottom, right = part.box
            view[..., top:bottom, left:right] += _sampled(picture, part) - GREY * part.share
        return view.round_().clamp_(0, 255).to(torch.uint8)


def view_of(nominal: Calibration, cameras: Mapping[str, Calibration], road: bool = False) -> View:
    """The view of a nominal camera from real ones, at the nominal lens's size. road: what is below the horizon lies on a flat road.

    Cameras are taken in turn, each time the one that adds most: a pixel counts fully where the real picture is as fine as the view, less
    where it is coarser.
    """
    lens = nominal.lens
    ray = _ego_rays(nominal, 1)
    looks = {name: _look(camera, _from(camera, nominal, ray, road)) for name, camera in cameras.items()}
    left = torch.ones(lens.height, lens.width, dtype=torch.bool)
    parts: list[Part] = []
    while looks:
        worth = {
            name: float((pixels_seen & left).double().mul(fineness.clamp(max=1)).mean()) for name, (pixels_seen, fineness) in looks.items()
        }
        best = max(worth, key=lambda name: worth[name])
        seen, fineness = looks.pop(best)
        if float((seen & left).float().mean()) < WORTH:
            break
        parts.append(_part(best, cameras[best], nominal, fineness[seen & left], parts, road))
        left &= ~seen
    coverage = 1 - float(left.float().mean())
    return View(nominal, tuple(parts), coverage)


def coverage_of(nominal: Calibration, cameras: Mapping[str, Calibration], road: bool = False) -> float:
    """The share of a nominal camera's view that real ones see, to about a hundredth: quick, on a coarse grid."""
    lens = nominal.lens
    times = max(1, lens.width // COARSE)
    coarse = Calibration(lens.resized(lens.width // times, max(lens.height // times, 1)), nominal.position, nominal.rot)
    ray = _ego_rays(coarse, 1)
    seen = torch.zeros(ray.shape[:2], dtype=torch.bool)
    for camera in cameras.values():
        seen |= camera.lens.project(_from(camera, nominal, ray, road))[1]
    return float(seen.float().mean())


def _ego_rays(nominal: Calibration, fine: int) -> torch.Tensor:
    """Directions in the ego frame through a view's pixels, fine x fine per pixel: f64 [fine h, fine w, 3]."""
    lens = nominal.lens
    rows, columns = ((torch.arange(n * fine, dtype=torch.float64) + 0.5) / fine - 0.5 for n in (lens.height, lens.width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return lens.rays(torch.stack([x, y], -1)) @ torch.tensor(nominal.rot, dtype=torch.float64).T


def _from(camera: Calibration, nominal: Calibration, ray: torch.Tensor, road: bool) -> torch.Tensor:
    """Directions in a camera's frame in which it sees what the nominal one sees along rays of the ego frame: f64 [h, w, 3]."""
    if road and nominal.position[2] > 0 and camera.position[2] > 0:
        apart = torch.tensor(nominal.position, dtype=torch.float64) - torch.tensor(camera.position, dtype=torch.float64)
        fall = (-ray[..., 2:] / nominal.position[2]).clamp_min(0)  # 1 over the distance at which the ray meets the road
        ray = ray + fall * apart
    return ray @ torch.tensor(camera.rot, dtype=torch.float64)


def _look(camera: Calibration, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a camera sees the directions [h, w, 3], and how many of its pixels one pixel of the view spans there [h, w]."""
    pixel, seen = camera.lens.project(direction)
    across, down = (torch.gradient(pixel, dim=axis)[0].norm(dim=-1) for axis in (1, 0))
    return seen, torch.minimum(across, down).nan_to_num(0)


def _part(name: str, camera: Calibration, nominal: Calibration, fineness: torch.Tensor, before: list[Part], road: bool) -> Part:
    low, high = (float(fineness.quantile(q)) if len(fineness) < 2**24 else float(fineness.median()) for q in (0.02, 0.98))
    reduce = max(1, math.floor(low + 1e-6))
    fine = min(FINEST, max([1, math.ceil(high / reduce - 0.05)] + [part.fine for part in before]))
    lens = camera.lens
    pixel, seen = lens.project(_from(camera, nominal, _ego_rays(nominal, fine), road))
    for part in before:
        whole = torch.zeros(part.fine * nominal.lens.height, part.fine * nominal.lens.width, dtype=torch.bool)
        top, left, bottom, right = (part.fine * edge for edge in part.box)
        whole[top:bottom, left:right] = part.mask > 0
        seen &= ~_stretched(whole, fine // part.fine if fine % part.fine == 0 else 0, seen.shape)
    used = pixel.new_tensor([lens.width // reduce * reduce, lens.height // reduce * reduce])
    grid = (2 * (pixel + 0.5) / used - 1).nan_to_num(2.0).clamp(-2, 2)
    share = torch.nn.functional.avg_pool2d(seen.float()[None, None], fine)[0, 0]
    rows, columns = ((share > 0).any(axis).nonzero()[:, 0] for axis in (1, 0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    fined = tuple(slice(fine * first, fine * last) for first, last in (box[::2], box[1::2]))
    grid, mask, share = grid[fined].float()[None], seen[fined].float(), share[box[0] : box[2], box[1] : box[3]]
    return Part(name, (lens.height, lens.width), reduce, fine, box, grid.contiguous(), mask.contiguous(), share.contiguous())


def _stretched(mask: torch.Tensor, times: int, shape: torch.Size) -> torch.Tensor:
    """A mask at a finer sampling; by nearest neighbours where that is no multiple."""
    if times:
        return mask.repeat_interleave(times, 0).repeat_interleave(times, 1)
    return torch.nn.functional.interpolate(mask[None, None].float(), size=tuple(shape), mode="nearest")[0, 0] > 0.5


def _sampled(picture: torch.Tensor, part: Part) -> torch.Tensor:
    """A real camera's pictures u8 [K, 3, h', w'] at a part's samples, averaged per pixel: f32 [K, 3, h, w], 0 where it does not see."""
    colour = picture.to(part.grid.device).float()
    if part.reduce > 1:
        colour = torch.nn.functional.avg_pool2d(colour, part.reduce)
    grid = part.grid.expand(len(colour), -1, -1, -1)
    seen = torch.nn.functional.grid_sample(colour, grid, mode="bilinear", padding_mode="border", align_corners=False) * part.mask
    return torch.nn.functional.avg_pool2d(seen, part.fine) if part.fine > 1 else seen
