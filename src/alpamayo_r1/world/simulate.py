"""Plays scripts: the expert drives, the others follow their lines, the roadside is planted. Vectorised over the scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.expert import DIRECTIVES, Expert, Pushes, drive
from alpamayo_r1.world.families import Draw, Motion, Script, ease
from alpamayo_r1.world.richer import ALL_FAMILIES, ALL_WRITERS
from alpamayo_r1.world.scene import DT, Kind, Light, Road, SceneBatch

FUTURE = 64
"""Steps simulated beyond the clip, so that every moment of it has its future."""

MAX_ACCELERATION, MAX_CURVATURE = 9.8, 0.33
"""Bounds of the released action space."""

PROPS, SCENERY = 40, 36
"""Prop slots, and how many of those (the last) are roadside scenery."""

_CHUNK = 512  # scenes played at once, so that a step's arrays stay in the cache


def simulate(
    seeds: Sequence[int] | np.ndarray | torch.Tensor,
    *,
    seconds: float = 12.0,
    families: Sequence[str] | None = None,
    directive: Sequence[str | None] | None = None,
    directed_from: int = fam.T0_STEP,
    pushed: np.ndarray | None = None,
    pushed_until: int = fam.T0_STEP,
) -> SceneBatch:
    """The scenes of these seeds, `seconds` of clip and 6.4 s beyond, on the CPU. A seed's scene does not depend on its neighbours.

    `families` names each scene's family (otherwise it follows from the seed); `directive` tells each driver to do one of DIRECTIVES
    instead, from step `directed_from` on: the world, and all that came before, stay the same to the bit. `pushed` bool (B,): whose
    driver is pushed off its way from the start until step `pushed_until`, from where on it drives back.
    """
    numbers, steps, family = np.asarray(seeds, np.int64), _steps(seconds), _families(seeds, families)
    orders = (
        np.array([DIRECTIVES.index(d) + 1 if d else 0 for d in directive]) if directive is not None else np.zeros(len(numbers), np.int64)
    )
    chunks = [slice(i, i + _CHUNK) for i in range(0, len(numbers), _CHUNK)]
    off = np.zeros(len(numbers), bool) if pushed is None else pushed
    return concatenate([_play(numbers[rows], family[rows], orders[rows], directed_from, off[rows], pushed_until, steps) for rows in chunks])


@dataclass(frozen=True)
class Stage:
    """B scenes before anybody drives: the script, where the pieces of road and way begin, and how the A actors that may move do so."""

    script: Script
    start: np.ndarray  # (B, P, 3) x, y, heading
    way: np.ndarray  # (B, P, 3) the same of the driver's way
    scene: np.ndarray  # (A,) whose actor
    slot: np.ndarray  # (A,) which of its actors
    s: np.ndarray  # (A, T) along the road, as d beside it
    d: np.ndarray
    speed: np.ndarray  # (A, T) along the road, as sideways across it
    sideways: np.ndarray

    def expert(self, orders: np.ndarray, ordered: int = fam.T0_STEP) -> Expert:
        """The drivers of these scenes; see Expert."""
        return Expert(self.script.way(), self.way, orders, ordered)

    def lead(self) -> tuple[np.ndarray, np.ndarray]:
        """s and speed (B, T) of the vehicle in slot LEAD; zeros where there is none."""
        s, speed = np.zeros((2, len(self.script.target), self.s.shape[1]))
        leads = self.slot == fam.LEAD
        s[self.scene[leads]], speed[self.scene[leads]] = self.s[leads], self.speed[leads]
        return s, speed


def set_stage(seeds: Sequence[int] | np.ndarray | torch.Tensor, seconds: float, families: Sequence[str] | None = None) -> Stage:
    """The stage of these seeds' scenes, as `simulate` plays them."""
    return _stage(np.asarray(seeds, np.int64), _families(seeds, families), _steps(seconds))


