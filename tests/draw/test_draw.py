"""Pictures: the overlay against geometry worked backwards from its pixels, the view from above against its convention, whole pages."""

import dataclasses
import io
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from alpamayo_r1.core.geometry import Calibration, FTheta, rot_z
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import CAMERAS, DT, F, H, Marking, Observation, Obstacle, Plan, Sample, Surroundings, Trajectory
from alpamayo_r1.draw import Ribbon, birds_eye, camera_grid, overlay, page, panels, png, style
from alpamayo_r1.draw.overlay import marks, project
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


def test_seconds_are_marked_across_the_corridor():
    """Each mark is a line across the path at its point, wider than the corridor; none where the car hardly moves."""
    front, (xyz, _) = camera(0), circle(1e5, 32.0)
    path = Ribbon(xyz, width=2.0, line=1, opacity=0.6, marks=tuple(range(9, F, 10)))
    plain, marked = painted(front, Ribbon(xyz, width=2.0, line=1, opacity=0.6)), painted(front, path)
    added = ground(front)[torch.from_numpy(marked & ~plain)]
    assert len(added) > 10 and (added[:, 1].abs() > 0.9).all() and (added[:, 1].abs() < 1.5).all()
    near = added[added[:, 0] < 12, 0]
    assert {round(x / 5) for x in near.tolist()} <= {1, 2} and ((near % 5 - 2.5).abs() > 2.0).all(), "at 5, 10, ... m and nowhere else"
    assert [number for number, _, _ in marks(path)] == [1, 2, 3, 4, 5, 6]
    assert marks(dataclasses.replace(path, xyz=xyz * 0.01)) == []


def test_the_corridor_goes_behind_what_stands_on_the_road():
    """Hidden are the pixels whose ray meets the box before the ground: worked out here from the corners' shadow on the ground."""
    front, (xyz, _) = camera(0), circle(1e5, 40.0)
    van = Obstacle("van", 14.0, 0.0, 0.0, 4.0, 2.0, 1.0)
    path = Ribbon(xyz, width=3.0, line=1, opacity=0.6)
    free = painted(front, path)
    behind = (overlay(GREY, front, [path], obstacles=[van]).astype(int) - 90).any(-1)
    x, y = ground(front).unbind(-1)
    far = 1.7 + (16.0 - 1.7) * 1.4 / 0.4
    shadow = ((x > 12.1) & (x < far) & (y.abs() < 0.95)).numpy()
    clear = ((x < 11.8) | (y.abs() > 1.1 * (x - 1.7) / 10.3)).numpy()
    assert free[shadow].any() and not behind[shadow].any()
    assert np.array_equal(behind[clear], free[clear]) and free[clear].any()
    aside = dataclasses.replace(van, y=30.0)
    assert np.array_equal((overlay(GREY, front, [path], obstacles=[aside]).astype(int) - 90).any(-1), free)


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    for words in ("1 × (no finished reasoning)", "0.30 m", "0.60 m", "plan, best of 3", "plan, mean of 3", "forbids redistributing"):
        assert words in shown
    assert "Blue path and words: sample 1 of 3, nearest to what was driven (best by the truth); 1 other says the same." in shown


def test_own_data_is_not_called_nvidias():
    sample, plan = make(source="my-cars")
    shown = text_of(page(sample, plan, result(sample, plan, 1)))
    assert "NVIDIA" not in shown and "whoever recorded it" in shown


def test_the_bold_words_are_the_bold_samples_own():
    """The best sample says something else than the most: its words are the headline, in the colour of its path."""
    sample, plan = make()
    plan = dataclasses.replace(plan, reasoning=("Nudge to the left.", "Keep speed.", "Keep speed."))
    figure = page(sample, plan, result(sample, plan, 1))
    (headline,) = (text for text in figure.texts if text.get_weight() == "bold")
    assert headline.get_text() == "Nudge to the left." and headline.get_color() == style.PLAN
    assert "Others: 2 × Keep speed." in text_of(figure)


def test_without_the_truth_the_first_sample_is_drawn_and_said():
    sample, plan = make(future=False)
    figure = page(sample, plan, result(sample, plan, 1))
    assert "sample 1 of 3, the first one (what was really driven is not known)" in text_of(figure)
    assert "planned (first of 3)" in text_of(figure) and "future of this clip is not known" in text_of(figure)


