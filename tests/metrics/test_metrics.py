"""Metrics against the recording, hand-computed cases and properties; the two baselines; the record of a prediction."""

import json
import math
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file

from alpamayo_r1.core.geometry import rot_z, yaw_of
from alpamayo_r1.core.types import CAMERAS, DT, F, H, Observation, Plan, Sample, Trajectory
from alpamayo_r1.data.notices import NOTICES, notice
from alpamayo_r1.metrics import paths as metrics
from alpamayo_r1.metrics.baselines import constant_turn_rate_and_acceleration, constant_velocity
from alpamayo_r1.predict.record import result, write_result

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "cases" / "metrics.safetensors")
seeds = st.integers(0, 10_000)


def paths(seed, samples=4, dtype=torch.float64):
    """Random pred [S, F, 3], rot, truth [F, 3], rot."""
    g = torch.Generator().manual_seed(seed)
    xyz = torch.randn(samples + 1, F, 3, generator=g, dtype=dtype).cumsum(1)
    rot = rot_z(torch.randn(samples + 1, F, generator=g, dtype=dtype))
    return xyz[1:], rot[1:], xyz[0], rot[0]


# --- the recording: [B, sets, S, F]; the original averages the sets


def test_golden_ade():
    truth = GOLDEN["gt_xyz"][:, None]
    assert torch.allclose(metrics.ade(GOLDEN["pred_xyz"], truth).value, GOLDEN["ade"], atol=1e-5)
    assert torch.allclose(metrics.min_ade(GOLDEN["pred_xyz"], truth).value.mean(1), GOLDEN["minade:min_ade"], atol=1e-5)


@pytest.mark.parametrize("horizon", metrics.HORIZONS)
def test_golden_horizon(horizon):
    by = metrics.ade_by_horizon(GOLDEN["pred_xyz"], GOLDEN["gt_xyz"][:, None])
    assert torch.allclose(by[horizon].value.mean(1), GOLDEN[f"minade:min_ade/by_t={horizon}"], atol=1e-5)


def test_golden_corner_distance():
    truth = GOLDEN["gt_xyz"][:, None], GOLDEN["gt_rot"][:, None]
    distance = metrics.corner_distance(GOLDEN["pred_xyz"], GOLDEN["pred_rot"], *truth, size=(4.9, 2.0, 1.5))
    assert torch.allclose(distance.value.mean(1), GOLDEN["corner:corner_distance"], atol=1e-5)


# --- by hand


def test_by_hand():
    truth = torch.zeros(F, 3)
    truth[:, 0] = torch.arange(F)
    near, far = truth + torch.tensor([0.0, 1.0, 9.0]), truth + torch.tensor([3.0, 4.0, 0.0])
    pred = torch.stack([far, near])
    assert metrics.ade(pred, truth).value.tolist() == [5, 1]
    assert metrics.min_ade(pred, truth).value == 1 and metrics.best_sample(pred, truth) == 1
    assert metrics.fde(pred, truth).value.tolist() == [5, 1]
    assert metrics.miss(pred, truth).value == 0 and metrics.miss(pred[:1], truth).value == 1
    assert metrics.spread(pred).value == pytest.approx(math.hypot(3, 3) / 2)
    assert metrics.spread(pred[:1]).value == 0


def test_a_horizon_beyond_the_path_is_not_valid():
    by = metrics.ade_by_horizon(torch.zeros(2, 30, 3), torch.zeros(30, 3))
    assert {horizon: bool(m.valid) for horizon, m in by.items()} == {0.5: True, 1.0: True, 3.0: True, 5.0: False}


def test_horizon_keeps_the_sample_that_is_best_in_the_end():
    truth = torch.zeros(F, 3)
    early, late = torch.zeros(F, 3), torch.ones(F, 3) * 0.1
    early[10:, 0] = 50
    by = metrics.ade_by_horizon(torch.stack([early, late]), truth)
    assert by[1.0].value == pytest.approx(0.1 * math.sqrt(2))


