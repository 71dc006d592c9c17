"""The ray-casting renderer: a SceneBatch at given times -> camera pictures, in plain torch on any device.

A picture is cut into tiles (`view`). The background (`ground` painted by the road's (s, d), or the sky of `air`) is shaded once per pixel
with paint filtered analytically over the pixel's footprint; objects (`parts`, posed by `primitives`) are convex and hit by supersample^2
rays per pixel (`intersect`, `shade`, `composite`). Every tile keeps the `SLOTS` primitives of largest angular radius whose bounding sphere
it may see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from alpamayo_r1.core.geometry import Calibration, rot_z
from alpamayo_r1.core.types import CAMERAS, FRAMES
from alpamayo_r1.world.air import Air, air_over, sky_seen
from alpamayo_r1.world.composite import over_dense, over_listed
from alpamayo_r1.world.ground import ground_seen
from alpamayo_r1.world.primitives import Things, things_at
from alpamayo_r1.world.rig import RIG
from alpamayo_r1.world.scene import Kind, SceneBatch
from alpamayo_r1.world.texture import Colour, ready
from alpamayo_r1.world.view import Metres, View, gather, select, view_of

SLOTS = {"box": 16, "round": 16, "shadow": 8}
"""Primitives of a kind that one tile can hold."""


def render(
    scene: SceneBatch,
    step: torch.Tensor,
    *,
    width: int,
    height: int,
    cameras: Sequence[str] = CAMERAS,
    frames: int = FRAMES,
    **options,
) -> torch.Tensor:
    """Pictures at step-frames+1 .. step (B,), 10 Hz, oldest first -> u8 (B, C, K, 3, height, width). Options: see render_at."""
    ages = torch.arange(1 - frames, 1, device=step.device)
    return render_at(scene, step[:, None] + ages, width=width, height=height, cameras=cameras, **options)


def render_at(
    scene: SceneBatch,
    steps: torch.Tensor,
    *,
    width: int,
    height: int,
    cameras: Sequence[str] = CAMERAS,
    rig: Mapping[str, Calibration] = RIG,
    supersample: int = 2,
    markers: torch.Tensor | None = None,
    compile: bool = False,
    dense: bool | None = None,
    chunk: int | None = None,
    aside: Mapping[str, Metres] | None = None,
) -> torch.Tensor:
    """Pictures of B scenes at fractional steps (B, K) -> u8 (B, C, K, 3, height, width) on the scene's device.

    rig: what the cameras' names stand for. supersample: rays per pixel and axis for objects (the ground is filtered analytically).
    markers: world polylines (B, T, 2) painted magenta on the ground. dense: every tile and slot with static shapes (None: where compile is
    set), else lists of what is there. compile: fuse with torch.compile (CUDA). chunk: scenes rendered at once (None: by the picture size).
    aside: how far cameras really stand from their places; see `view_of`.
    """
    device = scene.ego.device
    steps = steps.to(device, torch.float32)
    batch, count = steps.shape
    dense = compile if dense is None else dense
    budget = (2**24 if compile else 2**22) * 4 if device.type != "cpu" else 2**18
    chunk = chunk or max(1, budget // (count * width * height))
    fuse = (_compiled if dense else _compiled_listed) if compile else _plain
    ready(device)
    out = torch.empty(batch, len(cameras), count, 3, height, width, dtype=torch.uint8, device=device)
    for first in range(0, batch, chunk):
        rows = slice(first, first + chunk)
        part = scene[rows]
        things, air = things_at(part, steps[rows]), air_over(part, count)
        lines = None if markers is None else markers[rows].to(device, torch.float32).repeat_interleave(count, 0)
        for c, name in enumerate(cameras):
            view = view_of(rig[name], width, height, supersample, device, (aside or {}).get(name, (0.0, 0.0, 0.0)))
            picture = _picture(part, things, air, view, lines, dense, fuse)
            out[rows, c] = picture.unflatten(0, (-1, count))
    return out


@cache
def _compiled(function):
    return torch.compile(function, fullgraph=True, dynamic=False)


@cache
def _compiled_listed(function):
    return torch.compile(function, dynamic=True)


def _plain(function):
    return function


def _picture(scene: SceneBatch, things: Things, air: Air, view: View, markers, dense: bool, fuse) -> torch.Tensor:
    """One camera: u8 (I, 3, h, w). fuse: what turns a function into a fused one."""
    turn = rot_z(things.ego[:, 2])
    position = (turn @ view.position[:, None])[..., 0] + torch.cat([things.ego[:, :2], torch.zeros_like(things.ego[:, :1])], -1)
    camera = (position, turn @ view.rot)
    back = _background(scene, things, air, view, camera, markers, dense, fuse)
    colour = _foreground(things, air, view, camera, back, dense, fuse)
    image = view.untile(torch.stack(colour, 1))
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _background(scene: SceneBatch, things: Things, air: Air, view: View, camera, markers, dense: bool, fuse) -> Colour:
    """Sky and ground at the pixel centres, each channel (I, n, m)."""
    position, rot = camera
    swept = torch.cat([things.shadows[..., :2] + things.shadows[..., 6:8] / 2, torch.zeros_like(things.shadows[..., :1])], -1)
    index, valid = select(swept, things.shadows[..., 9], view, position, rot, SLOTS["shadow"])
    slots = gather(things.shadows, index)
    urban = ((scene.prop_kind == Kind.BUILDING).any(1) | (scene.seeds % 2 == 0)).float()[:, None]
    shared = (things.ego, air.rows((-1, 1, 1)), view.pixel)
    where = (scene.road, urban, position)
    if dense:
        sky = fuse(sky_seen)(view.look, *shared)
        ground = fuse(ground_seen)(view.look, *shared, *where, slots, valid, markers, None)
        return tuple(torch.where(view.look[2] < -1e-4, g, s) for g, s in zip(ground, sky))
    out = tuple(position.new_empty(len(position), *view.look[0].shape) for _ in range(3))
    for channel, s in zip(out, fuse(sky_seen)(tuple(v[view.sky] for v in view.look), *shared)):
        channel[:, view.sky] = s
    look = tuple(v[view.ground] for v in view.look)
    ground = ground_seen(look, *shared, *where, slots[:, view.ground], valid[:, view.ground], markers, fuse)
    for channel, g in zip(out, ground):
        channel[:, view.ground] = torch.where(look[2] < -1e-4, g, channel[:, view.ground])
    return out


def _foreground(things: Things, air: Air, view: View, camera, back: Colour, dense: bool, fuse) -> Colour:
    """Objects over the background, averaged over the sub-rays of every pixel: each channel (I, n, m)."""
    position, rot = camera
    slots, valid = [], []
    for sort, most in ((things.boxes, SLOTS["box"]), (things.rounds, SLOTS["round"])):
        index, there = select(sort.centre, sort.radius, view, position, rot, most)
        slots.append(gather(sort.seen_from(position, rot), index))
        valid.append(there)
    axes = tuple(rot[:, r].unbind(-1) for r in range(3))
    if not dense:
        return over_listed(slots, valid, air, view, axes, back, fuse)
    return over_dense(slots, valid, air, view, axes, back, fuse)