def _steps(seconds: float) -> int:
    return round(seconds / DT) + 1 + FUTURE


def _families(seeds: Sequence[int] | np.ndarray | torch.Tensor, families: Sequence[str] | None) -> np.ndarray:
    """Index of each scene's family (B,)."""
    if families is None:
        return fam.family_of(np.asarray(seeds, np.int64))
    return np.array([ALL_FAMILIES.index(name) for name in families], np.int64)


def _stage(seeds: np.ndarray, family: np.ndarray, steps: int) -> Stage:
    script = fam.write_script(seeds, family, ALL_WRITERS)
    draw = Draw.of(seeds)
    return staged(script, _lay(script, draw), _lay(script.way(), draw), steps)


def staged(script: Script, start: np.ndarray, way: np.ndarray, steps: int) -> Stage:
    """The stage of a script whose road pieces begin at `start` (B, P, 3), the driver's way at `way`."""
    (scene, slot), *motion = _move(script, np.arange(steps) * DT)
    return Stage(script, start, way, scene, slot, *motion)


def _play(
    seeds: np.ndarray, family: np.ndarray, orders: np.ndarray, ordered: int, pushed: np.ndarray, pushed_until: int, steps: int
) -> SceneBatch:
    stage, draw = _stage(seeds, family, steps), Draw.of(seeds)
    script = stage.script
    road = _road(script, stage.start)
    ego, ego_speed, action = drive(stage.expert(orders, ordered), *stage.lead(), steps, pushes_of(draw, pushed, pushed_until, steps))
    prop_kind, prop_size, prop_pose, prop_colour = _plant(script, draw, road)
    return SceneBatch(
        seeds=torch.from_numpy(seeds),
        family=tuple(ALL_FAMILIES[i] for i in family),
        road=road,
        ego=_f32(ego),
        speed=_f32(ego_speed),
        action=_f32(action),
        kind=torch.from_numpy(script.kind),
        size=_f32(script.size),
        colour=_actor_colours(script, draw),
        track=_tracks(stage, road),
        braking=_brake_lights(stage),
        prop_kind=prop_kind,
        prop_size=prop_size,
        prop_colour=prop_colour,
        prop_pose=prop_pose,
        light=_light(script, steps),
        sun=_f32(np.stack([draw.uniform("azimuth", -np.pi, np.pi), draw.uniform("elevation", 0.35, 1.2)], -1)),
        sky=_f32(draw.uniform("sky")),
        night=_f32(script.night),
        route=torch.from_numpy(script.route),
        limit_from=_f32(script.limit_from),
        limit=_f32(script.limit),
    )


PUSH_SIDE, PUSH_ALONG, PUSH_TIME = 1.1, 1.5, 1.2
"""The strongest pushes: root mean square in metres and m/s^2; seconds over which a push lasts."""


def pushes_of(draw: Draw, pushed: np.ndarray, until: int, steps: int) -> Pushes | None:
    """Pushes of the drivers in `pushed` (B,) until a step, each scene's as strong as its seed says; None where nobody is pushed."""
    if not pushed.any():
        return None
    keep = np.exp(-DT / PUSH_TIME)

    def wander(name: str, strongest: float) -> np.ndarray:
        steps_of = draw.uniform(name, -np.sqrt(3.0), np.sqrt(3.0), steps - 1) * np.sqrt(1.0 - keep**2)
        value, values = draw.uniform(f"{name}_first", -np.sqrt(3.0), np.sqrt(3.0)), []
        for n in range(steps - 1):
            values.append(value)
            value = keep * value + steps_of[:, n]
        strength = draw.uniform(f"{name}_strength", 0.0, strongest) * pushed
        return strength[:, None] * np.stack(values, 1) * (np.arange(steps - 1) < until)

    aside, turned = draw.uniform("pushed_aside", -0.6, 0.6), draw.uniform("pushed_turn", -0.06, 0.06)
    start = np.stack([aside, turned, draw.uniform("pushed_pace", -0.3, 0.15)], -1)
    return Pushes(wander("push_side", PUSH_SIDE), wander("push_along", PUSH_ALONG), start * pushed[:, None])


