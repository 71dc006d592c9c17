"""What the original's Alpamayo 1.5 gets wrong and ours must not; docs/differences.md names these tests."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from alpamayo1_5 import helper, nav_utils, viz_utils
from alpamayo1_5.config import Alpamayo1_5Config
from alpamayo1_5.load_physical_aiavdataset import load_physical_aiavdataset
from alpamayo1_5.models.alpamayo1_5 import Alpamayo1_5
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.data.errors import MissingCamera
from alpamayo_r1.models.alpamayo_r1 import AlpamayoR1
from conftest import GOLDEN, HOW
from support.golden15 import GOLDEN15, inputs_of, recording

pytestmark = pytest.mark.slow

TEXTS = ["Yield.", "Nudge left to clear the cones.", "Keep distance.", "Stop for the red light."]
GUIDED = {"use_classifier_free_guidance": True, "inference_guidance_weight": 2.0}


@pytest.fixture(scope="module")
def model():
    return Alpamayo1_5.from_pretrained(GOLDEN15 / "checkpoint", dtype=torch.float32)


@pytest.fixture(scope="module")
def processor(model):
    return helper.get_processor(model.tokenizer)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def frames():
    return recording("nav")["image_frames"]


def batch_of(processor, texts, count=2):
    """One scene of one camera for each navigation text, padded on the left."""
    g = recording("nav")
    messages = [helper.create_message(g["image_frames"][: count + i], [1], nav_text=text) for i, text in enumerate(texts)]
    history = {key: g[key].expand(len(texts), *g[key].shape[1:]) for key in ("ego_history_xyz", "ego_history_rot")}
    return {"tokenized_data": processor.apply_chat_template(messages, **HOW), **history}


def noise(rows):
    return torch.randn(rows, 64, 2, generator=torch.Generator().manual_seed(0))


def test_frames_per_camera_are_inferred(processor, frames):
    """Cameras 1 and 6 with two frames each, the default left as it is: each camera by its own name."""
    text = processor.apply_chat_template(helper.create_message(frames[:4], [1, 6]), **{**HOW, "tokenize": False})
    assert text.count("Front camera: ") == text.count("Front telephoto camera: ") == 1 and text.count("frame 1 ") == 2
    assert helper.create_message(frames[:10], torch.tensor([1, 6])), "more than four frames too"


@pytest.mark.parametrize(
    "count,indices,stated,words", [(5, [1, 6], 4, "as many frames"), (4, [1, 6], 3, "are 2 each"), (2, [-1], 4, "at least 0")]
)
def test_frames_that_do_not_divide_are_refused(frames, count, indices, stated, words):
    with pytest.raises(ValueError, match=words):
        helper.create_message(frames[:count], indices, stated)


def test_guided_batches_of_several_samples(model, processor):
    """B = 2 and S = 2 beside each scene alone."""
    texts = ["Turn left in 30m", "Turn right in 9m"]
    how = {"diffusion_kwargs": GUIDED, "num_traj_samples": 2, "return_extra": True}
    sample = model.sample_trajectories_from_data_with_vlm_rollout_cfg_nav
    both, _, extra = sample(batch_of(processor, texts), noise=noise(4), reasoning=TEXTS, **how)
    assert extra["cot"].flatten().tolist() == TEXTS
    data = batch_of(processor, texts)
    mask = data["tokenized_data"].attention_mask[0].bool()
    first = {"input_ids": data["tokenized_data"].input_ids[:1, mask], "image_grid_thw": data["tokenized_data"].image_grid_thw[:2]}
    first["pixel_values"] = data["tokenized_data"].pixel_values[: int(first["image_grid_thw"].prod(1).sum())]
    alone, _, _ = sample(
        {"tokenized_data": first, "ego_history_xyz": data["ego_history_xyz"][:1], "ego_history_rot": data["ego_history_rot"][:1]},
        noise=noise(4)[:2],
        reasoning=TEXTS[:2],
        **how,
    )
    torch.testing.assert_close(both[:1], alone, atol=1e-4, rtol=0)


def test_guidance_without_navigation_is_the_plain_plan(model, processor):
    data, how = batch_of(processor, [None]), {"noise": noise(1), "reasoning": TEXTS[:1], "num_traj_samples": 1}
    guided, _ = model.sample_trajectories_from_data_with_vlm_rollout_cfg_nav(data, diffusion_kwargs=GUIDED, **how)
    plain, _ = model.sample_trajectories_from_data_with_vlm_rollout(data, **how)
    assert torch.equal(guided, plain)


def test_guidance_is_off_unless_asked_for(model, processor, monkeypatch):
    """And costs nothing then: no second prompt is read."""
    data, how = batch_of(processor, ["Turn left"]), {"noise": noise(1), "reasoning": TEXTS[:1], "num_traj_samples": 1}
    monkeypatch.setattr(model.model, "extend", None)
    off, _ = model.sample_trajectories_from_data_with_vlm_rollout_cfg_nav(data, **how)
    plain, _ = model.sample_trajectories_from_data_with_vlm_rollout(data, **how)
    assert torch.equal(off, plain)


@pytest.mark.parametrize(
    "method,flow,error,words",
    [
        ("_cfg_nav", {"inference_guidance_weight": 1.5}, ValueError, "use_classifier_free_guidance=True"),
        ("_cfg_nav", {**GUIDED, "inference_guidance_weight": float("nan")}, ValueError, "inference_guidance_weight is nan"),
        ("", {"inference_guidance_weight": 1.5}, ValueError, "rollout_cfg_nav"),
        ("", GUIDED, ValueError, "rollout_cfg_nav"),
        ("", {"inference_step": 0}, ValueError, "steps is 0"),
        ("", {"steps": 5}, TypeError, '"inference_step", "temperature"'),
        ("", {"int_method": "heun"}, TypeError, "Euler"),
    ],
)
def test_diffusion_kwargs_that_would_be_ignored_are_refused(model, processor, method, flow, error, words):
    with pytest.raises(error, match=words):
        getattr(model, f"sample_trajectories_from_data_with_vlm_rollout{method}")(
            batch_of(processor, ["Turn left"]), diffusion_kwargs=flow, num_traj_samples=1
        )


def test_unknown_arguments_are_refused(model, processor):
    data = batch_of(processor, [None])
    for method in (
        "sample_trajectories_from_data_with_vlm_rollout",
        "sample_trajectories_from_data_with_vlm_rollout_cfg_nav",
        "generate_text",
    ):
        with pytest.raises(TypeError, match="max_new_tokens= "):
            getattr(model, method)(data, max_new_tokens=3)


def test_two_sets(model, processor):
    xyz, _ = model.sample_trajectories_from_data_with_vlm_rollout(
        batch_of(processor, [None]), num_traj_sets=2, num_traj_samples=2, noise=noise(4), reasoning=TEXTS
    )
    assert xyz.shape == (1, 2, 2, 64, 3)


def test_nothing_of_the_callers_is_changed(model, processor):
    data = batch_of(processor, ["Turn left"])
    before = {key: value.clone() for key, value in data["tokenized_data"].items()}
    model.sample_trajectories_from_data_with_vlm_rollout_cfg_nav(data, num_traj_samples=1, max_generation_length=2, diffusion_kwargs=GUIDED)
    assert data["tokenized_data"].keys() == before.keys()
    assert all(torch.equal(data["tokenized_data"][key], value) for key, value in before.items())


class Clip:
    """The loader's dict of one recorded scene."""

    def __new__(cls):
        g = recording("plain_cameras")
        images = g["image_frames"].unflatten(0, (4, 4))[1:3, :2]
        return {"image_frames": images, "camera_indices": torch.tensor([1, 2]), **{k: g[k] for k in ("ego_history_xyz", "ego_history_rot")}}


