"""Questions about a scene whose answers are true by construction. What could not be told from the pictures is not asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.expert import gives_way
from alpamayo_r1.world.families import Draw
from alpamayo_r1.world.language import turned_since_road
from alpamayo_r1.world.scene import DT, Kind, Light, Route, SceneBatch

WORDINGS: dict[str, tuple[str, ...]] = {
    "light": ("Which colour has the traffic light?", "What does the traffic light show?", "Which light is on?"),
    "cones": ("How many cones are there?", "How many traffic cones stand ahead?", "Count the cones."),
    "cone_side": ("On which side are the cones?", "On which side of the lane do the cones stand?", "Where are the cones?"),
    "parked_side": ("On which side is the parked car?", "On which side of the lane does the car park?", "Where is the parked car?"),
    "ahead": ("What is ahead?", "What is ahead in the lane?", "What blocks the lane ahead?"),
    "left": ("May the car turn left now?", "Is the way free to turn left?", "Can the car turn left now?"),
    "pedestrian": ("Is a pedestrian crossing the road?", "Does anybody cross the road?", "Is somebody on the road?"),
    "brakes": ("Is the vehicle ahead braking?", "Are the brake lights ahead on?", "Does the lead vehicle brake?"),
    "stop_sign": ("Is there a stop sign?", "Do you see a stop sign?", "Is a stop sign ahead?"),
    "limit": ("Which speed does the sign allow?", "What is the speed limit?", "How fast may the car drive?"),
    "day": ("Is it day or night?", "Is it night?", "Is it dark outside?"),
}
"""Kind -> the ways to ask."""

ANSWERS: dict[str, tuple[str, ...]] = {
    "light": ("There is no traffic light.", "The traffic light is red.", "The traffic light is green."),
    "cones": ("There are no cones.", "There are three cones.", "There are four cones.", "There are five cones."),
    "cone_side": ("The cones are on the left.", "The cones are on the right."),
    "parked_side": ("The parked car is on the left.", "The parked car is on the right."),
    "ahead": ("Nothing is ahead.", "A car is ahead.", "A van is ahead.", "A truck is ahead.", "Cones are ahead.", "A parked car is ahead."),
    "left": ("Yes, the way is free.", "No, the light is red.", "No, an oncoming vehicle is coming."),
    "pedestrian": (
        "No, nobody is crossing.",
        "Yes, a pedestrian is crossing from the left.",
        "Yes, a pedestrian is crossing from the right.",
    ),
    "brakes": ("No, its brake lights are off.", "Yes, its brake lights are on."),
    "stop_sign": ("No, there is no stop sign.", "Yes, there is a stop sign."),
    "limit": ("There is no speed limit sign.", "The speed limit is 20.", "The speed limit is 30."),
    "day": ("It is day.", "It is night."),
}
"""Kind -> all answers; where one says that there is none, it comes first."""

KINDS = tuple(WORDINGS)
QUESTIONS = tuple(text for texts in WORDINGS.values() for text in texts)

CLEAR, BEYOND = 32.0, 60.0
"""Metres up to which something can be told, and beyond which it does not count as ahead."""


@dataclass(frozen=True)
class Question:
    """One question about one scene at one step, and the answer."""

    kind: str
    text: str
    answer: str

    @property
    def of_something(self) -> bool:
        """Whether the answer speaks of something that is there."""
        return len(ANSWERS[self.kind]) == 2 or self.answer != ANSWERS[self.kind][0]


def questions(scene: SceneBatch, step: int, wording: int | None = None) -> list[list[Question]]:
    """All that may be asked of each scene at a step, in the order of KINDS. wording: the same everywhere, None: by the scene's seed."""
    known = _answers(scene, step)
    pick = {kind: Draw.of(scene.seeds.numpy()).integer(f"ask_{kind}_{step}", 3) for kind in KINDS}
    made: list[list[Question]] = []
    for row in range(len(scene.seeds)):
        asked = [kind for kind in KINDS if known[kind][row] >= 0]
        ways = {kind: int(pick[kind][row]) if wording is None else wording for kind in asked}
        made.append([Question(kind, WORDINGS[kind][ways[kind]], ANSWERS[kind][known[kind][row]]) for kind in asked])
    return made


