"""`alpamayo-r1 drive`: the model in closed loop. Heavy imports happen inside the verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alpamayo_r1.cli.make import MAX_SCENE_SEED
from alpamayo_r1.cli.options import Batch, Checkpoint, Device, Fast, OutFolder, Rerun, Seed, maybe_text, number, text, whole
from alpamayo_r1.cli.progress import Meter, metered


def drive(
    out: OutFolder,
    checkpoint: Checkpoint = "small",
    scenes: Annotated[int, whole(1, 50_000, "Scenes to drive.")] = 1,
    first_seed: Annotated[int, whole(0, MAX_SCENE_SEED, "Seed of the first scene; scenes take it and those that follow.")] = 860_000,
    family: Annotated[str | None, typer.Option(callback=maybe_text, help="Situation of all scenes (default: each seed's own).")] = None,
    seconds: Annotated[float, number(0.1, 60, "Seconds driven, from 1.7 s of the scene's clock on.")] = 10.0,
    replan: Annotated[float, number(0.1, 10, "Seconds between two plans, tenths.")] = 0.1,
    delay: Annotated[float, number(0, 10, "Seconds after which a plan can be followed, tenths.")] = 0.0,
    driver: Annotated[str, typer.Option(callback=text, help="model, silent (without its words), expert, lane, constant.")] = "model",
    navigation: Annotated[
        str | None, typer.Option(callback=maybe_text, help="route (as text at each plan; Alpamayo 1.5's default), none, or a text.")
    ] = None,
    tracking: Annotated[str, typer.Option(callback=text, help="mpc, or perfect: the car is where the plan says.")] = "mpc",
    others: Annotated[str, typer.Option(callback=text, help="react to the ego, or replay.")] = "react",
    width: Annotated[int, whole(16, 3840, "Picture width (even).")] = 224,
    height: Annotated[int, whole(16, 2160, "Picture height (even).")] = 126,
    seed: Seed = 42,
    batch: Batch = 1,
    film: Annotated[bool | None, typer.Option(help="A film of each drive (default: of up to 4 scenes).")] = None,
    rerun: Rerun = None,
    device: Device = "auto",
    fast: Fast = None,
) -> None:
    """Drive scenes of the world in closed loop: a score as AlpaSim's, films, and a report with failures first. Resumable."""
    from alpamayo_r1.core.files import writable_folder
    from alpamayo_r1.core.options import PlanOptions
    from alpamayo_r1.drive.drivers import CONTROLS
    from alpamayo_r1.drive.report import table, write_report
    from alpamayo_r1.drive.run import Config
    from alpamayo_r1.drive.run import drive as run_drives
    from alpamayo_r1.drive.simulation import Setting
    from alpamayo_r1.planner import load
    from alpamayo_r1.predict.rerun import check_rerun, recorded
    from alpamayo_r1.world.clips import check_size

    check_size(width, height)
    check_rerun(rerun)
    setting = Setting(seconds, replan, delay, tracking, others, width, height)
    seeds = tuple(range(first_seed, first_seed + scenes))
    told = told_to(checkpoint, driver, navigation)
    config = Config(seeds, driver, checkpoint, family, setting, PlanOptions(seed=seed), told)
    writable_folder(out)
    planner = None if driver in CONTROLS else load(checkpoint, device=device, fast=fast)
    films = driver not in CONTROLS and (scenes <= 4 if film is None else film)
    with metered(Meter("driving", scenes, "scenes")) as meter, recorded(rerun) as recorder:
        rows, total = [], 0.0
        for row in run_drives(config, planner, out, batch=batch, films=films, record=recorder and recorder.add):
            rows.append(row)
            total += row["score"]
            meter.advance(note=f"score {total / len(rows):.3f}")
    typer.echo(table(write_report(out, rows, config.identity())))
    typer.echo(f"open {Path(out / 'report.html').resolve()}")


def told_to(checkpoint: str, driver: str, navigation: str | None) -> str | None:
    """What a driver is told: "route", a text, or None: nothing.

    Raises:
        ValueError: navigation for a driver or a checkpoint that knows none.
    """
    from alpamayo_r1.core.config import read_config
    from alpamayo_r1.core.hub import checkpoint_folder
    from alpamayo_r1.drive.drivers import CONTROLS, ROUTE

    if navigation == "none":
        return None
    if driver in CONTROLS:
        if navigation is not None:
            raise ValueError(
                f"--navigation is {navigation!r}, but the driver {driver} plans without a model and can't be told: leave it out"
            )
        return None
    family = read_config(checkpoint_folder(checkpoint)).family
    if navigation is not None:
        family.needs_navigation("--navigation")
    return navigation or (ROUTE if family.navigates else None)
