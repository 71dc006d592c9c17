"""What is around the car: written with a clip of the world and read back as the scene knows it, at any t0; broken files are said."""

from __future__ import annotations

import io
import shutil
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alpamayo_r1.data.source import open_source, sample_folder
from alpamayo_r1.world.around import surroundings
from alpamayo_r1.world.simulate import simulate

SEED, CLIP = 850_010, "d1d92cc1-f03f-5b58-a70d-180e6780aebb"
"""The bundled clip with a vehicle ahead."""


@pytest.mark.parametrize("step", [48, 51])
def test_a_clip_brings_what_its_scene_knows(step):
    """Within the rounding of the files, 1 cm a line and 1 mm a box, of the scene itself in its own ego frame."""
    scene = simulate([SEED], seconds=12.0, families=["follow"])
    expected = surroundings(scene, 0, step)
    with open_source("sample") as source:
        found = source.clip(CLIP).sample(step * 100_000).meta["surroundings"]
    assert [m.kind for m in found.markings] == [m.kind for m in expected.markings] and len(found.markings) >= 4
    for a, b in zip(found.markings, expected.markings):
        assert torch.allclose(a.xy, b.xy, atol=0.01)
    assert {o.kind for o in found.obstacles} >= {"car", "pedestrian"}
    for a, b in zip(found.obstacles, expected.obstacles, strict=True):
        assert (a.kind, a.length, a.width, a.height) == (b.kind, *(pytest.approx(v) for v in (b.length, b.width, b.height)))
        assert (a.x, a.y, a.yaw) == tuple(pytest.approx(v, abs=2e-3) for v in (b.x, b.y, b.yaw))


def test_the_lead_vehicle_stands_where_the_label_says():
    with open_source("sample") as source:
        found = source.clip(CLIP).sample().meta["surroundings"]
    ahead = [o for o in found.obstacles if abs(o.x - 18.61) < 0.05 and abs(o.y + 1.32) < 0.05]
    assert len(ahead) == 1, "world/labels.parquet names the object of the reason at (18.6, -1.3)"


def test_a_folder_without_surroundings_gives_none(tmp_path):
    shutil.copytree(sample_folder(), tmp_path / "clips", ignore=shutil.ignore_patterns("surroundings.*"))
    with open_source(tmp_path / "clips") as source:
        sample = source.clip(CLIP).sample()
    assert "surroundings" not in sample.meta and sample.notes == ()


def many_equal_points() -> bytes:
    """A small file of one box that stands for a million steps."""
    file = io.BytesIO()
    points = [[0.0] * 1_000_000]
    line = {"kind": ["car"], "length": [1.0], "width": [1.0], "height": [1.0], "x": points, "y": points, "yaw": points}
    pq.write_table(pa.table(line), file, compression="zstd")
    return file.getvalue()


@pytest.mark.parametrize("content", [b"no parquet", None, many_equal_points()])
def test_broken_surroundings_cost_no_plan_and_are_said(tmp_path, content):
    shutil.copytree(sample_folder(), tmp_path / "clips")
    with zipfile.ZipFile(tmp_path / "clips/world/surroundings.chunk_0000.zip", "w") as archive:
        if content is not None:
            archive.writestr(f"{CLIP}.surroundings.parquet", content)
    with open_source(tmp_path / "clips") as source:
        sample = source.clip(CLIP).sample()
    assert "surroundings" not in sample.meta
    (note,) = sample.notes
    assert note.code == "surroundings-broken" and CLIP in note.text


@pytest.mark.parametrize(
    "flaw, said", [("encrypted", "is encrypted"), ("method", "by method 99"), ("huge", "bytes unpacked"), ("link", "outside it")]
)
def test_the_zip_of_the_surroundings_is_judged_as_all_others_are(tmp_path, flaw, said):
    shutil.copytree(sample_folder(), tmp_path / "clips")
    path = tmp_path / "clips/world/surroundings.chunk_0000.zip"
    if flaw == "link":
        path.rename(tmp_path / "outside.zip")
        path.symlink_to(tmp_path / "outside.zip")
    else:
        content = bytearray(path.read_bytes())
        place, value = {"encrypted": (8, b"\x01\x00"), "method": (10, b"\x63\x00"), "huge": (24, b"\x00\x00\x00\xc0")}[flaw]
        at = -1
        while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
            content[at + place : at + place + len(value)] = value
        path.write_bytes(content)
    with open_source(tmp_path / "clips") as source:
        (note,) = source.clip(CLIP).sample().notes
    assert note.code == "surroundings-broken" and said in note.text
