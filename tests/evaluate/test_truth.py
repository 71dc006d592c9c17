"""Results say no more than they know: rows know their place, data sets are known by content, lists lose no clip, compare sees protocols."""

from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.core.notes import Note, NoteWarning
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.core.types import CAMERAS, F, H, Observation, Plan, Sample, Trajectory
from alpamayo_r1.evaluate import EvalConfig, compare, evaluate, summarise
from alpamayo_r1.evaluate.lists import microseconds, read_list
from alpamayo_r1.evaluate.score import score
from alpamayo_r1.evaluate.store import SCHEMA, SEALS, checksum, opened
from alpamayo_r1.evaluate.summary import over
from alpamayo_r1.evaluate.worker import threads
from alpamayo_r1.world.clips import write_clips
from conftest import GOLDEN

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*ended without")]
ROWS = 4


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("truth") / "clips"
    with threads(1):
        write_clips(range(820_000, 820_000 + ROWS), out, width=128, height=72, seconds=0.5, t_start=4.75, supersample=1, threads=1)
    return out


@pytest.fixture(scope="module")
def config(clips) -> EvalConfig:
    return EvalConfig(str(GOLDEN / "checkpoint"), str(clips), plan=PlanOptions(samples=2, seed=42, max_tokens=4, steps=1), threads=1)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("truth") / "out"
    assert list(evaluate(config, out))[-1].done == ROWS
    return out


@pytest.fixture
def out(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "out")
    return tmp_path / "out"


def part(out: Path, index: int) -> Path:
    return out / "rows" / f"{index:06d}.parquet"


