"""The path that a car can have driven through noisy positions: a Gaussian process of its motion, fitted to the whole log at once.

What a car does not do tells noise from motion: it moves along its own x axis (the orientation is another witness), its speed changes
smoothly, and its wheels count metres. At moments dt apart, with p the rear axle, s and a its speed and acceleration, b the receiver's slow
wander and R the given orientation:

    p' = p + R e_x (s + s') dt / 2 + N(0, slip^2 dt)          (s, a) is driven by white jerk of JERK^2 per second
    b' = exp(-dt / FORGETS) b + N(0, wander^2 dt)             measured: p + b + N(0, noise^2), and s + N(0, wheels^2)

The most likely path under all of these is one banded system of equations: the same as a Kalman filter with a Rauch-Tung-Striebel smoother.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alpamayo_r1.data.recording.fields import bad
from alpamayo_r1.data.recording.schema import Smoothing

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from scipy.spatial.transform import Rotation

JERK = 0.5
"""m/s^3 per root hertz: how fast an acceleration changes."""

FORGETS = 20.0
"""Seconds in which a wander is forgotten: over longer times the positions are right."""

SLIP = 0.1
"""The car leaves its own x axis by this share of the positions' wander."""

LEAST = 2e-4
"""Metres (and metres per root second) of noise at least: no log is better."""

WHEELS = 0.01
"""m/s of noise of the wheels' speed at least."""

STANDS, SURE, HOLDS = 0.05, 0.001, 0.01
"""m/s that a car has at most which counts as standing, the m/s to which it then is known, and the share of SLIP that is left."""

FINEST = 0.04
"""Seconds between two moments of the fit at least; poses that are closer are averaged."""

TYRES, FAR, FIRST = 0.1, 20.0, 3.0
"""Share by which wheels may be off, metres from which on that is told, and m/s^2 that a log may begin with."""

STATES = 8


@dataclass(frozen=True)
class Noise:
    """white: metres of a position, each its own; wander: metres per root second of an error that walks."""

    white: float
    wander: float


@dataclass(frozen=True)
class Effect:
    """What smoothing did. noise: as given or estimated, None of parabolas. moved, most: metres, root mean square and at most; when: the
    moment of the most, s after the first pose.
    """

    noise: Noise | None
    moved: float
    most: float
    when: float


def noise_of(t: np.ndarray, xyz: np.ndarray, turn: Rotation) -> Noise:
    """The noise of positions [T, 3] of the rear axle, by how they move to the car's side, as no car does.

    Over a time L the sideways motion of noise has the variance 2 white^2 + wander^2 L: two times give both.
    """
    aside = _sideways(t, xyz, turn)
    step = float(np.median(np.diff(t)))

    def spread(lag: float) -> tuple[float, float]:
        """The time between rows about `lag` apart, and the variance of the motion to the side in it."""
        rows = min(max(1, round(lag / step)), len(t) - 1)
        moved = aside[rows:] - aside[:-rows]
        return rows * step, float((1.4826 * np.median(np.abs(moved - np.median(moved)))) ** 2)

    (lag, small), (wide, large) = spread(FINEST), spread(1.0)
    wander = max(large - small, 0.0) / max(wide - lag, 1e-9)
    white = max(small - wander * lag, 0.0) / 2
    return Noise(max(float(np.sqrt(white)), LEAST), max(float(np.sqrt(wander)), LEAST))


def _sideways(t: np.ndarray, xyz: np.ndarray, turn: Rotation) -> np.ndarray:
    """How far the car has moved to its left up to each moment [T], the mean angle between path and x axis taken off."""
    from scipy.spatial.transform import Slerp

    own = Slerp(t, turn)((t[1:] + t[:-1]) / 2).inv().apply(np.diff(xyz, axis=0))
    angle = own[:, 1].sum() / own[:, 0].sum() if abs(own[:, 0].sum()) > FAR else 0.0
    return np.concatenate([[0.0], np.cumsum(own[:, 1] - angle * own[:, 0])])


