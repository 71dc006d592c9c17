"""The evaluation itself: the next clips are decoded while one is planned; every row is on the disk before the next is begun."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import reduce
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch

from alpamayo_r1.core.files import write_bytes, write_text
from alpamayo_r1.core.gate.files import read_object
from alpamayo_r1.core.gate.values import check_type, path_of
from alpamayo_r1.core.notes import Note, tell
from alpamayo_r1.core.types import F
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.inputs import fingerprints, index_digest
from alpamayo_r1.evaluate.protocol import EvalConfig, Item, check_inputs, check_same, evaluation_digest, identity, read_settings, work
from alpamayo_r1.evaluate.store import Store, as_parquet, opened
from alpamayo_r1.evaluate.worker import Worker, load_worker, read_item, threads
from alpamayo_r1.planner import check_pair, pick_devices, runs_fast

AHEAD = 8
"""Clips decoded or being decoded while one is planned."""

READERS = max(2, min(8, (os.cpu_count() or 1) // 4))
"""Threads that read clips; each uses one more a camera."""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is: rows on the disk, rows in all, how many failed, how many are in the mean minADE (or NaN), newest row."""

    done: int
    total: int
    failed: int
    scored: int
    min_ade: float
    row: dict[str, Any] | None = None


def evaluate(
    config: EvalConfig, out: Path, *, command: str = "", retry_failed: bool = False, ray: str | None = None, workers: int | None = None
) -> Iterator[Progress]:
    """Evaluates what is missing in `out`, then writes results.parquet and timing.parquet; yields after every row, and once before.

    ray: None for this process, "local" for a Ray of this machine, or a cluster's address; workers: models on that cluster.
    A row that is broken, or no row of this evaluation, is set aside with a NoteWarning, and planned again.

    Raises:
        ValueError: the folder holds another evaluation or rows of another data set, or a list or option is not understood.
    """
    check_type("config", config, EvalConfig, "an EvalConfig")
    out = path_of("out", out)
    config = resolve(config)
    with opened(out) as store:
        items, notes = begin(config, store, command)
        tell(notes, stacklevel=3)
        if retry_failed:
            store.forget_failed()
        done = store.done()
        todo = [item for item in items if item.index not in done]
        progress = resumed(store, len(items))
        yield progress
        for row in rows(config, todo, ray, workers):
            store.append(row)
            progress = advance(progress, row)
            yield progress
        store.compact()


def rows(config: EvalConfig, todo: Sequence[Item], ray: str | None, workers: int | None) -> Iterator[dict[str, Any]]:
    """The rows of the items, in whatever order they are finished."""
    if not todo:
        return iter(())
    if ray is not None:
        from alpamayo_r1.evaluate.cluster import cluster_rows

        return cluster_rows(config, todo, ray, workers)
    return local_rows(config, todo)


def local_rows(config: EvalConfig, todo: Sequence[Item], worker: Worker | None = None) -> Iterator[dict[str, Any]]:
    """The rows of the items in order, planned here (by a worker of the config's checkpoint if none is given)."""
    with threads(config.threads), open_source(config.data) as source, ThreadPoolExecutor(READERS) as pool:
        worker = worker or load_worker(config)
        began = time.perf_counter()
        for item, (read, wait_ms) in ahead(pool, lambda item: read_item(source, item), todo):
            row = worker.row(item, read) | {"wait_ms": wait_ms}
            began, before = time.perf_counter(), began
            yield row | {"total_ms": 1e3 * (began - before)}


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[A], B], items: Iterable[A], depth: int = AHEAD
) -> Iterator[tuple[A, tuple[B, float]]]:
    """(item, (function(item), milliseconds waited for it)) in order, `depth` calls ahead of the consumer."""
    waiting: deque = deque()
    upcoming = iter(items)

    def fill() -> None:
        while len(waiting) < depth and (item := next(upcoming, None)) is not None:
            waiting.append((item, pool.submit(function, item)))

    fill()
    while waiting:
        item, future = waiting.popleft()
        fill()
        began = time.perf_counter()
        result = future.result()
        yield item, (result, 1e3 * (time.perf_counter() - began))


# --------------------------------------------------------------------------------------------------------------------- begin and go on


def resolve(config: EvalConfig) -> EvalConfig:
    """The config with device, path and threads decided for this machine. Raises ValueError for a device that is not here."""
    devices = pick_devices(config.device)
    first, several = devices[0], len(devices) > 1
    if several:
        check_pair(first, config.fast)
    fast = several or runs_fast(first, config.fast)
    count = None if first.type == "cuda" else config.threads or torch.get_num_threads()
    return replace(config, device=",".join(map(str, devices)), fast=fast, threads=count)


def begin(config: EvalConfig, store: Store, command: str) -> tuple[list[Item], list[Note]]:
    """The work list, and notes on rows that were set aside. A new folder gets its protocol.

    Raises:
        ValueError: the folder holds another evaluation, or rows of another data set.
    """
    settings, listed, files = (store.folder / name for name in ("config.json", "work.parquet", "inputs.json"))
    with open_source(config.data) as source:
        items, kind, data = work(config, source), source.kind, index_digest(source)
        inputs = fingerprints(source, [item.clip_id for item in items])
    depends = json.loads(json.dumps(identity(config, items, data)))
    if settings.exists():
        check_same(read_settings(store.folder)["identity"], depends, store.folder)
    stored = read_inputs(files)
    check_inputs(stored, inputs, store.folder)
    write_bytes(listed, as_parquet(pa.Table.from_pylist([asdict(item) for item in items])))
    write_text(files, json.dumps(stored | inputs, indent=1) + "\n")
    if not settings.exists():
        record = {"config": asdict(config), "identity": depends, "source": kind, "versions": versions(), "command": command}
        typed = json.dumps(record, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape")  # the locale C decodes ASCII alone
        write_text(settings, typed.decode("utf-8", "replace") + "\n")
    return items, store.admit(items, evaluation_digest(depends))


def read_inputs(path: Path) -> dict[str, str]:
    """The fingerprints that a folder's rows were made from, {} for a new one. Raises ValueError for what is no such file."""
    if not path.exists():
        return {}
    try:
        stored = read_object(path)
    except ValueError as error:
        raise ValueError(f"{path} can't be read ({error}): it was changed after it was written; begin anew with another --out") from None
    if not all(isinstance(value, str) for value in stored.values()):
        raise ValueError(f"{path} holds no fingerprints: it was changed after it was written; begin anew with another --out")
    return dict(stored)


def resumed(store: Store, total: int) -> Progress:
    """How far a folder is."""
    rows = store.read().select(["error", "min_ade", "known_steps"]).to_pylist()
    return replace(reduce(advance, rows, Progress(0, total, 0, 0, float("nan"))), row=None)


def advance(progress: Progress, row: dict[str, Any]) -> Progress:
    """The progress after one more row."""
    failed = progress.failed + (row.get("error") is not None)
    scored, mean, value = progress.scored, progress.min_ade, row.get("min_ade")
    if value is not None and value == value and 2 * row["known_steps"] >= F:
        scored, mean = scored + 1, (mean * scored + value) / (scored + 1) if scored else value
    return Progress(progress.done + 1, progress.total, failed, scored, mean, row)


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    names = ("alpamayo-r1", "torch", "numpy", "av", "physical_ai_av", "pyarrow")
    here = {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}
    if torch.cuda.is_available():
        here["gpu"] = torch.cuda.get_device_name()
    return {name: _version(name) for name in names} | here


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
