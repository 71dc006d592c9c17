"""Objects over the background: the nearest hit of every sub-ray, shaded and averaged over the pixels, in two ways that draw the same."""

from __future__ import annotations

import torch

from alpamayo_r1.world.air import Air
from alpamayo_r1.world.intersect import hit_box, hit_round, nearest, nearest_dense
from alpamayo_r1.world.shade import shade
from alpamayo_r1.world.texture import Colour
from alpamayo_r1.world.view import View


def over_listed(slots, valid, air: Air, view: View, axes, back: Colour, fuse) -> Colour:
    """Foreground by lists: only the tiles that hold something, only the sub-rays that hit."""
    slots, valid = [s.flatten(0, 1) for s in slots], [v.flatten(0, 1) for v in valid]
    rows = (valid[0].any(1) | valid[1].any(1)).nonzero()[:, 0]
    (tiles, pixels), q = view.look[0].shape, view.q
    ray = tuple(v[rows % tiles] for v in view.ray)
    near_box, box = nearest(fuse(hit_box), slots[0][rows], valid[0][rows], ray)
    near_round, round_ = nearest(fuse(hit_round), slots[1][rows], valid[1][rows], ray)
    is_round, t = near_round < near_box, torch.minimum(near_box, near_round)
    slot = torch.where(is_round, round_ + slots[0].shape[1], box).long()
    g, r = (t < torch.inf).nonzero(as_tuple=True)
    table = torch.cat(slots, 1)
    p = table.flatten(0, 1)[slot[g, r] + rows[g] * table.shape[1]].t().contiguous().unbind(0)
    of = rows[g] // tiles
    per = tuple(tuple(v[of] for v in a) for a in axes)
    colour, opacity = fuse(shade)(p, tuple(v[g, r] for v in ray), t[g, r], is_round[g, r], air.rows((), of), per, view.pixel)
    at, share = rows[g] * pixels + r // q, opacity / q
    kept = torch.ones_like(back[0]).view(-1).index_add_(0, at, share, alpha=-1)
    return tuple((b.view(-1) * kept).index_add_(0, at, c * share).view(b.shape) for b, c in zip(back, colour))


def over_dense(slots, valid, air: Air, view: View, axes, back: Colour, fuse) -> Colour:
    """Foreground on an accelerator: every tile, every slot, static shapes."""
    boxes = nearest_dense(hit_box, slots[0], valid[0], view.ray, fuse)
    rounds = nearest_dense(hit_round, slots[1], valid[1], view.ray, fuse)
    return fuse(_composite)(boxes, rounds, torch.cat(slots, 2), slots[0].shape[2], view.ray, view.q, view.pixel, air, axes, back)


def _composite(boxes, rounds, table, box_slots: int, ray, q: int, pixel: torch.Tensor, air: Air, axes, back: Colour) -> Colour:
    """Shades the nearest hits of every tile and averages them over the background: each channel (I, n, m)."""
    is_round, t = rounds[0] < boxes[0], torch.minimum(boxes[0], rounds[0])
    pictures, tiles, most, width = table.shape
    slot = torch.where(is_round, rounds[1] + box_slots, boxes[1]).long()
    row = (torch.arange(pictures * tiles, device=t.device).view(pictures, tiles, 1) * most + slot) * width
    flat = table.flatten()
    p = [flat[row + i] for i in range(width)]
    per = tuple(tuple(v[:, None, None] for v in a) for a in axes)
    colour, opacity = shade(p, ray, t.clamp_max(1e4), is_round, air.rows((-1, 1, 1)), per, pixel)
    cover = torch.where(t < torch.inf, opacity, 0.0)

    def over(b, c):
        return (b[..., None] + (c - b.repeat_interleave(q, -1)).mul(cover).unflatten(-1, (-1, q))).mean(-1)

    return tuple(over(b, c) for b, c in zip(back, colour))
