"""The richer world: turns end where the route goes, who has to gives way, and every answer is true."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from alpamayo_r1.world.clips import write_world
from alpamayo_r1.world.families import EGO_FRONT, FAMILIES
from alpamayo_r1.world.language import RICHER_PHRASES, RICHER_TEXTS, TEXTS, classify, labels, opposite
from alpamayo_r1.world.navigation import navigation, route_text, texts
from alpamayo_r1.world.questions import ANSWERS, KINDS, QUESTIONS, questions
from alpamayo_r1.world.render import render
from alpamayo_r1.world.richer import JUNCTIONS, RICHER, SHARES, richer_families
from alpamayo_r1.world.scene import Kind, Light, Route
from alpamayo_r1.world.simulate import collisions, infeasible, simulate

COUNT = 48


@pytest.fixture(scope="module")
def scenes():
    """COUNT scenes of every richer family."""
    return {name: simulate(range(COUNT), seconds=12.0, families=[name] * COUNT) for name in RICHER}


def test_nobody_collides_and_every_action_is_possible(scenes):
    for name, scene in scenes.items():
        assert not collisions(scene).any() and not infeasible(scene).any(), name


def test_a_turn_ends_on_the_crossing_road_and_another_route_shows_the_same_junction(scenes):
    left, straight, right = (scenes[name] for name in JUNCTIONS)
    for scene, way in ((left, 1), (straight, 0), (right, -1)):
        turn = (scene.ego[:, -1, 2] - scene.ego[:, 0, 2]) / (np.pi / 2)
        assert ((turn - way).abs() < 0.05).float().mean() > 0.4 and ((turn.abs() < 0.05) | ((turn - way).abs() < 1.0)).all()
    for name in ("prop_kind", "prop_pose", "kind", "track", "light", "night"):
        assert torch.equal(getattr(left, name), getattr(right, name)) and torch.equal(getattr(left, name), getattr(straight, name))


def test_who_turns_left_waits_for_who_comes(scenes):
    scene, waited, turned = scenes["junction_left"], 0, 0
    for step in range(20, 120, 5):
        made = labels(scene, step)
        s = scene.road.frenet(scene.ego[:, step : step + 1, :2])[:, 0, 0]
        oncoming = scene.road.frenet(scene.track[:, 5:7, step, :2])[..., 0]
        close = (scene.kind[:, 5:7] != Kind.NONE) & ((oncoming - scene.road.crossing[:, None]).abs() < 3.0)
        for b, label in enumerate(made):
            before = float(s[b]) + EGO_FRONT < float(scene.road.stop_line[b]) - 2
            if before and bool(close[b].any()) and float(scene.road.stop_line[b] - s[b]) < 25 and float(scene.speed[b, step]) > 0.5:
                assert label.decision in ("yield", "stop"), "a vehicle is in the way"
                waited += 1
            turned += label.decision == "turn_left" and not before
    assert waited > 10 and turned > 10


def test_limits_and_closed_lanes_are_kept_to(scenes):
    scene = scenes["limit"]
    s = scene.road.frenet(scene.ego[..., :2])[..., 0]
    beyond = s > scene.limit_from[:, None]
    assert beyond.any(1).all() and (scene.speed - scene.limit[:, None])[beyond].max() < 0.6
    merged = scenes["merge"].road.frenet(scenes["merge"].ego[:, -1:, :2])[:, 0, 1]
    torch.testing.assert_close(merged, scenes["merge"].road.lane_width, atol=0.1, rtol=0)


def test_reasons_come_back_from_their_words(scenes):
    seen = set()
    for scene in scenes.values():
        for step in (30, 51, 75, 100):
            for label in labels(scene, step):
                assert classify(label.text) == (label.decision, label.cause) and opposite(label)
                seen.add((label.decision, label.cause))
    assert seen >= set(RICHER_PHRASES) and not set(RICHER_TEXTS) & set(TEXTS)


def test_the_navigator_counts_down_and_then_goes_straight_on(scenes):
    scene = scenes["junction_right"]
    said = [navigation(scene, step, 0) for step in range(20, 150, 10)]
    for row in range(COUNT):
        metres = [int(found[1]) for texts_ in said if (found := re.fullmatch(r"Turn right in (\d+)m", texts_[row]))]
        assert metres == sorted(metres, reverse=True) and (not metres or metres[0] > 10)
    assert any(one[row] == "Turn right now" for one in said for row in range(COUNT))
    done = (scene.ego[:, 149, 2] - scene.ego[:, 0, 2]).abs() > 1.3
    assert done.any() and {navigation(scene, 149, 0)[row] for row in done.nonzero()[:, 0].tolist()} == {"Continue straight"}
    assert route_text(Route.LEFT, 30.2) == "Turn left in 30m" and {*navigation(scene, 51)} <= {*texts()}


def test_every_answer_is_true(scenes):
    seen = set()
    numbers = {"no": 0, "three": 3, "four": 4, "five": 5}
    others = simulate(range(200, 320), seconds=6.0)
    for scene, step in [(scene, step) for scene in scenes.values() for step in (30, 51, 70)] + [(others, 51)]:
        for row, asked in enumerate(questions(scene, step)):
            assert len({one.kind for one in asked}) == len(asked)
            for one in asked:
                assert one.answer in ANSWERS[one.kind] and one.text in QUESTIONS
                seen.add((one.kind, one.answer))
                if one.kind == "cones":
                    assert numbers[one.answer.split()[2]] == int((scene.kind[row] == Kind.CONE).sum())
                elif one.kind == "light":
                    lit = bool((scene.prop_kind[row] == Kind.TRAFFIC_LIGHT).any())
                    assert lit == ("no traffic" not in one.answer)
                    assert not lit or Light(int(scene.light[row, step])).name.lower() in one.answer
                elif one.kind in ("cone_side", "parked_side"):
                    assert (
                        scene.family[row]
                        in {"left": ("nudge_right", "parked_left"), "right": ("nudge_left", "parked_car")}[one.answer.split()[-1][:-1]]
                    )
                elif one.kind == "left" and one.answer == "Yes, the way is free.":
                    crossing, soon = scene.road.crossing[row], slice(step, step + 50)
                    come = scene[row : row + 1].road.frenet(scene.track[row : row + 1, 5:7, soon, :2])[0, ..., 0]
                    assert not ((come - crossing).abs() < 3.0)[scene.kind[row, 5:7] != Kind.NONE].any()
                elif one.kind == "limit" and "20" in one.answer:
                    assert float(scene.limit[row]) == pytest.approx(20 / 3.6)
    assert {kind for kind, _ in seen} == set(KINDS) and len(seen) > 22


def test_all_families_come_by_their_shares_and_seeds_keep_theirs():
    names = richer_families(np.arange(20_000))
    for name, share in zip(RICHER, SHARES, strict=True):
        assert names.count(name) / 20_000 == pytest.approx(share, abs=0.01)
    assert {*names} == {*RICHER, *FAMILIES}


def test_scenes_of_the_small_models_families_are_what_they_were():
    scene = simulate(range(6), seconds=8.0)
    assert scene.family == ("curve", "curve", "follow", "curve", "nudge_right", "queue")
    ends = [[-227.0, 96.12], [82.43, 276.63], [249.95, 142.8], [6.55, 287.08], [77.05, 320.16], [199.47, 5.25]]
    torch.testing.assert_close(scene.ego[:, -1, :2], torch.tensor(ends), atol=0.02, rtol=0)
    assert not scene.night.any() and not scene.route.any() and not scene.limit.isfinite().any()


def test_clips_of_a_junction_say_what_its_navigator_says(tmp_path):
    ids = write_world(5, 1, tmp_path, width=32, height=18, seconds=0.4, t_start=4.9, supersample=1, family="junction_left")
    row = pd.read_parquet(tmp_path / "world/labels.parquet").loc[ids[0]]
    assert row["family"] == "junction_left" and re.fullmatch(r"Turn left (in \d+m|now)", row["navigation"])
    with pytest.raises(ValueError, match="expected one of cruise"):
        write_world(5, 1, tmp_path, family="roundabout")


def test_signs_and_night_are_drawn(scenes):
    options = {"width": 96, "height": 54, "frames": 1, "cameras": ("camera_front_wide_120fov",), "supersample": 1}
    scene = scenes["junction_left"]
    dark = scene.night > 0.5
    mean = render(scene, torch.full((COUNT,), 51), **options).float().mean((1, 2, 3, 4, 5))
    assert dark.any() and mean[dark].max() < mean[~dark].min()
