"""What an actor or a prop is made of: the primitives of every kind of thing, and how each of them is painted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from alpamayo_r1.world.scene import Kind


class Paint(IntEnum):
    """How `shade` colours a primitive from the hit point's local coordinates."""

    PLAIN = 0
    BODY = 1
    CABIN = 2
    WINDOWS = 3
    LIGHT = 4
    SIGN = 5
    FOLIAGE = 6
    CONE = 7
    CARGO = 8
    LIMIT = 9


@dataclass(frozen=True)
class Part:
    """One primitive of a thing: centre and half extents = metres + share x (length, width, height), z from the ground.

    `form` of a box: (front taper, rear taper, side taper, corner cut): x + front z <= hx, -x + rear z <= hx, |y| + side z <= hy,
    |y| + |z| <= cut. `form` of a round: (e, a, b): x^2 + y^2 + e z^2 <= (a - b z)^2 in coordinates scaled to |z| <= 1.
    `tint` mixes the thing's own colour (1) with `colour` (0); `swing` is the amplitude in radians about the part's top while walking.
    """

    at: tuple[float, float, float]
    half: tuple[float, float, float]
    at_share: tuple[float, float, float] = (0, 0, 0)
    half_share: tuple[float, float, float] = (0, 0, 0)
    form: tuple[float, float, float, float] = (0, 0, 0, 1e4)
    round: bool = False
    paint: Paint = Paint.PLAIN
    tint: float = 1.0
    colour: tuple[float, float, float] = (0, 0, 0)
    aux: float = 0.0
    swing: float = 0.0


def _box(at, half, at_share=(0, 0, 0), half_share=(0, 0, 0), form=(0, 0, 0, 1e4), **look) -> Part:
    return Part(at, half, at_share, half_share, form, **look)


def _round(at, half, at_share=(0, 0, 0), half_share=(0, 0, 0), *, form, **look) -> Part:
    return Part(at, half, at_share, half_share, (*form, 0), round=True, **look)


ELLIPSOID, CYLINDER = (1, 1, 0), (0, 1, 0)
O = (0, 0, 0)


def _cone(top: float) -> tuple[float, float, float]:
    """A cone whose radius falls from 1 at the bottom to `top` at the top."""
    return (0, (1 + top) / 2, (1 - top) / 2)


def _limb(y: float, z: float, half: float, radius: float, swing: float, **look) -> Part:
    return _round((0, y, 0), (radius, radius, 0), (0, 0, z), (0, 0, half), form=_cone(1.25), swing=swing, **look)


_TROUSERS, _SKIN = {"tint": 0.0, "colour": (0.17, 0.19, 0.27)}, {"tint": 0.0, "colour": (0.80, 0.61, 0.50)}
_STEEL, _BLACK = {"tint": 0.0, "colour": (0.46, 0.47, 0.48)}, {"tint": 0.0, "colour": (0.07, 0.075, 0.08)}
_LEAVES = {"paint": Paint.FOLIAGE, "form": ELLIPSOID}

