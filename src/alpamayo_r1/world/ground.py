"""The ground, painted by the road's (s, d): asphalt, kerbs and grass, road paint, shadows, markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from alpamayo_r1.world.air import Air, hazed
from alpamayo_r1.world.scene import Road
from alpamayo_r1.world.texture import Colour, band, mix, noise, ramp, scale, wave
from alpamayo_r1.world.view import turned


class _Street(NamedTuple):
    """The road's cross-section, each (I, 1): lateral places d from right to left, and where the crossing road's axis lies along s."""

    lane: torch.Tensor
    right: torch.Tensor
    middle: torch.Tensor  # between the two directions
    left: torch.Tensor
    two_way: torch.Tensor
    junction: torch.Tensor


class _Spot(NamedTuple):
    """Ground points (I, n) in the road's coordinates, their footprint along s and d, and metres outside of the crossing road."""

    s: torch.Tensor
    d: torch.Tensor
    foot_s: torch.Tensor
    foot_d: torch.Tensor
    cross: torch.Tensor


class _Grain(NamedTuple):
    """Value noise of three sizes around 0, faded out where a pixel is coarser."""

    fine: torch.Tensor
    rough: torch.Tensor
    broad: torch.Tensor


def ground_seen(look, ego, air: Air, pixel: torch.Tensor, road: Road, urban, position, slots, valid, markers, fuse) -> Colour:
    """Lit, shadowed and hazed ground where the rays (n, m) x 3 meet it; nonsense for rays that rise.

    fuse: what fuses the functions of lists; None for static shapes.
    """
    x, y, z = turned(look, ego)
    drop = (-z).clamp_min(1e-4)
    t = (position[:, 2, None, None] / drop).clamp_max(3000.0)
    px, py = position[:, 0, None, None] + t * x, position[:, 1, None, None] + t * y
    across, along = t * pixel, t * pixel / drop
    level = torch.hypot(x, y).clamp_min(1e-6)
    points = (px, py, x / level, y / level, across, along)
    paved = _paved if fuse is None else fuse(_paved)
    albedo = paved(road, urban, *(v.reshape(len(urban), -1) for v in points))
    albedo = tuple(v.view(px.shape) for v in albedo)
    cast, contact = _shadows_on(slots.flatten(0, 1), valid.flatten(0, 1), px.flatten(0, 1), py.flatten(0, 1), fuse)
    cast, contact = cast.view(px.shape), contact.view(px.shape)
    light = air.ambient * (1 - 0.62 * contact) * (1 - 0.10 * cast) + air.direct * air.sun[2] * (1 - cast)
    ground = scale(albedo, light)
    if markers is not None:
        line = _marked(markers, px.flatten(1), py.flatten(1), across.flatten(1)).view(px.shape)
        ground = mix(ground, (1.0, 0.05, 0.85), line)
    return hazed(ground, t, air)


def _rows(v: torch.Tensor) -> torch.Tensor:
    """(I,) -> (I, 1), to go with ground points (I, n)."""
    return v[:, None].float()


def _heading(road: Road, s: torch.Tensor) -> torch.Tensor:
    """Heading of the reference line at s (I, n)."""
    out = road.start[:, :1, 2] + road.curvature[:, :1] * (s - road.s[:, :1])
    for i in range(1, road.s.shape[1]):
        here = road.start[:, i : i + 1, 2] + road.curvature[:, i : i + 1] * (s - road.s[:, i : i + 1])
        out = torch.where(s >= road.s[:, i : i + 1], here, out)
    return out


def _street(road: Road) -> _Street:
    lane = _rows(road.lane_width)
    middle = (0.5 + _rows(road.left_lanes)) * lane
    left, two_way = middle + _rows(road.oncoming) * lane, _rows(road.oncoming) > 0
    return _Street(lane, -(0.5 + _rows(road.right_lanes)) * lane, middle, left, two_way, _rows(road.crossing).nan_to_num(1e6))


def _spot(road: Road, street: _Street, x, y, view_x, view_y, across, along) -> _Spot:
    s, d = road.frenet(torch.stack([x, y], -1)).unbind(-1)
    heading = _heading(road, s)
    cos, sin = heading.cos(), heading.sin()
    forward, sideways = (cos * view_x + sin * view_y).abs(), (cos * view_y - sin * view_x).abs()
    foot_s = torch.hypot(along * forward, across * sideways)
    foot_d = torch.hypot(along * sideways, across * forward)
    return _Spot(s, d, foot_s, foot_d, (s - street.junction).abs() - _rows(road.crossing_half_width).nan_to_num(4))


