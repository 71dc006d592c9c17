"""The kinds of strangers' input that fuzz.py mutates: each a function of a random generator and a scratch folder.

A kind ends in an error, or returns None where all is well, or says what should have been refused or noted and was not: a silent case.
What nobody can see in one scene (docs/conventions.md lists it) is not asked for.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from typer.main import get_command
from typer.testing import CliRunner

import alpamayo_r1
from alpamayo_r1 import helper
from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.checkpoint import INDEX, inspect
from alpamayo_r1.core.config import read_config
from alpamayo_r1.core.gate.history import check_history
from alpamayo_r1.core.gate.observation import check_observation
from alpamayo_r1.core.notes import NoteWarning
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAMERAS, Trajectory
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate import EvalConfig, evaluate, loop, summarise
from alpamayo_r1.evaluate.protocol import work
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from alpamayo_r1.models.base import read_scenes
from alpamayo_r1.testing import random_observation, tiny_checkpoint
from checks.calls import mutated_call, table
from support import coded_clips

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**9, 2**70, float("nan"), float("inf"),
    "", "5", "é\ud800", "../x", "/x", [], [0], [[]], {}, {"a": None}, b"x",
)  # fmt: skip


@cache
def checkpoint() -> Path:
    return tiny_checkpoint(Path(tempfile.mkdtemp()))


@cache
def model() -> AlpamayoR1:
    return AlpamayoR1.from_pretrained(checkpoint())


def vocabulary() -> Any:
    return model().vocabulary


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
    else:
        data = bytes_spoilt(draw, data)
    rewrite(file, data)


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
    tokenized: Any = helper.get_processor(model().tokenizer).apply_chat_template(helper.create_message(scene().frames.flatten(0, 1)))
    past = scene().history
    return {"tokenized_data": dict(tokenized), "ego_history_xyz": past.xyz[None, None], "ego_history_rot": past.rot[None, None]}


def facade(draw: random.Random, folder: Path) -> None:
    data = batch() | {"tokenized_data": dict(batch()["tokenized_data"])}
    place = draw.choice([data, data["tokenized_data"]])
    key = draw.choice(list(place))
    place[key] = odd_tensor(draw, place[key]) if isinstance(place[key], torch.Tensor) else draw.choice(ODD)
    read_scenes(data, model().model, vocabulary())


def options(draw: random.Random, folder: Path) -> None:
    PlanOptions(**{draw.choice(["samples", "seed", "temperature", "top_p", "top_k", "max_tokens", "steps", "reasoning"]): draw.choice(ODD)})


def messages(draw: random.Random, folder: Path) -> None:
    said = [
        {"role": "system", "content": "hi"},
        {"role": "user", "content": [{"type": "text", "text": "go"}, {"type": "image", "image": 1}]},
    ]
    helper.get_processor(model().tokenizer).apply_chat_template(mutated(draw, said))


def calls(draw: random.Random, folder: Path) -> None:
    """Public functions with arguments of other types."""
    mutated_call(draw, known_calls())


@cache
def known_calls() -> dict[str, Any]:
    return table(checkpoint(), tree(), coded_clips.CLIP)


# ------------------------------------------------------------------------------------------------------------- a motion that no car makes


def turned(angle: np.ndarray | float) -> np.ndarray:
    """Rotations about z, [..., 3, 3]."""
    c, s, none = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([np.stack([c, -s, none], -1), np.stack([s, c, none], -1), np.stack([none, none, none + 1], -1)], -2)


def arc(draw: random.Random) -> tuple[np.ndarray, np.ndarray, float]:
    """A car on an arc, seen from its pose at t0: xyz [16, 3], rot [16, 3, 3], and its speed. It turns by 0.3 to 0.5 rad."""
    speed, turn = draw.uniform(4, 14), draw.choice([-1, 1]) * draw.uniform(0.3, 0.5)
    yaw = turn * np.linspace(-1, 0, 16)
    radius = 1.5 * speed / turn
    return np.stack([radius * np.sin(yaw), radius * (1 - np.cos(yaw)), 0 * yaw], -1), turned(yaw), speed


def w_first(rot: np.ndarray) -> np.ndarray:
    """What comes out where quaternions are stored w first and read x, y, z, w."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(np.roll(Rotation.from_matrix(rot).as_quat(canonical=True), 1, -1)).as_matrix()


def moved(xyz: np.ndarray, at: int, by: np.ndarray) -> np.ndarray:
    """The path with one pose elsewhere."""
    changed = xyz.copy()
    changed[at] += by
    return changed


