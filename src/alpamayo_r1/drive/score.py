"""What came of a drive: collisions and whose fault they were, the road's edge, lights and signs, progress, comfort, words and deeds.

AlpaSim's definitions where it has them (docs/closed-loop.md says what differs):

    at fault = the other's box meets the ego's front bumper, or its side and not its rear
    score    = 0 with a collision at fault or off the road, else min(1, clamp(progress, 0, 1) / 0.8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.geometry import rot_z, to_frame
from alpamayo_r1.core.types import DT, F, H, Trajectory
from alpamayo_r1.drive.tracking import Reference
from alpamayo_r1.metrics.consistency import verdict
from alpamayo_r1.world.families import EGO_CENTRE, EGO_FRONT, EGO_LENGTH, EGO_WIDTH
from alpamayo_r1.world.scene import Kind, Light, Road, SceneBatch
from alpamayo_r1.world.simulate import boxes_meet

SHRINK = 0.98
"""Boxes are a little smaller than what they stand for."""

SHORT = 5.0
"""Metres: where the expert drives less, progress is free."""

ENOUGH = 0.8
"""The share of the expert's way that counts as all of it."""

RESTED, NEAR_THE_LINE = 0.3, 6.0
"""m/s below which a car has stopped; metres before a stop line within which it must."""

COMFORT = {"forward": 2.40, "backward": 4.05, "lateral": 4.89, "jerk": 8.37, "rate": 0.95, "turn": 1.93}
"""nuPlan's bounds: m/s^2 of speeding up, slowing down and to the side, m/s^3, rad/s, rad/s^2."""


@dataclass(frozen=True)
class Contact:
    """The first contact of an ego with something: at which step, with what kind, and where on the ego."""

    step: int
    kind: str
    side: str  # front, rear or lateral

    @property
    def at_fault(self) -> bool:
        """Whether the ego drove into it."""
        return self.side != "rear"


def middle(pose: torch.Tensor, ahead: float = EGO_CENTRE) -> torch.Tensor:
    """The point so many metres ahead of the rear axle: poses (..., 3) -> (..., 2)."""
    yaw = pose[..., 2]
    return pose[..., :2] + ahead * torch.stack([yaw.cos(), yaw.sin()], -1)


def contacts(scene: SceneBatch, first: int) -> list[Contact | None]:
    """The first contact of every ego from step `first` on."""
    pose = scene.ego[:, None, first:].expand(-1, scene.kind.shape[1], -1, -1)
    track = scene.track[:, :, first:]
    size = (SHRINK / 2 * scene.size[:, :, None, :2]).expand(-1, -1, track.shape[2], -1)
    there = (scene.kind != Kind.NONE)[:, :, None]

    def met(ahead: float, length: float) -> torch.Tensor:
        half = torch.tensor([length / 2, SHRINK * EGO_WIDTH / 2]).expand_as(size)
        return there & boxes_meet(middle(pose, ahead), pose[..., 2], half, track[..., :2], track[..., 2], size)

    whole = met(EGO_CENTRE, SHRINK * EGO_LENGTH)
    bumpers = {"front": met(EGO_FRONT, 0.02), "rear": met(EGO_FRONT - EGO_LENGTH, 0.02)}
    found: list[Contact | None] = []
    for b, hits in enumerate(whole.numpy()):
        steps = np.flatnonzero(hits.any(0))
        if not len(steps):
            found.append(None)
            continue
        step = int(steps[0])
        actor = int(hits[:, step].argmax())
        side = next((name for name, met_it in bumpers.items() if bool(met_it[b, actor, step])), "lateral")
        found.append(Contact(first + step, Kind(int(scene.kind[b, actor])).name.lower(), side))
    return found


CORNER = 5.0
"""Radius of a crossing's rounded corners, metres: as `world.ground` paints them."""


def on_crossing(road: Road, s: torch.Tensor) -> torch.Tensor:
    """bool (B, ...): places along the road s (B, ...) between the crossing road's edges."""
    shape = (-1, *[1] * (s.ndim - 1))
    return (s - road.crossing.view(shape)).abs() < road.crossing_half_width.view(shape)


