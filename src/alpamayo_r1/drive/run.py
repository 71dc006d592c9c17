"""Many drives: each scene's row is on the disk when it is done, and a run that was killed goes on where it was.

out/config.json        what the rows depend on
out/rows/000017.json   one drive: figures, words as they changed, the way it took; with the digest of config.json and its own checksum
out/films/SEED.mp4     where films were asked for
out/summary.json, out/report.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alpamayo_r1.core.files import only_writer, own_folder, remove_unfinished, write_text
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import DT, Plan, Sample
from alpamayo_r1.draw import page
from alpamayo_r1.drive.drivers import CONTROLS, MODELS, Driver, Intent
from alpamayo_r1.drive.score import deeds, judge, plan_deviation
from alpamayo_r1.drive.simulation import FIRST, Setting, Simulation
from alpamayo_r1.drive.tracking import Reference
from alpamayo_r1.evaluate.protocol import evaluation_digest, fingerprint
from alpamayo_r1.planner import Planner
from alpamayo_r1.predict.film import movie, pixels
from alpamayo_r1.predict.record import result
from alpamayo_r1.world.richer import ALL_FAMILIES

Record = Callable[[Sample, Plan], None]
"""What is told of a moment and its plan."""

VERSION = 1
"""Of the rows: raised where equal settings would give other figures."""


@dataclass(frozen=True)
class Config:
    """What is driven: which scenes, by whom, how.

    Raises:
        ValueError: an unknown driver or family, no seed, or a plan without a seed.
    """

    seeds: tuple[int, ...]
    driver: str = "model"
    checkpoint: str = "small"
    family: str | None = None
    setting: Setting = field(default_factory=Setting)
    plan: PlanOptions = field(default_factory=lambda: PlanOptions(seed=42))
    navigation: str | None = None  # what a model is told at each plan: "route", or a text

    def __post_init__(self):
        known = (*MODELS, *CONTROLS)
        if self.driver not in known:
            raise ValueError(f"driver is {self.driver!r}, expected one of {', '.join(known)}")
        if self.family is not None and self.family not in ALL_FAMILIES:
            raise ValueError(f"family is {self.family!r}, expected one of {', '.join(ALL_FAMILIES)}")
        if not self.seeds or self.plan.seed is None:
            raise ValueError("a drive needs at least one scene, and a plan that draws from a seed")

    def identity(self) -> dict[str, Any]:
        """What the rows depend on; the checkpoint by its content."""
        plan = {name: value for name, value in asdict(self.plan).items() if value is not None}
        known = {"driver": self.driver, "family": self.family, **asdict(self.setting), "version": VERSION}
        seeds = hashlib.sha256(json.dumps(self.seeds).encode()).hexdigest()[:16]
        model = {"plan": plan, "checkpoint": fingerprint(checkpoint_folder(self.checkpoint))} if self.driver in MODELS else {}
        if self.navigation is not None and self.driver in MODELS:
            model["navigation"] = self.navigation
        return {**known, **model, "scenes": len(self.seeds), "seeds": seeds}


def driver_of(config: Config, planner: Planner | None) -> Driver:
    """The driver that a config names; a new one for each simulation, since it may remember."""
    if config.driver in CONTROLS:
        return CONTROLS[config.driver]
    if planner is None:
        raise ValueError(f"the driver {config.driver!r} needs a planner")
    return MODELS[config.driver](planner, config.plan, config.navigation)


def drive(
    config: Config, planner: Planner | None, out: Path, *, batch: int = 1, films: bool = False, record: Record | None = None
) -> Iterator[dict[str, Any]]:
    """Drives every scene that has no row yet, `batch` at once, and yields each row when it is on the disk; the rows that were there first.

    record: called with each moment that a model plans, and its plan; of one scene.

    Raises:
        ValueError: the folder holds other drives, is written by another process, or has links in it; a recording of several scenes, of a
            driver without a model, or of a drive that the folder holds already.
    """
    if record is not None and (len(config.seeds) > 1 or config.driver in CONTROLS):
        what = f"{len(config.seeds)} scenes" if len(config.seeds) > 1 else f"the driver {config.driver}, which plans without a model"
        raise ValueError(f"a recording holds one scene that a model drives, but there are {what}: drive one scene by model or silent")
    identity = config.identity()
    with only_writer(out, "drive"):
        yield from _drive(config, identity, planner, out, batch, films, record)


def _drive(
    config: Config,
    identity: Mapping[str, Any],
    planner: Planner | None,
    out: Path,
    batch: int,
    films: bool,
    record: Record | None,
) -> Iterator[dict[str, Any]]:
    stored, rows, digest = out / "config.json", own_folder(out / "rows"), evaluation_digest(identity)
    if stored.exists():
        before = json.loads(stored.read_text(encoding="utf-8"))
        differs = [name for name in identity if before.get(name) != json.loads(json.dumps(identity[name]))]
        if differs:
            raise ValueError(
                f"{out} holds other drives ({', '.join(differs)} differ): give the options it was begun with, or another --out"
            )
    else:
        write_text(stored, json.dumps(dict(identity), indent=1) + "\n")
    remove_unfinished(rows)
    found = {index: row for index in range(len(config.seeds)) if (row := read_row(rows, index, digest)) is not None}
    if record is not None and found:
        raise ValueError(f"{out} holds this drive already, and it is not driven again: give another --out to record it")
    yield from found.values()
    missing = [index for index in range(len(config.seeds)) if index not in found]
    for first in range(0, len(missing), batch):
        some = missing[first : first + batch]
        seeds = [config.seeds[index] for index in some]
        folder = own_folder(out / "films") if films and config.driver in MODELS else None
        for index, row in zip(some, driven(config, planner, seeds, folder, record), strict=True):
            write_text(rows / f"{index:06d}.json", json.dumps(sealed(row, index, digest)) + "\n")
            yield row


def sealed(row: Mapping[str, Any], index: int, digest: str) -> dict[str, Any]:
    """A row with its place, what it belongs to and its checksum."""
    known = {**row, "index": index, "drives": digest}
    return known | {"checksum": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()}


def read_row(rows: Path, index: int, digest: str) -> dict[str, Any] | None:
    """The row of one scene, without its seals; None where there is none, or not the one that was written."""
    try:
        stored = json.loads((rows / f"{index:06d}.json").read_text(encoding="utf-8"))
        row = {name: value for name, value in stored.items() if name not in ("index", "drives", "checksum")}
    except (OSError, ValueError, AttributeError):
        return None
    return row if stored == sealed(row, index, digest) else None


def driven(
    config: Config, planner: Planner | None, seeds: Sequence[int], films: Path | None = None, record: Record | None = None
) -> list[dict[str, Any]]:
    """The rows of some scenes, driven at once. films: a folder for a film of each. record: as in `drive`, of the first scene."""
    setting = config.setting
    device = torch.device("cpu") if planner is None else planner.model.device
    families = None if config.family is None else [config.family] * len(seeds)
    simulation = Simulation(seeds, setting, families, device)
    choose, every, late = driver_of(config, planner), round(setting.replan / DT), round(setting.delay / DT)
    recorded = Reference(simulation.recorded.ego[:, FIRST:].double())
    intents: list[tuple[int, Intent]] = []
    with ExitStack() as shooting, ThreadPoolExecutor(1, "film") as artist:
        reels = [shooting.enter_context(movie(films / f"{seed}.mp4", setting.replan)) for seed in seeds] if films is not None else []
        drawn: list[Future[None]] = []
        for n in range(FIRST, FIRST + setting.steps):
            if (n - FIRST) % every == 0:
                intent = choose(simulation)
                for one in drawn:  # while the next plan was made
                    one.result()
                seen = [(add, simulation.sample(row, intent.observations[row]), intent.plans[row]) for row, add in enumerate(reels)]
                drawn = [artist.submit(shoot, *one) for one in seen]
                if record is not None:
                    record(simulation.sample(0, intent.observations[0]), intent.plans[0])
                intents.append((n, replace(intent, plans=(), observations=())))  # pictures of all steps would fill the memory
            ready = [(at, intent) for at, intent in intents if at + late <= n]
            at, reference = (ready[-1][0], ready[-1][1].reference) if ready else (FIRST, recorded)
            simulation.step(reference, (n - at) * DT)
        for one in drawn:
            one.result()
    return rows_of(simulation, intents, every)


def rows_of(simulation: Simulation, intents: Sequence[tuple[int, Intent]], every: int) -> list[dict[str, Any]]:
    """What came of each scene: `score.judge`'s figures, how steady plans were, the words, and the way."""
    scene = simulation.driven()
    rows = judge(scene, simulation.recorded, FIRST)
    steady = plan_deviation([intent.reference for _, intent in intents], every)
    for b, row in enumerate(rows):
        said = [(n, intent.words[b]) for n, intent in intents if intent.words]
        agree, judged = deeds(scene, b, said)
        row["plan_deviation_m"] = round(float(steady[b]), 4) if steady[b] == steady[b] else None
        row["words_consistent"], row["words_judged"] = agree, judged
        row["words"] = [[round(n * DT, 1), text] for i, (n, text) in enumerate(said) if i == 0 or said[i - 1][1] != text]
        told = [(n, intent.told[b]) for n, intent in intents if any(intent.told)]
        row["told"] = [[round(n * DT, 1), text] for i, (n, text) in enumerate(told) if i == 0 or told[i - 1][1] != text]
        row["path"] = [[round(v, 2) for v in pose] for pose in scene.ego[b, FIRST::2].tolist()]
        row["expert_path"] = [
            [round(v, 2) for v in pose[:2]] for pose in simulation.recorded.ego[b, FIRST : scene.ego.shape[1] : 2].tolist()
        ]
    return rows


def shoot(add: Callable[[np.ndarray], None], sample: Sample, plan: Plan) -> None:
    """Adds a picture to a film of a model's drive: four cameras with the planned corridor, the words, the view from above."""
    add(pixels(page(sample, plan, result(sample, plan, None))))
