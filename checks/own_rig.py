"""What another car's cameras and poses cost: the small model on the same scenes through the nominal rig, another rig, and each loss alone.

    python checks/own_rig.py --scenes 64 --out own_rig.json          # what is lost: each loss alone
    python checks/own_rig.py --scenes 64 --apart                     # which difference of the other rig costs how much

Scenes nobody trained on (seeds from 960,000), at t0 = 5.1 s: minADE over 6 samples, ADE of the first, the share of right decisions, and
the multiple of the nominal rig's. Pictures of the other rig are rendered through its own lenses, and re-rendered by rig.views.
"""

from __future__ import annotations

import _head

import argparse
import json
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation, Slerp

from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.geometry import Calibration, to_frame
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAMERAS, FRAMES, Observation, Trajectory
from alpamayo_r1.core.types import H as HISTORY
from alpamayo_r1.data.egomotion import rounded
from alpamayo_r1.data.recording.drive import GRAIN
from alpamayo_r1.data.recording.poses import read_track
from alpamayo_r1.data.recording.schema import Orientation, Poses, Smoothing
from alpamayo_r1.metrics.paths import ade, min_ade
from alpamayo_r1.planner import Planner, load
from alpamayo_r1.rig.nominal import RIG, facing, resized
from alpamayo_r1.rig.views import view_of
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.language import classify, labels
from alpamayo_r1.world.recordings import OTHER_CAR, Car, pose_table
from alpamayo_r1.world.render import render_at
from alpamayo_r1.world.samples import paths
from alpamayo_r1.world.scene import DT, SceneBatch
from alpamayo_r1.world.simulate import simulate

FIRST = 960_000
SEEN = (448, 252)
"""Width and height of the views, as the small model's test pictures have."""

TOGETHER = 16
"""Scenes planned at once."""

Rig = Mapping[str, Calibration]

SHOTS: dict[tuple[Calibration, int], torch.Tensor] = {}
"""Camera and step -> its pictures of all scenes."""


@dataclass(frozen=True)
class Variant:
    """What the car really has, what its recording says, and how its history is made from the scene."""

    name: str
    real: Rig
    said: Rig
    road: bool = True
    late: float = 0.0
    history: str = "true"


def other(scale: float = 0.5, **keep: bool) -> dict[str, Calibration]:
    """The other car's cameras with pictures of 1280 x 720 times scale; keep: only these, if any."""
    chosen = {name: camera for name, camera in OTHER_CAR.items() if not keep or keep.get(name)}
    return {n: resized(c, round(1280 * scale), round(720 * scale)) for n, c in chosen.items()}


def raised(rig: Rig, metres: float) -> dict[str, Calibration]:
    return {n: replace(c, position=(*c.position[:2], c.position[2] + metres)) for n, c in rig.items()}


def turned(rig: Rig, yaw: float, pitch: float) -> dict[str, Calibration]:
    """The rig with every camera turned by degrees to the left and down about the car's axes."""
    turn = torch.tensor(facing(yaw, pitch), dtype=torch.float64) @ torch.tensor(facing(0, 0), dtype=torch.float64).T

    def one(c: Calibration) -> Calibration:
        rows = (turn @ torch.tensor(c.rot, dtype=torch.float64)).tolist()
        return replace(c, rot=tuple((float(x), float(y), float(z)) for x, y, z in rows))

    return {n: one(c) for n, c in rig.items()}


def variants() -> list[Variant]:
    """Every loss alone, on the other car."""
    rig = other()
    narrow = rig | {n: Calibration(rig["front"].lens, rig[n].position, rig[n].rot) for n in ("left", "right")}
    few = {"no tele": ("front", "left", "right"), "no sides": ("front", "tele"), "front alone": ("front",)}
    return [
        Variant("the other car, clean poses", rig, rig),
        Variant("the same, all seen as far away", rig, rig, road=False),
        Variant("sides that see 110 degrees", narrow, narrow),
        Variant("the other car, its GPS, smoothed", rig, rig, history="smoothed"),
        Variant("its GPS, smoothed without wheels", rig, rig, history="no wheels"),
        Variant("its GPS, not smoothed", rig, rig, history="noisy"),
        Variant("cameras 0.5 m higher", raised(rig, 0.5), raised(rig, 0.5)),
        Variant("cameras 1 m higher, seen as far away", raised(rig, 1.0), raised(rig, 1.0), road=False),
        Variant("cameras 1 m higher", raised(rig, 1.0), raised(rig, 1.0)),
        *(Variant(f"yaw off by {d} degrees", rig, turned(rig, -d, 0)) for d in (2, 5)),
        *(Variant(f"pitch off by {d} degrees", rig, turned(rig, 0, -d)) for d in (1, 3)),
        *(Variant(name, other(**dict.fromkeys(kept, True)), other(**dict.fromkeys(kept, True))) for name, kept in few.items()),
        *(Variant(f"pictures of {round(1280 * s)} x {round(720 * s)}", other(s), other(s)) for s in (0.25, 0.125)),
        *(Variant(f"frames {late:g} s old", rig, rig, late=late) for late in (0.1, 0.3)),
        Variant("20 Hz poses taken for 10 Hz", rig, rig, history="half"),
    ]


