"""The notebook, and the loader under the original's name that it calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.errors import MissingCamera, OutOfRange
from alpamayo_r1.data.plain import PlainFolder
from alpamayo_r1.data.source import open_source
from alpamayo_r1.load_physical_aiavdataset import load_physical_aiavdataset
from conftest import GOLDEN
from support.coded_clips import CLIP, SIZE, expected_path, stamps, write_tree

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


@pytest.mark.slow
def test_the_notebook_runs(folder, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("mediapy")
    if "python3" not in pytest.importorskip("jupyter_client").kernelspec.find_kernel_specs():
        pytest.skip("needs a Python kernel: pip install ipykernel")
    book = nbformat.read(NOTEBOOK, 4)
    places = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(places) == 1
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