def _f32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def concatenate(parts: list[SceneBatch]) -> SceneBatch:
    """Batches of equally many steps as one."""
    if len(parts) == 1:
        return parts[0]

    def join(records: list[Any]) -> Any:
        first = records[0]
        if isinstance(first, torch.Tensor):
            return torch.cat(records)
        if isinstance(first, tuple):
            return sum(records, ())
        return type(first)(**{name: join([getattr(r, name) for r in records]) for name in first.__dataclass_fields__})

    return join(parts)


# ---- the road


def _lay(script: Script, draw: Draw) -> np.ndarray:
    """Where each piece starts, float64 (B, P, 3) x, y, heading: joined end to end with continuous heading."""
    pose = np.stack([np.zeros_like(script.target)] * 2 + [draw.uniform("heading", -np.pi, np.pi)], -1)
    poses = [pose]
    for p in range(1, fam.PIECES):
        length, k = script.piece[:, p] - script.piece[:, p - 1], script.curvature[:, p - 1]
        x, y, heading = pose.T
        turn = k * length
        chord, middle = length * np.sinc(turn / (2 * np.pi)), heading + turn / 2
        pose = np.stack([x + chord * np.cos(middle), y + chord * np.sin(middle), heading + turn], -1)
        poses.append(pose)
    return np.stack(poses, 1)


def _road(script: Script, start: np.ndarray) -> Road:
    return Road(
        start=_f32(start),
        s=_f32(script.piece),
        curvature=_f32(script.curvature),
        lane_width=_f32(script.lane_width),
        left_lanes=torch.from_numpy(script.left),
        right_lanes=torch.from_numpy(script.right),
        oncoming=torch.from_numpy(script.oncoming),
        crossing=_f32(script.crossing),
        crossing_half_width=_f32(script.crossing_half_width),
        crosswalk=_f32(script.crosswalk),
        stop_line=_f32(script.stop_line),
    )


# ---- the others


def _move(script: Script, t: np.ndarray) -> tuple:
    """The A moving actors: (scene, slot) indices, then s, d, speed along and sideways speed, (A, T) each."""
    moving = np.nonzero(script.kind[:, : fam.MOVING] != Kind.NONE)
    m = Motion(*(getattr(script.motion, name)[moving][:, None] for name in Motion.__dataclass_fields__))
    lasts = np.where(m.a == 0.0, 0.0, (m.v_end - m.v) / np.where(m.a == 0.0, 1.0, m.a))
    since = np.maximum(t - m.t_change, 0.0)
    changing = np.minimum(since, lasts)
    speed = m.v + m.a * changing
    s = m.s + m.v * (t - fam.T0) + m.a * changing * (since - changing / 2)
    x = np.clip((t - m.t_shift) / m.shift_time, 0.0, 1.0)
    d = m.d + (m.d_end - m.d) * np.where(m.walks, x, ease(x))
    rate = np.where(m.walks, (x > 0.0) & (x < 1.0), 30.0 * (x * (1.0 - x)) ** 2)
    return moving, s, d, speed, (m.d_end - m.d) / m.shift_time * rate


def _tracks(stage: Stage, road: Road) -> torch.Tensor:
    """(B, N, T, 3) x, y, yaw in the world."""
    motion = stage.script.motion
    standing = road.point(_f32(motion.s), _f32(motion.d))
    tracks = standing[:, :, None].repeat(1, 1, stage.s.shape[-1], 1)
    tracks[torch.from_numpy(stage.scene), torch.from_numpy(stage.slot)] = poses_of(
        stage, road, stage.s, stage.d, stage.speed, stage.sideways
    )
    return tracks


