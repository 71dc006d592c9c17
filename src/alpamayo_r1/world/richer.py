"""Situations beyond those that the small model drives: junctions with a route, a lane that ends, speed limits, vehicles parked on the left.

They have no share in the seeds of `families.FAMILIES`, whose scenes stay what they are; `richer_families` gives every seed one of all.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.families import Draw, Script
from alpamayo_r1.world.scene import Kind, Route

LINE_TO_CROSSING = 4.0
"""Metres from the stop line to the edge of the crossing road."""

RADIUS = {Route.LEFT: 12.0, Route.STRAIGHT: 12.0, Route.RIGHT: 8.0}
"""Of a turn, metres: to the left into the crossing road's far half, to the right into its near half."""

NIGHT = 0.15
"""Share of these scenes at night."""

LIMITS = np.array([20.0, 30.0]) / 3.6
"""Speeds that a sign may allow, m/s: 20 and 30 km/h."""


def junction(script: Script, rows, draw: Draw, route: Route) -> None:
    """A junction with a street each way, with a light, a stop sign or nothing; who turns left gives way to oncoming traffic."""
    none = np.zeros(len(rows), np.int64)
    script.set_lanes(rows, none + 1, none)
    script.oncoming[rows] = 1
    control = draw.integer("control", 8)  # 0, 1, 2: nothing, 3, 4, 5: green, 6: red, 7: a stop sign
    line = fam.EGO_FRONT + draw.uniform("line", 4.0, 26.0)
    half = np.array([6.5, 7.0, 7.5])[draw.integer("crossing", 3)]
    crossing = line + LINE_TO_CROSSING + half
    radius, way = RADIUS[route], {Route.LEFT: 1.0, Route.STRAIGHT: 0.0, Route.RIGHT: -1.0}[route]
    begin = crossing + way * half / 2 - radius
    pieces = np.array([-200.0, -100.0, 0.0, 100.0, 200.0])
    script.piece[rows], script.way_piece[rows, :2] = pieces, pieces[:2]
    script.way_piece[rows, 2:] = np.stack([begin, begin + radius * np.pi / 2, begin + radius * np.pi / 2 + 100.0], -1)
    script.way_curvature[rows, 2] = way / radius
    script.stop_line[rows], script.crossing[rows], script.crossing_half_width[rows] = line, crossing, half
    script.route[rows] = int(route)
    script.strolls[rows] = script.flow_oncoming[rows] = False
    script.green_from[rows] = np.select([control == 6, control < 3, control == 7], [np.inf, np.nan, np.nan], -np.inf)
    script.stop_sign[rows] = control == 7
    turning = np.sqrt(fam.LATERAL_ACCELERATION * radius) if way else script.target[rows]
    stops = control >= 6
    fam.approach(script, rows, np.where(stops, line - fam.EGO_FRONT - fam.LINE_GAP, begin), np.where(stops, 0.0, turning))
    script.night[rows] = draw.chance("night", NIGHT)
    red = control == 6
    fam.others_wait(script, rows[red], draw[red], np.inf)
    _oncoming(script, rows[~red], draw[~red])


def _oncoming(script: Script, rows, draw: Draw) -> None:
    """None, one or two vehicles on their way through the junction."""
    speed, reached = draw.uniform("speed_oncoming", 7.0, 11.0), draw.uniform("reached", -1.0, 9.0)
    some = draw.chance("comes", 0.5)
    for slot, later in ((fam.ONCOMING, 0.0), (fam.ONCOMING_2, draw.uniform("then", 2.5, 6.0))):
        s, d = script.crossing[rows] + speed * (reached + later), script.lane_width[rows]
        script.put(rows[some], slot, fam.vehicle(draw, f"kind_{slot}")[some], s[some], d[some], v=-speed[some], yaw=np.pi)
        some = some & draw.chance("two_come", 0.5)


