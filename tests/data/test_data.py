"""The clip loader on a tiny data set whose videos carry their frame numbers as bar codes: plain folder, Hub cache, bad input."""

import io
import json
import math
import socket
import threading
import zipfile
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_data_contract import check_sample

from alpamayo_r1.core.types import CAMERAS, F, H
from alpamayo_r1.data import errors
from alpamayo_r1.data.source import MARKER, NVIDIA, open_source

CLIP, OTHER = "030c760c-ae38-49aa-9ad8-f5650a545d26", "11111111-ae38-49aa-9ad8-f5650a545d26"
COMMIT = "0" * 39 + "1"
SIZE = (64, 96)
BITS, BAR = 12, 8
FRAMES, FIRST_US = 240, -20_000
LATE_US = {camera: 3_000 * i for i, camera in enumerate(CAMERAS)}
REAR = "camera_rear_tele_30fov"


def stamps(camera):
    """Times of a camera's frames, 30 Hz, each camera a little later than the one before."""
    return FIRST_US + LATE_US[camera] + (np.arange(FRAMES) * 1e6 / 30).round().astype(np.int64)


def bars(number):
    """A picture whose vertical bars are the bits of a number."""
    row = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], BAR)
    return np.broadcast_to(row[None, :, None], (*SIZE, 3)).astype(np.uint8)


def number_of(picture):
    """The number that a picture u8[3, h, w] carries."""
    columns = picture.float().mean((0, 1)).unflatten(0, (BITS, BAR)).mean(1)
    return sum(1 << bit for bit, value in enumerate(columns.tolist()) if value > 127)


def video(frames=FRAMES, first=0, time_base=None, container="mp4"):
    """Bytes of a small video; frame n shows bars(n)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "18", "preset": "ultrafast", "g": "30", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        if time_base:
            stream.time_base = stream.codec_context.time_base = time_base
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(bars(n), format="rgb24")
            frame.time_base = time_base or Fraction(1, 30)
            frame.pts = round((n + first) / 30 / frame.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


SPEED, RATE = 10.0, 0.1


def pose(t):
    """The analytic drive: a circle, climbing, pitched and rolled. t [N] seconds -> xyz, Rotation."""
    yaw = 0.3 + RATE * t
    xyz = np.stack([SPEED / RATE * np.sin(yaw) + 7, -SPEED / RATE * np.cos(yaw) - 3, 0.2 * t], -1)
    return xyz, Rotation.from_euler("ZYX", np.stack([yaw, 0.02 * np.sin(t), 0.01 * np.cos(t)], -1))


def egomotion():
    """100 Hz from 0 to 15 s."""
    t = np.arange(0, 15.005, 0.01)
    xyz, rot = pose(t)
    data = (
        {"timestamp": (t * 1e6).round().astype(np.int64)} | dict(zip(("qx", "qy", "qz", "qw"), rot.as_quat().T)) | dict(zip("xyz", xyz.T))
    )
    return pd.DataFrame(data | dict.fromkeys(("vx", "vy", "vz", "ax", "ay", "az", "curvature"), math.nan))


def parquet(table):
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def zipped(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as chunk:
        for name, content in members.items():
            chunk.writestr(name, content)


def table(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)


def chunk(root, feature):
    folder = "camera" if feature.startswith("camera") else "labels"
    return root / folder / feature / f"{feature}.chunk_0000.zip"


def put_camera(root, camera, clip=None, times=None):
    """(Re)writes a camera's chunk."""
    times = stamps(camera) if times is None else times
    times = pd.DataFrame({"timestamp": times, "frame_index": np.arange(len(times))})
    zipped(chunk(root, camera), {f"{CLIP}.{camera}.mp4": clip or VIDEO, f"{CLIP}.{camera}.timestamps.parquet": parquet(times)})


def put_egomotion(root, data):
    zipped(chunk(root, "egomotion"), {f"{CLIP}.egomotion.parquet": parquet(data)})


VIDEO = video()


