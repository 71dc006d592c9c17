"""How often `alpamayo-r1 inspect` names a planted fault, and how often it alarms on a clean recording.

    python checks/recordings.py --recordings 20 --clean 200 --out recordings.json

Every recording is our world driven with another car's rig (three cameras, GPS noise, a lever arm, a clock offset), and then each of the
faults is planted in a copy. Scenes in which the car hardly moves or never turns are left out of those with faults (not of the clean ones):
nothing can be told from them. Prints a row per fault, the clean ones' alarms, and exits with 1 below 95 % or 98 %.
"""

from __future__ import annotations

import _head

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from scipy.spatial.transform import Rotation

from alpamayo_r1.inspect.check import inspect
from alpamayo_r1.inspect.findings import WRONG
from alpamayo_r1.world.clips import encode
from alpamayo_r1.world.recordings import OTHER_CAR, Car, write_recording
from alpamayo_r1.world.simulate import simulate

sys.path.append(str(Path(__file__).parent))  # where a spawned process finds _head
CAR = Car(rig={name: OTHER_CAR[name] for name in ("front", "left", "right")}, fps=10.0)
SIZE = {"width": 480, "height": 270}
SECONDS = 9.0
FAMILIES = ("curve", "nudge_left", "nudge_right", "curve", "parked_car")
QUATERNION = ["qx", "qy", "qz", "qw"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=20, help="recordings that get every fault")
    parser.add_argument("--clean", type=int, default=200, help="clean recordings, of all kinds of scenes")
    parser.add_argument("--seed", type=int, default=970_000)
    parser.add_argument("--only", default="", help="plant only faults whose name holds this")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    given = parser.parse_args()
    named: dict[str, int] = {name: 0 for name in FAULTS if given.only in name}
    misses, alarms, began = list[str](), list[str](), time.perf_counter()
    seeds = lively(given.recordings, given.seed)
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        work = [pool.submit(planted, seed, given.only) for seed in seeds]
        clean = [pool.submit(cleaned, given.seed + 10_000 + n) for n in range(given.clean)]
        for one in work:
            for name, found in one.result().items():
                named[name] += found == ""
                misses += [f"{name} in {found}"] if found else []
        alarms = [found for one in clean if (found := one.result())]
    for name, hits in named.items():
        print(f"{name:<34} {hits:3} of {len(seeds)}")
    print("\n".join([*misses, *(f"alarm: {alarm}" for alarm in alarms)]))
    share = sum(named.values()) / max(len(seeds) * len(named), 1)
    quiet = 1 - len(alarms) / max(given.clean, 1)
    print(f"named: {100 * share:.1f} % of {len(seeds) * len(named)}; no alarm: {100 * quiet:.1f} % of {given.clean}", end="; ")
    print(f"{time.perf_counter() - began:.0f} s")
    if given.out:
        figures = {"named": named, "recordings": len(seeds), "share": share, "misses": misses, "clean": given.clean, "alarms": alarms}
        given.out.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(share < 0.95 or quiet < 0.98)


def planted(seed: int, only: str) -> dict[str, str]:
    """Fault -> "" where it was named, else the seed and what was found instead."""
    results = {}
    with tempfile.TemporaryDirectory() as aside:
        folder = written(seed, Path(aside), FAMILIES[seed % len(FAMILIES)])
        for name, (expected, plant) in FAULTS.items():
            if only in name:
                copy = Path(aside) / "planted"
                shutil.copytree(folder, copy)
                plant(copy)
                found = [f for f in inspect(copy).findings if f.verdict == WRONG]
                hit = any(set(f.faults) & set(expected) for f in found)
                results[name] = "" if hit else f"{seed}: {[(f.item, f.faults) for f in found]}"
                shutil.rmtree(copy)
    return results


