"""What a hit looks like: the materials of primitives, their light and their reflections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from alpamayo_r1.world.air import Air, hazed
from alpamayo_r1.world.intersect import local_ray
from alpamayo_r1.world.parts import Paint
from alpamayo_r1.world.texture import Colour, dot, lettering, mix, noise, number_on, scale, wave


class _Faces(NamedTuple):
    """Which face of a box a point lies on: one of four masks, from the distances `gaps` to the front, rear, sides and ends."""

    gaps: tuple[torch.Tensor, ...]
    front: torch.Tensor
    rear: torch.Tensor
    side: torch.Tensor
    flat: torch.Tensor


class _Hit(NamedTuple):
    """Hits in their primitives' own frames, as far as materials look at them."""

    point: tuple[torch.Tensor, ...]
    half: tuple[torch.Tensor, ...]
    slant: torch.Tensor  # taper of a box's sides
    height: torch.Tensor  # above the bottom of a box, metres
    face: _Faces
    facing: torch.Tensor  # cosine between the ray and the outward normal
    foot: torch.Tensor  # metres per pixel
    own: Colour
    paint: torch.Tensor
    aux: torch.Tensor
    state: torch.Tensor

    def painted(self, kind: Paint) -> torch.Tensor:
        return self.paint == kind.value

    def brake_light(self) -> Colour:
        return mix((0.42, 0.03, 0.04), (1.0, 0.08, 0.06), self.state)


class _Look(NamedTuple):
    """What the materials say of hits: colour, the share that glows by itself, how much they mirror, opacity."""

    colour: Colour
    emit: torch.Tensor
    shine: torch.Tensor
    opacity: torch.Tensor


def shade(p: Sequence[torch.Tensor], ray, t, is_round, air: Air, axes, pixel: torch.Tensor) -> tuple[Colour, torch.Tensor]:
    """Colour of hits at distance t and their opacity. p: parameters per hit; axes: world axes in the camera frame, 3 x 3 tensors."""
    (ox, oy, oz), (dx, dy, dz) = local_ray(p, ray)
    point, half = (ox + dx * t, oy + dy * t, oz + dz * t), tuple(p[12:15])
    face = _faces(point, half, p[15:18])
    normal = _normal(p, point, face, is_round)
    hit = _Hit(point, half, p[17], point[2] + half[2], face, dot(normal, ray), t * pixel, tuple(p[19:22]), p[22], p[23], p[24])
    look = _Look(hit.own, 0.0 * t, 0.0 * t, torch.ones_like(t))
    for material in _MATERIALS:
        look = material(hit, look)
    world = tuple(dot(a, normal) for a in axes)
    light = air.ambient * (0.72 + 0.28 * world[2]) + air.direct * dot(world, air.sun).clamp_min(0)
    bounce = tuple(r - 2 * hit.facing * n for r, n in zip(ray, normal))
    lit = _mirrored(scale(look.colour, light), hit.facing, look.shine, tuple(dot(a, bounce) for a in axes), air)
    return hazed(mix(lit, look.colour, look.emit.clamp(0, 1)), t, air), look.opacity


def _faces(point, half, form) -> _Faces:
    (x, y, z), (hx, hy, hz) = point, half
    gaps = (hx - x - form[0] * z, hx + x - form[1] * z, hy - y.abs() - form[2] * z, hz - z.abs())
    least = torch.minimum(torch.minimum(gaps[0], gaps[1]), torch.minimum(gaps[2], gaps[3]))
    front = gaps[0] <= least
    rear = (gaps[1] <= least) & ~front
    side = (gaps[2] <= least) & ~front & ~rear
    return _Faces(gaps, front, rear, side, ~(front | rear | side))


def _normal(p: Sequence[torch.Tensor], point, face: _Faces, is_round) -> tuple[torch.Tensor, ...]:
    """Outward unit normals in the camera frame."""
    (x, y, z), (form0, form1, form2) = point, p[15:18]
    nx, ny = face.front.float() - face.rear.float(), face.side * y.sign()
    nz = face.front * form0 + face.rear * form1 + face.side * form2 + face.flat * z.sign()
    cap = is_round & (z.abs() > 0.999) & (form0 < 0.5)
    rz = (form0 - form2 * form2) * z + form1 * form2
    nx = torch.where(is_round, torch.where(cap, 0.0, x), nx)
    ny = torch.where(is_round, torch.where(cap, 0.0, y), ny)
    nz = torch.where(is_round, torch.where(cap, z.sign(), rz), nz)
    normal = tuple(p[c] * nx + p[3 + c] * ny + p[6 + c] * nz for c in range(3))
    return scale(normal, dot(normal, normal).clamp_min(1e-12).rsqrt())


