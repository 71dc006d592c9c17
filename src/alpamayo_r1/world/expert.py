"""The driver of the world: what it does from any state, and why it stops. Vectorised over the scenes.

The ego obeys the unicycle of the action space exactly, with (acceleration a, curvature k) held for dt:
    v' = v + a dt,  theta' = theta + k (v dt + a dt^2 / 2),  x' = x + dt/2 (v cos theta + v' cos theta'), and y with the sines.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np

from alpamayo_r1.world import families as fam
from alpamayo_r1.world.families import Script, allowed_speed, ease
from alpamayo_r1.world.scene import DT, Kind, Route

DIRECTIVES = ("stop", "proceed", "nudge_left", "nudge_right", "keep_speed")
"""What a driver may be told to do from a step on, instead of what is right."""

DIRECTED_BRAKE, DIRECTED_SWERVE, DIRECTED_HOLD = 2.5, 1.5, 15.0
"""m/s^2 of a directed stop; metres to the side and metres held of a directed nudge."""

GAP, CONFLICT = 7.0, 5.0
"""Seconds that a left turn needs before the next oncoming vehicle; metres of the crossing's centre to either side that both drive over."""

_FREE_GAIN, _LOOK = 0.8, 0.4  # 1/s towards the target speed; s over which a constraint is met
_START_ACCELERATION, _FIRM, _HARDEST = 1.8, 3.0, 6.0  # m/s^2; braking is firm at most unless more is needed
_JERK, _EMERGENCY_JERK = 4.0, 10.0  # m/s^3
_TIGHTEST = 0.3  # 1/m
_STANDS = 0.05  # m/s below which a car counts as standing