def write_tree(root):
    """A data set of one whole clip (chunk 0) and one whose chunk (1) was never downloaded."""
    root.mkdir(parents=True)
    rows = [("egomotion", "labels", "labels/egomotion/egomotion.chunk_{chunk_id:04d}.zip", {"egomotion": "{clip_id}.egomotion.parquet"})]
    for camera in (*CAMERAS, REAR):
        members = {"video": f"{{clip_id}}.{camera}.mp4", "frame_timestamps": f"{{clip_id}}.{camera}.timestamps.parquet"}
        rows.append((camera, "camera", f"camera/{camera}/{camera}.chunk_{{chunk_id:04d}}.zip", members))
    tables = ("camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions")
    rows += [(t, "calibration", f"calibration/{t}/{t}.chunk_{{chunk_id:04d}}.parquet", None) for t in tables]
    features = pd.DataFrame(rows, columns=["feature", "directory", "chunk_path", "clip_files_in_zip"])
    features["clip_files_in_zip"] = features["clip_files_in_zip"].map(lambda m: json.dumps(m) if m else None)
    features.to_csv(root / "features.csv", index=False)
    clips = pd.Index([CLIP, OTHER], name="clip_id")
    table(root / "clip_index.parquet", pd.DataFrame({"clip_is_valid": True, "chunk": [0, 1], "split": "test"}, index=clips))
    table(root / "splits" / "default.parquet", pd.DataFrame({"split": "test"}, index=clips))
    presence = pd.DataFrame({f: True for f in features["feature"]}, index=clips).assign(**{REAR: False})
    table(root / "metadata" / "feature_presence.parquet", presence)
    table(root / "metadata" / "data_collection.parquet", pd.DataFrame({"country": "x", "platform_class": "hyperion_8"}, index=clips))
    put_egomotion(root, egomotion())
    for camera in CAMERAS:
        put_camera(root, camera)
    put_calibration(root)
    return root


def put_calibration(root):
    names = pd.MultiIndex.from_tuples([(CLIP, c) for c in CAMERAS], names=["clip_id", "camera_name"])
    lens = {"width": SIZE[1], "height": SIZE[0], "cx": 47.5, "cy": 31.5}
    lens |= {f"fw_poly_{i}": v for i, v in enumerate((0.0, 46.0, 0.0, 0.0, 0.0))}
    lens |= {f"bw_poly_{i}": v for i, v in enumerate((0.0, 1 / 46.0, 0.0, 0.0, 0.0))}
    table(root / "calibration/camera_intrinsics/camera_intrinsics.chunk_0000.parquet", pd.DataFrame(lens, index=names))
    forward = dict(zip(("qx", "qy", "qz", "qw"), Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat()))
    sensors = pd.DataFrame(forward | {"x": 1.5, "y": 0.0, "z": 1.4}, index=names.rename(["clip_id", "sensor_name"]))
    table(root / "calibration/sensor_extrinsics/sensor_extrinsics.chunk_0000.parquet", sensors)
    body = {"length": 4.9, "width": 1.9, "height": 1.5, "rear_axle_to_bbox_center": 1.4, "wheelbase": 2.9, "track_width": 1.6}
    body = pd.DataFrame(body, index=pd.Index([CLIP], name="clip_id"))
    table(root / "calibration/vehicle_dimensions/vehicle_dimensions.chunk_0000.parquet", body)


