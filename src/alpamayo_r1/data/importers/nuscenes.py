"""nuScenes' layout: JSON tables beside the pictures. Its ego frame is the rear axle's middle on the ground; poses are in the map's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.gate.files import inside
from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.importers.draft import QUATERNION, Draft, DraftCamera, mounting, picture_size, pinhole, transform
from alpamayo_r1.data.tables import reading

TABLES = ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor")


def convert(kind: str, src: Path, out: Path, pick: str | None) -> Path:
    """One scene as a recording; pick: its name, or the first. Raises SourceError."""
    folder = _version(src)
    with reading(SourceError, f"the tables in {folder}", "nuScenes' JSON tables", "download the metadata again."):
        tables = {name: {row["token"]: row for row in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))} for name in TABLES}
        scene = _scene(tables["scene"], pick)
        shots = _shots(tables, scene["token"])
        poses = {p["timestamp"]: p for shot in shots for p in [tables["ego_pose"][shot["ego_pose_token"]]]}
        stamps = np.array(sorted(poses), dtype=np.int64)
        turn = np.array([poses[t]["rotation"] for t in stamps.tolist()], dtype=np.float64)
        columns = {"time": stamps / 1e6}
        columns |= dict(zip("xyz", np.array([poses[t]["translation"] for t in stamps.tolist()], dtype=np.float64).T))
        columns |= dict(zip(("qx", "qy", "qz", "qw"), turn[:, [1, 2, 3, 0]].T))
        draft = Draft(str(scene["name"]), columns, {"columns": ["x", "y", "z"], "frame": "ENU"}, QUATERNION)
        for channel, own in _by_camera(tables, shots).items():
            calibrated = tables["calibrated_sensor"][own[0]["calibrated_sensor_token"]]
            w, x, y, z = calibrated["rotation"]
            pose = transform(Rotation.from_quat([x, y, z, w]).as_matrix(), np.array(calibrated["translation"]))
            files = [inside(src, shot["filename"]) for shot in own]
            gone = [file for file in files if not file.is_file()]
            if gone:
                raise SourceError(f"{len(gone)} pictures of {channel} are missing, such as {gone[0]}.", "all sweeps", "download them.")
            size = (int(own[0]["width"]), int(own[0]["height"])) if {"width", "height"} <= set(own[0]) else picture_size(files[0])
            lens = pinhole(np.array(calibrated["camera_intrinsic"]), size)
            draft.cameras[channel] = DraftCamera(lens, mounting(pose), [shot["timestamp"] / 1e6 for shot in own], files)
    return draft.write(out)


def _version(src: Path) -> Path:
    """The folder of the tables: src itself, or its v1.0-*."""
    found = [folder for folder in (src, *sorted(src.glob("v1.0-*"))) if (folder / "sample_data.json").is_file()]
    if not found:
        raise SourceError(
            f"{src} has no sample_data.json.", "the folder that holds v1.0-mini/ (or -trainval) and samples/", "check the path."
        )
    return found[0]


def _scene(scenes: dict[str, dict[str, Any]], pick: str | None) -> dict[str, Any]:
    named = {scene["name"]: scene for scene in scenes.values()}
    if pick is None and len(named) == 1:
        return next(iter(named.values()))
    if pick not in named:
        raise SourceError(
            f"{'no scene was picked' if pick is None else f'there is no scene {pick}'}.",
            ", ".join(list(named)[:12]),
            "name one with --pick.",
        )
    return named[pick]


def _shots(tables: dict[str, dict[str, Any]], scene: str) -> list[dict[str, Any]]:
    """All sensor data of a scene, in time."""
    samples = {token for token, sample in tables["sample"].items() if sample["scene_token"] == scene}
    shots = [shot for shot in tables["sample_data"].values() if shot["sample_token"] in samples]
    return sorted(shots, key=lambda shot: shot["timestamp"])


def _by_camera(tables: dict[str, dict[str, Any]], shots: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for shot in shots:
        sensor = tables["sensor"][tables["calibrated_sensor"][shot["calibrated_sensor_token"]]["sensor_token"]]
        if sensor["modality"] == "camera":
            found.setdefault(sensor["channel"], []).append(shot)
    return {channel: own for channel, own in found.items() if len(own) > 1}
