"""The nominal rig: the four f-theta cameras that the model knows, at 1920x1080. Ego frame, metres, radians.

Wide lenses of 120 degrees and a tele lens of 30, on the places and with the magnitudes that the data set's cars have: about 928 and 3667
pixels per radian on the axis, principal points near the middle, side cameras turned by 57 degrees. The synthetic world sees through them,
and recordings of other cars are re-rendered to them.
"""

from __future__ import annotations

import math

from alpamayo_r1.core.geometry import Calibration, FTheta
from alpamayo_r1.core.types import CAMERAS

WIDTH, HEIGHT = 1920, 1080


def resized(record: Calibration, width: int, height: int) -> Calibration:
    """The same camera behind a picture of width x height pixels."""
    return Calibration(record.lens.resized(width, height), record.position, record.rot)


def facing(yaw: float, pitch: float) -> tuple[tuple[float, float, float], ...]:
    """Camera to ego rotation: columns right, down, forward of a camera turned `yaw` to the left and `pitch` down (degrees)."""
    a, b = math.radians(yaw), math.radians(pitch)
    forward = (math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), -math.sin(b))
    right = (math.sin(a), -math.cos(a), 0.0)
    down = (
        forward[1] * right[2] - forward[2] * right[1],
        forward[2] * right[0] - forward[0] * right[2],
        forward[0] * right[1] - forward[1] * right[0],
    )
    return tuple(zip(right, down, forward))


_WIDE = (0.0, 928.0, 1.4, -9.5, 1.1), (0.0, 0.0010775612, -1.5386824e-09, 1.2202067e-11, -9.1892333e-16)
_TELE = (0.0, 3667.0, -6.0, 38.0, 0.0), (0.0, 0.00027270239, 1.223606e-10, -2.1163938e-13, 1.0230745e-18)
"""r(theta) and its least-squares inverse over 0 to 1.3 and 0 to 0.35, to 8 digits: the last ones of a solver differ from run to run."""

RIG: dict[str, Calibration] = dict(
    zip(
        CAMERAS,
        (
            Calibration(FTheta(WIDTH, HEIGHT, 961.2, 541.8, *_WIDE), (1.86, 0.93, 1.21), facing(57.0, 2.0)),
            Calibration(FTheta(WIDTH, HEIGHT, 957.6, 543.1, *_WIDE), (1.77, 0.0, 1.43), facing(0.0, 1.5)),
            Calibration(FTheta(WIDTH, HEIGHT, 958.9, 540.7, *_WIDE), (1.86, -0.93, 1.21), facing(-57.0, 2.0)),
            Calibration(FTheta(WIDTH, HEIGHT, 960.4, 539.5, *_TELE), (1.77, 0.06, 1.43), facing(0.0, -1.0)),
        ),
    )
)
"""Camera name -> calibration at 1920x1080."""
