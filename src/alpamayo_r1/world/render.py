"""The ray-casting renderer: a SceneBatch at given times -> camera pictures, in plain torch on any device.

A picture is cut into tiles. The background (flat ground painted by the road's (s, d), or sky) is shaded once per pixel with paint filtered
analytically over the pixel's footprint; objects are convex primitives (tapered boxes, ellipsoids, cylinders, cones) hit by
supersample^2 rays per pixel. Every tile keeps the `SLOTS` primitives of largest angular radius whose bounding sphere it may see.
Colours are display values 0..1 as tuples (r, g, b) of floats or tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import torch

from ..geometry import rot_z
from ..types import CAMERAS, FRAMES
from .rig import RIG
from .scene import Kind, Road, SceneBatch

Colour = tuple
TILE = {"cpu": (8, 14), "cuda": (16, 28)}
"""Target height and width of a tile in pixels of a 224x128 picture; larger pictures have larger tiles."""
SLOTS = {"box": 16, "round": 16, "shadow": 8}
"""Primitives of a kind that one tile can hold."""
STRIDE, BUSY = 4, 0.375
"""On an accelerator: slots in one fused step of the search, and the share of tiles (the fullest) it looks at after the first step."""


class Paint(IntEnum):
    """How the shading pass colours a primitive from the hit point's local coordinates."""

    PLAIN = 0
    BODY = 1
    CABIN = 2
    WINDOWS = 3
    LIGHT = 4
    SIGN = 5
    FOLIAGE = 6
    CONE = 7
    CARGO = 8


@dataclass(frozen=True)
class Part:
    """One primitive of a thing: centre and half extents = metres + share x (length, width, height), z from the ground.

    `form` of a box: (front taper, rear taper, side taper, corner cut): x + front z <= hx, -x + rear z <= hx, |y| + side z <= hy,
    |y| + |z| <= cut. `form` of a round: (e, a, b): x^2 + y^2 + e z^2 <= (a - b z)^2 in coordinates scaled to |z| <= 1.
    `tint` mixes the thing's own colour (1) with `colour` (0); `swing` is the amplitude in radians about the part's top while walking.
    """

    at: tuple[float, float, float]
    half: tuple[float, float, float]
    at_share: tuple[float, float, float] = (0, 0, 0)
    half_share: tuple[float, float, float] = (0, 0, 0)
    form: tuple[float, float, float, float] = (0, 0, 0, 1e4)
    round: bool = False
    paint: Paint = Paint.PLAIN
    tint: float = 1.0
    colour: tuple[float, float, float] = (0, 0, 0)
    aux: float = 0.0
    swing: float = 0.0


def _box(at, half, at_share=(0, 0, 0), half_share=(0, 0, 0), form=(0, 0, 0, 1e4), **look) -> Part:
    return Part(at, half, at_share, half_share, form, **look)


def _round(at, half, at_share=(0, 0, 0), half_share=(0, 0, 0), *, form, **look) -> Part:
    return Part(at, half, at_share, half_share, (*form, 0), round=True, **look)


ELLIPSOID, CYLINDER = (1, 1, 0), (0, 1, 0)
O = (0, 0, 0)


def _cone(top: float) -> tuple[float, float, float]:
    """A cone whose radius falls from 1 at the bottom to `top` at the top."""
    return (0, (1 + top) / 2, (1 - top) / 2)


def _limb(y: float, z: float, half: float, radius: float, swing: float, **look) -> Part:
    return _round((0, y, 0), (radius, radius, 0), (0, 0, z), (0, 0, half), form=_cone(1.25), swing=swing, **look)


_TROUSERS, _SKIN = {"tint": 0.0, "colour": (0.17, 0.19, 0.27)}, {"tint": 0.0, "colour": (0.80, 0.61, 0.50)}
_STEEL, _BLACK = {"tint": 0.0, "colour": (0.46, 0.47, 0.48)}, {"tint": 0.0, "colour": (0.07, 0.075, 0.08)}
_LEAVES = {"paint": Paint.FOLIAGE, "form": ELLIPSOID}

PARTS: dict[Kind, tuple[Part, ...]] = {
    Kind.CAR: (
        _box(O, O, (0, 0, 0.30), (0.5, 0.5, 0.30), (0.10, 0.06, 0.10, 1e4), paint=Paint.BODY, aux=0.335),
        _box(O, O, (-0.045, 0, 0.79), (0.285, 0.455, 0.21), (1.15, 0.75, 0.32, 1e4), paint=Paint.CABIN),
    ),
    Kind.VAN: (
        _box(O, O, (0, 0, 0.25), (0.5, 0.5, 0.25), (0.08, 0.02, 0.03, 1e4), paint=Paint.BODY, aux=0.35),
        _box(O, O, (-0.04, 0, 0.745), (0.45, 0.485, 0.255), (0.75, 0.06, 0.10, 1e4), paint=Paint.CABIN),
    ),
    Kind.TRUCK: (
        _box(O, O, (0, 0, 0.15), (0.5, 0.48, 0.15), paint=Paint.BODY, tint=0.0, colour=(0.20, 0.20, 0.21), aux=0.48),
        _box(O, O, (-0.13, 0, 0.64), (0.37, 0.5, 0.36), paint=Paint.CARGO, tint=0.25, colour=(0.88, 0.88, 0.86)),
        _box(O, O, (0.38, 0, 0.50), (0.115, 0.47, 0.30), (0.22, 0, 0.04, 1e4), paint=Paint.CABIN),
    ),
    Kind.PEDESTRIAN: (
        _limb(0.085, 0.25, 0.25, 0.068, 0.5, **_TROUSERS),
        _limb(-0.085, 0.25, 0.25, 0.068, -0.5, **_TROUSERS),
        _round(O, (0.125, 0.19, 0), (0, 0, 0.65), (0, 0, 0.19), form=_cone(1.15)),
        _limb(0.245, 0.64, 0.17, 0.052, -0.45),
        _limb(-0.245, 0.64, 0.17, 0.052, 0.45),
        _round(O, (0.10, 0.085, 0), (0, 0, 0.925), (0, 0, 0.072), form=ELLIPSOID, **_SKIN),
        _round((-0.02, 0, 0.02), (0.102, 0.09, 0), (0, 0, 0.945), (0, 0, 0.058), form=ELLIPSOID, tint=0.0, colour=(0.16, 0.11, 0.08)),
    ),
    Kind.CONE: (
        _round((0, 0, 0.03), O, (0, 0, 0.5), (0.38, 0.38, 0.48), form=_cone(0.16), paint=Paint.CONE),
        _box((0, 0, 0.02), (0, 0, 0.02), O, (0.5, 0.5, 0), tint=0.0, colour=(0.75, 0.28, 0.08)),
    ),
    Kind.TRAFFIC_LIGHT: (
        _round(O, (0.08, 0.08, 0), (0, 0, 0.5), (0, 0, 0.5), form=CYLINDER, **_STEEL),
        _box((0.30, 0, -0.80), (0.14, 0.27, 0.74), (0, 0, 1), paint=Paint.LIGHT, **_BLACK),
        _box((0.13, 0, -0.80), (0.02, 0.44, 0.92), (0, 0, 1), tint=0.0, colour=(0.16, 0.165, 0.17)),
    ),
    Kind.STOP_SIGN: (
        _round((0, 0, -0.1), (0.045, 0.045, -0.1), (0, 0, 0.5), (0, 0, 0.5), form=CYLINDER, **_STEEL),
        _box((0.07, 0, -0.42), (0.015, 0.42, 0.42), (0, 0, 1), form=(0, 0, 0, 0.594), paint=Paint.SIGN, tint=0.0, colour=(0.6, 0.6, 0.6)),
    ),
    Kind.TREE: (
        _round(O, (0.17, 0.17, 0), (0, 0, 0.27), (0, 0, 0.27), form=_cone(0.6), tint=0.0, colour=(0.34, 0.27, 0.21)),
        _round(O, O, (0, 0, 0.67), (0.46, 0.46, 0.31), **_LEAVES),
        _round(O, O, (0.20, 0.14, 0.53), (0.34, 0.34, 0.20), **_LEAVES, aux=1.7),
        _round(O, O, (-0.17, -0.2, 0.56), (0.34, 0.32, 0.21), **_LEAVES, aux=3.1),
        _round(O, O, (0.05, -0.12, 0.84), (0.30, 0.30, 0.16), **_LEAVES, aux=5.3),
    ),
    Kind.BUILDING: (
        _box(O, O, (0, 0, 0.5), (0.5, 0.5, 0.5), paint=Paint.WINDOWS),
        _box(O, (0.15, 0.15, 0.25), (0, 0, 1.0), (0.5, 0.5, 0), tint=0.5, colour=(0.42, 0.40, 0.39)),
    ),
    Kind.LAMP: (
        _round(O, (0.08, 0.08, 0), (0, 0, 0.5), (0, 0, 0.5), form=_cone(0.6), **_STEEL),
        _box((0.75, 0, -0.02), (0.85, 0.05, 0.04), (0, 0, 1), **_STEEL),
        _box((1.5, 0, -0.07), (0.35, 0.13, 0.05), (0, 0, 1), tint=0.0, colour=(0.62, 0.63, 0.64)),
    ),
    Kind.BUSH: (
        _round(O, O, (0, 0, 0.42), (0.5, 0.5, 0.55), **_LEAVES),
        _round(O, O, (0.25, 0.2, 0.3), (0.35, 0.35, 0.42), **_LEAVES, aux=2.3),
    ),
}
"""Kind -> its primitives."""

