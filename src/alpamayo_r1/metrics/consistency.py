"""Does the trajectory do what the reasoning says? Free text is read by keywords, the path by speed and sidestep; the rest is "unclear".

The rules, with thresholds, stand in docs/evaluation.md. Speeds come from differences of the path over 0.1 s and are below 0 where the car
moves backwards; v0 is the mean of the last 0.3 s of history. A sidestep is what a path does beyond a bend of constant curvature, so that
a curve of the road is no nudge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from alpamayo_r1.core.gate.values import check_tensors, check_type
from alpamayo_r1.core.geometry import unwrap, yaw_of
from alpamayo_r1.core.types import Trajectory

INTENTS = (
    "keep_speed",
    "keep_distance",
    "slow_down",
    "stop",
    "remain_stopped",
    "start",
    "accelerate",
    "yield",
    "nudge_left",
    "nudge_right",
    "turn_left",
    "turn_right",
)
"""What a text may say the car does. A text may say one thing about speed and one about the side."""

VERDICTS = ("consistent", "inconsistent", "unclear")

_CAUSE = re.compile(
    r"\b(since|because|due to|given that|given|so that|in order to|while|when)\b"
    r"|\bas (?=(the|a|an|it|there|nothing|no|another|traffic|vehicles?)\b)"
)
"""What follows one of these is why, not what."""

_THINGS = re.compile(
    r"\bstop[- ](sign|line|bar|light)s?\b"
    r"|\b(stopped|stopping|parked|standing|stationary|slow(ing|er)?|slow-moving|braking|turning|accelerating|yielding) "
    r"(lead |preceding |front )?(vehicle|car|truck|van|bus|traffic|queue|lead)s?\b"
)
"""Things whose names hold a verb of driving."""

_SPEED = {
    "remain_stopped": (
        r"(remain|stay|keep|be|continue to be)\w* (fully )?(stopped|stationary|at rest|still|halted)",
        r"wait\w*|hold(ing)? (the )?position|remain at",
    ),
    "start": (r"(start|begin|resum)\w*|(pull|move|drive|set)s? (away|off)\b",),
    "yield": (r"yield\w*|giv(e|ing) way|let (the|a) .{1,40}?(pass|cross|go|merge)\b",),
    "stop": (
        r"(stop|halt)(s|ping|ing)?\b",
        r"(brak\w+|slow\w*( down)?|decelerat\w+|com(e|ing))( \w+)? (to|and) (a )?(full |complete )?(stop|halt|standstill)\b",
    ),
    "slow_down": (
        r"slow\w*|decelerat\w*|brak(e|es|ing)\b|ease off|prepare to (stop|yield)",
        r"(reduc\w+|lower\w*) (the |its |your )?(current )?speed",
    ),
    "accelerate": (r"accelerat\w*|speed(ing)? up|(increas\w+|gain\w*|pick\w* up) (the |its )?speed",),
    "keep_distance": (r"(keep|maintain|hold)\w* [^.,;]{0,25}?(distance|gap|headway)|follow\w*",),
    "keep_speed": (
        r"(keep|maintain|hold)\w* [^.,;]{0,25}?(speed|pace|velocity)",
        r"continu\w*|proceed\w*|cruis\w*|driv\w+ (on|straight|ahead)",
    ),
}
"""Intent -> words. The one that comes first in the text holds; of two at the same place the one that is higher up."""

_SPEED_WORDS = {name: re.compile(rf"\b({'|'.join(words)})") for name, words in _SPEED.items()}

_SIDE = re.compile(
    r"(?:^|\band |\bthen |[,;] ?|\bto |\bby )(?:\w+ly )?(?:"
    r"(?P<nudge>nudg\w*|shift\w*|swerv\w*|veer\w*|edg(e|ing)|mov(e|ing)( over)?|steer\w*|bias\w*|chang\w+ lanes?|merg\w+|pass\w*)"
    r"( \w+){0,4}? (?P<side>left|right)\b"
    r"|(?P<turn>turn\w*|mak(e|ing) an?)( \w+){0,2}? (?P<way>left|right)\b)"
    r"|\b(?P<before>left|right)[- ](?P<kind>nudge|shift|swerve|lane change|turn)\b"
)

_AHEAD = re.compile(r"\b(forwards?|ahead|proceed\w*|cruis\w*|driv\w+ (on|straight))\b")
"""Words that a car which moves backwards contradicts, whatever its speed does."""

STANDING, CREEPING = 0.5, 1.5
"""m/s: below the first a car stands, below the second it all but stands."""

SIDESTEP, TURN = 0.3, 0.35
"""Metres beyond the bend that are a nudge; radians that are a turn at a junction."""


def parse(text: str) -> tuple[str, ...]:
    """The intents that a text states, at most one of speed and one of side, () where nothing is recognised."""
    said = _stated(text)
    found = [(match.start(), rank, name) for rank, (name, words) in enumerate(_SPEED_WORDS.items()) if (match := words.search(said))]
    speed = [min(found)[2]] if found else []
    side = _SIDE.search(said)
    return (*speed, *([_side(side)] if side else []))


def _stated(text: str) -> str:
    """What a text says that the car does: in lower case, without the cause and without things whose names hold a verb."""
    return _CAUSE.split(_THINGS.sub("it", text.lower()), maxsplit=1)[0]


def _side(match: re.Match[str]) -> str:
    way = match["side"] or match["way"] or match["before"]
    turns = match["turn"] or match["kind"] == "turn"
    return f"{'turn' if turns else 'nudge'}_{way}"


def verdict(text: str, xyz: torch.Tensor, history: Trajectory) -> str:
    """Whether a path xyz f32[F, 3] after a history [H] does what the text says: one of VERDICTS.

    One contradicted intent makes it inconsistent; otherwise one that is met makes it consistent.
    """
    check_type("text", text, str, "what was said")
    check_type("history", history, Trajectory, "a Trajectory")
    check_tensors(xyz=(xyz, (-1, 3)))
    intents = parse(text)
    if not intents or not bool(xyz.isfinite().all()):
        return "unclear"
    motion = motion_of(xyz, history)
    if motion.reverses and _AHEAD.search(_stated(text)):
        return "inconsistent"
    found = {RULES[intent](motion) for intent in intents}
    return next((name for name in ("inconsistent", "consistent") if name in found), "unclear")


@dataclass(frozen=True)
class Motion:
    """What the rules look at: v0 and speeds f64[F] in m/s, below 0 backwards; of all steps the heading rad f64[n] of the car and the
    advance m f64[n] along it, t0 before step `now`."""

    v0: float
    speed: torch.Tensor
    heading: torch.Tensor
    advance: torch.Tensor
    now: int

    @property
    def sidestep(self) -> float:
        """Metres to the left that are no bend of the road."""
        return _sidestep(self.heading, self.advance, self.now)

    @property
    def turn(self) -> float:
        """Radians to the left from t0 to the end."""
        return (self.heading[-1] - self.heading[self.now - 1]).item()

    @property
    def reverses(self) -> bool:
        """Whether it moves backwards on the whole, by more than half a metre."""
        return self.advance[self.now :].sum().item() < -0.5

    @property
    def pace(self) -> float:
        """Speed at t0 in m/s, whichever way."""
        return abs(self.v0)

    @property
    def onward(self) -> torch.Tensor:
        """Speeds f64[F] in the direction of t0: below 0 where the car turns back. A standing car's direction is forwards."""
        return -self.speed if self.v0 < -STANDING else self.speed

    @property
    def low(self) -> float:
        """Lowest speed in the direction of t0."""
        return self.onward.min().item()

    @property
    def high(self) -> float:
        """Highest speed in the direction of t0."""
        return self.onward.max().item()

    @property
    def end(self) -> float:
        """Mean speed over the last half second, in the direction of t0."""
        return self.onward[-5:].mean().item()

    def beyond(self, metres_per_second: float, share: float) -> float:
        """The larger of a speed and a share of that at t0."""
        return max(metres_per_second, share * self.pace)


