"""The situation families: each writes its part of a script, drawn from the scene's own seed.

A script says where everything is and how it moves, in road coordinates (s along the ego's lane, d to the left of its centre). The ego of
an undisturbed scene passes s = 0 at t0 = 5.1 s. Nothing is decided by chance after t0: what governs the drive is visible by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from numpy.typing import DTypeLike

from alpamayo_r1.world.scene import Kind, Route

T0_STEP = 51
T0 = 5.1
"""The step and the time in seconds at which every family's situation is in full view."""

EGO_LENGTH, EGO_WIDTH, EGO_CENTRE, EGO_FRONT = 4.9, 2.0, 1.4, 3.85
"""The ego's box, and how far its centre and its front bumper are ahead of the rear axle, in metres."""

LANE_SPEED = np.array([8.0, 11.0, 14.0])
"""Target speed in m/s on a road of 1, 2 and 3 lanes in the ego's direction."""

BRAKE, STOP_SOFTNESS, HEADWAY = 2.0, 0.5, 1.2
"""Comfortable deceleration m/s^2, how softly a stop ends m/s, time headway to a lead s."""

LATERAL_ACCELERATION = 1.5
"""Comfortable in a curve, m/s^2: the curve speed is sqrt(LATERAL_ACCELERATION * radius)."""

LINE_GAP, LEAD_GAP = 1.0, 3.0
"""Where the front bumper comes to rest before a line and behind a vehicle, metres."""

OVERRUN = 2.0
"""Metres past a line up to which a driver still stops for it."""

LEAD_BRAKE, LEAD_START, WALK, LANE_CHANGE = 4.0, 1.5, 1.4, 4.0
"""A braking lead m/s^2, one that pulls away m/s^2, walking speed m/s, time of a lane change s."""

STOP_SIGN_WAIT, REACTION, CLEAR_MARGIN = 2.0, 0.5, 1.0
"""Rest at a stop sign s, from green to go s, how far past the lane's edge a pedestrian has cleared it m."""

ENCROACHMENTS = np.array([0.9, 0.5, 0.1])
"""How near the lane's centre an obstacle's edge comes, metres."""

SWERVE_CLEARANCE, SWERVE_TIME = 0.7, 2.2
"""Between the ego's side and an obstacle m, and the time at target speed over which a swerve builds up s."""

PIECES, ACTORS, MOVING = 5, 16, 8
"""Road pieces, actor slots, and how many of those (the first) may move."""

LEAD, WALKER, SECOND, LEFT, RIGHT, ONCOMING, ONCOMING_2, STROLLER, STANDING = range(9)
"""What the slots hold: the vehicle that matters, who crosses, a further vehicle, traffic to either side, ..., then all that stands."""

SIZES = {
    Kind.CAR: (4.5, 1.85, 1.5),
    Kind.VAN: (5.4, 2.0, 2.1),
    Kind.TRUCK: (8.0, 2.4, 3.2),
    Kind.PEDESTRIAN: (0.5, 0.6, 1.75),
    Kind.CONE: (0.4, 0.4, 0.8),
}
"""Length, width and height in metres."""