def _paved(road: Road, urban: torch.Tensor, x, y, view_x, view_y, across, along) -> Colour:
    """Albedo of the ground at world x, y (I, n): everything painted by (s, d).

    view_x, view_y: horizontal view direction; across, along: footprint in metres perpendicular to it and along it.
    """
    street = _street(road)
    spot = _spot(road, street, x, y, view_x, view_y, across, along)
    grain = _grain(x, y, (across * along).sqrt())
    ground = _surfaced(street, spot, grain, urban)
    white, yellow = _paint(road, street, spot)
    wear = 0.93 + 0.25 * grain.fine + 0.22 * grain.rough
    ground = mix(ground, (0.88, 0.64, 0.13), (yellow * wear).clamp(0, 1))
    return mix(ground, (0.93, 0.93, 0.91), (white * wear).clamp(0, 1))


def _grain(x, y, foot) -> _Grain:
    fine = (0.5 - noise(x, y, 0.07)) * (0.04 / foot).clamp_max(1)
    rough = (0.5 - noise(x, y, 0.9)) * (0.6 / foot).clamp_max(1)
    return _Grain(fine, rough, (0.5 - noise(x, y, 7.0)) * (5.0 / foot).clamp_max(1))


def _surfaced(street: _Street, spot: _Spot, grain: _Grain, urban) -> Colour:
    """Bare surfaces from the outside in: grass, the verge (gravel, or slabs in town), the kerb, asphalt."""
    edge, foot = _edge(street, spot)
    fine, rough, broad = grain
    blades = 1 + 0.55 * fine + 0.45 * rough + 0.40 * broad
    grass = scale(mix((0.36, 0.50, 0.24), (0.55, 0.55, 0.32), (0.5 + broad + 0.4 * rough).clamp(0, 1)), blades)
    slab = 0.66 + 0.10 * fine + 0.06 * rough - 0.20 * wave(spot.s, 1.6, 0.05, spot.foot_s)
    gravel = 0.52 + 0.25 * fine + 0.10 * rough
    verge = mix((gravel, gravel * 0.96, gravel * 0.88), (slab, slab * 0.985, slab * 0.95), urban)
    out = mix(grass, verge, band(edge, -9.0, 0.9 + 1.5 * urban, foot))
    out = mix(out, scale((0.74, 0.73, 0.70), 1 + 0.2 * fine), band(edge, 0.0, 0.17, foot) * urban)
    return mix(out, _asphalt(street, spot, grain), band(edge, -1e3, 0.0, foot))


def _edge(street: _Street, spot: _Spot) -> tuple[torch.Tensor, torch.Tensor]:
    """Metres outside of the paved cross, its inner corners rounded, and the footprint in that direction."""
    beside = torch.maximum(street.right - 0.35 - spot.d, spot.d - street.left - 0.35)
    inner, corner = torch.minimum(beside, spot.cross), 5.0
    edge = corner - torch.hypot((corner - beside).clamp_min(0), (corner - spot.cross).clamp_min(0))
    return torch.where(inner < 0, inner, edge), torch.where(beside.abs() < spot.cross.abs(), spot.foot_d, spot.foot_s)


def _asphalt(street: _Street, spot: _Spot, grain: _Grain) -> Colour:
    lane = spot.d / street.lane + 0.5
    track = ((lane - lane.floor() - 0.5).abs() - 0.24).abs()  # wheel tracks a quarter lane beside each lane's centre
    worn = (1 - track / 0.14).clamp(0, 1) * (1.0 / spot.foot_d).clamp_max(1)
    grey = 0.385 + 0.10 * grain.fine + 0.022 * grain.rough + 0.05 * grain.broad - 0.022 * worn
    return grey, grey, grey * 1.02


