"""A recording for the Rerun viewer: cameras, paths in 3D and words on the clip's timeline. Needs the extra `rerun`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.files import written_whole
from alpamayo_r1.core.geometry import Calibration
from alpamayo_r1.core.types import Observation, Plan, Sample

TIMELINE = "clip_time"
"""What the timeline is called: seconds of clip time."""

PLANNED, DRIVEN, BEFORE = (22, 104, 220), (216, 35, 42), (138, 144, 153)


def check_rerun(path: Path | None) -> None:
    """Raises ValueError unless a recording can be written there."""
    if path is None:
        return
    if path.suffix != ".rrd":
        raise ValueError(f"--rerun is {path}, expected a name that ends in .rrd")
    if find_spec("rerun") is None:
        raise ValueError("--rerun needs the Rerun SDK: pip install 'alpamayo-r1[rerun]'")


@contextmanager
def recorded(path: Path | None) -> Iterator[Recorder | None]:
    """A recorder of a file, there whole at the end of the block or not at all; None for no file.

    Raises:
        ValueError: another ending than .rrd, or no Rerun SDK.
    """
    check_rerun(path)
    if path is None:
        yield None
        return
    with written_whole(path) as beside:
        recorder = Recorder(beside)
        try:
            yield recorder
        finally:
            recorder.close()


class Recorder:
    """Writes moments to a file as they come. Entities: car/CAMERA, car/plan/0.., car/driven, car/history, words."""

    def __init__(self, path: Path):
        import rerun as rr
        import rerun.blueprint as rrb

        self._rr = rr
        self._stream = rr.RecordingStream("alpamayo_r1")
        front = rrb.Spatial2DView(origin="car/camera_front_wide_120fov", contents="car/**", name="Front")
        scene = rrb.Spatial3DView(origin="car", contents=["car/plan/**", "car/driven", "car/history", "car/body"], name="Paths")
        words = rrb.TextLogView(origin="words", name="Words")
        self._stream.save(path, default_blueprint=rrb.Blueprint(rrb.Horizontal(rrb.Vertical(front, words), scene)))
        self._stream.log("car", rr.ViewCoordinates.FLU, static=True)

    def add(self, sample: Sample, plan: Plan) -> None:
        """One moment with its plan, at t0 on the timeline. Paths are in metres in the ego frame at t0."""
        rr, stream, seen = self._rr, self._stream, sample.observation
        stream.set_time(TIMELINE, duration=seen.t0_us / 1e6)
        self._cameras(seen, sample.meta.get("calibration", {}))
        for i, xyz in enumerate(plan.xyz):
            self._path(f"car/plan/{i}", xyz, PLANNED, 0.12 if i == 0 else 0.05)
        self._path("car/history", seen.history.xyz, BEFORE, 0.06)
        if sample.future is not None:
            self._path("car/driven", sample.future.xyz, DRIVEN, 0.06)
        size = sample.car
        half = [size["length"] / 2, size["width"] / 2, size["height"] / 2]
        stream.log("car/body", rr.Boxes3D(half_sizes=[half], centers=[[size["rear_axle_to_bbox_center"], 0, half[2]]]))
        for i, text in enumerate(plan.reasoning):
            stream.log("words", rr.TextLog(f"{i + 1}: {text.strip() or '(no words)'}", level="INFO"))
        for note in (*sample.notes, *plan.notes):
            stream.log("words", rr.TextLog(f"{note.code}: {note.text}", level="WARN"))

    def close(self) -> None:
        """Writes what is left."""
        self._stream.flush()
        self._stream.disconnect()

    def _cameras(self, seen: Observation, rig: dict[str, Calibration]) -> None:
        rr = self._rr
        for name, frames in zip(seen.cameras, seen.frames, strict=True):
            pixels = frames[-1].permute(1, 2, 0).contiguous().cpu().numpy()
            height, width = pixels.shape[:2]
            if name in rig:
                camera = rig[name]
                self._stream.log(f"car/{name}", rr.Transform3D(translation=camera.position, mat3x3=np.array(camera.rot)))
                self._stream.log(f"car/{name}", pinhole_of(camera, width, height, rr))
            self._stream.log(f"car/{name}", rr.Image(pixels).compress(jpeg_quality=88))

    def _path(self, name: str, xyz: torch.Tensor, colour: tuple[int, int, int], radius: float) -> None:
        known = xyz[xyz.isfinite().all(-1)].detach().cpu().numpy()
        self._stream.log(name, self._rr.LineStrips3D([known], colors=[colour], radii=[radius]))


def pinhole_of(camera: Calibration, width: int, height: int, rr: Any) -> Any:
    """The pinhole that a lens is near its axis; towards the edge of a wide lens the picture is compressed more than it shows."""
    lens = camera.lens.resized(width, height)
    centre, _ = lens.project(torch.tensor([0.0, 0.0, 1.0]))
    return rr.Pinhole(
        focal_length=lens.focal, width=width, height=height, principal_point=centre.tolist(), camera_xyz=rr.ViewCoordinates.RDF
    )