def smoothed(t: np.ndarray, xyz: np.ndarray, turn: Rotation, speed: np.ndarray | None, how: Smoothing) -> tuple[np.ndarray, Effect]:
    """Positions [T, 3] of the rear axle at times t [T] (s) as a car can have driven them, and what that changes.

    turn: the car's orientations. speed: of the wheels, m/s [T], or None.

    Raises:
        BadRecording: a position would move farther than `how` allows.
    """
    noise = None
    if how.seconds:
        found = parabolas(t, xyz, how.seconds)
    else:
        guess = noise_of(t, xyz, turn)
        noise = Noise(how.noise or guess.white, how.wander or guess.wander)
        found = likeliest(t, xyz, turn, speed, noise)
    off = np.linalg.norm(found - xyz, axis=1)
    effect = Effect(noise, float(np.sqrt((off**2).mean())), float(off.max()), float(t[np.argmax(off)] - t[0]))
    if effect.most > how.most:
        raise bad(
            f"poses.smooth would move a position by {effect.most:.2f} m, {effect.when:.2f} s after the first pose",
            f"at most poses.smooth.most ({how.most:g} m)",
            "the positions jump, or they contradict the orientation or the wheels: run `alpamayo-r1 inspect`, or raise `most`",
        )
    return found, effect


def parabolas(t: np.ndarray, xyz: np.ndarray, seconds: float) -> np.ndarray:
    """Positions [T, 3] after a local fit of parabolas over so many seconds (Savitzky-Golay): of positions alone. Raises BadRecording."""
    from scipy.signal import savgol_filter

    t = t - t[0]
    step = min(max(float(np.median(np.diff(t))), 0.005), 0.1)
    even = np.arange(0, t[-1] + step, step)
    window = 2 * round(seconds / step / 2) + 1
    if window < 5 or window > len(even):
        raise bad(
            f"poses.smooth is {seconds:g} s over poses every {step:.3g} s", "at least 4 poses, and less than the log", "choose another"
        )
    values: Any = np.stack([np.interp(even, t, xyz[:, i]) for i in range(3)], -1)
    fitted = np.asarray(savgol_filter(values, window, 2, axis=0))
    return np.stack([np.interp(t, even, fitted[:, i]) for i in range(3)], -1)


def likeliest(t: np.ndarray, xyz: np.ndarray, turn: Rotation, speed: np.ndarray | None, noise: Noise) -> np.ndarray:
    """Positions [T, 3] of the rear axle by the module's model of a car."""
    from scipy.interpolate import CubicSpline
    from scipy.spatial.transform import Slerp

    close = float(np.median(np.diff(t))) < FINEST
    bins = np.unique(np.floor((t - t[0]) / FINEST), return_inverse=True)[1] if close else np.arange(len(t))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(bins, values) / np.bincount(bins)

    at, measured = mean(t), np.stack([mean(xyz[:, i]) for i in range(3)], -1)
    ahead = Slerp(t, turn)((at[1:] + at[:-1]) / 2).as_matrix()[:, :, 0]
    wheels = None if speed is None else _scaled(at, measured, ahead, mean(speed), noise)
    fitted = _fitted(at, measured, ahead, wheels, noise)
    found = CubicSpline(at, fitted)(t) if close else fitted
    return _held(found, _stands(at, measured, ahead, wheels, noise)[bins])


def _held(xyz: np.ndarray, still: np.ndarray) -> np.ndarray:
    """Positions [T, 3], of every stretch that stands their mean: what is left of noise there would look like a start."""
    run = np.cumsum(np.diff(still, prepend=still[:1]) != 0)
    count = np.bincount(run)
    mean = np.stack([np.bincount(run, xyz[:, i]) / count for i in range(3)], -1)
    return np.where(still[:, None], mean[run], xyz)


def _scaled(t: np.ndarray, xyz: np.ndarray, ahead: np.ndarray, speed: np.ndarray, noise: Noise) -> np.ndarray | None:
    """The wheels' speed freed of the constant factor that the positions show beyond doubt; None where it is over TYRES: they contradict
    each other. ahead: x axes [T - 1, 3].
    """
    by_place = float((ahead * np.diff(xyz, axis=0)).sum())
    by_wheels = float(((speed[1:] + speed[:-1]) / 2 * np.diff(t)).sum())
    if abs(by_wheels) < FAR:
        return speed
    factor = by_place / by_wheels
    doubt = 3 * float(np.hypot(noise.wander * np.sqrt(min(t[-1] - t[0], FORGETS)), 2 * noise.white)) / abs(by_wheels)
    if abs(factor - 1) < doubt:
        return speed
    return speed * factor if abs(factor - 1) < TYRES else None


