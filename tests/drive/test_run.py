"""Drives on the disk: what happened is judged, rows outlast a kill, and a folder is of one kind of drive."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.hub import SMALL
from alpamayo_r1.core.options import PlanOptions
from alpamayo_r1.drive.drivers import CONTROLS
from alpamayo_r1.drive.report import summarise, write_report
from alpamayo_r1.drive.run import Config, drive, driven
from alpamayo_r1.drive.score import contacts, judge, off_road, on_the_wrong_side
from alpamayo_r1.drive.simulation import FIRST, Setting, Simulation
from alpamayo_r1.planner import Planner
from alpamayo_r1.testing import tiny_checkpoint
from alpamayo_r1.world.families import EGO_FRONT
from alpamayo_r1.world.simulate import simulate

pytestmark = pytest.mark.slow

SHORT = Setting(seconds=2.0, replan=0.5, width=64, height=36)
SEEDS = (830_001, 830_004, 830_011)


def moved(seeds, family, along=0.0, aside=0.0, steps=40):
    """A recorded scene whose ego is shifted along and beside its own way from step FIRST on."""
    scene = simulate(seeds, seconds=8.0, families=[family] * len(seeds))
    ego = scene.ego.clone()
    yaw = ego[:, FIRST:, 2]
    ego[:, FIRST:, 0] += along * yaw.cos() - aside * yaw.sin()
    ego[:, FIRST:, 1] += along * yaw.sin() + aside * yaw.cos()
    return scene, replace(scene, ego=ego)


def test_running_into_a_standing_vehicle_is_the_egos_fault_and_being_run_into_is_not():
    recorded, ahead = moved([830_100], "queue", along=4.0)
    (hit,) = contacts(ahead, FIRST)
    assert hit is not None and hit.side == "front" and hit.at_fault
    (row,) = judge(ahead, recorded, FIRST)
    assert row["score"] == 0 and row["collision"].startswith("front of the ego meets a")
    track = recorded.track.clone()
    behind = recorded.ego[:, :, :2] - 3.0 * torch.stack([recorded.ego[..., 2].cos(), recorded.ego[..., 2].sin()], -1)
    track[0, 0] = torch.cat([behind, recorded.ego[..., 2:]], -1)[0]
    (hit,) = contacts(replace(recorded, track=track), FIRST)
    assert hit is not None and hit.side == "rear" and not hit.at_fault
    assert judge(replace(recorded, track=track), recorded, FIRST)[0]["score"] == 1


def test_the_roads_edge_and_the_wrong_side_are_seen():
    recorded, aside = moved(range(830_100, 830_110), "cruise", aside=-6.0)
    right = recorded.road.right_lanes == 0
    assert off_road(aside, FIRST)[right].any(1).all() and not off_road(recorded, FIRST).any()
    lane = recorded.road.lane_width[0]
    recorded, left = moved(range(830_100, 830_130), "cruise", aside=float(lane))
    two_ways = (recorded.road.oncoming > 0) & (recorded.road.left_lanes == 0)
    assert two_ways.any() and on_the_wrong_side(left, FIRST)[two_ways].any(1).all()
    assert not on_the_wrong_side(recorded, FIRST).any()


@pytest.mark.parametrize("family, name", [("red_light", "red_light_run"), ("stop_sign", "stop_sign_run")])
def test_lines_that_are_run_are_seen(family, name):
    seeds = list(range(830_100, 830_104))
    recorded = simulate(seeds, seconds=12.0, families=[family] * 4)
    assert not any(row[name] for row in judge(recorded, recorded, FIRST))
    simulation = Simulation(seeds, Setting(seconds=10.0), [family] * 4)
    for _ in range(simulation.setting.steps):
        simulation.step(CONTROLS["constant"](simulation).reference, 0.0)
    rows = judge(simulation.driven(), simulation.recorded, FIRST)
    crossed = simulation.driven().road.frenet(simulation.scene.ego[:, : simulation.now + 1, :2])[..., 0].amax(1) + EGO_FRONT
    reached = crossed > simulation.scene.road.stop_line + 1
    assert reached.any() and [row[name] for row in rows] == reached.tolist()


def test_standing_still_makes_no_progress():
    recorded = simulate([830_100], seconds=8.0, families=["cruise"])
    ego = recorded.ego.clone()
    ego[:, FIRST:] = ego[:, FIRST : FIRST + 1]
    (row,) = judge(replace(recorded, ego=ego, speed=recorded.speed * 0), recorded, FIRST)
    assert row["progress"] < 0.01 and row["score"] < 0.02 and not row["collision_at_fault"]


def test_rows_outlast_a_kill_and_are_the_same(tmp_path):
    config = Config(SEEDS, "lane", setting=SHORT)
    whole = list(drive(config, None, tmp_path / "whole"))
    some = drive(config, None, tmp_path / "killed")
    next(some)
    some.close()
    (tmp_path / "killed" / "rows" / "000001.json").write_text("{}")
    assert list(drive(config, None, tmp_path / "killed")) == whole
    for index in range(len(SEEDS)):
        name = f"rows/{index:06d}.json"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_a_folder_holds_one_kind_of_drive(tmp_path):
    list(drive(Config(SEEDS[:1], "lane", setting=SHORT), None, tmp_path))
    with pytest.raises(ValueError, match=r"other drives \(driver differ\)"):
        next(drive(Config(SEEDS[:1], "constant", setting=SHORT), None, tmp_path))
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="link"):
        next(drive(Config(SEEDS[:1], "lane", setting=SHORT), None, tmp_path))


@pytest.mark.parametrize("wrong", [{"driver": "nobody"}, {"family": "flood"}, {"seeds": ()}, {"plan": PlanOptions()}])
def test_what_cannot_be_driven_is_refused(wrong):
    with pytest.raises(ValueError):
        Config(**{"seeds": SEEDS, **wrong})


@pytest.mark.slow
def test_the_model_drives_speaks_and_is_filmed(tmp_path):
    planner = Planner.of(*load_checkpoint(SMALL, dtype=torch.float32))
    config = Config((830_004,), setting=replace(SHORT, seconds=1.0, delay=0.2), plan=PlanOptions(seed=42, max_tokens=24))
    (row,) = drive(config, planner, tmp_path, films=True)
    assert row["words"] and row["score"] > 0 and row["plan_deviation_m"] is not None
    assert (tmp_path / "films" / "830004.mp4").stat().st_size > 1000
    summary = write_report(tmp_path, [row], config.identity())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (
        row["words"][0][1] in page and 'href="films/830004.mp4"' in page and json.loads((tmp_path / "summary.json").read_text()) == summary
    )


def test_the_summary_counts_incidents_and_resamples_scenes():
    rows = driven(Config(tuple(range(830_000, 830_012)), "constant", setting=replace(SHORT, seconds=6.0)), None, range(830_000, 830_012))
    found = summarise(rows)
    bad = sum(row["collision"] is not None or row["off_road"] for row in rows)
    assert bad and found["km_between_incidents"] == pytest.approx(sum(r["metres"] for r in rows) / 1000 / bad, rel=1e-2)
    score = found["figures"]["score"]
    assert score["scenes"] == 12 and score["low"] < score["mean"] < score["high"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_drive_is_recorded_moment_by_moment(tmp_path):
    pytest.importorskip("rerun", reason="needs the extra rerun")
    from alpamayo_r1.predict.rerun import recorded

    planner = Planner.of(*load_checkpoint(tiny_checkpoint(tmp_path / "tiny"), dtype=torch.float32))
    setting = replace(SHORT, seconds=1.0)
    config = Config(SEEDS[:1], "model", str(tmp_path / "tiny"), None, setting, PlanOptions(seed=1, max_tokens=2, steps=1))
    moments = []
    with recorded(tmp_path / "a.rrd") as recorder:

        def both(sample, plan):
            moments.append(sample.observation.t0_us)
            recorder.add(sample, plan)

        assert len(list(drive(config, planner, tmp_path / "out", record=both))) == 1
    assert moments == [moments[0], moments[0] + 500_000] and (tmp_path / "a.rrd").stat().st_size > 10_000
    with pytest.raises(ValueError, match="holds this drive already"):
        list(drive(config, planner, tmp_path / "out", record=both))
    for other in (replace(config, seeds=SEEDS), replace(config, driver="lane")):
        with pytest.raises(ValueError, match="a recording holds one scene that a model drives"):
            list(drive(other, planner, tmp_path / "other", record=both))


def test_a_drive_refuses_a_recording_before_it_begins(tmp_path):
    done = CliRunner().invoke(app, ["drive", "--out", str(tmp_path / "out"), "--rerun", str(tmp_path / "a.txt")])
    assert done.exit_code == 2 and "expected a name that ends in .rrd" in done.output and not (tmp_path / "out").exists()
