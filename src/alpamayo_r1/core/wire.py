"""Records on their way between machines: observations as safetensors with a request beside them, plans and answers as plain JSON values.

A float32 written as JSON and read again is the same float32, so that a plan that was sent is the plan that was made, to the bit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import Answers, Observation, Plan, Trajectory

MEDIA_TYPE = "application/x-safetensors"
"""What an observation on its way is called."""

TENSORS = ("frames", "history_xyz", "history_rot")
"""An observation's tensors: frames u8[C, K, 3, h, w] RGB, history_xyz [16, 3] in m, history_rot [16, 3, 3], in the ego frame at t0."""


def pack(observation: Observation, request: Mapping[str, Any], noise: torch.Tensor | None = None) -> bytes:
    """An observation and a request as one safetensors file.

    Its metadata hold "observation", JSON of {"cameras": names in the order of frames, "t0_us": microseconds, "dt": seconds between two
    steps of the history}, and "request", JSON. noise: as in PlanOptions.
    """
    history = observation.history
    tensors = {"frames": observation.frames, "history_xyz": history.xyz, "history_rot": history.rot}
    if noise is not None:
        tensors["noise"] = noise
    about = {"cameras": observation.cameras, "t0_us": observation.t0_us, "dt": history.dt}
    metadata = {"observation": json.dumps(about), "request": json.dumps(dict(request))}
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def unpack(content: bytes) -> tuple[Observation, dict[str, Any], torch.Tensor | None]:
    """The observation, the request and the noise of `pack`. What the tensors hold is the planner's to check.

    Raises:
        ValueError: no safetensors file, or one without the tensors and metadata of an observation.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the body is no safetensors file ({error}): send {', '.join(TENSORS)} as one, see /docs") from None
    missing = [name for name in TENSORS if name not in tensors]
    other = sorted(set(tensors) - {*TENSORS, "noise"})
    if missing or other:
        wrong = f"{', '.join(missing)} is missing" if missing else f"it holds {', '.join(other)}"
        raise ValueError(f"the safetensors file holds {', '.join(TENSORS)} and perhaps noise, but {wrong}")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    about, request = (_object(header.get(name), name) for name in ("observation", "request"))
    if unknown := sorted(set(about) - {"cameras", "t0_us", "dt"}):
        raise ValueError(f"the metadata's observation names {', '.join(unknown)}, expected cameras, t0_us and dt")
    cameras, t0_us, dt = about.get("cameras"), about.get("t0_us"), about.get("dt", 0.1)
    if not isinstance(cameras, list) or not all(isinstance(name, str) for name in cameras):
        raise ValueError(f"the metadata's cameras are {cameras!r}, expected a list of names, one for each of frames")
    if not isinstance(t0_us, int) or isinstance(t0_us, bool):
        raise ValueError(f"the metadata's t0_us is {t0_us!r}, expected an integer of microseconds")
    history = Trajectory(tensors["history_xyz"], tensors["history_rot"], dt)
    return Observation(tensors["frames"], tuple(cameras), history, t0_us), request, tensors.get("noise")


def _object(text: str | None, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"the safetensors file's metadata have no {name}, expected it as JSON, an object: see /docs")
    return value


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """A plan as plain values: xyz [S][64][3] m, rot [S][64][3][3], actions [S][64][2] m/s^2 and 1/m; None for what is no number."""
    return {
        **{name: numbers(getattr(plan, name)) for name in ("xyz", "rot", "actions")},
        "reasoning": list(plan.reasoning),
        "ended": list(plan.ended),
        "tokens": [list(ids) for ids in plan.tokens],
        "timing_ms": dict(plan.timing),
        "notes": [asdict(note) for note in plan.notes],
        "passes": plan.passes,
    }


def plan_of_json(value: Mapping[str, Any]) -> Plan:
    """The plan of `plan_as_json`, to the bit."""
    return Plan(
        **{name: tensor_of(value[name]) for name in ("xyz", "rot", "actions")},
        reasoning=tuple(value["reasoning"]),
        ended=tuple(value["ended"]),
        timing=dict(value["timing_ms"]),
        tokens=tuple(map(tuple, value["tokens"])),
        notes=notes_of(value["notes"]),
        passes=value["passes"],
    )


def answers_as_json(answers: Answers) -> dict[str, Any]:
    """Answers as plain values."""
    return {
        "question": answers.question,
        "answers": list(answers.answers),
        "ended": list(answers.ended),
        "tokens": [list(ids) for ids in answers.tokens],
        "timing_ms": dict(answers.timing),
        "notes": [asdict(note) for note in answers.notes],
    }


def answers_of_json(value: Mapping[str, Any]) -> Answers:
    """The answers of `answers_as_json`."""
    return Answers(
        value["question"],
        tuple(value["answers"]),
        tuple(value["ended"]),
        tuple(map(tuple, value["tokens"])),
        dict(value["timing_ms"]),
        notes_of(value["notes"]),
    )


def notes_of(found: Sequence[Mapping[str, str]]) -> tuple[Note, ...]:
    """Notes of their plain values."""
    return tuple(Note(one["code"], one["text"]) for one in found)


def numbers(tensor: torch.Tensor) -> Any:
    """A tensor as nested lists whose numbers are exact; None for NaN and infinity, which JSON does not know."""
    tensor = tensor.detach().cpu()
    nested = tensor.tolist()
    return nested if bool(tensor.isfinite().all()) else _without_nan(nested)


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return value if math.isfinite(value) else None


def tensor_of(nested: Any) -> torch.Tensor:
    """Nested lists -> f32; NaN for None."""
    return torch.tensor(_with_nan(nested), dtype=torch.float32)


def _with_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_nan(one) for one in value]
    return math.nan if value is None else value