_FIELDS = {"turn": slice(0, 9), "origin": slice(9, 12), "half": slice(12, 15), "form": slice(15, 19), "colour": slice(19, 22)}
_FIELDS |= {"paint": slice(22, 23), "aux": slice(23, 24), "state": slice(24, 25)}
_PARAMETERS = 25


# ------------------------------------------------------------------------------------------------------------- small mathematics


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _mix(a: Colour, b: Colour, w) -> Colour:
    """(1 - w) a + w b, channel by channel."""
    return tuple(x + (y - x) * w for x, y in zip(a, b))


def _scale(a: Colour, k) -> Colour:
    return tuple(x * k for x in a)


def _ramp(x, low: float, high: float):
    """Smooth step from 0 at `low` to 1 at `high`."""
    u = ((x - low) / (high - low)).clamp(0, 1)
    return u * u * (3 - 2 * u)


def _band(x, low, high, width):
    """Share of the footprint [x - width/2, x + width/2] that lies in [low, high]."""
    return ((high - x) / width + 0.5).clamp(0, 1) - ((low - x) / width + 0.5).clamp(0, 1)


def _wave(x, period: float, duty: float, width):
    """Share of the footprint covered by the stripes [n period, n period + duty]: the box-filtered square wave."""

    def covered(u):
        whole = torch.floor(u / period)
        return whole * duty + (u - whole * period).clamp_max(duty)

    width = width.clamp_min(1e-4)
    return ((covered(x + width / 2) - covered(x - width / 2)) / width).clamp(0, 1)


def _noise_table() -> torch.Tensor:
    """1024 x 1024 samples of periodic value noise with 128 cells a side, 8 samples a cell, values 0..1."""
    cells = torch.rand(128, 128, generator=torch.Generator().manual_seed(7))
    grid = torch.nn.functional.pad(cells[None, None], (0, 1, 0, 1), mode="circular")[0, 0]
    at = torch.arange(1024) / 8
    u, i = at - at.floor(), at.long()
    u = u * u * (3 - 2 * u)
    rows = grid[i] + (grid[i + 1] - grid[i]) * u[:, None]
    return (rows[:, i] + (rows[:, i + 1] - rows[:, i]) * u).flatten()


def _letters() -> torch.Tensor:
    """The word STOP as a 7 x 23 bitmap, row 0 on top."""
    rows = (
        "01110.11111.01110.11110",
        "10001.00100.10001.10001",
        "10000.00100.10001.10001",
        "01110.00100.10001.11110",
        "00001.00100.10001.10000",
        "10001.00100.10001.10000",
        "01110.00100.01110.10000",
    )
    return torch.tensor([[c == "1" for c in row] for row in rows])


_TABLES: dict[tuple[str, str], torch.Tensor] = {}
"""(name, device type) -> the look-up tables, filled by `_ready` outside of what torch.compile traces."""


def _ready(device: torch.device) -> None:
    if ("noise", device.type) not in _TABLES:
        _TABLES["noise", device.type], _TABLES["letters", device.type] = _noise_table().to(device), _letters().to(device)


def _noise(x, y, cell: float) -> torch.Tensor:
    """Value noise 0..1 with features of `cell` (in the unit of x and y), repeating after 128 cells."""
    i = (x * (8 / cell)).floor().to(torch.int32) & 1023
    j = (y * (8 / cell)).floor().to(torch.int32) & 1023
    return _TABLES["noise", x.device.type][j * 1024 + i]


def _soft_noise(x, y, cell: float) -> torch.Tensor:
    """The same noise, interpolated between samples, for features many pixels wide."""
    x, y = x * (8 / cell), y * (8 / cell)
    i, j = x.floor(), y.floor()
    u, v = x - i, y - j
    i, j = i.to(torch.int32), j.to(torch.int32)
    left, right, low, high = i & 1023, (i + 1) & 1023, (j & 1023) * 1024, ((j + 1) & 1023) * 1024
    table = _TABLES["noise", x.device.type]
    return torch.lerp(torch.lerp(table[low + left], table[low + right], u), torch.lerp(table[high + left], table[high + right], u), v)


# ---------------------------------------------------------------------------------------------------------------------- lens tables


