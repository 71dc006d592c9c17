"""Logs of poses by formula, for the check's tests."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.recording.poses import Track


def winding(seconds: float = 16.0) -> Track:
    """A car at 20 Hz whose speed and course both change."""
    t = np.arange(0, seconds, 0.05)
    yaw = 0.5 + 0.4 * np.sin(0.7 * t)
    speed = 8 + 2 * np.sin(0.9 * t)
    xyz = np.cumsum(0.05 * speed[:, None] * np.stack([np.cos(yaw), np.sin(yaw), 0 * t], -1), 0)
    turn = Rotation.from_euler("ZYX", np.stack([yaw, 0 * t, 0 * t], -1))
    return Track(np.round(1e6 * t).astype(np.int64), xyz, turn.as_quat(), xyz[0], "ENU", np.zeros(3), None)
