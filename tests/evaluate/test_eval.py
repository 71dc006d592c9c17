"""Evaluation: the list of work, rows that survive being killed, failures as rows, metrics in rows, summaries and comparisons."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.core.notes import NoteWarning
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAR, Plan, Trajectory
from alpamayo_r1.data.source import open_source
from alpamayo_r1.engine.arena import DoesNotFit
from alpamayo_r1.evaluate import EvalConfig, compare, evaluate, summarise
from alpamayo_r1.evaluate.loop import Progress, advance, ahead, resolve
from alpamayo_r1.evaluate.protocol import PROTOCOL, Item, clip_list, gold644, identity, work
from alpamayo_r1.evaluate.score import SCORES, score
from alpamayo_r1.evaluate.store import SCHEMA, Store, opened
from alpamayo_r1.evaluate.worker import is_fatal, threads
from alpamayo_r1.metrics.baselines import constant_velocity
from alpamayo_r1.metrics.paths import violations
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN
from support.contract import sample_of
from support.slow import evaluate_slowly

SEEDS = range(810_000, 810_006)

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*ended without")]


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """Six small clips."""
    out = tmp_path_factory.mktemp("eval") / "clips"
    with threads(1):
        write_clips(SEEDS, out, width=128, height=72, seconds=0.5, t_start=4.75, supersample=1, threads=1)
    return out


@pytest.fixture(scope="session")
def config(clips) -> EvalConfig:
    return EvalConfig(str(GOLDEN / "checkpoint"), str(clips), plan=PlanOptions(samples=2, seed=42, max_tokens=6, steps=2), threads=1)


@pytest.fixture(scope="session")
def done(config, tmp_path_factory) -> Path:
    """An evaluation that nobody disturbed."""
    out = tmp_path_factory.mktemp("eval") / "done"
    progress = list(evaluate(config, out))
    assert [p.done for p in progress] == list(range(7)) and {p.total for p in progress} == {6}
    return out


def rows(out: Path) -> pd.DataFrame:
    return pq.read_table(out / "results.parquet").to_pandas()


# ------------------------------------------------------------------------------------------------------------------------- the work list


def test_gold644_are_the_published_keys():
    keys = gold644()
    assert len(keys) == len(set(keys)) == 644 and all(len(key) == 36 for key in keys)
    assert keys[0] == "55b172f7-6e39-45d2-9860-ad55ef99d741"


@pytest.mark.slow
def test_clip_lists(clips, tmp_path):
    with open_source(clips) as source:
        ids = list(source.clip_ids)
        assert clip_list(None, source) == ids
        assert clip_list("2", source) == ids[:2]
        (tmp_path / "list.txt").write_text(f"# mine\n{ids[3]}\n\n{ids[1]}\n{ids[3]}\n")
        assert clip_list(str(tmp_path / "list.txt"), source) == [ids[3], ids[1]]
        for name in ("key", "clip_id"):
            pd.DataFrame({name: ids[:3]}).to_parquet(tmp_path / "list.parquet")
            assert clip_list(str(tmp_path / "list.parquet"), source) == ids[:3]
        pd.DataFrame({"id": ids}).to_parquet(tmp_path / "list.parquet")
        with pytest.raises(ValueError, match="columns index, id: expected key or clip_id"):
            clip_list(str(tmp_path / "list.parquet"), source)
        with pytest.raises(ValueError, match="no file 'gold'"):
            clip_list("gold", source)


@pytest.mark.slow
def test_moments(clips, config, tmp_path):
    with open_source(clips) as source:
        ids = list(source.clip_ids)
        assert work(config, source) == [Item(i, clip_id, 5_100_000) for i, clip_id in enumerate(ids)]
        grid = work(dataclasses.replace(config, t0="grid"), source)
        assert [item.t0_us for item in grid] == [5_100_000] * 6, "no whole second fits into these clips"
        (tmp_path / "t0.txt").write_text(f"{ids[2]} 5.1\n{ids[2]} 5.2\n{ids[0]} 5.15\n")
        timed = dataclasses.replace(config, t0=str(tmp_path / "t0.txt"))
        expected = [(ids[2], 5_100_000), (ids[2], 5_200_000), (ids[0], 5_150_000)]
        assert [(item.clip_id, item.t0_us) for item in work(timed, source)] == expected
        with pytest.raises(ValueError, match="has no t0 for 4 of 6"):
            work(dataclasses.replace(timed, clips="6"), source)
        with pytest.raises(ValueError, match="none of the 644 clips of gold644"):
            work(dataclasses.replace(config, clips="gold644"), source)


def test_the_grid_is_every_whole_second(config):
    with open_source("sample") as source:
        grid = work(dataclasses.replace(config, t0="grid", clips="2"), source)
        for clip_id in source.clip_ids[:2]:
            low, high = source.clip(clip_id).valid_t0()
            times = [item.t0_us for item in grid if item.clip_id == clip_id]
            assert len(times) > 2 and times == [t for t in range(0, 20_000_000, 1_000_000) if low <= t <= high]


# ------------------------------------------------------------------------------------------------------------------------------ survival


@pytest.mark.slow
def test_killed_three_times_it_gives_the_same_bytes(config, done, tmp_path):
    out, wait = tmp_path / "killed", random.Random(5)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["support.slow"])  # imported once, not by each of three
    for target in sorted(wait.sample(range(1, 6), 3)):
        child = processes.Process(target=evaluate_slowly, args=(config, out))
        child.start()
        until = time.monotonic() + 60
        while len(list(out.glob("rows/[0-9]*"))) < target and time.monotonic() < until and child.is_alive():
            time.sleep(0.005)
        time.sleep(wait.random() * 0.05)
        assert child.is_alive(), "it ended by itself: what it wrote to stderr says why"
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL and not (out / "results.parquet").exists()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("rows/[0-9]*")}
    (out / "rows" / ".000005.parquet.0a1b2c3d.unfinished").write_bytes(b"half a row")
    last = list(evaluate(config, out))
    assert last[0].done == len(before) >= 3 and last[-1].done == 6
    assert {name: (out / "rows" / name).stat().st_mtime_ns for name in before} == before, "a finished row was written again"
    assert (out / "results.parquet").read_bytes() == (done / "results.parquet").read_bytes()


def test_a_finished_folder_is_left_as_it_is(config, done):
    before = (done / "results.parquet").read_bytes()
    assert [p.done for p in evaluate(config, done)] == [6]
    assert (done / "results.parquet").read_bytes() == before


@pytest.mark.parametrize("changes", [{"samples": 3}, {"seed": 1}, {"clips": "3"}, {"t0": "5.0"}, {"threads": 2}, {"steps": 3}])
def test_another_protocol_is_refused(config, done, changes):
    asked = {name: changes.pop(name) for name in list(changes) if name in PlanOptions.__dataclass_fields__}
    changes = changes | {"plan": config.plan.updated(asked)}
    with pytest.raises(ValueError, match=r"holds another evaluation \(.*there and .* now.*another --out"):
        list(evaluate(dataclasses.replace(config, **changes), done))


def test_another_checkpoint_is_refused(config, done, tmp_path):
    shutil.copytree(GOLDEN / "checkpoint", tmp_path / "copy")
    moved = dataclasses.replace(config, checkpoint=str(tmp_path / "copy"))
    assert [p.done for p in evaluate(moved, done)] == [6], "the same weights elsewhere are the same checkpoint"
    shard = next((tmp_path / "copy").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint .* there and .* now"):
        list(evaluate(moved, done))


def test_rows_of_other_draws_are_not_added_to(config, done, monkeypatch):
    """The same seed in a version that draws other words."""
    monkeypatch.setattr("alpamayo_r1.evaluate.protocol.DRAWS", -1)
    with pytest.raises(ValueError, match=r"draws \d+ there and -1 now"):
        list(evaluate(config, done))


def test_an_edited_list_is_refused(config, clips, tmp_path):
    with open_source(clips) as source:
        ids = list(source.clip_ids)
    listed = dataclasses.replace(config, clips=str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text(ids[0])
    list(evaluate(listed, tmp_path / "out"))
    (tmp_path / "list.txt").write_text(ids[1])
    with pytest.raises(ValueError, match=r"holds another evaluation \(clips "):
        list(evaluate(listed, tmp_path / "out"))


def test_two_writers_are_refused(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="another evaluation is writing"), opened(tmp_path):
        pass


def test_a_row_comes_back_as_it_was(tmp_path):
    row = {name: 0.1 + i for i, name in enumerate(SCORES)} | {
        "index": 3,
        "clip_id": "c",
        "t0_us": 7,
        "reasoning": ["a", ""],
        "ended": [True],
    }
    store = Store(tmp_path)
    store.append(row | {"pred_xyz": [1.5, 2.5], "jerk": float("nan")})
    (back,) = store.read().to_pylist()
    assert store.done() == {3} and {name: back[name] for name in row if name != "jerk"} == {k: v for k, v in row.items() if k != "jerk"}
    assert np.isnan(back["jerk"]) and back["error"] is None and back["pred_xyz"] == [1.5, 2.5]


# ------------------------------------------------------------------------------------------------------------------------------ failures


def test_a_broken_clip_is_a_row_and_the_run_goes_on(config, clips, tmp_path):
    with open_source(clips) as source:
        ids = list(source.clip_ids)
    (tmp_path / "list.txt").write_text(f"{ids[0]}\nno-such-clip\n{ids[1]} \n")
    listed = dataclasses.replace(config, clips=str(tmp_path / "list.txt"))
    last = list(evaluate(listed, tmp_path / "out"))[-1]
    assert (last.done, last.total, last.failed) == (3, 3, 1)
    table = rows(tmp_path / "out")
    assert list(table["clip_id"]) == [ids[0], "no-such-clip", ids[1]]
    assert table["error"].isna().tolist() == [True, False, True] and table["error"][1].startswith("UnknownClip: no clip")
    assert np.isnan(table["min_ade"][1]) and np.isfinite(table["min_ade"][[0, 2]]).all()
    summary = summarise(tmp_path / "out")
    assert summary["failed"] == 1 and summary["figures"]["min_ade"]["count"] == 2
    again = list(evaluate(listed, tmp_path / "out", retry_failed=True))
    assert [p.done for p in again] == [2, 3]


def test_the_command_line_says_that_clips_failed(config, clips, tmp_path):
    from typer.testing import CliRunner

    from alpamayo_r1.cli.__main__ import app

    with open_source(clips) as source:
        (tmp_path / "list.txt").write_text(f"{source.clip_ids[0]}\nno-such-clip\n")
    options = ["--samples", "2", "--max-tokens", "6", "--steps", "2", "--threads", "1", "--no-report"]
    command = ["eval", "--checkpoint", config.checkpoint, "--data", str(clips), "--clips", str(tmp_path / "list.txt"), *options]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1 and "1 of 2 rows failed" in result.output, result.output
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--seed", "3"])
    assert result.exit_code == 2 and "seed 42 there and 3 now" in " ".join(result.output.split())


@pytest.mark.parametrize("options", [{"top_p": 0.0}, {"temperature": -1.0}, {"max_tokens": 0}, {"samples": 0}, {"steps": 0}])
def test_options_that_no_plan_can_have_are_refused_before_any_work(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EvalConfig(plan=PROTOCOL.updated(options))


def test_a_gpu_is_chosen_by_its_number(monkeypatch):
    """It is planned on, and the rows do not depend on which."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    chosen = resolve(EvalConfig(device="cuda:3", fast=False))
    assert chosen.device == "cuda:3"
    assert identity(chosen, [], "data") == identity(dataclasses.replace(chosen, device="cuda:1"), [], "data")


