"""The same rows on a Ray cluster: actors with one model each, clips handed out one by one, rows sent back to be written here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from alpamayo_r1.evaluate.protocol import EvalConfig, Item

QUEUE = 3
"""Clips an actor holds: one being planned, the others being decoded."""

ATTEMPTS = 5
"""How often a clip is handed out before its row says that the workers died on it."""


class Node:
    """What runs in an actor: reads clips in threads, plans them one after the other, with the thread count of the driver."""

    def __init__(self, config: EvalConfig):
        from alpamayo_r1.data.source import open_source
        from alpamayo_r1.evaluate.worker import load_worker, threads

        self.open = ExitStack()
        self.open.enter_context(threads(config.threads))
        self.source = self.open.enter_context(open_source(config.data))
        self.config, self.worker, self.turn = config, load_worker(config), threading.Lock()

    def row(self, item: Item) -> dict[str, Any]:
        """One row: the clip is read while another thread of this actor plans."""
        from alpamayo_r1.evaluate.worker import read_item, threads

        read = read_item(self.source, item)
        with self.turn, threads(self.config.threads):
            return self.worker.row(item, read)


def cluster_rows(config: EvalConfig, todo: Sequence[Item], address: str, workers: int | None) -> Iterator[dict[str, Any]]:
    """The rows of the items in the order they are finished; an item whose actor died goes to another one.

    address: "local", "auto", or a cluster's own. workers None: one a GPU of the cluster, or one a node where there are none. Data and
    checkpoint must have the same paths on all machines.
    Raises ValueError without Ray, without that cluster, or where no actor can be started at all.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--ray needs Ray on every machine: pip install 'alpamayo-r1[ray]'") from None
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise ValueError(
                f"there is no Ray cluster at {address!r} ({error}): start one with `ray start --head`, or give --ray local"
            ) from None
    paths = {"data": _absolute(config.data), "checkpoint": _absolute(config.checkpoint)}
    there = replace(config, device=config.device_type, **paths)  # a worker sees the GPU that Ray gives it, and no other
    try:
        yield from _rows(ray, there, todo, workers)
    finally:
        if started:
            ray.shutdown()


def _rows(ray, config: EvalConfig, todo: Sequence[Item], workers: int | None) -> Iterator[dict[str, Any]]:
    _check_room(ray, config)
    crew = Crew(ray, config, min(workers or _default(ray, config), len(todo)))
    waiting, tries = deque(todo), {item.index: 0 for item in todo}
    running: dict[Any, tuple[Any, Item]] = {}
    while waiting or running:
        for actor in crew.ready:
            held = [item for other, item in running.values() if other is actor]
            while waiting and _may_join(waiting[0], held, tries):
                item = waiting.popleft()
                tries[item.index] += 1
                running[actor.row.remote(item)] = actor, item
                held.append(item)
        (finished,), _ = ray.wait([*running, *crew.starting], num_returns=1)
        if finished in crew.starting:
            crew.started(finished)
            continue
        actor, item = running.pop(finished)
        try:
            yield ray.get(finished)
        except ray.exceptions.RayError as problem:
            crew.replace(actor)
            held = [ref for ref, (other, _) in running.items() if other is actor]
            lost = [item, *(running.pop(ref)[1] for ref in held)]
            for item in sorted(lost, key=lambda item: -item.index):
                yield from _again(item, problem, tries, waiting)


def _may_join(item: Item, held: Sequence[Item], tries: dict[int, int]) -> bool:
    """Whether an actor may hold this item too. One that a worker died with goes alone: if it is the killer, it takes no other with it."""
    alone = tries[item.index] > 0 or any(tries[other.index] > 1 for other in held)
    return len(held) < (1 if alone else QUEUE)


class Crew:
    """Actors that can work, and actors that are being started (with a place on the cluster, or waiting for one)."""

    def __init__(self, ray, config: EvalConfig, size: int):
        self.ray, self.config, self.failures = ray, config, 0
        self.ready: list[Any] = []
        self.starting: dict[Any, Any] = {}
        for _ in range(size):
            self.start()

    def start(self) -> None:
        """Asks for one more actor."""
        name, count = _needs(self.config)
        place = {"num_gpus" if name == "GPU" else "num_cpus": count}
        kind = self.ray.remote(Node).options(max_concurrency=QUEUE, max_restarts=0, scheduling_strategy="SPREAD", **place)
        actor = kind.remote(self.config)
        self.starting[actor.__ray_ready__.remote()] = actor

    def started(self, ref: Any) -> None:
        """An actor is ready, or could not be made. Raises ValueError where none can."""
        actor = self.starting.pop(ref)
        try:
            self.ray.get(ref)
            self.ready.append(actor)
        except self.ray.exceptions.RayError as problem:
            self.failures += 1
            if not self.ready and self.failures >= ATTEMPTS:
                raise ValueError(f"no worker could be started on the Ray cluster: {problem}") from None
            self.start()

    def replace(self, actor: Any) -> None:
        """Gives up an actor that died or can't be reached, and asks for another one."""
        self.ready.remove(actor)
        self.ray.kill(actor)
        self.start()


def _needs(config: EvalConfig) -> tuple[str, int]:
    """What a worker asks the cluster for: a GPU, or as many CPUs as it has threads."""
    return ("GPU", 1) if config.device == "cuda" else ("CPU", config.threads or 1)


def _check_room(ray, config: EvalConfig) -> None:
    """Raises ValueError where no node could ever hold a worker: Ray itself would wait for one without a word."""
    name, count = _needs(config)
    most = max((int(node["Resources"].get(name, 0)) for node in ray.nodes() if node["Alive"]), default=0)
    if most < count:
        advice = "start nodes with a GPU, or give --device cpu" if name == "GPU" else "lower --threads, or start nodes with more --num-cpus"
        wanted = f"{count} {name}{'s' if count > 1 else ''}"
        raise ValueError(f"a worker needs {wanted} of one node, the most that a node of the cluster has is {most}: {advice}")


def _again(item: Item, problem: Exception, tries: dict[int, int], waiting: deque[Item]) -> Iterator[dict[str, Any]]:
    """Puts an item back at the front, or gives up on it with a row that says so."""
    if tries[item.index] < ATTEMPTS:
        waiting.appendleft(item)
    else:
        yield {"index": item.index, "clip_id": item.clip_id, "t0_us": item.t0_us, "error": f"{ATTEMPTS} workers died on it: {problem}"}


def _absolute(spec: str) -> str:
    """A folder by its full path, for workers that stand elsewhere; anything else as it is."""
    return str(Path(spec).resolve()) if Path(spec).is_dir() else spec


def _default(ray, config: EvalConfig) -> int:
    """One worker a GPU, or one a node."""
    on_gpus = _needs(config)[0] == "GPU"
    return max(1, int(ray.cluster_resources().get("GPU", 0)) if on_gpus else sum(node["Alive"] for node in ray.nodes()))