Motion = Callable[[random.Random, np.ndarray, np.ndarray, float], tuple[Any, ...]]
"""A way to spoil a turning car's history: xyz, rot, speed -> xyz, rot, and dt if another."""

QUARTER = turned(math.pi / 2)
MOTIONS: dict[str, Motion] = {
    "y forward": lambda draw, x, r, v: (x @ QUARTER.T, QUARTER @ r @ QUARTER.T),
    "y forward, rotations as they were": lambda draw, x, r, v: (x @ QUARTER.T, r),
    "x and y swapped": lambda draw, x, r, v: (x[:, [1, 0, 2]], r),
    "y to the right": lambda draw, x, r, v: (x * [1, -1, 1], r),
    "inverse rotations": lambda draw, x, r, v: (x, r.swapaxes(-1, -2)),
    "w first": lambda draw, x, r, v: (x, w_first(r)),
    "w first, in the world": lambda draw, x, r, v: (x, w_first(turned(1.0) @ r)),
    "a world frame": lambda draw, x, r, v: (x @ turned(h := draw.uniform(0.4, 5.8)).T, turned(h) @ r),
    "shifted": lambda draw, x, r, v: (x + draw.choice([1.0, -30, 1000, 5e6]), r),
    "moved but not turned": lambda draw, x, r, v: (x @ turned(draw.uniform(0.5, 2.6)).T, r),
    "centimetres": lambda draw, x, r, v: (x * 100, r),
    "millimetres": lambda draw, x, r, v: (x * 1000, r),
    "kilometres": lambda draw, x, r, v: (x / 1000, r),
    "a longer last step": lambda draw, x, r, v: (np.vstack([x[:-1] - [draw.uniform(0.6, 8), 0, 0], x[-1:]]), r),
    "a jump": lambda draw, x, r, v: (moved(x, draw.randrange(1, 15), np.array([draw.uniform(0.5, 3), draw.uniform(-3, 3), 0])), r),
    "mirrored rotations": lambda draw, x, r, v: (x, r * np.array([1, draw.choice([1, -1]), -1])[:, None] * [1, 1, 1]),
    "another dt": lambda draw, x, r, v: (x, r, draw.choice([0.05, 0.2, 1.0, 0.0, float("nan")])),
    "the newest first": lambda draw, x, r, v: (x[::-1].copy(), r[::-1].copy()),
    "45 m/s and more": lambda draw, x, r, v: (x * (draw.uniform(45, 140) / v), r),
    "NaN": lambda draw, x, r, v: (moved(x, draw.randrange(16), np.array([float("nan"), 0, 0])), r),
}  # fmt: skip


def spoilt_motion(draw: random.Random) -> tuple[str, Trajectory]:
    """A motion that no car makes, and its name."""
    name = draw.choice(list(MOTIONS))
    xyz, rot, *dt = MOTIONS[name](draw, *arc(draw))
    return name, Trajectory(torch.from_numpy(xyz).float(), torch.from_numpy(rot).float(), *dt)


def motion(draw: random.Random, folder: Path) -> str | None:
    name, past = spoilt_motion(draw)
    return None if check_history(past) else f"{name} passes"


def seen(draw: random.Random, folder: Path) -> str | None:
    """Pictures that show nothing, or whose names or bytes are others than they say."""
    good = scene()
    one, many = draw.randrange(4), good.frames.clone()
    many[one] = draw.choice([0, 128, 255])
    name, changed = draw.choice([
        ("one colour", replace(good, frames=many)), ("black", replace(good, frames=good.frames * 0)),
        ("tiny", replace(good, frames=good.frames[..., : draw.randrange(1, 60), :])),
        ("floats", replace(good, frames=good.frames / 255)), ("channels last", replace(good, frames=good.frames.permute(0, 1, 3, 4, 2))),
        ("another order", replace(good, cameras=tuple(draw.sample(good.cameras, 4)))),
        ("a camera twice", replace(good, cameras=(good.cameras[0], good.cameras[0], *good.cameras[2:]))),
        ("three frames each", replace(good, frames=good.frames[:, 1:])),
    ])  # fmt: skip
    if changed.cameras == good.cameras and changed.frames is good.frames:
        return None
    return None if check_observation(changed, model().model.config) else f"{name} passes"