@dataclass(frozen=True)
class Pushes:
    """What pushes B drivers off their way, as a gust or another driver's error would. All zero: nothing does.

    side (B, T-1): metres beside its way that a steering error held long enough leads to; along (B, T-1): acceleration error in m/s^2,
    a fifth of it at rest and all of it from 3 m/s on; start (B, 3): metres to the left, radians and share of the speed at step 0.
    """

    side: np.ndarray
    along: np.ndarray
    start: np.ndarray

    def errors(self, n: int, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Errors of acceleration and curvature (B,) at step n and speed v."""
        return self.along[:, n] * (0.2 + 0.8 * np.minimum(v / 3.0, 1.0)), self.side[:, n] / _reach(v) ** 2


class Expert:
    """Drivers of B scenes. Each knows its script, and of its own past how it braked and how long it has waited at a stop sign.

    script, start: what is written of the scenes, and where their road pieces begin. orders (B,): 0, or 1 + the index of a directive,
    which is given at step `ordered`.
    """

    def __init__(self, script: Script, start: np.ndarray, orders: np.ndarray, ordered: int = fam.T0_STEP):
        self.script, self.start, self.orders, self.ordered = script, start, orders, ordered
        self.s, self.held = script.start.copy(), script.start_speed.copy()
        self.a, self.waited = np.zeros_like(self.s), np.zeros_like(self.s)
        self.profile = _profile(script)

    def act(self, n: int, pose: np.ndarray, v: np.ndarray, lead_s: np.ndarray, lead_speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Acceleration and curvature (B,) at step n from pose (B, 3) and speed v; lead_s, lead_speed (B,): the vehicle in slot LEAD."""
        script = self.script
        if n == self.ordered:
            self.held = v
            self.profile = _directed_profile(script, self.profile, self.s, self.orders)
        self.s, d, slip = _project(script, self.start, _piece(script, self.s), *pose.T)
        self.waited = self.waited + DT * ((v < _STANDS) & script.stop_sign)
        wanted = _wanted(script, n * DT, self.s, v, self.waited, lead_s, lead_speed)
        if n >= self.ordered:
            wanted = _obey(script, self.orders, wanted, v, self.held)
        self.a = _smooth(wanted, self.a, v)
        k = _steer(script, self.profile, self.s, d, slip, v, self.a)
        self.s = self.s + v * DT + 0.5 * self.a * DT * DT
        return self.a, k

    def copy(self) -> Expert:
        """The same drivers, to look ahead with: nothing of it is changed in place."""
        return copy(self)


def unicycle(pose: np.ndarray, v: np.ndarray, a: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pose (B, 3) and speed (B,) one step later. A speed that a would turn negative is 0."""
    x, y, theta = pose.T
    v_next = np.where(a <= -v / DT, 0.0, v + a * DT)
    travelled = v * DT + 0.5 * a * DT * DT
    theta_next = theta + k * travelled
    x = x + 0.5 * DT * (v * np.cos(theta) + v_next * np.cos(theta_next))
    y = y + 0.5 * DT * (v * np.sin(theta) + v_next * np.sin(theta_next))
    return np.stack([x, y, theta_next], -1), v_next


def drive(
    expert: Expert, lead_s: np.ndarray, lead_speed: np.ndarray, steps: int, pushes: Pushes | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ego's pose (B, T, 3), speed (B, T) and actions (B, T-1, 2) from the script's start on. lead_s, lead_speed (B, T)."""
    pose, v = np.stack(_on_line(expert.script, expert.start, expert.s), -1), expert.script.start_speed.copy()
    if pushes is not None:
        aside, turned, faster = pushes.start.T
        pose = pose + np.stack([-aside * np.sin(pose[:, 2]), aside * np.cos(pose[:, 2]), turned], -1)
        v = v * (1.0 + faster)
    poses, speeds, actions = [pose], [v], []
    for n in range(steps - 1):
        a, k = expert.act(n, pose, v, lead_s[:, n], lead_speed[:, n])
        if pushes is not None:
            wrong_a, wrong_k = pushes.errors(n, v)
            a, k = np.maximum(a + wrong_a, -v / DT), np.where(v > 0.0, np.clip(k + wrong_k, -_TIGHTEST, _TIGHTEST), k)
        pose, v = unicycle(pose, v, a, k)
        poses.append(pose)
        speeds.append(v)
        actions.append(np.stack([a, k], -1))
    return np.stack(poses, 1), np.stack(speeds, 1), np.stack(actions, 1)


def _piece(script: Script, s: np.ndarray) -> np.ndarray:
    """Index (B,) of the road piece at s."""
    return np.maximum((s[:, None] >= script.piece).sum(1) - 1, 0)


def _on_line(script: Script, start: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, ...]:
    """x, y, heading of the lane's centre at s."""
    rows, piece = np.arange(len(s)), _piece(script, s)
    x, y, heading = start[rows, piece].T
    length = s - script.piece[rows, piece]
    turn = script.curvature[rows, piece] * length
    chord = length * np.sinc(turn / (2 * np.pi))
    return x + chord * np.cos(heading + turn / 2), y + chord * np.sin(heading + turn / 2), heading + turn


def _project(script: Script, start: np.ndarray, piece: np.ndarray, x, y, theta) -> tuple[np.ndarray, ...]:
    """The ego's s, d and angle to the road: the foot point on one piece of constant curvature."""
    rows = np.arange(len(piece))
    x0, y0, heading = start[rows, piece].T
    k = script.curvature[rows, piece]
    k = np.where(np.abs(k) < 1e-9, 1e-9, k)
    c, sn = np.cos(heading), np.sin(heading)
    u, w = c * (x - x0) + sn * (y - y0), c * (y - y0) - sn * (x - x0)
    turn = np.arctan2(k * u, 1.0 - k * w)
    d = (1.0 - np.hypot(k * u, 1.0 - k * w)) / k
    slip = theta - heading - turn
    return script.piece[rows, piece] + turn / k, d, slip - 2 * np.pi * np.round(slip / (2 * np.pi))


def _wanted(script: Script, t: float, s, v, waited, lead_s, lead_speed) -> np.ndarray:
    """The least acceleration any constraint asks for: target speed, lead, line to stop at, curve."""
    wanted = _free(v, np.where(s >= script.limit_from, script.limit, script.target))
    wanted = np.minimum(wanted, np.where(s < script.limit_from, _keep(script.limit_from - s, script.limit, fam.STOP_SOFTNESS, v), np.inf))
    nose = s + fam.EGO_FRONT

    gap = lead_s - script.size[:, fam.LEAD, 0] / 2 - nose
    softness = fam.BRAKE * fam.HEADWAY
    lead = _keep(gap - fam.LEAD_GAP - lead_speed * fam.HEADWAY + lead_speed * _LOOK, lead_speed, softness, v)
    hardest = -np.maximum(_FIRM, 0.75 * np.maximum(v - lead_speed, 0.0) ** 2 / np.maximum(gap - 1.0, 0.1))
    wanted = np.minimum(wanted, np.where(t >= script.lead_from, np.maximum(lead, hardest), np.inf))

    held_up = (t < script.green_from + fam.REACTION) | (script.stop_sign & (waited < fam.STOP_SIGN_WAIT))
    line = _keep(script.stop_line - fam.LINE_GAP - nose, 0.0, fam.STOP_SOFTNESS, v)
    wanted = np.minimum(wanted, np.where(held_up & (nose < script.stop_line + fam.OVERRUN), line, np.inf))
    yields = _keep(script.crosswalk - 1.5 - fam.LINE_GAP - nose, 0.0, fam.STOP_SOFTNESS, v)
    wanted = np.minimum(wanted, np.where((t < script.walker_clear) & (nose < script.crosswalk - 1.5), yields, np.inf))

    gives = gives_way(script.route, script.stop_line - nose, v, *coming(script, t), script.crossing)
    wanted = np.minimum(wanted, np.where(gives, line, np.inf))

    bend = np.abs(script.curvature)
    limit = np.sqrt(fam.LATERAL_ACCELERATION / np.maximum(bend, 1e-4))
    end = np.concatenate([script.piece[:, 1:], np.full((len(v), 1), np.inf)], 1)
    slow = _keep(np.maximum(script.piece - s[:, None], v[:, None] * _LOOK), limit, fam.STOP_SOFTNESS, v[:, None])
    return np.minimum(wanted, np.where(s[:, None] < end, slow, np.inf).min(1))


def coming(script: Script, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s, speed along the road and length (B, 2) of the oncoming vehicles at time t, as their script has them; at infinity where none is."""
    slots, m = [fam.ONCOMING, fam.ONCOMING_2], script.motion
    there = script.kind[:, slots] != Kind.NONE
    s = np.where(there, m.s[:, slots] + m.v[:, slots] * (t - fam.T0), np.inf)
    return s, m.v[:, slots], script.size[:, slots, 0]


def gives_way(route, to_line, v, s, speed, length, crossing, gap: float = GAP, conflict: float = CONFLICT) -> np.ndarray:
    """bool (B,): who is to turn left waits before the line, `to_line` metres ahead of its nose, for oncoming traffic (B, 2).

    A vehicle matters that would be at the junction within `gap` seconds and has not left it; who can't stop any more goes on.
    """
    drives = speed < -0.5
    pace = np.where(drives, -speed, 1.0)
    before = s + length / 2 > crossing[:, None] - conflict
    soon = (s - length / 2 - crossing[:, None] - conflict) < gap * pace
    return (route == Route.LEFT) & (to_line > v * v / (2 * _FIRM)) & (drives & before & soon).any(1)


def _free(v, target) -> np.ndarray:
    """Acceleration towards a target speed."""
    return np.clip(_FREE_GAIN * (target - v), -fam.BRAKE, _START_ACCELERATION)


def _keep(distance, end_speed, softness, v) -> np.ndarray:
    """Acceleration that brings v to the allowed speed of where it will be in _LOOK seconds."""
    return (allowed_speed(distance - v * _LOOK, end_speed, softness) - v) / _LOOK


def _obey(script: Script, orders: np.ndarray, wanted, v, held) -> np.ndarray:
    """What a directive asks for instead; `held` is the speed when it was given."""
    stop, proceed, keep = (orders == DIRECTIVES.index(name) + 1 for name in ("stop", "proceed", "keep_speed"))
    wanted = np.where(stop, np.where(v > 0.0, -DIRECTED_BRAKE, 0.0), wanted)
    return np.where(proceed, _free(v, script.target), np.where(keep, _free(v, held), wanted))


def _smooth(wanted, last, v) -> np.ndarray:
    """Limits the jerk (more of it in an emergency) and comes to a true standstill: the last step takes exactly the speed that is left."""
    wanted = np.clip(wanted, -_HARDEST, _START_ACCELERATION)
    down = np.where(wanted < -2.5, _EMERGENCY_JERK, _JERK) * DT
    last = np.where(v > 0.0, last, 0.0)
    a = np.clip(wanted, last - down, last + _JERK * DT)
    rests = (v + a * DT < 0.05) & (wanted <= 0.25)
    return np.where(rests, -v / DT, a)


def _steer(script: Script, profile, s, d, slip, v, a) -> np.ndarray:
    """Curvature: the smoothed road's and the profile's, and feedback on the distance and the angle to the profile."""
    middle = s + 0.5 * v * DT
    reach = 1.0 + 0.5 * v
    ahead = (_heading(script, middle + reach) - _heading(script, middle - reach)) / (2 * reach)
    offset, _, second = profile(middle)
    now, slope_now, _ = profile(s)
    length = _reach(v)
    k = ahead / (1.0 - ahead * offset) + second - (d - now) / length**2 - 1.8 * (slip - slope_now) / length
    return np.where((v > 0.0) | (a > 0.0), np.clip(k, -_TIGHTEST, _TIGHTEST), 0.0)


def _reach(v) -> np.ndarray:
    """Metres over which the steering corrects."""
    return 3.0 + 0.4 * v


def _heading(script: Script, s) -> np.ndarray:
    """Heading of the road at s, against that of its first piece: the integral of the curvature."""
    end = np.concatenate([script.piece[:, 1:], np.full((len(s), 1), np.inf)], 1)
    return (script.curvature * np.clip(s[:, None] - script.piece, 0.0, end - script.piece)).sum(1)


def _swerve(s, begin, back, height, length) -> tuple[np.ndarray, ...]:
    """Lateral offset d(s) = height (ease((s - begin)/length) - ease((s - back)/length)) with its first and second derivative."""
    d = slope = second = 0.0
    for x, h in (((s - begin) / length, height), ((s - back) / length, -height)):
        x = np.clip(x, 0.0, 1.0)
        rest = 1.0 - x
        d = d + h * ease(x)
        slope = slope + h * 30.0 * (x * rest) ** 2 / length
        second = second + h * 60.0 * x * rest * (1.0 - 2.0 * x) / length**2
    return d, slope, second


def _profile(script: Script):
    begin, back, height = script.swerve.T
    length = script.swerve_length
    return lambda s: _swerve(s, begin, back, height, length)


def _directed_profile(script: Script, before, s, orders):
    """From here on, a directed nudge: blends from the profile that was into a swerve that starts now, d = (1-w) d0 + w d1."""
    left, right = (orders == DIRECTIVES.index(name) + 1 for name in ("nudge_left", "nudge_right"))
    nudged = left | right
    if not nudged.any():
        return before
    length = script.swerve_length
    back = s + length + DIRECTED_HOLD
    height = np.where(left, DIRECTED_SWERVE, -DIRECTED_SWERVE)

    def profile(at):
        d0, slope0, second0 = before(at)
        d1, slope1, second1 = _swerve(at, s, back, height, length)
        w, dw, ddw = _swerve(at, s, np.full_like(s, 1e9), np.where(nudged, 1.0, 0.0), length)
        gap, dgap = d1 - d0, slope1 - slope0
        return d0 + w * gap, slope0 + w * dgap + dw * gap, second0 + w * (second1 - second0) + 2 * dw * dgap + ddw * gap

    return profile
