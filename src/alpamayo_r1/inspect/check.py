"""The whole check: findings on every item of a recording, in the order in which a careful engineer would look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as Folder

import numpy as np
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.errors import DataError, MissingCamera
from alpamayo_r1.data.recording.drive import WHOLE, Recording
from alpamayo_r1.data.recording.poses import Track, read_track
from alpamayo_r1.data.recording.schema import OPTICAL
from alpamayo_r1.data.recording.smoothing import noise_of
from alpamayo_r1.inspect.cameras import MOVES, Look, Mounting, against, agreement, long_steps, look_at, mounting_of, turn_ratio
from alpamayo_r1.inspect.clock import shift_of
from alpamayo_r1.inspect.findings import ATTENTION, OK, UNKNOWN, WRONG, Finding
from alpamayo_r1.inspect.motion import Motion
from alpamayo_r1.inspect.paths import Path, direction, path_of, rates, wheels

FEWEST, SHARE, FITS = 10, 0.45, 0.55
"""Steps in which the road must fit, their share of those that moved for a mounting to be judged, and how well for it to be called wrong."""

SPEED, SLIP, PITCH = 0.2, math.radians(4.5), 2.5
"""How far a camera's speed (log), direction (radians) and pitch (degrees) may be off."""

NOISY = 0.01
"""Metres, and metres per root second, of noise from which smoothing is advised: histories are read to centimetres."""

TURN = 0.18
"""Logarithm by which the camera ahead may turn more or less than the poses."""

STEADY, NEARLY_ALL = 0.15, 0.8
"""Spread of the logarithm of a camera's speed over the poses' from which it is not the road that it sees (roads have 0.05 at most), and the
share of the steps that fit from which twice as much may be a wrong pitch.
"""

SLOWEST = 0.2
"""Share of the poses' speed below which what is seen is not the road: feet for metres give 0.3."""

BESIDE = 0.9
"""Logarithm of a camera's speed over the others' from which it is not the road that it sees."""

ASIDE, SAME = 0.3, 0.5
"""Radians from straight ahead from which the road tells a mirrored camera; correlation from which turns are the same, or mirrored."""

AHEAD = 0.6
"""Radians from straight ahead up to which a camera shows turns, and a road that traffic beside the car does not hide."""

SHIFT = 0.035
"""Seconds of clock shift from which it is wrong."""

FARTHEST = 0.55
"""Seconds of shift from which on a best fit is none: more were not tried."""

CAN_TELL, ENOUGH = 0.015, 0.045
"""Standard errors in seconds up to which a clock counts as right, and up to which a shift of SURE times as much counts as wrong."""

SURE = 4.5
"""Standard errors from which a shift is none by chance: traffic beside the car follows its own clock."""


@dataclass
class Inspection:
    """What was found: the findings, and the records that a page draws from."""

    findings: list[Finding] = field(default_factory=list)
    recording: Recording | None = None
    path: Path | None = None
    looks: dict[str, Look] = field(default_factory=dict)
    motions: dict[str, Motion] = field(default_factory=dict)
    mountings: dict[str, Mounting] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        """Whether anything has to be changed."""
        return any(finding.verdict == WRONG for finding in self.findings)

    def plain(self) -> list[dict[str, object]]:
        """The findings for JSON."""
        return [{"item": f.item, "verdict": f.verdict, "seen": f.seen, "faults": list(f.faults), "do": f.do or None} for f in self.findings]


def inspect(folder: str | Folder) -> Inspection:
    """Checks a recording. What can't be opened becomes a finding too; only a folder without a recording.yaml raises OSError."""
    found = Inspection()
    try:
        found.recording = recording = Recording(Folder(folder))
        track = read_track(replace(recording.setup.poses, smooth=None))
        assert recording.streams is not None
    except DataError as error:
        found.findings.append(Finding("recording.yaml and its files", WRONG, str(error), ("recording-broken",)))
        return found
    found.findings.append(
        Finding("recording.yaml and its files", OK, f"{len(recording.setup.cameras)} cameras, {len(track.times_us):,} poses")
    )
    found.findings.append(rates(track))
    path = path_of(track)
    agreed, undone = direction(path)
    smooth, smoothed_track = smoothing(recording, track, agreed.verdict == OK)
    if smoothed_track is not None and agreed.verdict == OK:
        track, path = smoothed_track, path_of(smoothed_track)
    found.findings += [smooth, wheels(track, path), *(upright(recording, name) for name in recording.setup.cameras)]
    ahead = min(recording.setup.cameras, key=lambda name: (_telescope(recording, name), abs(_azimuth(recording, name))))
    for name in recording.setup.cameras:
        found.looks[name] = look_at(recording, name, track)
        found.findings.append(pictures(recording, found.looks[name], path))
    found.path = next(iter(undone.values()), path)
    for name, look in found.looks.items():
        found.mountings[name], found.motions[name] = mounting_of(look, found.path)
    turn = found.mountings[ahead].turn
    found.findings.insert(2, _decided(agreed, undone, found, ahead))
    found.findings += mountings(found, ahead, turn if agreed.verdict == OK else math.nan)
    found.findings.append(clock(found, turn))
    found.findings.append(views(recording))
    return found


