"""The notebook, and the loader under the original's name that it calls."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from alpamayo_r1.core.notes import NoteWarning
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.errors import BadEgomotion, MissingCamera, OutOfRange, SourceError
from alpamayo_r1.data.plain import PlainFolder
from alpamayo_r1.data.source import open_source, sample_folder
from alpamayo_r1.load_physical_aiavdataset import load_physical_aiavdataset, place
from conftest import GOLDEN
from support.coded_clips import CLIP, SIZE, egomotion, expected_path, put_egomotion, stamps, write_tree

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "inference.ipynb"
KEYS = [
    "image_frames",
    "camera_indices",
    "ego_history_xyz",
    "ego_history_rot",
    "ego_future_xyz",
    "ego_future_rot",
    "relative_timestamps",
    "absolute_timestamps",
    "t0_us",
    "clip_id",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data") / "pai")


@pytest.fixture
def tree(tmp_path):
    """A data set to change."""
    return write_tree(tmp_path / "pai")


@pytest.mark.slow
def test_the_notebook_runs(folder, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("mediapy")
    if "python3" not in pytest.importorskip("jupyter_client").kernelspec.find_kernel_specs():
        pytest.skip("needs a Python kernel: pip install ipykernel")
    book = nbformat.read(NOTEBOOK, 4)
    places = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(places) == 1
    for cell in book.cells:  # a random model never ends its words
        cell.source = cell.source.replace("max_generation_length=256", "max_generation_length=8")
    places[0].source = f"MODEL, DATA = {str(GOLDEN / 'checkpoint')!r}, {str(folder)!r}"
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"tokens: torch.Size\(\[1, \d+\]\)", said) and re.search(r"minADE: \d", said)
    shown = [key for output in outputs if "data" in output for key in output["data"]]
    assert "image/png" in shown and "text/html" in shown, "the plot and the frames"


def test_the_notebook_is_stored_clean():
    """No outputs, no counts: what is shipped is what was written."""
    text = NOTEBOOK.read_text()
    assert '"outputs": []' in text and '"execution_count": null' in text and '"output_type"' not in text


def test_loader(folder):
    data = load_physical_aiavdataset(CLIP, avdi=str(folder))
    assert list(data) == KEYS
    assert data["image_frames"].shape == (4, 4, 3, *SIZE) and data["image_frames"].dtype == torch.uint8
    assert data["camera_indices"].tolist() == [0, 1, 2, 6] and data["camera_indices"].dtype == torch.int64
    for name, steps, t in (("history", 16, torch.arange(-15, 1)), ("future", 64, torch.arange(1, 65))):
        xyz, rot = data[f"ego_{name}_xyz"], data[f"ego_{name}_rot"]
        assert xyz.shape == (1, 1, steps, 3) and rot.shape == (1, 1, steps, 3, 3) and xyz.dtype == rot.dtype == torch.float32
        wanted = expected_path(5.1, 5.1 + 0.1 * t.numpy())
        torch.testing.assert_close(xyz[0, 0], torch.from_numpy(wanted[0]).float(), atol=2e-5, rtol=0)
        torch.testing.assert_close(rot[0, 0], torch.from_numpy(wanted[1]).float(), atol=2e-5, rtol=0)
    absolute, relative = data["absolute_timestamps"], data["relative_timestamps"]
    assert absolute.shape == relative.shape == (4, 4) and (absolute.dtype, relative.dtype) == (torch.int64, torch.float32)
    assert all(t in stamps(camera) for camera, row in zip(CAMERAS, absolute.tolist()) for t in row)
    assert relative.min() == 0 and relative.max() == pytest.approx((absolute.max() - absolute.min()).item() * 1e-6)
    assert (data["t0_us"], data["clip_id"]) == (5_100_000, CLIP)


def test_loader_takes_every_kind_of_place(folder):
    """A folder, the devkit's interface, an open source (which stays open)."""
    wanted = load_physical_aiavdataset(CLIP, 4_000_000, folder)
    with open_source(folder) as source:
        for avdi in (PlainFolder(folder), source, source):
            data = load_physical_aiavdataset(CLIP, 4_000_000, avdi, maybe_stream=False)
            assert all(torch.equal(data[k], wanted[k]) for k in KEYS if isinstance(wanted[k], torch.Tensor))


