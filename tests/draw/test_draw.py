"""Pictures: the overlay against geometry worked backwards from its pixels, the view from above against its convention, whole pages."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from alpamayo_r1.core.geometry import Calibration, FTheta, rot_z
from alpamayo_r1.core.types import CAMERAS, DT, F, H, Observation, Plan, Sample, Trajectory
from alpamayo_r1.draw import Ribbon, birds_eye, camera_grid, overlay, page, panels, png, style
from alpamayo_r1.draw.overlay import project
from alpamayo_r1.predict.record import result

WIDTH, HEIGHT, FOCAL = 480, 270, 232.0
LENS = FTheta(WIDTH, HEIGHT, 239.5, 135.2, (0.0, FOCAL), (0.0, 1 / FOCAL))


def camera(yaw, x=1.7, lens=LENS):
    """A level camera 1.4 m up, turned `yaw` degrees to the left."""
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    return Calibration(lens, (x, 0.0, 1.4), ((s, 0.0, c), (-c, 0.0, s), (0.0, -1.0, 0.0)))


YAWS = dict(zip(CAMERAS, (57, 0, -57, 0)))


def ground(camera):
    """Where the ray of each pixel meets the ground: [h, w, 2] in the ego frame, NaN above the horizon."""
    v, u = torch.meshgrid(torch.arange(HEIGHT, dtype=torch.float64), torch.arange(WIDTH, dtype=torch.float64), indexing="ij")
    rays = camera.lens.rays(torch.stack([u, v], -1)) @ torch.tensor(camera.rot, dtype=torch.float64).T
    far = torch.where(rays[..., 2] < -1e-3, -1.4 / rays[..., 2], torch.nan)
    return (torch.tensor(camera.position, dtype=torch.float64) + far[..., None] * rays)[..., :2]


def circle(radius, length, steps=F):
    """A path to the left of constant curvature, xyz [F, 3], rot."""
    s = torch.linspace(length / steps, length, steps)
    return torch.stack([radius * (s / radius).sin(), radius * (1 - (s / radius).cos()), 0 * s], -1), rot_z(s / radius)


GREY = torch.full((3, HEIGHT, WIDTH), 90, dtype=torch.uint8)


def painted(camera, *paths):
    return (overlay(GREY, camera, list(paths)).astype(int) - 90).any(-1)


@pytest.mark.parametrize("yaw", [0, 57, -57, 20, 100])
@pytest.mark.parametrize("radius", [1e5, 25.0])
def test_the_corridor_covers_the_ground_it_means(yaw, radius):
    where, width, length = ground(camera(yaw)), 2.0, 30.0
    xyz, _ = circle(radius, length)
    mask = painted(camera(yaw), Ribbon(xyz, width=width, line=1, opacity=0.6))
    x, y = where.unbind(-1)
    along = radius * torch.atan2(x, radius - y)
    aside = radius - torch.hypot(x, radius - y)
    distance = torch.hypot(x, y)
    pixel = 0.05 + 2 * distance * (distance.square() + 1.4**2).sqrt() / (1.4 * FOCAL)  # two pixels on the ground, radially
    near = distance < 12
    inside = (aside.abs() < width / 2 - 0.05) & (along > 0.3) & (along < length - 1) & near
    outside = ((aside.abs() > width / 2 + pixel) | (along < -pixel)) & near
    assert mask[inside.numpy()].all()
    assert not mask[outside.numpy()].any()
    assert not mask[where[..., 0].isnan().numpy()].any()


def test_a_line_lies_on_its_path():
    front = camera(0)
    xyz, _ = circle(30.0, 20.0)
    mask = painted(front, Ribbon(xyz, line=2))
    pixel, inside = front.project(xyz)
    column, row = pixel[inside].round().long().unbind(-1)
    assert inside.sum() > 20 and mask[row, column].all() and mask.mean() < 0.02


def test_nothing_is_drawn_behind_a_camera():
    xyz, _ = circle(1e5, 30.0)
    assert not painted(camera(180, x=-1.0), Ribbon(xyz, width=2.0), Ribbon(xyz)).any()


def test_a_standing_or_broken_path_draws_nothing():
    for xyz in (torch.zeros(F, 3), torch.full((F, 3), torch.nan)):
        assert not painted(camera(0), Ribbon(xyz, width=2.0), Ribbon(xyz)).any()


def test_the_lens_is_scaled_with_the_frame():
    xyz, _ = circle(40.0, 25.0)
    big = camera(0, lens=LENS.resized(4 * WIDTH, 4 * HEIGHT))
    small, enlarged = overlay(GREY, big, [Ribbon(xyz, width=2.0)]), overlay(GREY, camera(0), [Ribbon(xyz, width=2.0)], width=2 * WIDTH)
    same = overlay(GREY, camera(0), [Ribbon(xyz, width=2.0)])
    assert np.array_equal(small, same) and enlarged.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    shrunk = np.asarray(Image.fromarray(enlarged).resize((WIDTH, HEIGHT), Image.Resampling.BOX)).astype(int)
    assert np.abs(shrunk - same).mean() < 1.0


def test_projection_is_the_lens_inside_and_goes_on_smoothly_outside():
    front = camera(0)
    xyz = torch.stack([torch.linspace(20, -3, 200), torch.full((200,), -3.0), torch.zeros(200)], -1)
    pixel, ahead = project(front, xyz)
    exact, inside = front.project(xyz)
    assert inside.any() and torch.allclose(pixel[inside], exact[inside], atol=1e-3)
    assert (pixel[ahead][:, 0].diff() > 0).all() and (pixel[ahead].diff(dim=0).norm(dim=-1) < 30).all()


# --- a page


def make(samples=3, calibration=True, future=True, cameras=CAMERAS, speed=8.0, source="world"):
    steps = torch.arange(1 - H, 1) * DT * speed
    history = Trajectory(torch.stack([steps, 0 * steps, 0 * steps], -1), rot_z(0 * steps))
    truth = Trajectory(*circle(60.0, speed * F * DT + 1e-6))
    frames = torch.randint(0, 255, (len(cameras), 4, 3, 54, 96), dtype=torch.uint8)
    meta = {"source": source} | ({"calibration": {c: camera(YAWS[c]) for c in cameras}} if calibration else {})
    sample = Sample(Observation(frames, tuple(cameras), history, 5_100_000), truth if future else None, "clip", meta)
    xyz = torch.stack([truth.xyz + torch.tensor([0.0, 0.3 * (i + 1), 0.0]) for i in range(samples)])
    words = ("Stop for the red light.",) * (samples - 1) + ("",)
    plan = Plan(xyz, truth.rot.expand(samples, -1, -1, -1), words, torch.zeros(samples, F, 2), (True,) * samples, {"prefill": 12.0})
    return sample, plan


VARIANTS = {
    "whole": {},
    "one sample": {"samples": 1},
    "no future": {"future": False},
    "no calibration": {"calibration": False},
    "one camera": {"cameras": CAMERAS[:1]},
    "standing": {"speed": 0.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_page(variant, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    sample, plan = make(**VARIANTS[variant])
    image = np.asarray(Image.open(io.BytesIO(png(page(sample, plan, result(sample, plan, 1))))).convert("RGB"))
    assert image.shape == (1080, 1920, 3) and (image[:5] == 255).all() and image.std() > 20


def test_page_with_a_broken_sample():
    sample, plan = make()
    plan.xyz[0] = torch.nan
    assert png(page(sample, plan, result(sample, plan, 1)))


@pytest.mark.parametrize("metres", [300.0, 5_000.0])
def test_a_page_of_a_plan_that_runs_away(metres):
    """One such plan must not end a run."""
    sample, plan = make()
    plan.xyz[0, :, 1] += torch.linspace(0, metres, F)
    assert png(page(sample, plan, result(sample, plan, 1)))


def test_a_page_says_whose_words_they_are():
    sample, plan = make()
    assert "were given" in text_of(page(sample, plan, result(sample, plan, 1, {"reasoning": "Stop for the red light."})))
    assert "were given" not in text_of(page(sample, plan, result(sample, plan, 1, {"samples": 3})))


def text_of(figure):
    return " | ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")))


def test_page_says_what_matters():
    sample, plan = make(source="physical-ai-av")
    shown = text_of(page(sample, plan, result(sample, plan, 1)))
    for words in ("2 ×  Stop for the red light.", "1 ×  (no finished reasoning)", "0.30 m", "plan (best of 3)", "forbids redistributing"):
        assert words in shown


def test_birds_eye_has_forward_up_and_left_left():
    sample, plan = make()
    (axes,) = birds_eye(sample, plan).axes
    lines = {line.get_label(): line for line in axes.lines}
    x, y = lines["driven"].get_data()
    assert np.allclose(x[1:], -sample.future.xyz[:, 1]) and np.allclose(y[1:], sample.future.xyz[:, 0])
    assert to_hex(lines["driven"].get_color()) == style.TRUTH and to_hex(lines["planned (best of 3)"].get_color()) == style.PLAN
    assert np.allclose(lines["planned (best of 3)"].get_data()[0][1:], -plan.xyz[0, :, 1])
    assert axes.get_aspect() == 1
    assert sum(to_hex(line.get_color()) == style.PLAN and len(line.get_xdata()) == F + 1 for line in axes.lines) == 3
    assert axes.get_xlim()[0] < x.min() and axes.get_ylim()[1] > y.max()


def test_curves_over_time():
    xyz, _ = circle(50.0, 64.0)
    assert torch.allclose(panels._speed(xyz, DT), torch.tensor(10.0), atol=1e-2)
    assert torch.allclose(panels._curvature(xyz, DT), torch.tensor(0.02), atol=1e-3)
    assert panels._curvature(torch.zeros(F, 3), DT).isnan().all()


def test_camera_grid_shows_every_frame():
    sample, _ = make()
    figure = camera_grid(sample)
    assert len(figure.axes) == 16
    shown = figure.axes[5].images[0].get_array()
    assert np.array_equal(shown, sample.observation.frames[1, 1].permute(1, 2, 0).numpy())
    assert "front wide  -0.20 s" in text_of(figure)