def smoothing(recording: Recording, raw: Track, agreed: bool) -> tuple[Finding, Track | None]:
    """How noisy the positions are, and what poses.smooth does about it; the smoothed track, None where there is none."""
    item, how = "poses: noise", recording.setup.poses.smooth
    if not agreed:
        return Finding(item, UNKNOWN, "path and orientation disagree, or the car hardly moves"), None
    noise = noise_of(raw.times_us / 1e6, raw.xyz, Rotation.from_quat(raw.quaternion))
    said = f"positions have {100 * noise.white:.1f} cm of noise and wander by {100 * noise.wander:.1f} cm per root second"
    if how is None:
        noisy = max(noise.white, noise.wander) > NOISY and recording.setup.poses.orientation.kind != "from_motion"
        return Finding(item, ATTENTION if noisy else OK, f"{said}, to the car's side", ("pose-noise",) if noisy else ()), None
    try:
        track = recording.track
    except DataError as error:
        return Finding(item, WRONG, str(error), ("pose-noise",)), None
    effect = track.smoothed
    assert effect is not None
    said += f"; smoothing moves them by {100 * effect.moved:.1f} cm (rms), {100 * effect.most:.1f} cm at most, after {effect.when:.2f} s"
    return Finding(item, OK, said), track


def _azimuth(recording: Recording, name: str) -> float:
    rot = recording.setup.cameras[name].calibration.rot
    return math.atan2(rot[1][2], rot[0][2])


def _telescope(recording: Recording, name: str) -> bool:
    lens = recording.setup.cameras[name].calibration.lens
    return lens.width / lens.focal < 0.9


def _decided(agreed: Finding, undone: Mapping[str, Path], found: Inspection, ahead: str) -> Finding:
    """Of several faults that explain the poses, those whose turns the pictures confirm."""
    if len(undone) < 2:
        return agreed
    look, motion = found.looks[ahead], found.motions[ahead]
    ratios = {fault: turn_ratio(motion, look.times, path) for fault, path in undone.items()}
    kept = tuple(fault for fault in agreed.faults if not ratios[fault] < 0)
    return Finding(agreed.item, agreed.verdict, agreed.seen, kept or agreed.faults)


def upright(recording: Recording, name: str) -> Finding:
    """Whether a camera can hang on a car as its mounting says."""
    calibration = recording.setup.cameras[name].calibration
    rot, height = np.array(calibration.rot), calibration.position[2]
    item = f"camera {name}: mounting"
    down, rise = float(rot[2, 1]), math.degrees(math.asin(float(np.clip(rot[2, 2], -1, 1))))
    said = f"looks {math.degrees(_azimuth(recording, name)):.0f} degrees to the left and {-rise:.0f} down from {height:.2f} m"
    if down > -0.7 or abs(rise) > 60:
        other = {"extrinsics-inverted": rot.T, "camera-axes": rot @ OPTICAL["FLU"], "camera-axes ": rot @ OPTICAL["FLU"].T}
        kept = tuple(dict.fromkeys(fault.strip() for fault, turn in other.items() if turn[2, 1] < -0.85 and abs(turn[2, 2]) < 0.6))
        return Finding(item, WRONG, f"{said}; its lower edge points {'up' if down > 0 else 'sideways'}", kept or ("camera-roll",))
    if not 0.2 < height < 5:
        return Finding(item, WRONG, said, ("extrinsics-inverted", "camera-height") if height < 0 else ("camera-height",))
    return Finding(item, OK, said)


