"""Recordings of one's own: every convention gives the same path, pictures come at their times, wrong input is refused by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import alpamayo_r1
from alpamayo_r1.core.types import CAMERAS as VIEWS
from alpamayo_r1.core.types import Plan, Trajectory
from alpamayo_r1.data.errors import BadRecording, BadVideo, DataError, MissingCamera, OutOfRange
from alpamayo_r1.data.recording.poses import read_table, to_microseconds
from alpamayo_r1.data.recording.wgs84 import from_enu, to_enu
from alpamayo_r1.data.source import open_source
from support.contract import check_sample
from support.recordings import PLACE, in_ego, plain, pose_table, truth, write_small

pytestmark = pytest.mark.slow

T0 = 5_100_000
HISTORY, FUTURE = 5.1 + 0.1 * np.arange(-15, 1), 5.1 + 0.1 * np.arange(1, 65)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_small(tmp_path_factory.mktemp("small"))


def rewritten(folder: Path, said: dict) -> Path:
    (folder / "recording.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    return folder


def sample_of(folder: Path, t0_us: int = T0, **how):
    with open_source(folder) as source:
        return source.clip(source.clip_ids[0]).sample(t0_us, **how)


QUATERNION = {"kind": "quaternion", "columns": ["qx", "qy", "qz", "qw"], "order": "xyzw"}
FULL = {
    "ENU": {},
    "milliseconds": {"time": {"column": "ms", "unit": "ms"}},
    "nanoseconds": {"time": {"column": "ns", "unit": "ns"}},
    "w first": {"orientation": {"kind": "quaternion", "columns": ["qw", "qx", "qy", "qz"], "order": "wxyz"}},
    "world to body": {
        "orientation": {"kind": "quaternion", "columns": ["ix", "iy", "iz", "iw"], "order": "xyzw", "rotates": "world_to_body"}
    },
    "NED": {
        "position": {"columns": ["north", "east", "down"], "frame": "NED"},
        "orientation": {"kind": "quaternion", "columns": ["fx", "fy", "fz", "fw"], "order": "xyzw"},
    },
    "ENU with FRD": {"position": {"columns": ["x", "y", "z"], "frame": "ENU"}, "orientation": QUATERNION},
    "WGS84": {"position": {"columns": ["lat", "lon", "height"], "frame": "WGS84"}},
    "WGS84 with NED": {
        "position": {"columns": ["lat", "lon", "height"], "frame": "WGS84"},
        "orientation": {"kind": "quaternion", "columns": ["fx", "fy", "fz", "fw"], "order": "xyzw", "frame": "NED"},
    },
    "euler": {"orientation": {"kind": "euler", "columns": ["roll", "pitch", "yaw"], "unit": "rad"}},
}
FLAT = {
    "yaw": {"orientation": {"kind": "yaw", "columns": ["yaw"], "unit": "rad"}},
    "degrees": {"orientation": {"kind": "yaw", "columns": "yaw_deg", "unit": "deg"}},
    "heading": {"orientation": {"kind": "heading", "columns": ["heading"], "unit": "deg"}},
    "motion": {"orientation": {"kind": "from_motion"}},
}


@pytest.mark.parametrize("how", FULL)
def test_every_convention_gives_the_same_path(folder, how):
    sample = sample_of(rewritten(folder, plain(**FULL[how])))
    check_sample_of_own(sample)
    for path, times in ((sample.observation.history, HISTORY), (sample.future, FUTURE)):
        xyz, rot = in_ego(5.1, times)
        assert np.abs(path.xyz.numpy() - xyz).max() < 2e-3
        assert np.abs(path.rot.numpy() - rot).max() < 1e-4


@pytest.mark.parametrize("how", FLAT)
def test_headings_without_lean_give_the_same_path_seen_from_above(folder, how):
    sample = sample_of(rewritten(folder, plain(**FLAT[how])))
    xyz, _ = in_ego(5.1, HISTORY)
    assert np.abs(sample.observation.history.xyz.numpy()[:, :2] - xyz[:, :2]).max() < 0.05
    yaw = torch.atan2(sample.observation.history.rot[:, 1, 0], sample.observation.history.rot[:, 0, 0])
    assert np.abs(yaw.numpy() - 9.0 / 60 * (HISTORY - 5.1)).max() < 0.02


def check_sample_of_own(sample) -> None:
    check_sample(replaced(sample), cameras=VIEWS, size=(54, 96))
    assert sample.meta["source"] == "own"


def replaced(sample):
    from dataclasses import replace

    return replace(sample, meta={**sample.meta, "source": "world"})


@pytest.mark.parametrize("style", ["blanks", "semicolons", "tabs", "a last comma", "quotes"])
def test_tables_are_written_in_many_ways(tmp_path, style):
    """Among them a log as SLAM tools write it: `# time x y z qx qy qz qw`, blanks between."""
    columns = ["time", "x", "y", "z", "qx", "qy", "qz", "qw"]
    table = pose_table(np.arange(0, 12, 0.05))[columns]
    separator = {"blanks": " ", "semicolons": ";", "tabs": "\t"}.get(style, ",")
    content = table.to_csv(sep=separator, index=False, quoting=csv.QUOTE_ALL if style == "quotes" else csv.QUOTE_MINIMAL)
    if style == "blanks":
        content = "# " + content
    elif style == "a last comma":
        header, rows = content.split("\n", 1)
        content = header + "\n" + rows.replace("\n", ",\n")
    file = tmp_path / "poses.txt"
    file.write_text(content, encoding="utf-8-sig" if style == "semicolons" else "utf-8")
    found = read_table(file, "poses")
    assert list(found.columns) == columns and np.abs(found.to_numpy() - table.to_numpy()).max() < 1e-9


def test_times_may_be_numbers_written_as_text(tmp_path):
    exact = [1_700_000_000_123_456_789 + 100_000_000 * n for n in range(4)]
    pd.DataFrame({"time": [str(t) for t in exact]}).to_parquet(tmp_path / "poses.parquet")
    found = to_microseconds(read_table(tmp_path / "poses.parquet", "poses"), "time", "ns", "poses")
    assert found.tolist() == [t // 1000 for t in exact]
    pd.DataFrame({"time": ["2024-05-01 10:00:00", "2024-05-01 10:00:01"]}).to_csv(tmp_path / "dates.csv")
    with pytest.raises(BadRecording, match="seconds since 1970"):
        to_microseconds(read_table(tmp_path / "dates.csv", "poses"), "time", "s", "poses")


def test_a_header_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "poses.csv").write_text("time,x,y\n0,1,2,3\n1,2,3,4\n")
    with pytest.raises(BadRecording, match="names 3 columns, but its first row has 4"):
        read_table(tmp_path / "poses.csv", "poses")


def test_the_point_of_the_poses_is_moved_to_the_rear_axle(tmp_path):
    folder = write_small(tmp_path, lever_arm=[1.2, -0.3, 1.6])
    pose_table(np.arange(0, 12, 0.05), (1.2, -0.3, 1.6)).to_csv(folder / "poses.csv", index=False)
    xyz, _ = in_ego(5.1, HISTORY)
    assert np.abs(sample_of(folder).observation.history.xyz.numpy() - xyz).max() < 2e-3


def test_pictures_are_the_last_at_or_before_their_time(folder):
    sample = sample_of(rewritten(folder, plain()), 5_140_000)
    times = sample.meta["frame_timestamps_us"]
    assert times.tolist() == [[4_800_000, 4_900_000, 5_000_000, 5_100_000]] * 4
    middle = sample.observation.frames[:, :, 0, 27, 48].int()
    assert (middle - (40 + torch.tensor([48, 49, 50, 51]))).abs().max() <= 2


def test_a_cameras_clock_is_set_right(folder):
    said = plain()
    for camera in said["cameras"].values():
        camera["clock_offset"] = 0.25
    sample = sample_of(rewritten(folder, said))
    assert sample.meta["frame_timestamps_us"][0].tolist() == [4_750_000, 4_850_000, 4_950_000, 5_050_000]


def test_times_may_be_a_rate_or_the_names_of_images(tmp_path):
    from PIL import Image

    said = plain()
    said["cameras"]["front"]["frames"] = {"video": "front.mp4", "times": {"start": 0.0}}
    (tmp_path / "left").mkdir()
    for n in range(120):
        Image.new("RGB", (96, 64), (40 + n % 100,) * 3).save(tmp_path / "left" / f"LEFT_{100 * n}.png")
    for aside in (".DS_Store", "notes.txt"):
        (tmp_path / "left" / aside).write_text("no picture")
    said["cameras"]["left"]["frames"] = {"images": "left", "times": {"from_names": True, "unit": "ms"}}
    said["cameras"]["right"]["frames"] = {"images": "left/*.png", "times": {"start": 0.0, "fps": 10}}
    pd.DataFrame({"shot": [f"left/LEFT_{100 * n}.png" for n in range(120)], "at": np.arange(120) / 10}).to_csv(tmp_path / "shots.csv")
    said["cameras"]["tele"]["frames"] = {
        "images": "left",
        "times": {"file": "shots.csv", "column": "at", "file_column": "shot", "unit": "s"},
    }
    write_small(tmp_path, said)
    frames = sample_of(tmp_path, 3_000_000).observation.frames[:, -1, 0, 27, 48].int()
    # the film has its own rate of 30 per second where only `start` is given
    assert (frames - torch.tensor([70, 130, 70, 70])).abs().max() <= 2


def test_a_long_drive_is_a_clip_per_window_with_the_same_moments(folder):
    whole = sample_of(rewritten(folder, plain()), 7_000_000, need_future=False)
    with open_source(rewritten(folder, plain() | {"windows": {"seconds": 3}})) as source:
        assert source.clip_ids == ("small-0000", "small-0001", "small-0002")
        assert source.clip("small-0001").valid_t0() == (0, 2_550_000)
        part = source.clip("small-0002").sample(1_000_000, need_future=False)
        early = source.clip("small-0000").valid_t0()
    assert early == (1_500_000, 3_000_000)
    assert torch.equal(part.observation.frames, whole.observation.frames)
    assert torch.allclose(part.observation.history.xyz, whole.observation.history.xyz, atol=1e-5)


def test_a_plan_goes_back_to_the_recordings_frame(folder):
    steps = np.arange(1, 65) * 0.1
    for frame, columns in (("ENU", ["x", "y", "z"]), ("NED", ["north", "east", "down"]), ("WGS84", ["lat", "lon", "height"])):
        orientation = FULL["NED"]["orientation"] if frame == "NED" else QUATERNION
        with open_source(rewritten(folder, plain(position={"columns": columns, "frame": frame}, orientation=orientation))) as source:
            clip = source.clip("small")
            future = clip.sample(T0).future
            world = clip.to_world(future, T0)
            plan = Plan(future.xyz[None], future.rot[None], ("",), torch.zeros(1, 64, 2), (True,), {})
            assert np.array_equal(clip.to_world(plan, T0).position, world.position)
        want, turn = truth(5.1 + steps)
        expected = {"ENU": want, "NED": want[:, [1, 0, 2]] * [1, 1, -1], "WGS84": from_enu(want, PLACE)}[frame]
        assert (
            np.abs(world.position[0] - expected).max() < (1e-7 if frame == "WGS84" else 5e-3)
            or np.abs(to_enu(world.position[0], PLACE) - want).max() < 5e-3
        )
        assert np.abs(world.times - (5.1 + steps)).max() < 1e-9
        assert np.abs(np.unwrap(world.yaw[0]) - np.unwrap(turn.as_euler("ZYX")[:, 0])).max() < 1e-3


def test_wgs84_is_the_ellipsoids():
    """A degree of latitude at 48 degrees is 111,200 m, of longitude 74,628 m (tables of the ellipsoid); and back to a micrometre."""
    origin = np.array([48.0, 11.0, 0.0])
    step = np.array([[48.001, 11.0, 0.0], [48.0, 11.001, 0.0], [48.0, 11.0, 100.0]])
    enu = to_enu(step, origin)
    assert (
        enu[0, 1] == pytest.approx(111.200, abs=0.01) and enu[1, 0] == pytest.approx(74.628, abs=0.01) and enu[2, 2] == pytest.approx(100)
    )
    assert np.abs(to_enu(from_enu(enu, origin), origin) - enu).max() < 1e-6


def test_missing_views_are_left_out_or_filled_and_always_said(folder):
    said = plain()
    said["cameras"] = {"front": said["cameras"]["front"]}
    said["cameras"]["front"]["focal"] = [60.0, 60.0]
    few = sample_of(rewritten(folder, said))
    assert few.observation.cameras == ("camera_front_wide_120fov", "camera_front_tele_30fov")
    assert [note.code for note in few.notes] == ["views-missing", "views-partial"]
    assert few.meta["coverage"]["camera_front_tele_30fov"] > 0.99 > few.meta["coverage"]["camera_front_wide_120fov"]
    said["views"]["missing"] = "fill"
    filled = sample_of(rewritten(folder, said))
    assert filled.observation.cameras == VIEWS
    assert {"views-filled", "views-partial"} == {note.code for note in filled.notes}
    assert int(filled.observation.frames[0].float().mean()) > 60


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(folder):
    said = plain()
    said["views"]["device"] = "cuda"
    with pytest.raises(BadRecording, match="torch sees no GPU"):
        sample_of(rewritten(folder, said))


def test_raw_pictures_are_shown_by_their_roles(folder):
    said = plain() | {"views": {"mode": "raw"}}
    said["cameras"]["front"]["role"] = "camera_front_wide_120fov"
    said["cameras"]["left"]["role"] = "camera_cross_left_120fov"
    sample = sample_of(rewritten(folder, said))
    assert sample.observation.cameras == ("camera_cross_left_120fov", "camera_front_wide_120fov")
    assert sample.observation.frames.shape == (2, 4, 3, 64, 96)


def test_the_wheels_are_compared_with_the_poses(folder):
    right = {"speed": {"column": "speed", "unit": "km/h"}}
    assert sample_of(rewritten(folder, plain(**right))).notes == ()
    wrong = {"speed": {"column": "speed", "unit": "m/s"}}
    assert [note.code for note in sample_of(rewritten(folder, plain(**wrong))).notes] == ["speed-differs"]


def noisy(folder: Path, white: float = 0.03, wander: float = 0.02) -> None:
    """poses.csv with the noise of a receiver."""
    table, draw = pose_table(np.arange(0, 12, 0.05)), np.random.default_rng(0)
    error = draw.normal(0, white, (len(table), 3)) + np.cumsum(draw.normal(0, wander * np.sqrt(0.05), (len(table), 3)), 0)
    table[["x", "y", "z"]] += error
    table.to_csv(folder / "poses.csv", index=False)


def test_noise_is_smoothed_where_asked(folder):
    xyz, _ = in_ego(5.1, HISTORY)
    wheels = {"column": "speed", "unit": "km/h"}
    off = {}
    for name, how in {"raw": {}, "seconds": {"smooth": 0.8}, "car": {"smooth": True}, "wheels": {"smooth": True, "speed": wheels}}.items():
        noisy(write_small(folder))
        rewritten(folder, plain(**how))
        off[name] = np.abs(sample_of(folder).observation.history.xyz.numpy() - xyz).max(0)
    assert off["seconds"].max() < 0.8 * off["raw"].max()
    assert off["car"][1:].max() < 0.15 * off["raw"][1:].max() and off["car"][0] < 0.8 * off["raw"][0]
    assert off["wheels"].max() < 0.1 * off["raw"].max()


def test_the_noise_is_estimated_and_what_smoothing_moves_is_bounded(folder):
    noisy(write_small(folder))
    with open_source(rewritten(folder, plain(smooth=True))) as source:
        effect = source.origin.track.smoothed
    assert 0.02 < effect.noise.white < 0.04 and 0.01 < effect.noise.wander < 0.04
    assert 0.01 < effect.moved < effect.most < 0.4
    with pytest.raises(BadRecording, match="would move a position by"):
        sample_of(rewritten(folder, plain(smooth={"most": 0.05})))
    with open_source(rewritten(folder, plain(smooth={"noise": 0.5, "wander": 0.25}))) as source:
        assert source.origin.track.smoothed.noise.white == 0.5


def broken(path: str, value) -> dict:
    """recording.yaml with one value replaced (... removes it)."""
    said = plain()
    *way, last = path.split(".")
    place = said
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return said


FAULTS = [
    ("alpamayo_recording", 2, "reads version 1"),
    ("poses", ..., "has no poses"),
    ("poses.fil", "x", "did you mean file"),
    ("poses.file", "../poses.csv", "leaves the folder"),
    ("poses.file", "nowhere.csv", "not there"),
    ("poses.time.unit", "seconds", "s | ms | us | ns"),
    ("poses.time.unit", "ms", "check|microseconds"),
    ("poses.time.column", "t", "no column 't'"),
    ("poses.position.frame", "UTM", "ENU | NED | local | WGS84"),
    ("poses.position.columns", ["x", "y"], r"\[x, y, z\]"),
    ("poses.position.columns", ["x", "y", "u"], "lacks u"),
    ("poses.position", {"columns": ["x", "y", "z"], "frame": "WGS84"}, "no car's"),
    ("poses.orientation.order", ..., "xyzw | wxyz"),
    ("poses.orientation.columns", ["x", "y", "z", "qw"], "length"),
    ("poses.orientation", {"kind": "yaw", "columns": ["yaw_deg"], "unit": "rad"}, "deg"),
    ("cameras", {}, "at least one camera"),
    ("cameras.front.model", "pinhol", "did you mean pinhole"),
    ("cameras.front.size", [640, 360], "96 x 64"),
    ("cameras.front.focal", [0, 1], "a number from 1"),
    ("cameras.front.focal", [10**400, 1], "a number from 1"),
    ("poses.smooth", {"nois": 0.1}, "did you mean noise"),
    ("poses.smooth", "much", "a number from 0 to 5"),
    ("poses", plain(orientation={"kind": "from_motion"}, smooth=True)["poses"], "smooth: 0.6"),
    ("views.depth", "near", "road | far"),
    ("cameras.front.distortion", [1, 2], "0 or 4"),
    ("cameras.front.mounting.yaw_pitch_roll", ..., "one of yaw_pitch_roll"),
    ("cameras.front.mounting.extrinsics", "inverse", "camera_to_vehicle"),
    ("cameras.front.frames.times", ..., "has no times"),
    ("cameras.front.frames.video", ..., "neither video nor images"),
    ("cameras.front.role", "front", "camera_front_wide_120fov"),
    ("views.mode", "raw", "no camera has a role"),
    ("windows", {"seconds": 0}, "a number from 2"),
    ("name", "a/b", "holds '/'"),
]


@pytest.mark.parametrize("path, value, told", FAULTS, ids=[f"{path}={value}"[:40] for path, value, _ in FAULTS])
def test_what_is_wrong_is_named(folder, path, value, told):
    with pytest.raises(DataError, match=told.replace("|", r"\|") if " | " in told else told) as caught:
        sample_of(rewritten(folder, broken(path, value)))
    assert "expected:" in str(caught.value) and "what to do:" in str(caught.value)


@pytest.mark.parametrize(
    "text, told",
    [
        ("a: [", "no valid YAML"),
        ("a: 1\na: 2", "stands there twice"),
        ("- 1", "a mapping"),
        ("!!python/object:os.system {}", "no valid YAML"),
        ("", "a mapping"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(folder, text, told):
    (folder / "recording.yaml").write_text(text)
    with pytest.raises(BadRecording, match=told):
        open_source(folder)


def test_poses_that_no_car_drives_are_refused(folder):
    swapped = plain(position={"columns": ["y", "x", "z"], "frame": "ENU"})
    with pytest.raises(DataError, match="Likely cause"):
        sample_of(rewritten(folder, swapped))


def test_gaps_and_ends_are_refused(tmp_path):
    folder = write_small(tmp_path)
    with pytest.raises(OutOfRange, match="too late"):
        sample_of(folder, 11_000_000)
    table = pose_table(np.arange(0, 12, 0.05))
    table[(table.time < 4.2) | (table.time > 4.9)].to_csv(folder / "poses.csv", index=False)
    with pytest.raises(DataError, match="has no rows for"):
        sample_of(folder)


def test_a_missing_frame_is_noticed(tmp_path):
    folder = write_small(tmp_path)
    pd.DataFrame({"time": np.arange(119) / 10}).to_csv(folder / "front.csv", index=False)
    with pytest.raises(BadRecording, match="120 pictures but 119 times"):
        sample_of(folder)
    pd.DataFrame({"time": np.where(np.arange(120) > 47, 0.5, 0) + np.arange(120) / 10}).to_csv(folder / "front.csv", index=False)
    with pytest.raises(BadVideo, match="no frame in the"):
        sample_of(folder, 5_000_000)


def test_no_camera_that_looks_ahead_is_an_error(folder):
    said = plain()
    said["cameras"] = {"front": said["cameras"]["front"]}
    said["cameras"]["front"]["mounting"]["yaw_pitch_roll"] = [180, 0, 0]
    with pytest.raises(MissingCamera, match="sees enough"):
        sample_of(rewritten(folder, said))


def test_random_moments_decode_as_in_order(folder):
    """The decoder goes forward or seeks: the same frames come either way."""
    moments = [2_000_000, 9_000_000, 2_100_000, 5_000_000, 5_100_000, 3_000_000]
    with open_source(rewritten(folder, plain())) as source:
        clip = source.clip("small")
        mixed = {t0: clip.sample(t0, need_future=False).observation.frames for t0 in moments}
    for t0, frames in mixed.items():
        assert torch.equal(frames, sample_of(folder, t0, need_future=False).observation.frames)


@pytest.mark.parametrize("options", [{"bf": "3"}, {"bf": "2", "x264-params": "open-gop=1:keyint=12:min-keyint=4"}, {"bf": "0"}])
def test_frames_are_counted_as_shown_whatever_the_order_of_storage(tmp_path, options):
    import av

    from alpamayo_r1.data.recording.frames import Video

    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 12
        stream.options = {"crf": "4", **options}
        for n in range(90):
            picture = np.zeros((64, 96, 3), np.uint8)
            picture[:, : n + 3] = 40 + 2 * n
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    video = Video(tmp_path / "b.mp4", "b")
    assert video.count == 90 and abs(video.seconds[-1] - 89 / 30) < 1e-3
    for order in ([0, 1, 2, 50, 51], [89, 3, 40, 12, 11, 13, 24], list(range(90))):
        for number in order:
            shown = video.decode([number])[number]
            assert abs(int(shown[32, 1, 0]) - 40 - 2 * number) <= 1, number
    video.close()


def test_a_plan_comes_out_of_it(folder, tmp_path):
    from alpamayo_r1.testing import tiny_checkpoint

    planner = alpamayo_r1.load(str(tiny_checkpoint(tmp_path)), device="cpu")
    sample = sample_of(rewritten(folder, plain()))
    plan = planner.plan(sample.observation, samples=1, seed=0, max_tokens=4, steps=1)
    assert isinstance(sample.observation.history, Trajectory) and plan.xyz.shape == (1, 64, 3)


def test_a_car_that_stands_has_a_history_of_zeros(folder):
    """A step of 0 lies on the edge between two bins: a micrometre of what is left of noise would make other tokens of it."""
    t = np.arange(0, 12, 0.05)
    moved = np.where(t < 3, 9 * t, 27.0)
    noise = np.random.default_rng(0).normal(0, 0.01, (len(t), 3))
    table = pd.DataFrame(
        {"time": t, "x": 100 + moved + noise[:, 0], "y": noise[:, 1], "z": noise[:, 2], "yaw": 0.0, "speed": 9.0 * (t < 3)}
    )
    table.to_csv(folder / "still.csv", index=False)
    said = plain(
        file="still.csv",
        orientation={"kind": "yaw", "columns": ["yaw"], "unit": "rad"},
        smooth=True,
        speed={"column": "speed", "unit": "m/s"},
    )
    assert not sample_of(rewritten(folder, said), 8_000_000, need_future=False).observation.history.xyz.any()