def apart() -> list[Variant]:
    """The other rig's differences one at a time, re-rendered by rig.views in all but the fourth."""
    rig, near = other(), {n: resized(c, 640, 360) for n, c in RIG.items()}
    names = dict(zip(CAMERAS, ("left", "front", "right", "tele")))
    homed = {own: replace(rig[own], position=RIG[n].position) for n, own in names.items()}
    placed = {n: replace(near[n], position=rig[own].position) for n, own in names.items()}
    higher = raised(near, 0.15)
    back = {n: replace(c, position=(c.position[0] - 0.15, *c.position[1:])) for n, c in near.items()}
    return [
        Variant("nominal cameras, re-rendered", near, near),
        Variant("its lenses at nominal places", homed, homed),
        Variant("nominal lenses at its places", placed, placed),
        Variant("the same, taken for nominal ones", placed, near),
        Variant("nominal cameras 0.15 m higher", higher, higher),
        Variant("nominal cameras 0.15 m back", back, back),
        Variant("the other car, clean poses", rig, rig),
    ]


def pictures(scene: SceneBatch, variant: Variant | None) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Frames u8 [B, C, 4, 3, h, w] of all scenes and the names of their cameras."""
    if variant is None:
        steps = T0_STEP + torch.arange(1 - FRAMES, 1).float().expand(len(scene.seeds), -1)
        return render_at(scene, steps, width=SEEN[0], height=SEEN[1]).cpu(), CAMERAS
    steps = [T0_STEP - round(variant.late / DT) - age for age in reversed(range(FRAMES))]
    shots = {n: torch.stack([shot(scene, n, camera, step) for step in steps], 1) for n, camera in variant.real.items()}
    found = {name: view_of(resized(RIG[name], *SEEN), variant.said, variant.road).to(_head.DEVICE) for name in CAMERAS}
    kept = {name: view for name, view in found.items() if view.coverage >= 0.5}
    views = []
    for row in range(len(scene.seeds)):
        here = {name: frames[row] for name, frames in shots.items()}
        views.append(torch.stack([view.render(here).cpu() for view in kept.values()]))
    return torch.stack(views), tuple(kept)


def shot(scene: SceneBatch, name: str, camera: Calibration, step: int) -> torch.Tensor:
    """A real camera's pictures u8 [B, 3, h, w] at a step, made once for all variants that have it."""
    if (camera, step) not in SHOTS:
        steps, lens = torch.full((len(scene.seeds), 1), float(step)), camera.lens
        made = render_at(scene, steps, cameras=[name], rig={name: camera}, width=lens.width, height=lens.height)
        SHOTS[camera, step] = made[:, 0, 0].cpu()
    return SHOTS[camera, step]


def history(scene: SceneBatch, row: int, how: str) -> Trajectory:
    """The history that a recording would give."""
    if how in ("true", "half"):
        step = torch.tensor([T0_STEP])
        at = paths(scene[row : row + 1].to("cpu"), step)
        if how == "true":
            return Trajectory(at.history_xyz[0], at.history_rot[0])
        pose = scene.ego[row].double().cpu()
        fine = torch.from_numpy(
            np.stack([np.interp(T0_STEP - 7.5 + 0.5 * np.arange(16), np.arange(len(pose)), pose[:, i]) for i in range(3)], -1)
        )
        c, s = math.cos(fine[-1, 2]), math.sin(fine[-1, 2])
        local = (fine[:, :2] - fine[-1, :2]) @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        yaw = (fine[:, 2] - fine[-1, 2]).float()
        zero, one = torch.zeros(16), torch.ones(16)
        rot = torch.stack([yaw.cos(), -yaw.sin(), zero, yaw.sin(), yaw.cos(), zero, zero, zero, one], -1).unflatten(-1, (3, 3))
        return Trajectory(torch.cat([local.float(), zero[:, None]], -1), rot)
    car = Car()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "poses.csv"
        pose_table(scene[row : row + 1].to("cpu"), 0.0, 12.0, car).to_csv(file, index=False)
        track = read_track(
            Poses(
                file, "time", "s", ("x", "y", "z"), "ENU", Orientation("quaternion", ("qx", "qy", "qz", "qw")), car.lever_arm, 0.0,
                Smoothing() if how in ("smoothed", "no wheels") else None, None if how == "no wheels" else "speed", 1.0,
            )
        )  # fmt: skip
    logged, moments = track.times_us / 1e6, DT * (T0_STEP + np.arange(1 - HISTORY, 1))
    xyz = torch.from_numpy(CubicSpline(logged, track.xyz)(moments))
    rot = torch.from_numpy(Slerp(logged, Rotation.from_quat(track.quaternion))(moments).as_matrix())
    xyz, rot = to_frame(xyz, rot, xyz[-1], rot[-1])
    path = rounded(Trajectory(xyz.float(), rot.float()), GRAIN)
    check_history(path, HISTORY)
    return path


