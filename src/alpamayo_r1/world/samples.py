"""Samples straight from the world: no files in between, frames rendered where the scene lives."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from alpamayo_r1.core.geometry import rot_z, to_frame
from alpamayo_r1.core.types import CAMERAS, FRAMES, Observation, Sample, Trajectory
from alpamayo_r1.core.types import F as FUTURE
from alpamayo_r1.core.types import H as HISTORY
from alpamayo_r1.world.around import surroundings
from alpamayo_r1.world.render import render
from alpamayo_r1.world.rig import RIG, VEHICLE, resized
from alpamayo_r1.world.scene import SceneBatch

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/alpamayo-r1/world")


def clip_id(seed: int) -> str:
    """The clip id of a scene: the version-5 UUID of "scene-<seed>" in the world's own namespace."""
    return str(uuid.uuid5(_NAMESPACE, f"scene-{int(seed)}"))


@dataclass(frozen=True)
class Paths:
    """Histories and futures of B scenes in the ego frame at t0: xyz f32 (B, 16 | 64, 3), rot f32 (B, 16 | 64, 3, 3)."""

    history_xyz: torch.Tensor
    history_rot: torch.Tensor
    future_xyz: torch.Tensor
    future_rot: torch.Tensor


def paths(scene: SceneBatch, step: torch.Tensor) -> Paths:
    """History step-15 .. step and future step+1 .. step+64 of every scene, step (B,). Raises IndexError outside the scene."""
    steps = step[:, None] + torch.arange(1 - HISTORY, FUTURE + 1, device=step.device)
    if bool((steps < 0).any() | (steps >= scene.ego.shape[1]).any()):
        raise IndexError(f"t0 needs steps {int(steps.min())} .. {int(steps.max())}, the scene has 0 .. {scene.ego.shape[1] - 1}")
    pose = scene.ego.double().gather(1, steps.to(scene.ego.device)[..., None].expand(-1, -1, 3))
    xyz = torch.cat([pose[..., :2], torch.zeros_like(pose[..., :1])], -1)
    rot = rot_z(pose[..., 2])
    local, turned = to_frame(xyz, rot, xyz[:, HISTORY - 1], rot[:, HISTORY - 1])
    local, turned = local.float(), turned.float()
    return Paths(local[:, :HISTORY], turned[:, :HISTORY], local[:, HISTORY:], turned[:, HISTORY:])


def tensors(scene: SceneBatch, step: torch.Tensor, *, width: int, height: int, **options) -> tuple[torch.Tensor, Paths]:
    """For training: frames u8 (B, C, K, 3, height, width) on the scene's device and the paths around them. Options: render.render_at."""
    return render(scene, step, width=width, height=height, **options), paths(scene, step)


def sample_batch(
    scene: SceneBatch,
    step: torch.Tensor | int,
    *,
    width: int,
    height: int,
    cameras: Sequence[str] = CAMERAS,
    frames: int = FRAMES,
    frames_on: torch.device | str | None = None,
    **options,
) -> list[Sample]:
    """One Sample per scene at step (B,) or a single step for all. frames_on: device of the frames (the scene's own if None)."""
    if isinstance(step, int):
        step = torch.full((len(scene.seeds),), step, device=scene.ego.device)
    pictures, path = tensors(scene, step, width=width, height=height, cameras=cameras, frames=frames, **options)
    pictures = pictures if frames_on is None else pictures.to(frames_on)
    shared = {
        "calibration": {name: resized(RIG[name], width, height) for name in cameras},
        "vehicle": asdict(VEHICLE),
        "source": "world",
    }
    where = (path.history_xyz, path.history_rot, path.future_xyz, path.future_rot)
    history_xyz, history_rot, future_xyz, future_rot = (t.cpu() for t in where)
    here = scene.to("cpu")
    return [
        Sample(
            observation=Observation(pictures[b], tuple(cameras), Trajectory(history_xyz[b], history_rot[b]), int(step[b]) * 100_000),
            future=Trajectory(future_xyz[b], future_rot[b]),
            clip_id=clip_id(int(scene.seeds[b])),
            meta={
                **shared,
                "seed": int(scene.seeds[b]),
                "family": scene.family[b],
                "label": label,
                "surroundings": surroundings(here, b, int(step[b])),
            },
        )
        for b, label in enumerate(_labels(scene, step))
    ]


def _labels(scene: SceneBatch, step: torch.Tensor) -> list:
    """language.Label of every scene at its own step (B,)."""
    from alpamayo_r1.world.language import labels

    scene = scene.to("cpu")
    at = {n: labels(scene, n) for n in step.unique().tolist()}
    return [at[n][row] for row, n in enumerate(step.tolist())]
