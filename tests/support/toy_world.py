"""A hand-written SceneBatch for tests of the renderer: one of every kind of thing along a gently curving street."""

from __future__ import annotations

import torch

from alpamayo_r1.world.scene import Kind, Light, Road, SceneBatch

NAN = float("nan")


def toy_road(batch: int = 1, curvature: float = 0.004) -> Road:
    """Straight for 60 m, then a left-hand curve; two own lanes, two oncoming, a crossing at s = 62 m."""
    one = torch.ones(batch)
    return Road(
        start=torch.tensor([[0.0, 0, 0], [60.0, 0, 0]]).expand(batch, 2, 3).clone(),
        s=torch.tensor([[0.0, 60.0]]).expand(batch, 2).clone(),
        curvature=torch.tensor([[0.0, curvature]]).expand(batch, 2).clone(),
        lane_width=3.6 * one, left_lanes=0 * one, right_lanes=1 * one, oncoming=2 * one,
        crossing=62 * one, crossing_half_width=5 * one, crosswalk=52 * one, stop_line=48.5 * one,
    )  # fmt: skip


ACTORS = (
    # kind, (length, width, height), colour, (s, d, yaw), speed, braking
    (Kind.CAR, (4.6, 1.85, 1.5), (0.15, 0.30, 0.62), (24, 0, 0), 8.0, True),
    (Kind.CAR, (4.4, 1.8, 1.45), (0.82, 0.82, 0.84), (15, -3.6, 0), 8.0, False),
    (Kind.CAR, (4.5, 1.8, 1.5), (0.62, 0.10, 0.10), (32, 3.6, 3.14159), -9.0, False),
    (Kind.VAN, (5.4, 2.0, 2.3), (0.88, 0.88, 0.86), (40, 7.2, 3.14159), -8.0, False),
    (Kind.TRUCK, (9.5, 2.5, 3.5), (0.2, 0.35, 0.55), (43, -3.6, 0), 8.0, False),
    (Kind.PEDESTRIAN, (0.5, 0.5, 1.75), (0.75, 0.35, 0.20), (17, 6.2, -1.57), 0.0, False),
    (Kind.PEDESTRIAN, (0.5, 0.5, 1.68), (0.20, 0.45, 0.35), (13, -7.2, 0.3), 1.2, False),
    (Kind.NONE, (0, 0, 0), (0, 0, 0), (0, 0, 0), 0.0, False),
)
PROPS = (
    (Kind.TRAFFIC_LIGHT, (0.4, 0.4, 5.2), (0.2, 0.2, 0.2), (54, -7.0, 3.14159)),
    (Kind.STOP_SIGN, (0.3, 0.8, 2.6), (0.8, 0.1, 0.1), (20, -7.3, 3.14159)),
    (Kind.CONE, (0.42, 0.42, 0.75), (1, 0.4, 0.1), (10, -1.7, 0)),
    (Kind.CONE, (0.42, 0.42, 0.75), (1, 0.4, 0.1), (13, -1.6, 0)),
    (Kind.LAMP, (0.3, 0.3, 7.0), (0.5, 0.5, 0.5), (30, -7.6, 1.57)),
    (Kind.BUSH, (1.6, 1.4, 1.1), (0.25, 0.42, 0.18), (26, -9.0, 0)),
    (Kind.TREE, (5.0, 5.0, 7.5), (0.24, 0.42, 0.17), (35, -11, 0)),
    (Kind.TREE, (4.4, 4.4, 6.5), (0.30, 0.45, 0.18), (20, 13.5, 1)),
    (Kind.TREE, (5.4, 5.4, 8.0), (0.22, 0.40, 0.18), (75, -12, 2)),
    (Kind.BUILDING, (18, 12, 10), (0.70, 0.58, 0.48), (38, 23, 0)),
    (Kind.BUILDING, (16, 12, 14), (0.66, 0.66, 0.68), (20, -22, 0)),
    (Kind.BUILDING, (20, 14, 9), (0.62, 0.42, 0.34), (88, -24, 0.1)),
)


def toy_scene(batch: int = 1, steps: int = 140, speed: float = 8.0, sky: float = 0.15, seed: int = 11) -> SceneBatch:
    """`batch` copies (different seeds) of the street; the ego drives along y = 0 at constant speed, at x = 0 in step 20."""
    time = (torch.arange(steps) - 20) * 0.1
    ego = torch.stack([speed * time, 0 * time, 0 * time], -1)

    def track(where, pace):
        x, y, yaw = where
        ahead = torch.tensor(yaw).cos() * abs(pace), torch.tensor(yaw).sin() * abs(pace)
        return torch.stack([x + ahead[0] * time, y + ahead[1] * time, torch.full_like(time, yaw)], -1)

    def many(t: torch.Tensor) -> torch.Tensor:
        return t[None].expand(batch, *t.shape).clone()

    return SceneBatch(
        seeds=seed + torch.arange(batch), family=("toy",) * batch, road=toy_road(batch),
        ego=many(ego), speed=many(torch.full((steps,), speed)), action=many(torch.zeros(steps - 1, 2)),
        kind=many(torch.tensor([a[0] for a in ACTORS])), size=many(torch.tensor([a[1] for a in ACTORS], dtype=torch.float32)),
        colour=many(torch.tensor([a[2] for a in ACTORS], dtype=torch.float32)),
        track=many(torch.stack([track(a[3], a[4]) for a in ACTORS])),
        braking=many(torch.tensor([a[5] for a in ACTORS])[:, None].expand(-1, steps)),
        prop_kind=many(torch.tensor([p[0] for p in PROPS])), prop_size=many(torch.tensor([p[1] for p in PROPS], dtype=torch.float32)),
        prop_colour=many(torch.tensor([p[2] for p in PROPS], dtype=torch.float32)),
        prop_pose=many(torch.tensor([p[3] for p in PROPS], dtype=torch.float32)),
        light=many(torch.full((steps,), int(Light.RED))),
        sun=torch.tensor([[2.1, 0.8]]).expand(batch, 2).clone(), sky=torch.full((batch,), sky),
        night=torch.zeros(batch), route=torch.zeros(batch, dtype=torch.int64),
        limit_from=torch.full((batch,), torch.inf), limit=torch.full((batch,), torch.inf),
    )  # fmt: skip