def pictures(recording: Recording, look: Look, path: Path) -> Finding:
    """Rates and gaps of a camera's pictures; whether they change while the car drives, and show anything."""
    stream = recording.streams[look.name]
    steps = np.diff(stream.timestamps) / 1e6
    said = f"{len(stream.timestamps):,} pictures, {1 / float(np.median(steps)):.1f} per second, longest gap {steps.max():.2f} s"
    item = f"camera {look.name}: pictures"
    if look.flat > 0.5:
        return Finding(item, WRONG, f"{said}; {100 * look.flat:.0f} % are of one colour", ("pictures-flat",))
    if look.still > 0.3:
        moved = np.array([path.distance(pair)[0] for pair in look.times])
        if (moved > 0.3).mean() > 0.5:
            return Finding(item, WRONG, f"{said}; {100 * look.still:.0f} % repeat the one before while the car moves", ("pictures-frozen",))
    if steps.max() > 0.25:
        return Finding(item, ATTENTION, said, ("pictures-gaps",))
    return Finding(item, OK, said)


def mountings(found: Inspection, ahead: str, turn: float) -> list[Finding]:
    """What the road says of every camera, together: a fault that all share is the poses', one that a camera has alone is its own."""
    broken = {f.item.split(":")[0].removeprefix("camera ") for f in found.findings if f.item.startswith("camera ") and f.verdict == WRONG}
    seen = {n: m for n, m in found.mountings.items() if n not in broken and judged(m)}
    findings = []
    straight = {n: m for n, m in seen.items() if abs(m.slip) < math.radians(20) and abs(m.pitch) < PITCH + 1 and m.speed > SLOWEST}
    speeds = [m.speed for m in straight.values()]
    shared = 1.0
    item = "pictures against poses: speed"
    if not speeds:
        findings.append(Finding(item, UNKNOWN, "no camera shows a road that moves"))
    else:
        shared = float(np.median(speeds))
        said = (
            f"the road passes at {shared:.2f} times the poses' speed (" + ", ".join(f"{n} {m.speed:.2f}" for n, m in straight.items()) + ")"
        )
        near = [speed for speed in speeds if abs(math.log(speed / shared)) < SPEED]
        together = len(near) == len(speeds) or 2 <= len(near) > len(speeds) / 2
        if abs(math.log(shared)) < SPEED or not together:
            findings.append(Finding(item, OK if abs(math.log(shared)) < SPEED else UNKNOWN, said))
        else:
            alone = len(speeds) == 1
            faults = ("pose-speed", "camera-height", "camera-focal") if alone else ("pose-speed",)
            findings.append(Finding(item, WRONG, said, faults))
    swapped = _swapped(found, seen)
    reference = shared if findings[0].verdict != UNKNOWN or len(speeds) < 2 else 1.0
    roads = [_mounting(found, name, reference, swapped, name in broken) for name in found.looks]
    return [*findings, _turning(found, seen, ahead, math.nan if ahead in broken else turn), *roads]


def _turning(found: Inspection, seen: Mapping[str, Mounting], ahead: str, turn: float) -> Finding:
    """The turns that the camera ahead shows against the poses'."""
    item = "pictures against poses: turns"
    if math.isnan(turn):
        return Finding(item, UNKNOWN, "the car hardly turns, or the poses disagree with themselves")
    said = f"the pictures of {ahead} turn {turn:.2f} times as the poses do"
    if abs(math.log(max(turn, 0.01))) < TURN:
        return Finding(item, OK, said)
    assert found.path is not None
    given, flipped = (agreement(found.looks[ahead], found.path, flip) for flip in ((), (2, 3)))
    said += f" (correlation {given:.2f}; turned on their heads {flipped:.2f})"
    if flipped > max(0.7, abs(given) + 0.03):
        return Finding(item, WRONG, said, ("pictures-upside-down",))
    if abs(given) < SAME:
        return Finding(item, UNKNOWN, said)
    road = found.mountings[ahead]
    if turn > 0 and road.steps >= FEWEST and abs(math.log(max(road.speed, 0.01))) < TURN:
        return Finding(item, UNKNOWN, f"{said}: the road moves as the poses do, so that it may be what moves ahead")
    if turn > 0:
        return Finding(item, WRONG, said, ("camera-focal", "time-shift"))
    sides = [m for n, m in seen.items() if abs(found.looks[n].azimuth) > 0.4]
    if any(abs(m.slip) > math.radians(30) for m in sides):
        return Finding(item, WRONG, said, ("pictures-mirrored",))
    return Finding(item, WRONG, said, ("poses-mirrored",) if sides else ("poses-mirrored", "pictures-mirrored"))


