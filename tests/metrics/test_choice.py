"""Which sample is shown boldly: the best by the truth, or the first; and how that is said."""

import torch

from alpamayo_r1.metrics.choice import Choice, choose_sample

PATHS = torch.stack([torch.full((64, 3), float(aside)) for aside in (3, 1, 2)])


def test_the_sample_nearest_to_the_truth_is_chosen():
    assert choose_sample(PATHS, torch.zeros(64, 3)) == Choice(1, "truth")
    assert choose_sample(PATHS, torch.full((64, 3), 2.2)) == Choice(2, "truth")


def test_without_a_truth_the_first_sample_is_chosen():
    assert choose_sample(PATHS, None) == Choice(0, "first") == choose_sample(PATHS, torch.full((64, 3), torch.nan))


def test_one_sample_needs_no_choice():
    assert choose_sample(PATHS[:1], torch.zeros(64, 3)) == Choice(0, "only") == choose_sample(PATHS[:1], None)


def test_a_broken_sample_is_not_the_best():
    broken = PATHS.clone()
    broken[1] = torch.nan
    assert choose_sample(broken, torch.zeros(64, 3)) == Choice(2, "truth")