def test_corner_distance_of_a_turned_box():
    xyz, rot = torch.zeros(1, F, 3), rot_z(torch.full((1, F), math.pi))
    turned = metrics.corner_distance(xyz, rot, xyz[0], rot_z(torch.zeros(F)), size=(4.0, 3.0, 1.0))
    assert turned.value == pytest.approx(5.0, abs=1e-5)


def test_heading_error_takes_the_short_way():
    error = metrics.heading_error(rot_z(torch.full((1, F), 3.1)), rot_z(torch.full((F,), -3.1)))
    assert error.value.item() == pytest.approx(2 * math.pi - 6.2, abs=1e-5)


def test_comfort_on_a_circle_and_while_braking():
    t = torch.arange(F, dtype=torch.float64) * DT
    speed, radius = 10.0, 50.0
    yaw = speed * t / radius
    circle = torch.stack([radius * yaw.sin(), radius * (1 - yaw.cos()), 0 * t], -1)
    felt = metrics.comfort(circle, rot_z(yaw))
    assert felt.lateral.value.item() == pytest.approx(speed**2 / radius, rel=1e-3)
    assert felt.longitudinal.value.item() < 1e-6
    braking = torch.stack([20 * t - 1.5 * t**2, 0 * t, 0 * t], -1)
    felt = metrics.comfort(braking, rot_z(0 * t))
    assert felt.longitudinal.value.item() == pytest.approx(3, rel=1e-6)
    assert felt.jerk.value.item() < 1e-6


# --- properties


@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(-3, 3), st.floats(-100, 100), st.floats(-100, 100))
def test_a_rigid_motion_of_both_changes_nothing(seed, angle, x, y):
    pred, pred_rot, truth, truth_rot = paths(seed)
    turn, shift = rot_z(torch.tensor(angle, dtype=pred.dtype)), torch.tensor([x, y, 1.0], dtype=pred.dtype)
    moved, moved_rot, there, there_rot = pred @ turn.T + shift, turn @ pred_rot, truth @ turn.T + shift, turn @ truth_rot

    def all_of(pred, pred_rot, truth, truth_rot):
        felt = metrics.comfort(pred, pred_rot)
        by = metrics.ade_by_horizon(pred, truth)
        values = [metrics.ade(pred, truth), metrics.fde(pred, truth), metrics.miss(pred, truth), metrics.spread(pred), *by.values()]
        values += [metrics.corner_distance(pred, pred_rot, truth, truth_rot, (4.9, 2, 1.5)), metrics.heading_error(pred_rot, truth_rot)]
        return torch.cat([m.value.flatten() for m in [*values, felt.longitudinal, felt.lateral, felt.jerk]])

    before, after = all_of(pred, pred_rot, truth, truth_rot), all_of(moved, moved_rot, there, there_rot)
    assert torch.allclose(before, after, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(seeds)
def test_more_samples_never_raise_the_minimum(seed):
    pred, pred_rot, truth, truth_rot = paths(seed, samples=6)
    for less, more in zip(range(1, 6), range(2, 7)):
        for metric in (metrics.min_ade, metrics.min_fde):
            assert metric(pred[:more], truth).value <= metric(pred[:less], truth).value
        size = (4.9, 2.0, 1.5)
        a, b = (metrics.corner_distance(pred[:n], pred_rot[:n], truth, truth_rot, size).value for n in (less, more))
        assert b <= a


@settings(deadline=None, max_examples=10)
@given(seeds, st.sampled_from([torch.float32, torch.float64]))
def test_a_perfect_prediction_scores_zero(seed, dtype):
    pred, pred_rot, truth, truth_rot = paths(seed, dtype=dtype)
    pred[2], pred_rot[2] = truth, truth_rot
    zero = [metrics.min_ade(pred, truth), metrics.min_fde(pred, truth), metrics.miss(pred, truth)]
    zero += metrics.ade_by_horizon(pred, truth).values()
    zero += [metrics.corner_distance(pred[2:3], pred_rot[2:3], truth, truth_rot, (4.9, 2.0, 1.5))]
    assert all(m.value == 0 and m.valid and m.value.dtype == dtype for m in zero)
    assert metrics.heading_error(pred_rot, truth_rot).value[2] == 0


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(0, 3), st.integers(0, F - 1))
def test_a_broken_sample_is_masked_and_counted(seed, broken, step):
    pred, pred_rot, truth, truth_rot = paths(seed)
    others = [s for s in range(4) if s != broken]
    whole = pred.clone()
    pred[broken, step] = torch.nan
    error = metrics.ade(pred, truth)
    assert error.invalid == 1 and not error.valid[broken] and error.value[broken].isnan()
    assert error.mean() == pytest.approx(metrics.ade(whole[others], truth).value.mean().item())
    assert metrics.min_ade(pred, truth).value == metrics.min_ade(whole[others], truth).value
    assert metrics.best_sample(pred, truth) != broken
    assert torch.allclose(metrics.spread(pred).value, metrics.spread(whole[others]).value)
    size = (4.9, 2.0, 1.5)
    masked = metrics.corner_distance(pred, pred_rot, truth, truth_rot, size)
    assert masked.value == metrics.corner_distance(whole[others], pred_rot[others], truth, truth_rot, size).value