@dataclass(frozen=True)
class _View:
    """One camera at one size, cut into n tiles of m pixels: everything that does not depend on the scene.

    ray: camera-frame unit rays (n, m * q) x 3, q sub-rays a pixel; look: ego-frame rays through the pixel centres (n, m) x 3;
    pixel: radians per pixel; cone: tile axes in the camera frame (n, 3) and half angles (n,).
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


@cache
def _view(camera: str, width: int, height: int, supersample: int, device: torch.device) -> _View:
    record = RIG[camera]
    lens = record.lens.resized(width, height)
    scale = max(1.0, math.sqrt(width * height / (224 * 128)) * 0.8)
    tiles = tuple(max(1, round(size / (t * scale))) for size, t in zip((height, width), TILE.get(device.type, TILE["cuda"])))
    tile = tuple(-(-size // n) for size, n in zip((height, width), tiles))

    def rays(sub: int) -> torch.Tensor:
        """Camera-frame rays (n, m, sub^2, 3)."""
        at = (torch.arange(sub, dtype=torch.float64) + 0.5) / sub - 0.5
        rows = torch.arange(tiles[0] * tile[0], dtype=torch.float64)[:, None] + at
        cols = torch.arange(tiles[1] * tile[1], dtype=torch.float64)[:, None] + at
        y, x = torch.broadcast_tensors(rows[:, None, :, None], cols[None, :, None, :])
        r = lens.rays(torch.stack([x, y], -1))  # (H, W, sub, sub, 3)
        r = r.unflatten(1, (tiles[1], tile[1])).unflatten(0, (tiles[0], tile[0])).transpose(1, 2)
        return r.flatten(4, 5).flatten(2, 3).flatten(0, 1)

    fine, centre = rays(supersample), rays(1)[:, :, 0]
    axis = torch.nn.functional.normalize(fine.flatten(1, 2).mean(1), dim=-1)
    angle = (fine.flatten(1, 2) @ axis[:, :, None])[..., 0].clamp(-1, 1).arccos().amax(1)
    rot = torch.tensor(record.rot, dtype=torch.float64)
    look = centre @ rot.T
    falling = look[..., 2] < -1e-4

    def put(t: torch.Tensor) -> torch.Tensor:
        return t.to(device, torch.float32).contiguous()

    return _View(
        width, height, tile, tiles, supersample**2, put(torch.tensor(1 / lens.fw[1])),
        tuple(put(v) for v in fine.flatten(1, 2).unbind(-1)),
        tuple(put(v) for v in look.unbind(-1)),
        put(axis), put(angle),
        falling.any(1).nonzero()[:, 0].to(device), (~falling).any(1).nonzero()[:, 0].to(device),
        put(torch.tensor(record.position)), put(rot),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- primitives of a scene


@dataclass(frozen=True)
class _Primitives:
    """Primitives of one sort over I pictures: p_local = turn @ (p_world - centre). Shapes (I, N, ...); radius 0 marks an empty slot."""

    turn: torch.Tensor
    centre: torch.Tensor
    half: torch.Tensor
    look: torch.Tensor  # form 4, colour 3, paint 1, aux 1, state 1
    radius: torch.Tensor

    def seen_from(self, position: torch.Tensor, rot: torch.Tensor) -> torch.Tensor:
        """Parameters (I, N, 25) for rays in the frame of a camera at `position` (I, 3) with axes `rot` (I, 3, 3)."""
        origin = (self.turn @ (position[:, None] - self.centre)[..., None])[..., 0]
        return torch.cat([(self.turn @ rot[:, None]).flatten(-2), origin, self.half, self.look], -1)


@cache
def _part_table(round_: bool, device: torch.device) -> dict[str, torch.Tensor]:
    """Part fields by kind: (kinds, parts, width); missing parts have half extents 0."""
    listed = {k: [p for p in parts if p.round == round_] for k, parts in PARTS.items()}
    most = max(map(len, listed.values()))
    empty = Part(O, O)
    rows = [[*listed.get(k, []), *[empty] * most][:most] for k in Kind]
    names = ("at", "half", "at_share", "half_share", "form", "paint", "tint", "colour", "aux", "swing")

    def field(name: str) -> torch.Tensor:
        t = torch.tensor([[getattr(p, name) for p in row] for row in rows], dtype=torch.float32, device=device)
        return t if t.ndim == 3 else t[..., None]

    return {name: field(name) for name in names}


def _primitives(kind, size, colour, pose, state, *, round_: bool) -> _Primitives:
    """kind (B, N), size, colour (B, N, 3), pose (B, K, N, 3), state (B, K, N) -> the primitives of B * K pictures."""
    table = {k: v[kind.long()] for k, v in _part_table(round_, size.device).items()}  # (B, N, S, width)
    at = table["at"] + table["at_share"] * size[:, :, None]
    half = table["half"] + table["half_share"] * size[:, :, None]
    present = (half > 0).all(-1)
    half = half.clamp_min(1e-3)
    tint = table["tint"] * colour[:, :, None] + (1 - table["tint"]) * table["colour"]

    x, y, yaw = pose.unbind(-1)
    walked = x * yaw.cos() + y * yaw.sin()
    swing = table["swing"][:, None, ..., 0] * (walked * (2 * math.pi / 1.5)).sin()[..., None]  # (B, K, N, S)
    upright = rot_z(yaw)[:, :, :, None]
    c, s, o, i = swing.cos(), swing.sin(), torch.zeros_like(swing), torch.ones_like(swing)
    pitch = torch.stack([c, o, s, o, i, o, -s, o, c], -1).unflatten(-1, (3, 3))
    rot = upright @ pitch
    hang = torch.zeros_like(half)
    hang[..., 2] = half[..., 2]
    local = (at + hang)[:, None] - (pitch @ hang[:, None, ..., None])[..., 0]
    ground = torch.stack([x, y, torch.zeros_like(x)], -1)
    centre = ground[..., None, :] + (upright @ local[..., None])[..., 0]
    turn = rot.transpose(-1, -2)
    if round_:
        turn = turn / half[:, None, ..., None]

    shape = centre.shape[:-1]
    wide = torch.cat([table["form"], tint, table["paint"], table["aux"]], -1)[:, None].expand(*shape, -1)
    look = torch.cat([wide, state[..., None, None].expand(*shape, 1)], -1)
    grown = half * (1 + (table["form"][..., 1:2] - 1).clamp(0, 1) + table["form"][..., 2:3].abs() * table["form"][..., 1:2].sign() * 0.3)
    radius = torch.where(present, (grown if round_ else half).norm(dim=-1), 0.0)[:, None].expand(shape)

    def flat(t: torch.Tensor, tail: int) -> torch.Tensor:
        return t.flatten(0, 1).flatten(1, 2) if tail else t.flatten(0, 1).flatten(1)

    return _Primitives(flat(turn, 2), flat(centre, 1), flat(half[:, None].expand(*shape, 3), 1), flat(look, 1), flat(radius, 0))


def _at_times(track: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """x, y, yaw (B, ..., T, 3) at fractional steps (B, K) -> (B, K, ..., 3), the yaw along the shorter way."""
    last = track.shape[-2] - 1
    steps = steps.clamp(0, last)
    low = steps.floor().long().clamp_max(max(last - 1, 0))
    u = (steps - low).to(track.dtype)
    between = track.ndim - 3
    index = low.view(low.shape[0], *[1] * between, -1, 1).expand(*track.shape[:-2], -1, 3)
    a, b = track.gather(-2, index), track.gather(-2, (index + 1).clamp_max(last))
    step = b - a
    step = torch.cat([step[..., :2], torch.remainder(step[..., 2:] + math.pi, 2 * math.pi) - math.pi], -1)
    out = a + step * u.view(u.shape[0], *[1] * between, -1, 1)
    return out.movedim(-2, 1)


@dataclass(frozen=True)
class _Things:
    """What stands on the ground of I = B * K pictures: both sorts of primitives and the shadows."""

    boxes: _Primitives
    rounds: _Primitives
    shadows: torch.Tensor  # (I, N, 10) x, y, cos yaw, sin yaw, half length, half width, sweep x, sweep y, contact, radius
    ego: torch.Tensor  # (I, 3)


def _things(scene: SceneBatch, steps: torch.Tensor) -> _Things:
    """The primitives of every scene at its steps (B, K)."""
    ego = _at_times(scene.ego, steps)
    moving = _at_times(scene.track, steps)
    at = steps.round().long().clamp(0, scene.ego.shape[1] - 1)
    n, count = scene.kind.shape[1], steps.shape[1]
    braking = scene.braking.gather(2, at[:, None].expand(-1, n, -1)).movedim(2, 1).float()
    light = scene.light.gather(1, at).float()[..., None].expand(-1, -1, scene.prop_kind.shape[1])
    kind, size = torch.cat([scene.kind, scene.prop_kind], 1), torch.cat([scene.size, scene.prop_size], 1)
    colour = torch.cat([scene.colour, scene.prop_colour], 1)
    pose = torch.cat([moving, scene.prop_pose[:, None].expand(-1, count, -1, -1)], 2)
    state = torch.cat([braking, light], 2)
    make = lambda round_: _primitives(kind, size, colour, pose, state, round_=round_)  # noqa: E731
    return _Things(make(False), make(True), _shadows(scene, kind, size, pose), ego.flatten(0, 1))


def _shadows(scene: SceneBatch, kind, size, pose) -> torch.Tensor:
    """Rounded rectangles on the ground swept along the sun's direction by height / tan(elevation)."""
    is_ = {k: kind == k for k in (Kind.TREE, Kind.TRAFFIC_LIGHT, Kind.STOP_SIGN, Kind.LAMP)}
    thin = is_[Kind.TRAFFIC_LIGHT] | is_[Kind.STOP_SIGN] | is_[Kind.LAMP]
    foot = torch.where(thin[..., None], torch.full_like(size, 0.18), size) / 2
    azimuth, elevation = scene.sun.unbind(-1)
    reach = (size[..., 2] / elevation.clamp_min(0.2).tan()[:, None]).clamp_max(25.0)
    sweep = -torch.stack([azimuth.cos(), azimuth.sin()], -1)[:, None] * reach[..., None]  # (B, N, 2)
    lift = torch.where(is_[Kind.TREE], 0.55, 0.0)[..., None]
    radius = torch.where(kind == Kind.NONE, 0.0, foot[..., :2].norm(dim=-1) + reach / 2 * (1 - lift[..., 0]) + 0.5)
    contact = torch.where(thin | is_[Kind.TREE], 0.0, 1.0)
    fixed = torch.cat([foot[..., :2], sweep * (1 - lift), contact[..., None], radius[..., None]], -1)[:, None]
    base = pose[..., :2] + (sweep * lift)[:, None]
    turn = torch.stack([pose[..., 2].cos(), pose[..., 2].sin()], -1)
    return torch.cat([base, turn, fixed.expand(*pose.shape[:-1], -1)], -1).flatten(0, 1)


