"""The original's names, arguments and shapes, without its traps; each departure of docs/differences.md is held here."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from alpamayo_r1 import helper
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from conftest import CASES, GOLDEN, HOW, golden

PIPELINES = ["forced_1", "forced_2_ragged", "forced_5_steps", "greedy_no_end", "stationary"]
TEXTS = ["Keep distance to the lead vehicle since it is ahead in the lane.", "Nudge to the left", "stop", "turn right"]


@pytest.fixture(scope="module")
def model():
    return AlpamayoR1.from_pretrained(GOLDEN / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def processor(model):
    return helper.get_processor(model.tokenizer)


def inputs_of(processor, cases=("forced_1",), frames=None):
    """A batch of recorded scenes as a client builds it; `frames` cuts a scene to its first frames."""
    scenes = [golden(f"pipeline_{case}") for case in cases]
    messages = [helper.create_message(g["image_frames"][: frames and frames[i]]) for i, g in enumerate(scenes)]
    inputs = processor.apply_chat_template(messages if len(scenes) > 1 else messages[0], **HOW)
    return {
        "tokenized_data": inputs,
        "ego_history_xyz": torch.cat([g["ego_history_xyz"] for g in scenes]),
        "ego_history_rot": torch.cat([g["ego_history_rot"] for g in scenes]),
    }


def predict(model, data, **options):
    return model.sample_trajectories_from_data_with_vlm_rollout(data=data, return_extra=True, **options)


def noise(rows, seed=0):
    return torch.randn(rows, 64, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", PIPELINES)
@pytest.mark.parametrize("autocast", [False, True])
def test_goldens(model, processor, case, autocast):
    g, facts = golden(f"pipeline_{case}"), CASES["cases"][f"pipeline_{case}"]
    data = inputs_of(processor, [case])
    tokenized = data["tokenized_data"]
    assert torch.equal(tokenized.input_ids, g["input_ids"])
    assert torch.equal(tokenized.image_grid_thw, g["image_grid_thw"])
    assert torch.equal(tokenized.pixel_values[: len(g["pixel_values_first_image"])], g["pixel_values_first_image"])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        xyz, rot, extra = predict(
            model,
            data,
            num_traj_samples=facts["samples"],
            top_k=facts["top_k"],
            max_generation_length=facts["max_generation_length"],
            diffusion_kwargs={"inference_step": facts["inference_step"]} if facts["inference_step"] else None,
            noise=g["noise"],
            reasoning=facts["reasoning"],
        )
    assert (xyz - g["pred_xyz"]).norm(dim=-1).max() < 1e-4
    torch.testing.assert_close(rot, g["pred_rot"], atol=1e-4, rtol=0)
    assert extra["cot"].tolist() == facts["cot"]


@pytest.mark.parametrize("autocast", [False, True])
def test_the_simulators_calls(autocast):
    """AlpaSim's driver, call by call."""
    device = torch.device("cpu")
    model = AlpamayoR1.from_pretrained(str(GOLDEN / "checkpoint"), dtype=torch.bfloat16).to(device)
    processor = helper.get_processor(model.tokenizer)
    assert model.action_space.get_action_space_dims() == (64, 2)
    g = golden("pipeline_forced_1")
    inputs = processor.apply_chat_template(helper.create_message(g["image_frames"]), **HOW)
    data = {"tokenized_data": inputs, "ego_history_xyz": g["ego_history_xyz"], "ego_history_rot": g["ego_history_rot"]}
    data = helper.to_device(data, device)
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast), pytest.warns(UserWarning, match="unfinished"):
        pred_xyz, pred_rot, extra = model.sample_trajectories_from_data_with_vlm_rollout(
            data=data, top_p=0.98, temperature=0.6, num_traj_samples=1, max_generation_length=8, return_extra=True
        )
    assert pred_xyz[0, 0, 0].shape == (64, 3) and pred_rot[0, 0, 0].shape == (64, 3, 3)
    assert pred_xyz.dtype == torch.float32 and pred_xyz.isfinite().all()
    assert isinstance(extra["cot"][0, 0].tolist()[0], str)