def _answers(scene: SceneBatch, step: int) -> dict[str, np.ndarray]:
    """Kind -> the index of its answer (B,), -1 where it is not asked."""
    road, before = scene.road, max(step - 1, 0)
    s = road.frenet(scene.ego[:, step : step + 1, :2])[:, 0, 0].double().numpy()
    nose, v = s + fam.EGO_FRONT, scene.speed[:, step].double().numpy()
    place = road.frenet(scene.track[:, :, before : before + 2, :2].flatten(1, 2)).unflatten(1, (-1, 2)).double().numpy()
    rate, place = (place[:, :, 1] - place[:, :, 0]) / DT, place[:, :, step - before]
    kind, size = scene.kind.numpy(), scene.size.double().numpy()
    gap, d = place[..., 0] - size[..., 0] / 2 - nose[:, None], place[..., 1]
    on_road = turned_since_road(scene, step) < 0.3 if bool((scene.route > 0).any()) else np.full(len(s), True)
    on_road |= scene.route.numpy() == Route.NONE
    line, signal = road.stop_line.double().numpy() - nose, scene.prop_kind[:, 0].numpy()
    found = {
        "light": _light(scene, step, line, signal),
        "cones": _cones(kind, gap),
        "cone_side": _side(kind == Kind.CONE, gap, d, size),
        "parked_side": _side(_parked(kind), gap, d, size),
        "ahead": _ahead(kind, gap, d, size, rate),
        "left": _left(scene, step, line, v, place, rate, signal),
        "pedestrian": _pedestrian(scene, kind, gap, d),
        "brakes": _brakes(scene, step, kind, gap, d),
        "stop_sign": _sign(signal == Kind.STOP_SIGN, line),
        "limit": _limit(scene, nose),
    }
    found = {name: np.where(on_road, answer, -1) for name, answer in found.items()}
    return found | {"day": (scene.night.numpy() > 0.5).astype(np.int64)}


def _pick(*cases: tuple[np.ndarray, int]) -> np.ndarray:
    """The answer of the first case that holds, -1 where none does."""
    return np.select([where for where, _ in cases], [np.full(cases[0][0].shape, answer) for _, answer in cases], -1)


def _light(scene: SceneBatch, step: int, line, signal) -> np.ndarray:
    lit, green = signal == Kind.TRAFFIC_LIGHT, scene.light[:, step].numpy() == Light.GREEN
    seen = lit & (line > 0) & (line < 35.0)
    return _pick((~lit, 0), (seen & ~green, 1), (seen & green, 2))


def _cones(kind, gap) -> np.ndarray:
    cone = kind == Kind.CONE
    count, near, far = cone.sum(1), np.where(cone, gap, np.inf).min(1), np.where(cone, gap, -np.inf).max(1)
    seen = (near > 3.0) & (near < 22.0) & (far < 45.0)
    return _pick((count == 0, 0), *((seen & (count == n), n - 2) for n in (3, 4, 5)))


def _parked(kind) -> np.ndarray:
    there = kind == Kind.CAR
    there[:, : fam.STANDING] = False
    return there


def _side(things, gap, d, size) -> np.ndarray:
    """0 left, 1 right, of the things that reach into the lane; those in its middle are on no side."""
    into = things & (np.abs(d) - size[..., 1] / 2 < 1.0)
    seen = into & (gap > 2.0) & (gap < CLEAR)
    middle = (into & (np.abs(d) < 0.25)).any(1)
    some = seen.any(1) & ~middle
    left = np.where(seen, d, 0.0).sum(1) > 0
    return _pick((some & left, 0), (some & ~left, 1))