def _swapped(found: Inspection, seen: Mapping[str, Mounting]) -> dict[str, str]:
    """Camera -> the one whose pictures it has: the road moves as if it looked the other's way, and vice versa, if that can be told."""
    pairs = {}
    for one, m in seen.items():
        for other, look in found.looks.items():
            apart = found.looks[one].azimuth - look.azimuth
            theirs = seen.get(other)
            if (
                abs(apart) > 0.6
                and abs(math.log(m.speed)) < BESIDE
                and _near(m.slip, apart)
                and (theirs is None or _near(theirs.slip, -apart))
            ):
                pairs[one] = other
    return pairs


def _near(angle: float, wanted: float) -> bool:
    return abs(math.remainder(angle - wanted, 2 * math.pi)) < math.radians(25)


def judged(mounting: Mounting) -> bool:
    """Whether enough of the road was seen to fit, and it moved steadily: by the same share of the poses' speed all the time, as traffic
    beside the car does not.
    """
    steady = STEADY * (2 if mounting.share > NEARLY_ALL else 1)
    return mounting.steps >= FEWEST and mounting.share >= SHARE and mounting.spread < steady


def _mounting(found: Inspection, name: str, shared: float, swapped: Mapping[str, str], broken: bool) -> Finding:
    """One camera against the road."""
    item, mounting, look = f"camera {name}: the road", found.mountings[name], found.looks[name]
    if broken or found.path is None:
        return Finding(item, UNKNOWN, "see above")
    if sum(found.path.distance(pair)[0] > MOVES for pair in look.times) < FEWEST:
        return Finding(item, UNKNOWN, "the car hardly moves")
    if mounting.steps < 2:
        flipped = _flipped(found, look, mounting)
        said = f"the road does not fit itself a step later (by {mounting.match:.2f})"
        return Finding(item, UNKNOWN if flipped is None else WRONG, said, () if flipped is None else (flipped,))
    off, error = math.degrees(mounting.slip), math.degrees(mounting.slip_error)
    said = (
        f"fits by {mounting.match:.2f} in {100 * mounting.share:.0f} % of the steps; moves at {mounting.speed:.2f} of the poses' speed, "
        f"{off:+.1f} +- {error:.1f} degrees off straight back, as if the camera looked {mounting.pitch:+.1f} degrees further down"
    )
    if judged(mounting) and abs(math.log(mounting.speed / shared)) > BESIDE:
        return Finding(item, UNKNOWN, f"{said}: what moves along with the car, such as traffic beside it, hides the road")
    if name in swapped:
        return Finding(item, WRONG, said, ("cameras-swapped", "pictures-mirrored"))
    faults = _own_faults(mounting, look, shared) if judged(mounting) and mounting.match > FITS else ()
    if faults or not judged(mounting):
        flipped = _flipped(found, look, mounting)
        if flipped is not None:
            return Finding(item, WRONG, said, (flipped,))
    if not judged(mounting):
        return Finding(item, UNKNOWN, said)
    return Finding(item, WRONG if faults else OK, said, faults)


def _own_faults(mounting: Mounting, look: Look, shared: float) -> tuple[str, ...]:
    """What is wrong with one camera's mounting or lens, the others being right."""
    if abs(mounting.slip) > math.radians(30):
        if abs(look.azimuth) > ASIDE and _near(mounting.slip, 2 * look.azimuth):
            return ("pictures-mirrored",) if abs(math.log(mounting.speed / shared)) < 2 * SPEED else ()
        return ("camera-yaw", "extrinsics-inverted") if mounting.share > 0.7 else ()
    faults = []
    if abs(mounting.pitch) > PITCH:
        faults += ["camera-pitch"]
    if abs(mounting.slip) > SLIP + 2.5 * mounting.slip_error:
        faults += ["camera-yaw"]
    if abs(math.log(mounting.speed / shared)) > SPEED:
        faults += ["camera-height", "camera-focal"]
    if {"camera-pitch", "camera-yaw"} <= set(faults):
        faults += ["camera-lens"]
    return tuple(faults)