def poses_of(stage: Stage, road: Road, s: np.ndarray, d: np.ndarray, speed: np.ndarray, sideways: np.ndarray) -> torch.Tensor:
    """(A, T, 3) x, y, yaw in the world of the stage's actors at s, d (A, T). A vehicle points along its motion; who walks keeps its yaw."""
    rows, at = torch.from_numpy(stage.scene), (stage.scene, stage.slot)
    own = Road(**{name: getattr(road, name)[rows] for name in Road.__dataclass_fields__})
    pose = own.point(_f32(s), _f32(d))
    slip = np.where(stage.script.motion.walks[at][:, None], 0.0, np.arctan2(sideways, np.maximum(np.abs(speed), 1.0)))
    pose[..., 2] += _f32(slip + stage.script.motion.yaw[at][:, None])
    return pose


def _brake_lights(stage: Stage) -> torch.Tensor:
    """(B, N, T): vehicles in traffic that slow down or stand."""
    pace, at = np.abs(stage.speed), (stage.scene, stage.slot)
    slows = np.diff(pace, axis=-1, append=pace[:, -1:]) < -0.03
    lit = np.zeros((*stage.script.kind.shape, stage.speed.shape[-1]), bool)
    lit[at] = (slows | (pace < 0.05)) & in_traffic(stage)[:, None]
    return torch.from_numpy(lit)


def in_traffic(stage: Stage) -> np.ndarray:
    """bool (A,): vehicles that drive along the road."""
    at = stage.scene, stage.slot
    return np.isin(stage.script.kind[at], (Kind.CAR, Kind.VAN, Kind.TRUCK)) & ~stage.script.motion.walks[at]


def _light(script: Script, steps: int) -> torch.Tensor:
    """(B, T) Light."""
    green = np.arange(steps) * DT >= script.green_from[:, None]
    return torch.from_numpy(np.where(green, int(Light.GREEN), int(Light.RED)))


# ---- the roadside

_PAINT = np.array(
    [[0.85, 0.85, 0.86], [0.12, 0.12, 0.13], [0.55, 0.57, 0.6], [0.6, 0.1, 0.1], [0.13, 0.22, 0.45], [0.3, 0.34, 0.3], [0.75, 0.7, 0.6]]
)
_CLOTHES = np.array([[0.75, 0.2, 0.15], [0.15, 0.3, 0.6], [0.85, 0.75, 0.25], [0.2, 0.45, 0.25], [0.9, 0.9, 0.88], [0.35, 0.2, 0.4]])
_CONE = np.array([0.95, 0.4, 0.05])
_SCENERY = np.array([Kind.TREE, Kind.TREE, Kind.TREE, Kind.BUSH, Kind.BUSH, Kind.LAMP, Kind.BUILDING, Kind.BUILDING])
_SCENERY_SIZE = np.zeros((len(Kind), 2, 3))
_SCENERY_SIZE[Kind.TREE] = (2.5, 2.5, 4.5), (5.0, 5.0, 8.5)
_SCENERY_SIZE[Kind.BUSH] = (0.9, 0.9, 0.7), (2.2, 2.2, 1.5)
_SCENERY_SIZE[Kind.LAMP] = (0.2, 0.2, 6.0), (0.2, 0.2, 8.0)
_SCENERY_SIZE[Kind.BUILDING] = (10.0, 8.0, 5.0), (22.0, 14.0, 15.0)
_SCENERY_COLOUR = np.zeros((len(Kind), 2, 3))
_SCENERY_COLOUR[Kind.TREE] = (0.1, 0.25, 0.08), (0.25, 0.42, 0.15)
_SCENERY_COLOUR[Kind.BUSH] = (0.12, 0.28, 0.1), (0.3, 0.45, 0.2)
_SCENERY_COLOUR[Kind.LAMP] = (0.4, 0.4, 0.42), (0.5, 0.5, 0.52)
_SCENERY_COLOUR[Kind.BUILDING] = (0.45, 0.38, 0.33), (0.8, 0.76, 0.7)


