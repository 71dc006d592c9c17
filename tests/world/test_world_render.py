"""The renderer: where things land, what they look like, and that its two paths draw the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.rig.views import view_of
from alpamayo_r1.world import render as renderer
from alpamayo_r1.world.render import render, render_at
from alpamayo_r1.world.rig import RIG, resized
from alpamayo_r1.world.scene import Kind, Light, SceneBatch
from support.toy_world import toy_scene

pytestmark = pytest.mark.slow

WIDE, TELE = CAMERAS[1], CAMERAS[3]
STEP = torch.tensor([20])


def bare(scene: SceneBatch) -> SceneBatch:
    """The street with nothing on it."""
    return replace(scene, kind=torch.zeros_like(scene.kind), prop_kind=torch.zeros_like(scene.prop_kind))


@pytest.mark.parametrize("name", CAMERAS)
@pytest.mark.parametrize("size", [(1920, 1080), (224, 128)])
def test_lens_inverts_itself(name, size):
    lens = resized(RIG[name], *size).lens
    corners = torch.tensor([[0, 0], [size[0] - 1, 0], [size[0] / 2, size[1] / 3], [size[0] - 1, size[1] - 1]], dtype=torch.float64)
    pixel, inside = lens.project(lens.rays(corners))
    assert inside.all() and (pixel - corners).abs().max() < 2e-3


@pytest.mark.parametrize("name", CAMERAS)
def test_rig_looks_where_it_says(name):
    rot = torch.tensor(RIG[name].rot)
    assert torch.allclose(rot.T @ rot, torch.eye(3), atol=1e-6) and rot.det() > 0
    expected = {"left": 57.0, "right": -57.0}.get(name.split("_")[2] if "cross" in name else "", 0.0)
    assert torch.atan2(rot[1, 2], rot[0, 2]).rad2deg().item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", CAMERAS)
def test_objects_land_where_the_calibration_projects_them(name):
    scene = bare(toy_scene())
    ahead = torch.tensor(RIG[name].rot)[:2, 2] * 14
    props = replace(
        scene,
        prop_kind=torch.tensor([[Kind.CONE]]),
        prop_size=torch.tensor([[[0.5, 0.5, 1.0]]]),
        prop_colour=torch.ones(1, 1, 3),
        prop_pose=torch.tensor([[[ahead[0], ahead[1], 0.0]]]),
        sky=torch.ones(1),
    )
    options = {"width": 480, "height": 270, "cameras": [name], "frames": 1}
    before, after = (render(s, STEP, **options)[0, 0, 0].int() for s in (scene, props))
    orange = (after[0] - after[2] > 110) & ((after - before).abs().amax(0) > 60)
    ends, visible = resized(RIG[name], 480, 270).project(torch.tensor([[*ahead.tolist(), 0.0], [*ahead.tolist(), 1.0]]))
    rows, columns = orange.nonzero(as_tuple=True)
    slack = 5.0 if name == TELE else 1.6
    assert visible.all() and orange.sum() > 12
    assert abs(columns.float().mean() - ends[:, 0].mean()) < slack
    assert abs(rows.max() - ends[0, 1]) < slack and abs(rows.min() - ends[1, 1]) < slack


def test_markers_lie_under_the_projected_path():
    scene = bare(toy_scene(sky=1.0))
    path = torch.stack([torch.linspace(6, 40, 18), 0.02 * torch.linspace(6, 40, 18) ** 1.5], -1)
    options = {"width": 640, "height": 360, "cameras": [WIDE], "frames": 1}
    picture = render(scene, STEP, markers=path[None], **options)[0, 0, 0].int()
    magenta = (picture[0] - picture[1] > 60) & (picture[2] - picture[1] > 40)
    pixel, visible = resized(RIG[WIDE], 640, 360).project(torch.cat([path, torch.zeros(18, 1)], -1))
    assert visible.all()
    for column, row in pixel[2:9].round().long().tolist():
        assert magenta[row - 1 : row + 2, column - 1 : column + 2].any(), (column, row)
    assert 20 < magenta.sum() < 4000


def test_brake_lights_and_traffic_light_change_the_picture():
    scene = toy_scene()
    options = {"width": 448, "height": 256, "cameras": [TELE], "frames": 1}
    braking = render(scene, STEP, **options)[0, 0, 0].int()
    rolling = render(replace(scene, braking=torch.zeros_like(scene.braking)), STEP, **options)[0, 0, 0].int()
    red = (braking[0] > 190) & (braking[1] < 70)
    assert ((braking[0] - rolling[0]) * red).max() > 80
    green = render(replace(scene, light=torch.full_like(scene.light, int(Light.GREEN))), STEP, **options)[0, 0, 0].int()
    changed = (green - braking).abs().amax(0) > 80
    assert changed.sum() >= 10
    assert (green[1] - green[0])[changed].max() > 100 and (braking[0] - braking[1])[changed].max() > 100


def test_times_move_the_world_and_interpolate():
    scene = toy_scene()
    options = {"width": 224, "height": 128, "cameras": [WIDE]}
    frames = render(scene, torch.tensor([23]), **options)
    assert frames.shape == (1, 1, 4, 3, 128, 224) and frames.dtype == torch.uint8
    assert torch.equal(frames, render_at(scene, torch.tensor([[20.0, 21, 22, 23]]), **options))
    assert not torch.equal(frames[:, :, 0], frames[:, :, 3])
    between = render_at(scene, torch.tensor([[20.5]]), **options)[0, 0, 0].int()
    error = [(between - frames[0, 0, k].int()).abs().float().mean() for k in (0, 1, 3)]
    assert max(error[:2]) < error[2]


@pytest.mark.slow
def test_scenes_do_not_depend_on_their_batch():
    scene = toy_scene(batch=3)
    moved = replace(scene, ego=scene.ego + torch.tensor([[[0.0, 0, 0]], [[3.0, 1, 0.1]], [[6.0, 0, 0]]]))
    options = {"width": 112, "height": 64}
    steps = torch.tensor([20, 22, 25])
    together = render(moved, steps, **options)
    alone = torch.cat([render(moved[i : i + 1], steps[i : i + 1], chunk=1, **options) for i in range(3)])
    assert (together.int() - alone.int()).abs().max() <= 1


def test_dense_and_listed_paths_agree():
    scene, options = toy_scene(), {"width": 224, "height": 128, "frames": 1}
    listed = render(scene, STEP, **options).int()
    dense = render(scene, STEP, dense=True, **options).int()
    difference = (listed - dense).abs().float()
    assert difference.mean() < 0.05 and (difference > 8).float().mean() < 0.002


@pytest.mark.slow
def test_every_fused_piece_traces_whole(monkeypatch):
    scene, options = toy_scene(), {"width": 56, "height": 32, "frames": 1, "cameras": [WIDE], "supersample": 1}
    monkeypatch.setattr(renderer, "_compiled", lambda function: torch.compile(function, fullgraph=True, dynamic=False, backend="eager"))
    assert torch.equal(render(scene, STEP, compile=True, **options), render(scene, STEP, dense=True, **options))


def test_a_camera_that_stands_elsewhere_shows_what_its_re_rendered_view_does():
    scene, at, off = toy_scene(), torch.tensor([[20.0]]), (-0.3, 0.1, 0.8)
    there = replace(RIG[WIDE], position=tuple(a + b for a, b in zip(RIG[WIDE].position, off, strict=True)))
    options = {"width": 224, "height": 126, "cameras": [WIDE]}
    plain, aside = (render_at(scene, at, aside=where, **options)[0, 0, 0].int() for where in (None, {WIDE: off}))
    real = render_at(scene, at, rig={WIDE: there}, **options)
    view = view_of(resized(RIG[WIDE], 224, 126), {"real": resized(there, 224, 126)}, True).render({"real": real[0, 0]})
    seen = view.reshape(3, 126, 224).int()  # its lowest rows, the camera does not see
    off, moved = ((one[:, :100] - aside[:, :100]).abs().amax(0) > 40 for one in (seen, plain))
    assert off.float().mean() < 0.01 and moved.float().mean() > 5 * off.float().mean()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_draws_the_same_picture():
    scene = toy_scene(batch=2)
    steps = torch.tensor([20, 25])
    here = render(scene, steps, width=224, height=128).int()
    there = render(scene.to("cuda"), steps.cuda(), width=224, height=128).cpu().int()
    assert (here - there).abs().float().mean() < 0.1
