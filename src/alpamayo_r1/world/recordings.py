"""Our world driven with another car's rig, written as a recording: cameras, rates, clocks and poses as a real car has them.

recording.yaml, poses.csv, <camera>.mp4 and <camera>.csv for every camera; docs/own-data.md explains each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.spatial.transform import Rotation, Slerp

from alpamayo_r1.core.files import own_folder, write_bytes, write_text
from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.rig.lenses import Pinhole, Radial, fisheye
from alpamayo_r1.rig.nominal import facing
from alpamayo_r1.world.clips import egomotion, encode, render_clip
from alpamayo_r1.world.scene import DT, SceneBatch

_BARREL, _ROUND = (-0.06, 0.012, 0.0004, -0.0003, -0.0012), (0.02, -0.005, 0.001, 0.0)

OTHER_CAR: dict[str, Calibration] = {
    "front": Calibration(Pinhole(1280, 720, 452.0, 451.0, 643.2, 357.1, _BARREL), (1.62, 0.05, 1.58), facing(1.5, 3.0)),
    "left": Calibration(fisheye(1280, 720, 499.0, 499.5, 637.8, 361.4, _ROUND), (1.70, 0.84, 1.30), facing(60.0, 4.0)),
    "right": Calibration(fisheye(1280, 720, 500.5, 500.0, 640.9, 360.2, _ROUND), (1.70, -0.86, 1.31), facing(-61.0, 3.0)),
    "tele": Calibration(Pinhole(1280, 720, 2230.0, 2231.0, 638.0, 362.0, (0.02, -0.01, 0.0, 0.0)), (1.60, 0.10, 1.60), facing(-0.5, -0.5)),
}
"""A car with four cameras of 1280 x 720, pinholes ahead and fisheyes at the sides, mounted higher and turned otherwise than the nominal
rig. Those at the sides see all that the nominal ones do.
"""


STANDS = 0.02
"""m/s below which wheels log 0."""


@dataclass(frozen=True)
class Car:
    """How a recording is taken. lever_arm: of the GPS antenna. noise, drift: metres of white noise and of a slow wander per sqrt(s).
    wheel_noise: m/s, while they turn.

    camera_clock: seconds that the cameras' clock is ahead of the poses'. place: where the drive starts, east and north in metres and its
    heading in radians from east.
    """

    rig: Mapping[str, Calibration] = field(default_factory=lambda: OTHER_CAR)
    fps: float = 30.0
    pose_hz: float = 20.0
    lever_arm: tuple[float, float, float] = (0.4, 0.15, 1.6)
    noise: float = 0.01
    drift: float = 0.02
    wheel_noise: float = 0.01
    camera_clock: float = 0.137
    place: tuple[float, float, float] = (352.0, -118.0, 0.61)
    smooth: bool = True
    views: tuple[int, int] = (640, 360)


def write_recording(
    scene: SceneBatch,
    out: str | Path,
    *,
    car: Car | None = None,
    width: int = 640,
    height: int = 360,
    start: float = 0.0,
    seconds: float = 10.0,
    after: float = 6.4,
    crf: int = 23,
    supersample: int = 2,
    name: str = "drive",
) -> Path:
    """Writes the first scene of a batch: pictures from `start` on, poses from 0 until `after` seconds behind them. Returns the folder."""
    car = car or Car()
    folder = Path(out)
    own_folder(folder)
    rig = {key: Calibration(c.lens.resized(width, height), c.position, c.rot) for key, c in car.rig.items()}
    times = start + np.arange(round(seconds * car.fps) + 1) / car.fps
    steps = torch.from_numpy(times / DT).float()
    for key in rig:
        (pictures,) = render_clip(scene[:1], steps, width, height, supersample, cameras=[key], rig=rig)
        write_bytes(folder / f"{key}.mp4", encode(pictures, crf))
        clock = pd.DataFrame({"frame": np.arange(len(times)), "time": np.round(times + car.camera_clock, 6)})
        write_text(folder / f"{key}.csv", clock.to_csv(index=False))
    write_text(folder / "poses.csv", pose_table(scene, 0.0, start + seconds + after, car).to_csv(index=False, float_format="%.6f"))
    write_text(folder / "recording.yaml", yaml.safe_dump(description(car, rig, name), sort_keys=False, default_flow_style=None, width=110))
    return folder


def pose_table(scene: SceneBatch, start: float, end: float, car: Car) -> pd.DataFrame:
    """What the car's GPS and wheels log: time s, the antenna's place in ENU m, a quaternion x y z w, and the wheels' speed m/s."""
    log = egomotion(scene, 0)
    clock = log["timestamp"].to_numpy() / 1e6
    t = np.arange(start, min(end, clock[-1]) + 1e-9, 1 / car.pose_hz)
    local = np.stack([np.interp(t, clock, log[axis].to_numpy()) for axis in "xyz"], -1)
    turn = Slerp(clock, Rotation.from_quat(log[["qx", "qy", "qz", "qw"]].to_numpy()))(t)
    east, north, heading = car.place
    world = Rotation.from_euler("z", heading)
    generator = np.random.default_rng(int(scene.seeds[0]))
    wander = np.cumsum(generator.normal(0, car.drift / np.sqrt(car.pose_hz), local.shape), 0) * [1, 1, 0.5]
    error = wander + generator.normal(0, car.noise, local.shape)
    antenna = world.apply(local + turn.apply(car.lever_arm)) + np.array([east, north, 0.0]) + error
    quaternion = (world * turn).as_quat()
    speed = np.interp(t, clock, np.hypot(log["vx"].to_numpy(), log["vy"].to_numpy()))
    speed += np.where(speed > STANDS, generator.normal(0, car.wheel_noise, len(t)), -speed)
    columns = [t, *antenna.T, *quaternion.T, speed]
    return pd.DataFrame(dict(zip(("time", "x", "y", "z", "qx", "qy", "qz", "qw", "speed"), columns)))


