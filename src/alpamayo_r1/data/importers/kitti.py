"""KITTI: raw drives (GPS/IMU and calibrated cameras) and the odometry sequences (poses of camera 0).

Neither says where the rear axle is; the numbers below are of the published drawing of the car.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.importers.draft import QUATERNION, Draft, DraftCamera, mounting, picture_size, pinhole, transform
from alpamayo_r1.data.tables import reading

IMU = (0.05, 0.32, 0.93)
"""Where the GPS/IMU is, from the rear axle's middle on the ground: forward, left, up, metres."""

CAMERA_0 = (1.13, 0.06, 1.65)
"""Where camera 0 is, likewise."""

VEHICLE = {"length": 4.77, "width": 1.82, "height": 1.47, "wheelbase": 2.71, "rear_axle_to_bbox_center": 1.35}
OPTICAL_TO_CAR = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def convert(kind: str, src: Path, out: Path, pick: str | None) -> Path:
    """A raw drive or an odometry sequence as a recording. Raises SourceError."""
    with reading(SourceError, f"{src}", "KITTI's files", "download the drive and its calibration again."):
        return (_raw if kind == "kitti-raw" else _odometry)(src, pick).write(out)


def _raw(src: Path, pick: str | None) -> Draft:
    drives = sorted(folder for folder in src.glob("*_drive_*") if (folder / "oxts/data").is_dir())
    drive = _picked({folder.name: folder for folder in drives}, pick, src)
    rows = np.array([np.loadtxt(file) for file in sorted((drive / "oxts/data").glob("*.txt"))])
    names = ("lat", "lon", "height", "roll", "pitch", "yaw")
    poses = {"time": _stamps(drive / "oxts/timestamps.txt"), **dict(zip(names, rows[:, :6].T)), "speed": rows[:, 8]}
    imu_velo, velo_cam = (_rigid(_calibration(src / f"calib_{name}.txt")) for name in ("imu_to_velo", "velo_to_cam"))
    cams = _calibration(src / "calib_cam_to_cam.txt")
    turn = transform(cams["R_rect_00"].reshape(3, 3), np.zeros(3))
    to_car = transform(np.eye(3), np.array(IMU)) @ np.linalg.inv(turn @ velo_cam @ imu_velo)
    draft = Draft(
        drive.name, poses, {"columns": ["lat", "lon", "height"], "frame": "WGS84"},
        {"kind": "euler", "columns": ["roll", "pitch", "yaw"], "unit": "rad"}, lever_arm=IMU, vehicle=VEHICLE, speed="speed",
    )  # fmt: skip
    for number in range(4):
        files = sorted((drive / f"image_{number:02d}/data").glob("*.png")) or sorted((drive / f"image_{number:02d}/data").glob("*.jpg"))
        if files:
            projection = cams[f"P_rect_{number:02d}"].reshape(3, 4)
            times = _stamps(drive / f"image_{number:02d}/timestamps.txt")
            draft.cameras[f"image_{number:02d}"] = _camera(projection, to_car, files, times)
    return draft


def _odometry(src: Path, pick: str | None) -> Draft:
    folders = {folder.name: folder for folder in sorted((src / "sequences").glob("*")) if (folder / "times.txt").is_file()}
    folder = _picked(folders, pick, src)
    log = src / "poses" / f"{folder.name}.txt"
    if not log.is_file():
        raise SourceError(f"sequence {folder.name} has no poses ({log}).", "one of the sequences 00 to 10", "only these have poses.")
    times, rows = np.loadtxt(folder / "times.txt"), np.loadtxt(log).reshape(-1, 3, 4)
    poses = {"time": times[: len(rows)]}
    poses |= dict(zip("xyz", (rows[:, :, 3] @ OPTICAL_TO_CAR.T).T))
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(OPTICAL_TO_CAR @ rows[:, :, :3] @ OPTICAL_TO_CAR.T).as_quat()
    poses |= dict(zip(("qx", "qy", "qz", "qw"), turn.T))
    draft = Draft(
        f"sequence-{folder.name}", poses, {"columns": ["x", "y", "z"], "frame": "local"}, QUATERNION, lever_arm=CAMERA_0, vehicle=VEHICLE
    )
    cams = _calibration(folder / "calib.txt")
    to_car = transform(OPTICAL_TO_CAR, np.array(CAMERA_0))
    for number in range(4):
        files = sorted((folder / f"image_{number}").glob("*.png"))
        if files:
            draft.cameras[f"image_{number}"] = _camera(cams[f"P{number}"].reshape(3, 4), to_car, files, times)
    return draft


def _camera(projection: np.ndarray, to_car: np.ndarray, files: list[Path], times: np.ndarray) -> DraftCamera:
    """A rectified camera: P = K [I | t], so it sits at -K^-1 P[:, 3] in the frame of camera 0."""
    lens = projection[:, :3]
    own = transform(np.eye(3), -np.linalg.solve(lens, projection[:, 3]))
    return DraftCamera(pinhole(lens, picture_size(files[0])), mounting(to_car @ own), times[: len(files)].tolist(), files)


def _picked(found: dict[str, Path], pick: str | None, src: Path) -> Path:
    fits = [folder for name, folder in found.items() if pick is None or pick in name]
    if len(fits) != 1:
        expected = ", ".join(list(found)[:12]) or "drives with pictures and poses"
        raise SourceError(f"{src} has {len(fits)} drives that fit {pick or 'no pick'!r}.", expected, "name one with --pick.")
    return fits[0]


def _calibration(file: Path) -> dict[str, np.ndarray]:
    """The rows `name: numbers` of a calibration file."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, _, values = line.partition(":")
        try:
            found[name.strip()] = np.array([float(v) for v in values.split()])
        except ValueError:
            continue  # a date
    return found


def _rigid(rows: dict[str, np.ndarray]) -> np.ndarray:
    return transform(rows["R"].reshape(3, 3), rows["T"])


def _stamps(file: Path) -> np.ndarray:
    """Lines such as 2011-09-26 13:02:25.964389445 -> seconds from the day's start."""
    seconds = []
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            whole, _, rest = line.strip().partition(".")
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S")
            seconds.append((moment - datetime(moment.year, moment.month, moment.day)).total_seconds() + float(f"0.{rest or 0}"))
    return np.array(seconds)