def test_a_plan_that_never_fits_ends_the_evaluation():
    assert is_fatal(DoesNotFit("too large")) and not is_fatal(ValueError("this clip")) and not is_fatal(torch.OutOfMemoryError("this plan"))


def test_the_running_mean_counts_rows_with_a_known_future():
    progress = Progress(0, 4, 0, 0, float("nan"))
    for value in (1.0, float("nan"), None, 3.0):
        progress = advance(progress, {"min_ade": value, "error": None if value is not None else "broken", "known_steps": 64})
    progress = dataclasses.replace(advance(progress, {"min_ade": 0.1, "error": None, "known_steps": 31}), done=4)
    assert (progress.done, progress.failed, progress.scored, progress.min_ade) == (4, 1, 2, 2.0)


# ------------------------------------------------------------------------------------------------------------------------------- figures


def straight(speed: float, steps: range) -> Trajectory:
    x = speed * 0.1 * torch.tensor(steps, dtype=torch.float32)
    return Trajectory(torch.stack([x, 0 * x, 0 * x], -1), rot_z(0 * x))


def plan_of(paths: list[Trajectory], words: list[str]) -> Plan:
    xyz, rot = torch.stack([p.xyz for p in paths]), torch.stack([p.rot for p in paths])
    return Plan(xyz, rot, tuple(words), torch.zeros(len(paths), 64, 2), tuple(bool(w) for w in words), {})