def off_road(scene: SceneBatch, first: int) -> torch.Tensor:
    """bool (B, T - first): a corner of the ego's box is beyond the road's edges, not on a crossing road or its rounded corners."""
    pose, road = scene.ego[:, first:], scene.road
    corners = []
    for ahead in (EGO_FRONT, EGO_FRONT - EGO_LENGTH):
        for aside in (EGO_WIDTH / 2, -EGO_WIDTH / 2):
            yaw = pose[..., 2]
            corners.append(middle(pose, ahead) + aside * torch.stack([-yaw.sin(), yaw.cos()], -1))
    s, d = road.frenet(torch.stack(corners, 2)).unbind(-1)
    left, right = (edge[:, None, None] for edge in road.edges())
    beside = torch.maximum(right - d, d - left)
    before = (s - road.crossing[:, None, None]).abs() - road.crossing_half_width[:, None, None]
    rounded = torch.hypot((CORNER - beside).clamp_min(0), (CORNER - before).clamp_min(0)) > CORNER
    return (((d > left) | (d < right)) & ~on_crossing(road, s) & ~rounded).any(-1)


def on_the_wrong_side(scene: SceneBatch, first: int) -> torch.Tensor:
    """bool (B, T - first): the middle of the ego is in a lane of oncoming traffic, and not on a crossing road."""
    s, d = scene.road.frenet(middle(scene.ego[:, first:])).unbind(-1)
    return (d > ((scene.road.left_lanes + 0.5) * scene.road.lane_width)[:, None]) & ~on_crossing(scene.road, s)


