"""What the expert does and why, in words that are true by construction, and back from the words to (decision, cause)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.expert import gives_way
from alpamayo_r1.world.families import Draw, braking_distance
from alpamayo_r1.world.scene import DT, Kind, Light, Route, SceneBatch

DECISIONS = (
    "keep_speed",
    "keep_distance",
    "slow_down",
    "stop",
    "remain_stopped",
    "start",
    "accelerate",
    "yield",
    "nudge_left",
    "nudge_right",
)
"""What a driver may decide."""

CAUSES = (
    "clear_road",
    "lead_vehicle",
    "lead_braking",
    "red_light",
    "green_light",
    "stop_sign",
    "pedestrian",
    "curve",
    "cones",
    "parked_vehicle",
    "cut_in",
    "queue",
    "lead_pulling_away",
)
"""Why."""

PHRASES: dict[tuple[str, str], tuple[str, ...]] = {
    ("keep_speed", "clear_road"): (
        "Keep speed since the road ahead is clear",
        "Keep the current speed because the lane ahead is free",
        "Keep speed and stay in the lane as nothing blocks the road ahead",
        "Keep the current speed since there is no vehicle close ahead in the lane",
    ),
    ("keep_speed", "curve"): (
        "Keep a low speed through the curve",
        "Keep a low speed since the road bends here",
        "Keep a low speed while driving through the bend",
        "Keep a low speed because the curve is not over yet",
    ),
    ("keep_distance", "lead_vehicle"): (
        "Keep distance to the lead vehicle since it is ahead in the lane",
        "Keep a safe distance to the vehicle ahead in the lane",
        "Keep distance to the lead vehicle because it drives ahead at a steady speed",
        "Follow the lead vehicle and keep distance since it is close ahead",
    ),
    ("slow_down", "cut_in"): (
        "Slow down to make room for the vehicle cutting in from the {side}",
        "Slow down since a vehicle from the {side} is cutting into the lane",
        "Slow down because the vehicle on the {side} is changing into the lane",
        "Slow down to keep distance to the vehicle that cuts in from the {side}",
    ),
    ("slow_down", "curve"): (
        "Slow down for the curve ahead to the {side}",
        "Slow down since the road bends to the {side} ahead",
        "Slow down because of the tight bend to the {side} ahead",
        "Slow down to drive the curve to the {side} at a safe speed",
    ),
    ("stop", "lead_braking"): (
        "Stop behind the lead vehicle since it is braking",
        "Brake to a stop because the vehicle ahead is braking hard",
        "Stop to keep distance to the lead vehicle that brakes ahead",
        "Stop since the brake lights of the lead vehicle are on and it slows down",
    ),
    ("stop", "red_light"): (
        "Stop at the stop line since the traffic light is red",
        "Stop for the red traffic light ahead",
        "Brake to a stop because the light ahead is red",
        "Stop before the junction as the traffic light shows red",
    ),
    ("stop", "stop_sign"): (
        "Stop at the stop line because of the stop sign",
        "Stop for the stop sign ahead",
        "Brake to a stop since there is a stop sign ahead",
        "Stop before the junction as the stop sign asks for it",
    ),
    ("remain_stopped", "red_light"): (
        "Remain stopped since the traffic light is red",
        "Remain stopped at the red traffic light",
        "Wait at the stop line because the light is red",
        "Remain stopped as long as the traffic light shows red",
    ),
    ("remain_stopped", "stop_sign"): (
        "Remain stopped at the stop sign",
        "Wait at the stop line because of the stop sign",
        "Remain stopped for a moment since there is a stop sign",
        "Remain stopped to check the junction at the stop sign",
    ),
    ("remain_stopped", "queue"): (
        "Remain stopped since the vehicle ahead is standing",
        "Remain stopped in the queue because the vehicles ahead do not move",
        "Wait behind the standing vehicle ahead",
        "Remain stopped as the queue ahead does not move",
    ),
    ("start", "green_light"): (
        "Start driving since the traffic light is green",
        "Start and drive through the junction because the light turned green",
        "Start as the traffic light ahead shows green",
        "Start from the stop line since the light is now green",
    ),
    ("start", "lead_pulling_away"): (
        "Start driving since the lead vehicle is pulling away",
        "Start and follow the vehicle ahead because it pulls away",
        "Start as the lead vehicle ahead begins to move",
        "Start to follow the lead vehicle that is driving off",
    ),
    ("start", "stop_sign"): (
        "Start driving after the stop at the stop sign",
        "Start since the stop at the stop sign is done",
        "Start and drive through the junction after the stop sign",
        "Start from the stop sign because the junction is free",
    ),
    ("accelerate", "clear_road"): (
        "Accelerate since the road ahead is clear",
        "Accelerate to the usual speed because the lane ahead is free",
        "Accelerate as nothing blocks the road ahead",
        "Accelerate since there is no vehicle close ahead in the lane",
    ),
    ("yield", "pedestrian"): (
        "Yield to the pedestrian crossing from the {side}",
        "Yield since a pedestrian from the {side} is on the crosswalk",
        "Yield at the crosswalk because a pedestrian comes from the {side}",
        "Yield to let the pedestrian from the {side} cross the road",
    ),
    ("nudge_left", "cones"): (
        "Nudge to the left to increase clearance from the construction cones encroaching into the lane",
        "Nudge to the left since construction cones encroach into the lane from the right",
        "Nudge to the left to pass the cones on the right side of the lane",
        "Nudge to the left because cones block the right part of the lane",
    ),
    ("nudge_right", "cones"): (
        "Nudge to the right to increase clearance from the construction cones encroaching into the lane",
        "Nudge to the right since construction cones encroach into the lane from the left",
        "Nudge to the right to pass the cones on the left side of the lane",
        "Nudge to the right because cones block the left part of the lane",
    ),
    ("nudge_left", "parked_vehicle"): (
        "Nudge to the left to increase clearance from the parked vehicle encroaching into the lane",
        "Nudge to the left since a parked vehicle encroaches into the lane from the right",
        "Nudge to the left to pass the parked vehicle on the right side of the lane",
        "Nudge to the left because a parked vehicle blocks the right part of the lane",
    ),
    ("nudge_right", "parked_vehicle"): (
        "Nudge to the right to increase clearance from the parked vehicle encroaching into the lane",
        "Nudge to the right since a parked vehicle encroaches into the lane from the left",
        "Nudge to the right to pass the parked vehicle on the left side of the lane",
        "Nudge to the right because a parked vehicle blocks the left part of the lane",
    ),
}
"""The phrasings of every (decision, cause); "{side}" is left or right."""

RICHER_PHRASES: dict[tuple[str, str], tuple[str, ...]] = {
    ("turn_left", "route"): (
        "Turn left at the junction since the route goes left",
        "Turn left to follow the route",
        "Turn left at the junction as the navigation says",
        "Turn left because the route leads to the left here",
    ),
    ("turn_right", "route"): (
        "Turn right at the junction since the route goes right",
        "Turn right to follow the route",
        "Turn right at the junction as the navigation says",
        "Turn right because the route leads to the right here",
    ),
    ("go_straight", "route"): (
        "Continue straight through the junction since the route goes on ahead",
        "Continue straight to follow the route",
        "Continue straight at the junction as the navigation says",
        "Continue straight because the route leads on ahead here",
    ),
    ("yield", "oncoming_vehicle"): (
        "Yield to the oncoming vehicle before the left turn",
        "Yield since an oncoming vehicle has the right of way",
        "Give way to the oncoming vehicle before the turn to the left",
        "Give way because an oncoming vehicle comes close",
    ),
    ("merge_left", "lane_closed"): (
        "Merge to the left since cones close the lane ahead",
        "Merge to the left because the lane ends at the cones",
        "Merge to the left as construction cones block the whole lane",
        "Merge to the left to leave the lane that the cones close",
    ),
    ("slow_down", "speed_limit"): (
        "Slow down since the sign allows less speed",
        "Slow down to keep to the speed limit ahead",
        "Slow down because of the speed limit sign",
        "Slow down as the sign ahead limits the speed",
    ),
    ("keep_speed", "speed_limit"): (
        "Keep a low speed since the limit asks for it",
        "Keep a low speed to stay within the speed limit",
        "Keep a low speed because the speed is limited here",
        "Keep a low speed as the sign asked for it",
    ),
}
"""The same of what happens in the world's richer families alone."""