def compare(model, processor, text="Turn right in 30m", **more):
    return nav_utils.compare_nav_conditions(model, processor, Clip(), text, num_traj_samples=2, max_generation_length=4, **more)


def test_the_comparison_calls_what_it_is_given(model, processor):
    calls = []

    def spy(name):
        def plan(**arguments):
            calls.append((name, arguments["data"]["tokenized_data"].input_ids.shape[1], arguments.get("diffusion_kwargs")))
            return model.sample_trajectories_from_data_with_vlm_rollout(**{k: v for k, v in arguments.items() if k != "diffusion_kwargs"})

        return plan

    more = {"diffusion_kwargs": {"temperature": 0.6, **GUIDED}}
    compare(model, processor, nav_inference_fn=spy("nav"), inference_fn=spy("plain"), additional_nav_inference_kwargs=more)
    assert [name for name, _, _ in calls] == ["nav", "plain", "nav"]
    assert [flow for _, _, flow in calls] == [more["diffusion_kwargs"], {"temperature": 0.6}, more["diffusion_kwargs"]]
    assert calls[1][1] < calls[0][1] == calls[2][1]


def test_the_comparisons_plans_differ_by_the_text_alone(model, processor):
    """The same random numbers for all three, and for a repetition from the same seed; the caller's generator moves on once."""
    torch.manual_seed(3)
    result = compare(model, processor)
    torch.manual_seed(3)
    again = compare(model, processor)
    assert torch.equal(result.pred_with_nav, again.pred_with_nav) and result.pred_no_nav.device.type == "cpu"
    assert result.nav_text_swapped == "Turn left in 30m" and result.extra_with_nav["cot"].shape == (1, 1, 2)
    torch.manual_seed(3)
    seed = int(torch.randint(2**31, ()))
    torch.manual_seed(seed)
    data = nav_utils.model_inputs(processor, Clip(), None)
    alone, _ = model.sample_trajectories_from_data_with_vlm_rollout(data, num_traj_samples=2, max_generation_length=4)
    torch.testing.assert_close(result.pred_no_nav, alone, atol=0, rtol=0)


