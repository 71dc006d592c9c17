"""Clips as the service shows them: what is around the car, what its cameras saw, where a path lies on their pictures."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch

from alpamayo_r1.core.geometry import Calibration, FTheta
from alpamayo_r1.core.types import CAMERAS, Observation, Sample, Surroundings
from alpamayo_r1.core.wire import numbers
from alpamayo_r1.data.clips import Clip
from alpamayo_r1.data.errors import MissingCamera
from alpamayo_r1.data.listing import Row, listed
from alpamayo_r1.data.notices import notice
from alpamayo_r1.data.source import Source
from alpamayo_r1.draw.overlay import edges, project

OPEN = 6
"""Clips that stay open."""

FAR = 40.0
"""Shares of a picture's width beyond which a border of a corridor is not sent."""


class Scenes:
    """Samples of a source by clip and t0, the last ones kept up to a number of bytes. One caller reads at a time."""

    def __init__(self, source: Source, room: int):
        self.source, self.room = source, room
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, tuple[str, ...]], Sample] = OrderedDict()
        self._rows: list[Row] | None = None
        self._open: OrderedDict[str, Clip] = OrderedDict()

    def rows(self, match: str, first: int, count: int) -> tuple[list[Row], int]:
        """Some of the clips whose id, family or words hold the text, and how many there are."""
        with self._lock:
            if self._rows is None:
                self._rows = listed(self.source)
            wanted = match.casefold()
            found = [row for row in self._rows if wanted in f"{row.clip_id} {row.family} {row.text}".casefold()]
            return found[first : first + count], len(found)

    def sample(self, clip_id: str, t0_us: int, cameras: Sequence[str] | None = None) -> Sample:
        """A clip at t0, with its future where the log reaches that far. Raises as `Clip.sample`."""
        with self._lock:
            key = (self.source.find(clip_id), t0_us, tuple(CAMERAS if cameras is None else cameras))
            if key not in self._kept:
                self._kept[key] = self._clip(key[0]).sample(t0_us, cameras=key[2], need_future=False)
                while len(self._kept) > 1 and sum(one.observation.frames.nbytes for one in self._kept.values()) > self.room:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _clip(self, clip_id: str) -> Clip:
        """The open clip; of many the ones that were used last stay open."""
        clip = self._open[clip_id] = self._open.pop(clip_id, None) or self.source.clip(clip_id)
        if len(self._open) > OPEN:
            self._open.popitem(last=False)[1].close()
        return clip

    def clip(self, clip_id: str) -> dict[str, Any]:
        """What does not change along a clip: first and last t0 in microseconds, its cameras' calibration, its car's size in m."""
        with self._lock:
            whole = self.source.find(clip_id)
            clip = self._clip(whole)
            first, last = clip.valid_t0(need_future=False)
            rig = clip.rig
        lenses = {name: calibration_as_json(one) for name, one in rig.get("calibration", {}).items()}
        return {
            "clip_id": whole,
            "t0_us": {"first": first, "last": last},
            "calibration": lenses,
            "vehicle": rig.get("vehicle"),
            "notice": notice(self.source.kind),
        }


def calibration_as_json(one: Calibration) -> dict[str, Any]:
    """A camera's lens (its fields, in pixels of a picture width x height) and its pose: p_ego = rot p_camera + position, metres."""
    kind = "f-theta" if isinstance(one.lens, FTheta) else type(one.lens).__name__.lower()
    return {"lens": {"kind": kind, **asdict(one.lens)}, "position": one.position, "rot": one.rot}  # type: ignore[call-overload]


def scene_as_json(sample: Sample) -> dict[str, Any]:
    """A moment without its pictures, in the ego frame at t0, metres and radians; future null where it is not known."""
    observation, around = sample.observation, sample.meta.get("surroundings", Surroundings())
    return {
        "clip_id": sample.clip_id,
        "t0_us": observation.t0_us,
        "cameras": list(observation.cameras),
        "size": {"width": observation.frames.shape[-1], "height": observation.frames.shape[-2]},
        "history": {"xyz": numbers(observation.history.xyz), "dt": observation.history.dt},
        "future": None if sample.future is None else {"xyz": numbers(sample.future.xyz), "dt": sample.future.dt},
        "car": {name: float(value) for name, value in sample.car.items()},
        "markings": [{"kind": one.kind, "xy": numbers(one.xy)} for one in around.markings],
        "obstacles": [asdict(one) for one in around.obstacles],
        "notes": [asdict(note) for note in sample.notes],
        "notice": notice(sample.meta.get("source")),
    }


def picture(observation: Observation, camera: str, frame: int, form: str, width: int | None = None) -> bytes:
    """A camera's picture of frame 0 (oldest) to K - 1 (t0) as "jpeg" or, without loss, "png"; width: pixels across at most.

    Raises:
        MissingCamera, ValueError: what there is not.
    """
    from PIL import Image

    if camera not in observation.cameras:
        raise MissingCamera(f'there is no camera "{camera}" here.', f"one of {', '.join(observation.cameras)}", "ask for one of them.")
    count = observation.frames.shape[1]
    if not -count <= frame < count:
        raise ValueError(f"frame is {frame}, expected 0 (oldest) to {count - 1} (at t0)")
    pixels = observation.frames[observation.cameras.index(camera), frame].permute(1, 2, 0).contiguous().cpu().numpy()
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    if width is not None and width < image.width:
        image = image.resize((width, max(1, round(width * image.height / image.width))), Image.Resampling.BILINEAR, reducing_gap=2.0)
    image.save(file, format=form, quality=88)
    return file.getvalue()


def corridors(sample: Sample, paths: torch.Tensor) -> dict[str, Any]:
    """Where paths [S, F, 3] lie on each camera's picture, and the future: see `PlanReply.corridors`."""
    truth = [] if sample.future is None else [sample.future.xyz[sample.future.xyz.isfinite().all(-1)]]
    sides = [[line[::3] for line in sides_of(path, float(sample.car["width"]))] for path in [*paths, *truth]]
    found = {}
    for name in sample.observation.cameras:
        camera = sample.meta.get("calibration", {}).get(name)
        if camera is not None:
            points = iter(on_picture(camera, torch.cat([line for pair in sides for line in pair])))
            each = [{side: list(islice(points, len(line))) for side, line in zip(("left", "right"), pair, strict=True)} for pair in sides]
            found[name] = {"samples": each[: len(paths)], "truth": each[len(paths)] if truth else None}
    return found


def sides_of(path: torch.Tensor, width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The left and right border [N, 3] of a path's corridor; none of no path."""
    nothing = path.new_zeros(0, 3)
    return edges(path.float().cpu(), width) if len(path) else (nothing, nothing)


def on_picture(camera: Calibration, xyz: torch.Tensor) -> list[list[float] | None]:
    """Where points [N, 3] lie on a picture, in shares of its width and height; None where they are not to be drawn."""
    pixel, seen = project(camera, xyz)
    share = (pixel + 0.5) / torch.tensor([camera.lens.width, camera.lens.height])
    shown, rounded = seen & (share.abs() < FAR).all(-1), (share.double() * 1e5).round() / 1e5
    return [point if there else None for point, there in zip(rounded.tolist(), shown.tolist(), strict=True)]
