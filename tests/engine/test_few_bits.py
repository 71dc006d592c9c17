"""The engine on weights of few bits: fused as they are stored, with the specification's plans."""

import pytest
import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_checkpoint
from alpamayo_r1.core.precision import PRECISIONS
from alpamayo_r1.core.quantised import Quantised, QuantisedLinear
from alpamayo_r1.engine.ops import eight, products, quantised
from alpamayo_r1.engine.weights import fuse, fuse_stack
from alpamayo_r1.planner import Planner

pytestmark = pytest.mark.slow

OBSERVATION = testing.random_observation(0, 64, 96)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return testing.tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("precision", ["fp8", "w8", "tight"])
def test_engine_and_specification_plan_alike(checkpoint, precision):
    model, vocabulary = load_checkpoint(checkpoint, dtype=torch.float32, precision=PRECISIONS[precision])
    fast, slow = (Planner.of(model, vocabulary, fast).plan(OBSERVATION, samples=2, seed=1, max_tokens=6) for fast in (True, False))
    assert fast.tokens == slow.tokens
    assert (fast.xyz - slow.xyz).abs().max() < 1e-3
    whole, _ = load_checkpoint(checkpoint, dtype=torch.float32)
    assert not torch.equal(Planner.of(whole, vocabulary, False).plan(OBSERVATION, samples=2, seed=1, max_tokens=6).actions, slow.actions)


def test_norms_and_swiglu_make_the_8_bits_that_products_read(checkpoint, monkeypatch):
    model, vocabulary = load_checkpoint(checkpoint, dtype=torch.bfloat16, precision=PRECISIONS["fp8"])

    def planned() -> torch.Tensor:
        return Planner.of(model, vocabulary, True).plan(OBSERVATION, samples=2, seed=1, max_tokens=4).actions

    def eight_where_many(x, weight, words):
        return isinstance(weight, Quantised) and len(x) > 8 and not words

    alone = quantised._by_rows
    plain = planned()
    with monkeypatch.context() as patch:
        patch.setattr(
            quantised, "_by_rows", lambda x, w, words: quantised.many(eight.quantise_rows(x), w) if len(x) > 8 else alone(x, w, words)
        )
        by_products = planned()
    made = []
    for name in ("rms_norm_eight", "add_rms_norm_eight", "swiglu_eight"):
        function = getattr(eight, name)
        for module in (eight, products):
            patch_counted(monkeypatch, module, name, function, made)
    for module in (eight, products, quantised):
        monkeypatch.setattr(module, "reads_eight", eight_where_many)
    monkeypatch.setattr(
        quantised, "_by_rows", lambda x, w, words: quantised.many(eight.quantise_rows(x), w) if len(x) > 8 else alone(x, w, words)
    )
    assert torch.equal(planned(), by_products) and not torch.equal(plain, by_products)
    assert set(made) == {"rms_norm_eight", "add_rms_norm_eight", "swiglu_eight"}


def patch_counted(monkeypatch, module, name, function, made):
    """Has calls of a function by its name in a module noted."""
    if hasattr(module, name):
        monkeypatch.setattr(module, name, lambda *given: made.append(name) or function(*given))


def test_fused_weights_are_stored_once_and_fused_twice_the_same(checkpoint):
    model, _ = load_checkpoint(checkpoint, dtype=torch.float32, precision=PRECISIONS["tight"])
    before = model.language.layers[0].self_attn.k_proj.weight
    first, second = fuse_stack(model.language), fuse_stack(model.language)
    for a, b in zip(first.layers, second.layers, strict=True):
        assert isinstance(a.qkv, Quantised) and isinstance(b.qkv, Quantised)
        for part in ("codes", "scale", "zero"):
            mine, again = getattr(a.qkv, part), getattr(b.qkv, part)
            assert mine is None or (mine.data_ptr() == again.data_ptr() and torch.equal(mine, again))
    assert torch.equal(model.language.layers[0].self_attn.k_proj.weight, before)
    rows = [len(model.language.layers[0].self_attn.get_submodule(f"{name}_proj").packed) for name in "qkv"]
    assert torch.equal(first.layers[0].qkv.dequantised(torch.float32)[rows[0] : rows[0] + rows[1]], before)


def test_weights_of_several_schemes_are_fused_as_what_they_stand_for():
    few = QuantisedLinear(quantised.Quantised(*quantise_two()), torch.float32)
    plain = torch.nn.Linear(32, 4, bias=False)
    fused = fuse([few, plain])
    assert torch.equal(fused, torch.cat([few.weight, plain.weight]))


def quantise_two():
    from alpamayo_r1.core.quantised import Scheme, quantise

    made = quantise(torch.randn(4, 32), Scheme("int8", 32))
    return made.scheme, made.codes, made.scale


def test_cuts_of_words_follow_no_number_of_rows(monkeypatch):
    """Equal parts of K, and tiles of the instruction that takes K as that of 16 rows does: those of 64 rows have another."""
    monkeypatch.setitem(quantised.CUTS, ("e4m3", False, 16, 4096, 4096), quantised.Cut(16, 32, 5, 4, 4, 0))
    for kind in ("e4m3", "int8", "int4"):
        for n, k in ((4096, 4096), (640, 2048)):
            cuts = [quantised.cut(kind, False, m, n, k, words=True) for m in (1, 16, 17, 64, 128)]
            assert len({cut.splits for cut in cuts}) == 1 and max(cut.rows for cut in cuts) == 32
    assert quantised.cut("e4m3", False, 100, 4096, 4096, words=True).splits == 5
    monkeypatch.setitem(quantised.CUTS, ("int8", False, 8, 640, 2048), quantised.Cut(8, 64, 3, 2, 6, 4, swap=True))
    turned = [quantised.cut("int8", False, m, 640, 2048, words=True) for m in (1, 9, 17, 128)]
    assert [cut.rows for cut in turned] == [8, 16, 32, 32] and all(cut.swap and cut.splits == 3 for cut in turned)
    assert not any(quantised.cut(*key[:3], *key[3:], words=True).in_order for key in quantised.CUTS if key[2] < 64)


def test_rows_in_8_bits_keep_their_largest_number():
    x = torch.tensor([[1.0, -3.5, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    made = eight.quantise_rows(x)
    assert (made.numbers() - x).abs().max() <= 3.5 * 2**-4
    assert made.codes[0, 1].float() == -448
    assert not made.codes[1].float().any()
