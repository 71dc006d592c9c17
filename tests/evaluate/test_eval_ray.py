"""Ray: two local nodes, one killed on the way, give the bytes of the local run."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.evaluate import EvalConfig, evaluate
from alpamayo_r1.evaluate.cluster import _check_room, _rows
from alpamayo_r1.evaluate.protocol import Item
from alpamayo_r1.evaluate.worker import threads
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with threads(1):
        write_clips([810_030], tmp_path / "clips", width=128, height=72, seconds=0.5, t_start=4.75, supersample=1, threads=1)
    config = EvalConfig(str(GOLDEN / "checkpoint"), str(tmp_path / "clips"), plan=PlanOptions(seed=42, max_tokens=2, steps=10), threads=1)
    with pytest.raises(ValueError, match=r"pip install 'alpamayo-r1\[ray\]'"):
        list(evaluate(config, tmp_path / "out", ray="local"))


class Nodes:
    """As much of Ray as says what nodes there are."""

    def __init__(self, *resources: dict[str, float]):
        self.resources = resources

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": one} for one in self.resources] + [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]


def test_a_cluster_without_room_for_a_worker_is_refused():
    config = EvalConfig("small", "sample", device="cpu", threads=2)
    _check_room(Nodes({"CPU": 1.0}, {"CPU": 2.0}), config)
    with pytest.raises(ValueError, match=r"needs 2 CPUs of one node, the most .* is 1: lower --threads"):
        _check_room(Nodes({"CPU": 1.0}, {"CPU": 1.0}), config)
    with pytest.raises(ValueError, match=r"needs 1 GPU of one node, the most .* is 0"):
        _check_room(Nodes({"CPU": 8.0}), EvalConfig("small", "sample", device="cuda"))


@dataclass(frozen=True)
class _Ref:
    actor: int
    item: Item | None


class Mortal:
    """As much of Ray as hands out work: everything is done in the order it was asked for, and an actor that gets a killer dies."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, killers: set[int]):
        self.killers, self.dead, self.made = killers, set(), 0

    def remote(self, kind):
        return SimpleNamespace(options=lambda **place: SimpleNamespace(remote=self.actor))

    def actor(self, config):
        self.made += 1
        asked = lambda item, number=self.made: _Ref(number, item)  # noqa: E731
        return SimpleNamespace(row=SimpleNamespace(remote=asked), __ray_ready__=SimpleNamespace(remote=lambda: asked(None)))

    def wait(self, refs, num_returns):
        return [next((ref for ref in refs if ref.item is None), refs[0])], []

    def get(self, ref):
        if ref.item is None:
            return None
        if ref.item.index in self.killers:
            self.dead.add(ref.actor)
        if ref.actor in self.dead:
            raise self.exceptions.RayError("the actor died")
        return {"index": ref.item.index}

    def kill(self, actor):
        pass

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 8.0}}]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_clip_that_kills_its_workers_takes_no_other_with_it(workers):
    items = [Item(i, f"clip {i}", 0) for i in range(20)]
    rows = list(_rows(Mortal({5, 11}), EvalConfig("small", "sample", device="cpu", threads=1), items, workers))
    assert sorted(row["index"] for row in rows) == list(range(20))
    assert sorted(row["index"] for row in rows if "error" in row) == [5, 11]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_node_dies(tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'alpamayo-r1[ray]'")
    from ray.cluster_utils import Cluster

    with threads(1):
        write_clips(range(810_031, 810_039), tmp_path / "clips", width=128, height=72, seconds=0.5, t_start=4.75, supersample=1, threads=1)
    config = EvalConfig(
        str(GOLDEN / "checkpoint"), str(tmp_path / "clips"), plan=PlanOptions(samples=2, seed=42, max_tokens=8, steps=2), threads=1
    )
    list(evaluate(config, tmp_path / "here"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        for progress in evaluate(config, tmp_path / "there", ray=cluster.address):
            if progress.done == 2:
                cluster.remove_node(second, allow_graceful=False)
        assert (progress.done, progress.failed) == (8, 0)
    finally:
        ray.shutdown()
        cluster.shutdown()
    here, there = ((tmp_path / where / "results.parquet").read_bytes() for where in ("here", "there"))
    assert here == there
