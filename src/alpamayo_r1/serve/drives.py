"""A scene of the world in closed loop over the wire: each step is planned, driven and rendered, and may be argued with."""

from __future__ import annotations

from typing import Any

from alpamayo_r1.core.geometry import yaw_of
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.wire import plan_as_json
from alpamayo_r1.drive.simulation import Setting, Simulation
from alpamayo_r1.planner import Planner
from alpamayo_r1.serve.scenes import corridors, picture, scene_as_json
from alpamayo_r1.world.navigation import navigation
from alpamayo_r1.world.richer import ALL_FAMILIES

WIDTH, HEIGHT = 320, 180
"""Size of the rendered pictures in pixels."""


class Drive:
    """One scene that the model drives. seconds: how long at most.

    Raises:
        ValueError: a family that the world does not have, or a seed below 0.
    """

    def __init__(self, planner: Planner, options: PlanOptions, seed: int, family: str | None, seconds: float):
        if family is not None and family not in ALL_FAMILIES:
            raise ValueError(f"family is {family!r}, expected one of {', '.join(ALL_FAMILIES)}, or null: the seed's own")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}, expected 0 to {2**31 - 1}")
        setting = Setting(seconds=seconds, width=WIDTH, height=HEIGHT)
        self.simulation = Simulation([seed], setting, None if family is None else [family])
        self.navigates = planner.model.config.family.navigates
        self.stream, self.name = planner.stream(options), f"drive {family or 'any'} {seed}"
        self.left = setting.steps

    def step(self, reasoning: str | None) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Plans by the model's own words or (reasoning) by given ones, shows that moment, and drives on for 0.1 s along the first sample.

        Out: what `PlanReply` says with "scene", "speed" in m/s and "left", the steps that are left, and the cameras' pictures as JPEG.
        """
        (observation,) = self.simulation.observations()
        changes: dict[str, Any] = {} if reasoning is None else {"reasoning": reasoning}
        if self.navigates:
            changes["navigation"] = navigation(self.simulation.scene, self.simulation.now, 0)[0]
        plan = self.stream.step(observation, **changes)
        sample = self.simulation.sample(0, observation)
        shown = {
            "scene": scene_as_json(sample) | {"clip_id": self.name},
            "plans": [plan_as_json(plan)],
            "seed": self.stream.seed,
            "t0_us": observation.t0_us,
            "corridors": corridors(sample, plan.xyz),
            "speed": float(self.simulation.car.speed[0]),
            "left": self.left,
            "told": changes.get("navigation"),
        }
        pictures = {name: picture(observation, name, -1, "jpeg") for name in observation.cameras}
        if self.left > 0:
            reference = self.simulation.to_world(plan.xyz[:1], yaw_of(plan.rot[:1]))
            self.simulation.step(reference, 0.0)
            self.left -= 1
        return shown, pictures