# ------------------------------------------------------------------------------------------------------------------------- culling


def _select(centre: torch.Tensor, radius: torch.Tensor, view: _View, position, rot, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The up to `most` bounding spheres a tile may see, widest first: indices and validity, both (I, n, P)."""
    seen = (centre - position[:, None]) @ rot
    distance = seen.norm(dim=-1).clamp_min(1e-6)
    width = torch.where(distance > radius, (radius / distance).clamp_max(1).asin(), math.pi)
    off = ((seen / distance[..., None]) @ view.axis.T).clamp(-1, 1).acos()  # (I, N, n)
    score = torch.where((off < width[..., None] + view.angle) & (radius > 0)[..., None], width[..., None], 0.0)
    top = score.transpose(1, 2).topk(min(most, radius.shape[1]), dim=-1)
    return top.indices, top.values > 0


def _gather(parameters: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(I, N, F) at (I, n, P) -> (I, n, P, F)."""
    flat = index.flatten(1)[..., None].expand(-1, -1, parameters.shape[-1])
    return parameters.gather(1, flat).unflatten(1, index.shape[1:])


# -------------------------------------------------------------------------------------------------------------------- intersection


def _local_ray(p: Sequence[torch.Tensor], ray):
    """Origin and direction of camera rays in a primitive's own frame."""
    return p[9:12], tuple(p[3 * r] * ray[0] + p[3 * r + 1] * ray[1] + p[3 * r + 2] * ray[2] for r in range(3))


def _nonzero(x):
    return torch.where(x.abs() < 1e-9, 1e-9, x)


def _hit_box(p: Sequence[torch.Tensor], ray) -> torch.Tensor:
    """Distance to a tapered box: the latest entry before the earliest exit of six half spaces; infinity for a miss."""
    (ox, oy, oz), (dx, dy, dz) = _local_ray(p, ray)
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


def _hit_round(p: Sequence[torch.Tensor], ray) -> torch.Tensor:
    """Distance to x^2 + y^2 + e z^2 <= (a - b z)^2 within |z| <= 1; infinity for a miss."""
    (ox, oy, oz), (dx, dy, dz) = _local_ray(p, ray)
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


def _nearest_dense(hit, slots, valid, ray, fuse) -> tuple[torch.Tensor, torch.Tensor]:
    """Running minimum over the slots of every tile: distance and slot (I, n, r). slots (I, n, P, 25), ray (n, r) x 3."""

    def step(best, which, j: int, slots, valid, ray):
        first = torch.full((), j, dtype=torch.int32, device=slots.device)
        few = slots[:, :, j : j + STRIDE].contiguous(), valid[:, :, j : j + STRIDE].contiguous()
        return fuse(_nearer)(hit, best, which, first, *few, ray)

    best = torch.full((*slots.shape[:2], ray[0].shape[1]), torch.inf, device=slots.device)
    best, which = step(best, torch.zeros_like(best, dtype=torch.int32), 0, slots, valid, ray)
    pictures, tiles = best.shape[:2]
    busy = valid.sum(-1).flatten().topk(math.ceil(pictures * tiles * BUSY), sorted=False).indices
    part = [v.flatten(0, 1)[None, busy] for v in (best, which)]
    slots, valid = (v.flatten(0, 1)[None, busy] for v in (slots, valid))
    ray = tuple(v[busy % tiles] for v in ray)
    for j in range(STRIDE, slots.shape[2], STRIDE):
        part = step(*part, j, slots, valid, ray)
    best, which = (v.flatten(0, 1).index_copy(0, busy, p[0]).view(v.shape) for v, p in zip((best, which), part))
    return best, which


def _nearest(hit, slots: torch.Tensor, valid: torch.Tensor, ray) -> tuple[torch.Tensor, torch.Tensor]:
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


# ------------------------------------------------------------------------------------------------------------------- light and air


@dataclass(frozen=True)
class _Air:
    """Light of the pictures, each (I,) unless said: sun direction in the world, strength of the sun, of the sky, overcast 0..1."""

    sun: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    direct: torch.Tensor
    ambient: torch.Tensor
    overcast: torch.Tensor

    def rows(self, shape: Sequence[int], index: torch.Tensor | None = None) -> _Air:
        """The same light viewed as `shape` (with -1 for the pictures), or picked by picture index."""
        view = (lambda t: t.view(shape)) if index is None else (lambda t: t[index])
        return _Air(tuple(map(view, self.sun)), view(self.direct), view(self.ambient), view(self.overcast))


def _air(scene: SceneBatch, count: int) -> _Air:
    azimuth, elevation = (v.repeat_interleave(count) for v in scene.sun.unbind(-1))
    overcast = scene.sky.repeat_interleave(count)
    sun = (azimuth.cos() * elevation.cos(), azimuth.sin() * elevation.cos(), elevation.sin())
    return _Air(sun, 0.62 * (1 - 0.9 * overcast), 0.55 + 0.33 * overcast, overcast)


def _horizon(air: _Air) -> Colour:
    return _mix((0.80, 0.87, 0.94), (0.82, 0.83, 0.84), air.overcast)


def _hazed(colour: Colour, distance, air: _Air) -> Colour:
    """Blends towards the horizon's colour with the air's transmission exp(-t / L)."""
    return _mix(_horizon(air), colour, (-distance / (900 - 450 * air.overcast)).exp())


def _sky(x, y, z, air: _Air, pixel: torch.Tensor) -> Colour:
    """Colour of the sky in world direction (x, y, z): gradient, sun, drifting clouds, a line of distant woods."""
    up = z.clamp_min(0)
    rise = 1 - (1 - up.clamp_max(1)) ** 5
    colour = _mix(_horizon(air), _mix((0.30, 0.52, 0.84), (0.60, 0.63, 0.68), air.overcast), rise)
    u, v = x / (up + 0.16), y / (up + 0.16)
    puff = 0.55 * _soft_noise(u, v, 1.3) + 0.30 * _soft_noise(u + 17.0, v, 0.47) + 0.15 * _soft_noise(u, v + 9.0, 0.17)
    cloud = _ramp(puff, 0.50, 0.78) * _ramp(up, 0.02, 0.14)
    colour = _mix(colour, _mix((0.97, 0.97, 0.98), (0.72, 0.74, 0.77), air.overcast), cloud * (0.85 - 0.35 * air.overcast))
    facing = _dot((x, y, z), air.sun).clamp_min(0)
    glow = (0.18 * facing**8 + 0.55 * facing**160 + 2.0 * _ramp(facing, 0.9990, 0.9996)) * (1 - 0.85 * air.overcast)
    colour = _mix(colour, (1.0, 0.97, 0.88), glow.clamp_max(1))
    level = torch.hypot(x, y).clamp_min(1e-6)
    u, v = x / level, y / level
    ridge = 0.010 + 0.028 * _soft_noise(u, v, 0.31) + 0.007 * _soft_noise(u, v, 0.021)
    woods = _mix((0.50, 0.60, 0.57), (0.60, 0.64, 0.64), air.overcast)
    return _mix(colour, woods, ((ridge - z) / pixel + 0.5).clamp(0, 1))


def _shade(p: Sequence[torch.Tensor], ray, t, is_round, air: _Air, axes, pixel: torch.Tensor) -> tuple[Colour, torch.Tensor]:
    """Colour of hits at distance t and their opacity. p: parameters per hit; axes: world axes in the camera frame, 3 x 3 tensors."""
    (ox, oy, oz), (dx, dy, dz) = _local_ray(p, ray)
    x, y, z = ox + dx * t, oy + dy * t, oz + dz * t
    hx, hy, hz, form0, form1, form2, _ = p[12:19]
    own, paint, aux, state = tuple(p[19:22]), p[22], p[23], p[24]

    # which face of a box, and the outward normal in local coordinates
    gaps = (hx - x - form0 * z, hx + x - form1 * z, hy - y.abs() - form2 * z, hz - z.abs())
    least = torch.minimum(torch.minimum(gaps[0], gaps[1]), torch.minimum(gaps[2], gaps[3]))
    front = gaps[0] <= least
    rear = (gaps[1] <= least) & ~front
    side = (gaps[2] <= least) & ~front & ~rear
    flat = ~(front | rear | side)
    along = front.float() - rear.float()
    nx, ny, nz = along, side * y.sign(), front * form0 + rear * form1 + side * form2 + flat * z.sign()
    cap = z.abs() > 0.999
    rx, ry, rz = x, y, (form0 - form2 * form2) * z + form1 * form2
    cap = is_round & cap & (form0 < 0.5)
    nx = torch.where(is_round, torch.where(cap, 0.0, rx), nx)
    ny = torch.where(is_round, torch.where(cap, 0.0, ry), ny)
    nz = torch.where(is_round, torch.where(cap, z.sign(), rz), nz)
    normal = tuple(p[c] * nx + p[3 + c] * ny + p[6 + c] * nz for c in range(3))
    length = _dot(normal, normal).clamp_min(1e-12).rsqrt()
    normal = _scale(normal, length)
    world = tuple(_dot(a, normal) for a in axes)
    height = z + hz  # above the bottom of a box, metres
    foot = t * pixel

    def is_(kind: Paint):
        return paint == float(kind)

    colour, emit = own, 0.0 * t
    shine = 0.0 * t
    vertical = front | rear

    # car body: sill, wheels, lamps, grille, plate, seams
    wheel_x = x.abs() - 0.31 * 2 * hx
    wheel = torch.hypot(wheel_x, height - aux)
    body = _mix(own, (0.05, 0.05, 0.055), (height < 0.20).float() * 0.92)
    seam = side & ((x - 0.05 * hx).abs() < 0.012) & (height > 0.28)
    body = _mix(body, (0.06, 0.06, 0.06), seam * 0.6)
    body = _mix(body, (0.05, 0.05, 0.055), (side & (wheel < aux * 1.16) & (height > 0)).float())
    tyre = side & (wheel < aux)
    body = _mix(body, (0.10, 0.10, 0.105), tyre.float())
    body = _mix(body, (0.62, 0.63, 0.65), (side & (wheel < aux * 0.62) & (wheel > aux * 0.16)).float())
    level, out = height / (2 * hz), y.abs() / hy
    bumper = vertical & (level < 0.34)
    body = _mix(body, (0.11, 0.11, 0.115), (bumper & (height > 0.2)).float() * 0.8)
    grille = front & (out < 0.50) & (level > 0.42) & (level < 0.70)
    body = _mix(body, (0.08, 0.08, 0.09), grille.float())
    lamps = front & (out > 0.58) & (out < 0.94) & (level > 0.58) & (level < 0.78)
    body = _mix(body, (0.93, 0.95, 0.97), lamps.float())
    plate = vertical & (out < 0.26) & (level > 0.36) & (level < 0.36 + 0.13 / (2 * hz))
    body = _mix(body, (0.90, 0.90, 0.87), plate.float())
    tail = rear & (out > 0.56) & (out < 0.96) & (level > 0.56) & (level < 0.86)
    brake = _mix((0.42, 0.03, 0.04), (1.0, 0.08, 0.06), state)
    body = _mix(body, brake, tail.float())
    here = is_(Paint.BODY)
    colour = _mix(colour, body, here.float())
    emit = emit + (here & tail) * (0.25 + 0.75 * state) + (here & lamps) * 0.5
    shine = shine + (here & ~tyre & ~bumper) * 0.30

    # cabin: glass all around with pillars, roof in the car's colour, third brake light
    share = z / hz
    frame = (hy - form2 * z - y.abs() < 0.07) & vertical
    pillar = side & (((x + 0.15 * hx).abs() < 0.05) | (gaps[0] < 0.09) | (gaps[1] < 0.12))
    glass = (vertical | side) & (share > -0.90) & (share < 0.84) & ~frame & ~pillar
    cabin = _mix(own, _mix((0.10, 0.12, 0.15), (0.30, 0.36, 0.43), share * 0.5 + 0.5), glass.float())
    third = rear & (share > 0.70) & (share < 0.86) & (y.abs() < 0.22)
    cabin = _mix(cabin, brake, (third & (state > 0.5)).float())
    here = is_(Paint.CABIN)
    colour = _mix(colour, cabin, here.float())
    emit = emit + (here & third & (state > 0.5)) * 1.0
    shine = shine + here * (0.25 + 0.35 * glass)

    # cargo box: rear doors and reflective strip
    strip = (side | rear) & (share < -0.93)
    door = rear & ((y.abs() < 0.02) | (gaps[2] < 0.06))
    cargo = _mix(_mix(own, (0.75, 0.12, 0.10), strip.float() * 0.8), (0.35, 0.35, 0.35), door.float())
    colour = _mix(colour, cargo, is_(Paint.CARGO).float())

    # building: rows of windows, a darker ground floor, filtered by the footprint
    across = torch.where(side, x + hx, y + hy)
    holes = _wave(across - 0.9, 3.2, 1.5, foot) * _wave(height - 1.0, 3.1, 1.6, foot) * ~flat
    cell = _noise((across / 3.2).floor() + aux * 7 + hx, (height / 3.1).floor() + hy * 3, 1.0)
    pane = _mix((0.17, 0.22, 0.28), (0.52, 0.61, 0.70), cell)
    wall = _mix(own, _scale(own, 0.72), (height < 0.7).float())
    colour = _mix(colour, _mix(wall, pane, holes * 0.9), is_(Paint.WINDOWS).float())

    # traffic light: three lamps on the front face, the lit one bright
    lit = is_(Paint.LIGHT) & front
    for index, on in enumerate(((1.0, 0.10, 0.07), (1.0, 0.70, 0.05), (0.10, 1.0, 0.45))):
        active = (state - index).abs() < 0.5
        radius = torch.hypot(y, z - (0.48 - 0.48 * index))
        lens = lit & (radius < 0.17 + 0.05 * active)
        colour = _mix(colour, _mix(_scale(on, 0.16), on, active.float()), lens.float())
        emit = emit + (lens & active) * 1.0

    # stop sign: white border and lettering on red
    edge = torch.maximum(torch.maximum(y.abs(), z.abs()), (y.abs() + z.abs()) * 0.7071)
    letters = _lettering(y, z)
    sign = _mix((0.78, 0.06, 0.08), (0.96, 0.96, 0.96), ((edge > 0.375) | letters).float())
    here = is_(Paint.SIGN) & front
    colour = _mix(colour, sign, here.float())
    emit = emit + here * 0.35

    # foliage: mottled, frayed at the silhouette
    here = is_(Paint.FOLIAGE)
    fx, fz = (x * hx + y * hy * 0.7) + aux * 3, z * hz + y * hy * 0.4 + aux
    leaf = 0.5 * _noise(fx, fz, 0.75) + 0.5 * _noise(fx + 5, fz, 0.26)
    colour = _mix(colour, _scale(own, 0.50 + 0.95 * leaf), here.float())
    grazing = _dot(normal, ray).abs()
    opacity = 1 - (here & (grazing < 0.30 * leaf)).float()

    # cone: two white bands
    white = ((z > -0.02) & (z < 0.30)) | ((z > 0.50) & (z < 0.66))
    colour = _mix(colour, _mix((1.0, 0.42, 0.07), (0.96, 0.96, 0.95), white.float()), is_(Paint.CONE).float())

    lambert = _dot(world, air.sun).clamp_min(0)
    light = air.ambient * (0.72 + 0.28 * world[2]) + air.direct * lambert
    lit_up = _scale(colour, light)
    facing = _dot(normal, ray)
    bounce = tuple(r - 2 * facing * n for r, n in zip(ray, normal))
    rise = _dot(axes[2], bounce).clamp(-0.2, 1)
    fresnel = (shine * (0.25 + 0.75 * (1 + facing).clamp(0, 1) ** 3)).clamp_max(0.8) * (rise > 0) * (0.45 + 0.55 * rise)
    lit_up = _mix(lit_up, _mix((0.86, 0.91, 0.96), (0.50, 0.64, 0.84), rise), fresnel)
    sunlit = (_dot(tuple(_dot(a, bounce) for a in axes), air.sun)).clamp_min(0) ** 60 * shine * air.direct * 1.5
    lit_up = _mix(lit_up, (1.0, 1.0, 0.97), sunlit.clamp_max(1))
    return _hazed(_mix(lit_up, colour, emit.clamp(0, 1)), t, air), opacity


def _lettering(y, z) -> torch.Tensor:
    """Whether the point (y to the reader's right, z up, metres from the sign's centre) lies on a letter."""
    column, row = ((y + 0.30) / 0.60 * 23).floor().long(), ((0.13 - z) / 0.26 * 7).floor().long()
    inside = (column >= 0) & (column < 23) & (row >= 0) & (row < 7)
    return _TABLES["letters", y.device.type][row.clamp(0, 6), column.clamp(0, 22)] & inside


# ------------------------------------------------------------------------------------------------------------------------ the ground


def _heading(road: Road, s: torch.Tensor) -> torch.Tensor:
    """Heading of the reference line at s (B, n)."""
    out = road.start[:, :1, 2] + road.curvature[:, :1] * (s - road.s[:, :1])
    for i in range(1, road.s.shape[1]):
        here = road.start[:, i : i + 1, 2] + road.curvature[:, i : i + 1] * (s - road.s[:, i : i + 1])
        out = torch.where(s >= road.s[:, i : i + 1], here, out)
    return out


def _paved(road: Road, urban: torch.Tensor, x, y, view_x, view_y, across, along) -> Colour:
    """Albedo of the ground at world x, y (B, n): everything painted by (s, d).

    view_x, view_y: horizontal view direction; across, along: footprint in metres perpendicular to it and along it.
    """

    def row(v: torch.Tensor) -> torch.Tensor:
        return v[:, None].to(x.dtype)

    s, d = road.frenet(torch.stack([x, y], -1)).unbind(-1)
    heading = _heading(road, s)
    c, sn = heading.cos(), heading.sin()
    forward, sideways = (c * view_x + sn * view_y).abs(), (c * view_y - sn * view_x).abs()
    foot_s = torch.hypot(along * forward, across * sideways)
    foot_d = torch.hypot(along * sideways, across * forward)
    foot = (across * along).sqrt()
    w = row(road.lane_width)
    right = -(0.5 + row(road.right_lanes)) * w
    middle = (0.5 + row(road.left_lanes)) * w
    left = middle + row(road.oncoming) * w
    two_way = row(road.oncoming) > 0

    junction = row(road.crossing).nan_to_num(1e6)
    cross = (s - junction).abs() - row(road.crossing_half_width).nan_to_num(4)
    beside = torch.maximum(right - 0.35 - d, d - left - 0.35)
    corner = 5.0
    edge = corner - torch.hypot((corner - beside).clamp_min(0), (corner - cross).clamp_min(0))
    edge = torch.where(torch.minimum(beside, cross) < 0, torch.minimum(beside, cross), edge)
    foot_edge = torch.where(beside.abs() < cross.abs(), foot_d, foot_s)

    fine = (0.5 - _noise(x, y, 0.07)) * (0.04 / foot).clamp_max(1)
    rough = (0.5 - _noise(x, y, 0.9)) * (0.6 / foot).clamp_max(1)
    broad = (0.5 - _noise(x, y, 7.0)) * (5.0 / foot).clamp_max(1)
    lane = d / w + 0.5
    track = ((lane - lane.floor() - 0.5).abs() - 0.24).abs()  # wheel tracks a quarter lane beside each lane's centre
    worn = (1 - track / 0.14).clamp(0, 1) * (1.0 / foot_d).clamp_max(1)
    asphalt = 0.385 + 0.10 * fine + 0.022 * rough + 0.05 * broad - 0.022 * worn
    tone = (asphalt, asphalt * 1.0, asphalt * 1.02)
    blades = 1 + 0.55 * fine + 0.45 * rough + 0.40 * broad
    grass = _scale(_mix((0.36, 0.50, 0.24), (0.55, 0.55, 0.32), (0.5 + broad + 0.4 * rough).clamp(0, 1)), blades)
    joint = _wave(s, 1.6, 0.05, foot_s)
    slab = 0.66 + 0.10 * fine + 0.06 * rough - 0.20 * joint
    gravel = 0.52 + 0.25 * fine + 0.10 * rough
    verge = _mix((gravel, gravel * 0.96, gravel * 0.88), (slab, slab * 0.985, slab * 0.95), urban)
    out = _mix(grass, verge, _band(edge, -9.0, 0.9 + 1.5 * urban, foot_edge))
    kerb = _band(edge, 0.0, 0.17, foot_edge) * urban
    out = _mix(out, _scale((0.74, 0.73, 0.70), 1 + 0.2 * fine), kerb)
    out = _mix(out, tone, _band(edge, -1e3, 0.0, foot_edge))

    open_road = (cross / foot_s.clamp_min(0.05) + 0.5).clamp(0, 1)
    first, last = -row(road.right_lanes), row(road.left_lanes) - 1
    index = torch.minimum(torch.maximum((d / w - 0.5).round(), first), last)
    dash = _band(d - (index + 0.5) * w, -0.065, 0.065, foot_d) * (last >= first)
    far = torch.minimum(((d - middle) / w).round().clamp_min(1), row(road.oncoming) - 1)
    dash = dash + _band(d - middle - far * w, -0.065, 0.065, foot_d) * (row(road.oncoming) > 1)
    white = dash * _wave(s, 9.0, 3.0, foot_s)
    white = white + _band(d, right + 0.12, right + 0.26, foot_d) + _band(d, left - 0.26, left - 0.12, foot_d) * two_way
    off = (d - middle).abs()
    yellow = torch.where(two_way, _band(off, 0.07, 0.19, foot_d), _band(d, middle - 0.26, middle - 0.12, foot_d))
    sides = torch.maximum(right - d, d - left) - 4.0
    crossing_paint = _band((s - junction).abs(), 0.07, 0.19, foot_s) * (sides / foot_d.clamp_min(0.05)).clamp(0, 1)
    yellow = yellow * open_road + crossing_paint
    stripes = _wave(d - right, 1.0, 0.5, foot_d) * _band(d, right + 0.2, left - 0.2, foot_d)
    zebra = stripes * _band(s - row(road.crosswalk).nan_to_num(1e6), -1.5, 1.5, foot_s)
    stop = _band(s - row(road.stop_line).nan_to_num(1e6), -0.22, 0.22, foot_s) * _band(d, right + 0.3, middle - 0.3, foot_d)
    near_zebra = _band(s - row(road.crosswalk).nan_to_num(1e6), -2.2, 2.2, foot_s)
    white = white * open_road * (1 - near_zebra) + zebra + stop
    wear = 0.93 + 0.25 * fine + 0.22 * rough
    out = _mix(out, (0.88, 0.64, 0.13), (yellow * (1 - near_zebra) * wear).clamp(0, 1))
    return _mix(out, (0.93, 0.93, 0.91), (white * wear).clamp(0, 1))


def _shadow(p: Sequence[torch.Tensor], x, y) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast and contact darkness 0..1 at ground points of one shadow: signed distances to a swept and to a plain rectangle."""
    cx, cy, c, s, hx, hy, sweep_x, sweep_y, contact, _ = p
    dx, dy = x - cx, y - cy

    def outside(ux, uy):
        u, v = (c * ux + s * uy).abs() - hx, (c * uy - s * ux).abs() - hy
        return torch.hypot(u.clamp_min(0), v.clamp_min(0)) + torch.maximum(u, v).clamp_max(0)

    slide = ((dx * sweep_x + dy * sweep_y) / (sweep_x * sweep_x + sweep_y * sweep_y).clamp_min(1e-6)).clamp(0, 1)
    cast = 1 - _ramp(outside(dx - slide * sweep_x, dy - slide * sweep_y), -0.16, 0.14)
    return cast, contact * (1 - _ramp(outside(dx, dy), -0.30, 0.45))


def _shadows_on(slots: torch.Tensor, valid: torch.Tensor, x, y, dense: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest cast and contact darkness over the slots of G tiles at points x, y (G, m)."""
    cast, contact = torch.zeros_like(x), torch.zeros_like(x)
    for j in range(slots.shape[1]):
        if dense:
            a, b = _shadow([v[:, None] for v in slots[:, j].unbind(-1)], x, y)
            cast = torch.maximum(cast, torch.where(valid[:, j, None], a, 0.0))
            contact = torch.maximum(contact, torch.where(valid[:, j, None], b, 0.0))
            continue
        rows = valid[:, j].nonzero()[:, 0]
        if not len(rows):
            break
        a, b = _shadow([v[:, None] for v in slots[rows, j].unbind(-1)], x[rows], y[rows])
        cast[rows], contact[rows] = torch.maximum(cast[rows], a), torch.maximum(contact[rows], b)
    return cast, contact


def _marked(markers: torch.Tensor, x, y, foot, half_width: float = 0.09) -> torch.Tensor:
    """Coverage of a line of 2 half_width along the world polyline (I, T, 2) at points x, y (I, n)."""
    nearest = torch.full_like(x, torch.inf)
    for a, b in zip(markers[:, :-1].unbind(1), markers[:, 1:].unbind(1)):
        step = (b - a)[:, None]
        u = torch.stack([x, y], -1) - a[:, None]
        along = ((u * step).sum(-1) / (step * step).sum(-1).clamp_min(1e-9)).clamp(0, 1)
        nearest = torch.minimum(nearest, (u - along[..., None] * step).norm(dim=-1))
    return _band(nearest, -half_width, half_width, foot.clamp_min(1e-3))


# ----------------------------------------------------------------------------------------------------------------------- the picture


def _background(scene: SceneBatch, things: _Things, air: _Air, view: _View, camera, markers, fuse) -> Colour:
    """Sky and ground at the pixel centres, each channel (I, n, m)."""
    position, rot = camera
    swept = torch.cat([things.shadows[..., :2] + things.shadows[..., 6:8] / 2, torch.zeros_like(things.shadows[..., :1])], -1)
    index, valid = _select(swept, things.shadows[..., 9], view, position, rot, SLOTS["shadow"])
    slots = _gather(things.shadows, index)
    urban = ((scene.prop_kind == Kind.BUILDING).any(1) | (scene.seeds % 2 == 0)).float()[:, None]
    shared = (things.ego, air.rows((-1, 1, 1)), view.pixel)
    where = (scene.road, urban, position)
    if fuse is not None:
        sky = fuse(_sky_seen)(view.look, *shared)
        ground = fuse(_ground_seen)(view.look, *shared, *where, slots, valid, markers, True)
        return tuple(torch.where(view.look[2] < -1e-4, g, s) for g, s in zip(ground, sky))
    out = tuple(position.new_empty(len(position), *view.look[0].shape) for _ in range(3))
    for channel, s in zip(out, _sky_seen(tuple(v[view.sky] for v in view.look), *shared)):
        channel[:, view.sky] = s
    look = tuple(v[view.ground] for v in view.look)
    ground = _ground_seen(look, *shared, *where, slots[:, view.ground], valid[:, view.ground], markers, False)
    for channel, g in zip(out, ground):
        channel[:, view.ground] = torch.where(look[2] < -1e-4, g, channel[:, view.ground])
    return out


def _turned(look, ego) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ego-frame rays (n, m) x 3 in the world frame of pictures with poses ego (I, 3): (I, n, m) x 3."""
    cos, sin = ego[:, 2].cos()[:, None, None], ego[:, 2].sin()[:, None, None]
    x, y, z = look
    return cos * x - sin * y, sin * x + cos * y, z.expand(len(ego), -1, -1)


def _sky_seen(look, ego, air: _Air, pixel: torch.Tensor) -> Colour:
    return _sky(*_turned(look, ego), air, pixel)


def _ground_seen(look, ego, air: _Air, pixel: torch.Tensor, road: Road, urban, position, slots, valid, markers, dense: bool) -> Colour:
    """Lit, shadowed and hazed ground where the rays (n, m) x 3 meet it; nonsense for rays that rise."""
    x, y, z = _turned(look, ego)
    drop = (-z).clamp_min(1e-4)
    t = (position[:, 2, None, None] / drop).clamp_max(3000.0)
    px, py = position[:, 0, None, None] + t * x, position[:, 1, None, None] + t * y
    across, along = t * pixel, t * pixel / drop
    level = torch.hypot(x, y).clamp_min(1e-6)
    points = (px, py, x / level, y / level, across, along)
    albedo = _paved(road, urban, *(v.reshape(len(urban), -1) for v in points))
    albedo = tuple(v.view(px.shape) for v in albedo)
    cast, contact = _shadows_on(slots.flatten(0, 1), valid.flatten(0, 1), px.flatten(0, 1), py.flatten(0, 1), dense)
    cast, contact = cast.view(px.shape), contact.view(px.shape)
    light = air.ambient * (1 - 0.62 * contact) * (1 - 0.10 * cast) + air.direct * air.sun[2] * (1 - cast)
    ground = _scale(albedo, light)
    if markers is not None:
        line = _marked(markers, px.flatten(1), py.flatten(1), across.flatten(1)).view(px.shape)
        ground = _mix(ground, (1.0, 0.05, 0.85), line)
    return _hazed(ground, t, air)


def _foreground(things: _Things, air: _Air, view: _View, camera, back: Colour, fuse) -> Colour:
    """Objects over the background, averaged over the sub-rays of every pixel: each channel (I, n, m)."""
    position, rot = camera
    slots, valid = [], []
    for sort, most in ((things.boxes, SLOTS["box"]), (things.rounds, SLOTS["round"])):
        index, there = _select(sort.centre, sort.radius, view, position, rot, most)
        slots.append(_gather(sort.seen_from(position, rot), index))
        valid.append(there)
    axes = tuple(rot[:, r].unbind(-1) for r in range(3))
    return (_over_listed if fuse is None else _over_dense)(slots, valid, air, view, axes, back, fuse)


def _over_listed(slots, valid, air: _Air, view: _View, axes, back: Colour, _) -> Colour:
    """Foreground on the CPU: only the tiles that hold something, only the sub-rays that hit."""
    slots, valid = [s.flatten(0, 1) for s in slots], [v.flatten(0, 1) for v in valid]
    rows = (valid[0].any(1) | valid[1].any(1)).nonzero()[:, 0]
    (tiles, pixels), q = view.look[0].shape, view.q
    ray = tuple(v[rows % tiles] for v in view.ray)
    near_box, box = _nearest(_hit_box, slots[0][rows], valid[0][rows], ray)
    near_round, round_ = _nearest(_hit_round, slots[1][rows], valid[1][rows], ray)
    is_round, t = near_round < near_box, torch.minimum(near_box, near_round)
    slot = torch.where(is_round, round_ + slots[0].shape[1], box).long()
    g, r = (t < torch.inf).nonzero(as_tuple=True)
    table = torch.cat(slots, 1)
    p = table.flatten(0, 1)[slot[g, r] + rows[g] * table.shape[1]].t().contiguous().unbind(0)
    of = rows[g] // tiles
    per = tuple(tuple(v[of] for v in a) for a in axes)
    colour, opacity = _shade(p, tuple(v[g, r] for v in ray), t[g, r], is_round[g, r], air.rows((), of), per, view.pixel)
    at, share = rows[g] * pixels + r // q, opacity / q
    kept = torch.ones_like(back[0]).view(-1).index_add_(0, at, share, alpha=-1)
    return tuple((b.view(-1) * kept).index_add_(0, at, c * share).view(b.shape) for b, c in zip(back, colour))


def _over_dense(slots, valid, air: _Air, view: _View, axes, back: Colour, fuse) -> Colour:
    """Foreground on an accelerator: every tile, every slot, static shapes."""
    boxes = _nearest_dense(_hit_box, slots[0], valid[0], view.ray, fuse)
    rounds = _nearest_dense(_hit_round, slots[1], valid[1], view.ray, fuse)
    return fuse(_composite)(boxes, rounds, torch.cat(slots, 2), slots[0].shape[2], view.ray, view.q, view.pixel, air, axes, back)


def _composite(boxes, rounds, table, box_slots: int, ray, q: int, pixel: torch.Tensor, air: _Air, axes, back: Colour) -> Colour:
    """Shades the nearest hits of every tile and averages them over the background: each channel (I, n, m)."""
    is_round, t = rounds[0] < boxes[0], torch.minimum(boxes[0], rounds[0])
    pictures, tiles, most, width = table.shape
    slot = torch.where(is_round, rounds[1] + box_slots, boxes[1]).long()
    row = (torch.arange(pictures * tiles, device=t.device).view(pictures, tiles, 1) * most + slot) * width
    flat = table.flatten()
    p = [flat[row + i] for i in range(width)]
    per = tuple(tuple(v[:, None, None] for v in a) for a in axes)
    colour, opacity = _shade(p, ray, t.clamp_max(1e4), is_round, air.rows((-1, 1, 1)), per, pixel)
    cover = torch.where(t < torch.inf, opacity, 0.0)

    def over(b, c):
        return (b[..., None] + (c - b.repeat_interleave(q, -1)).mul(cover).unflatten(-1, (-1, q))).mean(-1)

    return tuple(over(b, c) for b, c in zip(back, colour))


@cache
def _compiled(function):
    return torch.compile(function, fullgraph=True, dynamic=False)


def _picture(scene: SceneBatch, things: _Things, air: _Air, view: _View, markers, fuse) -> torch.Tensor:
    """One camera: u8 (I, 3, h, w). fuse: None on the CPU, else what turns a function into a fused one."""
    turn = rot_z(things.ego[:, 2])
    position = (turn @ view.position[:, None])[..., 0] + torch.cat([things.ego[:, :2], torch.zeros_like(things.ego[:, :1])], -1)
    camera = (position, turn @ view.rot)
    back = _background(scene, things, air, view, camera, markers, fuse)
    colour = _foreground(things, air, view, camera, back, fuse)
    image = view.untile(torch.stack(colour, 1))
    return (image.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def render_at(
    scene: SceneBatch,
    steps: torch.Tensor,
    *,
    width: int,
    height: int,
    cameras: Sequence[str] = CAMERAS,
    supersample: int = 2,
    markers: torch.Tensor | None = None,
    compile: bool = False,
    dense: bool | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """Pictures of B scenes at fractional steps (B, K) -> u8 (B, C, K, 3, height, width) on the scene's device.

    supersample: rays per pixel and axis for objects (the ground is filtered analytically); markers: world polylines (B, T, 2) painted
    magenta on the ground; compile: fuse with torch.compile (CUDA); dense: every tile and slot with static shapes, as compiling needs (None:
    where compile is set); chunk: scenes rendered at once, chosen from the picture size if None.
    """
    device = scene.ego.device
    steps = steps.to(device, torch.float32)
    batch, count = steps.shape
    dense = compile if dense is None else dense
    budget = (2**24 if compile else 2**22) * 4 if device.type != "cpu" else 2**18
    chunk = chunk or max(1, budget // (count * width * height))
    fuse = (_compiled if compile else lambda function: function) if dense else None
    _ready(device)
    out = torch.empty(batch, len(cameras), count, 3, height, width, dtype=torch.uint8, device=device)
    for first in range(0, batch, chunk):
        rows = slice(first, first + chunk)
        part = scene[rows]
        things, air = _things(part, steps[rows]), _air(part, count)
        lines = None if markers is None else markers[rows].to(device, torch.float32).repeat_interleave(count, 0)
        for c, name in enumerate(cameras):
            picture = _picture(part, things, air, _view(name, width, height, supersample, device), lines, fuse)
            out[rows, c] = picture.unflatten(0, (-1, count))
    return out


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
