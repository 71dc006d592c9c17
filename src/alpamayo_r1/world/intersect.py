"""Where rays meet primitives: the two intersections, and the nearest hit over the slots of a tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

STRIDE, BUSY = 4, 0.375
"""On an accelerator: slots in one fused step of the search, and the share of tiles (the fullest) it looks at after the first step."""


def local_ray(p: Sequence[torch.Tensor], ray):
    """Origin and direction of camera rays in a primitive's own frame."""
    return p[9:12], tuple(p[3 * r] * ray[0] + p[3 * r + 1] * ray[1] + p[3 * r + 2] * ray[2] for r in range(3))


def _nonzero(x):
    return torch.where(x.abs() < 1e-9, 1e-9, x)


def hit_box(p: Sequence[torch.Tensor], ray) -> torch.Tensor:
    """Distance to a tapered box: the latest entry before the earliest exit of six half spaces; infinity for a miss."""
    (ox, oy, oz), (dx, dy, dz) = local_ray(p, ray)
    hx, hy, hz, front, rear, side, cut = p[12:19]
    inverse = 1 / _nonzero(dz)
    near, far = (-hz * inverse.sign() - oz) * inverse, (hz * inverse.sign() - oz) * inverse
    planes = ((hx - ox - front * oz, dx + front * dz), (hx + ox - rear * oz, rear * dz - dx))
    planes += ((hy - oy - side * oz, dy + side * dz), (hy + oy - side * oz, side * dz - dy))
    for gap, slope in planes:
        t = gap / _nonzero(slope)
        enters = slope < 0
        near = torch.where(enters, torch.maximum(near, t), near)
        far = torch.where(enters, far, torch.minimum(far, t))
    inside = ((oy + dy * near).abs() + (oz + dz * near).abs()) <= cut
    return torch.where((near < far) & (near > 0.05) & inside, near, torch.inf)


def hit_round(p: Sequence[torch.Tensor], ray) -> torch.Tensor:
    """Distance to x^2 + y^2 + e z^2 <= (a - b z)^2 within |z| <= 1; infinity for a miss."""
    (ox, oy, oz), (dx, dy, dz) = local_ray(p, ray)
    e, a, b = p[15:18]
    k = e - b * b
    qa = (dx * dx + dy * dy + k * dz * dz).clamp_min(1e-9)
    qb = ox * dx + oy * dy + (k * oz + a * b) * dz
    qc = ox * ox + oy * oy + (k * oz + 2 * a * b) * oz - a * a
    root = qb * qb - qa * qc
    reach = root.clamp_min(0).sqrt()
    inverse = 1 / _nonzero(dz)
    near = torch.maximum((-qb - reach) / qa, (-inverse.sign() - oz) * inverse)
    far = torch.minimum((reach - qb) / qa, (inverse.sign() - oz) * inverse)
    return torch.where((root > 0) & (near < far) & (near > 0.05), near, torch.inf)


def _nearer(hit, best, which, first, slots, valid, ray) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest hit so far and its slot (G / n, n, r), after the few slots (G / n, n, few, 25) numbered from the tensor `first`."""
    for j in range(slots.shape[2]):
        p = [v[..., None] for v in slots[:, :, j].unbind(-1)]
        t = torch.where(valid[:, :, j, None], hit(p, ray), torch.inf)
        which = torch.where(t < best, first + j, which)
        best = torch.minimum(best, t)
    return best, which


def nearest_dense(hit, slots, valid, ray, fuse) -> tuple[torch.Tensor, torch.Tensor]:
    """Running minimum over the slots of every tile: distance and slot (I, n, r). slots (I, n, P, 25), ray (n, r) x 3."""

    def step(best, which, j: int, slots, valid, ray):
        first = torch.full((), j, dtype=torch.int32, device=slots.device)
        few = slots[:, :, j : j + STRIDE].contiguous(), valid[:, :, j : j + STRIDE].contiguous()
        return fuse(_nearer)(hit, best, which, first, *few, ray)

    best = torch.full((*slots.shape[:2], ray[0].shape[1]), torch.inf, device=slots.device)
    best, which = step(best, torch.zeros_like(best, dtype=torch.int32), 0, slots, valid, ray)
    pictures, tiles = best.shape[:2]
    busy = valid.sum(-1).flatten().topk(math.ceil(pictures * tiles * BUSY), sorted=False).indices
    near, slot = (v.flatten(0, 1)[None, busy] for v in (best, which))
    slots, valid = (v.flatten(0, 1)[None, busy] for v in (slots, valid))
    ray = tuple(v[busy % tiles] for v in ray)
    for j in range(STRIDE, slots.shape[2], STRIDE):
        near, slot = step(near, slot, j, slots, valid, ray)
    best, which = (v.flatten(0, 1).index_copy(0, busy, p[0]).view(v.shape) for v, p in ((best, near), (which, slot)))
    return best, which


def nearest(hit, slots: torch.Tensor, valid: torch.Tensor, ray) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for listed tiles G, skipping empty slots: distance and slot (G, r). slots (G, P, 25), valid (G, P), ray (G, r) x 3."""
    best = torch.full(ray[0].shape, torch.inf, device=slots.device)
    which = torch.zeros_like(best, dtype=torch.int32)
    for j in range(slots.shape[1]):
        rows = valid[:, j].nonzero()[:, 0]
        if not len(rows):
            break
        t = hit([v[:, None] for v in slots[rows, j].unbind(-1)], tuple(v[rows] for v in ray))
        old = best[rows]
        which[rows] = torch.where(t < old, j, which[rows])
        best[rows] = torch.minimum(old, t)
    return best, which