def _mirrored(colour: Colour, facing, shine, bounce, air: Air) -> Colour:
    """Adds the sky's and the sun's reflections along the world directions `bounce`."""
    rise = bounce[2].clamp(-0.2, 1)
    fresnel = (shine * (0.25 + 0.75 * (1 + facing).clamp(0, 1) ** 3)).clamp_max(0.8) * (rise > 0) * (0.45 + 0.55 * rise)
    colour = mix(colour, mix((0.86, 0.91, 0.96), (0.50, 0.64, 0.84), rise), fresnel)
    sunlit = dot(bounce, air.sun).clamp_min(0) ** 60 * shine * air.direct * 1.5
    return mix(colour, (1.0, 1.0, 0.97), sunlit.clamp_max(1))


def _body(hit: _Hit, look: _Look) -> _Look:
    """A vehicle's body: sill, door seam, wheels, bumpers, grille, lamps, plate. aux: the wheels' radius; state: braking."""
    (x, y, _), (hx, hy, hz), height, radius = hit.point, hit.half, hit.height, hit.aux
    front, rear, side = hit.face.front, hit.face.rear, hit.face.side
    ends, level, out = front | rear, height / (2 * hz), y.abs() / hy
    wheel = torch.hypot(x.abs() - 0.31 * 2 * hx, height - radius)
    tyre = side & (wheel < radius)
    bumper = ends & (level < 0.34)
    grille = front & (out < 0.50) & (level > 0.42) & (level < 0.70)
    lamps = front & (out > 0.58) & (out < 0.94) & (level > 0.58) & (level < 0.78)
    plate = ends & (out < 0.26) & (level > 0.36) & (level < 0.36 + 0.13 / (2 * hz))
    tail = rear & (out > 0.56) & (out < 0.96) & (level > 0.56) & (level < 0.86)

    body = mix(hit.own, (0.05, 0.05, 0.055), (height < 0.20).float() * 0.92)
    body = mix(body, (0.06, 0.06, 0.06), (side & ((x - 0.05 * hx).abs() < 0.012) & (height > 0.28)) * 0.6)
    body = mix(body, (0.05, 0.05, 0.055), (side & (wheel < radius * 1.16) & (height > 0)).float())
    body = mix(body, (0.10, 0.10, 0.105), tyre.float())
    body = mix(body, (0.62, 0.63, 0.65), (side & (wheel < radius * 0.62) & (wheel > radius * 0.16)).float())
    body = mix(body, (0.11, 0.11, 0.115), (bumper & (height > 0.2)).float() * 0.8)
    body = mix(body, (0.08, 0.08, 0.09), grille.float())
    body = mix(body, (0.93, 0.95, 0.97), lamps.float())
    body = mix(body, (0.90, 0.90, 0.87), plate.float())
    body = mix(body, hit.brake_light(), tail.float())
    here = hit.painted(Paint.BODY)
    emit = look.emit + (here & tail) * (0.25 + 0.75 * hit.state) + (here & lamps) * 0.5
    shine = look.shine + (here & ~tyre & ~bumper) * 0.30
    return _Look(mix(look.colour, body, here.float()), emit, shine, look.opacity)


def _cabin(hit: _Hit, look: _Look) -> _Look:
    """Glass all around with pillars, a roof in the car's colour, the third brake light."""
    (x, y, z), (hx, hy, hz), face = hit.point, hit.half, hit.face
    share, ends = z / hz, face.front | face.rear
    frame = (hy - hit.slant * z - y.abs() < 0.07) & ends
    pillar = face.side & (((x + 0.15 * hx).abs() < 0.05) | (face.gaps[0] < 0.09) | (face.gaps[1] < 0.12))
    glass = (ends | face.side) & (share > -0.90) & (share < 0.84) & ~frame & ~pillar
    cabin = mix(hit.own, mix((0.10, 0.12, 0.15), (0.30, 0.36, 0.43), share * 0.5 + 0.5), glass.float())
    third = face.rear & (share > 0.70) & (share < 0.86) & (y.abs() < 0.22)
    cabin = mix(cabin, hit.brake_light(), (third & (hit.state > 0.5)).float())
    here = hit.painted(Paint.CABIN)
    emit = look.emit + (here & third & (hit.state > 0.5)) * 1.0
    shine = look.shine + here * (0.25 + 0.35 * glass)
    return _Look(mix(look.colour, cabin, here.float()), emit, shine, look.opacity)


def _cargo(hit: _Hit, look: _Look) -> _Look:
    """A truck's box: rear doors and a reflective strip."""
    face = hit.face
    strip = (face.side | face.rear) & (hit.point[2] / hit.half[2] < -0.93)
    door = face.rear & ((hit.point[1].abs() < 0.02) | (face.gaps[2] < 0.06))
    cargo = mix(mix(hit.own, (0.75, 0.12, 0.10), strip.float() * 0.8), (0.35, 0.35, 0.35), door.float())
    return look._replace(colour=mix(look.colour, cargo, hit.painted(Paint.CARGO).float()))


