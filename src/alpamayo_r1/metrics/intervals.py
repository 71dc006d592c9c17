"""How sure a mean is: 95 % intervals by resampling clips."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000

FEWEST = 10
"""Below so many values there is no interval: nobody knows the tail of a set of five."""

_Z = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """A mean over `count` values, its 95 % interval (NaN below FEWEST values), and how many values were masked."""

    mean: float
    low: float
    high: float
    count: int
    masked: int


def intervals(values: np.ndarray, *, shares: Sequence[bool] | None = None, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """One interval for each column of values f64[n clips, k]; NaN values are masked and counted. The same input gives the same output.

    Bootstrap-t: clips are drawn with replacement, each resample's mean is measured in its own standard errors, and the quantiles of that
    are laid around the mean; unlike plain percentiles it covers small and skewed sets. A resample without spread, common where few values
    deviate, is measured in the set's own standard errors. Columns of `shares` bool[k], values of 0 to 1, get Wilson's interval, which also
    knows that none of 50 isn't never; a share of several samples counts for as many clips of 0 or 1 as would vary as little.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    count = known.sum(0)
    filled = np.where(known, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")
        mean = filled.sum(0) / count
        centred = np.where(known, filled - mean, 0.0)
        variance = (centred**2).sum(0) / count
        error = _error(mean, variance, count)
        ratio = _studentised(centred, known, error, resamples, seed)
        low, high = mean - error * np.nanquantile(ratio, [0.975, 0.025], axis=0) if len(values) > 1 else np.full((2, len(mean)), np.nan)
        share = np.zeros(len(mean), bool) if shares is None else np.asarray(shares)
        certain = np.where(error > 0, mean * (1 - mean) / variance, 1.0)
        low, high = np.where(share, _wilson(mean, count * np.maximum(certain, 1.0)), [low, high])
    constant = (error == 0) & ~share
    low, high = (np.where(count < FEWEST, np.nan, np.where(constant, mean, bound)) for bound in (low, high))
    masked = len(values) - count
    return [Interval(*map(float, three), int(n), int(m)) for *three, n, m in zip(mean, low, high, count, masked)]


def interval(values: np.ndarray, *, share: bool = False, **options) -> Interval:
    """The interval of one set f64[n]; see `intervals`."""
    return intervals(np.asarray(values, np.float64)[:, None], shares=[share], **options)[0]


def _studentised(centred: np.ndarray, known: np.ndarray, error: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """f64[resamples, k]: each resample's mean of the centred values in its own standard errors, or in the set's where it has no spread."""
    size = len(centred)
    drawn = np.random.default_rng(seed).integers(0, size, (resamples, size))
    weight = np.bincount((drawn + size * np.arange(resamples)[:, None]).ravel(), minlength=resamples * size).reshape(resamples, size)
    weight = weight.astype(np.float64)
    count = weight @ known
    mean = weight @ centred / count
    own = _error(mean, np.maximum(weight @ centred**2 / count - mean**2, 0.0), count)
    return mean / np.where(own > 1e-6 * error, own, error)


def _error(mean: np.ndarray, variance: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Standard error of a mean from the variance of its values about it; differences below rounding count as none."""
    return np.sqrt(np.where(variance > 1e-20 * (1 + mean**2), variance, 0.0) / (count - 1))


def _wilson(mean: np.ndarray, count: np.ndarray) -> np.ndarray:
    """[low, high] f64[2, k] for shares; rounding never puts the mean outside."""
    middle = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * np.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    return np.stack([np.minimum(middle - reach, mean), np.maximum(middle + reach, mean)]).clip(0, 1)
