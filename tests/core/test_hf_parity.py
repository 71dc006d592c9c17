"""Tiny random Qwen3-VLs of transformers through our modules: the same vision features, positions and logits (spec section 3)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alpamayo_r1.core.config import parse_config, read_json
from alpamayo_r1.core.plan import fork
from alpamayo_r1.core.prompt import Prompt, rope_positions
from alpamayo_r1.core.vla import VLA
from conftest import GOLDEN

transformers = pytest.importorskip("transformers")

IMAGE, START, END, VOCAB = 501, 502, 503, 512
GRIDS = [[(4, 6), (4, 6)], [(2, 8), (6, 4), (6, 4), (10, 2)], [(14, 14)], []]
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
}
VISION = {
    "depth": 5,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 144,
    "deepstack_visual_indexes": [0, 2, 3],
}
ROPE = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}


def build(dtype=torch.float32, attention="sdpa"):
    """The same random weights in transformers' model and in ours."""
    config = transformers.Qwen3VLConfig(
        text_config=TEXT | {"rope_parameters": ROPE | {"rope_theta": 5e6}},
        vision_config=VISION,
        image_token_id=IMAGE,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    config._attn_implementation = attention
    torch.manual_seed(0)
    theirs = transformers.Qwen3VLForConditionalGeneration(config).eval().requires_grad_(False)
    for name, weight in theirs.named_parameters():
        scale = max(weight[0].numel(), 1) ** -0.5 if weight.ndim > 1 else 0.1
        weight.copy_(scale * torch.randn(weight.shape) + ("norm" in name and name.endswith("weight")))
    return theirs.to(dtype), ours_from(theirs).to(dtype)


def ours_from(theirs) -> VLA:
    released = read_json(GOLDEN / "checkpoint" / "config.json")
    vlm = {"text_config": TEXT | {"rope_scaling": ROPE, "rope_theta": 5e6}, "vision_config": VISION}
    config = parse_config(released, vlm)
    ours = VLA(replace(config, text=replace(config.text, vocab=VOCAB))).eval().requires_grad_(False)
    state = {f"vlm.{name}": tensor.float() for name, tensor in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected and not [name for name in missing if name.startswith("vlm.")]
    return ours


@pytest.fixture(scope="module")
def models():
    return build()


def scene(grids, seed=1):
    """Random text around images of these grids: ids [T], patches, image_grid_thw."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(0, 500, (len(grids) + 1, 5), generator=generator).tolist()
    ids = list(words[0])
    for (h, w), after in zip(grids, words[1:], strict=True):
        ids += [START, *[IMAGE] * (h * w // 4), END, *after]
    patches = torch.randn(sum(h * w for h, w in grids), 1536, generator=generator)
    return torch.tensor(ids), patches, torch.tensor([[1, h, w] for h, w in grids]).view(-1, 3)


def their_logits(theirs, ids, patches, thw):
    pictures = {"pixel_values": patches.to(theirs.dtype), "image_grid_thw": thw} if len(thw) else {}
    return theirs(input_ids=ids[None], mm_token_type_ids=(ids[None] == IMAGE).int(), **pictures).logits[0]


def our_logits(ours, ids, patches, grids):
    positions, _ = rope_positions(ids, grids, IMAGE)
    features, deep = ours.encode(patches, grids) if grids else (torch.zeros(0, 64), [])
    x, deepstack = ours.embed(ids[None], (ids == IMAGE)[None], features, deep)
    hidden, _ = ours.language(x, positions[:, None], causal=True, deepstack=deepstack)
    return ours.logits(hidden)[0]


@pytest.mark.parametrize("grids", GRIDS[:3], ids=str)
def test_vision(models, grids):
    theirs, ours = models
    _, patches, thw = scene(grids)
    out = theirs.get_image_features(patches, thw)
    features, deep = ours.encode(patches, grids)
    torch.testing.assert_close(features, torch.cat(tuple(out.pooler_output)), atol=1e-4, rtol=0)
    assert len(deep) == len(out.deepstack_features) == 3
    for mine, other in zip(deep, out.deepstack_features, strict=True):
        torch.testing.assert_close(mine, torch.cat(tuple(other)), atol=1e-4, rtol=0)
    assert features.std() > 0.05


@pytest.mark.parametrize("grids", GRIDS, ids=str)
def test_positions(models, grids):
    theirs, _ = models
    ids, _, thw = scene(grids)
    positions, following = rope_positions(ids, grids, IMAGE)
    other, delta = theirs.model.get_rope_index(ids[None], (ids[None] == IMAGE).int(), thw)
    assert torch.equal(positions, other[:, 0]) and following == len(ids) + delta.item()


@pytest.mark.parametrize("grids", GRIDS, ids=str)
def test_logits(models, grids):
    theirs, ours = models
    ids, patches, thw = scene(grids)
    logits = our_logits(ours, ids, patches, grids)
    torch.testing.assert_close(logits, their_logits(theirs, ids, patches, thw), atol=1e-4, rtol=0)
    assert logits.std() > 0.5


def test_prefill_and_next_tokens(models):
    """Prefill, fork and single steps with a cache, against one forward pass over everything."""
    theirs, ours = models
    ids, patches, thw = scene(GRIDS[1])
    n = len(ids) - 4
    positions, following = rope_positions(ids[:n], GRIDS[1], IMAGE)
    whole = their_logits(theirs, ids, patches, thw)
    logits, kv = ours.prefill(Prompt(ids[:n], positions, following, patches, tuple(GRIDS[1]), IMAGE))
    torch.testing.assert_close(logits[0], whole[n - 1], atol=1e-4, rtol=0)
    rows = fork(kv, 3)
    for i in range(4):
        logits, rows = ours.next_logits(ids[n + i].expand(3), following + i, rows)
        torch.testing.assert_close(logits, whole[n + i].expand(3, -1), atol=1e-4, rtol=0)


def test_bf16_is_within_the_noise_floor():
    """In bf16 we are as far from transformers' SDPA as its own eager attention is, and from the truth as it is."""
    ids, patches, thw = scene(GRIDS[1])
    truth = their_logits(build()[0], ids, patches, thw)
    sdpa, ours = build(torch.bfloat16)
    eager, _ = build(torch.bfloat16, "eager")
    mine = our_logits(ours, ids, patches, GRIDS[1]).float()
    theirs, slow = (their_logits(m, ids, patches, thw).float() for m in (sdpa, eager))
    floor = rms(theirs - slow)
    assert 0 < rms(mine - theirs) < 1.5 * floor
    assert rms(mine - truth) < 1.2 * rms(theirs - truth)


def rms(x: torch.Tensor) -> float:
    return x.square().mean().sqrt().item()
