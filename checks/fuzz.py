"""Strangers' input, seeded: mutated histories, pictures, configs, tokenizer files, indices, batches, options and messages.

    python checks/fuzz.py --cases 10000 --seed 1

Every case must work, be noted, or end in a typed error: a class of ours, ValueError / TypeError / KeyError raised by this package, or an
OSError that names its file. Reports untyped errors and cases over 20 s of CPU; exits with 1 if there are any. A kind is one function of a
random generator and a scratch folder, listed in KINDS.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import alpamayo_r1
from alpamayo_r1 import helper
from alpamayo_r1.core.checkpoint import INDEX, inspect
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from alpamayo_r1.models.base import read_scenes
from alpamayo_r1.testing import random_observation, tiny_checkpoint

ROOT = str(Path(alpamayo_r1.__file__).parent)
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**9, 2**70, float("nan"), float("inf"),
    "", "5", "é\ud800", "../x", "/x", [], [0], [[]], {}, {"a": None}, b"x",
)  # fmt: skip
SECONDS = 20.0


@cache
def checkpoint() -> Path:
    return tiny_checkpoint(Path(tempfile.mkdtemp()))


@cache
def model() -> AlpamayoR1:
    return AlpamayoR1.from_pretrained(checkpoint())


@cache
def scene() -> alpamayo_r1.Observation:
    return random_observation(0, 64, 96)


def odd_tensor(draw: random.Random, value: torch.Tensor) -> Any:
    """A tensor with other numbers, another shape or another type."""
    return draw.choice([
        lambda: value * draw.choice([0, -1, 1e3, 1e30, float("nan")]), lambda: value[: draw.randrange(3)], lambda: value.long(),
        lambda: value.flatten(), lambda: value.double(), lambda: value.flip(0), lambda: value.mT, lambda: value[..., :1],
        lambda: value + draw.choice([1, 100, 1e9]), lambda: value.tolist(), lambda: draw.choice(ODD),
    ])()  # fmt: skip


def history(draw: random.Random, folder: Path) -> None:
    past = scene().history
    name = draw.choice(["xyz", "rot", "dt"])
    given = draw.choice(ODD) if name == "dt" else odd_tensor(draw, getattr(past, name))
    check_observation(replace(scene(), history=replace(past, **{name: given})), model().model.config)


def pictures(draw: random.Random, folder: Path) -> None:
    if draw.random() < 0.3:
        changed = replace(scene(), cameras=draw.choice([*ODD, scene().cameras[::-1], scene().cameras[:2]]))
    else:
        changed = replace(scene(), frames=odd_tensor(draw, scene().frames))
    check_observation(changed, model().model.config)


def mutated(draw: random.Random, value: Any) -> Any:
    """A JSON value with one part of it replaced, removed or doubled."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: mutated(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.6:
        i = draw.randrange(len(value))
        return [*value[:i], mutated(draw, value[i]), *value[i + draw.randrange(2) :]]
    return draw.choice([v for v in ODD if not isinstance(v, bytes)])


def spoil(draw: random.Random, file: Path) -> None:
    """Mutates a file: its JSON, its bytes or its length."""
    data = file.read_bytes()
    if file.suffix == ".json" and draw.random() < 0.7:
        data = json.dumps(mutated(draw, json.loads(data))).encode()
    elif draw.random() < 0.5:
        data = data[: draw.randrange(len(data))]
    else:
        place = draw.randrange(len(data))
        data = data[:place] + draw.randbytes(draw.randrange(1, 9)) + data[place + draw.randrange(9) :]
    file.unlink()
    file.write_bytes(data)


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint(), folder / "checkpoint"))


def config(draw: random.Random, folder: Path) -> None:
    made = copied(folder)
    spoil(draw, draw.choice(sorted(made.rglob("config.json"))))
    read_config(made)


def tokenizer(draw: random.Random, folder: Path) -> None:
    made = copied(folder)
    found = read_config(made)
    files = [made / found.vlm / name for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json")]
    spoil(draw, draw.choice([file for file in files if file.is_file()]))
    load_vocabulary(made / found.vlm, found.tokens, found.family)


def shards(draw: random.Random, folder: Path) -> None:
    made = copied(folder)
    spoil(draw, draw.choice([file for file in (made / INDEX, *sorted(made.glob("*.safetensors"))) if file.is_file()]))
    inspect(made)


@cache
def batch() -> dict[str, Any]:
    tokenized = helper.get_processor(model().tokenizer).apply_chat_template(helper.create_message(scene().frames.flatten(0, 1)))
    past = scene().history
    return {"tokenized_data": dict(tokenized), "ego_history_xyz": past.xyz[None, None], "ego_history_rot": past.rot[None, None]}


def facade(draw: random.Random, folder: Path) -> None:
    data = batch() | {"tokenized_data": dict(batch()["tokenized_data"])}
    place = draw.choice([data, data["tokenized_data"]])
    key = draw.choice(list(place))
    place[key] = odd_tensor(draw, place[key]) if isinstance(place[key], torch.Tensor) else draw.choice(ODD)
    read_scenes(data, model().model, model().vocabulary)


def options(draw: random.Random, folder: Path) -> None:
    PlanOptions(**{draw.choice(["samples", "seed", "temperature", "top_p", "top_k", "max_tokens", "steps", "reasoning"]): draw.choice(ODD)})


def messages(draw: random.Random, folder: Path) -> None:
    said = [
        {"role": "system", "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": "go"}, {"type": "image", "image": 1}]},
    ]
    helper.get_processor(model().tokenizer).apply_chat_template(mutated(draw, said))


KINDS: tuple[Callable[[random.Random, Path], None], ...] = (history, pictures, config, tokenizer, shards, facade, options, messages)


def is_typed(error: BaseException) -> bool:
    """Whether an error is one of ours: its class, or where it was raised."""
    if type(error).__module__.startswith("alpamayo_r1"):
        return True
    if isinstance(error, OSError):
        return error.filename is not None
    raised = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, ValueError | TypeError | KeyError) and raised.filename.startswith(ROOT) and "raise" in (raised.line or "raise")


def run(cases: int, seed: int) -> list[str]:
    """What went wrong in so many cases: kind, seed of the case, and the error."""
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(cases):
            kind, begun = KINDS[i % len(KINDS)], time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    kind(random.Random(f"{seed} {i}"), Path(folder))
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as error:
                    if not is_typed(error):
                        last = traceback.extract_tb(error.__traceback__)[-1]
                        wrong.append(
                            f"{kind.__name__} {i}: {type(error).__name__}: {str(error)[:100]} ({Path(last.filename).name}:{last.lineno})"
                        )
            if time.process_time() - begun > SECONDS:
                wrong.append(f"{kind.__name__} {i}: {time.process_time() - begun:.0f} s")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = run(given.cases, given.seed)
    print(*found[:40], sep="\n")
    print(f"{given.cases} cases, {len(found)} wrong: {dict(Counter(line.split()[0] for line in found))}")
    sys.exit(bool(found))
