"""Where a clip's cameras sit and how they see, and how large the car is: tables of outside in, checked records out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alpamayo_r1.core.geometry import Calibration, FTheta
from alpamayo_r1.data.errors import BadCalibration
from alpamayo_r1.data.tables import numbers

if TYPE_CHECKING:
    import pandas as pd

POLYNOMIALS = {way: [f"{way}_poly_{i}" for i in range(5)] for way in ("fw", "bw")}
QUATERNION, POSITION = ("qx", "qy", "qz", "qw"), ("x", "y", "z")
VEHICLE = {"length": (0.5, 30.0), "width": (0.3, 5.0), "height": (0.3, 6.0)}
"""Metres that a vehicle may measure; what else its table holds lies within 30 m of zero."""


def read_calibration(lens: pd.Series, pose: pd.Series, name: str = "a camera") -> Calibration:
    """A row of camera_intrinsics and one of sensor_extrinsics -> Calibration. Raises BadCalibration."""
    from scipy.spatial.transform import Rotation

    width, height, cx, cy = _within(lens, {"width": (1, 16384), "height": (1, 16384), "cx": (-16384, 32768), "cy": (-16384, 32768)}, name)
    fw, bw = (tuple(_within(lens, dict.fromkeys(POLYNOMIALS[way], (-1e9, 1e9)), name)) for way in ("fw", "bw"))
    if not (1 <= fw[1] <= 1e6 and 0 < bw[1] <= 10):
        raise _bad(name, f"has a focal length of {fw[1]:g} px (inverse {bw[1]:g})", "fw_poly_1 of 1 to 1,000,000 px per rad, bw_poly_1 > 0")
    quaternion = _within(pose, dict.fromkeys(QUATERNION, (-1.01, 1.01)), name)
    if abs(np.linalg.norm(quaternion) - 1) > 0.01:
        raise _bad(name, f"has a rotation of length {np.linalg.norm(quaternion):.3g}", "a unit quaternion qx, qy, qz, qw")
    x, y, z = _within(pose, dict.fromkeys(POSITION, (-30, 30)), name)
    rows = Rotation.from_quat(quaternion).as_matrix().tolist()
    rot = tuple((float(a), float(b), float(c)) for a, b, c in rows)
    return Calibration(FTheta(int(width), int(height), cx, cy, fw, bw), (x, y, z), rot)


def read_vehicle(body: pd.DataFrame | pd.Series, name: str = "a vehicle") -> dict[str, float]:
    """A row of vehicle_dimensions -> {name: metres}. Raises BadCalibration, of several rows too."""
    bounds = {str(column): VEHICLE.get(str(column), (-30.0, 30.0)) for column in body.index}
    return dict(zip(bounds, _within(body, bounds | VEHICLE, name)))


def _within(row: pd.DataFrame | pd.Series, bounds: dict[str, tuple[float, float]], name: str) -> list[float]:
    values = numbers(row, bounds, name, BadCalibration).tolist()
    for (column, (low, high)), value in zip(bounds.items(), values):
        if not low <= value <= high:
            raise _bad(name, f"has {column} = {value:g}", f"{low:g} <= {column} <= {high:g}")
    return values


def _bad(name: str, given: str, expected: str) -> BadCalibration:
    return BadCalibration(
        f"{name} {given}.", expected, "mend the calibration tables, or remove them: plans need none, only pictures are drawn with them."
    )
