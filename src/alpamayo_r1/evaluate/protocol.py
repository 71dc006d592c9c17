"""What is evaluated and how: the protocol, the list of (clip, t0) that it means, and the check that a folder holds the same one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from alpamayo_r1.core.checkpoint import shards
from alpamayo_r1.core.gate.files import read_object
from alpamayo_r1.core.gate.values import check_flag, check_type, check_whole
from alpamayo_r1.core.hub import checkpoint_folder
from alpamayo_r1.core.options import PlanOptions, check_finite
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.sampling import DRAWS
from alpamayo_r1.data.clips import T0_US
from alpamayo_r1.data.errors import DataError
from alpamayo_r1.data.source import Source
from alpamayo_r1.evaluate.lists import microseconds, read_list
from alpamayo_r1.evaluate.navigation import read_navigation

GRID_US = 1_000_000
"""Step of `t0="grid"`."""

_BLOCK = 65_536


PROTOCOL = PlanOptions(samples=6, seed=42, steps=10)
"""What the published evaluation asks for each clip; temperature, top-p and length are every plan's defaults."""


@dataclass(frozen=True)
class EvalConfig:
    """The published protocol as defaults: t0 5.1 s, and for every clip the options of PROTOCOL.

    clips: FILE.parquet or FILE.txt, "gold644", a number (the first N of the data set), or None: gold644 of the real data set, all of a
    synthetic one. t0: seconds, "grid" (every whole second that has its history and future), or a FILE with clip ids and times.
    navigation: a FILE of what the driver is told in each clip (see navigation.read_navigation), by default for its clips alone; guidance:
    the weight of it. device, fast, precision: as in planner.load. threads: of torch on the CPU (None: as torch has it); sums depend on it
    in their last bits.

    Raises:
        ValueError: a plan that would draw without a seed.
    """

    checkpoint: str = "small"
    data: str = "sample"
    clips: str | None = None
    t0: str = "5.1"
    plan: PlanOptions = PROTOCOL
    navigation: str | None = None
    guidance: float | None = None
    device: str = "auto"
    fast: bool | None = None
    threads: int | None = None
    precision: str | None = None

    def __post_init__(self):
        check_type("plan", self.plan, PlanOptions, "PlanOptions(samples=6, seed=42)")
        for name in ("checkpoint", "data", "t0", "device"):
            check_type(name, getattr(self, name), str, "text")
        for name in ("clips", "navigation", "precision"):
            check_type(name, getattr(self, name), (str, type(None)), "text, or None")
        if self.fast is not None:
            check_flag("fast", self.fast)
        if self.threads is not None:
            check_whole("threads", self.threads, 1, 1024)
        if self.guidance is not None:
            check_finite("guidance", self.guidance)
        if self.precision is not None and (self.precision == "auto" or self.precision not in PRECISIONS):
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}: an evaluation is of one of them")
        if self.plan.seed is None or self.plan.noise is not None:
            raise ValueError("an evaluation draws from a seed: give plan=PlanOptions(seed=...) without noise=")
        if self.guidance is not None and self.navigation is None:
            raise ValueError(f"guidance is {self.guidance}, but there is no navigation for it to weigh: give navigation= too")

    @property
    def device_type(self) -> str:
        """The device without a GPU's number."""
        return self.device.partition(":")[0]


@dataclass(frozen=True)
class Item:
    """One piece of work: the index-th row is this clip at this t0."""

    index: int
    clip_id: str
    t0_us: int
    navigation: str | None = None


def work(config: EvalConfig, source: Source) -> list[Item]:
    """Every (clip, t0) of the protocol, in order.

    Raises:
        ValueError: a list that can't be read, an unknown word, or no clip of it in the source.
    """
    times, texts = _times(config.t0), {} if config.navigation is None else read_navigation(Path(config.navigation))
    named = list(texts) or (list(times) if isinstance(times, dict) else None)
    clips = clip_list(config.clips, source) if config.clips or named is None else named
    known = set(source.clip_ids)
    if not known.intersection(clips):
        raise ValueError(
            f"none of the {len(clips)} clips of {config.clips or 'the default list'} is among the {len(known)} of {source.name}: "
            "give the data set that the list was made for (--data), or another list (--clips)"
        )
    if times == "grid":
        with ThreadPoolExecutor(4) as pool:
            moments = list(pool.map(lambda clip_id: _grid(source, clip_id), clips))
    elif isinstance(times, dict):
        missing = [clip_id for clip_id in clips if clip_id not in times]
        if missing:
            raise ValueError(f"{config.t0} has no t0 for {len(missing)} of {len(clips)} clips, such as {missing[0]}")
        moments = [times[clip_id] for clip_id in clips]
    else:
        moments: list[list[int]] = [[times] for _ in clips]
    pairs = dict.fromkeys((clip_id, t0) for clip_id, at in zip(clips, moments) for t0 in at)
    return [Item(i, clip_id, t0, texts.get(clip_id)) for i, (clip_id, t0) in enumerate(pairs)]


def clip_list(spec: str | None, source: Source) -> list[str]:
    """The clip ids that a --clips means, without repetition, in order.

    Raises:
        ValueError: a number below 1, or a list that can't be read.
    """
    spec = spec or ("gold644" if source.kind == "physical-ai-av" else str(len(source.clip_ids)))
    if re.fullmatch(r"[0-9]{1,9}", spec):
        if int(spec) < 1:
            raise ValueError("--clips 0 leaves nothing to evaluate: give the number of clips, or a list")
        return list(source.clip_ids[: int(spec)])
    if spec == "gold644":
        return gold644()
    return list(dict.fromkeys(clip_id for clip_id, _ in read_list(Path(spec))))