def lines_run(scene: SceneBatch, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """bool (B,) each: a stop line was crossed at a red light; one with a stop sign was crossed without a stop before it."""
    line = scene.road.stop_line[:, None]
    nose = scene.road.frenet(middle(scene.ego[:, first:], EGO_FRONT))[..., 0]
    crosses = (nose[:, :-1] < line) & (nose[:, 1:] >= line)
    lit, sign = ((scene.prop_kind == kind).any(1) for kind in (Kind.TRAFFIC_LIGHT, Kind.STOP_SIGN))
    red = (crosses & (scene.light[:, first + 1 :] == Light.RED)).any(1) & lit
    rested = (scene.speed[:, first:] < RESTED) & (nose < line) & (nose > line - NEAR_THE_LINE)
    before = rested.cumsum(1)[:, :-1] > 0
    return red, (crosses & ~before).any(1) & sign


def progress(scene: SceneBatch, recorded: SceneBatch, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B,) each: the share of the expert's way that was driven (1 where that is less than SHORT), metres driven, the expert's metres."""
    way = middle(recorded.ego[:, first : scene.ego.shape[1]].double())
    length = torch.cat([torch.zeros(len(way), 1, dtype=way.dtype), way.diff(dim=1).norm(dim=-1).cumsum(1)], 1)
    end = middle(scene.ego[:, -1].double())
    start, step = way[:, :-1], way.diff(dim=1)
    share = (((end[:, None] - start) * step).sum(-1) / (step**2).sum(-1).clamp_min(1e-12)).clamp(0, 1)
    foot = start + share[..., None] * step
    nearest = (foot - end[:, None]).norm(dim=-1).argmin(1, keepdim=True)
    along = (length[:, :-1] + share * step.norm(dim=-1)).gather(1, nearest)[:, 0]
    whole = length[:, -1]
    driven = scene.ego[:, first:, :2].double().diff(dim=1).norm(dim=-1).sum(1)
    return torch.where(whole < SHORT, torch.ones_like(whole), along / whole.clamp_min(1e-9)), driven, whole


def comfortable(scene: SceneBatch, first: int) -> torch.Tensor:
    """bool (B,): nuPlan's bounds hold throughout, by differences over 0.5 s."""
    v, yaw = scene.speed[:, first:].double(), torch.from_numpy(np.unwrap(scene.ego[:, first:, 2].double().numpy(), axis=1))
    span = 5
    a = (v[:, span:] - v[:, :-span]) / (span * DT)
    rate = (yaw[:, span:] - yaw[:, :-span]) / (span * DT)
    lateral = rate * v[:, span // 2 : span // 2 + rate.shape[1]]
    jerk, turn = ((x[:, span:] - x[:, :-span]) / (span * DT) for x in (a, rate))
    inside = (a < COMFORT["forward"]).all(1) & (a > -COMFORT["backward"]).all(1) & (lateral.abs() < COMFORT["lateral"]).all(1)
    return inside & (jerk.abs() < COMFORT["jerk"]).all(1) & (rate.abs() < COMFORT["rate"]).all(1) & (turn.abs() < COMFORT["turn"]).all(1)


def plan_deviation(references: Sequence[Reference], every: int) -> np.ndarray:
    """(B,) metres: how far a plan is from the one before it where both speak of the same time, nearer times weighing more; its mean.

    references: the plans, `every` steps apart. sum_i w_i |p_t(i) - p_{t-1}(i)| / sum_i w_i, w_i = exp(-i / 10), averaged over steps.
    """
    if len(references) < 2:
        return np.full(len(references[0].poses), np.nan)
    weight = torch.exp(-0.1 * torch.arange(F + 1 - every, dtype=torch.float64))
    total = torch.zeros(len(references[0].poses), dtype=torch.float64)
    for before, after in pairwise(references):
        off = (after.poses[:, : F + 1 - every, :2] - before.poses[:, every:, :2]).norm(dim=-1)
        total += (off * weight).sum(1) / weight.sum()
    return (total / (len(references) - 1)).numpy()


def deeds(scene: SceneBatch, row: int, said: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """Of the words said at some steps: how many were consistent with what was then driven in 6.4 s, and how many were judged."""
    agree = judged = 0
    for step, text in said:
        if step + F >= scene.ego.shape[1]:
            break
        pose = scene.ego[row, step - H + 1 : step + F + 1].double()
        xyz = torch.cat([pose[:, :2], torch.zeros(len(pose), 1, dtype=pose.dtype)], 1)
        rot = rot_z(pose[:, 2])
        local, turned = to_frame(xyz, rot, xyz[H - 1], rot[H - 1])
        found = verdict(text, local[H:].float(), Trajectory(local[:H].float(), turned[:H].float()))
        agree, judged = agree + (found == "consistent"), judged + (found != "unclear")
    return agree, judged


def judge(scene: SceneBatch, recorded: SceneBatch, first: int) -> list[dict[str, Any]]:
    """What came of each of B drives from step `first` on, as plain values; metres, seconds, shares. scene: as far as it was driven."""
    met, out, wrong = contacts(scene, first), off_road(scene, first), on_the_wrong_side(scene, first)
    red, sign = lines_run(scene, first)
    share, metres, whole = progress(scene, recorded, first)
    off = (scene.ego[:, first:, :2] - recorded.ego[:, first : scene.ego.shape[1], :2]).norm(dim=-1).amax(1)
    calm = comfortable(scene, first)
    rows = []
    for b, contact in enumerate(met):
        fault = contact is not None and contact.at_fault
        left = bool(out[b].any())
        when = [contact.step] if contact is not None else []
        when += [first + int(out[b].numpy().argmax())] if left else []
        rows.append(
            {
                "seed": int(scene.seeds[b]),
                "family": scene.family[b],
                "score": 0.0 if fault or left else min(1.0, max(0.0, min(1.0, float(share[b]))) / ENOUGH),
                "collision": None if contact is None else f"{contact.side} of the ego meets a {contact.kind}",
                "collision_at_fault": fault,
                "off_road": left,
                "incident_s": round(min(when) * DT, 1) if when else None,
                "wrong_side_s": round(float(wrong[b].sum()) * DT, 1),
                "red_light_run": bool(red[b]),
                "stop_sign_run": bool(sign[b]),
                "progress": round(float(share[b]), 4),
                "metres": round(float(metres[b]), 2),
                "expert_metres": round(float(whole[b]), 2),
                "from_expert_m": round(float(off[b]), 3),
                "comfortable": bool(calm[b]),
            }
        )
    return rows