def motion_of(xyz: torch.Tensor, history: Trajectory) -> Motion:
    """The motion of a path [F, 3] that goes on from a history [H], in its frame."""
    whole = torch.cat([history.xyz, xyz.to(history.xyz)])[:, :2].double()
    step = whole.diff(dim=0)
    now = len(history.xyz) - 1
    heading, forwards = _headings(step, yaw_of(history.rot.double()))
    advance = step.norm(dim=-1) * forwards
    speed = advance / history.dt
    return Motion(speed[now - 3 : now].mean().item(), speed[now:], heading, advance, now)


MOVING_M = 0.03
"""Metres in a step below which its direction says nothing."""


def _headings(step: torch.Tensor, yaw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Headings f64[n] of the car in steps [n, 2], and 1 or -1 f64[n] for forwards and backwards; yaw [H] of the history.

    A step points along the car's heading or against it, whichever is nearer to the yaw of the history, and after t0 to the heading of the
    step before. A standing car keeps its heading.
    """
    direction = torch.atan2(step[:, 1], step[:, 0]).tolist()
    moving = (step.norm(dim=-1) > MOVING_M).tolist()
    axes, heading, forwards = yaw.tolist(), [], []
    last = axes[0]
    for i, (angle, moves) in enumerate(zip(direction, moving)):
        axis = axes[i + 1] if i + 1 < len(axes) else last
        ahead = math.cos(angle - axis) >= 0
        if moves:
            last = angle if ahead else angle + math.pi
        elif i + 1 < len(axes):
            last = axis
        heading.append(last)
        forwards.append(1.0 if ahead else -1.0)
    return unwrap(torch.tensor(heading, dtype=torch.float64)), torch.tensor(forwards, dtype=torch.float64)


_LAST = 35
"""Steps after t0 that the sidestep is looked for in."""


@cache
def _shapes(count: int, now: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What is tried: headings f64[n, count] of a sidestep of 2.2 or 3 s, 1 at its middle, and the step i64[n] at which the road bends."""
    time = (torch.arange(count, dtype=torch.float64) - now + 0.5) * 0.1
    axes = (torch.arange(-1.1, 3.6, 0.3), torch.tensor([1.1, 1.5]), torch.arange(0.0, count, 5))
    centre, half, knot = (g.flatten() for g in torch.meshgrid(*axes, indexing="ij"))
    phase = ((time - centre[:, None].double()) / half[:, None].double()).clamp(-1, 1)
    return (0.5 * torch.pi * phase).cos().square(), knot.long()


def _sidestep(heading: torch.Tensor, advance: torch.Tensor, now: int) -> float:
    """Metres to the left beyond the road's bends, from 1.5 s before to 3.5 s after t0; heading [n], advance of each step [n].

    Least squares: heading(s) = a + b s + c max(s - s_k, 0) + d bump(t), a bend that changes once and one sidestep there and straight on.
    Of all places of the change and of the bump the ones that explain the path best; the sidestep is the integral of d bump.
    """
    last = min(len(heading), now + _LAST)
    heading, advance = heading[:last], advance[:last]
    travelled = advance.abs().cumsum(0)
    whole = travelled[-1]
    if whole - travelled[now - 1] < 5:
        return 0.0
    bump, knot = _shapes(last, now)
    bend = (travelled - travelled[knot][:, None]).clamp_min(0) / whole
    design = torch.stack([torch.ones_like(bump), (travelled / whole).expand_as(bump), bend, bump], -1)
    normal = design.mT @ design + 1e-9 * torch.eye(4, dtype=design.dtype)
    fitted = torch.linalg.solve(normal, design.mT @ heading[:, None].expand(len(design), -1, -1))
    best = int(((design @ fitted)[..., 0] - heading).square().sum(-1).argmin())
    return (fitted[best, 3, 0] * (bump[best] * advance).sum()).item()


# ---------------------------------------------------------------------------------------------------------------------- the rules


def _decide(does: bool, does_not: bool) -> str:
    return "consistent" if does else "inconsistent" if does_not else "unclear"


def _keep_speed(m: Motion) -> str:
    away = max(m.high - m.pace, m.pace - m.low)
    return _decide(away <= m.beyond(0.8, 0.08), away > m.beyond(1.2, 0.12))


def _keep_distance(m: Motion) -> str:
    stops = m.low < STANDING < CREEPING < m.pace
    return _decide(m.low >= 0.6 * m.pace - 0.5 and m.high <= 1.25 * m.pace + 1, m.high > 1.5 * m.pace + 2 or stops)


def _slow_down(m: Motion) -> str:
    drop = m.pace - m.low
    return _decide(
        drop >= m.beyond(0.15, 0.015) and m.high - m.pace < m.beyond(0.8, 0.08) and m.low > -CREEPING,
        drop < m.beyond(0.08, 0.008) or m.end > m.pace + m.beyond(1, 0.1) or m.low < -CREEPING,
    )


def _stop(m: Motion) -> str:
    if m.low < -CREEPING:
        return "inconsistent"
    if m.pace < CREEPING:
        return _decide(m.high < CREEPING, m.high > 2 * CREEPING)
    return _decide(m.low < 1 or m.end <= 0.6 * m.pace, m.low > 0.8 * m.pace)


def _remain_stopped(m: Motion) -> str:
    moved = 0.1 * m.speed[:20].abs().sum().item()
    return _decide(moved < 0.7, moved > 2)


def _start(m: Motion) -> str:
    gained = m.speed[:40].max().item() - max(m.v0, 0.0)
    return _decide(gained > 1 and not m.reverses, gained < 0.5 or m.reverses)


def _accelerate(m: Motion) -> str:
    gained, lost = m.high - m.pace, m.pace - m.low
    return _decide(gained >= m.beyond(0.3, 0.03) and lost < m.beyond(0.3, 0.03), gained < m.beyond(0.1, 0.01) or lost > m.beyond(0.5, 0.05))


def _yield(m: Motion) -> str:
    stands = m.pace < CREEPING and m.speed[:20].abs().max().item() < CREEPING
    return _decide(stands or m.pace - m.low >= m.beyond(0.5, 0.05), m.pace - m.low < m.beyond(0.2, 0.02))


def _nudge(sign: int) -> Callable[[Motion], str]:
    return lambda m: _decide(sign * m.sidestep > SIDESTEP, -sign * m.sidestep > SIDESTEP)


def _turn(sign: int) -> Callable[[Motion], str]:
    return lambda m: _decide(sign * m.turn > TURN, -sign * m.turn > TURN / 2)


RULES: dict[str, Callable[[Motion], str]] = {
    "keep_speed": _keep_speed,
    "keep_distance": _keep_distance,
    "slow_down": _slow_down,
    "stop": _stop,
    "remain_stopped": _remain_stopped,
    "start": _start,
    "accelerate": _accelerate,
    "yield": _yield,
    "nudge_left": _nudge(1),
    "nudge_right": _nudge(-1),
    "turn_left": _turn(1),
    "turn_right": _turn(-1),
}
"""Intent -> rule: Motion -> one of VERDICTS."""
