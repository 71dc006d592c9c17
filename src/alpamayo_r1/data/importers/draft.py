"""A recording that is being written: poses in a table, cameras with their pictures' files or bytes. Every importer fills one of these."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alpamayo_r1.core.files import write_text
from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.ids import check_clip_id
from alpamayo_r1.data.recording.schema import FILE, read_setup


@dataclass
class DraftCamera:
    """One camera: its lens and mounting as recording.yaml writes them, and its pictures: times in s and files (or a video, remuxed)."""

    lens: dict[str, Any]
    mounting: dict[str, Any]
    times: Sequence[float]
    files: Sequence[Path | bytes] = ()
    video: Path | None = None
    suffix: str = ".jpg"


@dataclass
class Draft:
    """A whole recording. poses: columns name -> values; position, orientation: those sections of recording.yaml."""

    name: str
    poses: dict[str, np.ndarray]
    position: dict[str, Any]
    orientation: dict[str, Any]
    cameras: dict[str, DraftCamera] = field(default_factory=dict)
    lever_arm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    vehicle: dict[str, float] = field(default_factory=dict)
    speed: str | None = None

    def write(self, out: Path) -> Path:
        """Writes the folder and reads its recording.yaml back. Raises BadRecording, SourceError."""
        import pandas as pd

        if not self.cameras:
            raise SourceError(
                f"{self.name} has no camera whose pictures and calibration are both there.", "at least one", "check the source."
            )
        out.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(self.poses).sort_values("time").drop_duplicates("time")
        write_text(out / "poses.csv", table.to_csv(index=False))
        poses: dict[str, Any] = {
            "file": "poses.csv",
            "time": {"column": "time", "unit": "s"},
            "position": self.position,
            "orientation": self.orientation,
            "lever_arm": list(self.lever_arm),
        }
        if self.speed:
            poses["speed"] = {"column": self.speed, "unit": "m/s"}
        said = {
            "alpamayo_recording": 1,
            "name": check_clip_id(self.name),
            **({"vehicle": self.vehicle} if self.vehicle else {}),
            "poses": poses,
            "cameras": {name: self._camera(name, camera, out) for name, camera in self.cameras.items()},
        }
        write_text(out / FILE, yaml.safe_dump(said, sort_keys=False, default_flow_style=None, width=110))
        read_setup(out)
        return out

    def _camera(self, name: str, camera: DraftCamera, out: Path) -> dict[str, Any]:
        import pandas as pd

        check_clip_id(name)
        order = np.argsort(np.asarray(camera.times, dtype=np.float64), kind="stable")
        times = np.asarray(camera.times, dtype=np.float64)[order]
        listed: dict[str, Any] = {"time": times}
        if camera.video is not None:
            remux(camera.video, out / f"{name}.mp4")
            frames: dict[str, Any] = {"video": f"{name}.mp4"}
        else:
            (out / name).mkdir(exist_ok=True)
            names = []
            for number, row in enumerate(order.tolist()):
                content = camera.files[row]
                suffix = content.suffix if isinstance(content, Path) else camera.suffix
                names.append(f"{number:06d}{suffix}")
                place(content, out / name / names[-1])
            listed["file"] = names
            frames = {"images": name}
        write_text(out / f"{name}.csv", pd.DataFrame(listed).to_csv(index=False))
        return {**camera.lens, "mounting": camera.mounting, "frames": {**frames, "times": {"file": f"{name}.csv", "unit": "s"}}}


def place(content: Path | bytes, file: Path) -> None:
    """A picture in the recording: written, or linked to where it lies (copied where that can't be)."""
    if isinstance(content, bytes):
        file.write_bytes(content)
        return
    try:
        os.link(content, file)
    except OSError:
        shutil.copyfile(content, file)


def remux(video: Path, file: Path) -> None:
    """A raw stream or another container as mp4, its pictures as they are, one after the other at 20 per second."""
    import av

    with av.open(str(video)) as source, av.open(str(file), "w", format="mp4") as target:
        given = source.streams.video[0]
        stream = target.add_stream_from_template(given)
        stream.time_base = given.time_base
        step = round(1 / (20 * float(given.time_base or 1))) if given.time_base else 1
        number = 0
        for packet in source.demux(given):
            if packet.size:
                packet.pts = packet.dts = number * step
                packet.stream = stream
                target.mux(packet)
                number += 1


def transform(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    """A rotation [3, 3] and a position [3] as a matrix [4, 4]."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return matrix


def mounting(camera_to_vehicle: np.ndarray) -> dict[str, Any]:
    """A matrix [4, 4] from the camera (x right, y down, z forward) to the vehicle, as recording.yaml writes it."""
    from scipy.spatial.transform import Rotation

    quaternion = Rotation.from_matrix(camera_to_vehicle[:3, :3]).as_quat()
    return {
        "position": [round(float(v), 6) for v in camera_to_vehicle[:3, 3]],
        "quaternion": [round(float(v), 9) for v in quaternion],
        "order": "xyzw",
    }


def pinhole(matrix: np.ndarray, size: tuple[int, int], distortion: Sequence[float] = ()) -> dict[str, Any]:
    """Intrinsics [3, 3] as recording.yaml writes them."""
    return {
        "model": "pinhole",
        "size": list(size),
        "focal": [float(matrix[0, 0]), float(matrix[1, 1])],
        "centre": [float(matrix[0, 2]), float(matrix[1, 2])],
        **({"distortion": [float(v) for v in distortion]} if any(distortion) else {}),
    }


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of an image. Raises SourceError."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, SyntaxError, ValueError) as error:
        raise SourceError(f"{file} is no image ({error}).", "a jpg or png", "download it again.") from error


QUATERNION = {"kind": "quaternion", "columns": ["qx", "qy", "qz", "qw"], "order": "xyzw"}
