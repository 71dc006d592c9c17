"""A stand-in for AlpaSim: its driver's calls into the models, and messages shaped as its gRPC ones, in plain classes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

import alpamayo1_5.helper
import alpamayo_r1.helper
from alpamayo1_5.models.alpamayo1_5 import Alpamayo1_5
from alpamayo_r1.core.family import ORDER
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1

KEEP = 4
STEP_US = 100_000
SDPA = {"attn_implementation": "sdpa"}
FAMILIES = {"alpamayo1": (AlpamayoR1, alpamayo_r1.helper, {}), "alpamayo1_5": (Alpamayo1_5, alpamayo1_5.helper, SDPA)}


@dataclass(frozen=True)
class Pose:
    """The rig in the scene's frame: metres, and a yaw for the quaternion."""

    xyz: tuple[float, float, float]
    yaw: float


@dataclass
class Session:
    """What the driver has been told."""

    seed: int
    frames: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    poses: dict[int, Pose] = field(default_factory=dict)
    drives: int = 0


@dataclass(frozen=True)
class DriveResponse:
    """64 poses behind the last one, times in microseconds, and what was said."""

    poses: tuple[Pose, ...]
    times_us: tuple[int, ...]
    reasoning_text: str


class Driver:
    """The driver: cameras and poses in, a trajectory in the scene's frame out; the model runs in a worker thread."""

    def __init__(
        self, family: str, checkpoint: str, cameras: Sequence[str], *, subsample: int = 1, determinism: bool = False, guided: bool = False,
        device: str = "cpu", fast: bool | None = None,
    ):  # fmt: skip
        model, self.helper, more = FAMILIES[family]
        self.device = torch.device(device)
        self.model = model.from_pretrained(checkpoint, dtype=torch.bfloat16, **more).to(self.device)
        self.model.fast = fast
        self.processor = self.helper.get_processor(self.model.tokenizer)
        self.waypoints = self.model.action_space.get_action_space_dims()[0]
        self.named, self.guided = family == "alpamayo1_5", guided
        self.cameras = sorted(cameras, key=ORDER.index)
        self.subsample, self.determinism = subsample, determinism
        self.sessions: dict[str, Session] = {}
        self.worker = ThreadPoolExecutor(1)

    def start_session(self, session_uuid: str, random_seed: int, available_cameras: Sequence[str]) -> None:
        assert set(self.cameras) <= set(available_cameras)
        self.sessions[session_uuid] = Session(random_seed, {camera: [] for camera in self.cameras})

    def submit_image_observation(self, session_uuid: str, logical_id: str, frame_end_us: int, image_bytes: bytes) -> None:
        self.sessions[session_uuid].frames[logical_id].append((frame_end_us, image_bytes))

    def submit_egomotion_observation(self, session_uuid: str, poses: Mapping[int, Pose]) -> None:
        self.sessions[session_uuid].poses.update(poses)

    def submit_route(self, session_uuid: str, waypoints: np.ndarray) -> None:
        assert session_uuid in self.sessions and waypoints.shape == (20, 3)

    def close_session(self, session_uuid: str) -> None:
        del self.sessions[session_uuid]

    def drive(self, session_uuid: str, time_now_us: int) -> DriveResponse:
        session = self.sessions[session_uuid]
        newest = (KEEP - 1) * self.subsample + 1
        chosen = [session.frames[camera][-newest :: self.subsample] for camera in self.cameras]
        if any(len(frames) < KEEP for frames in chosen):
            return DriveResponse((), (), "")
        frames = torch.stack([decoded(picture) for camera in chosen for _, picture in camera])
        now = interpolated(session.poses, [chosen[0][-1][0]])[0]
        past = interpolated(session.poses, [chosen[0][-1][0] + STEP_US * i for i in range(-15, 1)])
        local = [relative(now, pose) for pose in past]
        data = self.inputs(frames, local)
        seed, session.drives = session.seed + session.drives, session.drives + 1
        xyz, rot, extra = self.worker.submit(self.infer, data, seed).result()
        path, turn = xyz[0, 0, 0, :, :2].float().cpu().numpy(), rot[0, 0, 0].float().cpu().numpy()
        yaws = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
        poses = (now, *(absolute(now, (*xy, 0.0), yaw) for xy, yaw in zip(path, yaws, strict=True)))
        times = tuple(time_now_us + STEP_US * i for i in range(self.waypoints + 1))
        return DriveResponse(poses, times, str(extra["cot"][0, 0]))

    def inputs(self, frames: torch.Tensor, local: Sequence[Pose]) -> dict[str, Any]:
        """What the driver hands to the model."""
        indices = torch.tensor([ORDER.index(camera) for camera in self.cameras])
        messages = self.helper.create_message(frames, indices) if self.named else self.helper.create_message(frames)
        tokenized = self.processor.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=False, continue_final_message=True, return_dict=True, return_tensors="pt"
        )
        xyz = torch.tensor([pose.xyz for pose in local], dtype=torch.float32)[None, None]
        rot = torch.stack([turned(pose.yaw) for pose in local])[None, None]
        return self.helper.to_device({"tokenized_data": tokenized, "ego_history_xyz": xyz, "ego_history_rot": rot}, self.device)

    def infer(self, data: dict[str, Any], seed: int) -> Any:
        """The call itself, in the worker thread."""
        name = "sample_trajectories_from_data_with_vlm_rollout" + "_cfg_nav" * self.guided
        with deterministic(self.determinism), torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16):
            if self.determinism:
                torch.manual_seed(seed)
            return getattr(self.model, name)(data=data, top_p=0.98, temperature=0.6, num_traj_samples=1, return_extra=True)


@contextmanager
def deterministic(on: bool):
    """AlpaSim's force_determinism, undone afterwards."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def jpeg(seed: int, width: int = 192, height: int = 108) -> bytes:
    """A picture as the simulator sends it."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rough).resize((width, height), Image.Resampling.BILINEAR).save(stream, "JPEG")
    return stream.getvalue()


def decoded(picture: bytes) -> torch.Tensor:
    """JPEG -> u8[3, h, w]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(picture)).convert("RGB"))).permute(2, 0, 1)


def turned(yaw: float) -> torch.Tensor:
    """A rotation about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float32)


def relative(origin: Pose, pose: Pose) -> Pose:
    """A pose as seen from another."""
    away = np.array(pose.xyz) - origin.xyz
    return Pose(tuple(turned(origin.yaw).numpy().T @ away), pose.yaw - origin.yaw)


def absolute(origin: Pose, xyz: Sequence[float], yaw: float) -> Pose:
    """The inverse of `relative`, the height kept."""
    there = turned(origin.yaw).numpy() @ np.array(xyz) + origin.xyz
    return Pose((there[0], there[1], origin.xyz[2]), origin.yaw + float(yaw))


def interpolated(poses: Mapping[int, Pose], times: Sequence[int]) -> list[Pose]:
    """Poses between those that were reported."""
    known = sorted(poses)
    rows = np.array([[*poses[t].xyz, poses[t].yaw] for t in known])
    columns = [np.interp(times, known, column) for column in rows.T]
    return [Pose((x, y, z), yaw) for x, y, z, yaw in zip(*columns)]