PARTS: dict[Kind, tuple[Part, ...]] = {
    Kind.CAR: (
        _box(O, O, (0, 0, 0.30), (0.5, 0.5, 0.30), (0.10, 0.06, 0.10, 1e4), paint=Paint.BODY, aux=0.335),
        _box(O, O, (-0.045, 0, 0.79), (0.285, 0.455, 0.21), (1.15, 0.75, 0.32, 1e4), paint=Paint.CABIN),
    ),
    Kind.VAN: (
        _box(O, O, (0, 0, 0.25), (0.5, 0.5, 0.25), (0.08, 0.02, 0.03, 1e4), paint=Paint.BODY, aux=0.35),
        _box(O, O, (-0.04, 0, 0.745), (0.45, 0.485, 0.255), (0.75, 0.06, 0.10, 1e4), paint=Paint.CABIN),
    ),
    Kind.TRUCK: (
        _box(O, O, (0, 0, 0.15), (0.5, 0.48, 0.15), paint=Paint.BODY, tint=0.0, colour=(0.20, 0.20, 0.21), aux=0.48),
        _box(O, O, (-0.13, 0, 0.64), (0.37, 0.5, 0.36), paint=Paint.CARGO, tint=0.25, colour=(0.88, 0.88, 0.86)),
        _box(O, O, (0.38, 0, 0.50), (0.115, 0.47, 0.30), (0.22, 0, 0.04, 1e4), paint=Paint.CABIN),
    ),
    Kind.PEDESTRIAN: (
        _limb(0.085, 0.25, 0.25, 0.068, 0.5, **_TROUSERS),
        _limb(-0.085, 0.25, 0.25, 0.068, -0.5, **_TROUSERS),
        _round(O, (0.125, 0.19, 0), (0, 0, 0.65), (0, 0, 0.19), form=_cone(1.15)),
        _limb(0.245, 0.64, 0.17, 0.052, -0.45),
        _limb(-0.245, 0.64, 0.17, 0.052, 0.45),
        _round(O, (0.10, 0.085, 0), (0, 0, 0.925), (0, 0, 0.072), form=ELLIPSOID, **_SKIN),
        _round((-0.02, 0, 0.02), (0.102, 0.09, 0), (0, 0, 0.945), (0, 0, 0.058), form=ELLIPSOID, tint=0.0, colour=(0.16, 0.11, 0.08)),
    ),
    Kind.CONE: (
        _round((0, 0, 0.03), O, (0, 0, 0.5), (0.38, 0.38, 0.48), form=_cone(0.16), paint=Paint.CONE),
        _box((0, 0, 0.02), (0, 0, 0.02), O, (0.5, 0.5, 0), tint=0.0, colour=(0.75, 0.28, 0.08)),
    ),
    Kind.TRAFFIC_LIGHT: (
        _round(O, (0.08, 0.08, 0), (0, 0, 0.5), (0, 0, 0.5), form=CYLINDER, **_STEEL),
        _box((0.30, 0, -0.80), (0.14, 0.27, 0.74), (0, 0, 1), paint=Paint.LIGHT, **_BLACK),
        _box((0.13, 0, -0.80), (0.02, 0.44, 0.92), (0, 0, 1), tint=0.0, colour=(0.16, 0.165, 0.17)),
    ),
    Kind.STOP_SIGN: (
        _round((0, 0, -0.1), (0.045, 0.045, -0.1), (0, 0, 0.5), (0, 0, 0.5), form=CYLINDER, **_STEEL),
        _box((0.07, 0, -0.42), (0.015, 0.42, 0.42), (0, 0, 1), form=(0, 0, 0, 0.594), paint=Paint.SIGN, tint=0.0, colour=(0.6, 0.6, 0.6)),
    ),
    Kind.LIMIT_SIGN: (
        _round((0, 0, -0.1), (0.045, 0.045, -0.1), (0, 0, 0.5), (0, 0, 0.5), form=CYLINDER, **_STEEL),
        _box((0.07, 0, -0.42), (0.015, 0.42, 0.42), (0, 0, 1), paint=Paint.LIMIT),
    ),
    Kind.TREE: (
        _round(O, (0.17, 0.17, 0), (0, 0, 0.27), (0, 0, 0.27), form=_cone(0.6), tint=0.0, colour=(0.34, 0.27, 0.21)),
        _round(O, O, (0, 0, 0.67), (0.46, 0.46, 0.31), **_LEAVES),
        _round(O, O, (0.20, 0.14, 0.53), (0.34, 0.34, 0.20), **_LEAVES, aux=1.7),
        _round(O, O, (-0.17, -0.2, 0.56), (0.34, 0.32, 0.21), **_LEAVES, aux=3.1),
        _round(O, O, (0.05, -0.12, 0.84), (0.30, 0.30, 0.16), **_LEAVES, aux=5.3),
    ),
    Kind.BUILDING: (
        _box(O, O, (0, 0, 0.5), (0.5, 0.5, 0.5), paint=Paint.WINDOWS),
        _box(O, (0.15, 0.15, 0.25), (0, 0, 1.0), (0.5, 0.5, 0), tint=0.5, colour=(0.42, 0.40, 0.39)),
    ),
    Kind.LAMP: (
        _round(O, (0.08, 0.08, 0), (0, 0, 0.5), (0, 0, 0.5), form=_cone(0.6), **_STEEL),
        _box((0.75, 0, -0.02), (0.85, 0.05, 0.04), (0, 0, 1), **_STEEL),
        _box((1.5, 0, -0.07), (0.35, 0.13, 0.05), (0, 0, 1), tint=0.0, colour=(0.62, 0.63, 0.64)),
    ),
    Kind.BUSH: (
        _round(O, O, (0, 0, 0.42), (0.5, 0.5, 0.55), **_LEAVES),
        _round(O, O, (0.25, 0.2, 0.3), (0.35, 0.35, 0.42), **_LEAVES, aux=2.3),
    ),
}
"""Kind -> its primitives."""