def flip(out: Path) -> int:
    """Turns one bit of the row's file, at the first place from its middle on where that changes what is read."""
    good = part(out, 1).read_bytes()
    before = pq.read_table(part(out, 1))
    for at in range(len(good) // 2, len(good)):
        part(out, 1).write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        try:
            if not pq.read_table(part(out, 1)).equals(before):
                return 1
        except Exception:
            return 1
    raise AssertionError("no bit of the file means anything")


def flip_a_figure(out: Path) -> int:
    table = pd.read_parquet(part(out, 1)).assign(min_ade=0.001)
    table.to_parquet(part(out, 1), index=False)
    return 1


def swap(out: Path) -> int:
    first, second = part(out, 1).read_bytes(), part(out, 2).read_bytes()
    part(out, 1).write_bytes(second)
    part(out, 2).write_bytes(first)
    return 2


def rename(out: Path) -> int:
    part(out, 2).rename(out / "rows" / "000077.parquet")
    return 1


def extra(out: Path) -> int:
    shutil.copy(part(out, 2), part(out, ROWS))
    return 1


def duplicate(out: Path) -> int:
    shutil.copy(part(out, 2), out / "rows" / "2.parquet")
    return 1


def cut(out: Path) -> int:
    part(out, 0).write_bytes(part(out, 0).read_bytes()[:500])
    return 1


def foreign(out: Path) -> int:
    row = pq.read_table(part(out, 3), schema=SCHEMA).to_pylist()[0] | {"evaluation": "another"}
    row["checksum"] = checksum(row)
    pq.write_table(pq.read_table(part(out, 3), schema=SCHEMA).from_pylist([row], schema=SCHEMA), part(out, 3))
    return 1


@pytest.mark.parametrize("harm", [flip, flip_a_figure, swap, rename, extra, duplicate, cut, foreign])
def test_a_row_that_is_not_the_one_that_was_written_is_reported_and_planned_again(config, whole, out, harm):
    count = harm(out)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", NoteWarning)
        last = list(evaluate(config, out))[-1]
    told = [w.message.note for w in caught if isinstance(w.message, NoteWarning) and w.message.note.code == "row-set-aside"]
    assert len(told) == count and (last.done, last.total, last.failed) == (ROWS, ROWS, 0)
    assert (out / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()
    assert len(list((out / "rows").iterdir())) == ROWS and len(list((out / "set_aside").iterdir())) == count


def test_rows_that_change_while_an_evaluation_runs_are_not_published(config, out):
    (out / "results.parquet").unlink()
    part(out, 3).unlink()
    with pytest.raises(ValueError, match=r"rows/000001.parquet does not have the content|rows/000001.parquet can't be read"):
        for progress in evaluate(config, out):
            if progress.row is not None:
                flip(out)
    assert not (out / "results.parquet").exists()


def test_a_moved_data_set_resumes_and_another_one_with_the_same_ids_is_refused(config, out, clips, tmp_path):
    part(out, 2).unlink()
    shutil.copytree(clips, tmp_path / "moved")
    moved = dataclasses.replace(config, data=str(tmp_path / "moved"))
    assert [p.done for p in evaluate(moved, out)] == [ROWS - 1, ROWS]
    part(out, 2).unlink()
    chunk = next((tmp_path / "moved").rglob("*front_wide*.zip"))
    other = next((tmp_path / "moved").rglob("*cross_left*.zip"))
    shutil.copy(other, chunk)
    with pytest.raises(ValueError, match=r"holds another evaluation: camera.*is not the file that its rows were made"):
        list(evaluate(moved, out))
    labels = tmp_path / "moved" / "world" / "labels.parquet"
    labels.write_bytes(labels.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"holds another evaluation \(data "):
        list(evaluate(moved, out))


@pytest.mark.parametrize("name", ["config.json", "inputs.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '{"config": 1}', "\x00"])
def test_a_broken_settings_file_is_an_error_with_its_name(config, out, name, content):
    (out / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        list(evaluate(config, out))


@pytest.mark.parametrize("name", ["results.parquet", "timing.parquet", "config.json"])
def test_a_broken_result_is_an_error_with_its_name(out, name):
    (out / name).write_bytes((out / name).read_bytes()[:100])
    with pytest.raises(ValueError, match=name):
        summarise(out)


def test_links_are_not_written_through(config, out, tmp_path):
    (tmp_path / "precious").write_bytes(b"mine")
    (out / ".lock").unlink(missing_ok=True)
    (out / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="is a link"):
        list(evaluate(config, out))
    (out / ".lock").unlink()
    (out / "results.parquet").unlink()
    (out / "results.parquet").symlink_to(tmp_path / "precious")
    list(evaluate(config, out))
    assert (tmp_path / "precious").read_bytes() == b"mine" and not (out / "results.parquet").is_symlink()
    shutil.move(out / "rows", tmp_path / "elsewhere")
    (out / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link"), opened(out):
        pass


# ------------------------------------------------------------------------------------------------------------------------------- lists

LISTS = {
    "plain": "a\nb\nc\n",
    "byte order mark": "\ufeffa\nb\nc\n",
    "header": "clip_id\na\nb\nc",
    "byte order mark and header": "\ufeffkey,t0\r\na,5\r\nb,5\r\nc,5\r\n",
    "other order": "t0,clip_id\n5,a\n5,b\n5,c\n",
    "line ends of Windows": "a\r\nb\r\nc\r\n",
    "line ends of old": "a\rb\rc",
    "comments": "# mine\n  # more\na # first\n\nb\nc\n",
    "tabs and semicolons": "a\t5\nb;5\nc, 5\n",
    "quotes": '"a"\n"b"\n"c"\n',
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
def test_no_clip_of_a_list_is_lost(tmp_path, text):
    (tmp_path / "list.txt").write_bytes(text.encode())
    assert [clip_id for clip_id, _ in read_list(tmp_path / "list.txt")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "../../escaped\n",
        "a/b\n",
        "a soon\n",
        "a nan\n",
        "a inf\n",
        "a 1e308\n",
        "a 1 2\n",
        "a\x00\n",
        "clip_id\n",
        "t0,clip_id\n5\n",
    ],
)
def test_lists_that_mean_nothing_are_refused_with_their_line(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=r"list\.txt"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"\x80\n", b"PK\x03\x04"])
def test_lists_that_are_no_text_are_refused(tmp_path, content):
    for name in ("list.txt", "list.parquet"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_list(tmp_path / name)


@pytest.mark.parametrize(
    "table",
    [
        {"key": [1, 2]},
        {"key": [None]},
        {"clip_id": ["a"], "t0": ["soon"]},
        {"clip_id": ["a"], "t0": [np.nan]},
        {"key": ["a"], "t0_us": [1e300]},
        {"x": [1]},
    ],
)
def test_parquet_lists_of_wrong_types_are_refused(tmp_path, table):
    pd.DataFrame(table).to_parquet(tmp_path / "list.parquet")
    with pytest.raises(ValueError, match=r"list\.parquet"):
        read_list(tmp_path / "list.parquet")


def test_times_are_bounded():
    assert microseconds("5.1", "--t0") == 5_100_000
    for wrong in ("nan", "inf", "-1e308", None, [], "soon"):
        with pytest.raises(ValueError, match="--t0 is"):
            microseconds(wrong, "--t0")


# ------------------------------------------------------------------------------------------------------------------ truths and figures


def drive(speed: float, first: int, last: int, wrong_way: bool = False) -> Trajectory:
    x = speed * 0.1 * torch.arange(first, last, dtype=torch.float32)
    return Trajectory(torch.stack([x, 0 * x, 0 * x], -1), rot_z(0 * x))


def sample_of(speed: float, future: Trajectory | None, notes: tuple[Note, ...] = ()) -> Sample:
    frames = torch.zeros(4, 4, 3, 8, 8, dtype=torch.uint8)
    return Sample(Observation(frames, CAMERAS, drive(speed, 1 - H, 1), 0), future, "clip", {"source": "world"}, notes)


def plan_of(*paths: Trajectory, words: str = "Keep speed", notes: tuple[Note, ...] = ()) -> Plan:
    xyz, rot = torch.stack([p.xyz for p in paths]), torch.stack([p.rot for p in paths])
    return Plan(xyz, rot, (words,) * len(paths), torch.zeros(len(paths), F, 2), (True,) * len(paths), {}, notes=notes)


def test_a_partial_truth_is_scored_over_its_known_steps():
    truth = drive(10, 1, F + 1)
    partial = Trajectory(truth.xyz.clone(), truth.rot.clone())
    partial.xyz[-1], partial.rot[-1] = torch.nan, torch.nan
    slow = plan_of(drive(9, 1, F + 1))
    row = score(sample_of(10, partial), slow)
    assert row["known_steps"] == F - 1 and row["min_ade"] == pytest.approx(0.1 * np.arange(1, F).mean(), rel=1e-5)
    assert np.isnan(row["min_fde"]) and row["curvature"] == 0 and row["cv_min_ade"] == pytest.approx(0, abs=1e-4)
    assert score(sample_of(10, truth), slow)["known_steps"] == F and score(sample_of(10, None), slow)["known_steps"] == 0


def test_rows_name_the_chosen_sample_and_the_notes():
    truth, invalid = drive(10, 1, F + 1), Note("clip-invalid", "The data set calls this clip invalid.")
    plan = plan_of(drive(7, 1, F + 1), drive(10, 1, F + 1), notes=(Note("history-fast", "Fast."),))
    row = score(sample_of(10, truth, (invalid,)), plan)
    assert (row["chosen"], row["chosen_by"], row["notes"]) == (1, "truth", ["clip-invalid", "history-fast"])
    assert row["ade"] > row["min_ade"] == pytest.approx(0, abs=1e-5)
    assert score(sample_of(10, None), plan)["chosen_by"] == "first"


def test_reversing_has_a_sign():
    row = score(sample_of(-3, drive(-3, 1, F + 1)), plan_of(drive(-3, 1, F + 1), words="Start driving"))
    assert row["speed"] == pytest.approx(-3) and row["cv_min_ade"] == pytest.approx(0, abs=1e-4)
    assert row["ctra_min_ade"] == pytest.approx(0, abs=1e-4) and row["verdict"] == ["inconsistent"] and row["violations"] == 0


def test_summaries_count_notes_and_partial_truths_and_name_clips(out):
    table = pq.read_table(out / "results.parquet").to_pandas()
    table["notes"] = [["clip-invalid"], [], ["clip-invalid", "x"], []]
    table["known_steps"] = [64, 63, 0, 64]
    table["clip_id"] = ["a", "a", "b", "b"]
    table.to_parquet(out / "results.parquet", index=False)
    summary = summarise(out)
    assert summary["notes"] == {"clip-invalid": 2, "x": 1} and summary["partial"] == 1 and summary["clips"] == 2
    assert "over 2 clips (4 rows)" in over(summary) and "clip-invalid 2" in over(summary)


def test_rows_that_know_less_than_half_of_the_truth_enter_no_mean_over_the_whole_horizon(out):
    """Of four rows one knows 31 steps: figures over 6.4 s, and those of the sample that is best over them, are means of three."""
    table = pq.read_table(out / "results.parquet").to_pandas()
    before = summarise(out)["figures"]
    unknown = np.array(table["gt_xyz"][2]).reshape(F, 3)
    unknown[31:] = np.nan
    table.at[2, "gt_xyz"], table.at[2, "known_steps"] = unknown.ravel().tolist(), 31
    table.loc[2, ["min_ade", "ade", "cv_min_ade", "min_ade_0.5s", "ade_5s", "ade_3s"]] = 0.001
    table.at[2, "sample_ade"] = [0.001, 0.001]
    table.to_parquet(out / "results.parquet", index=False)
    summary, others = summarise(out), table.drop(index=2)
    for name in ("min_ade", "ade", "cv_min_ade", "min_ade_0.5s", "min_ade_6.4s", "heading_error", "corner_distance"):
        found = summary["figures"][name]
        assert (found["count"], found["masked"], found["mean"]) == (3, 1, pytest.approx(others[name].mean())), name
    assert summary["figures"]["ade_5s"]["count"] == 4, "31 of its 50 steps are known"
    assert summary["figures"]["ade_3s"]["mean"] == pytest.approx(table["ade_3s"].mean())
    assert summary["figures"]["jerk"]["count"] == before["jerk"]["count"] == 4, "no truth is needed"
    assert summary["min_ade_by_k"][-1] == pytest.approx(others["min_ade"].mean())
    assert (summary["partial"], summary["mostly_unknown"]) == (1, 1) and "1 of them over half of it" in over(summary)


# --------------------------------------------------------------------------------------------------------------------------- A against B


def two(out: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluations of 30 clips, of which the second is better by a metre everywhere."""
    first, second = tmp_path / "first", tmp_path / "second"
    table = pd.concat([pq.read_table(out / "results.parquet").to_pandas()] * 8, ignore_index=True).iloc[:30]
    table["clip_id"] = [f"clip {i}" for i in range(30)]
    for folder, gain in ((first, 0.0), (second, 1.0)):
        folder.mkdir()
        shutil.copy(out / "config.json", folder)
        changed = table.assign(min_ade=table["min_ade"] - gain + np.random.default_rng(1).normal(0, 0.1, 30) * gain)
        changed.to_parquet(folder / "results.parquet", index=False)
    return first, second


def change(folder: Path, **values) -> None:
    settings = json.loads((folder / "config.json").read_text())
    for place, value in values.items():
        at = settings
        *way, last = place.split("__")
        for step in way:
            at = at[step]
        at[last] = value
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "place, value, why",
    [
        ("config__plan__samples", 1, "samples 2 and 1"),
        ("config__t0", "grid", "t0 5.1 and grid"),
        ("identity__data", "other", "data sets differ"),
        ("identity__row_version", 1, "rows of version"),
    ],
)
def test_compare_calls_no_difference_of_two_protocols_clear(out, tmp_path, place, value, why):
    first, second = two(out, tmp_path)
    assert compare(first, second)["figures"]["min_ade"]["clear"] and compare(first, second)["apart"] == []
    change(second, **{place: value})
    result = compare(first, second)
    assert (len(result["apart"]) == 1 and result["apart"][0].startswith(why)) or why in result["apart"][0]
    assert not any(figure["clear"] for figure in result["figures"].values())


def test_compare_calls_no_difference_clear_where_clips_were_read_differently(out, tmp_path):
    first, second = two(out, tmp_path)
    table = pd.read_parquet(second / "results.parquet")
    table["notes"] = [["clip-invalid"]] + [[]] * 29
    table.to_parquet(second / "results.parquet", index=False)
    assert "1 pairs have other notes" in compare(first, second)["apart"][0]


def test_compare_resamples_clips(out, tmp_path):
    first, second = two(out, tmp_path)
    for folder in (first, second):
        table = pd.read_parquet(folder / "results.parquet")
        table["clip_id"] = [f"clip {i // 5}" for i in range(30)]
        table["t0_us"] = list(range(30))
        table.to_parquet(folder / "results.parquet", index=False)
    result = compare(first, second)
    assert (result["pairs"], result["clips"]) == (30, 6) and result["figures"]["min_ade"]["difference"]["low"] is None, (
        "six clips, no interval"
    )


def test_seals_stay_out_of_results(whole):
    assert not set(SEALS) & set(pq.read_schema(whole / "results.parquet").names)