def test_loader_options(folder):
    few = load_physical_aiavdataset(CLIP, avdi=folder, camera_features=[CAMERAS[3], CAMERAS[1]], num_frames=2)
    assert few["camera_indices"].tolist() == [1, 6] and few["image_frames"].shape[:2] == (2, 2)
    short = load_physical_aiavdataset(CLIP, avdi=folder, num_history_steps=8, num_future_steps=20)
    whole = load_physical_aiavdataset(CLIP, avdi=folder)
    assert torch.equal(short["ego_history_xyz"], whole["ego_history_xyz"][:, :, -8:])
    assert torch.equal(short["ego_future_rot"], whole["ego_future_rot"][:, :, :20])


def test_loader_errors(folder):
    with pytest.raises(MissingCamera, match="camera_front"):
        load_physical_aiavdataset(CLIP, avdi=folder, camera_features=["camera_front"])
    with pytest.raises(OutOfRange):
        load_physical_aiavdataset(CLIP, 14_000_000, avdi=folder)
    with pytest.raises(OutOfRange, match="100 steps after"):
        load_physical_aiavdataset(CLIP, 7_000_000, avdi=folder, num_future_steps=100)
    with pytest.raises(ValueError, match="10 Hz"):
        load_physical_aiavdataset(CLIP, avdi=folder, time_step=0.2)


def test_loader_judges_a_history_of_any_length(tree):
    """A jump that lies beyond the 16 steps of the release is seen where the history asked for reaches it."""
    data = egomotion()
    data.loc[data["timestamp"] <= 3_000_000, "x"] += 5.0
    put_egomotion(tree, data)
    load_physical_aiavdataset(CLIP, avdi=tree)
    with pytest.raises(BadEgomotion, match=r"2\.1 s before t0"):
        load_physical_aiavdataset(CLIP, avdi=tree, num_history_steps=30)


@pytest.mark.parametrize("begins, ends, refused", [(2.0, 2.3, False), (2.0, 2.7, True)])
def test_loader_notes_a_gap_of_the_history_or_refuses_it(tree, begins, ends, refused):
    data = egomotion()
    put_egomotion(tree, data[~data["timestamp"].between(begins * 1e6, ends * 1e6)])
    if refused:
        with pytest.raises(BadEgomotion, match=r"has no rows for 0\.72 s"):
            load_physical_aiavdataset(CLIP, avdi=tree, num_history_steps=40)
    else:
        with pytest.warns(NoteWarning, match=r"\[egomotion-gap\]"):
            load_physical_aiavdataset(CLIP, avdi=tree, num_history_steps=40)


@pytest.mark.parametrize("steps", [64, 70, 20])
def test_loader_gives_no_future_across_a_gap(tree, steps):
    data = egomotion()
    put_egomotion(tree, data[~data["timestamp"].between(6_000_000, 6_700_000)])
    with pytest.raises(OutOfRange, match="gap"):
        load_physical_aiavdataset(CLIP, avdi=tree, num_future_steps=steps)
    assert load_physical_aiavdataset(CLIP, avdi=tree, num_future_steps=5)["ego_future_xyz"].shape == (1, 1, 5, 3)


@pytest.mark.parametrize(
    "options",
    [
        {"num_history_steps": 0},
        {"num_history_steps": 10**12},
        {"num_future_steps": -1},
        {"num_future_steps": 10**12},
        {"num_future_steps": 6.5},
        {"t0_us": float("nan")},
        {"t0_us": 10**30},
        {"t0_us": "soon"},
    ],
)
def test_loader_refuses_numbers_that_no_clip_has_before_it_builds_anything(folder, options):
    with pytest.raises((ValueError, OutOfRange), match=r"expected"):
        load_physical_aiavdataset(CLIP, avdi=folder, **options)


def test_an_interface_is_nvidias_only_if_it_is(tree):
    """A given interface is judged as an opened source is: by its repository, its marker and its cars."""

    def kind(interface):
        with place(interface, False) as source:
            return source.kind

    interface = PlainFolder(tree)
    assert kind(interface) == "physical-ai-av"
    cars = pd.read_parquet(tree / "metadata/data_collection.parquet")
    cars.assign(platform_class="my van").to_parquet(tree / "metadata/data_collection.parquet")
    interface = PlainFolder(tree)
    assert kind(interface) == "own"
    interface.repo_id = "nvidia/PhysicalAI-Autonomous-Vehicles"
    assert kind(interface) == "physical-ai-av"
    assert kind(PlainFolder(sample_folder())) == "world"
    with pytest.raises(SourceError, match="has no clip_index, features"):
        kind(object())
