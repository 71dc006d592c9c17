"""The original's loader: one clip of PhysicalAI-Autonomous-Vehicles as a dict of tensors, over data/clips.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.gate.values import brief
from alpamayo_r1.core.notes import tell
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, F, H
from alpamayo_r1.data.clips import T0_US
from alpamayo_r1.data.clock import moment
from alpamayo_r1.data.origin import NVIDIA
from alpamayo_r1.data.source import Source, open_source, source_of


def load_physical_aiavdataset(
    clip_id: str,
    t0_us: int = T0_US,
    avdi: Any = None,
    maybe_stream: bool = True,
    num_history_steps: int = H,
    num_future_steps: int = F,
    time_step: float = DT,
    camera_features: Sequence[str] | None = None,
    num_frames: int = FRAMES,
) -> dict[str, Any]:
    """What the car saw and did around t0 (microseconds of clip time).

    avdi: the data set's devkit interface, a `Source`, a folder in the data set's layout, "sample" (bundled clips), or None for NVIDIA's
    data set on the Hub. camera_features: devkit names (None: the release's four); they come in the data set's order of seven.

    Out:
        image_frames u8[C, K, 3, h, w], camera_indices i64[C] (among the data set's seven),
        ego_history_xyz f32[1, 1, 16, 3], ego_history_rot f32[1, 1, 16, 3, 3] (the last step is t0),
        ego_future_xyz f32[1, 1, 64, 3], ego_future_rot f32[1, 1, 64, 3, 3] (the first step is t0 + 0.1 s), all in the ego frame at t0,
        relative_timestamps f32[C, K] (s since the earliest of these frames), absolute_timestamps i64[C, K] (us), t0_us, clip_id.

    Every history passes the gate, one longer than 16 steps over its whole length; what it notes is warned of (NoteWarning).

    Raises:
        DataError: unknown clip or camera, not downloaded, t0 out of range, a gap in the log, broken video, a motion that no car makes.
        ValueError: another time_step, or numbers of steps that are no counts.
    """
    if not isinstance(time_step, Real) or time_step != DT:
        raise ValueError(f"time_step is {brief(time_step)}, expected {DT}: everything is at 10 Hz, as the model was trained")
    for name, count, least in (("num_history_steps", num_history_steps, 1), ("num_future_steps", num_future_steps, 0)):
        if isinstance(count, bool) or not isinstance(count, Integral) or count < least:
            raise ValueError(f"{name} is {count!r}, expected a whole number of at least {least}")
    t0_us = moment(t0_us)
    with place(avdi, maybe_stream) as source:
        clip = source.clip(clip_id)
        cameras = CAMERAS if camera_features is None else camera_features
        sample = clip.sample(t0_us, cameras=cameras, frames=num_frames, need_future=num_future_steps >= F)
        seen, frame_times = sample.observation, sample.meta["frame_timestamps_us"]
        history, gaps = (seen.history, ()) if num_history_steps <= H else clip.egomotion.history(t0_us, num_history_steps)
        future = clip.egomotion.whole_future(t0_us, num_future_steps)
    tell(dict.fromkeys(sample.notes + gaps))
    return {
        "image_frames": seen.frames,
        "camera_indices": torch.tensor([ORDER.index(camera) for camera in seen.cameras]),
        "ego_history_xyz": history.xyz[-num_history_steps:][None, None],
        "ego_history_rot": history.rot[-num_history_steps:][None, None],
        "ego_future_xyz": future.xyz[None, None],
        "ego_future_rot": future.rot[None, None],
        "relative_timestamps": (frame_times - frame_times.min()).float() * 1e-6,
        "absolute_timestamps": frame_times,
        "t0_us": t0_us,
        "clip_id": clip_id,
    }


@contextmanager
def place(avdi: Any, maybe_stream: bool) -> Iterator[Source]:
    """An open source; closed afterwards unless it was the caller's."""
    if isinstance(avdi, Source):
        yield avdi
        return
    if avdi is None or isinstance(avdi, str | Path):
        source = open_source(NVIDIA if avdi is None else avdi, maybe_stream=maybe_stream)
    else:
        source = source_of(avdi, maybe_stream=maybe_stream)
    with source:
        yield source
