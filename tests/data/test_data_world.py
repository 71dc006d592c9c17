"""The synthetic world through the clip loader and under the overlay: what is written is what is read, and lies where it is drawn."""

import pytest
import torch

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.source import open_source
from alpamayo_r1.draw.overlay import project
from alpamayo_r1.world.clips import write_clips
from alpamayo_r1.world.render import render
from alpamayo_r1.world.samples import sample_batch
from alpamayo_r1.world.simulate import simulate
from support.contract import check_sample

SEED, FAMILY, T0_STEP = 41, "curve", 51
SIZE = (180, 320)


@pytest.fixture(scope="module")
def scene():
    return simulate([SEED], families=[FAMILY])


@pytest.mark.slow
def test_a_written_clip_reads_back_as_the_worlds_own_sample(scene, tmp_path):
    (direct,) = sample_batch(scene, T0_STEP, width=SIZE[1], height=SIZE[0], supersample=1)
    (clip_id,) = write_clips(
        [SEED], tmp_path / "pai", width=SIZE[1], height=SIZE[0], seconds=0.5, t_start=4.7, supersample=1, families=[FAMILY]
    )
    with open_source(tmp_path / "pai") as source:
        read = source.clip(clip_id).sample()
    for sample in (read, direct):
        check_sample(sample, size=SIZE)
    assert read.clip_id == direct.clip_id and read.meta["vehicle"] == direct.meta["vehicle"]
    for a, b in ((read.observation.history, direct.observation.history), (read.future, direct.future)):
        assert torch.allclose(a.xyz, b.xyz, atol=1e-3) and torch.allclose(a.rot, b.rot, atol=1e-4)
    assert (read.observation.frames.float() - direct.observation.frames.float()).abs().mean() < 6


@pytest.mark.slow
@pytest.mark.parametrize("camera", CAMERAS)
def test_the_projected_path_lies_on_the_rendered_one(scene, camera):
    """A line painted on the world's ground along the driven path, against the path projected through the calibration: median <= 1 px."""
    options = {"width": 640, "height": 360, "cameras": (camera,), "frames": 1, "supersample": 1}
    (sample,) = sample_batch(scene, T0_STEP, **options)
    step = torch.tensor([T0_STEP])
    marked = render(scene, step, markers=scene.ego[:, T0_STEP : T0_STEP + 65, :2], **options)[0, 0, 0]
    line = (marked.int() - sample.observation.frames[0, 0].int()).abs().sum(0) > 60
    rows = line.any(1).nonzero()[:, 0]
    centre = torch.stack([torch.stack([line[row].nonzero().float().mean(), row]) for row in rows])
    fine = torch.nn.functional.interpolate(sample.future.xyz.T[None], scale_factor=100, mode="linear", align_corners=True)[0].T
    pixel, ahead = project(sample.meta["calibration"][camera], torch.cat([torch.linspace(0, 1, 200)[:, None] * fine[:1], fine]))
    assert len(centre) > 10
    assert torch.cdist(centre, pixel[ahead]).amin(1).median() <= 1.0
