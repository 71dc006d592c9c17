"""The synthetic world: deterministic by seed, driven feasibly and without collisions, predictable at t0, and described truthfully."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from alpamayo_r1.world.expert import DIRECTIVES, Expert, unicycle
from alpamayo_r1.world.families import EGO_FRONT, FAMILIES, T0_STEP, family_of
from alpamayo_r1.world.language import CAUSES, DECISIONS, PHRASES, TEXTS, classify, directive_text, labels, opposite
from alpamayo_r1.world.scene import DT, Kind, Light, Road, SceneBatch
from alpamayo_r1.world.simulate import collisions, infeasible, set_stage, simulate

T0_LABELS = {
    "cruise": ("keep_speed", "clear_road"),
    "follow": ("keep_distance", "lead_vehicle"),
    "lead_brakes": ("stop", "lead_braking"),
    "red_light": ("stop", "red_light"),
    "green_light": ("start", "green_light"),
    "stop_sign": ("stop", "stop_sign"),
    "pedestrian": ("yield", "pedestrian"),
    "curve": ("slow_down", "curve"),
    "nudge_left": ("nudge_left", "cones"),
    "nudge_right": ("nudge_right", "cones"),
    "parked_car": ("nudge_left", "parked_vehicle"),
    "cut_in": ("slow_down", "cut_in"),
    "queue": ("remain_stopped", "queue"),
    "pull_away": ("start", "lead_pulling_away"),
}


COUNT = 100


@pytest.fixture(scope="module")
def scenes() -> SceneBatch:
    return simulate(range(600))


def of(scene: SceneBatch, family: str) -> torch.Tensor:
    return torch.tensor([name == family for name in scene.family])


def assert_equal(a, b) -> None:
    for item in fields(a):
        x, y = getattr(a, item.name), getattr(b, item.name)
        if isinstance(x, Road):
            assert_equal(x, y)
        elif isinstance(x, torch.Tensor):
            assert x.dtype == y.dtype and torch.equal(x.nan_to_num(-1.0), y.nan_to_num(-1.0)), item.name
        else:
            assert x == y, item.name


def test_a_scene_does_not_depend_on_its_neighbours(scenes):
    for row in (0, 3, 514, 599):
        assert_equal(simulate([row]), scenes[row : row + 1])
    assert_equal(simulate(torch.tensor([41, 40, 39]))[1:2], scenes[40:41])


def test_a_longer_clip_continues_the_same_scene(scenes):
    shorter = simulate(range(50), seconds=6.0)
    assert shorter.ego.shape[1] == 61 + 64
    assert torch.equal(shorter.ego, scenes.ego[:50, : shorter.ego.shape[1]])


def test_shapes_and_padding(scenes):
    b, t = len(scenes.seeds), 121 + 64
    assert scenes.ego.shape == (b, t, 3) and scenes.action.shape == (b, t - 1, 2)
    assert scenes.track.shape == (b, 16, t, 3) and scenes.prop_pose.shape == (b, 40, 3)
    for record in (scenes, scenes.road):
        for item in fields(record):
            value = getattr(record, item.name)
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                assert value.dtype == torch.float32, item.name
    assert scenes.track.isfinite().all() and scenes.prop_pose.isfinite().all() and scenes.ego.isfinite().all()
    assert (scenes.size[scenes.kind != Kind.NONE] > 0).all() and (scenes.prop_size[scenes.prop_kind != Kind.NONE] > 0).all()


def test_families_are_drawn_evenly_and_can_be_named():
    counts = np.bincount(family_of(np.arange(14000)), minlength=len(FAMILIES))
    assert len(FAMILIES) == 14 and counts.min() > 850 and counts.max() < 1150
    assert simulate([5, 6], families=["queue", "curve"]).family == ("queue", "curve")


def test_the_expert_never_collides_and_stays_within_bounds(scenes):
    assert not collisions(scenes[:400]).any()
    assert not infeasible(scenes).any()
    assert (scenes.action[..., 0].abs() < 5.0).all()
    assert (scenes.speed >= 0).all()


def test_the_checks_can_fail(scenes):
    scenes = scenes[:20]
    moved = scenes.track.clone()
    moved[:, 0, 60] = scenes.ego[:, 60]
    kind = scenes.kind.clone()
    kind[:, 0] = Kind.CAR
    assert collisions(replace(scenes, track=moved, kind=kind, size=scenes.size.clamp_min(1.0)))[:, 60].all()
    off = scenes.ego.clone()
    off[:, 60, 0] += 0.05
    assert infeasible(replace(scenes, ego=off))[:, 59].all()


def test_the_ego_holds_its_lane_and_stands_still_truly(scenes):
    d = scenes.road.frenet(scenes.ego[..., :2])[..., 1].abs()
    swerves = of(scenes, "nudge_left") | of(scenes, "nudge_right") | of(scenes, "parked_car")
    assert d[~swerves].max() < 0.15
    assert d[swerves].amax(1).min() > 0.7 and d[swerves].max() < 1.75
    still = scenes.speed[:, :-1] == 0
    starts = scenes.action[..., 0] > 0
    assert (scenes.action[..., 1][still & ~starts] == 0).all()
    assert (scenes.speed[of(scenes, "queue")] == 0).all()
    assert (scenes.speed[of(scenes, "red_light"), -1] == 0).all()


def test_acceleration_is_smooth(scenes):
    jerk = scenes.action[..., 0].diff(dim=1).abs() / DT
    calm = of(scenes, "cruise") | of(scenes, "follow") | of(scenes, "green_light") | of(scenes, "curve")
    assert jerk[calm].max() < 4.01 and jerk.max() < 10.01
    assert (scenes.action[..., 1].diff(dim=1).abs() / DT).max() < 0.3


def test_what_decides_is_there_at_t0(scenes):
    light, line = scenes.light, scenes.road.stop_line
    red = of(scenes, "red_light")
    assert (light[red, : T0_STEP + 80] == Light.RED).all()
    green = of(scenes, "green_light")
    assert (light[green, T0_STEP - 10] == Light.RED).all() and (light[green, T0_STEP - 1 :] == Light.GREEN).all()
    s = scenes.road.frenet(scenes.ego[:, T0_STEP : T0_STEP + 1, :2])[:, 0, 0]
    for family in ("red_light", "stop_sign"):
        distance = (line - s)[of(scenes, family)]
        assert distance.min() > 4.0 and distance.max() < 95.0
        assert (scenes.speed[of(scenes, family), T0_STEP] > 2.0).all()
    assert (scenes.braking[of(scenes, "lead_brakes"), 0, T0_STEP]).all()
    lead = scenes.track[of(scenes, "pull_away"), 0]
    assert ((lead[:, T0_STEP, :2] - lead[:, T0_STEP - 3, :2]).norm(dim=-1) > 0.1).all()


def test_at_t0_each_family_has_its_own_label(scenes):
    for label in labels(scenes, T0_STEP):
        assert (label.decision, label.cause) == T0_LABELS[label.family]


def test_labels_are_true_words_at_any_step(scenes):
    for step in (0, 25, 48, 70, 100, 120):
        for row, label in enumerate(labels(scenes, step)):
            assert classify(label.text) == (label.decision, label.cause)
            if label.decision == "remain_stopped":
                assert scenes.speed[row, step] < 0.3
            if label.cause == "red_light":
                assert scenes.light[row, step] == Light.RED


def test_side_words_are_true_on_straight_roads(scenes):
    straight = (scenes.road.curvature == 0).all(1)
    checked = set()
    for row, label in enumerate(labels(scenes, T0_STEP)):
        if not straight[row] or label.family not in ("nudge_left", "nudge_right", "parked_car", "cut_in"):
            continue
        left = label.object[1] > 0
        assert left == (label.family == "nudge_right") or label.family == "cut_in"
        if label.family == "cut_in":
            assert ("left" in label.text) == left
        checked.add((label.family, left))
    assert len(checked) == 5


def test_phrases_are_exactly_invertible():
    assert all(len(phrases) >= 4 for phrases in PHRASES.values())
    assert {d for d, _ in PHRASES} == set(DECISIONS) and {c for _, c in PHRASES} == set(CAUSES)
    assert len(TEXTS) == sum(len(p) * (2 if any("{side}" in x for x in p) else 1) for p in PHRASES.values())
    assert classify("Keep speed since the road ahead is") is None and classify("") is None


@pytest.fixture(scope="module")
def told() -> dict[str, SceneBatch]:
    return {order: simulate(range(COUNT), directive=[order] * COUNT) for order in DIRECTIVES}


def test_directives_keep_the_world_and_the_past(scenes, told):
    for scene in told.values():
        for name in ("track", "prop_pose", "light", "colour"):
            assert torch.equal(getattr(scene, name), getattr(scenes, name)[:COUNT])
        assert torch.equal(scene.ego[:, : T0_STEP + 1], scenes.ego[:COUNT, : T0_STEP + 1])
        assert not infeasible(scene).any()


def test_directives_are_obeyed(scenes, told):
    free, end = scenes[:COUNT], T0_STEP + 64
    assert (told["stop"].speed[:, end] == 0).all()
    target = torch.tensor([8.0, 11.0, 14.0])[free.road.left_lanes + free.road.right_lanes]
    assert (told["proceed"].speed[:, end] > 0.7 * target).all()
    assert ((told["keep_speed"].speed[:, end] - free.speed[:, T0_STEP]).abs() < 0.6).all()
    for order, sign in (("nudge_left", 1.0), ("nudge_right", -1.0)):
        d = sign * told[order].road.frenet(told[order].ego[:, T0_STEP:end, :2])[..., 1]
        assert (d[of(free, "cruise")].amax(1) > 1.4).all()
    assert torch.equal(simulate(range(4), directive=[None] * 4).ego, free.ego[:4])


def test_directive_sentences_say_the_directive(scenes):
    allowed = {
        "stop": {"stop"},
        "proceed": {"accelerate", "keep_speed", "start"},
        "keep_speed": {"keep_speed"},
        "nudge_left": {"nudge_left"},
        "nudge_right": {"nudge_right"},
    }
    for order in DIRECTIVES:
        texts = [directive_text(order, scenes, row) for row in range(60)]
        assert {classify(text)[0] for text in texts} <= allowed[order] and len(set(texts)) > 3
    assert all(opposite(label) in DIRECTIVES for label in labels(scenes, T0_STEP))


def test_pushed_drivers_leave_their_way_and_stay_possible():
    seeds = np.arange(64)
    some = seeds % 2 == 0
    plain, pushed = simulate(seeds, seconds=6.0), simulate(seeds, seconds=6.0, pushed=some, pushed_until=50)
    off = (plain.ego - pushed.ego)[..., :2].norm(dim=-1)
    assert (off[~some] == 0).all() and off[some][:, 50].median() > 0.3
    assert not infeasible(pushed).any()
    d = pushed.road.frenet(pushed.ego[..., :2])[..., 1] - plain.road.frenet(plain.ego[..., :2])[..., 1]
    moving = torch.from_numpy(some) & (pushed.speed[:, 50] > 5)
    assert d[moving][:, 75].abs().mean() < 0.3 * d[moving][:, :50].abs().mean(), "who is not pushed any more drives back"


def test_a_driver_just_past_a_red_line_stops():
    scene = simulate([7], families=["red_light"], seconds=12.0)
    stage = set_stage([7], 12.0, ["red_light"])
    expert = Expert(stage.script, stage.start, np.zeros(1, np.int64))
    expert.s[:] = scene.road.stop_line.numpy() - EGO_FRONT + 1.0
    pose = scene.road.point(torch.from_numpy(expert.s).float()[:, None], torch.zeros(1, 1))[:, 0].double().numpy()
    v = np.array([1.0])
    for n in range(60, 80):
        a, k = expert.act(n, pose, v, np.zeros(1), np.zeros(1))
        pose, v = unicycle(pose, v, a, k)
    assert v[0] == 0.0