def gold644() -> list[str]:
    """The clip ids of the published evaluation."""
    text = (resources.files("alpamayo_r1") / "assets" / "gold644.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _times(spec: str) -> int | Literal["grid"] | dict[str, list[int]]:
    """A --t0 as microseconds, "grid", or clip id -> microseconds, each once."""
    if spec == "grid":
        return "grid"
    try:
        seconds = float(spec)
    except ValueError:
        times: dict[str, dict[int, None]] = {}
        for clip_id, t0_us in read_list(Path(spec)):
            if t0_us is None:
                raise ValueError(
                    f"{spec} has no time for clip {clip_id}: write `clip_id t0` in seconds on each line, or a column t0 (s) or t0_us"
                ) from None
            times.setdefault(clip_id, {})[t0_us] = None
        return {clip_id: list(at) for clip_id, at in times.items()}
    return microseconds(seconds, f"--t0 {spec}")


def _grid(source: Source, clip_id: str) -> list[int]:
    """Every GRID_US that has its history and its future; where there is none or the clip can't be read, the default, to fail in its row."""
    try:
        with source.fresh(clip_id) as clip:
            low, high = clip.valid_t0()
    except (DataError, OSError):
        return [T0_US]
    return list(range(-(-low // GRID_US) * GRID_US, high + 1, GRID_US)) or [T0_US]


# ------------------------------------------------------------------------------------------------------------------- the same protocol?


ROWS = 3
"""Version of what a row holds for the same inputs: raise it with every change of a figure, so that no folder mixes two."""


def identity(config: EvalConfig, items: Sequence[Item], data: str) -> dict[str, Any]:
    """What the rows depend on: equal identities give equal rows. The checkpoint by its content, the clips by a digest of their list.

    data: the digest of the data set's index. Which of several GPUs plans does not matter, nor where the data set lies.
    """
    listed = hashlib.sha256("\n".join(f"{item.clip_id} {item.t0_us} {item.navigation or ''}" for item in items).encode()).hexdigest()
    checkpoint = fingerprint(checkpoint_folder(config.checkpoint))
    described = asdict(config) | asdict(config.plan) | {"checkpoint": checkpoint, "rows": len(items), "clips": listed, "draws": DRAWS}
    described |= {"device": config.device_type, "data": data, "row_version": ROWS}
    for name in ("t0", "plan", "navigation", *(() if config.precision else ("precision",))):
        del described[name]
    return described


def evaluation_digest(identity: Mapping[str, Any]) -> str:
    """One word for an identity, which every row carries."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(folder: Path) -> str:
    """SHA-256 over the config, and over name, size and 17 blocks of every shard, first to last: fast at 20 GB, any training changes it."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for shard in shards(folder):
        size = shard.stat().st_size
        digest.update(f"{shard.name} {size}".encode())
        with open(shard, "rb") as file:
            for sixteenth in range(17):
                file.seek(max(0, size - _BLOCK) * sixteenth // 16)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def check_same(stored: dict[str, Any], wanted: dict[str, Any], out: Path) -> None:
    """Raises ValueError where a folder holds the evaluation of another protocol, naming what differs."""
    names = [name for name in wanted if stored.get(name) != wanted[name]]
    if names:
        differs = ", ".join(f"{name} {_short(stored.get(name))} there and {_short(wanted[name])} now" for name in names)
        raise ValueError(f"{out} holds another evaluation ({differs}): give the options it was begun with to go on, or another --out")


def check_inputs(stored: Mapping[str, str], now: Mapping[str, str], out: Path) -> None:
    """Raises ValueError where a file of the data set is another one than the rows of a folder were made from."""
    changed = [name for name in now if stored.get(name, now[name]) != now[name]]
    if changed:
        raise ValueError(
            f"{out} holds another evaluation: {changed[0]} of the data set, one of {len(changed)}, is not the file that its rows were made "
            "from. Give the data set it was begun with (--data) to go on, or another --out"
        )


def _short(value: Any) -> str:
    return f"{value[:8]}…" if isinstance(value, str) and len(value) > 40 else str(value)


def read_settings(out: Path) -> dict[str, Any]:
    """What config.json of an evaluation's folder holds.

    Raises:
        ValueError: it is not there, or not what an evaluation wrote.
    """
    path = Path(out) / "config.json"
    try:
        stored = dict(read_object(path))
    except FileNotFoundError:
        raise ValueError(f"{out} holds no evaluation (no config.json): give the --out folder of an `alpamayo-r1 eval`") from None
    except ValueError as error:
        raise ValueError(f"{path} can't be read ({error}): it was changed after it was written; begin anew with another --out") from None
    expected = {"config": dict, "identity": dict, "source": str, "versions": dict, "command": str}
    wrong = [name for name, kind in expected.items() if not isinstance(stored.get(name), kind)]
    if not wrong and not isinstance(stored["config"].get("plan"), dict):
        wrong = ["config.plan"]
    if wrong:
        raise ValueError(f"{path} has no {wrong[0]} as an evaluation writes it: begin anew with another --out")
    return stored


def read_config(path: Path) -> EvalConfig:
    """The protocol of a folder's config.json."""
    stored = read_settings(path.parent)["config"]
    plain = {field.name: stored[field.name] for field in fields(EvalConfig) if field.name != "plan" and field.name in stored}
    return EvalConfig(**plain, plan=PlanOptions(**stored["plan"]))