def _flipped(found: Inspection, look: Look, given: Mounting) -> str | None:
    """The fault of pictures that fit far better when they are flipped.

    The road ahead looks alike in a mirror: that a camera that looks ahead is mirrored only its turns can say.
    """
    assert found.path is not None
    aside = abs(look.azimuth) > ASIDE or against(found.motions[look.name], look.times, found.path) < -SAME
    some = np.linspace(0, len(look.times) - 1, min(24, len(look.times))).astype(int)
    best, fault = given.share * (abs(given.slip) < SLIP) * (abs(given.pitch) < PITCH) + 0.15, None
    for name, flip in (("pictures-upside-down", (2, 3)), ("pictures-mirrored", (3,)), ("pictures-upside-down", (2,))):
        if flip == (3,) and not aside:
            continue
        tried, _ = mounting_of(look, found.path, some, flip=flip)
        plausible = abs(tried.slip) < 1.5 * SLIP and abs(tried.pitch) < 2 * PITCH and abs(math.log(max(tried.speed, 1e-3))) < 1.5 * SPEED
        if tried.steps >= 5 and plausible and tried.spread < STEADY and tried.share > max(best, SHARE):
            best, fault = tried.share, name
    return fault


def clock(found: Inspection, turn: float) -> Finding:
    """How far the cameras are off the poses' clock, all together, as far as speed and turns change enough to tell."""
    item = "pictures against poses: clock"
    assert found.path is not None
    shifts = {}
    for name, mounting in found.mountings.items():
        look = found.looks[name]
        road = mounting.steps >= FEWEST and abs(mounting.slip) < math.radians(15) and 0.75 < mounting.speed < 1.33
        turns = abs(look.azimuth) < AHEAD and 0.5 < mounting.turn < 2
        if (road or turns) and not turn < 0.3:
            shift = shift_of(*long_steps(look, found.path), found.path, road=road, turns=turns)
            if shift.error < 0.1 and abs(shift.seconds) < FARTHEST:
                shifts[name] = shift
    if not shifts:
        return Finding(item, UNKNOWN, "too little changes, or too little of the road is seen: any shift would look alike")
    weights = {name: shift.error**-2 for name, shift in shifts.items()}
    error = 1 / math.sqrt(sum(weights.values()))
    mean = error**2 * sum(weights[name] * shift.seconds for name, shift in shifts.items())
    apart = sum(weights[name] * (shift.seconds - mean) ** 2 for name, shift in shifts.items()) / max(len(shifts) - 1, 1)
    error *= max(1.0, math.sqrt(apart))  # cameras that disagree know less than each of them claims
    said = f"pictures fit best {1e3 * mean:+.0f} ms after the times they have (+- {1e3 * error:.0f} ms; "
    said += ", ".join(f"{name} {1e3 * shift.seconds:+.0f} +- {1e3 * shift.error:.0f}" for name, shift in shifts.items()) + ")"
    seen_ahead = any(abs(found.looks[name].azimuth) < AHEAD for name in shifts)  # beside the car traffic may set the pace
    if seen_ahead and error < ENOUGH and abs(mean) > max(SHIFT, SURE * error):
        return Finding(item, WRONG, said, ("time-shift",))
    return Finding(item, OK if error < CAN_TELL else UNKNOWN, said)


def views(recording: Recording) -> Finding:
    """Which of the model's views the cameras can show."""
    if recording.setup.views.mode == "raw":
        return Finding("views: coverage", OK, "raw pictures are shown as they are")
    try:
        shown = recording.coverage
    except MissingCamera as error:
        return Finding("views: coverage", WRONG, str(error), ("camera-yaw", "views-missing"))
    said = ", ".join(f"{name} {100 * share:.0f} %{_from_aside(recording, name)}" for name, share in shown.items())
    if len(shown) < len(CAMERAS) or min(shown.values()) < WHOLE:
        return Finding("views: coverage", ATTENTION, said, ("views-missing",) if len(shown) < len(CAMERAS) else ())
    return Finding("views: coverage", OK, said)


def _from_aside(recording: Recording, name: str) -> str:
    """What of a view cameras show that hang far from its place, in words; none if nothing."""
    patches = [f"{100 * share:.0f} % by {own}, {away:.1f} m away" for own, (share, away) in recording.borrowed(name).items()]
    return f" (of it {', '.join(patches)})" if patches else ""