def test_a_text_without_a_direction_has_no_counterfactual(model, processor):
    result = compare(model, processor, "Continue straight", return_extra=False)
    assert result.pred_counterfactual is None and result.nav_text_swapped is None and result.extra_with_nav is None
    figure = viz_utils.plot_bev_comparison(result.pred_with_nav, result.pred_no_nav, None, result.nav_text, None)
    assert len(figure.axes) == 2


@pytest.mark.parametrize(
    "text,swapped", [("Left, then right", "Right, then left"), ("Keep LEFT", "Keep RIGHT"), ("TURN RIGHT", "TURN LEFT")]
)
def test_the_comparison_keeps_capitals(text, swapped):
    assert nav_utils.swap_direction(text, keep_capitals=True) == swapped


@pytest.mark.parametrize("text", ["<|route_end|>", "a <|traj_future_start|>", "<|image_pad|>", "<i12>", "<|im_end|>", "</think>"])
def test_control_tokens_are_refused(frames, text):
    with pytest.raises(ValueError, match="must be plain words"):
        helper.create_message(frames, nav_text=text)
    with pytest.raises(ValueError, match="must be plain words"):
        helper.create_vqa_message(frames, text)


def test_every_token_of_the_models_own_is_refused(model, frames):
    """The pattern of the helper, which has no tokenizer, misses none that the tokenizer knows."""
    own = [token.content for token in model.vocabulary.backend.get_added_tokens_decoder().values()]
    assert len(own) > 1600 and not [token for token in own if not helper.CONTROL.search(token)]


def test_every_token_of_qwens_is_refused(shared):
    from alpamayo_r1.core.config import parse_config, read_json

    qwen = shared / "release" / "qwen3-vl-8b"
    config = parse_config(read_json(shared / "release" / "alpamayo-1.5-10b.config.json"), read_json(qwen / "config.json"))
    backend = load_vocabulary(qwen, config.tokens, config.family).backend
    assert not [t.content for t in backend.get_added_tokens_decoder().values() if not helper.CONTROL.search(t.content)]


def test_to_device_keeps_integers():
    moved = helper.to_device({"ids": torch.ones(2, dtype=torch.long), "x": torch.ones(1)}, dtype=torch.bfloat16)
    assert moved["ids"].dtype == torch.long and moved["x"].dtype == torch.bfloat16


def test_an_answer_cut_off_is_kept(model, processor):
    said = model.generate_text(inputs_of(processor, "vqa_forced"), num_samples=2, max_generation_length=3, seed=1)
    assert said["answer"].tolist() == [["", ""]] and all(said["unfinished"].flatten())
    whole = model.generate_text(inputs_of(processor, "vqa_forced"), num_samples=1, reasoning=["Two cars wait."])
    assert whole["answer"].tolist() == [["Two cars wait."]] and whole["unfinished"].tolist() == [[""]]


