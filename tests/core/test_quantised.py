"""Weights of few bits: exact packing, the nearest codes, and a model that computes with what they stand for."""

import pytest
import torch

from alpamayo_r1 import testing
from alpamayo_r1.core.checkpoint import load_model
from alpamayo_r1.core.precision import PRECISIONS, precision_named, scheme_bytes
from alpamayo_r1.core.quantised import QuantisedLinear, Scheme, pack_halves, quantise, quantised_by_rows, stacked, unpack_halves

pytestmark = pytest.mark.slow

SCHEMES = [Scheme("e4m3"), Scheme("int8", 128), Scheme("int8", 16), Scheme("int4", 128), Scheme("int4", 64), Scheme("int4", 32)]


def weight(rows: int = 24, columns: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_is_dequantised_and_quantised_again_stays_the_same(scheme):
    made = quantise(weight(), scheme).dequantised(torch.float32)
    again = quantise(made, scheme).dequantised(torch.float32)
    tolerance = 0.0 if scheme.kind != "int4" else 0.01  # a group of int4 that leaves an end code unused chooses anew
    assert (made - again).norm() <= tolerance * made.norm()


@pytest.mark.parametrize(("scheme", "most"), [(SCHEMES[0], 0.03), (SCHEMES[1], 0.01), (SCHEMES[3], 0.12), (SCHEMES[4], 0.105)], ids=str)
def test_errors_of_normal_weights_are_those_of_their_bits(scheme, most):
    given = weight(512)
    far = ((quantise(given, scheme).dequantised(torch.float32) - given).norm() / given.norm()).item()
    assert most / 2 < far < most


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_number_of_a_dequantised_weight_is_rounded_once(scheme):
    packed = quantise(weight(), scheme)
    assert torch.equal(packed.dequantised(torch.bfloat16), packed.dequantised(torch.float32).to(torch.bfloat16))
    assert torch.equal(packed.dequantised(torch.float16), packed.dequantised(torch.float32).to(torch.float16))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_rows_do_not_see_each_other(scheme, monkeypatch):
    whole, given = quantise(weight(), scheme), weight()
    monkeypatch.setattr("alpamayo_r1.core.quantised.ROWS_BYTES", 4 * 256 * 5)
    parts = quantised_by_rows(given, scheme)
    for one in (parts, stacked([whole.rows(0, 7), whole.rows(7, 24)])):
        assert torch.equal(one.dequantised(torch.float32), whole.dequantised(torch.float32))
        assert one.nbytes == whole.nbytes == scheme_bytes(scheme, (24, 256), torch.float32)


@pytest.mark.parametrize("block", [32, 64, 128])
def test_packed_halves_come_back(block):
    codes = torch.randint(0, 16, (3, 256), dtype=torch.uint8)
    assert torch.equal(unpack_halves(pack_halves(codes, block), block), codes)


def test_zeros_and_equal_numbers_have_codes():
    for scheme in SCHEMES:
        for value in (0.0, 1.0, -3.0):
            got = quantise(torch.full((2, 256), value), scheme).dequantised(torch.float32)
            assert (got - value).abs().max() <= 0.005 * abs(value), (scheme, value)


def test_groups_fit_the_columns():
    assert Scheme.fitting("int8", 8256) == Scheme("int8", 64)
    assert Scheme.fitting("int4", 192) == Scheme("int4", 64)
    assert Scheme.fitting("int4", 48) == Scheme("int8", 16), "too few columns to pack in halves"
    assert Scheme.fitting("int8", 40) is None
    assert Scheme.fitting("e4m3", 40) is None


def test_precisions_take_ever_fewer_bytes_and_leave_what_must_stay():
    shapes = {name: tuple(p.shape) for name, p in testing.build_meta(testing.size_config("10b")).named_parameters()}
    sizes = {}
    for name, precision in PRECISIONS.items():
        schemes = precision.schemes(shapes)
        sizes[name] = sum(scheme_bytes(schemes.get(key), shape, torch.bfloat16) for key, shape in shapes.items()) / 1e9
        assert not any("norm" in key or "embed" in key or "action" in key for key in schemes)
        assert any("merger" in key for key in schemes) == (name == "tight")
    assert sizes["bf16"] > sizes["w8"] > sizes["w4"] > sizes["tight"]
    assert sizes["fp8"] == pytest.approx(sizes["w8"], rel=0.02)
    assert sizes["w4"] < 9.3, "1.3 of them in the host's memory"
    assert sizes["tight"] < 7.6
    with pytest.raises(ValueError, match=r"precision is 'w3', expected one of bf16, fp8, w8, w4, tight, or auto"):
        precision_named("w3")


def test_a_checkpoint_becomes_few_bits_while_it_is_loaded(tmp_path, monkeypatch):
    folder = testing.tiny_checkpoint(tmp_path)
    whole = load_model(folder, dtype=torch.float32)
    monkeypatch.setattr("alpamayo_r1.core.checkpoint.CHUNK", 4096)  # many parts per weight
    few = load_model(folder, dtype=torch.float32, precision=PRECISIONS["tight"])
    schemes = PRECISIONS["tight"].schemes({name: tuple(p.shape) for name, p in whole.named_parameters()})
    assert schemes, "something is quantised"
    for name, tensor in whole.named_parameters():
        owner = few.get_submodule(name.rpartition(".")[0])
        assert (isinstance(owner, QuantisedLinear) and name.endswith(".weight")) == (name in schemes)
        if name in schemes:
            assert isinstance(owner, QuantisedLinear)
            assert torch.equal(owner.packed.dequantised(torch.float32), quantise(tensor, schemes[name]).dequantised(torch.float32))
            continue
        assert torch.equal(few.get_parameter(name), tensor)


def test_a_layer_of_few_bits_computes_with_what_they_stand_for():
    packed, bias, x = quantise(weight(), SCHEMES[3]), torch.randn(24), torch.randn(5, 256)
    layer = QuantisedLinear(packed, torch.float32, bias)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, packed.dequantised(torch.float32), bias))