@dataclass(frozen=True)
class Draw:
    """Counter-based random numbers: a value is a hash of (seed, name), so it depends on nothing else."""

    state: np.ndarray  # (B,) uint64

    @classmethod
    def of(cls, seeds: np.ndarray) -> Draw:
        """The numbers of these seeds, int64 (B,)."""
        return cls(_mix(seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019)))

    def __getitem__(self, rows) -> Draw:
        """The numbers of some of the seeds."""
        return Draw(self.state[rows])

    def bits(self, name: str, count: int | None = None) -> np.ndarray:
        """uint64 (B,) or (B, count)."""
        z = self.state ^ np.uint64(crc32(name.encode()) * 0xD1342543DE82EF95 % 2**64)
        if count is not None:
            z = z[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        return _mix(z)

    def uniform(self, name: str, low: float | np.ndarray = 0.0, high: float | np.ndarray = 1.0, count: int | None = None) -> np.ndarray:
        """float64 in [low, high)."""
        return low + (high - low) * ((self.bits(name, count) >> np.uint64(11)) * 2.0**-53)

    def integer(self, name: str, n, count: int | None = None) -> np.ndarray:
        """int64 in [0, n)."""
        return (self.uniform(name, 0.0, 1.0, count) * n).astype(np.int64)

    def chance(self, name: str, p: float, count: int | None = None) -> np.ndarray:
        """True with probability p."""
        return self.uniform(name, count=count) < p

    def sign(self, name: str, count: int | None = None) -> np.ndarray:
        """-1 or 1."""
        return np.where(self.chance(name, 0.5, count), 1.0, -1.0)


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Motion:
    """How the actors move, float64 (B, N) each; read at time t in seconds.

    Along the road: at `s` at t0 with speed `v`; but from `t_change` acceleration `a` until `v_end`, then that speed.
    Across: from `d` to `d_end` between `t_shift` and `t_shift + shift_time`, as a lane change eases or, `walks`, at an even pace.
    """

    s: np.ndarray
    d: np.ndarray
    yaw: np.ndarray
    v: np.ndarray
    t_change: np.ndarray
    a: np.ndarray
    v_end: np.ndarray
    d_end: np.ndarray
    t_shift: np.ndarray
    shift_time: np.ndarray
    walks: np.ndarray


@dataclass(frozen=True)
class Script:
    """What B scenes are to be, as arrays (B,), (B, PIECES) or (B, ACTORS), written in place by the families."""

    lane_width: np.ndarray
    left: np.ndarray
    right: np.ndarray
    oncoming: np.ndarray
    target: np.ndarray  # speed m/s
    piece: np.ndarray  # (B, PIECES) s where each begins
    curvature: np.ndarray  # (B, PIECES)
    stop_line: np.ndarray  # s or NaN, as crossing and crosswalk
    crossing: np.ndarray
    crossing_half_width: np.ndarray
    crosswalk: np.ndarray
    green_from: np.ndarray  # s of time the light turns green: inf stays red, -inf always green, NaN there is no light
    stop_sign: np.ndarray  # bool
    start: np.ndarray  # the ego's s at time 0
    start_speed: np.ndarray
    lead_from: np.ndarray  # time from which the ego minds the vehicle in slot LEAD, inf never
    walker_clear: np.ndarray  # time at which the pedestrian has cleared the lane, -inf there is none
    swerve: np.ndarray  # (B, 3) s where it begins, s where the way back begins, height m (positive left)
    flow_left: np.ndarray  # bool: other traffic may use the lanes to the left, right, oncoming
    flow_right: np.ndarray
    flow_oncoming: np.ndarray
    strolls: np.ndarray  # bool: somebody may walk along the pavement
    route: np.ndarray  # where the driver is to go at the junction: Route
    way_piece: np.ndarray  # (B, PIECES) the driver's way: as `piece` and `curvature`, but for a turn that leaves the road
    way_curvature: np.ndarray
    limit_from: np.ndarray  # s from which a speed limit holds, inf there is none
    limit: np.ndarray  # m/s
    night: np.ndarray  # 0 day .. 1 night
    kind: np.ndarray  # (B, ACTORS)
    size: np.ndarray  # (B, ACTORS, 3)
    motion: Motion

    @property
    def swerve_length(self) -> np.ndarray:
        """Metres over which a swerve builds up."""
        return SWERVE_TIME * self.target

    def way(self) -> Script:
        """What the driver keeps to: the script with its own way for the road."""
        return replace(self, piece=self.way_piece, curvature=self.way_curvature)

    def right_edge(self) -> np.ndarray:
        """d of the road's right edge (negative)."""
        return -(self.right + 0.5) * self.lane_width

    def left_edge(self) -> np.ndarray:
        """d of the road's left edge."""
        return (self.left + self.oncoming + 0.5) * self.lane_width

    def put(self, rows, slot: int, kind, s, d, **motion) -> None:
        """Fills actor slot `slot` of `rows`; the fields of Motion not named stay at rest."""
        if np.size(rows) == 0:
            return
        self.kind[rows, slot] = kind
        self.size[rows, slot] = SIZE_TABLE[self.kind[rows, slot]]
        values = {"s": s, "d": d, "v_end": motion.get("v", 0.0), "d_end": d, **motion}
        for name, value in values.items():
            getattr(self.motion, name)[rows, slot] = value

    def set_lanes(self, rows, lanes, left) -> None:
        """Lanes in the ego's direction, how many of them to its left, and the target speed that follows."""
        self.left[rows], self.right[rows] = left, lanes - 1 - left
        self.target[rows] = LANE_SPEED[lanes - 1]
        self.start_speed[rows] = self.target[rows]
        self.start[rows] = -self.target[rows] * T0


SIZE_TABLE = np.zeros((len(Kind), 3))
for _kind, _size in SIZES.items():
    SIZE_TABLE[_kind] = _size


def allowed_speed(distance, end_speed, softness):
    """Speed m/s from which `end_speed` is reached within `distance` metres: sqrt((v_e + c)^2 + 2 b d) - c, never below 0.

    Along it the deceleration is b v / (v + c). With c = b * headway and the distance to the point a headway behind the lead this is
    Gipps' safe speed.
    """
    return np.maximum(np.sqrt(np.maximum((end_speed + softness) ** 2 + 2 * BRAKE * distance, 0.0)) - softness, 0.0)


def ease(x: np.ndarray) -> np.ndarray:
    """Quintic from 0 to 1 with flat ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * x * (10.0 + x * (6.0 * x - 15.0))


def braking_distance(speed, end_speed, softness=STOP_SOFTNESS):
    """Inverse of `allowed_speed`, metres."""
    return ((speed + softness) ** 2 - (end_speed + softness) ** 2) / (2 * BRAKE)


def approach(script: Script, rows, distance, end_speed) -> None:
    """Starts the ego so that at t0 it passes s = 0, `distance` before the place at which `end_speed` is due."""
    c, cruise = STOP_SOFTNESS, script.target[rows]
    speed = np.minimum(allowed_speed(distance, end_speed, c), cruise)
    time = (cruise - speed + c * np.log(cruise / speed)) / BRAKE
    braked = np.where(speed < cruise, braking_distance(cruise, speed), 0.0)
    script.start[rows] = -braked - cruise * (T0 - time)


def blank(draw: Draw) -> Script:
    """An empty road: lanes, width and mild bends; the ego drives along at target speed."""
    count = len(draw.state)

    def full(value: object, *shape: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        return np.full((count, *shape), value, dtype)

    zero = [full(0.0, ACTORS) for _ in range(10)]
    motion = Motion(*zero, walks=full(False, ACTORS, dtype=bool))
    motion.shift_time[:] = 1.0
    motion.t_change[:] = np.inf
    motion.t_shift[:] = np.inf
    lanes = 1 + draw.integer("lanes", 3)
    left = draw.integer("lane", lanes)
    script = Script(
        lane_width=3.3 + 0.1 * draw.integer("width", 5),
        left=left,
        right=lanes - 1 - left,
        oncoming=np.array([0, 1, 1, 2])[draw.integer("oncoming", 4)],
        target=LANE_SPEED[lanes - 1],
        piece=full(0.0, PIECES),
        curvature=full(0.0, PIECES),
        stop_line=full(np.nan),
        crossing=full(np.nan),
        crossing_half_width=full(np.nan),
        crosswalk=full(np.nan),
        green_from=full(np.nan),
        stop_sign=full(False, dtype=bool),
        start=full(0.0),
        start_speed=full(0.0),
        lead_from=full(np.inf),
        walker_clear=full(-np.inf),
        swerve=full(0.0, 3),
        flow_left=full(True, dtype=bool),
        flow_right=full(True, dtype=bool),
        flow_oncoming=full(True, dtype=bool),
        strolls=full(True, dtype=bool),
        route=full(int(Route.NONE), dtype=np.int64),
        way_piece=full(np.nan, PIECES),
        way_curvature=full(0.0, PIECES),
        limit_from=full(np.inf),
        limit=full(np.inf),
        night=full(0.0),
        kind=full(int(Kind.NONE), ACTORS, dtype=np.int64),
        size=full(0.0, ACTORS, 3),
        motion=motion,
    )
    script.set_lanes(np.arange(count), lanes, left)
    return script


def bend(script: Script, rows, draw: Draw) -> None:
    """Straight, three pieces that are straight or bend mildly (no slower than the target speed, at most 0.7 rad each), straight."""
    lengths = draw.uniform("length", 35.0, 80.0, 3)
    script.piece[rows, 0] = -200.0
    script.piece[rows, 1] = draw.uniform("first", -60.0, -10.0)
    script.piece[rows, 2:] = script.piece[rows, 1, None] + lengths.cumsum(1)
    tightest = np.maximum(script.target[rows, None] ** 2 / (0.8 * LATERAL_ACCELERATION), lengths / 0.7)
    radius = tightest + (400.0 - tightest) * draw.uniform("radius", count=3) ** 2
    script.curvature[rows, 1:4] = np.where(draw.chance("bends", 0.6, 3), draw.sign("way", 3) / radius, 0.0)


def _straighten(script: Script, rows, until) -> None:
    """No bend between s = -25 and `until`."""
    script.piece[rows] = np.stack(
        [np.full_like(until, -200.0), np.full_like(until, -65.0), np.full_like(until, -25.0), until, until + 45], -1
    )
    script.curvature[rows, 2] = 0.0


def _junction(script: Script, rows, draw: Draw, line) -> None:
    """A stop line at s = `line`, perhaps a crosswalk behind it, and a crossing road."""
    striped = draw.chance("striped", 0.5)
    half = np.array([3.5, 5.0, 7.0])[draw.integer("crossing", 3)]
    script.stop_line[rows] = line
    script.crosswalk[rows] = np.where(striped, line + 3.0, np.nan)
    script.crossing[rows] = line + np.where(striped, 6.0, 2.0) + half
    script.crossing_half_width[rows] = half
    _straighten(script, rows, script.crossing[rows] + half + 25.0)


def _stop_distance(script: Script, rows, draw: Draw, slowest: float, seconds: float):
    """Metres to where the ego will stop: already braked to no less than `slowest` of target, or braking within `seconds`."""
    cruise = script.target[rows]
    return draw.uniform("distance", braking_distance(slowest * cruise, 0.0), braking_distance(cruise, 0.0) + seconds * cruise)


def vehicle(draw: Draw, name: str, count: int | None = None):
    return np.array([Kind.CAR, Kind.CAR, Kind.CAR, Kind.VAN, Kind.TRUCK])[draw.integer(name, 5, count)]


def _lead(script: Script, rows, draw: Draw, gap, **motion) -> None:
    """A vehicle in the ego's lane, its rear bumper `gap` metres before the ego's front bumper at t0."""
    kind = vehicle(draw, "lead")
    script.put(rows, LEAD, kind, EGO_FRONT + gap + SIZE_TABLE[kind, 0] / 2, 0.0, **motion)
    script.lead_from[rows] = -np.inf


def cruise(script: Script, rows, draw: Draw) -> None:
    """Nothing ahead that matters; sometimes a green light."""
    bend(script, rows, draw)
    script.start_speed[rows] *= draw.uniform("pace", 0.85, 1.1)
    _green_junction(script, rows, draw)


def _green_junction(script: Script, rows, draw: Draw) -> None:
    some = draw.chance("junction", 0.25)
    _junction(script, rows[some], draw[some], draw.uniform("line", 15.0, 60.0)[some])
    script.green_from[rows[some]] = -np.inf


def follow(script: Script, rows, draw: Draw) -> None:
    """A lead at constant speed."""
    bend(script, rows, draw)
    speed = script.target[rows] * draw.uniform("speed", 0.5, 0.9)
    script.start_speed[rows], script.start[rows] = speed, -speed * T0
    _lead(script, rows, draw, LEAD_GAP + HEADWAY * speed + draw.uniform("gap", 0.0, 5.0), v=speed)


def lead_brakes(script: Script, rows, draw: Draw) -> None:
    """A lead that began to brake 0.3 to 1 s before t0, to a standstill."""
    bend(script, rows, draw)
    speed = script.target[rows] * draw.uniform("speed", 0.7, 0.95)
    script.start_speed[rows], script.start[rows] = speed, -speed * T0
    gap, since = LEAD_GAP + HEADWAY * speed + draw.uniform("gap", 0.0, 4.0), draw.uniform("since", 0.3, 1.0)
    _lead(script, rows, draw, gap, v=speed, t_change=T0 - since, a=-LEAD_BRAKE, v_end=0.0)


def red_light(script: Script, rows, draw: Draw) -> None:
    """Approaching a light that stays red; others wait there, one crosses."""
    distance = _stop_distance(script, rows, draw, 0.35, 2.0)
    approach(script, rows, distance, 0.0)
    _junction(script, rows, draw, distance + EGO_FRONT + LINE_GAP)
    script.green_from[rows] = np.inf
    others_wait(script, rows, draw, np.inf)
    to, speed, some = 80.0, 8.0, draw.chance("crosses", 0.6)
    reached = draw.uniform("cross_at", -40.0, -10.0)
    script.put(
        rows[some],
        SECOND,
        Kind.CAR,
        (script.crossing[rows] - 0.5 * script.crossing_half_width[rows])[some],
        -to,
        d_end=to,
        t_shift=(T0 - (reached + to) / speed)[some],
        shift_time=2 * to / speed,
        walks=True,
        yaw=np.pi / 2,
    )


def green_light(script: Script, rows, draw: Draw) -> None:
    """At rest at a light that turned green 0.2 to 0.9 s before t0."""
    _junction(script, rows, draw, np.full(len(rows), EGO_FRONT) + draw.uniform("short", 0.5, 1.0))
    script.start[rows] = script.start_speed[rows] = 0.0
    script.green_from[rows] = T0 - draw.uniform("since", 0.2, 0.9)
    others_wait(script, rows, draw, script.green_from[rows] + 0.7)


def others_wait(script: Script, rows, draw: Draw, go) -> None:
    """Vehicles at the same light in the next lanes and from ahead; they pull away at time `go`."""
    script.flow_left[rows] = script.flow_right[rows] = script.flow_oncoming[rows] = False
    go = np.broadcast_to(go, rows.shape)
    width, line = script.lane_width[rows], script.stop_line[rows] - 3.5
    beyond, opposite = 2 * script.crossing[rows] - line, (script.left[rows] + 1) * width
    for name, slot, lanes, s, d, way in (
        ("left", LEFT, script.left, line, width, 1.0),
        ("right", RIGHT, script.right, line, -width, 1.0),
        ("ahead", ONCOMING, script.oncoming, beyond, opposite, -1.0),
    ):
        some = draw.chance("waits_" + name, 0.5) & (lanes[rows] > 0)
        yaw = 0.0 if way > 0 else np.pi
        script.put(rows[some], slot, Kind.CAR, s[some], d[some], t_change=go[some], a=way * LEAD_START, v_end=way * 8.0, yaw=yaw)


def stop_sign(script: Script, rows, draw: Draw) -> None:
    """Approaching a stop sign."""
    distance = _stop_distance(script, rows, draw, 0.35, 2.0)
    approach(script, rows, distance, 0.0)
    _junction(script, rows, draw, distance + EGO_FRONT + LINE_GAP)
    script.stop_sign[rows] = True
    script.flow_left[rows] = script.flow_right[rows] = script.flow_oncoming[rows] = False


def pedestrian(script: Script, rows, draw: Draw) -> None:
    """Somebody on a crosswalk, or about to step on it, walks across the ego's lane."""
    distance = _stop_distance(script, rows, draw, 0.5, 0.8)
    approach(script, rows, distance, 0.0)
    crosswalk = distance + EGO_FRONT + LINE_GAP + 1.5
    script.crosswalk[rows] = crosswalk
    _straighten(script, rows, crosswalk + 30.0)
    side = draw.sign("side")
    kerb = np.where(side > 0, script.left_edge()[rows], -script.right_edge()[rows])
    far = np.where(side > 0, -script.right_edge()[rows], script.left_edge()[rows])
    offset = draw.uniform("offset", 0.5, np.minimum(kerb + 0.7, 6.0))
    from_, to = kerb + 4.0, -(far + 4.0)
    start = T0 - (from_ - offset) / WALK
    script.put(
        rows,
        WALKER,
        Kind.PEDESTRIAN,
        crosswalk + draw.uniform("along", -0.8, 0.8),
        side * from_,
        d_end=side * to,
        t_shift=start,
        shift_time=(from_ - to) / WALK,
        walks=True,
        yaw=-side * np.pi / 2,
    )
    script.walker_clear[rows] = T0 + (offset + script.lane_width[rows] / 2 + CLEAR_MARGIN) / WALK
    script.flow_left[rows] = script.flow_right[rows] = script.flow_oncoming[rows] = False


def curve(script: Script, rows, draw: Draw) -> None:
    """A bend ahead that must be taken slower."""
    lanes = script.left[rows] + script.right[rows] + 1
    slow = script.target[rows] * draw.uniform("slow", np.where(lanes == 1, 0.6, 0.5), 0.75)
    radius = slow**2 / LATERAL_ACCELERATION
    distance = np.clip(draw.uniform("distance", 15.0, braking_distance(script.target[rows], slow) + 2.0 * script.target[rows]), 15.0, 60.0)
    approach(script, rows, distance, slow)
    script.piece[rows, 0] = -200.0
    script.piece[rows, 1] = -60.0
    script.piece[rows, 2] = distance
    script.piece[rows, 3] = distance + radius * draw.uniform("angle", 0.7, 1.7)
    script.piece[rows, 4] = script.piece[rows, 3] + 60.0
    script.curvature[rows, 2] = draw.sign("way") / radius
    script.curvature[rows, 3] = 0.0


def obstacles(script: Script, rows, side: float, first, last, edge) -> None:
    """A swerve away from obstacles on `side` (1 left) between s = first and last, their edge `edge` m from the lane's centre."""
    length = script.swerve_length[rows]
    begin, back = first - EGO_FRONT - 0.7 - length, last + EGO_LENGTH - EGO_FRONT + 0.7
    height = -side * (EGO_WIDTH / 2 + SWERVE_CLEARANCE - edge)
    script.swerve[rows] = np.stack([begin, back, height], -1)
    (script.flow_left if side < 0 else script.flow_right)[rows] = False
    if side < 0:
        script.flow_oncoming[rows] &= script.left[rows] > 0
        script.oncoming[rows] = np.maximum(script.oncoming[rows], script.left[rows] == 0)
    else:
        script.flow_left[rows] = False
        script.flow_oncoming[rows] &= script.left[rows] > 0


def _cones(script: Script, rows, draw: Draw, side: float) -> None:
    bend(script, rows, draw)
    first = EGO_FRONT + draw.uniform("first_cone", 10.0, 42.0)
    count = 3 + draw.integer("cones", 3)
    edge = ENCROACHMENTS[draw.integer("edge", 3)]
    for j in range(5):
        some = count > j
        taper = 0.6 if j == 0 else 0.0
        script.put(rows[some], STANDING + j, Kind.CONE, (first + 4.0 * j)[some], side * (edge + 0.2 + taper)[some])
    obstacles(script, rows, side, first - 0.2, first + 4.0 * (count - 1) + 0.2, edge)


def nudge_left(script: Script, rows, draw: Draw) -> None:
    """Cones encroach from the right."""
    _cones(script, rows, draw, -1.0)


def nudge_right(script: Script, rows, draw: Draw) -> None:
    """Cones encroach from the left; there is a lane to the right."""
    lanes = 2 + draw.integer("lanes_2", 2)
    script.set_lanes(rows, lanes, draw.integer("lane_2", lanes - 1))
    _cones(script, rows, draw, 1.0)


def parked_car(script: Script, rows, draw: Draw) -> None:
    """One or two vehicles parked half in the lane, on its right."""
    lanes = script.left[rows] + script.right[rows] + 1
    script.set_lanes(rows, lanes, lanes - 1)
    bend(script, rows, draw)
    first = EGO_FRONT + 2.3 + draw.uniform("first_parked", 10.0, 38.0)
    edge = ENCROACHMENTS[draw.integer("edge", 3)]
    two = draw.chance("two", 0.3)
    length, width, _ = SIZES[Kind.CAR]
    script.put(rows, STANDING, Kind.CAR, first, -(edge + width / 2))
    script.put(rows[two], STANDING + 1, Kind.CAR, (first + 6.5)[two], -(edge + width / 2)[two])
    obstacles(script, rows, -1.0, first - length / 2, first + np.where(two, 6.5, 0.0) + length / 2, edge)


def cut_in(script: Script, rows, draw: Draw) -> None:
    """A slower vehicle from the next lane is crossing the lane line."""
    lanes = 2 + draw.integer("lanes_2", 2)
    script.set_lanes(rows, lanes, draw.integer("lane_2", lanes))
    bend(script, rows, draw)
    side = np.where(script.left[rows] == 0, -1.0, np.where(script.right[rows] == 0, 1.0, draw.sign("side")))
    speed = script.target[rows] * draw.uniform("speed", 0.65, 0.85)
    kind = np.array([Kind.CAR, Kind.CAR, Kind.VAN])[draw.integer("cutter", 3)]
    shift = T0 - LANE_CHANGE * draw.uniform("progress", 0.38, 0.58)
    s = EGO_FRONT + draw.uniform("gap", 9.0, 19.0) + SIZE_TABLE[kind, 0] / 2
    script.put(rows, LEAD, kind, s, side * script.lane_width[rows], v=speed, d_end=0.0, t_shift=shift, shift_time=LANE_CHANGE)
    script.lead_from[rows] = shift + 0.3 * LANE_CHANGE
    script.flow_left[rows], script.flow_right[rows] = side < 0, side > 0


def queue(script: Script, rows, draw: Draw) -> None:
    """At rest behind vehicles at rest."""
    _stand_behind(script, rows, draw, {}, {})


def pull_away(script: Script, rows, draw: Draw) -> None:
    """At rest behind a lead that began to move 0.5 to 1.5 s before t0."""
    motion = {"a": LEAD_START, "v_end": script.target[rows], "t_change": T0 - draw.uniform("since", 0.5, 1.5)}
    _stand_behind(script, rows, draw, motion, {**motion, "t_change": motion["t_change"] - 1.0})


def _stand_behind(script: Script, rows, draw: Draw, lead: dict, second: dict) -> None:
    bend(script, rows, draw)
    script.start[rows] = script.start_speed[rows] = 0.0
    _lead(script, rows, draw, draw.uniform("gap", 2.0, 3.0), **lead)
    some = draw.chance("second", 0.6)
    ahead = script.motion.s[rows, LEAD] + script.size[rows, LEAD, 0] / 2 + draw.uniform("gap_2", 2.0, 3.5) + SIZES[Kind.CAR][0] / 2
    picked = {key: value[some] if np.ndim(value) else value for key, value in second.items()}
    script.put(rows[some], SECOND, Kind.CAR, ahead[some], 0.0, **picked)


def _flow(script: Script, draw: Draw) -> None:
    """Traffic that does not matter: in the next lanes, oncoming, parked beyond the road's edge, people on the pavement."""
    width, every = script.lane_width, np.arange(len(draw.state))
    for name, slot, lanes, allowed, way in (
        ("left", LEFT, script.left, script.flow_left, 1),
        ("right", RIGHT, script.right, script.flow_right, -1),
    ):
        some = np.flatnonzero((lanes > 0) & allowed & draw.chance("flow_" + name, 0.7))
        here = draw[some]
        d = way * width[some] * (1 + here.integer("lane_" + name, lanes[some]))
        speed = script.target[some] * here.uniform("speed_" + name, 0.85, 1.1)
        script.put(some, slot, vehicle(here, "kind_" + name), here.uniform("at_" + name, -30.0, 50.0), d, v=speed)
    away = draw.uniform("at_oncoming", 10.0, 60.0)
    for slot, ahead in ((ONCOMING, 0.0), (ONCOMING_2, draw.uniform("then", 25.0, 60.0))):
        some = np.flatnonzero((script.oncoming > 0) & script.flow_oncoming & draw.chance(f"flow_{slot}", 0.75))
        here = draw[some]
        d = (script.left[some] + 1 + here.integer("lane_oncoming", script.oncoming[some])) * width[some]
        script.put(
            some, slot, vehicle(here, f"kind_{slot}"), (away + ahead)[some], d, v=-here.uniform("speed_oncoming", 7.0, 12.0), yaw=np.pi
        )
    some = np.flatnonzero(draw.chance("strolls", 0.5) & script.strolls)
    here, left = draw[some], draw.chance("stroll_left", 0.5)[some]
    d = np.where(left, script.left_edge()[some] + 3.2, script.right_edge()[some] - 3.4)
    back = here.chance("stroll_back", 0.5)
    speed = np.where(back, -WALK, WALK)
    script.put(some, STROLLER, Kind.PEDESTRIAN, here.uniform("stroll_at", 0.0, 40.0), d, v=speed, yaw=np.where(back, np.pi, 0.0))
    for slot in range(STANDING + 2, ACTORS):
        s = -40.0 + 22.0 * (slot - STANDING - 2) + draw.uniform(f"parks_at_{slot}", 0.0, 12.0)
        near = (np.abs(s - script.crossing) < script.crossing_half_width + 12.0) | (np.abs(s - script.crosswalk) < 10.0)
        for other in (STANDING, STANDING + 1):
            near |= (script.kind[:, other] == Kind.CAR) & (np.abs(s - script.motion.s[:, other]) < 6.0)
        some = every[draw.chance(f"parks_{slot}", 0.35) & (script.kind[:, slot] == Kind.NONE) & ~near]
        script.put(some, slot, Kind.CAR, s[some], script.right_edge()[some] - 1.7)


Writer = Callable[[Script, np.ndarray, Draw], None]
"""Writes one family's part of a script into some of its rows, which have these draws."""

WRITERS: tuple[Writer, ...] = (
    cruise,
    follow,
    lead_brakes,
    red_light,
    green_light,
    stop_sign,
    pedestrian,
    curve,
    nudge_left,
    nudge_right,
    parked_car,
    cut_in,
    queue,
    pull_away,
)

FAMILIES = tuple(write.__name__ for write in WRITERS)
"""The names of the families."""


def family_of(seeds: np.ndarray) -> np.ndarray:
    """Which family each seed's scene is of, index into FAMILIES, uniform."""
    return Draw.of(seeds).integer("family", len(FAMILIES))


def write_script(seeds: np.ndarray, family: np.ndarray, writers: Sequence[Writer] = WRITERS) -> Script:
    """The scripts of these seeds, int64 (B,), each of its family (index into the writers)."""
    draw = Draw.of(seeds)
    script = blank(draw)
    for index, write in enumerate(writers):
        rows = np.flatnonzero(family == index)
        if len(rows):
            write(script, rows, draw[rows])
    _flow(script, draw)
    along = np.isnan(script.way_piece[:, 0])
    script.way_piece[along], script.way_curvature[along] = script.piece[along], script.curvature[along]
    return script
