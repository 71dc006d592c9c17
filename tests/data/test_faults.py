"""What strangers' data sets did to the loader: each case was read without a word, or ended in an error without a type."""

import io
import socket
import struct
import zipfile

import av
import numpy as np
import pandas as pd
import pytest
import torch

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data import errors
from alpamayo_r1.data.clock import read_times, rows_at, unit_of
from alpamayo_r1.data.source import open_source
from support.coded_clips import (
    CLIP,
    FRAMES,
    SIZE,
    VIDEO,
    bars,
    chunk,
    egomotion,
    number_of,
    parquet,
    put_camera,
    put_egomotion,
    stamps,
    table,
    write_tree,
)

FRONT = CAMERAS[1]


@pytest.fixture
def tree(tmp_path):
    """A fresh data set to break."""
    return write_tree(tmp_path / "pai")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set that is only read."""
    return write_tree(tmp_path_factory.mktemp("data") / "pai")


def sample(root, **options):
    with open_source(root) as source:
        return source.clip(CLIP).sample(**options)


def clock(times, numbers=None):
    return pd.DataFrame({"timestamp": times} | ({} if numbers is None else {"frame_index": numbers}))


def put_clock(root, camera, frame):
    with zipfile.ZipFile(chunk(root, camera), "w") as archive:
        archive.writestr(f"{CLIP}.{camera}.mp4", VIDEO)
        archive.writestr(f"{CLIP}.{camera}.timestamps.parquet", parquet(frame))


# --- time


def test_stamps_that_leap_do_not_give_one_frame_four_times(tree):
    times = stamps(FRONT)
    put_camera(tree, FRONT, times=np.where(times > 3_400_000, times + 1_710_000, times))
    with pytest.raises(errors.BadVideo, match=r"no frame in the \d\.\d+ s before"):
        sample(tree)


@pytest.mark.parametrize("late, refused", [(120_000, False), (400_000, True)])
def test_a_gap_before_t0_is_noted_or_refused(tree, late, refused):
    times = stamps(FRONT)
    number = np.flatnonzero((times < 5_100_000 - late) | (times > 5_100_000))
    put_clock(tree, FRONT, clock(times[number], number))
    if refused:
        with pytest.raises(errors.BadVideo, match="no frame in the"):
            sample(tree)
    else:
        assert [note.code for note in sample(tree).notes] == ["frames-stale"]


def test_rows_that_are_missing_are_known_by_their_frame_index(tree):
    number = np.delete(np.arange(FRAMES), slice(20, 40))
    put_clock(tree, FRONT, clock(stamps(FRONT)[number], number))
    seen = sample(tree)
    due = [np.searchsorted(stamps(FRONT), t, side="right") - 1 for t in (4_800_000, 4_900_000, 5_000_000, 5_100_000)]
    assert [number_of(picture) for picture in seen.observation.frames[1]] == due and not seen.notes


@pytest.mark.parametrize("rows", [slice(0, -20), slice(20, None)])
def test_without_an_index_a_row_per_frame_is_demanded(tree, rows):
    put_clock(tree, FRONT, clock(stamps(FRONT)[rows]))
    with pytest.raises(errors.BadVideo, match=f"{FRAMES} frames for {FRAMES - 20} timestamps"):
        sample(tree)


@pytest.mark.parametrize("factor, unit", [(1000, "nanoseconds"), (1 / 1000, "milliseconds"), (1 / 1e6, "seconds")])
@pytest.mark.parametrize("which", ["egomotion", "camera"])
def test_another_unit_is_named(tree, which, factor, unit):
    def convert(times):
        return times / 1e6 if unit == "seconds" else (times * factor).round().astype(np.int64)

    if which == "camera":
        put_camera(tree, FRONT, times=convert(stamps(FRONT)))
    else:
        put_egomotion(tree, egomotion().assign(timestamp=lambda t: convert(t.timestamp)))
    with pytest.raises((errors.BadVideo, errors.BadEgomotion), match=f"look like {unit}"):
        sample(tree)


@pytest.mark.parametrize("hertz", [10, 15, 24, 30, 50, 60])
def test_cameras_of_any_usual_rate_pass_without_a_note(hertz):
    jitter = np.random.default_rng(hertz).integers(-3000, 3000, 100)
    times = read_times(clock((np.arange(100) * 1e6 / hertz).astype(np.int64) + jitter), "x", errors.BadVideo)
    asked = np.arange(400_000, 1_500_000, 7_000)
    rows, notes = rows_at(times, asked, float(np.median(np.diff(times))), "x", "leave it out")
    assert notes == () and (times[rows] <= asked).all() and (times[rows + 1] > asked).all()


def test_the_unit_is_guessed_from_the_steps():
    assert [unit_of(np.full(9, step)) for step in (0.01, 33, 33_333, 33_333_333)] == [
        f"these look like {unit}" for unit in ("seconds", "milliseconds", "microseconds", "nanoseconds")
    ]


def test_clocks_of_two_epochs_are_told_apart(tree):
    put_egomotion(tree, egomotion().assign(timestamp=lambda t: t.timestamp + 1_700_000_000_000_000))
    with pytest.raises(errors.BadEgomotion, match="no moment in common"):
        sample(tree)


def test_a_gap_in_the_log_is_noted_refused_or_left_unknown(tree):
    put_egomotion(tree, egomotion().query("not 4_000_000 < timestamp < 4_300_000"))
    assert [note.code for note in sample(tree).notes] == ["egomotion-gap"]
    put_egomotion(tree, egomotion().query("not 4_000_000 < timestamp < 4_600_000"))
    with pytest.raises(errors.BadEgomotion, match=r"no rows for 0\.60 s"):
        sample(tree)
    put_egomotion(tree, egomotion().query("not 7_000_000 < timestamp < 7_600_000"))
    with pytest.raises(errors.OutOfRange, match="gap"):
        sample(tree)
    known = ~sample(tree, need_future=False).future.xyz.isnan().any(-1)
    assert (~known).nonzero().flatten().tolist() == [19, 20, 21, 22, 23]


def test_a_log_that_ends_microseconds_early_keeps_what_it_knows(tree):
    put_egomotion(tree, egomotion().query("timestamp <= 11_499_963"))
    future = sample(tree, need_future=False).future
    assert int(future.xyz.isnan().any(-1).sum()) == 1 and bool(future.xyz[:63].isfinite().all())


# --- containers


def turned(content, matrix):
    """The video with another display matrix in its track header."""
    at = content.index(b"tkhd") + 44
    return content[:at] + struct.pack(">9i", *(round(v * 65536) for v in matrix[:6]), 0, 0, 1 << 30) + content[at + 36 :]


def test_a_video_turned_by_its_display_matrix_is_shown_upright(tree, whole):
    put_camera(tree, FRONT, clip=turned(VIDEO, (-1, 0, 0, 0, -1, 0)))
    flat, straight = (sample(root, cameras=(FRONT,)).observation.frames for root in (tree, whole))
    assert torch.equal(flat, straight.flip(-1, -2))


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 0, 1, 0), (0.7, 0.7, 0, -0.7, 0.7, 0), (2, 0, 0, 0, 2, 0)])
def test_a_video_that_is_mirrored_or_slanted_is_refused(tree, matrix):
    put_camera(tree, FRONT, clip=turned(VIDEO, matrix))
    with pytest.raises(errors.BadVideo, match="display matrix"):
        sample(tree)


def test_a_frame_that_a_strict_decoder_rejects_is_no_picture(tree):
    broken = bytearray(VIDEO)
    begin = VIDEO.index(b"mdat")
    with av.open(io.BytesIO(VIDEO)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for pos, size in packets[120:160]:
        broken[pos + size // 2] ^= 0xFF
    assert begin < packets[0][0]
    put_camera(tree, FRONT, clip=bytes(broken))
    with pytest.raises(errors.BadVideo, match="can't be decoded"):
        sample(tree)


def test_pixels_that_are_not_square_are_refused(tree):
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.sample_aspect_ratio = 2
        for n in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(bars(n), format="rgb24")))
        out.mux(stream.encode())
    put_camera(tree, FRONT, clip=file.getvalue())
    with pytest.raises(errors.BadVideo, match="as wide as high"):
        sample(tree)


# --- contained, bounded, typed


def test_a_local_folder_never_asks_the_network(tree, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("went to the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("went to the network"))
    sample(tree)
    (tree / "metadata/feature_presence.parquet").rename(tree / "metadata/sensor_presence.parquet")
    sample(tree)
    (tree / "metadata/sensor_presence.parquet").unlink()
    with pytest.raises(errors.SourceError, match="feature_presence"):
        open_source(tree)


def test_links_and_paths_that_lead_out_of_the_folder_are_refused(tree, tmp_path):
    path = chunk(tree, FRONT)
    path.rename(tmp_path / "outside.zip")
    path.symlink_to(tmp_path / "outside.zip")
    with pytest.raises(errors.SourceError, match="outside"):
        sample(tree)


@pytest.mark.parametrize("path", ["../camera.{chunk_id:04d}.zip", "/tmp/{chunk_id}.zip", "a.zip", "{chunk_id:099999d}", "{chunk_id.x}"])
def test_chunk_paths_that_leave_the_folder_or_grow_are_refused(tree, path):
    features = pd.read_csv(tree / "features.csv")
    features.loc[0, "chunk_path"] = path
    features.to_csv(tree / "features.csv", index=False)
    with pytest.raises(errors.SourceError, match=r"features\.csv"):
        open_source(tree)


@pytest.mark.parametrize("flag", ["encrypted", "method", "huge"])
def test_zip_members_are_judged_before_they_are_unpacked(tree, flag):
    content = bytearray(chunk(tree, FRONT).read_bytes())
    at = content.index(b"PK\x01\x02")
    place, value = {"encrypted": (8, b"\x01\x00"), "method": (10, b"\x63\x00"), "huge": (24, b"\x00\x00\x00\xc0")}[flag]
    content[at + place : at + place + len(value)] = value
    chunk(tree, FRONT).write_bytes(content)
    with pytest.raises(errors.BadVideo, match=r"encrypted|method 99|bytes unpacked"):
        sample(tree)


@pytest.mark.parametrize("name", ["clip_index.parquet", "metadata/feature_presence.parquet", "features.csv", "splits/default.parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xfe\x00junk" * 40])
def test_damaged_indices_have_a_type(tree, name, content):
    (tree / name).write_bytes(content)
    with pytest.raises(errors.SourceError, match="what to do"):
        open_source(tree)


@pytest.mark.parametrize("chunks", [[0.0, np.nan], ["a", "b"], [-1, 0], [0, 10**12]])
def test_chunk_numbers_are_whole_and_bounded(tree, chunks):
    index = pd.read_parquet(tree / "clip_index.parquet").assign(chunk=chunks)
    table(tree / "clip_index.parquet", index)
    with pytest.raises(errors.SourceError, match="chunk"):
        open_source(tree)


@pytest.mark.parametrize("column", ["timestamp", "qw", "x"])
@pytest.mark.parametrize("change", ["rename", "text", "drop"])
def test_columns_of_the_log_have_names_and_types(tree, column, change):
    data = egomotion()
    data = {"rename": data.rename(columns={column: "other"}), "drop": data.drop(columns=column)}.get(change, data.astype({column: str}))
    put_egomotion(tree, data)
    with pytest.raises(errors.BadEgomotion, match=column):
        sample(tree)


@pytest.mark.parametrize("column, value", [("length", np.inf), ("length", 0.1), ("width", np.nan), ("wheelbase", np.inf)])
def test_vehicles_are_of_finite_size(tree, column, value):
    path = tree / "calibration/vehicle_dimensions/vehicle_dimensions.chunk_0000.parquet"
    table(path, pd.read_parquet(path).assign(**{column: value}))
    with pytest.raises(errors.BadCalibration, match=column):
        sample(tree)


@pytest.mark.parametrize("column, value", [("fw_poly_1", 0.0), ("fw_poly_2", np.inf), ("cx", np.nan), ("width", 0)])
def test_lenses_are_finite(tree, column, value):
    path = tree / "calibration/camera_intrinsics/camera_intrinsics.chunk_0000.parquet"
    table(path, pd.read_parquet(path).assign(**{column: value}))
    with pytest.raises(errors.BadCalibration):
        sample(tree)


@pytest.mark.parametrize("feature", ["camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions"])
def test_a_calibration_has_one_row_for_each_part(tree, feature):
    path = tree / f"calibration/{feature}/{feature}.chunk_0000.parquet"
    table(path, pd.concat([pd.read_parquet(path)] * 2))
    with pytest.raises(errors.BadCalibration, match=r"several rows for camera|has 2 rows"):
        sample(tree)


@pytest.mark.parametrize("feature", ["camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions"])
@pytest.mark.parametrize("change", [lambda data: data.astype(str), lambda data: data.reset_index()])
def test_a_calibration_holds_numbers_by_clip_id(tree, feature, change):
    path = tree / f"calibration/{feature}/{feature}.chunk_0000.parquet"
    table(path, change(pd.read_parquet(path)))
    with pytest.raises(errors.BadCalibration, match=r"text"):
        sample(tree)


def test_a_clip_that_its_index_calls_invalid_says_so(tree):
    table(tree / "clip_index.parquet", pd.read_parquet(tree / "clip_index.parquet").assign(clip_is_valid=False))
    assert [note.code for note in sample(tree).notes] == ["clip-invalid"]


def test_a_data_set_of_ones_own_is_not_nvidias(tree):
    table(
        tree / "metadata/data_collection.parquet",
        pd.read_parquet(tree / "metadata/data_collection.parquet").assign(platform_class="my van"),
    )
    assert sample(tree).meta["source"] == "own"


def test_the_bundled_clips_are_read_without_a_note():
    with open_source("sample") as source:
        assert [source.clip(clip_id).sample().notes for clip_id in source.clip_ids[:3]] == [(), (), ()]
