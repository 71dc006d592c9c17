"""Drawing tokens: distribution, cut-offs, independence of samples."""

from __future__ import annotations

import pytest
import torch

from alpamayo_r1.core.options import PlanOptions, Sampling
from alpamayo_r1.core.sampling import draw, running_sum, sample_token


def how(temperature=PlanOptions.temperature, top_p=PlanOptions.top_p, top_k=None) -> Sampling:
    return Sampling(temperature, top_p, top_k)


def frequencies(logits: torch.Tensor, config: Sampling, draws: int = 40_000) -> torch.Tensor:
    uniform = torch.rand(draws, generator=torch.Generator().manual_seed(0))
    ids = sample_token(logits.expand(draws, -1), uniform, config)
    return torch.bincount(ids, minlength=len(logits)) / draws


def test_frequencies_are_the_tempered_softmax():
    logits = torch.tensor([1.0, -0.5, 2.0, 0.3])
    wanted = (logits / 0.6).softmax(-1)
    torch.testing.assert_close(frequencies(logits, how(0.6, 1.0)), wanted, atol=0.01, rtol=0)


@pytest.mark.slow
def test_top_p_keeps_the_smallest_set_that_reaches_the_mass():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    kept = frequencies(probabilities.log(), how(1.0, 0.81))
    torch.testing.assert_close(kept, torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95, atol=0.01, rtol=0)
    assert frequencies(probabilities.log(), how(1.0, 0.1))[0] == 1


def test_top_k_and_greedy():
    logits = torch.tensor([1.0, 3.0, 2.0, 0.0])
    assert (frequencies(logits, how(1.0, 1.0, top_k=2)) > 0).tolist() == [False, True, True, False]
    assert sample_token(logits[None], torch.tensor([0.999]), how(top_k=1)).item() == 1
    assert sample_token(logits[None], torch.tensor([0.999]), how(temperature=0)).item() == 1


def test_masked_tokens_are_never_drawn():
    logits = torch.tensor([0.0, -torch.inf, 0.0])
    assert frequencies(logits, how(1.0, 1.0))[1] == 0


def test_a_sample_is_the_same_whatever_their_number():
    few, many = draw(7, 2, 64, 16), draw(7, 5, 64, 16)
    assert torch.equal(few.noise, many.noise[:2]) and torch.equal(few.uniform, many.uniform[:2])
    assert not torch.equal(many.noise[0], many.noise[1])
    assert not torch.equal(draw(8, 1, 64, 16).noise, few.noise[:1])


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.2}, {"top_k": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        how(**bad)


@pytest.mark.parametrize("size", [5, 1023, 1024, 1025, 5000])
def test_sums_by_blocks_are_the_plain_ones(size):
    x = torch.rand(3, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    total = running_sum(x)
    torch.testing.assert_close(total, x.cumsum(-1), atol=0, rtol=1e-12)
    assert (total[:, 1:] >= total[:, :-1]).all()


def test_a_large_vocabulary_is_drawn_from_to_its_end():
    """Even logits over several blocks: the uniform number picks its place among the kept half, in order."""
    logits, uniform = torch.zeros(4, 4096), torch.tensor([0.0, 0.25, 0.5, 0.999])
    assert sample_token(logits, uniform, how(1.0, 0.5)).tolist() == [0, 512, 1024, 2045]
    assert sample_token(logits, uniform, how(1.0, 1.0)).tolist() == [0, 1024, 2048, 4091]


def test_a_swap_of_two_likely_tokens_hardly_moves_a_draw():
    """Rounding decides which of two about equally likely tokens stands first; their shares of the unit interval must not trade places."""
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    first, second = torch.tensor([2.0, 5.001, 0.0, 5.0]), torch.tensor([2.0, 5.0, 0.0, 5.001])
    one, other = (sample_token(logits.expand(len(uniform), -1), uniform, how()) for logits in (first, second))
    assert 0 < (one != other).float().mean() < 2e-3


EDGES = torch.tensor([0.0, 0.3, 1 - 2**-24])
"""Draws at both ends of the unit interval, and one between."""


def test_masked_tokens_at_either_end_are_never_drawn():
    """Over several blocks of sums, most of them masked altogether."""
    logits = torch.full((len(EDGES), 5000), -torch.inf)
    logits[:, 1500], logits[:, 3500] = 1.0, 1.1
    assert sample_token(logits, EDGES, how()).tolist() == [1500, 1500, 3500]


@pytest.mark.parametrize("top_p", [0.98, 1.0])
def test_more_than_the_vocabulary_may_be_kept(top_p):
    logits = torch.tensor([2.0, 2.0, 2.0]).expand(len(EDGES), -1)
    assert sample_token(logits, EDGES, how(top_p=top_p, top_k=9)).tolist() == [0, 0, 2]


def test_a_tiny_temperature_draws_between_equal_logits():
    """Logits over the temperature overflow fp32; their differences do not."""
    logits = torch.tensor([40.0, 40.0, 0.0]).expand(len(EDGES), -1)
    assert sample_token(logits, EDGES, how(1e-38)).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("logits", "temperature", "wanted"),
    [
        ([0.0, 20.0, 40.0, -torch.inf], 1e-38, 2),  # logits over the temperature overflow
        ([0.0, 1.0, torch.inf, -torch.inf], 0.6, 2),
        ([0.0, torch.nan, 1.0, 2.0], 0.6, 1),
        ([-torch.inf, -torch.inf, -torch.inf, -torch.inf], 0.6, 0),
    ],
)
def test_what_cannot_be_drawn_from_gives_the_largest(logits, temperature, wanted):
    """An id of the vocabulary whatever the logits: one beyond it would end a GPU's context."""
    assert sample_token(torch.tensor([logits] * 3), EDGES, how(temperature)).tolist() == [wanted] * 3
