"""Intervals resample clips: rows of one clip are not independent."""

from __future__ import annotations

import numpy as np
import pytest

from alpamayo_r1.metrics.intervals import FEWEST, interval, intervals


def coverage(clips: int, rows: int, *, share: bool, aware: bool, trials: int = 300) -> float:
    """How often the interval holds the truth, of sets of clips whose rows differ little."""
    hits = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        clip = rng.normal(0, 1, (clips, 1)) + 0.3 * rng.normal(0, 1, (clips, rows))
        values = (clip > 0.5244 * np.sqrt(1.09)).astype(float) if share else clip
        names = np.repeat(np.arange(clips), rows) if aware else None
        found = interval(values.ravel(), clips=names, share=share, resamples=400, seed=trial)
        hits += found.low <= (0.3 if share else 0.0) <= found.high
    return hits / trials


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("clips", [12, 40])
def test_intervals_over_clips_hold_the_truth_as_often_as_they_say(share, clips):
    assert coverage(clips, 5, share=share, aware=True) >= 0.91
    assert coverage(clips, 5, share=share, aware=False) < 0.8, "rows taken for clips claim too much"


def test_rows_that_are_copies_say_no_more_than_one_of_each():
    values = np.random.default_rng(0).normal(0, 1, 30)
    one = interval(values)
    copied = interval(np.repeat(values, 5), clips=np.repeat(np.arange(30), 5))
    assert (copied.low, copied.high) == pytest.approx((one.low, one.high)) and (copied.count, copied.clips) == (150, 30)


def test_each_value_its_own_clip_is_the_default():
    values = np.random.default_rng(1).normal(0, 1, (25, 2))
    assert intervals(values) == intervals(values, clips=list(range(25)))


def test_few_clips_have_no_interval_however_many_rows():
    found = interval(np.arange(100.0), clips=np.repeat(np.arange(FEWEST - 1), 100)[:100])
    assert found.clips == 1 and np.isnan(found.low)
    names = np.arange(90) % (FEWEST - 1)
    assert np.isnan(interval(np.arange(90.0), clips=names).low)


def test_none_of_ten_clips_of_fifty_rows_is_not_never():
    found = interval(np.zeros(50), clips=np.repeat(np.arange(10), 5), share=True)
    assert found.low == 0 and 0.2 < found.high < 0.45


def test_a_clip_for_each_value_is_needed():
    with pytest.raises(ValueError, match="2 clips were given for 3 values"):
        interval(np.zeros(3), clips=[0, 1])