SIDES = ("left", "right")


def _meanings(phrases: dict[tuple[str, str], tuple[str, ...]]) -> dict[str, tuple[str, str]]:
    """Sentence -> what it means."""
    return {phrase.format(side=side): key for key, some in phrases.items() for phrase in some for side in SIDES}


TEXTS = tuple(_meanings(PHRASES))
"""Every sentence of the families that the small model drives (a tokenizer may learn its vocabulary from them)."""

RICHER_TEXTS = tuple(_meanings(RICHER_PHRASES))
"""The further sentences of the richer world."""

_ALL_PHRASES = PHRASES | RICHER_PHRASES
_MEANING = _meanings(_ALL_PHRASES)

_OPPOSITE = {
    "keep_speed": "stop",
    "keep_distance": "stop",
    "accelerate": "stop",
    "start": "stop",
    "slow_down": "proceed",
    "stop": "proceed",
    "remain_stopped": "proceed",
    "yield": "proceed",
    "nudge_left": "nudge_right",
    "nudge_right": "nudge_left",
    "turn_left": "stop",
    "turn_right": "stop",
    "go_straight": "stop",
    "merge_left": "stop",
}

_SAYS = {
    "stop": (("stop", "red_light"), ("stop", "stop_sign"), ("stop", "lead_braking")),
    "proceed": (("accelerate", "clear_road"), ("keep_speed", "clear_road")),
    "proceed_from_rest": (("accelerate", "clear_road"), ("start", "green_light"), ("start", "lead_pulling_away")),
    "nudge_left": (("nudge_left", "cones"), ("nudge_left", "parked_vehicle")),
    "nudge_right": (("nudge_right", "cones"), ("nudge_right", "parked_vehicle")),
    "keep_speed": (("keep_speed", "clear_road"),),
}
"""Which (decision, cause) a directive may be put as."""


