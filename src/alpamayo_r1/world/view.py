"""A camera's picture cut into tiles: the rays of its pixels, and which bounding spheres a tile may see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from alpamayo_r1.core.geometry import Calibration, Lens

TILE = {"cpu": (8, 14), "cuda": (16, 28)}
"""Target height and width of a tile in pixels of a 224x128 picture; larger pictures have larger tiles."""


@dataclass(frozen=True)
class View:
    """One camera at one size, cut into n tiles of m pixels: everything that does not depend on the scene.

    ray: camera-frame unit rays (n, m * q) x 3, q sub-rays a pixel; look: ego-frame rays through the pixel centres (n, m) x 3;
    pixel: radians per pixel; axis, angle: cones around the tiles, axes in the camera frame (n, 3) and half angles (n,);
    ground, sky: numbers of the tiles that show some of it; position, rot: the camera in the ego frame.
    """

    width: int
    height: int
    tile: tuple[int, int]
    tiles: tuple[int, int]
    q: int
    pixel: torch.Tensor
    ray: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    look: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    axis: torch.Tensor
    angle: torch.Tensor
    ground: torch.Tensor
    sky: torch.Tensor
    position: torch.Tensor
    rot: torch.Tensor

    def untile(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n, m) -> (..., height, width)."""
        x = x.unflatten(-1, self.tile).unflatten(-3, self.tiles).transpose(-3, -2)
        return x.flatten(-4, -3).flatten(-2)[..., : self.height, : self.width]


Metres = tuple[float, float, float]
"""A place or a way in the ego frame."""


@lru_cache(maxsize=64)
def view_of(record: Calibration, width: int, height: int, supersample: int, device: torch.device, aside: Metres = (0.0, 0.0, 0.0)) -> View:
    """The camera as seen by supersample^2 sub-rays per pixel, width x height pixels. Where its lens has no ray, the axis is taken.

    aside: it really stands so far from its place, and its pictures are those that `rig.views` makes of what it sees for its place: a
    pixel below the horizon shows the point of a flat road that it would show there, one above the same direction.
    """
    lens = record.lens.resized(width, height)
    scale = max(1.0, math.sqrt(width * height / (224 * 128)) * 0.8)
    tall, wide = TILE.get(device.type, TILE["cuda"])
    tiles = max(1, round(height / (tall * scale))), max(1, round(width / (wide * scale)))
    tile = -(-height // tiles[0]), -(-width // tiles[1])

    rot = torch.tensor(record.rot, dtype=torch.float64)
    fine, centre = _rays(lens, tiles, tile, supersample).flatten(1, 2), _rays(lens, tiles, tile, 1)[:, :, 0]
    if any(aside):
        fine, centre = (_aimed(rays @ rot.T, record.position[2], aside) @ rot for rays in (fine, centre))
    axis = torch.nn.functional.normalize(fine.mean(1), dim=-1)
    angle = (fine @ axis[:, :, None])[..., 0].clamp(-1, 1).arccos().amax(1)
    look = centre @ rot.T
    falling = look[..., 2] < -1e-4

    def put(t: torch.Tensor) -> torch.Tensor:
        return t.to(device, torch.float32).contiguous()

    def put3(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, y, z = (put(v) for v in t.unbind(-1))
        return x, y, z

    return View(
        width=width,
        height=height,
        tile=tile,
        tiles=tiles,
        q=supersample**2,
        pixel=put(torch.tensor(1 / lens.focal)),
        ray=put3(fine),
        look=put3(look),
        axis=put(axis),
        angle=put(angle),
        ground=falling.any(1).nonzero()[:, 0].to(device),
        sky=(~falling).any(1).nonzero()[:, 0].to(device),
        position=put(torch.tensor(record.position, dtype=torch.float64) + torch.tensor(aside, dtype=torch.float64)),
        rot=put(rot),
    )


def _aimed(rays: torch.Tensor, height: float, aside: Metres) -> torch.Tensor:
    """Ego-frame unit rays (..., 3) of a camera `height` above a flat road, from `aside` of it to the points of the road that they meet."""
    down = rays[..., 2:]
    meets = rays * (-height / down.clamp_max(-1e-4)) - torch.tensor(aside, dtype=rays.dtype)
    return torch.where(down < -1e-4, torch.nn.functional.normalize(meets, dim=-1), rays)


def _rays(lens: Lens, tiles: tuple[int, int], tile: tuple[int, int], sub: int) -> torch.Tensor:
    """Camera-frame rays (n, m, sub^2, 3)."""
    at = (torch.arange(sub, dtype=torch.float64) + 0.5) / sub - 0.5
    rows = torch.arange(tiles[0] * tile[0], dtype=torch.float64)[:, None] + at
    cols = torch.arange(tiles[1] * tile[1], dtype=torch.float64)[:, None] + at
    y, x = torch.broadcast_tensors(rows[:, None, :, None], cols[None, :, None, :])
    r = lens.rays(torch.stack([x, y], -1))  # (H, W, sub, sub, 3)
    r = torch.where(r.isnan(), r.new_tensor([0.0, 0.0, 1.0]), r)
    r = r.unflatten(1, (tiles[1], tile[1])).unflatten(0, (tiles[0], tile[0])).transpose(1, 2)
    return r.flatten(4, 5).flatten(2, 3).flatten(0, 1)


def turned(look, ego) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ego-frame rays (n, m) x 3 in the world frame of pictures with poses ego (I, 3): (I, n, m) x 3."""
    cos, sin = ego[:, 2].cos()[:, None, None], ego[:, 2].sin()[:, None, None]
    x, y, z = look
    return cos * x - sin * y, sin * x + cos * y, z.expand(len(ego), -1, -1)


def select(centre: torch.Tensor, radius: torch.Tensor, view: View, position, rot, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The up to `most` bounding spheres a tile may see, widest first: indices and validity, both (I, n, P)."""
    seen = (centre - position[:, None]) @ rot
    distance = seen.norm(dim=-1).clamp_min(1e-6)
    width = torch.where(distance > radius, (radius / distance).clamp_max(1).asin(), math.pi)
    off = ((seen / distance[..., None]) @ view.axis.T).clamp(-1, 1).acos()  # (I, N, n)
    score = torch.where((off < width[..., None] + view.angle) & (radius > 0)[..., None], width[..., None], 0.0)
    top = score.transpose(1, 2).topk(min(most, radius.shape[1]), dim=-1)
    return top.indices, top.values > 0


def gather(parameters: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(I, N, F) at (I, n, P) -> (I, n, P, F)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, parameters.shape[-1])
    return parameters.gather(1, flat).unflatten(1, index.shape[1:])
