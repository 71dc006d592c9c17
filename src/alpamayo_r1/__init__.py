"""Alpamayo-R1 inference: four cameras and 1.6 s of the car's own past in, reasoning and 64 waypoints out.

import alpamayo_r1

planner = alpamayo_r1.load("small")
sample = alpamayo_r1.open_source("sample").clip(CLIP_ID).sample()
plan = planner.plan(sample.observation, samples=6, seed=42)

The rooms of the house, from the ground up, and what each may import; tests/test_rooms.py holds every line:

core         from an observation to a plan: records, prompt, model, specification, checkpoints   <- nothing
metrics      how good a plan is, and how sure that is                                            <- core
engine       the same plan, fast                                                                 <- core
rig          cameras of any car: lenses, the nominal rig, its views re-rendered from others      <- core
data         clips: of the data set, from a folder or the Hub, and your own recordings           <- core rig
world        the synthetic world: scenes, pictures, reasons, clips                               <- core rig
draw         pages and pictures                                                                  <- core metrics
inspect      the check of a recording: pictures against poses, a verdict per item, a page        <- core data draw
stream       plans along a drive: the same ones, sooner                                           <- core engine
planner      `load` and `Planner`: the one place that chooses the engine or the specification     <- core engine stream
testing      stand-ins for tests and benches: observations, models, vocabularies, checkpoints     <- core train
train        training and validating the small model on the world                                <- core metrics world
predict      a few clips: records, pages, films                                                  <- core metrics data draw planner
evaluate     many clips: durable rows, intervals, reports                                        <- core metrics data draw planner predict
serve        plans over HTTP, and the page to play with: queue, gate, addresses        <- core data draw drive evaluate planner stream world
client       `Client`: a planner that a service runs                                             <- core
drive        closed loop: a driver plans, a car follows, the world answers   <- core metrics draw planner predict train evaluate world
bench        how fast this machine plans                                                         <- core engine planner stream testing
models       the original's names, as clients import them                                        <- core planner
helper       the original's helper                                                               <- core models
load_physical_aiavdataset   the original's loader                                                <- core data
cli          the command line                                                                    <- everything
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alpamayo_r1 import metrics
    from alpamayo_r1.core.options import PlanOptions
    from alpamayo_r1.core.types import Observation, Plan, Sample, Trajectory
    from alpamayo_r1.data.source import open_source
    from alpamayo_r1.planner import Planner, load
    from alpamayo_r1.stream import Stream

if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Threads sleep where they would spin: a plan takes 0.7 s on two busy cores, not 6 to 30. OpenMP reads it when torch is imported.

__version__ = "0.1.0"
__all__ = ["Observation", "Plan", "PlanOptions", "Planner", "Sample", "Stream", "Trajectory", "load", "metrics", "open_source"]

_HOMES = {
    "load": "planner",
    "Planner": "planner",
    "open_source": "data.source",
    "Stream": "stream",
    "PlanOptions": "core.options",
    **dict.fromkeys(("Observation", "Plan", "Sample", "Trajectory"), "core.types"),
}


def __getattr__(name: str) -> Any:
    """Imports torch and the rest on first use, so that `import alpamayo_r1` and `alpamayo-r1 --help` answer at once."""
    if name == "metrics":
        return import_module("alpamayo_r1.metrics")
    if name in _HOMES:
        return getattr(import_module(f"alpamayo_r1.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'alpamayo_r1' has no attribute {name!r}")