def _actor_colours(script: Script, draw: Draw) -> torch.Tensor:
    pick = draw.bits("paint", fam.ACTORS)
    kind = script.kind[..., None]
    paint, clothes = _PAINT[pick % np.uint64(len(_PAINT))], _CLOTHES[pick % np.uint64(len(_CLOTHES))]
    return _f32(np.where(kind == Kind.CONE, _CONE, np.where(kind == Kind.PEDESTRIAN, clothes, paint)))


def _plant(script: Script, draw: Draw, road: Road) -> tuple[torch.Tensor, ...]:
    """Kind (B, M), size, pose and colour (B, M, 3) of the props: signals first, then scenery on both sides of the road."""
    signals = _signals(script)
    scenery = _scenery(script, draw)
    kind, size, s, d, yaw, colour = (np.concatenate(pair, 1) for pair in zip(signals, scenery))
    pose = road.point(_f32(s), _f32(d))
    pose[..., 2] += _f32(yaw)
    foot = road.frenet(pose[..., :2]).numpy()
    reach = np.hypot(size[..., 0], size[..., 1]) / 2
    clear = (foot[..., 1] - reach > script.left_edge()[:, None] + 1.0) | (foot[..., 1] + reach < script.right_edge()[:, None] - 2.8)
    crossing = np.abs(s - script.crossing[:, None]) < script.crossing_half_width[:, None] + reach + 1.0
    crossing |= np.abs(s - script.crosswalk[:, None]) < reach + 3.0
    keep = clear & ~crossing
    keep[:, : PROPS - SCENERY] = True
    kind = np.where(keep, kind, int(Kind.NONE))
    return torch.from_numpy(kind), _f32(size), pose, _f32(colour)


def _signals(script: Script) -> tuple[np.ndarray, ...]:
    """Lights at the line and beyond the junction, or a stop sign; all face the ego."""
    count, slots = len(script.target), PROPS - SCENERY
    beyond = script.crossing + script.crossing_half_width + 1.0
    lit = ~np.isnan(script.green_from)
    right, left = script.right_edge() - 0.7, script.left_edge() + 0.7
    kind = np.zeros((count, slots), np.int64)
    kind[lit, :3] = Kind.TRAFFIC_LIGHT
    kind[script.stop_sign, 0] = Kind.STOP_SIGN
    limited = np.isfinite(script.limit_from)
    kind[limited, 3] = Kind.LIMIT_SIGN
    s = np.zeros((count, slots))
    d = np.zeros((count, slots))
    s[:, :3] = np.nan_to_num(np.stack([script.stop_line + 1.0, beyond, beyond], -1))
    d[:, :3] = np.stack([right, right, left], -1)
    s[limited, 3], d[limited, 3] = script.limit_from[limited], right[limited]
    size = np.zeros((count, slots, 3))
    size[lit, :3] = np.array([[0.4, 0.4, 3.6], [0.4, 0.4, 5.0], [0.4, 0.4, 5.0]])
    size[script.stop_sign, 0] = 0.1, 0.8, 2.6
    size[limited, 3] = 0.1, 0.8, 2.4
    colour = np.full((count, slots, 3), 0.25)
    colour[limited, 3, 0] = script.limit[limited] / 100  # the sign's face is painted by it
    return kind, size, s, d, np.full((count, slots), np.pi), colour


