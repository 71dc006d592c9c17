"""How far bf16 is from the recordings of the original in fp32, beside the noise floor of the original's own arithmetic order in bf16.

    python checks/bf16.py [--device cpu|cuda]

For each recorded pipeline, reasoning forced to what was recorded:
    weights  the weights rounded to bf16, the arithmetic in fp32, against the recording: what the smaller file alone costs
    sdpa     all in bf16, attention in one fused call, against the recording
    eager    all in bf16, attention as scores, fp32 softmax, bf16 weights, product: the original's other order, against the recording
    floor    sdpa against eager: what the order of sums alone does to bf16
Keys, values, logits and the first Euler step's velocity as root mean square, xyz as the mean distance over 64 waypoints in metres. The
last line is JSON.
"""

from __future__ import annotations

from _head import DEVICE, ROOT

import argparse
import copy
import json
import math
import warnings
from contextlib import contextmanager

import torch
from safetensors.torch import load_file

from alpamayo_r1.core import transformer, vision
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.prompt import build_prompt
from alpamayo_r1.core.types import CAMERAS, Observation, Trajectory
from alpamayo_r1.core.vla import VLA
from alpamayo_r1.core.vocab import Vocabulary
from alpamayo_r1.planner import Planner

GOLDEN = ROOT / "tests" / "golden"
STAGES = ("keys", "values", "logits", "velocity", "xyz")
CASES = {name: case for name, case in json.loads((GOLDEN / "cases.json").read_text())["cases"].items() if name.startswith("pipeline_")}


def eager_attention(q, k, v, attn_mask=None, is_causal=False, enable_gqa=False):
    """softmax(q k / sqrt(d)) v with every step in the inputs' dtype but the softmax, which is in fp32."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]))
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


@contextmanager
def attention(order: str):
    """Runs the model with fused ("sdpa") or eager attention."""
    fused = torch.nn.functional.scaled_dot_product_attention
    if order == "eager":
        transformer.nnf.scaled_dot_product_attention = vision.nnf.scaled_dot_product_attention = eager_attention
    try:
        yield
    finally:
        transformer.nnf.scaled_dot_product_attention = vision.nnf.scaled_dot_product_attention = fused


def outputs(model: VLA, vocabulary: Vocabulary, case: str) -> dict[str, torch.Tensor]:
    """What a recording holds, computed by us."""
    recorded, facts = load_file(GOLDEN / "cases" / f"{case}.safetensors"), CASES[case]
    history = Trajectory(recorded["ego_history_xyz"][0, 0], recorded["ego_history_rot"][0, 0])
    observation = Observation(recorded["image_frames"].unflatten(0, (4, 4)), CAMERAS, history, 0)
    prompt = build_prompt(observation, vocabulary, model.config)
    with torch.inference_mode():
        logits, kv = model.prefill(prompt)
    velocities, velocity = [], model.velocity
    model.velocity = lambda *a: velocities.append(velocity(*a)) or velocities[-1]
    try:
        done = Planner(model, vocabulary).plan(
            observation,
            samples=facts["samples"],
            noise=recorded["noise"],
            reasoning=facts["reasoning"],
            top_k=facts["top_k"],
            max_tokens=facts["max_generation_length"],
            steps=facts["inference_step"],
        )
    finally:
        del model.velocity
    last = len(kv) - 1
    return {
        "keys": torch.cat([kv[0][0], kv[last][0]]),
        "values": torch.cat([kv[0][1], kv[last][1]]),
        "logits": logits[0],
        "velocity": velocities[0],
        "xyz": done.xyz,
    }


def recording(case: str) -> dict[str, torch.Tensor]:
    """The same of the original, fp32 on the CPU."""
    g = load_file(GOLDEN / "cases" / f"{case}.safetensors")
    return {
        "keys": torch.cat([g["kv_0_key"], g["kv_3_key"]]),
        "values": torch.cat([g["kv_0_value"], g["kv_3_value"]]),
        "logits": g["logits_per_step_first_row"][0],
        "velocity": g["velocity_first_step"],
        "xyz": g["pred_xyz"][0, 0],
    }


def distances(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, float]:
    """Root mean square difference by stage; metres for xyz."""
    differences = {stage: a[stage].float().cpu() - b[stage].float().cpu() for stage in STAGES}
    return {stage: (d.norm(dim=-1).mean() if stage == "xyz" else d.square().mean().sqrt()).item() for stage, d in differences.items()}


def report(device: str) -> dict[str, dict[str, dict[str, float]]]:
    """case -> weights | sdpa | eager | floor -> stage -> distance."""
    model, vocabulary = load_checkpoint(GOLDEN / "checkpoint", dtype=torch.bfloat16, device=device)
    rounded = copy.deepcopy(model).float()
    result = {}
    for case in CASES:
        ours = {"weights": outputs(rounded, vocabulary, case)}
        for order in ("sdpa", "eager"):
            with attention(order):
                ours[order] = outputs(model, vocabulary, case)
        truth = recording(case)
        result[case.removeprefix("pipeline_")] = {order: distances(ours[order], truth) for order in ours} | {
            "floor": distances(ours["sdpa"], ours["eager"])
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=DEVICE)
    device = parser.parse_args().device
    warnings.simplefilter("ignore")
    result = report(device)
    print(f"{'case':>18} {'':>8}" + "".join(f"{stage:>11}" for stage in STAGES))
    for case, rows in result.items():
        for order, values in rows.items():
            print(f"{case:>18} {order:>8}" + "".join(f"{values[stage]:>11.2e}" for stage in STAGES))
    print(json.dumps({"check": "bf16", "device": device, "result": result}))


if __name__ == "__main__":
    main()