@pytest.fixture
def tree(tmp_path):
    """A fresh data set to break."""
    return write_tree(tmp_path / "pai")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set that is only read."""
    return write_tree(tmp_path_factory.mktemp("data") / "pai")


def expected_path(t0, t):
    """The analytic drive in the ego frame at t0."""
    (origin,), axes = pose(np.array([t0]))
    xyz, rot = pose(t)
    return axes[0].inv().apply(xyz - origin), (axes[0].inv() * rot).as_matrix()


def shown(sample):
    """Frame numbers [C][K] read off the pictures."""
    return [[number_of(picture) for picture in camera] for camera in sample.observation.frames]


# --- what a sample holds


@pytest.mark.parametrize("t0_us", [5_100_000, 1_533_333, 7_012_345])
def test_sample(whole, t0_us):
    with open_source(whole) as source:
        sample = source.clip(CLIP).sample(t0_us)
    check_sample(sample, size=SIZE)
    asked = t0_us - 100_000 * np.arange(3, -1, -1)
    rule = [np.searchsorted(stamps(c), asked, side="right") - 1 for c in CAMERAS]
    assert shown(sample) == [list(r) for r in rule]
    assert torch.equal(sample.meta["frame_timestamps_us"], torch.tensor(np.stack([stamps(c)[r] for c, r in zip(CAMERAS, rule)])))
    t0 = t0_us / 1e6
    for path, steps in ((sample.observation.history, np.arange(1 - H, 1)), (sample.future, np.arange(1, F + 1))):
        xyz, rot = expected_path(t0, t0 + 0.1 * steps)
        assert np.abs(path.xyz.numpy() - xyz).max() < 2e-5 and np.abs(path.rot.numpy() - rot).max() < 2e-5


def test_rig(whole):
    with open_source(whole) as source:
        meta = source.clip(CLIP).sample().meta
    assert meta["source"] == "physical-ai-av" and meta["vehicle"]["width"] == 1.9 and set(meta["calibration"]) == set(CAMERAS)
    pixel, visible = meta["calibration"]["camera_front_wide_120fov"].project(torch.tensor([[11.5, 0.0, 1.4], [11.5, -10.0, 1.4]]))
    assert visible.all() and torch.allclose(pixel, torch.tensor([[47.5, 31.5], [47.5 + 46 * math.pi / 4, 31.5]]), atol=1e-4)


def test_calibration_is_optional(tree):
    for path in (tree / "calibration").rglob("*.parquet"):
        path.unlink()
    with open_source(tree) as source:
        sample = source.clip(CLIP).sample()
    check_sample(sample)
    assert "calibration" not in sample.meta and "vehicle" not in sample.meta


def test_the_marker_tells_our_own_clips(tree):
    table(tree / MARKER, pd.DataFrame({"family": ["cruise"]}))
    with open_source(tree) as source:
        assert source.kind == "world" and source.clip(CLIP).sample().meta["source"] == "world"


def test_cameras_come_in_the_released_order_and_frames_as_many_as_asked(whole):
    with open_source(whole) as source:
        sample = source.clip(CLIP).sample(cameras=CAMERAS[2:0:-1], frames=2)
    check_sample(sample, cameras=CAMERAS[1:3], frames=2)


def test_videos_are_opened_once(whole, monkeypatch):
    opened = []
    with open_source(whole) as source:
        clip, read = source.clip(CLIP), type(source.clip(CLIP))._members
        monkeypatch.setattr(type(clip), "_members", lambda self, feature: opened.append(feature) or read(self, feature))
        samples = [source.clip(CLIP).sample(t) for t in (5_100_000, 2_000_000, 5_200_000)]
    assert sorted(opened) == sorted(["egomotion", *CAMERAS])
    assert torch.equal(samples[0].observation.frames[:, 1:], samples[2].observation.frames[:, :3])


def test_a_closed_clip_is_forgotten_and_opens_anew(whole):
    with open_source(whole) as source:
        with source.clip(CLIP) as first:
            before = first.sample(cameras=CAMERAS[:1])
            assert source.clip(CLIP) is first
        assert source.clip(CLIP) is not first
        assert torch.equal(source.clip(CLIP).sample(cameras=CAMERAS[:1]).observation.frames, before.observation.frames)


def test_the_bundled_clips_or_a_clear_error(monkeypatch, tmp_path):
    from alpamayo_r1.data import source as module

    monkeypatch.setattr(module, "sample_folder", lambda: tmp_path / "clips")
    with pytest.raises(errors.SourceError, match="the bundled clips"):
        open_source("sample")
    write_tree(tmp_path / "clips")
    with open_source("sample") as source:
        assert source.clip_ids == (CLIP, OTHER)


def test_valid_t0_is_tight(whole):
    with open_source(whole) as source:
        clip = source.clip(CLIP)
        lo, hi = clip.valid_t0()
        assert (lo, hi) == (1_500_000, min(15_000_000 - 6_400_000, stamps(CAMERAS[0])[-1]))
        for t0 in (lo, hi):
            check_sample(clip.sample(t0))
        for t0, word in ((lo - 1, "early"), (hi + 1, "late")):
            with pytest.raises(errors.OutOfRange, match=rf"too {word}(.|\n)*1\.500 s <= t0 <= {hi / 1e6:.3f} s"):
                clip.sample(t0)


def test_future_is_optional(tree):
    put_egomotion(tree, egomotion().query("timestamp <= 8_000_000"))
    with open_source(tree) as source:
        clip = source.clip(CLIP)
        with pytest.raises(errors.OutOfRange, match="need_future=False"):
            clip.sample(5_100_000)
        sample = clip.sample(5_100_000, need_future=False)
        known = ~sample.future.xyz.isnan().any(-1)
        assert known.tolist() == [True] * 29 + [False] * 35
        xyz, rot = expected_path(5.1, 5.1 + 0.1 * np.arange(1, 30))
        assert np.abs(sample.future.xyz[known].numpy() - xyz).max() < 2e-5 and np.abs(sample.future.rot[known].numpy() - rot).max() < 2e-5
        assert clip.sample(7_940_000, need_future=False).future is None
        assert clip.sample(1_600_000, need_future=False).future is not None


# --- places


def test_hub_cache_needs_no_network(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("went to the network"))
    repo = tmp_path / "hub" / "datasets--local--synthetic-pai"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "snapshots" / COMMIT).symlink_to(whole, target_is_directory=True)
    with open_source(f"local/synthetic-pai@{COMMIT}", cache_dir=tmp_path / "hub") as source:
        sample = source.clip(CLIP).sample()
        assert source.kind == "world" and source.clip_ids == (CLIP, OTHER)
    with open_source(whole) as source:
        assert torch.equal(sample.observation.frames, source.clip(CLIP).sample().observation.frames)


def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_hub_branch_offline_is_looked_up_in_the_cache(whole, tmp_path, monkeypatch):
    offline(monkeypatch)
    repo = tmp_path / "hub" / "datasets--local--pai"
    (repo / "refs").mkdir(parents=True)
    (repo / "snapshots").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).symlink_to(whole, target_is_directory=True)
    with open_source("local/pai", cache_dir=tmp_path / "hub") as source:
        assert source.kind == "physical-ai-av" and source.clip_ids[0] == CLIP
        with pytest.raises(errors.NotDownloaded, match=rf"hf download local/pai labels/egomotion/\S+0001.zip .*--revision {COMMIT}"):
            source.clip(OTHER).sample()


def test_hub_offline_without_a_cache(tmp_path, monkeypatch):
    offline(monkeypatch)
    for spec in (NVIDIA, f"{NVIDIA}@{COMMIT}"):
        with pytest.raises(errors.SourceError, match=r"what to do"):
            open_source(spec, cache_dir=tmp_path)


@pytest.fixture
def hub(monkeypatch):
    """A Hub that answers every request with `hub.code` and `hub.error`."""
    from huggingface_hub import constants

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(server.code)
            self.send_header("X-Error-Code", server.error)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()


@pytest.mark.parametrize("code, error", [(401, "GatedRepo"), (401, ""), (403, "GatedRepo")])
def test_gated(tmp_path, hub, code, error):
    hub.code, hub.error = code, error
    for spec in (NVIDIA, f"{NVIDIA}@{COMMIT}"):
        with pytest.raises(errors.AccessDenied, match="hf auth login"):
            open_source(spec, cache_dir=tmp_path, token=False)


def test_unknown_revision(tmp_path, hub):
    hub.code, hub.error = 404, "RevisionNotFound"
    with pytest.raises(errors.SourceError, match="no revision nowhere"):
        open_source(f"{NVIDIA}@nowhere", cache_dir=tmp_path, token=False)


def test_no_network(tmp_path, hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(errors.SourceError, match="can't be reached"):
        open_source(NVIDIA, cache_dir=tmp_path, token=False)


@pytest.mark.parametrize("spec", ["/no/such/folder", "no such thing", "nothing"])
def test_no_source(spec):
    with pytest.raises(errors.SourceError, match=r"expected(.|\n)*what to do"):
        open_source(spec)


def test_a_folder_that_is_no_data_set(tmp_path, tree):
    with pytest.raises(errors.SourceError, match=r"features\.csv"):
        open_source(tmp_path)
    (tree / "metadata" / "data_collection.parquet").unlink()
    with pytest.raises(errors.SourceError, match=r"metadata/data_collection\.parquet is missing"):
        open_source(tree)


# --- clips that must be refused, before anything is decoded


@pytest.fixture
def no_decoding(monkeypatch):
    from physical_ai_av.video import SeekVideoReader

    monkeypatch.setattr(SeekVideoReader, "decode_images_from_frame_indices", lambda *a: pytest.fail("decoded a frame"))


def refused(root, error, match, **arguments):
    with open_source(root) as source, pytest.raises(error, match=match) as caught:
        source.clip(CLIP).sample(**arguments)
    assert caught.value.expected and caught.value.do and "\n  what to do: " in str(caught.value)


def test_unknown_clip(whole):
    with open_source(whole) as source, pytest.raises(errors.UnknownClip, match=CLIP):
        source.clip(CLIP[:-1] + "7")


def test_chunk_not_downloaded(whole):
    with open_source(whole) as source, pytest.raises(errors.NotDownloaded, match=rf"chunk 1, of which 5 of 5(.|\n)*--local-dir {whole}"):
        source.clip(OTHER).sample()


def test_missing_camera(whole, no_decoding):
    refused(whole, errors.MissingCamera, "camera_rear_tele_30fov", cameras=(CAMERAS[0], REAR))
    refused(whole, errors.MissingCamera, "front_wide", cameras=("camera_front",))


def test_truncated_video(tree, no_decoding):
    put_camera(tree, CAMERAS[1], clip=video(frames=200))
    refused(tree, errors.BadVideo, f"{CAMERAS[1]}.*truncated: 200 frames for {FRAMES} timestamps")


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100, VIDEO[: len(VIDEO) // 2]])
def test_broken_video(tree, no_decoding, content):
    put_camera(tree, CAMERAS[1], clip=content or b"\0")
    refused(tree, errors.BadVideo, "can't be opened")


def test_chunk_cut_off(tree, no_decoding):
    path = chunk(tree, CAMERAS[0])
    path.write_bytes(path.read_bytes()[:1000])
    refused(tree, errors.BadVideo, "does not hold")


@pytest.mark.parametrize("times", [stamps(CAMERAS[0])[::-1].copy(), np.zeros(FRAMES, np.int64), stamps(CAMERAS[0])[:1]])
def test_timestamps_that_do_not_increase(tree, no_decoding, times):
    put_camera(tree, CAMERAS[0], times=times)
    refused(tree, errors.BadVideo, "don't increase")


def test_a_clock_that_would_give_wrong_frames(tree, no_decoding):
    put_camera(tree, CAMERAS[2], clip=video(time_base=Fraction(1, 1000), container="matroska"))
    refused(tree, errors.BadVideo, r"drifts: from frame \d+ on")


def test_a_clock_that_does_not_start_at_zero(tree, no_decoding):
    put_camera(tree, CAMERAS[2], clip=video(first=5, container="mpegts"))
    refused(tree, errors.BadVideo, "starts at pts")


def test_broken_poses(tree, no_decoding):
    data = egomotion()
    data.loc[700, "x"] = math.nan
    put_egomotion(tree, data)
    refused(tree, errors.BadEgomotion, r"1 broken poses, the first in row 700 \(7\.000 s\)")
    put_egomotion(tree, egomotion().assign(qw=0.0))
    refused(tree, errors.BadEgomotion, "broken poses")


def test_egomotion_times(tree, no_decoding):
    data = egomotion()
    data.loc[500, "timestamp"] = data.loc[499, "timestamp"]
    put_egomotion(tree, data)
    refused(tree, errors.BadEgomotion, "row 500")


def test_log_too_short(tree, no_decoding):
    put_egomotion(tree, egomotion().query("timestamp <= 6_000_000"))
    refused(tree, errors.OutOfRange, "too short")