def test_an_unknown_camera_is_refused_by_the_loader():
    with pytest.raises(MissingCamera, match="camera_front"):
        load_physical_aiavdataset("de5c9638-5c28-5fa6-87b6-14ec4e3e37e4", avdi="sample", camera_features=["camera_front"])


def test_the_grid_shows_every_camera():
    frames = (torch.arange(7) + 1).view(7, 1, 1, 1, 1).expand(7, 2, 3, 4, 6).to(torch.uint8)
    grid = viz_utils.make_camera_grid(frames, torch.arange(7))
    assert grid.shape == (12, 18, 3) and sorted(grid.unique().tolist()) == list(range(8))
    four = viz_utils.make_camera_grid(frames[:4], torch.tensor([0, 1, 2, 6]))
    assert four.shape == (8, 18, 3) and four.dtype == torch.uint8
    assert four[0, 6:12, 0].tolist() == [4] * 6 and four[4, ::6, 0].tolist() == [1, 2, 3] and four[0, 0, 0] == 0
    assert viz_utils.make_camera_grid(frames[:4])[::4, ::6, 0].tolist() == [[1, 2, 3], [4, 0, 0]]


def test_one_name_loads_one_checkpoint(monkeypatch):
    """Nothing else is opened, whatever attention is asked for."""
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("the network was opened"))
    for attention in ("sdpa", "eager", "flash_attention_2", None):
        Alpamayo1_5.from_pretrained(GOLDEN15 / "checkpoint", dtype="float32", attn_implementation=attention)
    with pytest.raises(ValueError, match="sdpa, eager, flash_attention_2"):
        Alpamayo1_5.from_pretrained(GOLDEN15 / "checkpoint", attn_implementation="fast")


def test_each_class_loads_its_own_family():
    with pytest.raises(ValueError, match=r"checkpoint of Alpamayo-R1.*use alpamayo_r1\.models\.alpamayo_r1\.AlpamayoR1"):
        Alpamayo1_5.from_pretrained(GOLDEN / "checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint of Alpamayo 1\.5.*use alpamayo1_5\.models\.alpamayo1_5\.Alpamayo1_5"):
        AlpamayoR1.from_pretrained(GOLDEN15 / "checkpoint")


def test_the_navigation_text_is_found_and_removed(model, processor):
    ids = processor.apply_chat_template(
        helper.create_message(recording("nav")["image_frames"][:2], [1], nav_text="Turn left"), **HOW
    ).input_ids
    plain = processor.apply_chat_template(helper.create_message(recording("nav")["image_frames"][:2], [1]), **HOW).input_ids
    start, end = nav_utils.get_nav_token_span(ids, model.tokenizer)
    assert model.tokenizer.decode(ids[0, start : end + 1]) == "<|route_start|>Turn left<|route_end|>"
    assert torch.equal(nav_utils.remove_nav_text(ids, model.tokenizer), plain)
    with pytest.raises(ValueError, match=r"has no <\|route_start\|>"):
        nav_utils.get_nav_token_span(plain, model.tokenizer)


def test_answers_of_a_padded_batch_are_each_scenes_own(model, processor):
    frames = recording("nav")["image_frames"]
    messages = [helper.create_vqa_message(frames[:n], "Describe the scene.", [1]) for n in (1, 3)]
    together = model.generate_text(
        {"tokenized_data": processor.apply_chat_template(messages, **HOW)}, num_samples=2, max_generation_length=6, seed=5
    )
    assert together["unfinished"].shape == (2, 2)
    for i, message in enumerate(messages):
        alone = model.generate_text(
            {"tokenized_data": processor.apply_chat_template(message, **HOW)}, num_samples=2, max_generation_length=6, seed=5
        )
        assert np.array_equal(alone["unfinished"][0], together["unfinished"][i])


def test_the_config_has_the_releases_keys():
    config = Alpamayo1_5Config.from_pretrained(GOLDEN15 / "checkpoint")
    assert config.model_type == "alpamayo1_5" and config.include_camera_ids and config.padding_side == "left"
