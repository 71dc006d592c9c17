"""The release's vocabulary and prompt with Qwen's real tokenizer files; HF's tokenizer and Jinja template are the oracles."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1 import helper
from alpamayo_r1.core.config import parse_config, read_json
from alpamayo_r1.core.family import R1
from alpamayo_r1.core.prompt import build_prompt, chat_text, images_text, plan_text
from alpamayo_r1.core.types import CAMERAS, Observation, Trajectory
from alpamayo_r1.core.vocab import load_vocabulary
from alpamayo_r1.models.tokenizer import Tokenizer
from conftest import golden

SPECIAL_IDS = dict(zip((name for name in R1.special if name != "image_pad"), range(155669, 155697))) | {"image_pad": 151655}
SENTENCES = [
    "Nudge to the left to increase clearance from the construction cones encroaching into the lane",
    "it's 12:30, we'll\n\n  stop (3 m) before\tthe <|cot_end|> line … été 東京",
    chat_text(images_text([180] * 16), plan_text(48)),
]


@pytest.fixture(scope="module")
def tokenizer(shared):
    released = read_json(shared / "release" / "alpamayo-r1-10b.config.json")
    qwen = shared / "release" / "qwen3-vl-8b"
    config = parse_config(released, read_json(qwen / "config.json"))
    return Tokenizer(load_vocabulary(qwen, config.tokens), config)


@pytest.fixture(scope="module")
def oracle(shared):
    """HF's own tokenizer with the release's tokens added."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(shared / "release" / "qwen3-vl-8b", local_files_only=True)
    base = len(theirs)
    theirs.add_tokens([f"<i{i}>" for i in range(4000)])
    theirs.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in R1.special]})
    assert base == 151669
    return theirs


def test_vocabulary(tokenizer, oracle):
    assert len(tokenizer) == len(oracle) == 155697
    assert {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in R1.special} == SPECIAL_IDS
    assert tokenizer.convert_tokens_to_ids(["<i0>", "<i3999>"]) == [151669, 155668]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (151643, 151645)


@pytest.mark.parametrize("text", SENTENCES, ids=["words", "odd", "prompt"])
def test_the_same_ids_as_transformers(tokenizer, oracle, text):
    ids = tokenizer.encode(text)
    assert ids == oracle.encode(text)
    assert tokenizer.decode(ids) == oracle.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == oracle.decode(ids, skip_special_tokens=True)


def messages_of(frames):
    return helper.create_message(torch.zeros(frames, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("form", ["continued", "closed", "asked"])
@pytest.mark.parametrize("system", [True, False])
def test_the_same_text_as_qwens_template(tokenizer, oracle, shared, form, system):
    messages = messages_of(3)[0 if system else 1 :]
    how = {"continue_final_message": form == "continued", "add_generation_prompt": form == "asked"}
    template = (shared / "release" / "qwen3-vl-8b" / "chat_template.jinja").read_text()
    theirs = oracle.apply_chat_template(messages, chat_template=template, tokenize=False, **how)
    assert helper.get_processor(tokenizer).apply_chat_template(messages, tokenize=False, **how) == theirs


def test_the_notebooks_prompt(tokenizer):
    """16 frames of 1080x1920: 3,006 ids; head and tail say what the recordings say; the core builds the same."""
    frames = torch.zeros(16, 3, 1080, 1920, dtype=torch.uint8)
    batch = helper.get_processor(tokenizer).apply_chat_template(helper.create_message(frames))
    assert batch.input_ids.shape == (1, 3006) and batch.pixel_values.shape == (11520, 1536)
    assert batch.image_grid_thw.tolist() == [[1, 20, 36]] * 16
    ids = batch.input_ids[0].tolist()
    assert ids.count(151655) == 2880 and ids.count(155684) == 48 and ids[-1] == SPECIAL_IDS["cot_start"]
    words, recorded = tokenizer.decode(ids), recorded_text()
    assert words.split("<|image_pad|>")[0] == recorded.split("<|image_pad|>")[0]
    assert words.split("<|vision_end|>")[-1] == recorded.split("<|vision_end|>")[-1]
    history = Trajectory(torch.zeros(16, 3), torch.eye(3).expand(16, 3, 3))
    prompt = build_prompt(Observation(frames.unflatten(0, (4, 4)), CAMERAS, history, 0), tokenizer.vocabulary, tokenizer.model_config)
    assert torch.equal(prompt.patches, batch.pixel_values)
    assert torch.equal(prompt.ids[prompt.ids < 151669], batch.input_ids[0][batch.input_ids[0] < 151669])


def recorded_text() -> str:
    """The recorded prompt of the tiny checkpoint as text."""
    from alpamayo_r1.core.config import read_config
    from conftest import GOLDEN

    folder = GOLDEN / "checkpoint"
    return load_vocabulary(folder / "vlm", read_config(folder).tokens).decode(golden("pipeline_forced_1")["input_ids"][0].tolist())


def test_a_foreign_tokenizer_gets_the_releases_pictures(oracle):
    """HF's tokenizer works in the processor too, with the release's pixel budget."""
    batch = helper.get_processor(oracle).apply_chat_template(helper.create_message(torch.zeros(1, 3, 1080, 1920, dtype=torch.uint8)))
    assert batch.image_grid_thw.tolist() == [[1, 20, 36]] and int((batch.input_ids == 151655).sum()) == 180