def _scenery(script: Script, draw: Draw) -> tuple[np.ndarray, ...]:
    """Trees, bushes, lamps and buildings between s = -60 and 200."""
    kind = _SCENERY[draw.integer("scenery", len(_SCENERY), SCENERY)]
    small, large = _SCENERY_SIZE[kind].transpose(2, 0, 1, 3)
    size = small + (large - small) * draw.uniform("scenery_size", count=SCENERY)[..., None]
    dark, bright = _SCENERY_COLOUR[kind].transpose(2, 0, 1, 3)
    colour = dark + (bright - dark) * draw.uniform("scenery_tint", count=SCENERY)[..., None]
    s = -60.0 + 260.0 / SCENERY * (np.arange(SCENERY) + draw.uniform("scenery_at", count=SCENERY))
    side = draw.sign("scenery_side", SCENERY)
    away = 4.5 + draw.uniform("scenery_away", count=SCENERY) ** 2 * 14.0 + np.where(kind == Kind.BUILDING, 6.0, 0.0) + size[..., 1] / 2
    away = np.where(kind == Kind.LAMP, 4.2, away)
    d = np.where(side > 0, script.left_edge()[:, None] + away, script.right_edge()[:, None] - away)
    facing = np.where(side > 0, np.pi, 0.0) + np.where(kind == Kind.LAMP, np.pi / 2, 0.0)  # a lamp's arm reaches over the road
    return kind, size, s, d, facing, colour


# ---- checks


def boxes_meet(centre_a, yaw_a, half_a, centre_b, yaw_b, half_b) -> torch.Tensor:
    """Oriented boxes overlap (separating axes): centres (..., 2), yaws (...), half sizes (..., 2)."""
    gap = centre_b - centre_a
    axes = torch.stack([torch.stack([(y + t).cos(), (y + t).sin()], -1) for y in (yaw_a, yaw_b) for t in (0.0, torch.pi / 2)], -2)
    distance = (axes * gap[..., None, :]).sum(-1).abs()
    reach = torch.zeros_like(distance)
    for yaw, half in ((yaw_a, half_a), (yaw_b, half_b)):
        for i, t in enumerate((0.0, torch.pi / 2)):
            side = torch.stack([(yaw + t).cos(), (yaw + t).sin()], -1)[..., None, :]
            reach = reach + (axes * side).sum(-1).abs() * half[..., i, None]
    return (distance < reach).all(-1)


def collisions(scene: SceneBatch) -> torch.Tensor:
    """bool (B, T): the ego's box overlaps an actor's."""
    hits = torch.zeros(scene.ego.shape[:2], dtype=torch.bool)
    yaw = scene.ego[..., 2]
    centre = scene.ego[..., :2] + fam.EGO_CENTRE * torch.stack([yaw.cos(), yaw.sin()], -1)
    half = torch.tensor([fam.EGO_LENGTH / 2, fam.EGO_WIDTH / 2]).expand_as(centre)
    for n in range(scene.kind.shape[1]):
        other = scene.track[:, n]
        size = (scene.size[:, n, None, :2] / 2).expand_as(centre)
        near = (other[..., :2] - centre).norm(dim=-1) < half[..., 0] + size[..., 0] + 2.0
        near &= (scene.kind[:, n] != Kind.NONE)[:, None]
        hits[near] |= boxes_meet(centre[near], yaw[near], half[near], other[near][..., :2], other[near][..., 2], size[near])
    return hits


def infeasible(scene: SceneBatch) -> torch.Tensor:
    """bool (B, T-1): an action outside the release's bounds, or one from which the unicycle does not lead to the next pose (5 mm)."""
    a, k = scene.action.double().unbind(-1)
    x, y, yaw = scene.ego.double().unbind(-1)
    v = scene.speed.double()
    after = yaw[:, :-1] + k * (v[:, :-1] * DT + a * DT * DT / 2)
    wrong = (v[:, :-1] + a * DT - v[:, 1:]).abs() + (after - yaw[:, 1:]).abs()
    for p, f in ((x, torch.cos), (y, torch.sin)):
        wrong = wrong + (p[:, :-1] + DT / 2 * (v[:, :-1] * f(yaw[:, :-1]) + v[:, 1:] * f(after)) - p[:, 1:]).abs()
    return (a.abs() > MAX_ACCELERATION) | (k.abs() > MAX_CURVATURE) | (wrong > 5e-3)
