"""What a scene knows of its road and its traffic, for pictures: lines on the road, boxes of vehicles, people and cones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd
import torch

from alpamayo_r1.core.types import Marking, Obstacle, Surroundings
from alpamayo_r1.world.scene import Kind, Road, SceneBatch

BOXES = (Kind.CAR, Kind.VAN, Kind.TRUCK, Kind.PEDESTRIAN, Kind.CONE)
"""What is shown; trees and houses stand beside the road."""

BEHIND, AHEAD, SPACING = 40.0, 220.0, 2.0
"""Metres of the road's reference line, measured from the car at the start of the scene, and between two points of a line."""


def surroundings(scene: SceneBatch, row: int, step: int) -> Surroundings:
    """The surroundings of one scene at a step, in the ego frame of that step."""
    x, y, yaw = scene.ego[row, step].tolist()
    boxes = []
    for kind, (length, width, height), track in boxes_of(scene, row):
        centre_x, centre_y, turn = _local(track[step], (x, y, yaw)).tolist()
        boxes.append(Obstacle(kind, centre_x, centre_y, turn, length, width, height))
    lines = tuple(Marking(kind, _local(xy, (x, y, yaw))) for kind, xy in markings_of(scene, row))
    return Surroundings(lines, tuple(boxes))


def surroundings_table(scene: SceneBatch, row: int) -> pd.DataFrame:
    """The same for the whole scene, in the rig's frame at clip time 0: a row per line or box.

    kind; x, y lists f32: the points of a line to the centimetre, or the track of a box's centre at 10 Hz from clip time 0, then with yaw;
    length, width, height in m (NaN for a line).
    """
    start = tuple(scene.ego[row, 0].tolist())
    found = []
    for kind, xy in markings_of(scene, row):
        points = _local(xy, start).numpy().round(2)
        found.append((kind, math.nan, math.nan, math.nan, points[:, 0], points[:, 1], points[:0, 0]))
    for kind, size, track in boxes_of(scene, row):
        points = _local(track, start).numpy().round(3)
        found.append((kind, *size, points[:, 0], points[:, 1], points[:, 2]))
    return pd.DataFrame(found, columns=["kind", "length", "width", "height", "x", "y", "yaw"])


def boxes_of(scene: SceneBatch, row: int) -> Iterator[tuple[str, tuple[float, float, float], torch.Tensor]]:
    """Kind, (length, width, height) and track (T, 3) x, y, yaw in the world frame of each actor, and of each cone."""
    steps = scene.ego.shape[1]
    for kind, size, track in zip(scene.kind[row].tolist(), scene.size[row].tolist(), scene.track[row]):
        if kind in BOXES:
            yield Kind(kind).name.lower(), tuple(size), track
    for kind, size, pose in zip(scene.prop_kind[row].tolist(), scene.prop_size[row].tolist(), scene.prop_pose[row]):
        if kind in BOXES:
            yield Kind(kind).name.lower(), tuple(size), pose.expand(steps, 3)


def markings_of(scene: SceneBatch, row: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Kind and points (N, 2) in the world frame of each line of one scene's road: edges, lines between lanes, stop line, crosswalk.

    Along the road lines are left out where a road crosses.
    """
    road = scene[row : row + 1].road
    lane = float(road.lane_width)
    left, right, oncoming = (int(n) for n in (road.left_lanes, road.right_lanes, road.oncoming))
    middle, outer = (0.5 + left) * lane, (0.5 + left + oncoming) * lane
    begin = float(road.frenet(scene.ego[row : row + 1, :1, :2])[0, 0, 0])
    offsets = {-(0.5 + right) * lane: "edge", outer: "edge"} | {middle: "centre" if oncoming else "edge"}
    offsets |= {(0.5 + i) * lane: "lane" for i in range(-right, left)}
    offsets |= {middle + i * lane: "lane" for i in range(1, oncoming)}
    for low, high in _open(road, begin - BEHIND, begin + AHEAD):
        s = torch.linspace(low, high, max(2, round((high - low) / SPACING)))
        for d, kind in offsets.items():
            yield kind, _on_road(road, s, torch.full_like(s, d))
    for kind, at, to in (("stop", road.stop_line, middle), ("crosswalk", road.crosswalk, outer)):
        if bool(at.isfinite()):
            d = torch.tensor([-(0.5 + right) * lane, to])
            yield kind, _on_road(road, at.expand(2), d)


def _open(road: Road, low: float, high: float) -> list[tuple[float, float]]:
    """The stretches of s between low and high without the crossing road."""
    centre, half = float(road.crossing), float(road.crossing_half_width)
    if not low < centre < high:
        return [(low, high)]
    return [(a, b) for a, b in ((low, centre - half), (centre + half, high)) if b - a > SPACING]


def _on_road(road: Road, s: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    return road.point(s[None], d[None])[0, :, :2]


def _local(points: torch.Tensor, origin: tuple[float, float, float]) -> torch.Tensor:
    """World x, y (, yaw) [..., 2 or 3] in the frame of a pose x, y, yaw."""
    x, y, yaw = origin
    dx, dy = points[..., 0].double() - x, points[..., 1].double() - y
    c, s = math.cos(yaw), math.sin(yaw)
    local = [c * dx + s * dy, c * dy - s * dx, *(points[..., i].double() - yaw for i in range(2, points.shape[-1]))]
    return torch.stack(local, -1).float()