@dataclass(frozen=True)
class Label:
    """A decision and its cause at one step of one scene, the sentence that says so, and where the cause is.

    object: x forward, y left in metres in the ego frame of that step, None where there is no object.
    """

    decision: str
    cause: str
    text: str
    family: str
    object: tuple[float, float] | None = None


def labels(scene: SceneBatch, step: int) -> list[Label]:
    """What the expert does at `step` and why, from the state of the world then."""
    decision, cause, side, at = _govern(scene, step)
    pick = Draw.of(scene.seeds.numpy()).bits(f"phrase_{step}")
    local = _to_ego(scene, step, at)
    made = []
    for row, (what, why) in enumerate(zip(decision, cause)):
        phrases = _ALL_PHRASES[what, why]
        text = phrases[int(pick[row]) % len(phrases)].format(side=SIDES[int(side[row] < 0)])
        place = None if np.isnan(local[row, 0]) else (float(local[row, 0]), float(local[row, 1]))
        made.append(Label(what, why, text, scene.family[row], place))
    return made


def classify(text: str) -> tuple[str, str] | None:
    """(decision, cause) of a sentence, None if it is none of ours."""
    return _MEANING.get(text.strip())


def opposite(label: Label) -> str:
    """The directive that contradicts a label: nudge left or right, stop or proceed."""
    return _OPPOSITE[label.decision]


def directive_text(directive: str, scene: SceneBatch, row: int, step: int = fam.T0_STEP) -> str:
    """A sentence for a directive that world.simulate gives at `step`: one of the decisions that it amounts to, by the scene's seed."""
    resting = directive == "proceed" and float(scene.speed[row, step]) < 1.0
    draw = Draw.of(scene.seeds[row : row + 1].numpy())
    meanings = _SAYS["proceed_from_rest" if resting else directive]
    phrases = PHRASES[meanings[int(draw.bits("directive_meaning")[0]) % len(meanings)]]
    return phrases[int(draw.bits("directive_phrase")[0]) % len(phrases)]


def _to_ego(scene: SceneBatch, step: int, at: np.ndarray) -> np.ndarray:
    """World points (B, 2) into the ego frame of `step`."""
    x, y, yaw = scene.ego[:, step].double().numpy().T
    dx, dy = at[:, 0] - x, at[:, 1] - y
    return np.stack([np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx], -1)


class _Choice:
    """The labels of a batch, the most pressing reason first: a scene keeps the first that applies."""

    def __init__(self, count: int):
        self.decision, self.cause = np.full(count, "", object), np.full(count, "", object)
        self.side, self.at = np.zeros(count), np.full((count, 2), np.nan)

    def say(self, where, decision: str, cause: str, *, side: float | np.ndarray = 0.0, at=None) -> None:
        free = where & (self.decision == "")
        self.decision[free], self.cause[free] = decision, cause
        self.side[free] = np.broadcast_to(side, free.shape)[free]
        if at is not None:
            self.at[free] = at[free]