def cleaned(seed: int) -> str:
    """What a clean recording is blamed for; nothing, as it should be."""
    with tempfile.TemporaryDirectory() as aside:
        found = [f"{f.item} {f.faults}: {f.seen}" for f in inspect(written(seed, Path(aside), None)).findings if f.verdict == WRONG]
    return f"{seed}: {found}" if found else ""


def lively(count: int, seed: int) -> list[int]:
    """Seeds of scenes in which the car moves, turns and changes its speed."""
    found: list[int] = []
    while len(found) < count:
        seed += 1
        scene = simulate([seed], seconds=12, families=[FAMILIES[seed % len(FAMILIES)]])
        speed, yaw = scene.speed[0, 10:100].numpy(), scene.ego[0, 10:100, 2].numpy()
        if 3 < np.median(speed) < 9 and np.std(np.diff(yaw)) > 0.008:
            found.append(seed)
    return found


def written(seed: int, aside: Path, family: str | None) -> Path:
    """The recording of a scene."""
    torch.set_num_threads(1)
    scene = simulate([seed], seconds=12, families=[family] if family else None).to(_head.DEVICE)
    return write_recording(scene, aside / str(seed), car=CAR, start=1.0, seconds=SECONDS, after=1.0, crf=18, supersample=1, **SIZE)


# ------------------------------------------------------------------------------------------------------------------ what is planted


def poses(change: Callable[[pd.DataFrame], None], **sections: Any) -> Callable[[Path], None]:
    """A change of the pose table, and of sections of `poses` in recording.yaml; the wheels are not logged."""

    def plant(folder: Path) -> None:
        table = pd.read_csv(folder / "poses.csv")
        change(table)
        table.to_csv(folder / "poses.csv", index=False)
        said(folder, lambda all_: (all_["poses"].update(sections), all_["poses"].pop("speed", None)))

    return plant


def said(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A change of recording.yaml."""
    values = yaml.safe_load((folder / "recording.yaml").read_text())
    change(values)
    (folder / "recording.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def cameras(change: Callable[[dict[str, Any]], None], *names: str) -> Callable[[Path], None]:
    """A change of some cameras' sections (all, if none is named)."""

    def plant(folder: Path) -> None:
        said(folder, lambda all_: [change(camera) for name, camera in all_["cameras"].items() if name in names or not names])

    return plant


def pictures(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Path], None]:
    """A change of some cameras' pictures u8[N, h, w, 3]."""

    def plant(folder: Path) -> None:
        import av

        for name in names:
            with av.open(str(folder / f"{name}.mp4")) as video:
                frames = np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])
            (folder / f"{name}.mp4").write_bytes(encode(np.ascontiguousarray(change(frames)), 18))

    return plant


def yaws(table: pd.DataFrame) -> np.ndarray:
    return Rotation.from_quat(table[QUATERNION].to_numpy()).as_euler("ZYX")[:, 0]


def orient(table: pd.DataFrame, turn: Rotation) -> None:
    table[QUATERNION] = turn.as_quat()


def ned(table: pd.DataFrame) -> None:
    swap, flip = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, -1]]), np.diag([1.0, -1, -1])
    turn = Rotation.from_quat(table[QUATERNION].to_numpy()).as_matrix()
    table[["x", "y", "z"]] = table[["x", "y", "z"]].to_numpy() @ swap.T
    orient(table, Rotation.from_matrix(swap @ turn @ flip))


def swap_axes(table: pd.DataFrame) -> None:
    table[["x", "y"]] = table[["y", "x"]].to_numpy()


def scaled(table: pd.DataFrame, columns: list[str], factor: float) -> None:
    table[columns] = table[columns] * factor


def angle(kind: str, unit: str) -> dict[str, Any]:
    return {"orientation": {"kind": kind, "columns": ["angle"], "unit": unit}}


def mounted(camera: dict[str, Any], yaw: float, pitch: float) -> None:
    mounting = camera["mounting"]
    turn = Rotation.from_quat(mounting["quaternion"]) * Rotation.from_euler("yx", [yaw, -pitch], degrees=True)
    mounting["quaternion"] = [float(v) for v in turn.as_quat()]