def test_two_sets_of_two(model, processor):
    """Rows stand set by set; without return_extra two values come back."""
    data, z = inputs_of(processor), noise(4)
    xyz, rot, extra = predict(model, data, num_traj_sets=2, num_traj_samples=2, noise=z, reasoning=TEXTS)
    assert xyz.shape == (1, 2, 2, 64, 3) and rot.shape == (1, 2, 2, 64, 3, 3)
    assert {key: value.shape for key, value in extra.items()} == dict.fromkeys(("cot", "meta_action", "answer"), (1, 2, 2))
    assert extra["cot"].flatten().tolist() == TEXTS and not any(extra["answer"].flatten())
    flat, _ = model.sample_trajectories_from_data_with_vlm_rollout(data, num_traj_samples=4, noise=z, reasoning=TEXTS)
    torch.testing.assert_close(xyz.flatten(1, 2), flat[:, 0], atol=1e-4, rtol=0)


def test_samples_equal_single_runs(model, processor):
    data, z = inputs_of(processor), noise(4)
    together, _, _ = predict(model, data, num_traj_samples=4, noise=z, reasoning=TEXTS)
    for i in range(4):
        alone, _, _ = predict(model, data, noise=z[i : i + 1], reasoning=TEXTS[i : i + 1])
        torch.testing.assert_close(together[:, :, i : i + 1], alone, atol=1e-4, rtol=0)


def test_batch_with_left_padding_equals_single_runs(model, processor):
    cases, z = ("forced_1", "stationary", "forced_2_ragged"), noise(6)
    data = inputs_of(processor, cases, frames=[16, 4, 9])
    mask = data["tokenized_data"].attention_mask
    assert (mask[:, -1] == 1).all() and sorted(mask.sum(1).tolist()) != [mask.shape[1]] * 3, "padding on the left of some"
    together, _, extra = predict(model, data, num_traj_samples=2, noise=z, reasoning=[*TEXTS, *TEXTS[:2]])
    assert together.shape == (3, 1, 2, 64, 3) and extra["cot"].shape == (3, 1, 2)
    for b, (case, frames) in enumerate(zip(cases, [16, 4, 9])):
        one = inputs_of(processor, [case], frames=[frames])
        rows = slice(2 * b, 2 * b + 2)
        alone, _, _ = predict(model, one, num_traj_samples=2, noise=z[rows], reasoning=[*TEXTS, *TEXTS[:2]][rows])
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-4, rtol=0)


def test_batch_with_a_seed_equals_single_runs(model, processor):
    cases, how = ("forced_1", "stationary"), {"seed": 3, "max_generation_length": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together, _, _ = predict(model, inputs_of(processor, cases, frames=[8, 16]), **how)
        alone = [predict(model, inputs_of(processor, [c], frames=[f]), **how)[0] for c, f in zip(cases, [8, 16])]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


def test_nothing_is_mutated(model, processor):
    data = inputs_of(processor, ("forced_1", "stationary"), frames=[16, 8])
    before = copy.deepcopy(data)
    z, texts, flow = noise(2), list(TEXTS[:2]), {"inference_step": 2}
    predict(model, data, noise=z, reasoning=texts, diffusion_kwargs=flow)
    assert data.keys() == before.keys() and data["tokenized_data"].keys() == before["tokenized_data"].keys()
    for key, value in before["tokenized_data"].items():
        assert torch.equal(data["tokenized_data"][key], value)
    assert torch.equal(data["ego_history_xyz"], before["ego_history_xyz"]) and torch.equal(z, noise(2))
    assert texts == TEXTS[:2] and flow == {"inference_step": 2}


@pytest.mark.filterwarnings("ignore:.*unfinished")
def test_randomness(model, processor):
    """torch.manual_seed decides where no seed is given; a seed leaves the ambient state alone."""
    data, how = inputs_of(processor, frames=[4]), {"max_generation_length": 3, "temperature": 5.0}
    torch.manual_seed(42)
    first, second = predict(model, data, **how)[0], predict(model, data, **how)[0]
    torch.manual_seed(42)
    assert torch.equal(predict(model, data, **how)[0], first) and not torch.equal(first, second)
    state = torch.get_rng_state()
    seeded = predict(model, data, seed=7, **how)[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(predict(model, data, seed=7, **how)[0], seeded)
    assert not torch.equal(predict(model, data, seed=8, **how)[0], seeded)


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"max_new_tokens": 3}, TypeError, "max_new_tokens= .say max_generation_length"),
        ({"tempreature": 1.0}, TypeError, "tempreature= .no such argument"),
        ({"diffusion_kwargs": {"steps": 3}}, TypeError, "inference_step"),
        ({"diffusion_kwargs": {"inference_step": 0}}, ValueError, "steps is 0"),
        ({"num_traj_samples": 0}, ValueError, "num_traj_samples is 0"),
        ({"noise": torch.zeros(2, 64, 2)}, ValueError, "noise has 2 rows, expected 1"),
        ({"noise": torch.zeros(1, 63, 2)}, ValueError, r"expected \(1, 64, 2\)"),
        ({"reasoning": "stop"}, ValueError, "a list of 1"),
        ({"reasoning": ["stop", "go"]}, ValueError, "2 rows, expected 1"),
        ({"reasoning": ["<|cot_end|>"]}, ValueError, "plain words"),
        ({"top_p": 0}, ValueError, "top_p"),
        ({"temperature": -1}, ValueError, "temperature"),
        ({"max_generation_length": 0}, ValueError, "max_tokens"),
    ],
    ids=str,
)
def test_refused_arguments(model, processor, options, error, match, monkeypatch):
    monkeypatch.setattr(type(model), "planner", None)  # nothing heavy may have begun
    with pytest.raises(error, match=match):
        predict(model, inputs_of(processor, frames=[1]), **options)