def merge(script: Script, rows, draw: Draw) -> None:
    """Cones close the lane from its right side to its left: the driver merges into the next lane, where nobody is near."""
    lanes = 2 + draw.integer("lanes_2", 2)
    script.set_lanes(rows, lanes, 1 + draw.integer("lane_2", lanes - 1))
    fam.bend(script, rows, draw)
    width = script.lane_width[rows]
    first = fam.EGO_FRONT + draw.uniform("first_cone", 14.0, 44.0)
    count = 5
    for j in range(count):
        script.put(rows, fam.STANDING + j, Kind.CONE, first + 3.5 * j, width * (j / (count - 1) - 0.5) * 0.9)
    length = script.swerve_length[rows]
    script.swerve[rows] = np.stack([first - fam.EGO_FRONT - 0.7 - length, np.full(len(rows), 1e9), width], -1)
    script.flow_left[rows] = False
    some = draw.chance("flow_merge", 0.5)
    ahead = fam.EGO_FRONT + draw.uniform("ahead", 18.0, 45.0)
    speed = script.target[rows] * draw.uniform("pace_ahead", 1.0, 1.15)
    script.put(rows[some], fam.LEFT, fam.vehicle(draw, "kind_left")[some], ahead[some], width[some], v=speed[some])
    script.night[rows] = draw.chance("night", NIGHT)


def limit(script: Script, rows, draw: Draw) -> None:
    """A sign that allows less than the usual speed from there on."""
    lanes = 2 + draw.integer("lanes_2", 2)
    script.set_lanes(rows, lanes, draw.integer("lane_2", lanes))
    fam.bend(script, rows, draw)
    allowed = LIMITS[draw.integer("limit", 2)]
    distance = draw.uniform("distance", 12.0, 50.0)
    fam.approach(script, rows, distance, allowed)
    script.limit_from[rows], script.limit[rows] = distance, allowed
    script.flow_left[rows] = script.flow_right[rows] = False
    script.night[rows] = draw.chance("night", NIGHT)


def parked_left(script: Script, rows, draw: Draw) -> None:
    """A vehicle parked half in the leftmost lane, on its left; there is a lane to the right."""
    lanes = 2 + draw.integer("lanes_2", 2)
    script.set_lanes(rows, lanes, np.zeros(len(rows), np.int64))
    script.oncoming[rows] = 0
    fam.bend(script, rows, draw)
    first = fam.EGO_FRONT + 2.3 + draw.uniform("first_parked", 10.0, 38.0)
    edge = fam.ENCROACHMENTS[draw.integer("edge", 3)]
    length, width, _ = fam.SIZES[Kind.CAR]
    script.put(rows, fam.STANDING, Kind.CAR, first, edge + width / 2)
    fam.obstacles(script, rows, 1.0, first - length / 2, first + length / 2, edge)
    script.night[rows] = draw.chance("night", NIGHT)


JUNCTIONS = ("junction_left", "junction_straight", "junction_right")
"""One junction per seed, with three routes: nothing that is seen of it differs between them."""

RICHER = (*JUNCTIONS, "merge", "limit", "parked_left")
"""The names of these families."""

SHARES = (0.15, 0.08, 0.11, 0.07, 0.06, 0.05)
"""Of RICHER among the scenes that a richer model is trained on; the others are FAMILIES', evenly."""

_ROUTES = (Route.LEFT, Route.STRAIGHT, Route.RIGHT)

ALL_FAMILIES = (*fam.FAMILIES, *RICHER)
ALL_WRITERS: tuple[fam.Writer, ...] = (*fam.WRITERS, *(partial(junction, route=route) for route in _ROUTES), merge, limit, parked_left)


def richer_families(seeds: np.ndarray) -> list[str]:
    """The family of each seed's scene among all there are, by SHARES."""
    at = Draw.of(np.asarray(seeds, np.int64)).uniform("richer_family")
    ends = np.cumsum(SHARES)
    which = np.searchsorted(ends, at, "right")
    rest = ((at - ends[-1]) / (1 - ends[-1]) * len(fam.FAMILIES)).astype(np.int64)
    return [RICHER[i] if i < len(RICHER) else fam.FAMILIES[max(j, 0)] for i, j in zip(which.tolist(), rest.tolist(), strict=True)]