def _stands(t: np.ndarray, xyz: np.ndarray, ahead: np.ndarray, wheels: np.ndarray | None, noise: Noise) -> np.ndarray:
    """Whether the car stands at each moment [T]: by its wheels, or by how little its positions move along its x axis in 1 s."""
    if wheels is not None:
        return np.abs(wheels) < STANDS
    way = np.concatenate([[0.0], np.cumsum((ahead * np.diff(xyz, axis=0)).sum(1))])
    before, after = np.maximum(t - 0.5, t[0]), np.minimum(t + 0.5, t[-1])
    moved = np.abs(np.interp(after, t, way) - np.interp(before, t, way))
    return moved < np.minimum(2 * np.hypot(noise.wander, 1.4 * noise.white), 2 * STANDS) * (after - before)


def _fitted(t: np.ndarray, measured: np.ndarray, ahead: np.ndarray, wheels: np.ndarray | None, noise: Noise) -> np.ndarray:
    """The most likely p [T, 3]; ahead: the car's x axis between the moments [T - 1, 3]."""
    from scipy.linalg import solveh_banded

    design, target = _equations(t, measured, ahead, wheels, noise)
    normal = (design.T @ design).tocsr()
    width = 2 * STATES
    banded = np.zeros((width, normal.shape[0]))
    for below in range(width):
        banded[below, : normal.shape[0] - below] = normal.diagonal(-below)
    solved = solveh_banded(banded, design.T @ target, lower=True, overwrite_ab=True, check_finite=False)
    return solved.reshape(-1, STATES)[:, :3]


def _equations(
    t: np.ndarray, measured: np.ndarray, ahead: np.ndarray, wheels: np.ndarray | None, noise: Noise
) -> tuple[csr_matrix, np.ndarray]:
    """Rows of design x = target, each divided by its standard deviation; x: the states p (3), s, a, b (3) of every moment in turn."""
    from scipy.sparse import csr_matrix

    count, dt = len(t), np.diff(t)
    P, S, A, B = 0, 3, 4, 5
    this = STATES * np.arange(count)
    here, there = this[:-1], this[1:]
    rows, columns, values, targets = list[np.ndarray](), list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    begun = 0

    def say(sigma: np.ndarray | float, target: np.ndarray | float, *terms: tuple[np.ndarray, np.ndarray | float]) -> None:
        """Equations sum(value x[column]) = target, one per entry of the columns."""
        nonlocal begun
        number = len(terms[0][0])
        for column, value in terms:
            rows.append(begun + np.arange(number))
            columns.append(column)
            values.append(np.broadcast_to(value / sigma, number))
        targets.append(np.broadcast_to(target / sigma, number))
        begun += number

    root, still = np.sqrt(dt), _stands(t, measured, ahead, wheels, noise)
    slip = SLIP * noise.wander * root * np.where(still[1:] & still[:-1], HOLDS, 1.0)
    fades = np.exp(-dt / FORGETS)
    for i in range(3):
        half = -ahead[:, i] * dt / 2
        say(slip, 0.0, (there + P + i, 1.0), (here + P + i, -1.0), (here + S, half), (there + S, half))
        say(noise.wander * root, 0.0, (there + B + i, 1.0), (here + B + i, -fades))
        say(noise.white, measured[:, i], (this + P + i, 1.0), (this + B + i, 1.0))
        say(noise.wander * np.sqrt(FORGETS / 2), 0.0, (this[:1] + B + i, 1.0))
    # white jerk: s' - s - a dt and a' - a have the covariance JERK^2 (dt^3 / 3, dt^2 / 2; dt^2 / 2, dt), here by its Cholesky factor
    say(JERK * root * dt / np.sqrt(3), 0.0, (there + S, 1.0), (here + S, -1.0), (here + A, -dt))
    say(JERK * root / 2, 0.0, (there + A, 1.0), (here + A, 0.5), (there + S, -1.5 / dt), (here + S, 1.5 / dt))
    say(FIRST, 0.0, (this[:1] + A, 1.0))
    if wheels is not None:
        say(max(float(np.median(np.abs(np.diff(wheels, 2)))) / 1.65, WHEELS), wheels, (this + S, 1.0))
    say(SURE, 0.0, (this[still] + S, 1.0))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return csr_matrix(entries, shape=(begun, STATES * count)), np.concatenate(targets)
