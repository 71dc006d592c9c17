"""Alpamayo 1.5 through the original's names: every recorded case."""

from __future__ import annotations

import warnings

import pytest
import torch

from alpamayo1_5 import helper, nav_utils
from alpamayo1_5.models.alpamayo1_5 import Alpamayo1_5
from conftest import HOW
from support.golden15 import CASES15, GOLDEN15, inputs_of, recording

PLANS = [case for case, facts in CASES15.items() if "frames_per_camera" in facts and facts["question"] is None]
QUESTIONS = ["vqa_greedy", "vqa_forced"]


@pytest.fixture(scope="module", params=[False, True], ids=["specification", "engine"])
def model(request):
    return Alpamayo1_5.from_pretrained(GOLDEN15 / "checkpoint", dtype=torch.float32, fast=request.param)


@pytest.fixture(scope="module")
def plain():
    return Alpamayo1_5.from_pretrained(GOLDEN15 / "checkpoint", dtype=torch.float32, fast=False)


def close(ours, theirs, atol):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def predict(model, case, data):
    """One recorded case by the method it was recorded with."""
    facts = CASES15[case]
    flow = {"inference_step": facts["inference_step"], "temperature": facts["flow_temperature"]}
    guided = facts["guidance_weight"] is not None
    if guided:
        flow |= {"use_classifier_free_guidance": True, "inference_guidance_weight": facts["guidance_weight"]}
    name = "sample_trajectories_from_data_with_vlm_rollout" + "_cfg_nav" * guided
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(model, name)(
            data=data,
            num_traj_samples=facts["samples"],
            top_k=facts["top_k"],
            max_generation_length=facts["max_generation_length"],
            diffusion_kwargs={key: value for key, value in flow.items() if value is not None},
            noise=recording(case)["noise"],
            reasoning=facts["reasoning"],
            return_extra=True,
        )


@pytest.mark.parametrize("case", [*PLANS, *QUESTIONS])
def test_prompts_are_the_recorded_ones(plain, case):
    g, tokenized = recording(case), inputs_of(helper.get_processor(plain.tokenizer), case)["tokenized_data"]
    for key in ("input_ids", "attention_mask", "image_grid_thw"):
        assert torch.equal(tokenized[key], g[key]), key
    pixels = (g["patches_u8_first_image"].float() / 255 - 0.5) / 0.5
    close(tokenized.pixel_values[: len(pixels)], pixels, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANS)
def test_plans_are_the_recorded_ones(model, case):
    g, facts = recording(case), CASES15[case]
    xyz, rot, extra = predict(model, case, inputs_of(helper.get_processor(model.tokenizer), case))
    close(xyz, g["pred_xyz"], 1e-4)
    close(rot, g["pred_rot"], 1e-4)
    assert {kind: texts.tolist() for kind, texts in extra.items()} == {kind: facts[kind] for kind in ("cot", "meta_action", "answer")}


@pytest.mark.slow
@pytest.mark.parametrize("case", PLANS)
def test_velocities_are_the_recorded_ones(plain, case, monkeypatch):
    """Of every Euler step, with and without navigation."""
    g, facts = recording(case), CASES15[case]
    seen, velocity = [], plain.model.velocity
    monkeypatch.setattr(plain.model, "velocity", lambda *a: seen.append(velocity(*a)) or seen[-1])
    predict(plain, case, inputs_of(helper.get_processor(plain.tokenizer), case))
    if facts["guidance_weight"] is not None:
        close(torch.stack(seen[0::2]), g["velocity_all_steps_unguided"], 1e-5)
        close(torch.stack(seen[1::2]), g["velocity_all_steps"], 1e-5)
        return
    steps, scenes = len(g["velocity_all_steps"]), facts["scenes"]
    ours = torch.stack([torch.cat(seen[step::steps]) for step in range(steps)])
    assert len(seen) == steps * scenes
    close(ours, g["velocity_all_steps"], 1e-5)


@pytest.mark.parametrize("case", PLANS)
def test_fused_ids_keys_and_logits_are_the_recorded_ones(plain, case):
    from alpamayo_r1.models.base import read_scenes

    g = recording(case)
    scenes = read_scenes(inputs_of(helper.get_processor(plain.tokenizer), case), plain.model, plain.vocabulary)
    for (prompt, _), ids, mask in zip(scenes, g["fused_input_ids"], g["attention_mask"], strict=True):
        assert torch.equal(prompt.ids, ids[mask.bool()])
    prompt = scenes[0][0]
    with torch.no_grad():
        logits, kv = plain.model.prefill(prompt)
    close(logits[0], g["logits_per_step_first_row"][0], 2e-4)
    for layer in (0, 3):
        for tensor, kind in zip(kv[layer], ("key", "value")):
            close(tensor, g[f"kv_{layer}_{kind}"][:, :, -len(prompt) :], 2e-4)
    if "unguided_input_ids" in g:
        assert torch.equal(prompt.without_navigation().ids, g["unguided_input_ids"][0])
        with torch.no_grad():
            _, unguided = plain.model.prefill(prompt.without_navigation())
        close(unguided[3][0], g["unguided_kv_3_key"], 2e-4)


@pytest.mark.parametrize("case", QUESTIONS)
def test_answers_are_the_recorded_ones(model, case):
    g, facts = recording(case), CASES15[case]
    data = inputs_of(helper.get_processor(model.tokenizer), case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = model.generate_text(
            data,
            top_k=facts["top_k"],
            num_samples=facts["samples"],
            max_generation_length=facts["max_generation_length"],
            reasoning=facts["answers"],
        )
    assert {kind: said[kind].tolist() for kind in ("cot", "meta_action", "answer")} == {
        kind: facts[kind] for kind in ("cot", "meta_action", "answer")
    }
    if case == "vqa_greedy":
        told = g["sequences_raw"][0, g["input_ids"].shape[1] :].tolist()
        assert said["unfinished"].tolist() == [[model.tokenizer.decode(told).strip()]], "trajectory tokens can be said"


@pytest.mark.parametrize("name", CASES15["prompts"]["prompts"])
def test_odd_prompts_are_the_recorded_ones(plain, name):
    facts = dict(CASES15["prompts"]["prompts"][name])
    frames = recording("plain_cameras")["image_frames"][:1].expand(facts.pop("images"), -1, -1, -1)
    make = helper.create_vqa_message if "question" in facts else helper.create_message
    ids = helper.get_processor(plain.tokenizer).apply_chat_template(make(frames, **facts), **HOW).input_ids[0]
    assert torch.equal(ids, recording("prompts")[name])


@pytest.mark.parametrize("text", CASES15["swap_direction"]["pairs"])
def test_directions_are_swapped_as_recorded(text):
    assert nav_utils.swap_direction(text) == CASES15["swap_direction"]["pairs"][text]
