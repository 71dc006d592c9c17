"""A model family is a record that a checkpoint's config picks: R1, Alpamayo 1.5, and a third for the price of a record."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from alpamayo_r1.core import family as families
from alpamayo_r1.core.checkpoint import build_meta, derived_buffers, derived_value, load_checkpoint
from alpamayo_r1.core.config import ConfigError, parse_config, read_json
from alpamayo_r1.core.family import ALPAMAYO_15, ORDER, R1, family_of
from alpamayo_r1.core.prompt import build_prompt, build_question
from alpamayo_r1.core.types import CAMERAS, Observation, Trajectory
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.planner import Planner
from support.golden15 import GOLDEN15
from support.scenes15 import seen_by


@pytest.mark.parametrize(
    "released,family",
    [
        ({"model_type": "alpamayo1_5"}, ALPAMAYO_15),
        ({"architectures": ["Alpamayo1_5"]}, ALPAMAYO_15),
        ({"diffusion_cfg": {"_target_": "alpamayo1_5.diffusion.flow_matching.FlowMatching"}}, ALPAMAYO_15),
        ({"model_type": "alpamayo_r1"}, R1),
        ({"architectures": ["AlpamayoR1"]}, R1),
        ({"include_camera_ids": True}, R1),
        ({}, R1),
    ],
)
def test_a_config_says_its_family(released, family):
    assert family_of(released) is family


def test_a_config_of_two_families_is_refused():
    released = read_json(GOLDEN15 / "checkpoint" / "config.json")
    vlm = read_json(GOLDEN15 / "checkpoint" / "vlm" / "config.json")
    assert parse_config(released, vlm).family is ALPAMAYO_15
    with pytest.raises(ConfigError, match=r"names Alpamayo-R1 and Alpamayo 1\.5"):
        parse_config({**released, "model_type": "alpamayo_r1"}, vlm)


def test_special_tokens_are_the_recorded_ones():
    recorded = json.loads((GOLDEN15 / "cases.json").read_text())["special_token_ids"]
    model, vocabulary = load_checkpoint(GOLDEN15 / "checkpoint")
    assert {name: vocabulary.ids[name] for name in recorded} == recorded
    assert list(recorded) == list(ALPAMAYO_15.special) and model.config.family is ALPAMAYO_15
    assert len(vocabulary.encode("<|meta_action_start|>")) > 1, "plain text here"


def test_headers_are_written_where_the_camera_changes():
    assert ALPAMAYO_15.headers([1, 1, 6, 1]) == [
        "Front camera: frame 0 ",
        "frame 1 ",
        "Front telephoto camera: frame 0 ",
        "Front camera: frame 0 ",
    ]
    assert ALPAMAYO_15.headers([9]) == ["Camera 9: frame 0 "]


def test_a_third_family_costs_one_record(monkeypatch):
    """It is found, named in prompts and refused by what it does not know, without a line of code."""
    third = replace(
        ALPAMAYO_15,
        name="Third",
        model_type="third",
        architecture="Third",
        package="third.",
        names=("Left eye", "Right eye"),
        question=None,
    )
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, third))
    assert family_of({"model_type": "third"}) is third
    model, vocabulary = load_checkpoint(GOLDEN15 / "checkpoint")
    config = replace(model.config, family=third)
    text = vocabulary.decode(build_prompt(seen_by((0, 1), 2), vocabulary, config).ids.tolist())
    assert "Left eye: frame 0 <|vision_start|>" in text and "Right eye: frame 0 " in text
    with pytest.raises(ValueError, match="Third, trained to plan alone"):
        build_question(seen_by((0,), 1), vocabulary, config, "Why?")


def test_bins_of_the_history_are_the_configs():
    released = read_json(GOLDEN15 / "checkpoint" / "config.json")
    vlm = read_json(GOLDEN15 / "checkpoint" / "vlm" / "config.json")
    past = released["hist_traj_tokenizer_cfg"] | {"num_bins": 500, "ego_xyz_min": [-2, -3, -4], "ego_xyz_max": [2, 3, 4]}
    tokens = parse_config({**released, "hist_traj_tokenizer_cfg": past}, vlm).tokens
    assert (tokens.history_bins, tokens.history_low, tokens.history_high) == (500, (-2, -3, -4), (2, 3, 4))
    plain = parse_config(released, vlm).tokens
    assert (plain.history_bins, plain.history_low, plain.history_high) == (1000, (-4, -4, -10), (4, 4, 10))


@pytest.mark.parametrize(
    "observation,words",
    [
        (replace(seen_by((1,), 2), cameras=("camera_front",)), "expected some of camera_cross_left_120fov"),
        (replace(seen_by((1, 6), 2), cameras=(ORDER[1], ORDER[1])), "each once"),
        (replace(seen_by((1, 6), 2), cameras=(ORDER[1],)), "2 cameras of frames, but 1 names"),
    ],
    ids=["unknown", "twice", "too few names"],
)
def test_cameras_without_a_name_are_refused(observation, words):
    """Here they would be called by another's name."""
    with pytest.raises(ValueError, match=words):
        Planner(*load_checkpoint(GOLDEN15 / "checkpoint")).plan(observation, seed=0, max_tokens=1, steps=1)