def broken(data, key, value):
    tokenized = dict(data["tokenized_data"])
    if key in tokenized:
        tokenized[key] = value(tokenized[key])
        return {**data, "tokenized_data": tokenized}
    return {**data, key: value(data[key])}


@pytest.mark.parametrize(
    "key, value, match",
    [
        ("ego_history_xyz", lambda x: x[:, :, 1:], "expected|placeholders"),
        ("ego_history_xyz", lambda x: x * torch.nan, "NaN"),
        ("ego_history_rot", lambda x: x.expand(2, -1, -1, -1, -1), "expected"),
        ("pixel_values", lambda x: x[:-4], "patches"),
        ("image_grid_thw", lambda x: x[:0], "names 0"),
        ("image_grid_thw", lambda x: x * 2, "more than one frame"),
        ("input_ids", lambda x: x[:, :-20], "attention_mask"),
        ("input_ids", lambda x: torch.where(x == 4438, 0, x), "0 placeholders"),
        ("input_ids", lambda x: torch.where(x == 421, 0, x), "placeholders for 0"),
    ],
)
def test_refused_data(model, processor, key, value, match):
    with pytest.raises(ValueError, match=match):
        predict(model, broken(inputs_of(processor, frames=[2]), key, value))


def test_absent_data(model, processor):
    data = inputs_of(processor, frames=[2])
    with pytest.raises(KeyError, match="ego_history_rot"):
        predict(model, {key: value for key, value in data.items() if key != "ego_history_rot"})


@pytest.mark.parametrize("argument", ["torch_dtype", "attn_implementation", "trust_remote_code", "nonsense"])
def test_from_pretrained_refuses(argument):
    with pytest.raises(TypeError, match=argument):
        AlpamayoR1.from_pretrained(GOLDEN / "checkpoint", **{argument: 1})


def test_model_attributes(model):
    assert (model.device.type, model.dtype) == ("cpu", torch.float32)
    assert model.config.vocab_size == 4451 and model.config.traj_token_ids["history"] == 4438
    assert model.eval() is model
    names = {name for name, _ in model.model.named_parameters()}
    assert names < set(model.state_dict()) and sum(p.numel() for p in model.parameters()) > 1e6
    assert AlpamayoR1.from_pretrained(GOLDEN / "checkpoint").to(torch.bfloat16).dtype == torch.bfloat16


def test_tokenizer(model):
    tokenizer, ids = model.tokenizer, CASES["special_token_ids"]
    assert len(tokenizer) == tokenizer.vocab_size == 4451
    assert tokenizer.convert_tokens_to_ids("<|cot_start|>") == ids["cot_start"]
    assert tokenizer.convert_tokens_to_ids(["<|cot_end|>", "nothing"]) == [ids["cot_end"], None]
    assert tokenizer.convert_ids_to_tokens([ids["cot_end"]]) == ["<|cot_end|>"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token, tokenizer.padding_side) == (416, "<|im_end|>", "left")
    text = "Keep distance<|cot_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text == tokenizer.decode(torch.tensor(tokenizer.encode(text)))
    assert tokenizer.batch_decode([tokenizer.encode(text)], skip_special_tokens=True) == ["Keep distance"]
    assert tokenizer("stop").input_ids == tokenizer.encode("stop")
    assert tokenizer(["a", "stop"]).input_ids == [tokenizer.encode("a"), tokenizer.encode("stop")]
    batch = tokenizer(["a", "Keep distance"], return_tensors="pt")
    assert batch.attention_mask[:, 0].tolist() == [0, 1] and batch["input_ids"][0, 0] == 416


