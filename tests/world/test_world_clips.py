"""Samples and clips of the synthetic world: the devkit, unmodified and offline, reads what was simulated."""

from __future__ import annotations

import io
import os
import zipfile

import av
import numpy as np
import pandas as pd
import pytest
import torch

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.world.clips import REPO_ID, egomotion, encode, write_clips
from alpamayo_r1.world.render import render
from alpamayo_r1.world.rig import RIG, resized
from alpamayo_r1.world.samples import clip_id, paths, sample_batch
from alpamayo_r1.world.simulate import simulate

pytestmark = pytest.mark.slow

SEEDS, T0, REVISION = [101, 102], 5_100_000, "0" * 39 + "1"
SIZE = {"width": 128, "height": 72}


@pytest.fixture(scope="module")
def scene():
    return simulate(SEEDS)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two clips written in two goes, the second into a directory that already has the first."""
    out = tmp_path_factory.mktemp("world") / "clips"
    options = {**SIZE, "seconds": 0.4, "t_start": 4.75, "crf": 12}
    first = write_clips(SEEDS[:1], out, **options)
    shares: list[float] = []
    assert write_clips(SEEDS, out, **options, rendered=shares.append) == [*first, clip_id(SEEDS[1])]
    assert sum(shares) == pytest.approx(1), "one clip was new"
    return out


@pytest.fixture(scope="module")
def devkit(root):
    """The unmodified devkit over a Hub cache whose snapshot is a link to the clips; no request may leave the process."""
    from physical_ai_av import PhysicalAIAVDatasetInterface

    snapshots = root.parent / "hub" / f"datasets--{REPO_ID.replace('/', '--')}" / "snapshots"
    snapshots.mkdir(parents=True)
    os.symlink(root, snapshots / REVISION)
    return PhysicalAIAVDatasetInterface(revision=REVISION, repo_id=REPO_ID, cache_dir=str(root.parent / "hub"), token=False)


@pytest.mark.slow
def test_devkit_reads_the_paths_within_a_millimetre(devkit, scene):
    expected = paths(scene, torch.full((2,), 51))
    for row, seed in enumerate(SEEDS):
        motion = devkit.get_clip_feature(clip_id(seed), devkit.features.LABELS.EGOMOTION)
        pose = motion(T0 + 100_000 * np.arange(-15, 65)).pose
        local = pose[15].inv() * pose
        xyz = np.concatenate([expected.history_xyz[row], expected.future_xyz[row]])
        rot = np.concatenate([expected.history_rot[row], expected.future_rot[row]])
        assert np.abs(local.translation - xyz).max() < 1e-3
        assert np.abs(local.rotation.as_matrix() - rot).max() < 1e-4


@pytest.mark.slow
def test_devkit_reads_the_frames(devkit, scene):
    drawn = render(scene, torch.full((2,), 51), frames=1, **SIZE)
    for row, seed in enumerate(SEEDS):
        for c, name in enumerate(CAMERAS):
            reader = devkit.get_clip_feature(clip_id(seed), name)
            pictures, times = reader.decode_images_from_timestamps(np.array([T0]))
            at = int(np.abs(reader.timestamps - T0).argmin())
            assert T0 - 33_334 <= times[0] <= T0 and len(reader.timestamps) == 13 and abs(reader.timestamps[at] - T0) < 17_000
            error = np.abs(pictures[0].astype(int) - drawn[row, c, 0].permute(1, 2, 0).numpy().astype(int))
            assert error.mean() < 9, (name, error.mean())


def test_devkit_reads_the_calibration(devkit):
    lenses = devkit.get_clip_feature(clip_id(SEEDS[0]), "camera_intrinsics").camera_models
    poses = devkit.get_clip_feature(clip_id(SEEDS[0]), "sensor_extrinsics").sensor_poses
    body = devkit.get_clip_feature(clip_id(SEEDS[0]), "vehicle_dimensions")
    assert body.wheelbase == pytest.approx(2.9)
    for name in CAMERAS:
        ours = resized(RIG[name], **SIZE)
        forward = np.array(ours.rot)[:, 2]
        point = np.array(ours.position) + 20 * forward + np.array([0.3, 0.5, -0.4])
        pixel = lenses[name].ray2pixel(poses[name].inv().apply(point)[None])[0]
        expected, _ = ours.project(torch.from_numpy(point))
        assert np.abs(pixel - expected.numpy()).max() < 1e-3


def test_indices_grow_without_losing_clips(root, devkit):
    index = pd.read_parquet(root / "clip_index.parquet")
    assert list(index.index) == [clip_id(s) for s in SEEDS] and list(index["chunk"]) == [0, 1]
    told = pd.read_parquet(root / "world/labels.parquet")
    assert list(told["seed"]) == SEEDS and told["text"].str.len().min() > 10
    for path in (root / "camera").rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert all(item.compress_type == zipfile.ZIP_STORED for item in archive.infolist())


def test_egomotion_passes_through_every_step(scene):
    table = egomotion(scene, 1)
    pose = scene.ego[1].double().numpy()
    c, s = np.cos(pose[0, 2]), np.sin(pose[0, 2])
    there = (pose[:, :2] - pose[0, :2]) @ np.array([[c, -s], [s, c]])
    assert np.abs(table[["x", "y"]].to_numpy()[::10] - there).max() < 1e-9
    assert (table["timestamp"].diff().dropna() == 10_000).all()
    speed = np.hypot(*np.gradient(table[["x", "y"]].to_numpy(), 0.01, axis=0).T)
    assert np.abs(speed - np.hypot(table["vx"], table["vy"]))[1:-1].max() < 0.1


def test_video_has_the_clock_the_devkit_needs():
    pictures = np.random.default_rng(0).integers(0, 255, (21, 32, 48, 3), dtype=np.uint8)
    with av.open(io.BytesIO(encode(pictures))) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        assert str(stream.time_base) == "1/15360" and stream.average_rate == 30
        assert [p.pts for p in packets] == [512 * i for i in range(21)]
        assert [i for i, p in enumerate(packets) if p.is_keyframe] == [0, 10, 20]


def test_samples_end_at_the_origin_and_name_their_seed(scene):
    first, second = sample_batch(scene, 51, frames=2, **SIZE)
    assert first.observation.frames.shape == (4, 2, 3, 72, 128) and first.observation.t0_us == T0
    assert first.observation.history.xyz[-1].abs().max() == 0 and torch.equal(first.observation.history.rot[-1], torch.eye(3))
    assert first.future.xyz.shape == (64, 3) and second.clip_id == clip_id(SEEDS[1]) != first.clip_id
    assert first.meta["source"] == "world" and first.meta["label"].text
    with pytest.raises(IndexError, match="t0 needs steps"):
        sample_batch(scene, 3, **SIZE)
