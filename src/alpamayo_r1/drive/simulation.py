"""B scenes that answer: where the ego is, what it sees, and what comes next. Steps are tenths of a second of clip time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, H, Observation, Sample, Trajectory
from alpamayo_r1.drive.others import Others
from alpamayo_r1.drive.tracking import Reference, follow
from alpamayo_r1.drive.vehicle import Car
from alpamayo_r1.world.around import surroundings
from alpamayo_r1.world.expert import unicycle
from alpamayo_r1.world.render import render_at
from alpamayo_r1.world.rig import RIG, VEHICLE, resized
from alpamayo_r1.world.samples import clip_id, paths
from alpamayo_r1.world.scene import SceneBatch
from alpamayo_r1.world.simulate import FUTURE, set_stage, simulate

FIRST = H + 1
"""The first step that is driven: before it the expert drove, long enough for a history."""


@dataclass(frozen=True)
class Setting:
    """What a drive is: how long, how often planned, how late a plan comes, how it is followed, who reacts, how large the pictures are.

    Raises:
        ValueError: a replan or delay that is no whole number of tenths, another word for tracking or others.
    """

    seconds: float = 10.0
    replan: float = 0.1
    delay: float = 0.0
    tracking: str = "mpc"  # or "perfect": the car is where the plan says
    others: str = "react"  # or "replay"
    width: int = 224
    height: int = 126

    def __post_init__(self):
        for name, low in (("seconds", DT), ("replan", DT), ("delay", 0.0)):
            value = getattr(self, name)
            if value < low - 1e-9 or abs(value / DT - round(value / DT)) > 1e-6:
                raise ValueError(f"{name} is {value:g}, expected tenths of a second from {low:g} on")
        for name, words in (("tracking", ("mpc", "perfect")), ("others", ("react", "replay"))):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(words)}")

    @property
    def steps(self) -> int:
        """Steps that are driven."""
        return round(self.seconds / DT)


class Eyes:
    """The pictures of a simulation, those of the last steps kept: rendered on `device`, kept on `keep`.

    size: width and height. supersample, chunk: as in `render_at`. fused: with torch.compile.
    """

    def __init__(
        self,
        device: torch.device | str,
        size: tuple[int, int],
        keep: torch.device | str = "cpu",
        supersample: int = 2,
        chunk: int | None = None,
        fused: bool = False,
    ):
        self.device, self.size, self.keep, self.fused = device, size, keep, fused
        self.supersample, self.chunk = supersample, chunk
        self.kept: dict[int, torch.Tensor] = {}

    def frames(self, simulation: Simulation) -> torch.Tensor:
        """The pictures at now - 0.3 s .. now, u8 (B, C, K, 3, h, w)."""
        wanted = range(simulation.now - FRAMES + 1, simulation.now + 1)
        missing = [n for n in wanted if n not in self.kept]
        if missing:
            steps = torch.tensor(missing, dtype=torch.float32).expand(len(simulation), -1)
            (width, height), scene = self.size, simulation.scene.to(self.device)
            how = {"supersample": self.supersample, "chunk": self.chunk, "compile": self.fused, "dense": False}
            made = render_at(scene, steps, width=width, height=height, **how).to(self.keep)
            self.kept |= {n: made[:, :, i] for i, n in enumerate(missing)}
        self.kept = {n: self.kept[n] for n in wanted}
        return torch.stack([self.kept[n] for n in wanted], 2)


class Simulation:
    """The scenes of some seeds in closed loop.

    scene: the record that is drawn from; its ego is the driven one up to `now`. recorded: the same scenes as the expert drove them.
    """

    def __init__(self, seeds: Sequence[int], setting: Setting, families: Sequence[str] | None = None, device: torch.device | str = "cpu"):
        seconds = (FIRST + setting.steps) * DT
        self.setting, self.now, self.eyes = setting, FIRST, Eyes(device, (setting.width, setting.height))
        self.recorded = simulate(list(seeds), seconds=seconds, families=families)
        self.scene = replace(
            self.recorded,
            **{name: getattr(self.recorded, name).clone() for name in ("ego", "speed", "track", "kind", "size", "colour")},
        )
        stage = set_stage(list(seeds), seconds, families)
        self.expert = stage.expert(np.zeros(len(self.scene.seeds), np.int64))
        lead = stage.lead()
        for n in range(FIRST):  # what it remembers of the drive so far
            self.expert.act(n, *self._state(n), lead[0][:, n], lead[1][:, n])
        self.others = Others(stage, self.scene, FIRST, react=setting.others == "react")
        pose, speed = self._state(FIRST)
        self.car = Car(
            torch.from_numpy(pose),
            torch.from_numpy(speed),
            self.scene.action[:, FIRST - 1, 0].double(),
            self.scene.action[:, FIRST - 1, 1].double(),
        )

    def __len__(self) -> int:
        return len(self.scene.seeds)

    def _state(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        return self.scene.ego[:, n].double().numpy(), self.scene.speed[:, n].double().numpy()

    def history(self) -> Trajectory:
        """The last 1.6 s of every ego in its own frame: xyz (B, H, 3), rot (B, H, 3, 3)."""
        found = paths(self.scene, torch.full((len(self),), self.now))
        return Trajectory(found.history_xyz, found.history_rot)

    def frames(self) -> torch.Tensor:
        """The pictures at now - 0.3 s .. now, u8 (B, C, K, 3, h, w) on the host."""
        return self.eyes.frames(self)

    def observations(self) -> list[Observation]:
        """What each ego may know now."""
        history, frames = self.history(), self.frames()
        return [
            Observation(frames[b], CAMERAS, Trajectory(history.xyz[b], history.rot[b]), round(self.now * DT * 1e6))
            for b in range(len(self))
        ]

    def sample(self, row: int, observation: Observation) -> Sample:
        """One scene now, with what pictures of it are drawn with."""
        rig = {name: resized(RIG[name], self.setting.width, self.setting.height) for name in CAMERAS}
        meta = {"calibration": rig, "vehicle": asdict(VEHICLE), "source": "world", "surroundings": surroundings(self.scene, row, self.now)}
        return Sample(observation, None, clip_id(int(self.scene.seeds[row])), meta)

    def to_world(self, xyz: torch.Tensor, yaw: torch.Tensor) -> Reference:
        """A plan's positions (B, T, >= 2) and headings (B, T) in each ego's frame now -> poses in the world, the present one first."""
        pose = self.car.pose
        c, s = pose[:, 2, None].cos(), pose[:, 2, None].sin()
        x, y = xyz[..., 0].double(), xyz[..., 1].double()
        there = torch.stack([pose[:, :1] + c * x - s * y, pose[:, 1:2] + s * x + c * y, pose[:, 2:] + yaw.double()], -1)
        return Reference(torch.cat([pose[:, None], there], 1))

    def expert_plan(self) -> Reference:
        """What the expert would do from here in 6.4 s, the others going on as they would undisturbed."""
        expert, pose, speed = self.expert.copy(), self.car.pose.numpy(), self.car.speed.numpy()
        s, v = self.others.lead_from(self.now, FUTURE)
        poses = [pose]
        for n in range(FUTURE):
            a, k = expert.act(self.now + n, pose, speed, s[:, n], v[:, n])
            pose, speed = unicycle(pose, speed, a, k)
            poses.append(pose)
        return Reference(torch.from_numpy(np.stack(poses, 1)))

    def step(self, reference: Reference, age: float) -> None:
        """One step of 0.1 s along a reference that was planned `age` seconds ago."""
        n = self.now
        self.expert.act(n, self.car.pose.numpy(), self.car.speed.numpy(), *self.others.lead(n))
        if self.setting.tracking == "perfect":
            ahead = reference.since(age, 3)
            moved = ahead[:, 2] - ahead[:, 0]
            speed = (moved[:, 0] * ahead[:, 1, 2].cos() + moved[:, 1] * ahead[:, 1, 2].sin()) / (2 * DT)
            rest = torch.zeros_like(speed)
            self.car = Car(ahead[:, 1], speed.clamp_min(0), rest, rest)
        else:
            self.car = self.car.after(*follow(self.car, reference, age), DT)
        self.others.step(n)
        self.now = n + 1
        self.scene.ego[:, self.now], self.scene.speed[:, self.now] = self.car.pose.float(), self.car.speed.float()

    def driven(self) -> SceneBatch:
        """The scenes as far as they were driven."""
        return self.scene.cut(slice(self.now + 1))
