"""Products on a CPU from weights in blocks: the same as row by row, whatever becomes of the weights."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as nnf

from alpamayo_r1.engine.ops import blocks

KNOWN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
pytestmark = pytest.mark.skipif(not KNOWN, reason="this PyTorch has no oneDNN")


@pytest.fixture
def weight():
    made = torch.randn(48, 32, generator=torch.Generator().manual_seed(0))
    blocks.keep_blocks([made])
    return made


@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("shape", [(1, 32), (8, 32), (3, 70, 32)])
def test_a_product_is_the_same_in_blocks(weight, shape, gelu):
    assert id(weight) in blocks._kept
    x, bias = torch.randn(shape, generator=torch.Generator().manual_seed(1)), torch.arange(48.0) / 48
    want = nnf.linear(x, weight, bias)
    want = want if gelu is None else nnf.gelu(want, approximate=gelu)
    torch.testing.assert_close(blocks.product(x, weight, bias, gelu), want, atol=2e-5, rtol=0)


def test_a_weight_that_was_written_to_is_put_in_blocks_again(weight):
    x = torch.eye(32)
    assert torch.equal(blocks.product(x, weight), weight.T)
    weight.mul_(2)
    assert torch.equal(blocks.product(x, weight), weight.T)


def test_blocks_go_with_their_weight():
    weight = torch.ones(8, 8)
    number = id(weight)
    blocks.keep_blocks([weight])
    assert number in blocks._kept
    del weight
    gc.collect()
    assert number not in blocks._kept


def test_views_of_one_weight_share_their_blocks(weight):
    again = weight.view(48, 32)
    blocks.keep_blocks([again])
    assert blocks._kept[id(again)] is blocks._kept[id(weight)]
    x = torch.eye(32)
    blocks.product(x, again)
    weight.add_(1)
    assert torch.equal(blocks.product(x, again), weight.T)


def test_a_large_model_stays_as_it_is(monkeypatch):
    weights = [torch.ones(8, 8), torch.ones(8, 8, device="meta")]
    monkeypatch.setattr(blocks, "MOST_BYTES", 8 * 8 * 4)
    blocks.keep_blocks(weights)
    assert id(weights[0]) not in blocks._kept
