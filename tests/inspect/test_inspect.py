"""The whole check on recordings of our world: nothing wrong where nothing is, the planted fault by its name, a page, an exit code."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.data.source import open_source
from alpamayo_r1.inspect import check
from alpamayo_r1.inspect.cameras import Look, Mounting
from alpamayo_r1.inspect.check import Inspection
from alpamayo_r1.inspect.clock import shift_of
from alpamayo_r1.inspect.findings import OK, UNKNOWN, WRONG
from alpamayo_r1.inspect.motion import Motion
from alpamayo_r1.inspect.paths import path_of
from alpamayo_r1.rig.nominal import facing
from alpamayo_r1.world.recordings import OTHER_CAR, Car, write_recording
from alpamayo_r1.world.simulate import simulate
from support.tracks import winding

pytestmark = pytest.mark.slow
MIRRORED = "pictures-mirrored"


def test_a_clock_shift_is_found_to_20_ms():
    """Speed and turns that the pictures would say, noisy, of a car that the poses place 0.12 s off."""
    path = path_of(winding())
    noise = np.random.default_rng(0)
    times = np.stack([2 + 0.1 * np.arange(100), 2.3 + 0.1 * np.arange(100)], -1)
    for shift in (0.0, 0.12, -0.3):
        shown = times + shift
        ahead = np.array([path.distance(pair)[0] for pair in shown]) + noise.normal(0, 0.03, 100)
        turn = np.array([path.turned(pair)[0] for pair in shown]) + noise.normal(0, 0.003, 100)
        motion = Motion(np.stack([1.05 * ahead, 0 * ahead], -1), np.ones(100), turn - 0.002, np.ones(100), np.zeros(100))
        found = shift_of(motion, times, path, road=True, turns=True)
        assert abs(found.seconds - shift) < 0.02 and found.error < 0.02


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    car = Car(rig={name: OTHER_CAR[name] for name in ("left", "right")}, fps=10)
    scene = simulate([970_010], seconds=12, families=["curve"])
    return write_recording(
        scene, tmp_path_factory.mktemp("drive"), car=car, width=400, height=224, start=1.0, seconds=4.0, after=1.0, crf=18, supersample=1
    )


def changed(recording: Path, to: Path, change) -> Path:
    """A copy whose recording.yaml is changed."""
    shutil.copytree(recording, to)
    said = yaml.safe_load((to / "recording.yaml").read_text())
    change(said)
    (to / "recording.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    return to


@pytest.mark.slow
def test_a_clean_recording_raises_no_alarm_and_has_a_page(recording, tmp_path):
    done = CliRunner().invoke(app, ["inspect", str(recording), "--out", str(tmp_path / "page.html"), "--json"])
    said = json.loads(done.stdout)
    assert done.exit_code == 0 and not said["wrong"], [f for f in said["findings"] if f["verdict"] == WRONG]
    assert {f["verdict"] for f in said["findings"]} <= {"ok", "attention", "cannot tell"}
    written = (tmp_path / "page.html").read_text()
    assert written.count("data:image/jpeg") == 2 + len(open_source(recording).origin.coverage) and "data:image/png" in written


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["pose-speed", "camera-height", "extrinsics-inverted", "cameras-swapped"])
def test_a_planted_fault_is_named_with_what_to_do(recording, tmp_path, fault):
    def plant(said):
        cameras = said["cameras"]
        if fault == "pose-speed":
            said["poses"]["position"]["columns"] = ["x", "y", "z"]
            said["poses"]["speed"]["unit"] = "km/h"
        elif fault == "camera-height":
            cameras["left"]["mounting"]["position"][2] *= 0.5
        elif fault == "extrinsics-inverted":
            for camera in cameras.values():
                camera["mounting"]["extrinsics"] = "vehicle_to_camera"
        else:
            cameras["left"]["frames"], cameras["right"]["frames"] = cameras["right"]["frames"], cameras["left"]["frames"]

    folder = changed(recording, tmp_path / "faulty", plant)
    done = CliRunner().invoke(app, ["inspect", str(folder), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 1 and f"-> {fault}" in done.output
    assert "wrong" in (tmp_path / "page.html").read_text()


def test_what_cannot_be_opened_is_a_finding_and_no_traceback(tmp_path):
    (tmp_path / "recording.yaml").write_text("alpamayo_recording: 1\n")
    done = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    (finding,) = json.loads(done.stdout)["findings"]
    assert done.exit_code == 1 and finding["faults"] == ["recording-broken"] and "cameras" in finding["seen"]
    assert CliRunner().invoke(app, ["inspect", str(tmp_path / "nowhere")]).exit_code == 2
    (tmp_path / "empty").mkdir()
    refused = CliRunner().invoke(app, ["inspect", str(tmp_path / "empty")])
    assert refused.exit_code == 2 and "has no recording.yaml" in refused.output


@pytest.mark.parametrize(
    ("yaw", "turns", "fault"), [(4, 0, None), (4, 1, None), (4, -1, "pictures-mirrored"), (58, 0, "pictures-mirrored")]
)
def test_a_mirrored_camera_ahead_is_known_by_its_turns_alone(monkeypatch, yaw, turns, fault):
    """The road fits far better in a mirror, as it may by chance: ahead that is no evidence."""
    path, count = path_of(winding()), 60
    times = np.stack([2 + 0.1 * np.arange(count), 2.1 + 0.1 * np.arange(count)], -1)
    turned = turns * np.array([path.turned(pair)[0] for pair in times])
    motion = Motion(np.zeros((count, 2)), np.zeros(count), turned, np.full(count, 0.9), np.zeros(count))
    calibration = replace(OTHER_CAR["front"], rot=facing(yaw, 3))
    look = Look("one", calibration, torch.zeros(count, 1, 2, 2), torch.zeros(count, 1, 2, 2), times, 0, 0)
    found = Inspection(path=path, motions={"one": motion})

    def fits(_look, _path, _chosen, flip):
        share = 0.7 if flip == (3,) else 0.2
        return Mounting(1.0, 0.0, 0.0, math.nan, 0.6, 20, share, 0.01), motion

    monkeypatch.setattr(check, "mounting_of", fits)
    given = Mounting(1.0, 0.1, 0.0, math.nan, 0.5, 20, 0.25, 0.02)
    assert check._flipped(found, look, given) == fault


@pytest.mark.parametrize(
    ("turn", "speed", "verdict"),
    [(1.4, 1.04, UNKNOWN), (1.4, 0.7, WRONG), (0.7, 1.04, UNKNOWN), (0.7, 1.4, WRONG), (1.1, 1.04, OK)],
)
def test_a_wrong_focal_length_shows_on_the_road_too(monkeypatch, turn, speed, verdict):
    """A car ahead that turns with this one makes pictures turn more or less; a wrong focal length changes the road's speed as well."""
    monkeypatch.setattr(check, "agreement", lambda *_: 0.9)
    road = Mounting(speed, 0.0, 0.0, turn, 0.7, 40, 0.35, 0.02)
    found = Inspection(path=path_of(winding()), looks={"one": cast(Look, None)}, mountings={"one": road})
    assert check._turning(found, {}, "one", turn).verdict == verdict


def test_what_moves_beside_the_car_is_not_its_road():
    """A car that starts beside this one fills a camera's road: its steps follow nobody's poses, and no verdict may rest on them."""
    steady = Mounting(0.9, 2.0, 0.0, math.nan, 0.6, 22, 0.65, 0.03, 0.04)
    assert check.judged(steady) and not check.judged(replace(steady, spread=0.25))