def batched_motion(draw: random.Random, folder: Path) -> str | None:
    """The same motions through the original's batch; what would only be noted there is left out."""
    name, past = spoilt_motion(draw)
    if name in ("another dt", "45 m/s and more"):
        return None
    read_scenes(batch() | {"ego_history_xyz": past.xyz[None, None], "ego_history_rot": past.rot[None, None]}, model().model, vocabulary())
    return f"{name} passes"


# ------------------------------------------------------------------------------------------------------------------- data-set folders


@cache
def tree() -> Path:
    return coded_clips.write_tree(Path(tempfile.mkdtemp()) / "data")


def linked(source: Path, to: Path) -> Path:
    """A copy of a folder made of hard links: whoever changes a file replaces it."""
    return Path(shutil.copytree(source, to, copy_function=os.link))


def rewrite(path: Path, content: bytes) -> None:
    """Replaces a file, not what its other links hold."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def bytes_spoilt(draw: random.Random, data: bytes) -> bytes:
    """Bytes cut off, replaced, added or removed."""
    if draw.random() < 0.4:
        return data[: draw.randrange(len(data))]
    place = draw.randrange(len(data))
    return data[:place] + draw.randbytes(draw.randrange(1, 9)) + data[place + draw.randrange(9) :]


def table_spoilt(draw: random.Random, data: bytes) -> bytes:
    """A parquet table with a column renamed, dropped, doubled, of other values, type or unit, or rows removed, doubled or in disorder."""
    table = pd.read_parquet(io.BytesIO(data))
    if table.shape[1] == 0:
        return data
    column, row = draw.choice(list(table.columns)), draw.randrange(max(len(table), 1))
    how = draw.randrange(9)
    if how == 0:
        table = table.rename(columns={column: draw.choice(["", "x", "timestamp", "clip_id", "é"])})
    elif how == 1:
        table = table.drop(columns=column)
    elif how == 2:
        table = table.iloc[draw.choice([[], [row], [row] * 3, list(range(len(table)))[::-1], list(range(row))])]
    elif how == 3:
        table[column] = table[column].astype(str) if draw.random() < 0.5 else [draw.choice(["a", None, "1"])] * len(table)
    elif how == 4:
        table = table.reset_index(drop=True)
    elif how == 5:
        table.index = pd.Index([draw.choice(["../x", "", "a", "a/b", f"é{i}"]) for i in range(len(table))])
    elif how == 6:
        table[column] = table[column].astype(object)
        table.iloc[row, list(table.columns).index(column)] = draw.choice([None, float("nan")])
    elif table[column].dtype.kind in "iufb":
        values = table[column].astype(float)
        table[column] = draw.choice([values * 1000, values / 1000, values * float("nan"), values + 1e18, values * float("inf"), -values])
    try:
        return coded_clips.parquet(table)
    except (ValueError, TypeError, OverflowError):  # a table that parquet can't hold
        return data


def zip_spoilt(draw: random.Random, data: bytes) -> bytes:
    """A zip with a member spoilt, renamed, doubled or left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = draw.randrange(len(members))
    name, content = members[at]
    how = draw.randrange(6)
    if how == 0:
        members[at] = (draw.choice(["../" + name, "/" + name, name.upper(), "x", ""]) or "x", content)
    elif how == 1:
        members.pop(at)
    elif how == 2:
        members.append((name, content))
    elif how == 3 and name.endswith(".parquet"):
        members[at] = (name, table_spoilt(draw, content))
    else:
        members[at] = (name, bytes_spoilt(draw, content))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def sampled(data: Path) -> tuple[str, ...]:
    """Codes of what is noted about the sample of the coded clip."""
    with open_source(data) as source:
        return tuple(note.code for note in source.clip(coded_clips.CLIP).sample().notes)


def dataset(draw: random.Random, folder: Path) -> None:
    data = linked(tree(), folder / "data")
    file = draw.choice(sorted(path for path in data.rglob("*") if path.is_file()))
    content = file.read_bytes()
    if file.suffix == ".zip" and draw.random() < 0.7:
        content = zip_spoilt(draw, content)
    elif file.suffix == ".parquet" and draw.random() < 0.8:
        content = table_spoilt(draw, content)
    else:
        content = bytes_spoilt(draw, content)
    rewrite(file, content)
    sampled(data)


QUATERNION = ["qx", "qy", "qz", "qw"]


def near(log: pd.DataFrame) -> pd.Series:
    """Rows of the 1.6 s before the default t0."""
    return log["timestamp"].between(3_500_000, 5_100_000)