def test_a_row_by_hand():
    history = straight(10, range(-15, 1))
    truth = straight(10, range(1, 65))
    sample = dataclasses.replace(sample_of(xyz=history.xyz, rot=history.rot), future=truth)
    shifted = Trajectory(truth.xyz + torch.tensor([0.0, 3.0, 0.0]), truth.rot)
    row = score(sample, plan_of([shifted, straight(9, range(1, 65))], ["Keep speed since the road is clear", ""]))
    behind = 0.1 * np.arange(1, 65)
    assert row["min_ade"] == pytest.approx(3.0) and row["ade"] == pytest.approx((3 + behind.mean()) / 2, rel=1e-5)
    assert row["min_ade_0.5s"] == pytest.approx(3.0) and row["ade_1s"] == pytest.approx((3 + behind[:10].mean()) / 2, rel=1e-5)
    assert row["min_ade_6.4s"] == pytest.approx(row["min_ade"]) and row["min_fde"] == pytest.approx(3.0)
    assert row["miss"] == 1 and row["heading_error"] == 0 and row["violations"] == 0
    assert row["words"] == 3.5 and row["malformed"] == 0.5 and row["verdict"] == ["inconsistent", "unclear"], "it leaps to the side"
    assert row["inconsistent"] == row["unclear"] == 0.5 and row["cv_min_ade"] == pytest.approx(0, abs=1e-5)
    assert row["speed"] == pytest.approx(10) and row["curvature"] == 0
    assert set(SCORES) <= set(row) and set(row) <= set(SCHEMA.names)


