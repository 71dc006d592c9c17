"""Recordings from what people have: one small reader per layout, all behind `import_recording`.

Each writes the folder that docs/own-data.md describes, so whatever is imported can be read, checked and mended by hand.
"""

from __future__ import annotations

import shutil
from importlib import import_module, resources
from pathlib import Path

from alpamayo_r1.data.errors import SourceError

KINDS = {
    "example": "the bundled recording: our world driven with another car's rig (no source needed)",
    "nuscenes": "a folder with v1.0-*/ tables in JSON and samples/, sweeps/; pick: the scene's name, such as scene-0061",
    "kitti-raw": "a folder such as 2011_09_26 with *_sync/ drives and calib_*.txt; pick: the drive, such as 0005",
    "kitti-odometry": "the folder with sequences/ and poses/; pick: the sequence, such as 05",
    "comma2k19": "a segment's folder with video.hevc and global_pose/",
    "mcap": "an .mcap file with camera images, camera_info, tf_static and odometry (ROS 2, or Foxglove's JSON)",
    "rosbag": "a ROS 2 bag's folder (or a ROS 1 .bag) with the same topics",
}
"""Kind -> what it reads."""


def import_recording(kind: str, src: str | Path | None, out: str | Path, pick: str | None = None) -> Path:
    """Writes the recording in `src` (None: of the example) to the folder `out`, which must be empty or new; returns it.

    Raises:
        SourceError: an unknown kind, or src is none of that kind. BadRecording: what it holds can't be a recording.
    """
    out = Path(out)
    if kind == "waymo":
        raise SourceError(
            "Waymo's TFRecords were given.",
            f"one of {', '.join(KINDS)}",
            "no light reader for them exists (waymo-open-dataset needs TensorFlow): export images and poses, and write a recording.yaml.",
        )
    if kind not in KINDS:
        raise SourceError(f'the kind "{kind}" is unknown.', "; ".join(f"{k}: {v}" for k, v in KINDS.items()), "choose one of these.")
    if kind == "example":
        src = Path(str(resources.files("alpamayo_r1") / "assets" / "recording"))
    if src is None or not (src := Path(src)).exists():
        raise SourceError(f"there is no {src}.", KINDS[kind], "check the path.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SourceError(f"{out} is not empty.", "a new folder", "choose another, or empty it.")
    if kind == "example":
        return Path(shutil.copytree(src, out, dirs_exist_ok=True))
    module = {"kitti-raw": "kitti", "kitti-odometry": "kitti", "mcap": "ros", "rosbag": "ros"}.get(kind, kind)
    return import_module(f"alpamayo_r1.data.importers.{module}").convert(kind, src, out, pick)