def test_a_truth_that_ends_early_masks_its_steps():
    pred, pred_rot, truth, truth_rot = paths(0)
    cut = truth.clone()
    cut[40:] = torch.nan
    assert torch.allclose(metrics.ade(pred, cut).value, metrics.ade(pred[:, :40], truth[:40]).value)
    assert not metrics.min_fde(pred, cut).valid and not metrics.miss(pred, cut).valid
    by = metrics.ade_by_horizon(pred, cut)
    assert by[3.0].valid and by[5.0].valid
    corner = metrics.corner_distance(pred, pred_rot, cut, truth_rot, (4.9, 2.0, 1.5))
    assert torch.isclose(
        corner.value, metrics.corner_distance(pred[:, :40], pred_rot[:, :40], truth[:40], truth_rot[:40], (4.9, 2.0, 1.5)).value
    )


def test_nothing_valid():
    pred, _, truth, _ = paths(0)
    lost = metrics.min_ade(pred * torch.nan, truth)
    assert not lost.valid and lost.value.isnan() and math.isnan(lost.mean())
    assert not metrics.ade(pred, truth * torch.nan).valid.any()


# --- baselines


def arc(speed, acceleration=0.0, rate=0.0, steps=range(1 - H, 1)):
    """A car with constant acceleration and turn rate, at the origin at t = 0, by fine integration."""
    fine = 100
    t = torch.arange(min(steps) * fine, max(steps) * fine + 1, dtype=torch.float64) * DT / fine
    middle = (t[1:] + t[:-1]) / 2
    v = speed + acceleration * middle
    xy = torch.stack([v * (rate * middle).cos(), v * (rate * middle).sin()], -1).cumsum(0) * DT / fine
    xy = torch.cat([xy.new_zeros(1, 2), xy])
    origin = xy[(-t).abs().argmin()]
    index = torch.tensor([(n - min(steps)) * fine for n in steps])
    xyz = torch.cat([xy[index] - origin, xy.new_zeros(len(index), 1)], -1)
    return Trajectory(xyz, rot_z(rate * t[index]))


@pytest.mark.parametrize("speed, acceleration, rate", [(10, 0, 0), (8, 1.0, 0.2), (12, -1.0, -0.1), (2, 0, 0.4)])
def test_turn_rate_baseline_continues_its_own_kind_of_motion(speed, acceleration, rate):
    whole = arc(speed, acceleration, rate, range(1 - H, F + 1))
    plan = constant_turn_rate_and_acceleration(Trajectory(whole.xyz[:H], whole.rot[:H]))
    assert (plan.xyz - whole.xyz[H:]).norm(dim=-1).max() < 0.2
    assert torch.allclose(yaw_of(plan.rot), yaw_of(whole.rot[H:]), atol=1e-6)