def _govern(scene: SceneBatch, step: int) -> tuple[np.ndarray, ...]:
    """Decision, cause (B,), side of the cause (B,) -1 right or 1 left, and the place of it in the world (B, 2)."""
    road, rows = scene.road, np.arange(len(scene.seeds))
    before = max(step - 1, 0)
    s = road.frenet(scene.ego[:, step, :2][:, None])[:, 0, 0].double().numpy()
    actor_xy = scene.track[:, :, step, :2]
    actor = road.frenet(scene.track[:, :, before : before + 2, :2].flatten(1, 2)).unflatten(1, (-1, 2)).double().numpy()
    place, rate = actor[:, :, step - before], (actor[:, :, 1] - actor[:, :, 0]) / DT
    kind, size, xy = scene.kind.numpy(), scene.size.double().numpy(), actor_xy.double().numpy()
    v, nose = scene.speed[:, step].double().numpy(), s + fam.EGO_FRONT
    half = road.lane_width.double().numpy() / 2
    target = fam.LANE_SPEED[(road.left_lanes + road.right_lanes).numpy()]
    near = braking_distance(target, 0.0) + 3.0 * target
    rest = v < 0.3
    choice = _Choice(len(rows))

    lead, gap = _lead(kind, size, place, rate, half, nose)
    lead_speed, lead_at = rate[rows, lead, 0], xy[rows, lead]
    shifting = np.abs(rate[rows, lead, 1]) > 0.2
    braking = scene.braking[:, :, step].numpy()[rows, lead]
    close = gap < 2.0 * v + 12.0
    choice.say(rest & close & (lead_speed > 0.1), "start", "lead_pulling_away", at=lead_at)
    choice.say(rest & close, "remain_stopped", "queue", at=lead_at)

    line = road.stop_line.double().numpy() - nose
    ahead = (line > -fam.OVERRUN) & (line < near)
    signal = scene.prop_kind[:, 0].numpy()
    signal_at = scene.prop_pose[:, 0, :2].double().numpy()
    green = scene.light[:, step].numpy() == Light.GREEN
    lit, signed = signal == Kind.TRAFFIC_LIGHT, signal == Kind.STOP_SIGN
    choice.say(lit & ~green & ahead & rest, "remain_stopped", "red_light", at=signal_at)
    choice.say(lit & ~green & ahead, "stop", "red_light", at=signal_at)
    waited = (scene.speed[:, : step + 1] < 0.05).sum(1).numpy() * DT
    served = waited > fam.STOP_SIGN_WAIT - DT / 2
    choice.say(signed & ahead & ~served & rest, "remain_stopped", "stop_sign", at=signal_at)
    choice.say(signed & ahead & ~served, "stop", "stop_sign", at=signal_at)

    _govern_route(scene, step, choice, s, v, nose, near, place, rate)

    walker = place[:, fam.WALKER]
    walker_side = np.sign(road.frenet(scene.track[:, fam.WALKER, :1, :2])[:, 0, 1].numpy())
    clearing = -walker_side * walker[:, 1] < half + fam.CLEAR_MARGIN
    waits = (kind[:, fam.WALKER] == Kind.PEDESTRIAN) & clearing & (walker[:, 0] > nose - 1.0) & (walker[:, 0] - nose < near)
    choice.say(waits, "yield", "pedestrian", side=walker_side, at=xy[:, fam.WALKER])

    lead_side = np.sign(place[rows, lead, 1])
    choice.say(close & shifting, "slow_down", "cut_in", side=lead_side, at=lead_at)
    choice.say(close & braking, "stop", "lead_braking", at=lead_at)
    choice.say(close & (v < 4.0) & (lead_speed > v + 0.5), "start", "lead_pulling_away", at=lead_at)
    choice.say(close, "keep_distance", "lead_vehicle", at=lead_at)

    closing = (kind == Kind.CONE) & (np.abs(place[..., 1]) < 0.25)
    closed, closed_at = closing.any(1), place[rows, closing.argmax(1), 0]
    to_merge = closed_at - nose
    merging = closed & (to_merge > -2.0) & (to_merge < (fam.SWERVE_TIME + 3.0) * target + 12.0)
    choice.say(merging, "merge_left", "lane_closed", at=xy[rows, closing.argmax(1)])

    for sort, cause in (((Kind.CONE,), "cones"), ((Kind.CAR, Kind.VAN), "parked_vehicle")):
        obstacle, found = _obstacle(sort, kind, size, place, s, target)
        found &= ~closed
        at = xy[rows, obstacle]
        choice.say(found & (place[rows, obstacle, 1] < 0), "nudge_left", cause, side=-1.0, at=at)
        choice.say(found, "nudge_right", cause, side=1.0, at=at)

    distance, limit, way, inside = _tight_curve(scene, s, target)
    choice.say(inside & (v < limit + 0.5), "keep_speed", "curve", side=way)
    choice.say(distance < braking_distance(target, limit) + 2.5 * target, "slow_down", "curve", side=way)

    limit_at, allowed = scene.limit_from.double().numpy(), scene.limit.double().numpy()
    choice.say((s >= limit_at) & (v < allowed + 0.5), "keep_speed", "speed_limit")
    choice.say(limit_at - s < braking_distance(target, np.minimum(allowed, target)) + 2.5 * target, "slow_down", "speed_limit")

    just_passed = np.abs(line) < 10.0
    choice.say(lit & green & just_passed & (v < 0.6 * target), "start", "green_light", at=signal_at)
    choice.say(signed & served & just_passed & (v < 0.6 * target), "start", "stop_sign", at=signal_at)
    choice.say(v < 0.8 * target, "accelerate", "clear_road")
    choice.say(np.full(len(rows), True), "keep_speed", "clear_road")
    return choice.decision, choice.cause, choice.side, choice.at


