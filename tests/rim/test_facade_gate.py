"""What the facade and the helper refuse: every wrong type, shape and value ends in an error that says so, before any heavy work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alpamayo_r1 import helper
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from alpamayo_r1.testing import random_observation
from conftest import GOLDEN

SCENE = random_observation(0, 64, 96)


@pytest.fixture(scope="module")
def model() -> AlpamayoR1:
    return AlpamayoR1.from_pretrained(Path(GOLDEN / "checkpoint"), dtype="float32")


@pytest.fixture
def data(model) -> dict:
    messages = helper.create_message(SCENE.frames.flatten(0, 1))
    tokenized = helper.get_processor(model.tokenizer).apply_chat_template(messages)
    return {
        "tokenized_data": tokenized,
        "ego_history_xyz": SCENE.history.xyz[None, None],
        "ego_history_rot": SCENE.history.rot[None, None],
    }


TOKENIZED = {
    "float ids": ("input_ids", lambda t: t.float(), TypeError, "integers"),
    "a list": ("input_ids", lambda t: t.tolist(), TypeError, "expected a tensor"),
    "an id beyond": ("input_ids", lambda t: t.clone().fill_(10**6), ValueError, "tokenizer"),
    "a negative id": ("input_ids", lambda t: -t, ValueError, "expected ids from 0"),
    "no ids": ("input_ids", lambda t: t[:, :0], ValueError, "none"),
    "flat ids": ("input_ids", lambda t: t[0], ValueError, "input_ids has shape"),
    "an empty mask": ("attention_mask", lambda t: 0 * t, ValueError, "without any 1"),
    "a mask of twos": ("attention_mask", lambda t: 2 * t, ValueError, "other values"),
    "narrow patches": ("pixel_values", lambda t: t[:, :9], ValueError, "pixel_values has shape"),
    "NaN": ("pixel_values", lambda t: t * torch.nan, ValueError, "NaN"),
    "whole patches": ("pixel_values", lambda t: t.long(), TypeError, "floating-point"),
    "odd grids": ("image_grid_thw", lambda t: t + 1, ValueError, "multiples of 2"),
    "no grids": ("image_grid_thw", lambda t: 0 * t, ValueError, "image_grid_thw holds"),
    "negative grids": ("image_grid_thw", lambda t: -t, ValueError, "image_grid_thw holds"),
    "None": ("pixel_values", lambda t: None, TypeError, "NoneType"),
}


@pytest.mark.parametrize("kind", TOKENIZED)
def test_tokenized_data_that_is_none_is_refused(model, data, kind):
    key, change, error, words = TOKENIZED[kind]
    data["tokenized_data"][key] = change(data["tokenized_data"][key])
    with pytest.raises(error, match=words):
        model.sample_trajectories_from_data_with_vlm_rollout(data, seed=0)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda d: d | {"ego_history_xyz": d["ego_history_xyz"] + 1000}, "ego frame at t0"),
        (lambda d: d | {"ego_history_xyz": d["ego_history_xyz"][..., [1, 0, 2]]}, "y forward"),
        (lambda d: d | {"ego_history_xyz": d["ego_history_xyz"][:, :, :0]}, "has shape"),
        (lambda d: d | {"ego_history_rot": -d["ego_history_rot"]}, "determinant"),
    ],
)
def test_histories_are_checked_here_too(model, data, change, words):
    with pytest.raises(ValueError, match=words):
        model.sample_trajectories_from_data_with_vlm_rollout(change(data), seed=0)


@pytest.mark.parametrize("given", [None, 5, [], "data"])
def test_data_is_a_dict(model, given):
    with pytest.raises(TypeError, match="expected a dict"):
        model.sample_trajectories_from_data_with_vlm_rollout(given, seed=0)


@pytest.mark.parametrize("options", [{"top_k": []}, {"num_traj_samples": "3"}, {"top_p": None}, {"max_generation_length": 10**9}])
def test_options_are_checked(model, data, options):
    with pytest.raises((TypeError, ValueError), match=r"expected"):
        model.sample_trajectories_from_data_with_vlm_rollout(data, seed=0, **options)


@pytest.mark.parametrize(
    "messages",
    [
        None,
        5,
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
        [{"role": "user", "content": [5]}],
        [5],
    ],
)
def test_messages_that_are_none_are_refused(model, messages):
    with pytest.raises((TypeError, ValueError), match="expected"):
        helper.get_processor(model.tokenizer).apply_chat_template(messages)


@pytest.mark.parametrize(
    "call", [lambda t: t.encode(None), lambda t: t.decode([2**40]), lambda t: t.decode([-1]), lambda t: t.decode("ab")]
)
def test_ids_and_texts_are_checked(model, call):
    with pytest.raises((TypeError, ValueError), match=r"expected|from 0"):
        call(model.tokenizer)


def test_devices_and_dtypes_that_are_not_here_are_refused():
    with pytest.raises(ValueError, match="dtype is 'foo'"):
        AlpamayoR1.from_pretrained(GOLDEN / "checkpoint", dtype="foo")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="CUDA devices"):
            AlpamayoR1.from_pretrained(GOLDEN / "checkpoint", device="cuda")