LOGS: dict[str, Callable[[random.Random, pd.DataFrame], pd.DataFrame]] = {
    "nanoseconds": lambda draw, log: log.assign(timestamp=log["timestamp"] * 1000),
    "milliseconds": lambda draw, log: log.assign(timestamp=log["timestamp"] // 1000),
    "seconds": lambda draw, log: log.assign(timestamp=log["timestamp"] / 1e6),
    "unsigned overflow": lambda draw, log: log.assign(timestamp=log["timestamp"].astype(np.uint64) + np.uint64(2**63)),
    "x and y swapped": lambda draw, log: log.assign(x=log["y"], y=log["x"]),
    "y to the right": lambda draw, log: log.assign(y=-log["y"]),
    "centimetres": lambda draw, log: log.assign(x=log["x"] * 100, y=log["y"] * 100, z=log["z"] * 100),
    "kilometres": lambda draw, log: log.assign(x=log["x"] / 1000, y=log["y"] / 1000, z=log["z"] / 1000),
    "w first": lambda draw, log: log.assign(**dict(zip(QUATERNION, log[["qw", "qx", "qy", "qz"]].to_numpy().T, strict=True))),
    "inverse rotations": lambda draw, log: log.assign(qx=-log["qx"], qy=-log["qy"], qz=-log["qz"]),
    "no rotations": lambda draw, log: log.assign(qx=0.0, qy=0.0, qz=0.0, qw=0.0),
    "long quaternions": lambda draw, log: log.assign(qw=log["qw"] * draw.choice([2, 10, 1e9])),
    "NaN": lambda draw, log: log.assign(**{c: log[c].where(~near(log)) for c in [draw.choice([*QUATERNION, *"xyz"])]}),
    "infinity": lambda draw, log: log.assign(**{c: log[c].where(~near(log), np.inf) for c in [draw.choice([*QUATERNION, *"xyz"])]}),
    "a jump": lambda draw, log: log.assign(x=log["x"] + draw.uniform(2, 8) * (log["timestamp"] > draw.randrange(3_900_000, 4_900_000))),
    "a gap": lambda draw, log: log[~log["timestamp"].between(at := draw.randrange(3_700_000, 4_200_000), at + 700_000)],
    "disorder": lambda draw, log: log.sample(frac=1, random_state=draw.randrange(1000)),
    "rows twice": lambda draw, log: pd.concat([log, log.iloc[300:310]]).sort_values("timestamp"),
    "text": lambda draw, log: log.assign(**{(c := draw.choice([*QUATERNION, *"xyz"])): log[c].astype(str)}),
    "a column less": lambda draw, log: log.drop(columns=draw.choice(["timestamp", *QUATERNION, *"xyz"])),
}  # fmt: skip

STAMPS: dict[str, Callable[[random.Random, np.ndarray], np.ndarray]] = {
    "nanoseconds": lambda draw, t: t * 1000,
    "milliseconds": lambda draw, t: t // 1000,
    "seconds": lambda draw, t: t / 1e6,
    "backwards": lambda draw, t: t[::-1],
    "a leap before t0": lambda draw, t: t + 1_710_000 * (t > draw.randrange(4_000_000, 4_950_000)),
    "one row less": lambda draw, t: np.delete(t, draw.randrange(len(t))),
    "one row more": lambda draw, t: np.append(t, t[-1] + 33_333),
    "the same twice": lambda draw, t: np.where(np.arange(len(t)) == (i := draw.randrange(1, len(t))), t[i - 1], t),
    "an epoch clock": lambda draw, t: t + 1_700_000_000_000_000,
}


def clip_log(draw: random.Random, folder: Path) -> str | None:
    """Ego motion and camera clocks that are whole tables and wrong."""
    data = linked(tree(), folder / "data")
    if draw.random() < 0.6:
        name = draw.choice(list(LOGS))
        chunk = coded_clips.chunk(data, "egomotion")
        chunk.unlink()
        coded_clips.put_egomotion(data, LOGS[name](draw, coded_clips.egomotion()))
    else:
        name, camera = draw.choice(list(STAMPS)), draw.choice(CAMERAS)
        coded_clips.chunk(data, camera).unlink()
        coded_clips.put_camera(data, camera, times=STAMPS[name](draw, coded_clips.stamps(camera)))
    return None if sampled(data) else f"{name} passes"


def calibration(draw: random.Random, folder: Path) -> str | None:
    """Lenses, poses and sizes that can't be."""
    data = linked(tree(), folder / "data")
    file = draw.choice(sorted((data / "calibration").rglob("*.parquet")))
    table = pd.read_parquet(file)
    column = draw.choice([c for c in table.columns if not c.startswith("bw_")])
    table[column] = table[column].astype(float) * 0 + draw.choice([float("nan"), float("inf"), -float("inf")])
    rewrite(file, coded_clips.parquet(table))
    return None if sampled(data) else f"{column} of {file.stem} without a finite value passes"


# ------------------------------------------------------------------------------------------------------------------------- evaluations


def protocol() -> EvalConfig:
    return EvalConfig(
        str(checkpoint()), str(tree()), t0="grid", clips="1", plan=PlanOptions(samples=2, seed=42, max_tokens=4, steps=1), device="cpu",
        threads=1,
    )  # fmt: skip


@cache
def finished() -> tuple[Path, list[dict[str, Any]]]:
    """An evaluation that nobody disturbed, and its rows."""
    out = Path(tempfile.mkdtemp()) / "evaluation"
    rows = [progress.row for progress in evaluate(protocol(), out) if progress.row is not None]
    return out, rows


@cache
def summarised() -> str:
    """The figures of the undisturbed evaluation, written out: NaN equals NaN there."""
    return repr(summarise(finished()[0])["figures"])


def remembered(config: EvalConfig, todo: Sequence[Any], *more: Any) -> Iterator[dict[str, Any]]:
    """What a model would answer again, in milliseconds."""
    rows = {row["index"]: row for row in finished()[1]}
    return iter([rows[item.index] for item in todo])


def evaluation(draw: random.Random, folder: Path) -> str | None:
    """A folder that was changed while nobody wrote to it: resumed, it holds the same results, or says what is wrong."""
    whole, _ = finished()
    out = Path(shutil.copytree(whole, folder / "out"))
    rows = sorted((out / "rows").glob("*.parquet"))
    file, other = draw.sample(rows, 2)
    how = draw.randrange(9)
    if how == 0:
        rewrite(file, bytes_spoilt(draw, file.read_bytes()))
    elif how == 1:
        file.rename(out / "rows" / draw.choice([other.name, "x.parquet", "999999.parquet", "-1.parquet", "é.parquet", "000000 .parquet"]))
    elif how == 2:
        a, b = file.read_bytes(), other.read_bytes()
        rewrite(file, b)
        rewrite(other, a)
    elif how == 3:
        shutil.copy(file, out / "rows" / draw.choice([other.name, "000099.parquet", "x.parquet"]))
    elif how == 4:
        rewrite(file, draw.choice([b"", b"PAR1", coded_clips.parquet(pd.DataFrame({"index": [0]}))]))
    elif how == 5:
        rewrite(file, table_spoilt(draw, file.read_bytes()))
    elif how == 6:
        spoil(draw, out / draw.choice(["config.json", "inputs.json"]))
    elif how == 7:
        spoil(draw, out / draw.choice(["work.parquet", "results.parquet", "timing.parquet"]))
    else:
        file.unlink()
    with patch.object(loop, "rows", remembered):
        list(evaluate(protocol(), out))
    if (out / "results.parquet").read_bytes() != (whole / "results.parquet").read_bytes():
        return f"change {how} gives other results"
    return None


def results(draw: random.Random, folder: Path) -> str | None:
    """A finished folder that was changed, summarised: the same figures, a warning, or an error."""
    out = Path(shutil.copytree(finished()[0], folder / "out"))
    file = out / draw.choice(["config.json", "results.parquet", "timing.parquet", "digests.json"])
    if file.suffix == ".parquet" and draw.random() < 0.5:
        rewrite(file, table_spoilt(draw, file.read_bytes()))
    else:
        spoil(draw, file)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", NoteWarning)
        found = repr(summarise(out)["figures"])
    return None if found == summarised() or noted else f"a change of {file.name} gives other figures"


def lists(draw: random.Random, folder: Path) -> None:
    """Lists of clips, of times and of navigation texts."""
    lines = [f"{clip_id}{draw.choice([' ', ',', chr(9)])}{draw.choice(['5.1', 'Turn left', '1e308', 'nan', '', 'clip'])}"
             for clip_id in (coded_clips.CLIP, coded_clips.OTHER)]  # fmt: skip
    name = draw.choice(["clips", "t0", "navigation"])
    suffix = draw.choice([".txt", ".csv", ".json", ".parquet"])
    text = "\n".join([draw.choice(["\ufeff", "", "# said\n", "clip_id,t0\n"]) + lines[0], *lines[1:]]).encode()
    if suffix == ".json":
        text = json.dumps(mutated(draw, [{"clip_id": coded_clips.CLIP, "nav_text": "Turn left in 30m"}])).encode()
    elif suffix == ".parquet":
        text = table_spoilt(draw, coded_clips.parquet(pd.DataFrame({"clip_id": [coded_clips.CLIP], "t0": [5.1]})))
    if draw.random() < 0.5:
        text = bytes_spoilt(draw, text)
    file = folder / f"list{suffix}"
    file.write_bytes(text)
    with open_source(tree()) as source:
        work(replace(protocol(), **({"t0": "5.1"} | {name: str(file)})), source)


# --------------------------------------------------------------------------------------------------------------------- the command line

TYPED = (
    "", " ", "nan", "inf", "-inf", "1e308", "-1e308", str(2**70), "-1", "0", "5", "1.5", "True", "é", "a\nb", "\x1b[31m", "\x00",
    "$^$", "[red]", "../x", "/proc/x", "a" * 5000, "0x10",
    "1_000", "٣", "--", "-", "1,2", "cuda", "cuda:99", "cpu", "none", "10b", "small", "sample", "~",
)  # fmt: skip
HOPELESS = {"", " ", "nan", "inf", "-inf", "1e308", "-1e308", str(2**70), "True", "é", "a\nb", "\x00", "a" * 5000, "../x"}
"""What no numeric option can mean."""

NEEDED = {"run": ["--out", "out"], "film": ["x", "--out", "x.mp4"], "ask": ["x", "why?"], "eval": ["--out", "out"], "compare": ["a", "b"],
          "world": ["--out", "out"], "train": ["--out", "out"]}  # fmt: skip
HEAVY = ("alpamayo_r1.planner.load", "alpamayo_r1.cli.findings.load", "alpamayo_r1.cli.findings.bundled_plan", "alpamayo_r1.bench.bench",
         "alpamayo_r1.world.clips.write_world", "alpamayo_r1.train.loop.train", "alpamayo_r1.evaluate.loop.rows")  # fmt: skip
REACHED = "what was typed was accepted: the work itself is not part of this"


def reached(*given: Any, **more: Any) -> Any:
    raise ValueError(REACHED)


@cache
def verbs() -> dict[str, Any]:
    return dict(vars(get_command(app))["commands"])


def command_line(draw: random.Random, folder: Path) -> str | None:
    """A verb with one to three options of odd values, up to where the model would be loaded or scenes be made."""
    name = draw.choice(list(verbs()))
    options = [p for p in verbs()[name].params if p.opts[0].startswith("--") and not p.is_flag]
    chosen = [(draw.choice(options), draw.choice(TYPED)) for _ in range(draw.choice([1, 1, 2, 3]))]
    words = [*NEEDED.get(name, ())]
    if words and draw.random() < 0.1:
        words[draw.randrange(len(words))] = draw.choice(TYPED)
    words = [name, *words, *(word for option, value in chosen for word in (option.opts[0], value))]
    with ExitStack() as stack:
        for heavy in HEAVY:
            stack.enter_context(patch(heavy, reached))
        done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    last = {option.opts[0]: (option, value) for option, value in chosen}  # given twice, the last one counts
    hopeless = [name for name, (option, value) in last.items() if option.metavar in ("N", "NUMBER", "SECONDS") and value in HOPELESS]
    if done.exit_code not in (0, 1, 2) or "Traceback" in done.output:
        return f"{words}: exit code {done.exit_code}"
    return f"{words}: accepted" if hopeless and (done.exit_code == 0 or REACHED in done.output) else None


Kind = Callable[[random.Random, Path], str | None]
KINDS: dict[Kind, int] = {
    history: 9, motion: 10, pictures: 8, seen: 5, config: 8, tokenizer: 6, shards: 6, facade: 8, batched_motion: 4, options: 6, messages: 6,
    dataset: 5, clip_log: 5, calibration: 1, evaluation: 2, results: 2, lists: 4, command_line: 9, calls: 9,
}  # fmt: skip
"""Every kind, and its share of the cases."""


def prepare() -> None:
    """Makes what the cases share, before anybody judges."""
    for made in (batch, tree, finished, summarised, verbs, known_calls):
        made()