def test_corners_are_those_of_the_clips_car():
    truth = straight(10, range(1, 65))
    turned = plan_of([Trajectory(truth.xyz, rot_z(torch.full((64,), 0.2)))], ["Keep speed"])
    told = [{}, {"vehicle": dict(CAR)}, {"vehicle": {"length": 12.0}}]
    plain, same, bus = (score(dataclasses.replace(sample_of(), future=truth, meta=meta), turned)["corner_distance"] for meta in told)
    assert 0 < plain == same < bus


def test_without_a_future_errors_are_masked():
    sample = dataclasses.replace(sample_of(), future=None)
    row = score(sample, plan_of([constant_velocity(sample.observation.history)], ["Remain stopped"]))
    assert np.isnan([row[name] for name in ("min_ade", "ade_1s", "miss", "cv_min_ade", "heading_error", "corner_distance")]).all()
    assert row["gt_xyz"] is None and row["verdict"] == ["consistent"] and row["longitudinal"] == 0


def test_violations_by_hand():
    speed = torch.tensor([5.0, 5.0, 6.2, 6.2, 6.2, 6.2])
    x = (speed * 0.1).cumsum(0)
    xyz = torch.stack([x, 0 * x, 0 * x], -1)
    yaw = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.3])
    found = violations(xyz, rot_z(yaw))
    assert found.value.item() == pytest.approx(2 / 4), "12 m/s^2 at one step, 0.48 1/m at another"
    assert violations(xyz[:, [1, 0, 2]], rot_z(0 * yaw)).value.item() == pytest.approx(1 / 4)


