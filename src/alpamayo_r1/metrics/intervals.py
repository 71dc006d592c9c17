"""How sure a mean is: 95 % intervals by resampling clips."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

RESAMPLES = 2000

FEWEST = 10
"""Below so many clips there is no interval: nobody knows the tail of a set of five."""

_Z = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A mean over `count` values of `clips` clips, its 95 % interval (NaN below FEWEST clips), and how many values were masked."""

    mean: float
    low: float
    high: float
    count: int
    masked: int
    clips: int


def intervals(
    values: np.ndarray,
    *,
    clips: Sequence[object] | None = None,
    shares: Sequence[bool] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """One interval for each column of values f64[n, k]; NaN values are masked and counted. The same input gives the same output.

    clips: the clip of each of the n values (None: each is one of its own). Values of one clip are not independent, so clips are resampled,
    whole, and errors are those of sums over clips:

        error^2 = C / (C - 1) sum_c (sum_c - mean n_c)^2 / (sum_c n_c)^2

    Bootstrap-t: each resample's mean is measured in its own standard errors, and the quantiles of that are laid around the mean; unlike
    plain percentiles it covers small and skewed sets. A resample without spread, common where few values deviate, is measured in the set's
    own standard errors. Columns of `shares` bool[k], values of 0 to 1, get Wilson's interval, which stays wider than zero even for 0 of 50;
    a share counts for as many independent clips of 0 or 1 as would vary as little.

    Raises:
        ValueError: not one clip for each value.
    """
    values = np.asarray(values, np.float64)
    if clips is not None and len(clips) != len(values):
        raise ValueError(f"{len(clips)} clips were given for {len(values)} values, expected one for each")
    known = np.isfinite(values)
    count = known.sum(0)
    places = {clip: place for place, clip in enumerate(dict.fromkeys(clips))} if clips is not None else {}
    group = np.arange(len(values)) if clips is None else np.array([places[clip] for clip in clips], dtype=np.int64)
    size = int(group.max()) + 1 if len(values) else 0
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        mean = np.where(known, values, 0.0).sum(0) / count
        sums, counts = np.zeros((size, values.shape[1])), np.zeros((size, values.shape[1]))
        np.add.at(sums, group, np.where(known, values - mean, 0.0))
        np.add.at(counts, group, known)
        seen = (counts > 0).sum(0)
        square = (sums**2).sum(0) / count**2
        error = _error(mean, square, seen)
        ratio = _studentised(sums, counts, error, resamples, seed)
        low, high = mean - error * np.nanquantile(ratio, [0.975, 0.025], axis=0) if size > 1 else np.full((2, len(mean)), np.nan)
        share = np.zeros(len(mean), bool) if shares is None else np.asarray(shares)
        worth = np.where(error > 0, mean * (1 - mean) / (error**2 * (seen - 1)), 1.0) * seen
        worth *= (stdtrit(np.maximum(count - 1, 1), 0.975) / stdtrit(np.maximum(seen - 1, 1), 0.975)) ** 2
        low, high = np.where(share, _wilson(mean, np.maximum(worth, 1.0)), [low, high])
    constant = (error == 0) & ~share
    low, high = (np.where(seen < FEWEST, np.nan, np.where(constant, mean, bound)) for bound in (low, high))
    masked = len(values) - count
    found = zip(mean, low, high, count, masked, seen)
    return [Interval(float(middle), float(a), float(b), int(n), int(m), int(c)) for middle, a, b, n, m, c in found]


def interval(
    values: np.ndarray, *, clips: Sequence[object] | None = None, share: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The interval of one set f64[n]; see `intervals`."""
    column = np.asarray(values, np.float64)[:, None]
    return intervals(column, clips=clips, shares=[share], resamples=resamples, seed=seed)[0]


def _studentised(sums: np.ndarray, counts: np.ndarray, error: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """f64[resamples, k]: each resample's mean in its own standard errors, or in the set's where it has no spread.

    sums, counts f64[clips, k]: of the centred values of each clip.
    """
    size = len(sums)
    drawn = np.random.default_rng(seed).integers(0, max(size, 1), (resamples, size))
    weight = np.bincount((drawn + size * np.arange(resamples)[:, None]).ravel(), minlength=resamples * size).reshape(resamples, size)
    weight = weight.astype(np.float64)
    count = weight @ counts
    mean = weight @ sums / count
    square = weight @ sums**2 - 2 * mean * (weight @ (sums * counts)) + mean**2 * (weight @ counts**2)
    own = _error(mean, np.maximum(square, 0.0) / count**2, weight @ (counts > 0))
    return mean / np.where(own > 1e-6 * error, own, error)


def _error(mean: np.ndarray, square: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Standard error of a mean from the summed squares of its clips' deviations; differences below rounding count as none."""
    return np.sqrt(np.where(square * clips > 1e-20 * (1 + mean**2), square * clips / (clips - 1), 0.0))


def _wilson(mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[low, high] f64[2, k] for shares; rounding never puts the mean outside."""
    middle = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * np.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    return np.stack([np.minimum(middle - reach, mean), np.maximum(middle + reach, mean)]).clip(0, 1)