def test_constant_velocity_goes_straight_at_the_speed_of_now():
    plan = constant_velocity(arc(8, 1.0, 0.0))
    assert torch.allclose(plan.xyz[:, 0], 8 * DT * torch.arange(1, F + 1, dtype=torch.float64), atol=1e-3)
    assert plan.xyz[:, 1:].abs().max() < 1e-9 and torch.allclose(plan.rot, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("baseline", [constant_velocity, constant_turn_rate_and_acceleration])
@settings(deadline=None, max_examples=20)
@given(seeds)
def test_a_standing_car_with_noisy_poses_stands(baseline, seed):
    g = torch.Generator().manual_seed(seed)
    history = Trajectory(torch.randn(H, 3, generator=g) * 1e-3, rot_z(torch.randn(H, generator=g) * 0.01))
    plan = baseline(history)
    assert torch.equal(plan.xyz, history.xyz[-1:].expand(F, 3)) and plan.xyz.isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 30), st.floats(-9, 3), st.floats(-0.5, 0.5))
def test_speed_is_never_negative(speed, acceleration, rate):
    plan = constant_turn_rate_and_acceleration(arc(speed, acceleration, rate))
    xyz = torch.cat([torch.zeros(1, 3, dtype=torch.float64), plan.xyz])
    rot = torch.cat([torch.eye(3, dtype=torch.float64)[None], plan.rot])
    forward = (xyz.diff(dim=0) * (rot[1:, :, 0] + rot[:-1, :, 0])).sum(-1)
    assert forward.min() > -1e-9 and plan.xyz.isfinite().all()


def test_baselines_take_batches():
    one, two = arc(8, 1.0, 0.1), arc(0.0)
    both = Trajectory(torch.stack([one.xyz, two.xyz]), torch.stack([one.rot, two.rot]))
    for baseline in (constant_velocity, constant_turn_rate_and_acceleration):
        assert torch.allclose(baseline(both).xyz, torch.stack([baseline(one).xyz, baseline(two).xyz]))


# --- the record


def record(future=True, source="world"):
    history, truth = arc(8, 0.5, 0.1), arc(8, 0.5, 0.1, range(1, F + 1))
    frames = torch.zeros(4, 4, 3, 8, 8, dtype=torch.uint8)
    meta = {"source": source}
    sample = Sample(Observation(frames, CAMERAS, history, 5_100_000), truth if future else None, "a", meta)
    xyz = torch.stack([truth.xyz, truth.xyz + 1.0]).float()
    plan = Plan(xyz, truth.rot.float().expand(2, -1, -1, -1), ("Go.", "Go."), torch.zeros(2, F, 2), (True, True), {"prefill": 1.5})
    return result(sample, plan, 42)


def test_record_fields(tmp_path):
    path = write_result(record(), tmp_path / "deep" / "a.json")
    data = json.loads(path.read_text())
    assert set(data) == {
        *("clip_id", "t0_us", "seed", "reasoning", "pred_xyz", "pred_rot", "gt_xyz", "min_ade", "ade_by_horizon"),
        *("baselines", "timing_ms", "source", "notice", "request", "ended", "actions", "chosen", "mean_ade", "notes"),
    }
    assert torch.tensor(data["actions"]).shape == (2, F, 2) and data["ended"] == [True, True] and data["request"] == {}
    assert torch.tensor(data["pred_xyz"]).shape == (2, F, 3) and torch.tensor(data["pred_rot"]).shape == (2, F, 3, 3)
    assert data["min_ade"] < 1e-5 and list(data["ade_by_horizon"]) == ["0.5", "1", "3", "5"]
    assert data["baselines"]["constant_velocity"] > data["baselines"]["constant_turn_rate_and_acceleration"] > 0
    assert data["notice"] == NOTICES["world"] and [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_record_without_future_and_of_real_data():
    data = record(future=False, source="physical-ai-av")
    assert data["gt_xyz"] is None and data["min_ade"] is None and data["baselines"]["constant_velocity"] is None
    assert "forbids" in data["notice"]


@pytest.mark.parametrize("meta", [{"source": "my car"}, {"source": "own"}, {}])
def test_a_sample_of_ones_own_is_not_stamped_as_nvidias(meta):
    assert "recorded" in notice(meta.get("source")) and "NVIDIA" not in notice(meta.get("source"))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_result({"a": 1}, tmp_path / "a.json")
    with pytest.raises(ValueError):
        write_result({"a": math.nan}, path)
    assert json.loads(path.read_text()) == {"a": 1}
