"""The original's loader: one clip of PhysicalAI-Autonomous-Vehicles as a dict of tensors, over data/clips.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, F, H, Trajectory
from alpamayo_r1.data.clips import T0_US, Clip
from alpamayo_r1.data.errors import OutOfRange
from alpamayo_r1.data.origin import NVIDIA, Origin
from alpamayo_r1.data.source import Source, open_source


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

    Raises:
        DataError: unknown clip or camera, not downloaded, t0 out of range, broken video or ego motion. ValueError: another time_step.
    """
    if time_step != DT:
        raise ValueError(f"time_step is {time_step}, expected {DT}: frames, history and future are at 10 Hz, as the model was trained")
    with place(avdi, maybe_stream) as source:
        clip = source.clip(clip_id)
        released = (num_history_steps, num_future_steps) == (H, F)
        cameras = CAMERAS if camera_features is None else camera_features
        sample = clip.sample(t0_us, cameras=cameras, frames=num_frames, need_future=released)
        seen, frame_times = sample.observation, sample.meta["frame_timestamps_us"]
        steps = range(1 - num_history_steps, num_future_steps + 1)
        path = ego_path(clip, t0_us, steps)
    history, future = num_history_steps, num_future_steps
    return {
        "image_frames": seen.frames,
        "camera_indices": torch.tensor([ORDER.index(camera) for camera in seen.cameras]),
        "ego_history_xyz": path.xyz[:history][None, None],
        "ego_history_rot": path.rot[:history][None, None],
        "ego_future_xyz": path.xyz[history : history + future][None, None],
        "ego_future_rot": path.rot[history : history + future][None, None],
        "relative_timestamps": (frame_times - frame_times.min()).float() * 1e-6,
        "absolute_timestamps": frame_times,
        "t0_us": t0_us,
        "clip_id": clip_id,
    }


def ego_path(clip: Clip, t0_us: int, steps: range) -> Trajectory:
    """Poses at t0 + 0.1 s times each step, in the ego frame at t0. Raises OutOfRange where the log does not reach."""
    times, log = round(DT * 1e6) * np.array(steps), clip.egomotion
    if t0_us + times[0] < log.start_us or t0_us + times[-1] > log.end_us:
        raise OutOfRange(
            f"clip {clip.clip_id} has no log for {1 - steps[0]} steps before and {steps[-1]} steps after t0 = {t0_us / 1e6:g} s.",
            f"steps within {log.start_us / 1e6:.3f} s .. {log.end_us / 1e6:.3f} s",
            "choose another t0, or fewer steps.",
        )
    return log.path(t0_us, times)


@contextmanager
def place(avdi: Any, maybe_stream: bool) -> Iterator[Source]:
    """An open source; closed afterwards unless it was the caller's."""
    if isinstance(avdi, Source):
        yield avdi
        return
    if avdi is None or isinstance(avdi, str | Path):
        source = open_source(NVIDIA if avdi is None else avdi, maybe_stream=maybe_stream)
    else:
        source = Source(Origin(avdi, str(getattr(avdi, "repo_id", "the given interface")), "physical-ai-av", maybe_stream=maybe_stream))
    with source:
        yield source
