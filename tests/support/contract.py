"""What every Sample must satisfy, wherever it comes from, and one that does."""

import torch

from alpamayo_r1.core.geometry import Calibration, rot_z
from alpamayo_r1.core.types import CAMERAS, DT, F, H, Observation, Sample, Trajectory


def check_sample(sample: Sample, *, cameras=CAMERAS, frames=4, size=None, need_future=True) -> None:
    """Fails unless shapes, dtypes, frames of reference and times of a Sample are as types.py says. size is (h, w)."""
    seen = sample.observation
    assert seen.cameras == tuple(cameras)
    assert seen.frames.dtype == torch.uint8 and seen.frames.shape[:3] == (len(cameras), frames, 3)
    assert size is None or tuple(seen.frames.shape[-2:]) == tuple(size)
    assert isinstance(seen.t0_us, int) and isinstance(sample.clip_id, str) and sample.clip_id
    check_path(seen.history, H)
    assert torch.allclose(seen.history.xyz[-1], torch.zeros(3), atol=1e-5)
    assert torch.allclose(seen.history.rot[-1], torch.eye(3), atol=1e-5)
    assert not need_future or sample.future is not None
    if sample.future is not None:
        check_path(sample.future, F)
        assert (sample.future.xyz[0] - seen.history.xyz[-1]).norm() < 70 * DT, "the future begins where the history ends"
    check_meta(sample)


def check_path(path: Trajectory, steps: int) -> None:
    """Fails unless a path has `steps` poses a tenth of a second apart, with rotations that are rotations."""
    assert path.dt == DT and path.xyz.dtype == path.rot.dtype == torch.float32
    assert path.xyz.shape == (steps, 3) and path.rot.shape == (steps, 3, 3)
    assert path.xyz.isfinite().all() and path.rot.isfinite().all()
    assert torch.allclose(path.rot @ path.rot.transpose(-1, -2), torch.eye(3).expand(steps, 3, 3), atol=1e-4)
    assert torch.allclose(torch.linalg.det(path.rot), torch.ones(steps), atol=1e-4)


def check_meta(sample: Sample) -> None:
    """Fails unless what is there of calibration, vehicle and frame times has its form."""
    meta, seen = sample.meta, sample.observation
    assert meta.get("source") in ("world", "physical-ai-av")
    if "frame_timestamps_us" in meta:
        times = meta["frame_timestamps_us"]
        assert times.dtype == torch.int64 and times.shape == seen.frames.shape[:2]
        assert (times.diff(dim=1) > 0).all() and (times <= seen.t0_us).all()
    assert all(isinstance(c, Calibration) for c in meta.get("calibration", {}).values())
    assert all(meta["vehicle"][k] > 0 for k in ("length", "width", "height")) if "vehicle" in meta else True


def sample_of(**changes) -> Sample:
    """A standing car that sees black."""
    here = dict(xyz=torch.zeros(H, 3), rot=rot_z(torch.zeros(H)), frames=torch.zeros(4, 4, 3, 8, 8, dtype=torch.uint8), cameras=CAMERAS)
    here |= changes
    future = Trajectory(torch.zeros(F, 3), rot_z(torch.zeros(F)))
    observation = Observation(here["frames"], here["cameras"], Trajectory(here["xyz"], here["rot"]), 0)
    return Sample(observation, future, "clip", {"source": "world"})
