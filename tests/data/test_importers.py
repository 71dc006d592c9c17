"""Every layout gives the recording that was driven: the same path, the same pictures at the same times, cameras where they were."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from alpamayo_r1.cli.__main__ import app
from alpamayo_r1.core.types import Sample
from alpamayo_r1.data.errors import DataError, SourceError
from alpamayo_r1.data.importers import KINDS, import_recording
from alpamayo_r1.data.importers.draft import transform
from alpamayo_r1.data.importers.ros import Log, _lever_arm, _poses, _short, camera_lens
from alpamayo_r1.data.recording.schema import read_setup
from alpamayo_r1.data.recording.wgs84 import from_enu
from alpamayo_r1.data.source import open_source
from support.layouts import (
    POSITION,
    write_bag,
    write_comma,
    write_kitti_odometry,
    write_kitti_raw,
    write_mcap_json,
    write_nuscenes,
)
from support.recordings import PLACE, in_ego, truth

pytestmark = pytest.mark.slow

LAYOUTS = {
    "nuscenes": lambda to: ("nuscenes", write_nuscenes(to / "nuscenes"), "scene-0061"),
    "kitti-raw": lambda to: ("kitti-raw", write_kitti_raw(to / "2011_09_26"), "0005"),
    "kitti-odometry": lambda to: ("kitti-odometry", write_kitti_odometry(to / "odometry"), None),
    "comma2k19": lambda to: ("comma2k19", write_comma(to / "route|x/10"), None),
    "rosbag": lambda to: ("rosbag", write_bag(to / "bag"), None),
    "rosbag of mcap": lambda to: ("rosbag", write_bag(to / "bag", "mcap"), None),
    "mcap": lambda to: ("mcap", next(write_bag(to / "bag", "mcap").glob("*.mcap")), None),
    "mcap of JSON": lambda to: ("mcap", write_mcap_json(to / "drive.mcap"), None),
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Callable[[str], Path]:
    """Layout -> the recording that it becomes, imported once."""

    @cache
    def recording(layout: str) -> Path:
        kind, src, pick = LAYOUTS[layout](tmp_path_factory.mktemp("layout"))
        return import_recording(kind, src, tmp_path_factory.mktemp("recording") / "out", pick)

    return recording


@pytest.fixture(scope="module")
def seen(imported) -> Callable[[str], tuple[Sample, int]]:
    """Layout -> its moment 5.1 s, and the microseconds between two pictures of its first camera."""

    @cache
    def moment(layout: str) -> tuple[Sample, int]:
        with open_source(imported(layout)) as source:
            return source.clip(source.clip_ids[0]).sample(5_100_000), next(iter(source.origin.streams.values())).period_us

    return moment


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_driven_comes_back(layout, seen):
    sample, period_us = seen(layout)
    for path, steps in ((sample.observation.history, np.arange(-15, 1)), (sample.future, np.arange(1, 65))):
        xyz, rot = in_ego(5.1, 5.1 + 0.1 * steps)
        assert np.abs(path.xyz.numpy() - xyz).max() < 0.01
        assert np.abs(path.rot.numpy() - rot).max() < 1e-3
    assert (period_us - (50_000 if layout == "comma2k19" else 100_000)) ** 2 < 4
    per_second = 20 if layout == "comma2k19" else 10
    last = sample.observation.frames[sample.observation.cameras.index("camera_front_tele_30fov"), -1, 0, 270, 480]
    assert abs(int(last) - 40 - int(5.1 * per_second) % 100) <= 3


@pytest.mark.parametrize("layout", ["nuscenes", "kitti-raw", "rosbag", "mcap of JSON"])
def test_cameras_hang_where_they_hung(layout, imported):
    cameras = read_setup(imported(layout)).cameras
    facing = {}
    for name, camera in cameras.items():
        ahead = np.array(camera.calibration.rot)[:, 2]
        facing[name] = round(float(np.degrees(np.arctan2(ahead[1], ahead[0]))), 3)
        moved = [0, 0, 0] if name != "image_03" else [0, -0.54, 0]
        assert np.abs(np.array(camera.calibration.position) - POSITION - moved).max() < 1e-4
        assert camera.calibration.lens.focal == pytest.approx(40)
    assert sorted(facing.values()) == ([0, 0] if layout == "kitti-raw" else [-60, 0, 60])


@pytest.mark.parametrize("name, model", [("kannala_brandt", "fisheye"), ("equidistant", "fisheye"), ("plumb_bob", "pinhole")])
def test_a_camera_info_becomes_a_lens(name, model):
    info = SimpleNamespace(
        K=[200.0, 0, 99.5, 0, 200.0, 49.5, 0, 0, 1], D=[0.1, 0.0, 0.0, 0.0], distortion_model=name, width=200, height=100
    )
    lens = camera_lens(info, (100, 50), "/front")
    assert lens["model"] == model and lens["focal"] == [100.0, 100.0] and lens["centre"] == [49.5, 24.5]
    with pytest.raises(SourceError, match="has the model division"):
        camera_lens(SimpleNamespace(**{**vars(info), "distortion_model": "division"}), (100, 50), "/front")


def test_the_command_line_imports(tmp_path):
    kind, src, pick = LAYOUTS["nuscenes"](tmp_path)
    done = CliRunner().invoke(app, ["import", kind, str(src), "--pick", pick, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and "alpamayo-r1 inspect" in done.output
    again = CliRunner().invoke(app, ["import", kind, str(src), "--pick", pick, "--out", str(tmp_path / "out")])
    assert again.exit_code == 2 and "is not empty" in again.output


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "example"])
def test_what_is_not_of_the_kind_is_refused(kind, tmp_path):
    (tmp_path / "src").mkdir()
    src = tmp_path / "src"
    if kind == "mcap":
        src = src / "a.mcap"
        src.write_bytes(b"no mcap")
    with pytest.raises(DataError) as caught:
        import_recording(kind, src, tmp_path / "out")
    assert "expected:" in str(caught.value)


def test_unknown_kinds_and_scenes_are_named(tmp_path):
    with pytest.raises(SourceError, match="TensorFlow"):
        import_recording("waymo", tmp_path, tmp_path / "out")
    with pytest.raises(SourceError, match="unknown"):
        import_recording("bdd", tmp_path, tmp_path / "out")
    write_nuscenes(tmp_path / "n")
    for pick in (None, "scene-0001"):
        with pytest.raises(SourceError, match="scene-0061, scene-0100"):
            import_recording("nuscenes", tmp_path / "n", tmp_path / "out", pick)
    next((tmp_path / "n/sweeps/CAM_FRONT").glob("*.jpg")).unlink()
    with pytest.raises(SourceError, match="1 pictures of CAM_FRONT are missing"):
        import_recording("nuscenes", tmp_path / "n", tmp_path / "out", "scene-0061")


@pytest.mark.parametrize("kind, module", [("mcap", "mcap.reader"), ("rosbag", "rosbags.highlevel")])
def test_without_the_optional_packages_the_error_says_how_to_get_them(kind, module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    src = tmp_path / ("a.mcap" if kind == "mcap" else "bag")
    src.write_bytes(b"") if kind == "mcap" else src.mkdir()
    with pytest.raises(SourceError, match=r"pip install 'alpamayo-r1\[recordings\]'"):
        import_recording(kind, src, tmp_path / "out")


def test_pictures_are_the_same_in_every_layout(seen):
    """nuScenes, a bag and MCAP of one drive give one observation."""
    first, *others = (seen(layout)[0].observation for layout in ("nuscenes", "rosbag", "mcap"))
    for other in others:
        assert torch.equal(other.frames, first.frames)
        assert torch.allclose(other.history.xyz, first.history.xyz, atol=2e-3)


def test_poses_of_a_sensors_frame_are_moved_to_the_car():
    """An IMU that hangs turned and aside: its attitude is turned back, its odometry moved, a receiver's place becomes the lever arm."""
    hung = transform(Rotation.from_euler("ZYX", [90, 0, 180], degrees=True).as_matrix(), np.array([0.3, -0.2, 0.9]))
    t = np.arange(0, 2, 0.1)
    xyz, turn = truth(t)
    seen = [transform(q.as_matrix(), p) @ hung for p, q in zip(xyz, turn)]
    places = from_enu(np.array([pose[:3, 3] for pose in seen]), PLACE)
    log = Log(still={"imu": ("base_link", hung)}, of={"/odom": "imu", "place": "imu", "attitude": "imu"})
    log.odometry["/odom"] = list(zip(t.tolist(), seen))
    columns, _, _ = _poses(log, Path("bag"))
    assert np.abs(np.stack([columns[axis] for axis in "xyz"], -1) - xyz).max() < 1e-9
    log.odometry.clear()
    log.places += [(float(when), *place) for when, place in zip(t, places.tolist())]
    log.attitudes += [(float(when), Rotation.from_matrix(pose[:3, :3]).as_quat().tolist()) for when, pose in zip(t, seen)]
    columns, place, _ = _poses(log, Path("bag"))
    found = Rotation.from_quat(np.stack([columns[name] for name in ("qx", "qy", "qz", "qw")], -1))
    assert place["frame"] == "WGS84" and float((found * turn.inv()).magnitude().max()) < 1e-9
    assert _lever_arm(log) == pytest.approx((0.3, -0.2, 0.9))


def test_cameras_are_called_by_what_tells_them_apart():
    topics = ["/sensing/front/image_raw/compressed", "/sensing/left/image_raw"]
    assert _short(topics) == dict(zip(topics, ["front", "left"]))
    assert _short(["/image", "/image_raw"]) == {"/image": "image", "/image_raw": "image_raw"}
