"""The other vehicles: each keeps to its script unless the ego, or one that the ego held up, is in its way. B scenes at once.

    a = min(a_script, A (1 - (s* / gap)^2)),   s* = s0 + max(0, v T + v dv / (2 sqrt(A B)))        (IDM's interaction, Treiber 2000)

A vehicle that was held up drives its script's speed again, at a later place. Pedestrians, lights and vehicles that cross keep to the
script. Behind the ego a vehicle follows that no script knows.
"""

from __future__ import annotations

import numpy as np
import torch

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.scene import DT, Kind, SceneBatch
from alpamayo_r1.world.simulate import Stage, in_traffic, poses_of

ACCELERATION, DECELERATION, HEADWAY, STANDSTILL = 1.8, 2.5, 1.2, 2.0
"""A, B in m/s^2; T in s; s0 in m."""

HARDEST = 8.0
"""m/s^2 that a vehicle brakes at most."""

ASIDE = 0.2
"""Metres between two sides below which one vehicle is in the other's way."""

HELD_UP = 0.1
"""Metres behind its script from which a vehicle counts as held up."""


def interaction(speed: np.ndarray, gap: np.ndarray, lead_speed: np.ndarray) -> np.ndarray:
    """IDM's acceleration m/s^2 for a gap in m to something of lead_speed ahead, without the wish for speed."""
    closing = speed * (speed - lead_speed) / (2 * np.sqrt(ACCELERATION * DECELERATION))
    wanted = STANDSTILL + np.maximum(0.0, speed * HEADWAY + closing)
    return np.maximum(ACCELERATION * (1 - (wanted / np.maximum(gap, 0.1)) ** 2), -HARDEST)


