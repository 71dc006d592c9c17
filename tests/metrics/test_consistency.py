"""Does the path do what the words say: the world's labels as oracle, hand-made paths, free text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alpamayo_r1.core.geometry import rot_z
from alpamayo_r1.core.types import H, Trajectory
from alpamayo_r1.metrics.consistency import INTENTS, RULES, motion_of, parse, verdict
from alpamayo_r1.metrics.intervals import FEWEST, interval, intervals
from alpamayo_r1.world.families import T0_STEP
from alpamayo_r1.world.language import TEXTS, classify, directive_text, labels, opposite
from alpamayo_r1.world.samples import paths
from alpamayo_r1.world.simulate import simulate

SEEDS = range(860_000, 861_000)


@pytest.fixture(scope="module")
def world():
    """A thousand scenes with their labels, paths, and a sentence that says the opposite."""
    scene = simulate(SEEDS, seconds=5.2)
    told = labels(scene, T0_STEP)
    swapped = [directive_text(opposite(label), scene, row) for row, label in enumerate(told)]
    return told, paths(scene, torch.full((len(told),), T0_STEP)), swapped


def verdicts(texts, at):
    histories = [Trajectory(xyz, rot) for xyz, rot in zip(at.history_xyz, at.history_rot)]
    return [verdict(text, xyz, history) for text, xyz, history in zip(texts, at.future_xyz, histories)]


def test_every_sentence_of_the_world_is_understood():
    assert {text: parse(text) for text in TEXTS} == {text: (classify(text)[0],) for text in TEXTS}


def test_agreement_with_the_labels(world):
    told, at, _ = world
    agreed = [v == "consistent" for v in verdicts([label.text for label in told], at)]
    assert np.mean(agreed) >= 0.97
    for decision in {label.decision for label in told}:
        assert np.mean([a for a, label in zip(agreed, told) if label.decision == decision]) >= 0.8, decision


def test_swapped_reasoning_is_flagged(world):
    told, at, swapped = world
    flagged = [v == "inconsistent" for v in verdicts(swapped, at)]
    assert np.mean(flagged) >= 0.9
    for decision in {label.decision for label in told}:
        assert np.mean([f for f, label in zip(flagged, told) if label.decision == decision]) >= 0.7, decision


@pytest.mark.parametrize(
    ("text", "intents"),
    [
        ("Nudge to the left to increase clearance from the construction cones encroaching into the lane", ("nudge_left",)),
        ("Decelerate gradually because the lead vehicle is braking for a red light", ("slow_down",)),
        ("Slow to a stop behind the stopped truck", ("stop",)),
        ("Slow down for the stop sign ahead", ("slow_down",)),
        ("Maintain a safe following distance from the slow-moving vehicle", ("keep_distance",)),
        ("Yield to the cyclist turning left from the right-hand road", ("yield",)),
        ("Keep lane and accelerate gently, since the truck on the left has passed", ("accelerate",)),
        ("Shift slightly right and reduce speed due to the parked cars on the left", ("slow_down", "nudge_right")),
        ("Turn left at the intersection as the light is green", ("turn_left",)),
        ("Change lanes to the right", ("nudge_right",)),
        ("Remain stopped while pedestrians cross from the left", ("remain_stopped",)),
        ("Resume driving, the vehicle ahead pulled away to the left", ("start",)),
        ("Continue straight through the green light", ("keep_speed",)),
        ("The sky is blue", ()),
        ("", ()),
    ],
)
def test_free_text(text, intents):
    assert parse(text) == intents


def driven(speed, turn_rate=None, side=0.0):
    """History [16] and path [64]: speed f(t) m/s, turn rate f(t) rad/s, and a sidestep of `side` metres between 0.5 and 2.7 s."""
    t = torch.arange(-15, 65, dtype=torch.float64) * 0.1
    v = torch.as_tensor([float(speed(x)) for x in t], dtype=torch.float64)
    rate = torch.as_tensor([float(turn_rate(x)) if turn_rate else 0.0 for x in t], dtype=torch.float64)
    phase = ((t - 1.6) / 1.1).clamp(-1, 1)
    yaw = (rate * 0.1).cumsum(0) + side / (v.clamp_min(1) * 1.1) * (torch.pi / 2 * phase).cos().square()
    yaw = yaw - yaw[15]
    step = torch.stack([v * yaw.cos(), v * yaw.sin(), 0 * v], -1) * 0.1
    xyz = step.cumsum(0)
    xyz = (xyz - xyz[15]).float()
    return Trajectory(xyz[:16], rot_z(yaw[:16]).float()), xyz[16:]


def still(t):
    return 0.0


def steady(t):
    return 10.0


def braking(t):
    return 10 - 3 * min(max(t, 0), 10 / 3)


def leaving(t):
    return 1.5 * max(t - 0.2, 0)


def gaining(t):
    return 8 + 0.5 * max(t, 0)


def easing(t):
    return 10 - 0.5 * max(t, 0)


@pytest.mark.parametrize(
    ("speed", "does", "does_not"),
    [
        (still, ("remain_stopped", "stop", "yield"), ("start", "accelerate")),
        (steady, ("keep_speed", "keep_distance"), ("stop", "slow_down", "accelerate", "yield", "remain_stopped", "start")),
        (braking, ("stop", "slow_down", "yield"), ("keep_speed", "accelerate", "start", "keep_distance")),
        (leaving, ("start", "accelerate"), ("remain_stopped", "stop", "keep_speed", "slow_down")),
        (gaining, ("accelerate",), ("keep_speed", "stop", "slow_down", "yield")),
        (easing, ("slow_down", "yield", "keep_distance"), ("keep_speed", "accelerate")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_speed_rules(speed, does, does_not):
    history, xyz = driven(speed)
    motion = motion_of(xyz, history)
    found = {name: RULES[name](motion) for name in (*does, *does_not)}
    assert found == dict.fromkeys(does, "consistent") | dict.fromkeys(does_not, "inconsistent")


@pytest.mark.parametrize("rate", [0.0, 0.05, -0.08])
@pytest.mark.parametrize("side", [1.2, -1.2, 0.0])
def test_a_sidestep_is_told_from_a_bend(rate, side):
    history, xyz = driven(steady, lambda t: rate, side)
    assert motion_of(xyz, history).sidestep == pytest.approx(side, abs=0.15)
    left, right = (verdict(f"Nudge to the {way}", xyz, history) for way in ("left", "right"))
    assert (left, right) == {1.2: ("consistent", "inconsistent"), -1.2: ("inconsistent", "consistent"), 0.0: ("unclear", "unclear")}[side]


def test_turns_and_two_intents():
    history, xyz = driven(lambda t: 6.0, lambda t: 0.3 if t > 1 else 0.0)
    assert verdict("Turn left", xyz, history) == "consistent" and verdict("Turn right", xyz, history) == "inconsistent"
    history, xyz = driven(easing, side=1.2)
    assert verdict("Slow down and nudge left", xyz, history) == "consistent"
    assert verdict("Slow down and nudge right", xyz, history) == "inconsistent"
    assert verdict("Accelerate and nudge left", xyz, history) == "inconsistent"


def test_what_cannot_be_judged_is_unclear():
    history, xyz = driven(steady)
    assert verdict("", xyz, history) == verdict("Bananas", xyz, history) == "unclear"
    assert verdict("Keep speed", xyz * torch.nan, history) == "unclear"
    assert set(RULES) == set(INTENTS)


# ---------------------------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng, shape: rng.normal(3, 2, shape), 3.0),
        (lambda rng, shape: rng.exponential(1, shape), 1.0),
        (lambda rng, shape: (rng.random(shape) < 0.25).astype(float), 0.25),
        (lambda rng, shape: np.where(rng.random(shape) < 0.1, np.nan, rng.normal(0, 1, shape)), 0.0),
    ],
    ids=["normal", "skewed", "share", "masked"],
)
def test_intervals_cover_the_truth(draw, truth):
    sets = draw(np.random.default_rng(3), (150, 2000))
    found = intervals(sets, shares=[truth == 0.25] * 2000, resamples=1000)
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in found]) <= 0.97


@pytest.mark.parametrize("clips,deviate,least", [(10, 0.1, 0.93), (30, 0.1, 0.9), (100, 0.05, 0.9), (100, 0.02, 0.85), (512, 0.03, 0.93)])
def test_intervals_of_shares_that_few_clips_deviate_in(clips, deviate, least):
    """Shares in sixths, as of six samples, zero for most clips."""
    rng = np.random.default_rng(1)
    sets = np.where(rng.random((clips, 600)) < deviate, rng.integers(1, 7, (clips, 600)) / 6, 0.0)
    found = intervals(sets, shares=[True] * 600, resamples=200)
    assert all(0 <= i.low <= i.mean < i.high <= 1 for i in found)
    assert np.mean([i.low <= deviate * 3.5 / 6 <= i.high for i in found]) >= least


def test_shares_that_vary_little_are_known_well():
    values = np.random.default_rng(2).choice([2 / 6, 3 / 6, 4 / 6], 60)
    found = interval(values, share=True)
    assert found.low < values.mean() < found.high and found.high - found.low < 0.1 < interval(values > 0.4, share=True).high - found.low


def test_one_value_that_deviates_does_not_close_the_interval():
    found = interval(np.array([8.0] * 9 + [8.5]))
    assert found.low < 8.0 < found.mean < found.high < 9.0


def test_masks_small_sets_and_constants():
    found = interval(np.array([*range(20), np.nan, np.nan]))
    assert (found.mean, found.count, found.masked) == (9.5, 20, 2) and found.low < 9.5 < found.high
    few = interval(np.arange(FEWEST - 1.0))
    assert few.mean == 4.0 and np.isnan(few.low) and np.isnan(few.high)
    same = interval(np.full(50, 2.5))
    assert (same.mean, same.low, same.high) == (2.5, 2.5, 2.5)
    never = interval(np.zeros(50), share=True)
    assert never.low == 0 and 0.05 < never.high < 0.1
    assert interval(np.zeros(50)).high == 0, "differences that are all zero are no share"
    nothing = interval(np.full(5, np.nan))
    assert np.isnan(nothing.mean) and nothing.masked == 5


def test_the_same_values_give_the_same_interval():
    values = np.random.default_rng(1).lognormal(0, 1, 100)
    assert interval(values) == interval(values) and interval(values, seed=1) != interval(values)


@pytest.mark.parametrize(
    "words, expected", [("Start driving", "inconsistent"), ("Proceed forward", "inconsistent"), ("Continue ahead", "inconsistent")]
)
def test_a_car_that_rolls_backwards_does_not_go_forwards(words, expected):
    x = torch.cat([torch.zeros(H), -0.02 * torch.arange(1, 65) ** 1.5])
    xyz = torch.stack([x, 0 * x, 0 * x], -1)
    history = Trajectory(xyz[:H], rot_z(torch.zeros(H)))
    assert verdict(words, xyz[H:], history) == expected


def test_a_reversing_car_keeps_its_speed_and_turns_by_its_own_heading():
    angle = 0.05 * torch.arange(1 - H, 65, dtype=torch.float32)
    xyz = torch.stack([-5 * angle.sin(), 5 * (angle.cos() - 1), 0 * angle], -1)  # backwards along a circle, nose to the left
    history = Trajectory(xyz[:H], rot_z(angle[:H]))
    motion = motion_of(xyz[H:], history)
    assert motion.v0 == pytest.approx(-2.5, abs=0.01) and (motion.speed < 0).all() and motion.turn == pytest.approx(3.2, abs=0.1)
    assert verdict("Keep speed", xyz[H:], history) == "consistent" and verdict("Proceed forward", xyz[H:], history) == "inconsistent"
