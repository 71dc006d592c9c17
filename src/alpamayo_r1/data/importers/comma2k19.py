"""A segment of comma2k19: video.hevc of one forward camera and global_pose/ (times, ECEF positions, orientations of the camera).

The orientations turn forward, right, down into ECEF (w first). Lens and height are those of the data set's device.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.importers.draft import QUATERNION, Draft, DraftCamera, pinhole
from alpamayo_r1.data.recording.wgs84 import axes_at
from alpamayo_r1.data.tables import reading

FOCAL = 910.0
"""Pixels, of a picture of 1164 x 874."""

CAMERA = (1.6, 0.0, 1.22)
"""Where the device hangs, from the rear axle's middle on the ground, metres: a sedan's; the data set does not say."""


def convert(kind: str, src: Path, out: Path, pick: str | None) -> Path:
    """The segment as a recording. Raises SourceError."""
    video = src / "video.hevc"
    if not video.is_file() or not (src / "global_pose").is_dir():
        raise SourceError(f"{src} has no video.hevc and global_pose/.", "a segment's folder, such as <route>/10", "choose one.")
    with reading(SourceError, f"{src}", "a segment of comma2k19", "download it again."):
        times, place, turn = (np.load(src / "global_pose" / f"frame_{name}") for name in ("times", "positions", "orientations"))
        origin = _geodetic(place[0])
        enu = (place - place[0]) @ axes_at(origin).T
        body = Rotation.from_quat(turn[:, [1, 2, 3, 0]]).as_matrix()
        quaternion = Rotation.from_matrix(axes_at(origin) @ body @ np.diag([1.0, -1, -1])).as_quat()
        poses = {"time": times, **dict(zip("xyz", enu.T)), **dict(zip(("qx", "qy", "qz", "qw"), quaternion.T))}
        draft = Draft(_name(src), poses, {"columns": ["x", "y", "z"], "frame": "ENU"}, QUATERNION, lever_arm=CAMERA)
        log = src / "processed_log/CAN/speed"
        if (log / "t").is_file():
            speed = np.load(log / "value").reshape(len(np.load(log / "t")), -1)[:, 0]
            poses["speed"] = np.interp(times, np.load(log / "t"), speed)
            draft.speed = "speed"
        width, height = _size(video)
        focal = FOCAL * width / 1164
        lens = pinhole(np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]]), (width, height))
        hung = {"position": list(CAMERA), "yaw_pitch_roll": [0.0, 0.0, 0.0]}
        draft.cameras["road"] = DraftCamera(lens, hung, times.tolist(), video=video)
        return draft.write(out)


def _name(src: Path) -> str:
    return "-".join(part.replace("|", "_") for part in src.resolve().parts[-2:])[-100:].lstrip("-. ")


def _size(video: Path) -> tuple[int, int]:
    import av

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


def _geodetic(ecef: np.ndarray) -> np.ndarray:
    """Latitude, longitude (degrees) and height of an earth-centred point."""
    from alpamayo_r1.data.recording.wgs84 import A, from_enu

    origin = np.array([0.0, 0.0, 0.0])
    return from_enu((ecef - np.array([A, 0.0, 0.0])) @ axes_at(origin).T, origin)