class Others:
    """The vehicles in traffic of B scenes. They write their tracks into the scene step by step.

    react: whether they mind the ego (else the script is replayed). follower: one more vehicle behind each ego, where a slot is free.
    """

    def __init__(self, stage: Stage, scene: SceneBatch, first: int, react: bool = True, follower: bool = True):
        self.stage, self.scene, self.react = stage, scene, react
        self.traffic = in_traffic(stage)
        self.s, self.v = stage.s[:, first].copy(), stage.speed[:, first].copy()
        self.behind = Followers(scene, first) if react and follower else None

    def lead(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """s and speed (B,) of the vehicle in slot LEAD at step n, where it really is; zeros where there is none."""
        s, v = np.zeros((2, len(self.scene.seeds)))
        leads = self.stage.slot == fam.LEAD
        s[self.stage.scene[leads]], v[self.stage.scene[leads]] = self.s[leads], self.v[leads]
        return s, v

    def lead_from(self, n: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The same over the next steps (B, steps), if nobody disturbs it."""
        s, v = self.stage.lead()
        now, _ = self.lead(n)
        held = (s[:, n] - now)[:, None]
        return s[:, n : n + steps] - held, v[:, n : n + steps]

    def step(self, n: int) -> None:
        """From step n to n + 1, the ego's pose and speed at n being in the scene."""
        if not self.react:
            return
        stage = self.stage
        way = np.where(np.cos(stage.script.motion.yaw[stage.scene, stage.slot]) >= 0, 1.0, -1.0)
        pace, script_pace = self.v * way, stage.speed[:, n + 1] * way
        behind = np.abs(stage.s[:, n] - self.s)
        on_script = (behind < 1e-9) & (np.abs(self.v - stage.speed[:, n]) < 1e-9)
        free = (script_pace - pace) / DT
        free = np.where(on_script, free, np.minimum(free, ACCELERATION))
        a = np.minimum(free, self._in_the_way(n, way, behind > HELD_UP))
        follows = ~self.traffic | (on_script & (a >= free))
        slower = np.maximum(pace + a * DT, 0.0)
        self.s = np.where(follows, stage.s[:, n + 1], self.s + (pace + slower) / 2 * DT * way)
        self.v = np.where(follows, stage.speed[:, n + 1], slower * way)
        self._write(n + 1)
        if self.behind is not None:
            self.behind.step(n)

    def _in_the_way(self, n: int, way: np.ndarray, held: np.ndarray) -> np.ndarray:
        """The acceleration (A,) that what is ahead of each vehicle allows; infinite where nothing is."""
        stage, scene = self.stage, self.scene
        d, size = stage.d[:, n], stage.script.size[stage.scene, stage.slot]
        ego = place_of_ego(scene, n)[stage.scene]
        allowed = allowed_by(way, self.s, d, self.v, size, ego[:, 0], ego[:, 1], ego[:, 2], fam.EGO_LENGTH, fam.EGO_WIDTH)
        for other in range(len(self.s)):
            same = (stage.scene == stage.scene[other]) & (np.arange(len(self.s)) != other)
            if not held[other] or not same.any():
                continue
            ahead = allowed_by(
                way[same], self.s[same], d[same], self.v[same], size[same], self.s[other], d[other], self.v[other], *size[other, :2]
            )
            allowed[same] = np.minimum(allowed[same], ahead)
        return allowed

    def _write(self, n: int) -> None:
        """The tracks and brake lights at step n."""
        stage, scene = self.stage, self.scene
        v, sideways = self.v[:, None], stage.sideways[:, n : n + 1]
        pose = poses_of(stage, scene.road, self.s[:, None], stage.d[:, n : n + 1], v, sideways)[:, 0]
        rows, slots = torch.from_numpy(stage.scene), torch.from_numpy(stage.slot)
        moved = torch.from_numpy(self.traffic & (np.abs(self.s - stage.s[:, n]) > 1e-9))
        scene.track[rows[moved], slots[moved], n] = pose[moved].to(scene.track)


def allowed_by(way, s, d, v, size, other_s, other_d, other_v, length, width) -> np.ndarray:
    """The acceleration along their way that vehicles may take behind something at other_s, other_d of a length and width."""
    gap = way * (other_s - s) - (size[:, 0] + length) / 2
    aside = np.abs(other_d - d) < (size[:, 1] + width) / 2 + ASIDE
    ahead = aside & (way * (other_s - s) > 0)
    return np.where(ahead, interaction(v * way, gap, other_v * way), np.inf)


def place_of_ego(scene: SceneBatch, n: int) -> np.ndarray:
    """s, d of the middle of the ego's box and its speed along the road (B, 3) at step n."""
    x, y, yaw = scene.ego[:, n].double().unbind(-1)
    middle = torch.stack([x + fam.EGO_CENTRE * yaw.cos(), y + fam.EGO_CENTRE * yaw.sin()], -1)
    s, d = scene.road.frenet(middle[:, None].float())[:, 0].unbind(-1)
    return torch.stack([s.double(), d.double(), scene.speed[:, n].double()], -1).cpu().numpy()


class Followers:
    """A car behind each ego, in a slot that the scene has free among those that move; it keeps to the lane's middle."""

    def __init__(self, scene: SceneBatch, first: int):
        self.scene = scene
        free = (scene.kind[:, fam.LEAD + 1 : fam.MOVING] == Kind.NONE).cpu().numpy()
        self.rows = np.flatnonzero(free.any(1))
        self.slots = fam.MOVING - 1 - free[self.rows, ::-1].argmax(1)
        ego = place_of_ego(scene, first)[self.rows]
        length, width, height = fam.SIZES[Kind.CAR]
        self.size = np.tile([length, width, height], (len(self.rows), 1))
        self.v = ego[:, 2].copy()
        self.s = ego[:, 0] - (fam.EGO_LENGTH + length) / 2 - STANDSTILL - 1.0 - HEADWAY * self.v
        self.wish = np.maximum(self.v, fam.LANE_SPEED[0]) * 1.1
        rows, slots = torch.from_numpy(self.rows), torch.from_numpy(self.slots)
        scene.kind[rows, slots] = int(Kind.CAR)
        scene.size[rows, slots] = scene.size.new_tensor([length, width, height])
        scene.colour[rows, slots] = scene.colour.new_tensor([0.2, 0.3, 0.5])
        for n in range(first + 1):  # where it was before, it drove as it does now
            self._write(n, self.s - self.v * DT * (first - n))

    def step(self, n: int) -> None:
        """From step n to n + 1."""
        if not len(self.rows):
            return
        ego = place_of_ego(self.scene, n)[self.rows]
        ones = np.ones_like(self.v)
        free = ACCELERATION * (1 - (self.v / self.wish) ** 4)
        allowed = allowed_by(ones, self.s, 0 * ones, self.v, self.size, ego[:, 0], ego[:, 1], ego[:, 2], fam.EGO_LENGTH, fam.EGO_WIDTH)
        faster = np.maximum(self.v + np.minimum(free, allowed) * DT, 0.0)
        self.s, self.v = self.s + (self.v + faster) / 2 * DT, faster
        self._write(n + 1, self.s)

    def _write(self, n: int, s: np.ndarray) -> None:
        scene = self.scene
        rows, slots = torch.from_numpy(self.rows), torch.from_numpy(self.slots)
        place = torch.zeros(len(scene.seeds), 1, dtype=scene.road.s.dtype)
        place[rows, 0] = torch.from_numpy(s).to(place)
        scene.track[rows, slots, n] = scene.road.point(place, torch.zeros_like(place))[rows, 0].to(scene.track)
