"""Poses that disagree with themselves: each usual mix-up is named, a clean log is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.recording.poses import Track
from alpamayo_r1.inspect.findings import FAULTS, OK, UNKNOWN, WRONG
from alpamayo_r1.inspect.paths import CHANGES, direction, path_of, rates, wheels

pytestmark = pytest.mark.slow


def track(change=lambda xyz, turn: (xyz, turn), seconds: float = 12.0, speed: float = 8.0, wheel: float | None = 1.0, **more) -> Track:
    """A car on a winding road at 20 Hz with a centimetre of noise."""
    t = np.arange(0, seconds, 0.05)
    yaw = 0.5 + 0.4 * np.sin(0.7 * t)
    step = speed * 0.05 * np.stack([np.cos(yaw), np.sin(yaw), np.full_like(t, 0.02)], -1)
    xyz = np.cumsum(step, 0) + np.random.default_rng(0).normal(0, 0.01, (len(t), 3))
    turn = Rotation.from_euler("ZYX", np.stack([yaw, np.full_like(t, -0.02), np.full_like(t, 0.01)], -1))
    xyz, turn = change(xyz, turn)
    times = more.get("times", np.round(1e6 * t).astype(np.int64))
    driven = None if wheel is None else np.full(len(t), wheel * speed)
    return Track(times, xyz, turn.as_quat(), xyz[0], "ENU", np.zeros(3), driven)


def test_a_clean_log_agrees():
    finding, undone = direction(path_of(track()))
    assert finding.verdict == OK and not undone
    assert rates(track()).verdict == OK and wheels(track(), path_of(track())).verdict == OK


def planted(fault):
    """What makes the fault: the inverse of what undoes it."""
    order = {
        "yaw-degrees": lambda xyz, turn: (
            xyz,
            Rotation.from_rotvec(np.stack([0 * xyz[:, 0], 0 * xyz[:, 0], np.degrees(yaw_of(turn))], -1)),
        ),
        "yaw-radians": lambda xyz, turn: (
            xyz,
            Rotation.from_rotvec(np.stack([0 * xyz[:, 0], 0 * xyz[:, 0], np.radians(yaw_of(turn))], -1)),
        ),
        "quaternion-order": lambda xyz, turn: (xyz, Rotation.from_quat(turn.as_quat()[:, [3, 0, 1, 2]])),
        "body-axes": lambda xyz, turn: (xyz, turn * Rotation.from_euler("z", np.pi / 2)),
    }
    return order.get(fault, CHANGES[fault][0])


def yaw_of(turn: Rotation) -> np.ndarray:
    return turn.as_euler("ZYX")[:, 0]


@pytest.mark.parametrize("fault", CHANGES)
def test_every_mix_up_is_named(fault):
    finding, undone = direction(path_of(track(planted(fault))))
    assert finding.verdict == WRONG and fault in finding.faults and fault in undone
    assert finding.do and set(finding.faults) <= set(FAULTS)


def test_chaos_is_called_inconsistent_and_a_parked_car_unknown():
    def shuffled(xyz, turn):
        return xyz, Rotation.random(len(xyz), rng=np.random.default_rng(1))

    assert direction(path_of(track(shuffled)))[0].faults == ("poses-inconsistent",)
    assert direction(path_of(track(speed=0.0)))[0].verdict == UNKNOWN


def test_rates_gaps_and_wheels_are_judged():
    slow = track(times=np.arange(240) * 400_000)
    assert rates(slow).faults == ("pose-rate",)
    gap = np.arange(240) * 50_000
    gap[100:] += 800_000
    assert rates(track(times=gap)).faults == ("pose-gaps",)
    assert "pose-speed" in wheels(track(wheel=2.0), path_of(track(wheel=2.0))).faults
    assert wheels(track(wheel=None), path_of(track(wheel=None))).verdict == UNKNOWN