def test_notes_are_shown_each_kind_once():
    sample, plan = make()
    sample = dataclasses.replace(sample, notes=(Note("history-fast", "v0 is 50 m/s"),))
    plan = dataclasses.replace(plan, notes=(Note("history-fast", "v0 is 50 m/s"), Note("frames-flat", "black"), *NOTES))
    shown = text_of(page(sample, plan, result(sample, plan, 1)))
    assert shown.count("history-fast: v0 is 50 m/s") == 1 and "frames-flat: black" in shown and "(+ 1 more)" in shown


NOTES = (Note("third", "three"), Note("fourth", "four"))

NASTY = {
    "mathematics": r"$^$ $\frac{1}{0}$ _{x} a_b^c \alpha \\ $",
    "white space": "one\n\ttwo\r\x0b\x0cthree\u2028four",
    "control characters": "bell\x07 null\x00 escape\x1b[31m",
    "right to left": "\u202eevil\u202c \u0634\u0627\u0631\u0639 \u05e8\u05d7\u05d5\u05d1",
    "no glyphs": "\u8def\u4e0a\u6709\u8f66 \U0001f697 \ufdd0 \ud800",
    "long": "word " * 30_000,
    "long without spaces": "W" * 100_000,
    "markup": "<b>&amp;</b> [red]x[/red] {0} %s",
    "empty": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NASTY)
def test_words_of_users_are_drawn_as_they_are(kind):
    """No error and no warning, wherever text of others stands on a page."""
    words = NASTY[kind]
    sample, plan = make(source=words or "world")
    names = (words or "left", *CAMERAS[1:])
    sample = dataclasses.replace(
        sample,
        clip_id=words,
        observation=dataclasses.replace(sample.observation, cameras=names),
        notes=(Note("code", words),),
    )
    plan = dataclasses.replace(plan, reasoning=(words, "b", words), timing={words: 1.0})
    record = result(sample, plan, 1, {"navigation": words}) | {"notice": words, "baselines": {words: 1.0}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = page(sample, plan, record)
        assert png(figure) and png(camera_grid(sample))
    for text in [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]:
        assert text.get_window_extent().x1 < figure.bbox.width, text.get_text()[:80]


def test_what_cannot_be_drawn_is_seen_to_be_missing():
    assert style.printable("a\u8def \x07b\u202e \U0001f697") == f"a{style.UNKNOWN} {style.UNKNOWN}b{style.UNKNOWN} {style.UNKNOWN}"
    assert style.fitted("word " * 99, 2.0, 10).endswith(" …") and style.fitted("word", 2.0, 10) == "word"
    lines = style.wrapped("a few words that need several lines", 1.0, 10, lines=9)
    assert len(lines) > 1 and " ".join(lines) == "a few words that need several lines"


def test_pictures_of_any_shape_stay_in_their_block():
    for shape in ((96, 54), (54, 54), (1, 1), (30, 240)):
        sample, plan = make()
        frames = torch.zeros(4, 4, 3, *shape, dtype=torch.uint8)
        sample = dataclasses.replace(sample, observation=dataclasses.replace(sample.observation, frames=frames))
        figure = page(sample, plan, result(sample, plan, 1))
        boxes = [axes.get_position() for axes in figure.axes if axes.images]
        assert len(boxes) == 4 and min(b.y0 for b in boxes) > 0.1 and max(b.x1 for b in boxes) < 0.58


def test_lanes_and_vehicles_from_above():
    """Where the surroundings are known they are drawn in the ego frame, forward up and left left; else nothing is claimed."""
    sample, plan = make()
    assert "from the clip" not in text_of(birds_eye(sample, plan))
    lane = Marking("lane", torch.tensor([[0.0, 2.0], [30.0, 2.0]]))
    around = Surroundings((lane,), (Obstacle("car", 20.0, 3.5, 0.0, 4.0, 2.0, 1.5), Obstacle("pedestrian", 9.0, -4.0, 0.0, 0.5, 0.5, 1.8)))
    figure = birds_eye(dataclasses.replace(sample, meta={**sample.meta, "surroundings": around}), plan)
    (axes,) = figure.axes
    assert any(line.get_xydata().tolist() == [[-2, 0], [-2, 30]] for line in axes.lines)
    assert any(line.get_xydata().tolist() == [[4, 9]] for line in axes.lines)
    (car,) = (patch.get_xy() for patch in axes.patches if type(patch).__name__ == "Polygon")
    assert np.allclose(car.min(0), [-4.5, 18]) and np.allclose(car.max(0), [-2.5, 22])
    assert "from the clip, not from the model" in text_of(figure)


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
    assert "front wide -0.20 s" in text_of(figure)