def _ahead(kind, gap, d, size, rate) -> np.ndarray:
    """The nearest thing in the lane."""
    reach = np.abs(d) - size[..., 1] / 2
    stands = np.isin(kind, (Kind.CAR, Kind.CONE))
    stands[:, : fam.STANDING] = False
    drives = np.isin(kind, (Kind.CAR, Kind.VAN, Kind.TRUCK))
    drives[:, fam.STANDING :] = False
    inside = (drives & (np.abs(d) < 0.8)) | (stands & (reach < 1.0))
    perhaps = (kind != Kind.NONE) & (reach < 1.5) & ~inside & (gap > -8.0) & (gap < BEYOND)
    gap = np.where(inside & (gap > -1.0), gap, np.inf)
    rows, first = np.arange(len(gap)), gap.argmin(1)
    near, what, standing = gap[rows, first], kind[rows, first], stands[rows, first]
    seen = (near < CLEAR) & ~perhaps.any(1)
    cases = [(seen & (what == kind_) & ~standing, n) for kind_, n in ((Kind.CAR, 1), (Kind.VAN, 2), (Kind.TRUCK, 3))]
    cases += [(seen & (what == Kind.CONE), 4), (seen & (what == Kind.CAR) & standing, 5)]
    return _pick((~perhaps.any(1) & (near > BEYOND), 0), *cases)


def _left(scene: SceneBatch, step: int, line, v, place, rate, signal) -> np.ndarray:
    """At a junction with a route; not where a few tenths of a second decide."""
    slots = [fam.ONCOMING, fam.ONCOMING_2]
    there = scene.kind[:, slots].numpy() != Kind.NONE
    coming = np.where(there, place[:, slots, 0], np.inf), rate[:, slots, 0], scene.size[:, slots, 0].double().numpy()
    crossing, wish = scene.road.crossing.double().numpy(), np.full(len(v), int(Route.LEFT))
    surely, perhaps = (gives_way(wish, line, v, *coming, crossing, *margin) for margin in ((6.0, 3.0), (8.5, 8.0)))
    at = (scene.route.numpy() > 0) & (line > v * v / 6 + 1.0) & (line < 22.0) & (signal != Kind.STOP_SIGN)
    red = (signal == Kind.TRAFFIC_LIGHT) & (scene.light[:, step].numpy() == Light.RED)
    return _pick((at & red, 1), (at & surely, 2), (at & ~perhaps, 0))


def _pedestrian(scene: SceneBatch, kind, gap, d) -> np.ndarray:
    there, d = kind[:, fam.WALKER] == Kind.PEDESTRIAN, d[:, fam.WALKER]
    lane, road = scene.road.lane_width.double().numpy(), scene.road
    left = (0.5 + (road.left_lanes + road.oncoming).numpy()) * lane
    right = (0.5 + road.right_lanes.numpy()) * lane
    walks = there & (d < left - 0.3) & (d > -right + 0.3) & (gap[:, fam.WALKER] > 1.0) & (gap[:, fam.WALKER] < CLEAR)
    first = scene.road.frenet(scene.track[:, fam.WALKER, :1, :2])[:, 0, 1].numpy()
    return _pick((~there, 0), (walks & (first > 0), 1), (walks & (first < 0), 2))


def _brakes(scene: SceneBatch, step: int, kind, gap, d) -> np.ndarray:
    vehicle = np.isin(kind, (Kind.CAR, Kind.VAN, Kind.TRUCK)) & (np.abs(d) < 0.8) & (gap > 0.0)
    vehicle[:, fam.STANDING :] = False
    gap = np.where(vehicle, gap, np.inf)
    rows, first = np.arange(len(gap)), gap.argmin(1)
    near = gap[rows, first] < 25.0
    lit = scene.braking[:, :, step].numpy()[rows, first]
    return _pick((near & ~lit, 0), (near & lit, 1))


def _sign(there, line) -> np.ndarray:
    return _pick((~there, 0), (there & (line > 0.0) & (line < CLEAR), 1))


def _limit(scene: SceneBatch, nose) -> np.ndarray:
    at, allowed = scene.limit_from.double().numpy(), scene.limit.double().numpy()
    seen = (at - nose > 4.0) & (at - nose < 22.0)
    return _pick((~np.isfinite(at), 0), (seen & (allowed < 7.0), 1), (seen & (allowed > 7.0), 2))