def description(car: Car, rig: Mapping[str, Calibration], name: str) -> dict[str, Any]:
    """The recording.yaml of a car."""
    return {
        "alpamayo_recording": 1,
        "name": name,
        "source": "world",
        "vehicle": {"length": 4.87, "width": 1.93, "height": 1.48, "wheelbase": 2.9, "rear_axle_to_bbox_center": 1.43},
        "poses": {
            "file": "poses.csv",
            "time": {"column": "time", "unit": "s"},
            "position": {"columns": ["x", "y", "z"], "frame": "ENU"},
            "orientation": {"kind": "quaternion", "columns": ["qx", "qy", "qz", "qw"], "order": "xyzw"},
            "lever_arm": list(car.lever_arm),
            "smooth": car.smooth,
            "speed": {"column": "speed", "unit": "m/s"},
        },
        "cameras": {key: camera_entry(key, camera, car.camera_clock) for key, camera in rig.items()},
        "views": {"width": car.views[0], "height": car.views[1]},
    }


def camera_entry(key: str, camera: Calibration, ahead: float) -> dict[str, Any]:
    """One camera of recording.yaml. ahead: seconds that its clock is ahead of the poses'."""
    quaternion = [round(float(v), 9) for v in Rotation.from_matrix(np.array(camera.rot)).as_quat()]
    return {
        **lens_entry(camera),
        "mounting": {"position": list(camera.position), "quaternion": quaternion, "order": "xyzw"},
        "frames": {"video": f"{key}.mp4", "times": {"file": f"{key}.csv", "column": "time", "unit": "s"}},
        "clock_offset": -ahead,
    }


def lens_entry(camera: Calibration) -> dict[str, Any]:
    """The lens of a camera as recording.yaml writes it. Raises TypeError for one that it does not know."""
    lens = camera.lens
    if isinstance(lens, Pinhole):
        shape = {"model": "pinhole", "focal": [lens.fx, lens.fy], "distortion": list(lens.distortion)}
    elif isinstance(lens, Radial) and lens.fx == lens.fy == 1:
        shape = {"model": "ftheta", "polynomial": list(lens.polynomial)}
    elif isinstance(lens, Radial):
        shape = {"model": "fisheye", "focal": [lens.fx, lens.fy], "distortion": list(lens.polynomial[3::2])}
    else:
        raise TypeError(f"the lens is a {type(lens).__name__}, expected a Pinhole or a Radial of rig.lenses")
    return {"size": [lens.width, lens.height], "centre": [lens.cx, lens.cy], **shape}
