"""A SceneBatch at given times -> convex primitives (tapered boxes, ellipsoids, cylinders, cones) and shadows, ready to be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch

from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.world.parts import PARTS, O, Part
from alpamayo_r1.world.scene import Kind, SceneBatch


@dataclass(frozen=True)
class Primitives:
    """Primitives of one sort over I pictures: p_local = turn @ (p_world - centre). Shapes (I, N, ...); radius 0 marks an empty slot."""

    turn: torch.Tensor
    centre: torch.Tensor
    half: torch.Tensor
    look: torch.Tensor  # form 4, colour 3, paint 1, aux 1, state 1
    radius: torch.Tensor

    def seen_from(self, position: torch.Tensor, rot: torch.Tensor) -> torch.Tensor:
        """Parameters (I, N, 25) for rays in the frame of a camera at `position` (I, 3) with axes `rot` (I, 3, 3).

        Turn 9, the camera's place 3, half extents 3, form 4, colour 3, paint, aux, state.
        """
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


def _primitives(kind, size, colour, pose, state, *, round_: bool) -> Primitives:
    """kind (B, N), size, colour (B, N, 3), pose (B, K, N, 3), state (B, K, N) -> the primitives of B * K pictures."""
    table = {k: v[kind.long()] for k, v in _part_table(round_, size.device).items()}  # (B, N, S, width)
    at = table["at"] + table["at_share"] * size[:, :, None]
    half = table["half"] + table["half_share"] * size[:, :, None]
    present = (half > 0).all(-1)
    half = half.clamp_min(1e-3)
    tint = table["tint"] * colour[:, :, None] + (1 - table["tint"]) * table["colour"]
    turn, centre = _posed(at, half, table["swing"], pose)
    if round_:
        turn = turn / half[:, None, ..., None]

    shape = centre.shape[:-1]
    wide = torch.cat([table["form"], tint, table["paint"], table["aux"]], -1)[:, None].expand(*shape, -1)
    look = torch.cat([wide, state[..., None, None].expand(*shape, 1)], -1)
    reach = half * _widest(table["form"]) if round_ else half
    radius = torch.where(present, reach.norm(dim=-1), 0.0)[:, None].expand(shape)
    fields = (turn, centre, half[:, None].expand(*shape, 3), look, radius)
    return Primitives(*(v.flatten(0, 1).flatten(1, 2) for v in fields))


def _posed(at, half, swing, pose) -> tuple[torch.Tensor, torch.Tensor]:
    """World to local rotations (B, K, N, S, 3, 3) and centres of parts `at`, half (B, N, S, 3) that swing about their tops in walking."""
    x, y, yaw = pose.unbind(-1)
    walked = x * yaw.cos() + y * yaw.sin()
    angle = swing[:, None, ..., 0] * (walked * (2 * math.pi / 1.5)).sin()[..., None]
    c, s, o, i = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    pitch = torch.stack([c, o, s, o, i, o, -s, o, c], -1).unflatten(-1, (3, 3))
    upright = rot_z(yaw)[:, :, :, None]
    hang = torch.zeros_like(half)
    hang[..., 2] = half[..., 2]
    local = (at + hang)[:, None] - (pitch @ hang[:, None, ..., None])[..., 0]
    ground = torch.stack([x, y, torch.zeros_like(x)], -1)
    centre = ground[..., None, :] + (upright @ local[..., None])[..., 0]
    return (upright @ pitch).transpose(-1, -2), centre


def _widest(form: torch.Tensor) -> torch.Tensor:
    """How far a round reaches beyond its half extents."""
    return 1 + (form[..., 1:2] - 1).clamp(0, 1) + form[..., 2:3].abs() * form[..., 1:2].sign() * 0.3


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
class Things:
    """What stands on the ground of I = B * K pictures: both sorts of primitives and the shadows."""

    boxes: Primitives
    rounds: Primitives
    shadows: torch.Tensor  # (I, N, 10) x, y, cos yaw, sin yaw, half length, half width, sweep x, sweep y, contact, radius
    ego: torch.Tensor  # (I, 3)


def things_at(scene: SceneBatch, steps: torch.Tensor) -> Things:
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
    boxes, rounds = (_primitives(kind, size, colour, pose, state, round_=round_) for round_ in (False, True))
    return Things(boxes, rounds, _shadows(scene, kind, size, pose), ego.flatten(0, 1))


def _shadows(scene: SceneBatch, kind, size, pose) -> torch.Tensor:
    """Rounded rectangles on the ground swept along the sun's direction by height / tan(elevation)."""
    is_ = {k: kind == k for k in (Kind.TREE, Kind.TRAFFIC_LIGHT, Kind.STOP_SIGN, Kind.LIMIT_SIGN, Kind.LAMP)}
    thin = is_[Kind.TRAFFIC_LIGHT] | is_[Kind.STOP_SIGN] | is_[Kind.LIMIT_SIGN] | is_[Kind.LAMP]
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
