"""A small recording whose truth is a formula: a car on a bend, four cameras whose pictures tell their frame number by brightness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.recording.wgs84 import from_enu
from alpamayo_r1.world.clips import encode

SECONDS, HZ, FPS = 12.0, 20.0, 10.0
PLACE = np.array([48.137, 11.575, 520.0])
CAMERAS = {"front": 0.0, "left": 60.0, "right": -60.0, "tele": 0.0}


def truth(t: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Rear axle in ENU m [T, 3] and the turn of forward, left, up to ENU at times in s: 9 m/s on a left bend of 60 m, uphill by 3 %."""
    angle = 0.4 + 9.0 * t / 60.0
    xyz = np.stack([60 * np.sin(angle), -60 * np.cos(angle), 0.27 * t], -1)
    return xyz, Rotation.from_euler("ZYX", np.stack([angle, np.full_like(angle, -0.03), np.full_like(angle, 0.01)], -1))


def in_ego(t0: float, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The truth at times t in the ego frame at t0."""
    (origin,), now = truth(np.array([t0]))
    xyz, turn = truth(t)
    return now[0].inv().apply(xyz - origin), (now[0].inv() * turn).as_matrix()


def plain(**changes: Any) -> dict[str, Any]:
    """recording.yaml of the small recording; `changes` replace sections of poses."""
    poses: dict[str, Any] = {
        "file": "poses.csv",
        "time": {"column": "time", "unit": "s"},
        "position": {"columns": ["x", "y", "z"], "frame": "ENU"},
        "orientation": {"kind": "quaternion", "columns": ["qx", "qy", "qz", "qw"], "order": "xyzw"},
    }
    cameras = {
        name: {
            "model": "fisheye",
            "size": [96, 64],
            "focal": [46.0 if name != "tele" else 200.0] * 2,
            "centre": [47.5, 31.5],
            "mounting": {"position": [1.7, 0.0, 1.4], "yaw_pitch_roll": [yaw, 1.0, 0.0]},
            "frames": {"video": f"{name}.mp4", "times": {"file": f"{name}.csv", "column": "time", "unit": "s"}},
        }
        for name, yaw in CAMERAS.items()
    }
    return {"alpamayo_recording": 1, "name": "small", "poses": poses | changes, "cameras": cameras, "views": {"width": 96, "height": 54}}


def pose_table(t: np.ndarray, point: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> pd.DataFrame:
    """The truth in many conventions: of a point of the car, in ENU, NED, WGS84; quaternions, yaw, heading, euler."""
    xyz, turn = truth(t)
    xyz = xyz + turn.apply(point)
    quaternion = turn.as_quat()
    flip = Rotation.from_matrix([[1, 0, 0], [0, -1, 0], [0, 0, -1]])
    swap = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]])
    frd = Rotation.from_matrix(swap @ turn.as_matrix() @ flip.as_matrix())
    yaw, pitch, roll = turn.as_euler("ZYX").T
    place = from_enu(xyz, PLACE)
    inverse = turn.inv().as_quat()
    return pd.DataFrame(
        {"time": t, "ms": 1e3 * t, "us": (1.7e15 + 1e6 * t).round().astype(np.int64), "ns": (1e9 * t).round().astype(np.int64)}
        | dict(zip(("x", "y", "z"), xyz.T))
        | dict(zip(("north", "east", "down"), (xyz @ swap.T).T))
        | dict(zip(("lat", "lon", "height"), place.T))
        | dict(zip(("qx", "qy", "qz", "qw"), quaternion.T))
        | dict(zip(("fx", "fy", "fz", "fw"), frd.as_quat().T))
        | dict(zip(("ix", "iy", "iz", "iw"), inverse.T))
        | {"yaw": yaw, "pitch": pitch, "roll": roll, "yaw_deg": np.degrees(yaw), "heading": 90 - np.degrees(yaw), "speed": 9.0 * 3.6}
    )


def write_small(folder: Path, said: dict[str, Any] | None = None, **poses: Any) -> Path:
    """Writes the small recording; `said` replaces its recording.yaml, `poses` sections of its poses."""
    folder.mkdir(parents=True, exist_ok=True)
    pose_table(np.arange(0, SECONDS, 1 / HZ)).to_csv(folder / "poses.csv", index=False)
    frames = np.arange(round(SECONDS * FPS))
    pictures = np.broadcast_to((40 + frames % 100)[:, None, None, None], (len(frames), 64, 96, 3)).astype(np.uint8)
    video = encode(np.ascontiguousarray(pictures), 5)
    for name in CAMERAS:
        (folder / f"{name}.mp4").write_bytes(video)
        pd.DataFrame({"time": frames / FPS}).to_csv(folder / f"{name}.csv", index=False)
    (folder / "recording.yaml").write_text(yaml.safe_dump(said or plain(**poses), sort_keys=False))
    return folder