def test_to_device_keeps_integers():
    nested = {"a": [torch.ones(2), torch.ones(2, dtype=torch.long)], "b": (torch.ones(1, dtype=torch.bool), "text", None)}
    moved = helper.to_device(nested, "cpu", torch.bfloat16)
    assert moved["a"][0].dtype == torch.bfloat16 and moved["a"][1].dtype == torch.long and moved["b"][0].dtype == torch.bool
    assert moved["b"][1:] == ("text", None) and nested["a"][0].dtype == torch.float32
    batch = helper.to_device(helper.Batch(x=torch.ones(1)), dtype=torch.float16)
    assert batch.x.dtype == torch.float16


def test_templates(processor):
    """Text, and general messages: other turns, other pictures, in Qwen's form."""
    messages = helper.create_message(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    text = processor.apply_chat_template(messages, **{**HOW, "tokenize": False})
    assert text.startswith("<|im_start|>system\nYou are a driving") and text.endswith("<|im_start|>assistant\n<|cot_start|>")
    assert text.count("<|vision_start|><|image_pad|><|vision_end|>") == 2
    picture = Image.fromarray(np.zeros((48, 96, 3), np.uint8))
    turns = [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "hi"}]}]
    asked = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, continue_final_message=False)
    assert asked == "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>\n<|im_start|>assistant\n"
    mixed = [{"role": "user", "content": [{"image": picture}, {"image": torch.zeros(3, 96, 48, dtype=torch.uint8)}]}]
    batch = processor.apply_chat_template(mixed, **HOW)
    assert batch.image_grid_thw.tolist() == [[1, 4, 6], [1, 6, 4]]
    assert int((batch.input_ids == 421).sum()) == int(batch.image_grid_thw.prod(1).sum()) // 4 == len(batch.pixel_values) // 4
    words = processor.apply_chat_template([{"role": "user", "content": "hi"}], **HOW)
    assert "pixel_values" not in words and processor.decode(words.input_ids[0]) == "<|im_start|>user\nhi"


@pytest.mark.parametrize(
    "messages, error, match",
    [
        ([], ValueError, "empty"),
        ([{"role": "tool", "content": "x"}], ValueError, "tool"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], ValueError, "system message"),
        (
            [{"role": "assistant", "content": [{"type": "image", "image": torch.zeros(3, 64, 64, dtype=torch.uint8)}]}],
            ValueError,
            "image in a",
        ),
        ([{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], ValueError, "video"),
        ([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], TypeError, "PIL image"),
        ([{"role": "user", "content": [{"type": "image", "image": torch.zeros(3, 64, 64)}]}], TypeError, "float32"),
    ],
)
def test_refused_messages(processor, messages, error, match):
    with pytest.raises(error, match=match):
        processor.apply_chat_template(messages, **HOW)


def test_refused_template_options(processor):
    with pytest.raises(ValueError, match="choose one"):
        processor.apply_chat_template([{"role": "user", "content": "x"}], add_generation_prompt=True)
    with pytest.raises(ValueError, match="return_tensors"):
        processor.apply_chat_template([{"role": "user", "content": "x"}], return_tensors="np")
    with pytest.raises(ValueError, match="flatten"):
        helper.create_message(torch.zeros(4, 4, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.slow
def test_the_engine_behind_the_facade_gives_the_specification():
    plain, fast = (AlpamayoR1.from_pretrained("small", dtype=torch.float32, fast=f) for f in (False, True))
    data = inputs_of(helper.get_processor(plain.tokenizer))
    options = {"num_traj_samples": 2, "seed": 3, "max_generation_length": 40}
    wanted, got = predict(plain, data, **options), predict(fast, data, **options)
    assert wanted[2]["cot"].tolist() == got[2]["cot"].tolist()
    torch.testing.assert_close(got[0], wanted[0], atol=1e-3, rtol=1e-4)
    assert fast.planner.engine is not None and plain.planner.engine is None and fast.to("cpu")._planner is None