def _govern_route(scene: SceneBatch, step: int, choice: _Choice, s, v, nose, near, place, rate) -> None:
    """What the route asks for at a junction, until the turn is done; before a left turn oncoming traffic goes first."""
    road, route = scene.road, scene.route.numpy()
    crossing, line = road.crossing.double().numpy(), road.stop_line.double().numpy()
    slots = [fam.ONCOMING, fam.ONCOMING_2]
    there = scene.kind[:, slots].numpy() != Kind.NONE
    coming = np.where(there, place[:, slots, 0], np.inf), rate[:, slots, 0], scene.size[:, slots, 0].double().numpy()
    gives = gives_way(route, line - nose, v, *coming, crossing)
    choice.say(gives & (line - nose < near), "yield", "oncoming_vehicle")
    turned = turned_since_road(scene, step)
    for way, decision in ((Route.LEFT, "turn_left"), (Route.RIGHT, "turn_right"), (Route.STRAIGHT, "go_straight")):
        over = turned > 1.4 if way != Route.STRAIGHT else s > crossing
        choice.say((route == way) & (line - nose < near) & ~over, decision, "route")


def turned_since_road(scene: SceneBatch, step: int) -> np.ndarray:
    """Radians (B,) that the ego's heading is off the road's last piece before a junction, either way."""
    off = (scene.ego[:, step, 2] - scene.road.start[:, 2, 2]).double().numpy()
    return np.abs((off + np.pi) % (2 * np.pi) - np.pi)


def _lead(kind, size, place, rate, half, nose) -> tuple[np.ndarray, np.ndarray]:
    """Slot (B,) of the nearest vehicle ahead in the lane, or on its way into it, and the gap to it (inf if there is none)."""
    vehicle = np.isin(kind, (Kind.CAR, Kind.VAN, Kind.TRUCK))
    vehicle[:, fam.STANDING :] = False
    d, drift = place[..., 1], rate[..., 1]
    entering = (d * drift < 0) & (np.abs(drift) > 0.2) & (np.abs(drift) < 3.0) & (np.abs(d) - size[..., 1] / 2 < half[:, None])
    inside = (np.abs(d) < 1.2) & (np.abs(drift) < 3.0)
    gap = place[..., 0] - size[..., 0] / 2 - nose[:, None]
    gap = np.where(vehicle & (inside | entering) & (gap > -1.0), gap, np.inf)
    lead = gap.argmin(1)
    return lead, gap[np.arange(len(lead)), lead]


def _obstacle(sort, kind, size, place, s, target) -> tuple[np.ndarray, np.ndarray]:
    """Slot (B,) of the nearest standing obstacle that reaches into the lane and is not passed yet, and whether there is one."""
    edge = np.abs(place[..., 1]) - size[..., 1] / 2
    reach = (fam.SWERVE_TIME + 3.0) * target + 12.0
    ahead = place[..., 0] + size[..., 0] / 2 - (s[:, None] - (fam.EGO_LENGTH - fam.EGO_FRONT))
    blocks = np.isin(kind, sort) & (edge < 1.0) & (ahead > 0.0) & (ahead < reach[:, None])
    blocks[:, : fam.STANDING] = False
    obstacle = np.where(blocks, ahead, np.inf).argmin(1)
    return obstacle, blocks.any(1)


def _tight_curve(scene: SceneBatch, s: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distance (B,) to the next or present curve that is slower than the target speed (inf), its speed, its side, whether s is in it."""
    start, bend = scene.road.s.double().numpy(), scene.road.curvature.double().numpy()
    end = np.concatenate([start[:, 1:], np.full((len(s), 1), np.inf)], 1)
    limit = np.sqrt(fam.LATERAL_ACCELERATION / np.maximum(np.abs(bend), 1e-4))
    distance = np.where((limit < 0.85 * target[:, None]) & (s[:, None] < end), np.maximum(start - s[:, None], 0.0), np.inf)
    first, rows = distance.argmin(1), np.arange(len(s))
    return distance[rows, first], limit[rows, first], np.sign(bend[rows, first]), distance[rows, first] == 0.0
