"""The route as a navigator says it: "Turn left in 30m", "Continue straight"; the distance counts down."""

from __future__ import annotations

from collections.abc import Iterable

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.families import Draw
from alpamayo_r1.world.language import turned_since_road
from alpamayo_r1.world.scene import Route, SceneBatch

TURN = (
    "Turn {side} in {metres}m",
    "In {metres}m, turn {side}",
    "Turn {side} at the junction in {metres}m",
    "Take the next {side} in {metres}m",
)
TURN_NOW = ("Turn {side} now", "Turn {side}", "Turn {side} now", "Turn {side} here")
STRAIGHT = ("Continue straight", "Go straight on", "Continue on this road", "Continue straight ahead")
STRAIGHT_AT = (
    "Continue straight",
    "Go straight on in {metres}m",
    "Go straight at the junction in {metres}m",
    "Continue straight in {metres}m",
)
"""Wordings of the same thing; the first of each is the plainest."""

NOW, FARTHEST = 6, 200
"""Metres below which a turn is to be taken now; the farthest that is spoken of."""

TURNED = 1.2
"""Radians after which a turn is over."""


def route_text(route: Route, metres: float, wording: int = 0) -> str:
    """The route's next step, so many metres ahead of the car's front, in one of four wordings."""
    whole = max(1, min(FARTHEST, round(metres)))
    if route in (Route.LEFT, Route.RIGHT):
        said = TURN_NOW if whole < NOW else TURN
        return said[wording % len(said)].format(side="left" if route == Route.LEFT else "right", metres=whole)
    said = STRAIGHT_AT if route == Route.STRAIGHT and whole >= NOW else STRAIGHT
    return said[wording % len(said)].format(metres=whole)


def navigation(scene: SceneBatch, step: int, wording: int | None = None) -> list[str]:
    """What a navigator says in each scene at a step. wording: the same everywhere, None: each scene's own, by its seed.

    Before a junction that has a route: how to take it, and in how many metres its middle comes. Everywhere else: straight on.
    """
    road = scene.road
    s = road.frenet(scene.ego[:, step : step + 1, :2])[:, 0, 0].double().numpy()
    metres = road.crossing.double().numpy() - s - fam.EGO_FRONT
    turned, pick = turned_since_road(scene, step), Draw.of(scene.seeds.numpy()).integer(f"wording_{step}", 4)
    said = []
    for row, route in enumerate(scene.route.tolist()):
        over = turned[row] > TURNED if route in (Route.LEFT, Route.RIGHT) else not metres[row] > -fam.EGO_FRONT
        now = Route.NONE if over else Route(route)
        said.append(route_text(now, float(metres[row]) if now != Route.NONE else 0.0, int(pick[row]) if wording is None else wording))
    return said


def texts(metres: Iterable[int] = range(1, FARTHEST + 1)) -> list[str]:
    """Every text that a navigator may say at these distances."""
    return list(dict.fromkeys(route_text(route, m, wording) for m in metres for route in Route for wording in range(4)))
