"""The record of a synthetic scene: what the simulator writes, what the renderer and the clip writer read.

A SceneBatch holds B scenes as structure of arrays. World frame: metres, z up, flat ground at z = 0; time step n is n * 0.1 s of clip time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch

DT = 0.1


class Kind(IntEnum):
    """What an actor or a prop is. NONE marks an unused slot."""

    NONE = 0
    CAR = 1
    VAN = 2
    TRUCK = 3
    PEDESTRIAN = 4
    CONE = 5
    TRAFFIC_LIGHT = 6
    STOP_SIGN = 7
    TREE = 8
    BUILDING = 9
    LAMP = 10
    BUSH = 11
    LIMIT_SIGN = 12


class Route(IntEnum):
    """Where a driver is to go at the junction ahead."""

    NONE = 0
    LEFT = 1
    STRAIGHT = 2
    RIGHT = 3


class Light(IntEnum):
    """State of the scene's traffic light."""

    RED = 0
    AMBER = 1
    GREEN = 2


@dataclass(frozen=True)
class Road:
    """A road around a reference line: the centre of the ego's own lane, P pieces of constant curvature.

    The first piece also extends backwards and the last one forwards without end. Offsets d are to the left of the line.
    NaN means "there is none" in crossing, crosswalk and stop_line.
    """

    start: torch.Tensor  # (B, P, 3) x, y, heading where the piece starts
    s: torch.Tensor  # (B, P) arc length where the piece starts, increasing
    curvature: torch.Tensor  # (B, P) 1/m, positive to the left
    lane_width: torch.Tensor  # (B,) m
    left_lanes: torch.Tensor  # (B,) lanes to the left of the ego's in its own direction
    right_lanes: torch.Tensor  # (B,) lanes to the right in its own direction
    oncoming: torch.Tensor  # (B,) lanes of oncoming traffic, left of a double yellow line
    crossing: torch.Tensor  # (B,) s of the centre of a crossing road (perpendicular there)
    crossing_half_width: torch.Tensor  # (B,) m
    crosswalk: torch.Tensor  # (B,) s of the centre of a zebra crossing 3 m wide
    stop_line: torch.Tensor  # (B,) s of a painted stop line across the ego's lanes

    def edges(self) -> tuple[torch.Tensor, torch.Tensor]:
        """d (B,) of the road's left and right edge; the right one is negative."""
        return (self.left_lanes + self.oncoming + 0.5) * self.lane_width, -(self.right_lanes + 0.5) * self.lane_width

    def point(self, s: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """(s, d) of shape (B, ...) -> (B, ..., 3) x, y, heading of the road there."""
        flat_s, flat_d = s.flatten(1), d.flatten(1)
        piece = (flat_s[..., None] >= self.s[:, None]).sum(-1).sub(1).clamp_min(0)
        start = self.start.gather(1, piece[..., None].expand(-1, -1, 3))
        k, ds = self.curvature.gather(1, piece), flat_s - self.s.gather(1, piece)
        x, y, heading = start.unbind(-1)
        turn = k * ds
        along = ds * torch.sinc(turn / torch.pi)  # sin(k ds) / k
        side = ds * 0.5 * turn * torch.sinc(turn / (2 * torch.pi)) ** 2  # (1 - cos(k ds)) / k
        c, sn, psi = heading.cos(), heading.sin(), heading + turn
        px = x + c * along - sn * side - flat_d * psi.sin()
        py = y + sn * along + c * side + flat_d * psi.cos()
        return torch.stack([px, py, psi], -1).unflatten(1, s.shape[1:])

    def frenet(self, xy: torch.Tensor) -> torch.Tensor:
        """World points (B, ..., 2) -> (B, ..., 2) (s, d): the nearest foot point among the pieces, in closed form."""
        p = xy.flatten(1, -2)[:, :, None]
        x, y, heading = (v[:, None] for v in self.start.unbind(-1))  # (B, 1, P)
        c, sn, k = heading.cos(), heading.sin(), self.curvature[:, None]
        dx, dy = p[..., 0] - x, p[..., 1] - y
        u, v = c * dx + sn * dy, c * dy - sn * dx  # the piece's own axes, tangent at its start
        straight = k.abs() < 1e-6
        safe = torch.where(straight, torch.ones_like(k), k)
        angle = torch.atan2(u, (1 / safe - v) * safe.sign())  # turned about the arc's centre
        s = torch.where(straight, u, angle / safe.abs())
        d = torch.where(straight, v, (1 / safe - torch.hypot(u, 1 / safe - v) * safe.sign()))
        length = torch.cat([self.s.diff(dim=1), torch.full_like(self.s[:, :1], 1e6)], 1)[:, None]
        first = torch.zeros_like(length)
        first[..., 0] = -1e6
        beyond = (first - s).clamp_min(0) + (s - length).clamp_min(0)
        pick = (beyond * 1e3 + d.abs()).argmin(-1, keepdim=True)
        out = torch.stack([(s + self.s[:, None]).gather(-1, pick)[..., 0], d.gather(-1, pick)[..., 0]], -1)
        return out.unflatten(1, xy.shape[1:-1])


@dataclass(frozen=True)
class SceneBatch:
    """B scenes over T steps of 0.1 s. N moving actors (or parked: they may all stand), M props that never move."""

    seeds: torch.Tensor  # (B,) int64
    family: tuple[str, ...]  # B names, see world.families.FAMILIES
    road: Road
    ego: torch.Tensor  # (B, T, 3) x, y, yaw of the rear axle's centre
    speed: torch.Tensor  # (B, T) m/s
    action: torch.Tensor  # (B, T-1, 2) acceleration m/s^2 and curvature 1/m that lead from step n to n+1
    kind: torch.Tensor  # (B, N) Kind
    size: torch.Tensor  # (B, N, 3) length, width, height m
    colour: torch.Tensor  # (B, N, 3) 0..1
    track: torch.Tensor  # (B, N, T, 3) x, y, yaw of the actor's centre on the ground
    braking: torch.Tensor  # (B, N, T) bool, brake lights
    prop_kind: torch.Tensor  # (B, M) Kind
    prop_size: torch.Tensor  # (B, M, 3) length, width, height m
    prop_colour: torch.Tensor  # (B, M, 3)
    prop_pose: torch.Tensor  # (B, M, 3) x, y, yaw of its centre on the ground; lights and signs face the ego
    light: torch.Tensor  # (B, T) Light, the state of every TRAFFIC_LIGHT prop of the scene
    sun: torch.Tensor  # (B, 2) azimuth and elevation, radians, world frame
    sky: torch.Tensor  # (B,) 0 clear .. 1 overcast
    night: torch.Tensor  # (B,) 0 day .. 1 night
    route: torch.Tensor  # (B,) Route
    limit_from: torch.Tensor  # (B,) s from which a speed limit holds, inf there is none
    limit: torch.Tensor  # (B,) m/s

    def to(self, device: torch.device | str) -> SceneBatch:
        """The same scenes on another device."""
        return _map(self, lambda t: t.to(device))

    def cut(self, steps: slice) -> SceneBatch:
        """The same scenes over some of their steps."""
        alike = {name: getattr(self, name)[:, steps] for name in ("ego", "speed", "action", "light")}
        return replace(self, track=self.track[:, :, steps], braking=self.braking[:, :, steps], **alike)

    def __getitem__(self, rows: slice) -> SceneBatch:
        """A slice of the scenes."""
        return replace(_map(self, lambda t: t[rows]), family=self.family[rows])


def _map(record, f):
    changed = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, torch.Tensor):
            changed[item.name] = f(value)
        elif isinstance(value, Road):
            changed[item.name] = _map(value, f)
    return replace(record, **changed)
