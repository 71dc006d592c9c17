"""Every public function as strangers call it: good arguments, of which one or two are of another type or out of range.

`calls` is a kind of strangers.py. What is public: what `alpamayo_r1` exports, the original's names, and what docs/ and README show.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import alpamayo_r1
from alpamayo_r1 import helper, metrics
from alpamayo_r1.core.options import AskOptions, PlanOptions
from alpamayo_r1.core.types import Observation, Trajectory
from alpamayo_r1.data.source import open_source
from alpamayo_r1.draw import page
from alpamayo_r1.evaluate import EvalConfig, compare, evaluate, summarise
from alpamayo_r1.load_physical_aiavdataset import load_physical_aiavdataset
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from alpamayo_r1.predict.film import film
from alpamayo_r1.predict.run import run
from alpamayo_r1.testing import random_observation
from alpamayo_r1.world.clips import write_world

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**9, 2**70, float("nan"), float("inf"), "", "5", "é\ud800", "../x", "a\0b", "x" * 5000, [], [0], [[]], [None],
    {}, {"a": None}, b"x", object(), torch.zeros(0), torch.zeros(3), torch.full((2, 2), torch.nan),
    torch.zeros(3, dtype=torch.long), Path("x"), torch.float32, {1, 2}, lambda: None, (1, 2), 1j, [2**40], [-1], ["a", 5],
)  # fmt: skip
"""Values that hardly any argument takes."""

Call = tuple[Callable[..., Any], Mapping[str, Any]]
"""A function and arguments that it takes, all by name."""


def anywhere(function: Callable[..., Any], *first: str) -> Callable[..., Any]:
    """The function with its leading arguments, which have no names, by name."""
    return lambda **given: function(*(given.pop(name) for name in first), **given)


@cache
def table(checkpoint: Path, tree: Path, clip_id: str) -> dict[str, Call]:
    """Every public function, with good arguments."""
    planner = alpamayo_r1.load(checkpoint, device="cpu")
    model = AlpamayoR1.from_pretrained(checkpoint)
    seen = random_observation(0, 64, 96)
    source = open_source(tree)
    clip = source.clip(clip_id)
    sample = clip.sample(need_future=False)
    plan = planner.plan(seen, samples=2, seed=1, max_tokens=3, steps=1)
    processor = helper.get_processor(model.tokenizer)
    said = helper.create_message(seen.frames.flatten(0, 1))
    batch = processor.apply_chat_template(said)
    past = seen.history
    data = {"tokenized_data": dict(batch), "ego_history_xyz": past.xyz[None, None], "ego_history_rot": past.rot[None, None]}
    short = {"samples": 1, "seed": 1, "max_tokens": 2, "steps": 1}
    xyz, rot, truth = plan.xyz, plan.rot, plan.xyz[0]
    tokens = model.tokenizer
    return {
        "load": (alpamayo_r1.load, {"checkpoint": checkpoint, "device": "cpu", "dtype": None, "fast": None, "word_table": "auto",
                    "precision": None,
                                    "memory": None,
                                    "revision": None, "cache_dir": None, "token": None, "local_files_only": True}),
        "plan": (anywhere(planner.plan, "observation", "options"), {"observation": seen, "options": None, **short, "temperature": 0.6,
                 "top_p": 0.98, "top_k": None, "reasoning": None, "noise": None, "navigation": None, "guidance": None, "drafts": True}),
        "plans": (anywhere(planner.plans, "observations", "options"), {"observations": [seen], "options": None, **short}),
        "ask": (anywhere(planner.ask, "observation", "question", "options"), {"observation": seen, "question": "why?", "options": None,
                "samples": 1, "seed": 1, "max_tokens": 2, "answers": None}),
        "stream": (lambda options, first, **given: planner.stream(options, **given).step(first),
                   {"options": None, "first": seen, "draws": "kept", **short}),
        "stream later": (lambda newest, history, t0_us: after(planner, seen).step(newest, history, t0_us),
                         {"newest": {c: seen.frames[i, -1] for i, c in enumerate(seen.cameras)}, 
                          "history": past, "t0_us": seen.t0_us + 100_000}),
        "Observation": (lambda **given: planner.plan(Observation(**given), **short),
                        {"frames": seen.frames, "cameras": seen.cameras, "history": past, "t0_us": seen.t0_us}),
        "Trajectory": (lambda **given: planner.plan(replace(seen, history=Trajectory(**given)), **short),
                       {"xyz": past.xyz, "rot": past.rot, "dt": 0.1}),
        "PlanOptions": (PlanOptions, {"flow_temperature": 1.0, "noise": None, "reasoning": None, "navigation": None,
                        "guidance": None, **short}),
        "AskOptions": (AskOptions, {"samples": 1, "seed": None, "answers": None, "drafts": True}),
        "open_source": (open_source, {"spec": tree, "cache_dir": None, "token": None, "revision": None, "maybe_stream": False}),
        "clip": (source.clip, {"clip_id": clip_id}),
        "find": (source.find, {"prefix": clip_id[:6]}),
        "sample": (clip.sample, {"t0_us": 5_100_000, "cameras": seen.cameras, "frames": 4, "need_future": True}),
        "valid_t0": (clip.valid_t0, {"cameras": seen.cameras, "frames": 4, "need_future": True}),
        "load_physical_aiavdataset": (load_physical_aiavdataset, {"clip_id": clip_id, "t0_us": 5_100_000, "avdi": tree,
                                      "maybe_stream": False, "num_history_steps": 16, "num_future_steps": 64, "time_step": 0.1,
                    "camera_features": None,
                                      "num_frames": 4}),
        "from_pretrained": (lambda name, **given: AlpamayoR1.from_pretrained(name, **given), {"name": checkpoint, "dtype": None,
                            "device": "cpu", "revision": None, "cache_dir": None, "token": None, "local_files_only": True, "fast": None}),
        "save_pretrained": (model.save_pretrained, {"save_directory": "saved"}),
        "rollout": (model.sample_trajectories_from_data_with_vlm_rollout, {"data": data, "top_p": 0.98, "top_k": None, "temperature": 0.6,
                    "num_traj_samples": 1, "num_traj_sets": 1, "diffusion_kwargs": {"inference_step": 1}, "max_generation_length": 2,
                    "return_extra": True, "seed": 1, "noise": None, "reasoning": None}),
        "create_message": (helper.create_message, {"frames": seen.frames.flatten(0, 1)}),
        "get_processor": (helper.get_processor, {"tokenizer": tokens}),
        "apply_chat_template": (processor.apply_chat_template, {"conversation": said, "tokenize": True, "add_generation_prompt": False,
                                "continue_final_message": True, "return_dict": True, "return_tensors": "pt"}),
        "to_device": (helper.to_device, {"data": data, "device": "cpu", "dtype": None}),
        "tokenizer": (tokens, {"text": "a b", "padding": False, "return_tensors": None}),
        "encode": (tokens.encode, {"text": "a b", "add_special_tokens": False}),
        "decode": (tokens.decode, {"token_ids": [1, 2], "skip_special_tokens": False}),
        "batch_decode": (tokens.batch_decode, {"sequences": [[1, 2]], "skip_special_tokens": False}),
        "convert_tokens_to_ids": (tokens.convert_tokens_to_ids, {"tokens": ["a"]}),
        "convert_ids_to_tokens": (tokens.convert_ids_to_tokens, {"ids": [1]}),
        "page": (page, {"sample": sample, "plan": plan, "result": {}}),
        "run": (lambda **given: list(run(planner, source, **given)), {"clips": [], "out": Path("out"), "options": PlanOptions(**short),
                "t0_us": 5_100_000, "about": None}),
        "film": (lambda **given: next(iter(film(source, clip_id, planner, **given))), {"out": Path("x.mp4"),
                 "options": PlanOptions(**short),                 "start": 5.0, "end": 5.0, "step": 0.1}),
        "evaluate": (lambda out, **given: next(iter(evaluate(EvalConfig(**given), out))), {"out": Path("out"),
                     "checkpoint": str(checkpoint), "data": str(tree), "t0": "5.1", "clips": "1", "plan": PlanOptions(**short),
                    "device": "cpu", "threads": 1}),
        "summarise": (summarise, {"out": Path("nothing")}),
        "compare": (compare, {"first": Path("nothing"), "second": Path("nothing")}),
        "write_world": (write_world, {"seed": 0, "clips": 1, "out": Path("out"), "width": 8, "height": 8, "seconds": 0.3}),
        "min_ade": (metrics.min_ade, {"pred": xyz, "truth": truth}),
        "ade_by_horizon": (metrics.ade_by_horizon, {"pred": xyz, "truth": truth}),
        "miss": (metrics.miss, {"pred": xyz, "truth": truth, "threshold": 2.0}),
        "heading_error": (metrics.heading_error, {"pred_rot": rot, "truth_rot": rot[0]}),
        "comfort": (metrics.comfort, {"xyz": xyz, "rot": rot, "dt": 0.1}),
        "verdict": (metrics.verdict, {"text": "Stop", "xyz": truth, "history": past}),
        "spread": (metrics.spread, {"pred": xyz}),
    }  # fmt: skip


def after(planner: Any, seen: Observation) -> Any:
    """A stream that has planned once."""
    stream = planner.stream(samples=1, seed=1, max_tokens=2, steps=1)
    stream.step(seen)
    return stream


def mutated_call(draw: random.Random, known: Mapping[str, Call]) -> None:
    """Calls one of these functions with one or two odd arguments."""
    name = draw.choice(list(known))
    function, good = known[name]
    changed = {draw.choice(list(good)): draw.choice(ODD) for _ in range(draw.choice([1, 1, 2]))}
    if changed.get("avdi", "") is None:  # the data set on the Hub
        return
    function(**{**good, **changed})