def _paint(road: Road, street: _Street, spot: _Spot) -> tuple[torch.Tensor, torch.Tensor]:
    """Coverage of white and of yellow paint: lines up to the crossing and the zebra, the zebra itself, the stop line."""
    s, d, foot_s, foot_d, cross = spot
    open_road = (cross / foot_s.clamp_min(0.05) + 0.5).clamp(0, 1)
    crosswalk = s - _rows(road.crosswalk).nan_to_num(1e6)
    beside_zebra = 1 - band(crosswalk, -2.2, 2.2, foot_s)
    stripes = wave(d - street.right, 1.0, 0.5, foot_d) * band(d, street.right + 0.2, street.left - 0.2, foot_d)
    zebra = stripes * band(crosswalk, -1.5, 1.5, foot_s)
    to_stop = s - _rows(road.stop_line).nan_to_num(1e6)
    stop = band(to_stop, -0.22, 0.22, foot_s) * band(d, street.right + 0.3, street.middle - 0.3, foot_d)
    white = _white_lines(road, street, spot) * open_road * beside_zebra + zebra + stop
    yellow = _middle_line(street, spot) * open_road + _crossing_line(street, spot)
    return white, yellow * beside_zebra


def _white_lines(road: Road, street: _Street, spot: _Spot) -> torch.Tensor:
    """Dashes between the lanes of a direction, edge lines on the outside."""
    s, d, foot_s, foot_d, _ = spot
    lane, right, middle, left, two_way, _ = street
    first, last = -_rows(road.right_lanes), _rows(road.left_lanes) - 1
    own = torch.minimum(torch.maximum((d / lane - 0.5).round(), first), last)
    dash = band(d - (own + 0.5) * lane, -0.065, 0.065, foot_d) * (last >= first)
    far = torch.minimum(((d - middle) / lane).round().clamp_min(1), _rows(road.oncoming) - 1)
    dash = dash + band(d - middle - far * lane, -0.065, 0.065, foot_d) * (_rows(road.oncoming) > 1)
    edges = dash * wave(s, 9.0, 3.0, foot_s) + band(d, right + 0.12, right + 0.26, foot_d)
    return edges + band(d, left - 0.26, left - 0.12, foot_d) * two_way


def _middle_line(street: _Street, spot: _Spot) -> torch.Tensor:
    """A double line between the directions; a single one along the left edge of a one-way road."""
    d, middle = spot.d, street.middle
    single = band(d, middle - 0.26, middle - 0.12, spot.foot_d)
    return torch.where(street.two_way, band((d - middle).abs(), 0.07, 0.19, spot.foot_d), single)


def _crossing_line(street: _Street, spot: _Spot) -> torch.Tensor:
    """The crossing road's double line, from 4 m beside our road on."""
    sides = torch.maximum(street.right - spot.d, spot.d - street.left) - 4.0
    line = band((spot.s - street.junction).abs(), 0.07, 0.19, spot.foot_s)
    return line * (sides / spot.foot_d.clamp_min(0.05)).clamp(0, 1)


def _shadow(p: Sequence[torch.Tensor], x, y) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast and contact darkness 0..1 at ground points of one shadow: signed distances to a swept and to a plain rectangle."""
    cx, cy, c, s, hx, hy, sweep_x, sweep_y, contact, _ = p
    dx, dy = x - cx, y - cy

    def outside(ux, uy):
        u, v = (c * ux + s * uy).abs() - hx, (c * uy - s * ux).abs() - hy
        return torch.hypot(u.clamp_min(0), v.clamp_min(0)) + torch.maximum(u, v).clamp_max(0)

    slide = ((dx * sweep_x + dy * sweep_y) / (sweep_x * sweep_x + sweep_y * sweep_y).clamp_min(1e-6)).clamp(0, 1)
    cast = 1 - ramp(outside(dx - slide * sweep_x, dy - slide * sweep_y), -0.16, 0.14)
    return cast, contact * (1 - ramp(outside(dx, dy), -0.30, 0.45))


def _shadows_on(slots: torch.Tensor, valid: torch.Tensor, x, y, fuse) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest cast and contact darkness over the slots of G tiles at points x, y (G, m)."""
    cast, contact = torch.zeros_like(x), torch.zeros_like(x)
    for j in range(slots.shape[1]):
        if fuse is None:
            a, b = _shadow([v[:, None] for v in slots[:, j].unbind(-1)], x, y)
            cast = torch.maximum(cast, torch.where(valid[:, j, None], a, 0.0))
            contact = torch.maximum(contact, torch.where(valid[:, j, None], b, 0.0))
            continue
        rows = valid[:, j].nonzero()[:, 0]
        if not len(rows):
            break
        a, b = fuse(_shadow)([v[:, None] for v in slots[rows, j].unbind(-1)], x[rows], y[rows])
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
    return band(nearest, -half_width, half_width, foot.clamp_min(1e-3))