@pytest.mark.parametrize("indices,frames", [((1,), 4), ((0, 1, 2, 3, 4, 5, 6), 1), ((6, 0), 3), ((1, 6), 2)])
@pytest.mark.filterwarnings("ignore:1 of 1 rows", "error:.*trained on")
def test_any_cameras_and_frames_are_planned_without_a_warning(indices, frames):
    planner = Planner(*load_checkpoint(GOLDEN15 / "checkpoint"))
    assert planner.plan(seen_by(indices, frames), seed=0, max_tokens=1, steps=1).xyz.isfinite().all()


def test_the_release_on_the_meta_device(shared):
    """R1's tensor names minus seven buffers; in bf16 they are the same rounded numbers."""
    release = shared / "release"
    config = parse_config(read_json(release / "alpamayo-1.5-10b.config.json"), read_json(release / "qwen3-vl-8b" / "config.json"))
    model = build_meta(config)
    published = json.loads((release / "tensors_alpamayo-r1-10b.json").read_text())
    names = set(published.get("tensors", published)) if isinstance(published, dict) else {row["name"] for row in published}
    buffers = derived_buffers(model)
    assert set(model.state_dict()) - buffers == names - buffers and len(buffers) == 7
    values = {name: derived_value(config, name).to(torch.bfloat16) for name in buffers}
    assert values["action_space.accel_std"].item() == 0.6796875
    freqs = next(value for name, value in values.items() if name.endswith("freqs"))
    assert freqs.flatten().tolist() == [1, 1.671875, 2.78125, 4.65625, 7.75, 12.9375, 21.5, 36, 60, 100]


@pytest.fixture(scope="module")
def released(shared):
    qwen = shared / "release" / "qwen3-vl-8b"
    config = parse_config(read_json(shared / "release" / "alpamayo-1.5-10b.config.json"), read_json(qwen / "config.json"))
    return config, load_vocabulary(qwen, config.tokens, config.family)


@pytest.mark.parametrize(
    "cameras,navigation,length",
    [(CAMERAS, None, 3086), (CAMERAS, "Turn right in 30m", 3095), (ORDER[1:2], None, 841), ((ORDER[1], ORDER[6]), None, 1590)],
)
def test_prompts_to_plan_have_the_releases_lengths(released, cameras, navigation, length):
    config, vocabulary = released
    assert len(build_prompt(black(cameras), vocabulary, config, navigation)) == length


@pytest.mark.parametrize("cameras,length", [(ORDER[1:2], 779), (CAMERAS, 3024)])
def test_questions_have_the_releases_lengths(released, cameras, length):
    config, vocabulary = released
    assert len(build_question(black(cameras), vocabulary, config, "Describe the scene.")) == length
    assert vocabulary.encode("Front left camera: frame 0 ") == [23395, 2115, 6249, 25, 4034, 220, 15, 220]
    assert vocabulary.encode("frame 1 ") == [6763, 220, 16, 220] and vocabulary.ids["answer_end"] == 155696


def black(cameras) -> Observation:
    history = Trajectory(torch.zeros(16, 3), torch.eye(3).expand(16, 3, 3))
    return Observation(torch.zeros(len(cameras), 4, 3, 320, 576, dtype=torch.uint8), tuple(cameras), history, 0)


def test_r1_refuses_what_only_15_knows(tiny):
    from alpamayo_r1.testing import random_observation

    planner, scene = Planner(*tiny), random_observation(0, 64, 96)
    for given in ({"navigation": "Turn left"}, {"navigation": "Turn left", "guidance": 2.0}, {"navigation": ["Turn left", None]}):
        with pytest.raises(ValueError, match=r"Alpamayo-R1, trained without navigation: leave it out, or load an Alpamayo 1\.5"):
            planner.plan(scene, **given)
    with pytest.raises(ValueError, match="Alpamayo-R1, trained to plan alone"):
        planner.ask(scene, "Why?")