def score(planner: Planner, scene: SceneBatch, variant: Variant | None, options: PlanOptions) -> dict[str, Any]:
    """Means over the scenes whose history the gate lets pass, how many it refused; scenes: seed -> family, minADE, right decisions."""
    future = paths(scene.to("cpu"), torch.full((len(scene.seeds),), T0_STEP)).future_xyz
    meant = labels(scene.to("cpu"), T0_STEP)
    frames, cameras = pictures(scene, variant)
    seen: dict[int, Observation] = {}
    for row in range(len(scene.seeds)):
        try:
            path = history(scene, row, variant.history if variant else "true")
        except ValueError as refused:
            print(f"scene {row}: {str(refused).splitlines()[0]}", flush=True)
            continue
        seen[row] = Observation(frames[row], cameras, path, T0_STEP * 100_000)
    best, first, right = [], [], []
    few = list(seen)
    for part in (few[i : i + TOGETHER] for i in range(0, len(few), TOGETHER)):
        for row, plan in zip(part, planner.plans([seen[row] for row in part], options)):
            best.append(float(min_ade(plan.xyz[None], future[row][None]).value[0]))
            first.append(float(ade(plan.xyz[None], future[row][None]).value[0, 0]))
            meanings = [classify(text) for text in plan.reasoning]
            right.append(sum(m is not None and m[0] == meant[row].decision for m in meanings) / len(meanings))
    refused = len(scene.seeds) - len(seen)
    means = {"min_ade": float(np.mean(best)), "ade": float(np.mean(first)), "decisions": float(np.mean(right)), "refused": refused}
    each = {int(scene.seeds[row]): [scene.family[row], round(b, 3), round(r, 3)] for row, b, r in zip(few, best, right)}
    return means | {"scenes": each}


def figure(rows: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Bars: minADE of every loss as a multiple of the nominal rig's, on a logarithmic scale from 1."""
    from alpamayo_r1.draw import style

    names, base = [name for name in rows if name != "nominal rig"], rows["nominal rig"]["min_ade"]
    ratios = [rows[name]["min_ade"] / base for name in names]
    high = 0.27 * len(names)
    sheet = style.sheet(9, high + 0.75)
    axes = style.box(sheet, 2.7, 0.1, 6.0, high)
    axes.barh(range(len(names)), [ratio - 1 for ratio in ratios], left=1, color=[style.ROAD if r > 1.25 else style.LIGHT for r in ratios])
    for at, ratio in enumerate(ratios):
        axes.text(max(ratio, 1) * 1.04, at, f"{ratio:.2f}", va="center", fontsize=8)
    axes.axvline(1.25, color=style.TRUTH, linewidth=0.8, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(0.8, 1.4 * max(ratios))
    axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"], fontsize=8)
    axes.minorticks_off()
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(f"minADE of six as a multiple of the nominal rig's {base:.2f} m (dashed: 1.25)", fontsize=8)
    file.write_bytes(style.png(sheet))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--only", help="only variants whose name holds this")
    parser.add_argument("--apart", action="store_true", help="the differences of the other rig one at a time")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    parser.add_argument("--figure", type=Path, help="PNG file of bars")
    given = parser.parse_args()
    import warnings

    warnings.simplefilter("ignore")
    planner = load("small", device=_head.DEVICE)
    options = PlanOptions(samples=6, seed=42, max_tokens=32)
    scene = simulate(range(FIRST, FIRST + given.scenes), seconds=12.0).to(_head.DEVICE)
    began = time.perf_counter()
    rows: dict[str, dict[str, Any]] = {}
    print(f"{'':<36}{'minADE m':>9}{'x':>6}{'ADE m':>8}{'x':>6}{'decisions':>11}{'refused':>9}", flush=True)
    for variant in [None, *(v for v in (apart() if given.apart else variants()) if not given.only or given.only in v.name)]:
        name = "nominal rig" if variant is None else variant.name
        row = rows[name] = score(planner, scene, variant, options)
        base = rows["nominal rig"]
        print(
            f"{name:<36}{row['min_ade']:>9.3f}{row['min_ade'] / base['min_ade']:>6.2f}{row['ade']:>8.3f}{row['ade'] / base['ade']:>6.2f}"
            f"{100 * row['decisions']:>10.1f}%{row['refused']:>9}   {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    print(f"{given.scenes} scenes on {_head.DEVICE}, {time.perf_counter() - began:.0f} s")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n")
    if given.figure:
        figure(rows, given.figure)


if __name__ == "__main__":
    main()