def inverted(camera: dict[str, Any]) -> None:
    turn = Rotation.from_quat(camera["mounting"]["quaternion"]).inv()
    camera["mounting"] |= {"quaternion": [float(v) for v in turn.as_quat()]}


def swap_files(folder: Path) -> None:
    for left, right in (("left.mp4", "right.mp4"), ("left.csv", "right.csv")):
        (folder / left).rename(folder / "aside")
        (folder / right).rename(folder / left)
        (folder / "aside").rename(folder / right)


FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "positions: x and y swapped": (("positions-swapped",), poses(swap_axes)),
    "positions: left-handed": (("positions-left-handed",), poses(lambda t: scaled(t, ["y"], -1))),
    "poses: NED said to be ENU": (("poses-mirrored",), poses(ned)),
    "quaternion: w first": (
        ("quaternion-order",),
        poses(lambda t: None, orientation={"kind": "quaternion", "columns": ["qw", "qx", "qy", "qz"], "order": "xyzw"}),
    ),
    "quaternion: inverse": (
        ("rotation-inverse",),
        poses(lambda t: orient(t, Rotation.from_quat(t[QUATERNION].to_numpy()).inv())),
    ),
    "yaw: degrees said to be radians": (
        ("yaw-degrees", "recording-broken"),
        poses(lambda t: t.insert(0, "angle", np.degrees(yaws(t))), **angle("yaw", "rad")),
    ),
    "yaw: radians said to be degrees": (("yaw-radians",), poses(lambda t: t.insert(0, "angle", yaws(t)), **angle("yaw", "deg"))),
    "yaw: a heading from north": (
        ("heading-as-yaw",),
        poses(lambda t: t.insert(0, "angle", np.pi / 2 - yaws(t)), **angle("yaw", "rad")),
    ),
    "yaw: x backward": (
        ("yaw-reversed",),
        poses(lambda t: orient(t, Rotation.from_quat(t[QUATERNION].to_numpy()) * Rotation.from_euler("z", np.pi))),
    ),
    "rate: 20 Hz said to be 10": (("pose-speed",), poses(lambda t: scaled(t, ["time"], 2.0))),
    "unit: feet said to be metres": (("pose-speed",), poses(lambda t: scaled(t, ["x", "y", "z"], 3.28084))),
    "clock: cameras 0.2 s late": (("time-shift",), cameras(lambda c: c.update(clock_offset=c["clock_offset"] + 0.2))),
    "clock: cameras 0.15 s early": (("time-shift",), cameras(lambda c: c.update(clock_offset=c["clock_offset"] - 0.15))),
    "extrinsics: inverted": (("extrinsics-inverted",), cameras(inverted)),
    "pictures: mirrored": (("pictures-mirrored",), pictures(lambda p: p[:, :, ::-1], "front", "left", "right")),
    "pictures: upside down": (("pictures-upside-down",), pictures(lambda p: p[:, ::-1, ::-1], "front")),
    "pictures: left and right swapped": (("cameras-swapped",), swap_files),
    "pictures: frozen": (("pictures-frozen",), pictures(lambda p: p[np.minimum(np.arange(len(p)), 20)], "front")),
    "mounting: 6 degrees of pitch": (("camera-pitch",), cameras(lambda c: mounted(c, 0, 6), "front")),
    "mounting: 6 degrees of yaw": (("camera-yaw",), cameras(lambda c: mounted(c, 6, 0), "left")),
    "mounting: half the height": (
        ("camera-height",),
        cameras(lambda c: c["mounting"].update(position=[*c["mounting"]["position"][:2], c["mounting"]["position"][2] / 2]), "right"),
    ),
    "lens: focal of another size": (("camera-focal",), cameras(lambda c: c.update(focal=[1.5 * f for f in c["focal"]]), "front")),
}
"""What is planted -> the names that count as found, and how it is planted."""

if __name__ == "__main__":
    main()
