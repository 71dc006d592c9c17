"""The synthetic car: the nominal rig's cameras and the outer dimensions. Ego frame, metres, radians, 1920x1080 pixels."""

from __future__ import annotations

from dataclasses import dataclass

from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.rig.nominal import RIG, resized

__all__ = ["RIG", "VEHICLE", "Vehicle", "calibration", "resized"]


@dataclass(frozen=True)
class Vehicle:
    """Outer dimensions in metres; the ego frame's origin is the rear axle projected on the ground."""

    length: float = 4.87
    width: float = 1.93
    height: float = 1.48
    rear_axle_to_bbox_center: float = 1.43
    wheelbase: float = 2.90
    track_width: float = 1.64


VEHICLE = Vehicle()


def calibration(camera: str) -> Calibration:
    """The calibration of one of `types.CAMERAS` at 1920x1080; `.lens.resized(w, h)` gives any other size."""
    return RIG[camera]
