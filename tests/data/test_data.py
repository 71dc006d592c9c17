"""The clip loader on a tiny data set whose videos carry their frame numbers as bar codes: plain folder, Hub cache, bad input."""

import math
import socket
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest
import torch

from alpamayo_r1.core.types import CAMERAS, F, H
from alpamayo_r1.data import errors
from alpamayo_r1.data.source import MARKER, NVIDIA, open_source
from support.coded_clips import (
    CLIP,
    COMMIT,
    FRAMES,
    OTHER,
    REAR,
    SIZE,
    VIDEO,
    chunk,
    egomotion,
    expected_path,
    put_camera,
    put_egomotion,
    shown,
    stamps,
    table,
    video,
    write_tree,
)
from support.contract import check_sample


@pytest.fixture
def tree(tmp_path):
    """A fresh data set to break."""
    return write_tree(tmp_path / "pai")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set that is only read."""
    return write_tree(tmp_path_factory.mktemp("data") / "pai")


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


@pytest.mark.parametrize("frames", [1, 4, 7])
def test_the_first_t0_has_every_frame_before_it(tree, frames):
    """A camera that starts 2 s into the log: t0 waits for it to have seen all frames of a sample, a tenth of a second apart."""
    camera = CAMERAS[1]
    put_camera(tree, camera, times=stamps(camera) + 2_000_000)
    with open_source(tree) as source:
        clip = source.clip(CLIP)
        first, _ = clip.valid_t0(frames=frames)
        assert first == stamps(camera)[0] + 2_000_000 + 100_000 * (frames - 1)
        assert clip.sample(first, frames=frames).observation.frames.shape[1] == frames
        with pytest.raises(errors.OutOfRange):
            clip.sample(first - 1, frames=frames)


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


@pytest.mark.slow
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
    from alpamayo_r1.data.camera import Camera

    monkeypatch.setattr(Camera, "_decode", lambda *a: pytest.fail("decoded a frame"))


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