# ------------------------------------------------------------------------------------------------------------------ summary and compare


def test_summary(done):
    summary, table = summarise(done), rows(done)
    assert json.loads((done / "summary.json").read_text())["rows"] == summary["rows"] == 6
    found = summary["figures"]["min_ade"]
    assert found["mean"] == pytest.approx(table["min_ade"].mean()) and np.isnan(found["low"]), "six clips have no interval"
    assert summary["min_ade_by_k"][-1] == pytest.approx(table["min_ade"].mean())
    assert summary["min_ade_by_k"] == sorted(summary["min_ade_by_k"], reverse=True)
    for kind in ("speed", "curvature", "decision"):
        assert sum(part["min_ade"]["count"] for part in summary["buckets"][kind].values()) == 6
    assert 0 < summary["throughput"]["planning"] <= 1 and summary["versions"]["torch"] == torch.__version__
    assert "free to share" in summary["notice"]


def test_compare_finds_a_difference_and_none(done, tmp_path):
    rng, many = np.random.default_rng(0), pd.concat([rows(done)] * 5, ignore_index=True)
    many["clip_id"] = [f"clip {i}" for i in range(len(many))]
    settings = json.loads((done / "config.json").read_text())
    for name, seed in (("first", 42), ("second", 7)):
        (tmp_path / name).mkdir()
        changed = settings | {"config": settings["config"] | {"plan": settings["config"]["plan"] | {"seed": seed}}}
        (tmp_path / name / "config.json").write_text(json.dumps(changed))
    many.to_parquet(tmp_path / "first" / "results.parquet", index=False)
    other = many.iloc[::-1].iloc[:28].assign(min_ade=lambda t: t["min_ade"] - rng.normal(1, 0.1, len(t)))
    other["jerk"] += rng.normal(0, 1, len(other))
    other.to_parquet(tmp_path / "second" / "results.parquet", index=False)
    result = compare(tmp_path / "first", tmp_path / "second")
    assert (result["pairs"], result["only_first"], result["only_second"]) == (28, 2, 0)
    assert result["differs"] == {"seed": [42, 7]}
    found = result["figures"]["min_ade"]
    assert found["clear"] and found["difference"]["low"] < -1 < found["difference"]["high"] < -0.9
    assert found["second"] - found["first"] == pytest.approx(found["difference"]["mean"])
    assert not result["figures"]["jerk"]["clear"] and result["figures"]["min_fde"]["difference"]["high"] == 0
    assert not result["figures"]["min_fde"]["clear"], "nothing differs"


def test_compare_needs_rows_in_common(done, tmp_path):
    with pytest.raises(ValueError, match="no finished evaluation"):
        compare(done, tmp_path)
    shutil.copytree(done, tmp_path / "other")
    rows(done).assign(t0_us=1).to_parquet(tmp_path / "other" / "results.parquet", index=False)
    with pytest.raises(ValueError, match="no clip and t0 in common"):
        compare(done, tmp_path / "other")


def test_reading_overlaps_and_keeps_order():
    from concurrent.futures import ThreadPoolExecutor

    begun = []

    def read(n: int) -> int:
        begun.append(n)
        time.sleep(0.02)
        return n

    with ThreadPoolExecutor(2) as pool:
        for n, (value, waited) in ahead(pool, read, range(8), depth=3):
            time.sleep(0.05)
            assert value == n and len(begun) <= n + 4
            assert n == 0 or waited < 15, "the next one was not read ahead"


def test_a_flipped_bit_in_the_results_is_noted_or_refused(done, tmp_path):
    out = Path(shutil.copytree(done, tmp_path / "out"))
    summarise(out)  # as it was written: no word
    content = (out / "results.parquet").read_bytes()
    for place in range(4, len(content), len(content) // 20):
        (out / "results.parquet").write_bytes(content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :])
        with pytest.warns(NoteWarning, match="results-changed"), contextlib.suppress(ValueError):
            summarise(out)
