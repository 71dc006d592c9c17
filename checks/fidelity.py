"""What bf16 costs at full size: engine and specification in bf16 against the specification in fp32, same weights, words and noise.

    python checks/fidelity.py [--scenes 4] [--samples 4]

The prompt's keys of the first scene, and the actions of all scenes' samples after one Euler step (the velocity) and after ten. On a GPU the
specification's bits vary from run to run, so it runs twice: what lies between its two figures is equal. The 10B on a GPU (80 GB), else the
small size. The last line is JSON.
"""

from __future__ import annotations

from _head import DEVICE

import argparse
import json
import warnings

import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import build_meta, set_tensor
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.prompt import build_prompt
from alpamayo_r1.core.types import Observation
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.engine.engine import Engine
from alpamayo_r1.planner import Planner
from checks.kernels import error

SIZE, PICTURE = ("10b", (1080, 1920)) if DEVICE == "cuda" else ("small", (96, 160))
STEPS = (1, 10)

Scenes = list[tuple[Observation, torch.Tensor]]
"""Observations, each with the noise f32[S, F, 2] of its samples."""


def widen(model: VLA) -> VLA:
    """An fp32 copy of the model, parameter by parameter."""
    wide = build_meta(model.config)
    for name, tensor in model.state_dict().items():
        set_tensor(wide, name, tensor.float())
    return wide.eval()


def actions(planner: Planner, scenes: Scenes, steps: int) -> torch.Tensor:
    """Physical actions [scenes, S, F, 2] of a planner whose words are given."""
    how = PlanOptions(reasoning=testing.words(16), max_tokens=64, seed=0, steps=steps)
    return torch.stack([planner.plan(observation, how, samples=len(noise), noise=noise).actions for observation, noise in scenes])


def deviation(got: torch.Tensor, exact: torch.Tensor, model: VLA) -> dict[str, float | list[float]]:
    """Mean distance of actions [scenes, S, F, 2]: acceleration in m/s^2, curvature in 1/m, both in the flow's units, and these by scene."""
    far = (got - exact).abs()
    units = far / far.new_tensor(model.action_space.scale().std)
    means = far.mean(dim=(0, 1, 2)).tolist()
    return {"acceleration": means[0], "curvature": means[1], "both": units.mean().item(), "by_scene": units.mean(dim=(1, 2, 3)).tolist()}


@torch.inference_mode()
def compare(scenes: Scenes) -> dict:
    """Builds the model, runs all three, and compares."""
    model = testing.random_model(testing.size_config(SIZE), DEVICE, torch.bfloat16)
    engine = Engine(model, testing.StandIn(model.config))
    fast, spec = Planner(model, engine.vocabulary, engine), Planner(model, engine.vocabulary)
    planners = {"engine": fast, "engine again": fast, "specification": spec, "specification again": spec}
    runs = {(who, steps): actions(planner, scenes, steps) for who, planner in planners.items() for steps in STEPS}
    prompt = build_prompt(scenes[0][0], engine.vocabulary, model.config)
    fast.plan(scenes[0][0], reasoning=testing.words(3), max_tokens=64, seed=0)
    layers = (0, model.config.text.layers // 2, model.config.text.layers - 1)
    prefix = engine.arena.view(1, 1).prefix
    keys = {"engine": [prefix[i][0][:, :, : len(prompt)].clone() for i in layers]}
    cached = model.prefill(prompt)[1]
    keys["specification"] = [cached[i][0] for i in layers]
    wide = widen(model)
    exact = wide.prefill(prompt)[1]
    same = all(torch.equal(runs["engine", steps], runs["engine again", steps]) for steps in STEPS)
    found: dict = {"size": SIZE, "layers": layers, "run_to_run": same}
    found["keys"] = {who: [error(mine, exact[i][0]) for i, mine in zip(layers, keys[who], strict=True)] for who in keys}
    for steps in STEPS:
        truth = actions(Planner(wide, engine.vocabulary), scenes, steps)
        found[f"after {steps}"] = {who: deviation(runs[who, steps], truth, model) for who in planners if who != "engine again"}
    return found


def show(found: dict) -> None:
    """The table."""
    print("relative error of the prompt's keys: " + ", ".join(f"layer {i}" for i in found["layers"]))
    for who, errors in found["keys"].items():
        print(f"  {who:20s}" + "".join(f"{100 * e:8.2f} %" for e in errors))
    for steps in STEPS:
        print(f"mean distance of actions after {steps} Euler steps: acceleration m/s^2, curvature 1/m, both in the flow's units (by scene)")
        for who, d in found[f"after {steps}"].items():
            scenes = " ".join(f"{x:.4f}" for x in d["by_scene"])
            print(f"  {who:20s} {d['acceleration']:.5f} {d['curvature']:.6f} {d['both']:.5f} ({scenes})")
    print(f"two runs of the engine equal in every bit: {found['run_to_run']}")


def main() -> None:
    """Scenes of noise frames, random noise for the flow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    how = parser.parse_args()
    warnings.simplefilter("ignore")
    scenes = []
    for seed in range(how.scenes):
        noise = torch.randn(how.samples, 64, 2, generator=torch.Generator().manual_seed(seed))
        scenes.append((testing.random_observation(seed, *PICTURE), noise))
    found = compare(scenes)
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