def _windows(hit: _Hit, look: _Look) -> _Look:
    """A building: rows of windows, a darker ground floor, filtered by the footprint."""
    (x, y, _), (hx, hy, _), height = hit.point, hit.half, hit.height
    across = torch.where(hit.face.side, x + hx, y + hy)
    holes = wave(across - 0.9, 3.2, 1.5, hit.foot) * wave(height - 1.0, 3.1, 1.6, hit.foot) * ~hit.face.flat
    cell = noise((across / 3.2).floor() + hit.aux * 7 + hx, (height / 3.1).floor() + hy * 3, 1.0)
    pane = mix((0.17, 0.22, 0.28), (0.52, 0.61, 0.70), cell)
    wall = mix(hit.own, scale(hit.own, 0.72), (height < 0.7).float())
    return look._replace(colour=mix(look.colour, mix(wall, pane, holes * 0.9), hit.painted(Paint.WINDOWS).float()))


def _traffic_light(hit: _Hit, look: _Look) -> _Look:
    """Three lamps on the front face, the one numbered `state` bright."""
    lit, colour, emit = hit.painted(Paint.LIGHT) & hit.face.front, look.colour, look.emit
    for index, on in enumerate(((1.0, 0.10, 0.07), (1.0, 0.70, 0.05), (0.10, 1.0, 0.45))):
        active = (hit.state - index).abs() < 0.5
        lens = lit & (torch.hypot(hit.point[1], hit.point[2] - (0.48 - 0.48 * index)) < 0.17 + 0.05 * active)
        colour = mix(colour, mix(scale(on, 0.16), on, active.float()), lens.float())
        emit = emit + (lens & active) * 1.0
    return look._replace(colour=colour, emit=emit)


def _stop_sign(hit: _Hit, look: _Look) -> _Look:
    """White border and lettering on red."""
    _, y, z = hit.point
    edge = torch.maximum(torch.maximum(y.abs(), z.abs()), (y.abs() + z.abs()) * 0.7071)
    sign = mix((0.78, 0.06, 0.08), (0.96, 0.96, 0.96), ((edge > 0.375) | lettering(y, z)).float())
    here = hit.painted(Paint.SIGN) & hit.face.front
    return look._replace(colour=mix(look.colour, sign, here.float()), emit=look.emit + here * 0.35)


def _limit_sign(hit: _Hit, look: _Look) -> _Look:
    """A number in a red ring. own: the allowed speed in m/s / 100, as red."""
    _, y, z = hit.point
    out = torch.hypot(y, z)
    face = mix((0.96, 0.96, 0.96), (0.06, 0.06, 0.06), number_on(y, z, hit.own[0] > 0.07).float())
    face = mix(face, (0.80, 0.06, 0.08), (out > 0.31).float())
    here = hit.painted(Paint.LIMIT)
    sign = mix((0.62, 0.62, 0.62), face, hit.face.front.float())
    there = 1 - (here & (out > 0.42)).float()
    return _Look(mix(look.colour, sign, here.float()), look.emit + (here & hit.face.front) * 0.35, look.shine, look.opacity * there)


def _foliage(hit: _Hit, look: _Look) -> _Look:
    """Mottled leaves, frayed at the silhouette. aux tells one crown's pattern from another's."""
    (x, y, z), (hx, hy, hz), here = hit.point, hit.half, hit.painted(Paint.FOLIAGE)
    u, v = (x * hx + y * hy * 0.7) + hit.aux * 3, z * hz + y * hy * 0.4 + hit.aux
    leaf = 0.5 * noise(u, v, 0.75) + 0.5 * noise(u + 5, v, 0.26)
    colour = mix(look.colour, scale(hit.own, 0.50 + 0.95 * leaf), here.float())
    return look._replace(colour=colour, opacity=look.opacity - (here & (hit.facing.abs() < 0.30 * leaf)).float())


def _traffic_cone(hit: _Hit, look: _Look) -> _Look:
    """Two white bands on orange."""
    z = hit.point[2]
    white = ((z > -0.02) & (z < 0.30)) | ((z > 0.50) & (z < 0.66))
    cone = mix((1.0, 0.42, 0.07), (0.96, 0.96, 0.95), white.float())
    return look._replace(colour=mix(look.colour, cone, hit.painted(Paint.CONE).float()))


_MATERIALS = (_body, _cabin, _cargo, _windows, _traffic_light, _stop_sign, _limit_sign, _foliage, _traffic_cone)
