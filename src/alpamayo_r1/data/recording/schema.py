"""What recording.yaml says, as records: checked once, nothing guessed. docs/own-data.md is the reference for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.gate.files import inside
from alpamayo_r1.core.geometry import Calibration, Lens
from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.ids import check_clip_id
from alpamayo_r1.data.recording import FILE
from alpamayo_r1.data.recording.fields import REFERENCE, Fields, bad, describe, number, read_yaml
from alpamayo_r1.rig.lenses import Pinhole, f_theta, fisheye
from alpamayo_r1.rig.nominal import facing

VERSION = 1
UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Unit of time -> microseconds."""

WORLDS = ("ENU", "NED", "local", "WGS84")
TO_BODY = {"FLU": np.eye(3), "FRD": np.diag([1.0, -1.0, -1.0])}
"""Axes of the car's body -> the matrix whose columns are those axes in forward, left, up."""

OPTICAL = {"optical": np.eye(3), "FLU": np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])}
"""Axes of a camera -> the matrix that turns vectors in those axes into x right, y down, z forward."""


@dataclass(frozen=True)
class Orientation:
    """How the poses' rotations are written: "quaternion" (order, direction), "yaw" or "heading" or "euler" (unit), or "motion" (none).

    body: "FLU" or "FRD". world: the axes that angles and rotations are counted from, of WORLDS. inverse: rotations turn the world into the
    body.
    """

    kind: str
    columns: tuple[str, ...] = ()
    order: str = "xyzw"
    body: str = "FLU"
    inverse: bool = False
    degrees: bool = False
    world: str = "ENU"


@dataclass(frozen=True)
class Smoothing:
    """How positions are smoothed: as a car can have driven them, with the noise (metres, and metres per root second; None: estimated), or
    by parabolas over so many seconds. most: metres that a position may move.
    """

    most: float = 1.0
    noise: float | None = None
    wander: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Poses:
    """Where the poses stand and what their columns mean. lever_arm: the point they are of, in the vehicle frame, metres."""

    file: Path
    time: str
    unit: str
    position: tuple[str, ...]
    world: str
    orientation: Orientation
    lever_arm: tuple[float, ...]
    clock_offset: float
    smooth: Smoothing | None
    speed: str | None
    speed_scale: float


@dataclass(frozen=True)
class Frames:
    """Where a camera's pictures stand: a video, or images with a table of file names; and their times.

    times: a table with `column` in `unit`; or None: frame n at start + n / fps seconds (fps None: at what the video says). Of images
    without a table, `names` says that their names are the times.
    """

    video: Path | None
    images: str | None
    times: Path | None
    column: str
    file_column: str
    unit: str
    start: float
    fps: float | None
    names: bool


@dataclass(frozen=True)
class CameraSetup:
    """One real camera: lens and pose (calibration), pictures, how far its clock is off (seconds to add), its role in raw mode."""

    name: str
    calibration: Calibration
    frames: Frames
    clock_offset: float
    role: str | None


@dataclass(frozen=True)
class Views:
    """What the model is shown: "canonical" views of a size, or "raw" pictures. missing: "leave_out" or "fill" below least_coverage. device:
    where views are rendered, "cpu" or "cuda". depth: what is below the horizon lies on the "road", or all is "far" away.
    """

    mode: str
    width: int
    height: int
    missing: str
    least_coverage: float
    device: str
    depth: str


@dataclass(frozen=True)
class Setup:
    """A whole recording.yaml."""

    root: Path
    name: str
    vehicle: dict[str, float]
    poses: Poses
    cameras: dict[str, CameraSetup]
    views: Views
    window: float
    source: str


def read_setup(root: Path) -> Setup:
    """The recording.yaml of a folder. Raises BadRecording; OSError where it can't be read."""
    content = (root / FILE).read_bytes()
    fields = Fields(read_yaml(content, f"{root.name}/{FILE}"))
    version = fields.get("alpamayo_recording", f"{VERSION}, the version of this layout")
    if version != VERSION:
        raise bad(f"alpamayo_recording is {describe(version)}", f"{VERSION}", "this package reads version 1; see docs/own-data.md")
    name = check_clip_id(fields.text("name", default=root.resolve().name))
    cameras = fields.section("cameras")
    if not cameras.values:
        raise bad("cameras is empty", "at least one camera", REFERENCE)
    found = {str(key): _camera(str(key), cameras.section(key), root) for key in cameras.values}
    views = _views(fields.section("views", default={}), found)
    window = fields.section("windows", default={})
    seconds = window.number("seconds", 2, 3600, default=20.0)
    window.done()
    setup = Setup(
        root, name, _vehicle(fields.section("vehicle", default={})), _poses(fields.section("poses"), root), found, views, seconds,
        fields.choice("source", ("own", "world"), default="own"),
    )  # fmt: skip
    fields.done()
    return setup


def file_in(root: Path, name: str, where: str) -> Path:
    """A file of the recording's folder that is there. Raises BadRecording."""
    try:
        path = inside(root, name)
    except ValueError as error:
        raise bad(f"{where}: {error}", "a file in the recording's folder, its path relative to it", "move or copy it there") from None
    if not path.is_file():
        raise bad(f"{where} names {name!r}, which is not there", f"a file in {root}", "check the name, or put the file there")
    return path


def _vehicle(fields: Fields) -> dict[str, float]:
    bounds = {"length": (0.5, 30), "width": (0.3, 5), "height": (0.3, 6), "wheelbase": (0.3, 15), "rear_axle_to_bbox_center": (-5, 15)}
    values = {key: fields.number(key, low, high, default=None) for key, (low, high) in bounds.items()}
    fields.done()
    return {key: value for key, value in values.items() if value is not None}


def _poses(fields: Fields, root: Path) -> Poses:
    file = file_in(root, fields.text("file"), "poses.file")
    time = fields.section("time")
    column, unit = time.text("column"), time.choice("unit", tuple(UNITS))
    time.done()
    place = fields.section("position")
    world = place.choice("frame", WORLDS)
    expected = "[lat, lon, height]" if world == "WGS84" else "[x, y, z]"
    position = place.texts("columns", (2, 3))
    if len(position) == 2 and world != "WGS84" and place.get("flat", "true", default=False) is not True:
        raise bad("poses.position.columns has 2 entries", expected, "add the height, or say `flat: true` where it is 0 everywhere")
    place.has("flat")
    place.done()
    speed, scale = None, 1.0
    if fields.has("speed"):
        wheel = fields.section("speed")
        speed = wheel.text("column")
        scale = {"m/s": 1.0, "km/h": 1 / 3.6, "mph": 0.44704}[wheel.choice("unit", ("m/s", "km/h", "mph"))]
        wheel.done()
    poses = Poses(
        file, column, unit, position, world, _orientation(fields.section("orientation"), world),
        fields.numbers("lever_arm", (3,), -20, 20, default=(0.0, 0.0, 0.0)),
        fields.number("clock_offset", -3600, 3600, default=0.0), _smoothing(fields), speed, scale,
    )  # fmt: skip
    fields.done()
    if poses.smooth is not None and not poses.smooth.seconds and poses.orientation.kind == "from_motion":
        raise bad(
            "poses.smooth needs an orientation of its own, but poses.orientation.kind is from_motion",
            "columns with an orientation, or a number of seconds over which positions alone are smoothed",
            "say for example smooth: 0.6",
        )
    return poses


def _smoothing(fields: Fields) -> Smoothing | None:
    """`smooth`: true, a mapping, or seconds; false and 0 are none."""
    given = fields.get("smooth", "true", default=False)
    if isinstance(given, bool):
        return Smoothing() if given else None
    if not isinstance(given, Mapping):
        seconds = fields.number("smooth", 0, 5)
        return Smoothing(seconds=seconds) if seconds else None
    how = fields.section("smooth")
    found = Smoothing(
        how.number("most", 0.01, 100, default=1.0),
        how.number("noise", 1e-4, 50, default=None),
        how.number("wander", 1e-4, 50, default=None),
    )
    how.done()
    return found


def _orientation(fields: Fields, world: str) -> Orientation:
    kind = fields.choice("kind", ("quaternion", "yaw", "heading", "euler", "from_motion"))
    if kind == "from_motion":
        fields.done()
        return Orientation(kind)
    count = {"quaternion": 4, "yaw": 1, "heading": 1, "euler": 3}[kind]
    columns = fields.texts("columns", (count,))
    order, inverse, degrees = "xyzw", False, False
    if kind == "quaternion":
        order = fields.choice("order", ("xyzw", "wxyz"))
        inverse = fields.choice("rotates", ("body_to_world", "world_to_body"), default="body_to_world") == "world_to_body"
    else:
        degrees = fields.choice("unit", ("rad", "deg")) == "deg"
    if world != "local":
        world = fields.choice("frame", ("ENU", "NED"), default="NED" if world == "NED" else "ENU")
    body = fields.choice("body", tuple(TO_BODY), default="FRD" if world == "NED" else "FLU")
    fields.done()
    return Orientation(kind, columns, order, body, inverse, degrees, world)


def _camera(name: str, fields: Fields, root: Path) -> CameraSetup:
    check_clip_id(name)
    lens = _lens(fields)
    camera = CameraSetup(
        name,
        Calibration(lens, *_mounting(fields.section("mounting"))),
        _frames(fields.section("frames"), root),
        fields.number("clock_offset", -3600, 3600, default=0.0),
        fields.choice("role", ORDER) if fields.has("role") else None,
    )
    fields.done()
    return camera


def _lens(fields: Fields) -> Lens:
    model = fields.choice("model", ("pinhole", "fisheye", "ftheta"))
    width, height = (int(value) for value in fields.numbers("size", (2,), 16, 16384))
    cx, cy = fields.numbers("centre", (2,), -16384, 32768)
    if model == "ftheta":
        polynomial = fields.numbers("polynomial", tuple(range(2, 12)), -1e7, 1e7)
        if not 1 <= polynomial[1] <= 1e6:
            raise bad(f"{fields.at('polynomial')}[1] is {polynomial[1]:g}", "pixels per radian on the axis, 1 to 1,000,000", REFERENCE)
        return f_theta(width, height, cx, cy, polynomial)
    fx, fy = fields.numbers("focal", (2,), 1, 1e6)
    counts = (0, 4, 5, 8) if model == "pinhole" else (0, 4)
    distortion = fields.numbers("distortion", counts, -1e3, 1e3, default=())
    if model == "fisheye":
        return fisheye(width, height, fx, fy, cx, cy, distortion)
    return Pinhole(width, height, fx, fy, cx, cy, distortion)


def _mounting(fields: Fields) -> tuple[tuple[float, float, float], tuple[tuple[float, float, float], ...]]:
    """Position and rotation (camera to vehicle) of a camera, whichever way they are written."""
    inverse = fields.choice("extrinsics", ("camera_to_vehicle", "vehicle_to_camera"), default="camera_to_vehicle") == "vehicle_to_camera"
    given = [key for key in ("yaw_pitch_roll", "quaternion", "matrix") if fields.has(key)]
    if len(given) != 1:
        raise bad(
            f"{fields.path} has {' and '.join(given) or 'no rotation'}",
            "one of yaw_pitch_roll (degrees), quaternion (with order), matrix (3 x 3)",
            REFERENCE,
        )
    if given == ["yaw_pitch_roll"]:
        if inverse:
            raise bad(
                f"{fields.path} has yaw_pitch_roll with vehicle_to_camera", "the mounting of the camera on the car", "drop `extrinsics`"
            )
        yaw, pitch, roll = fields.numbers("yaw_pitch_roll", (3,), -360, 360)
        turn = np.array(facing(yaw, pitch)) @ _roll(math.radians(roll))
    elif given == ["quaternion"]:
        turn = rotation_of(
            fields.numbers("quaternion", (4,), -1.01, 1.01), fields.choice("order", ("xyzw", "wxyz")), fields.at("quaternion")
        )
    else:
        turn = _matrix(fields.get("matrix", "3 rows of 3 numbers"), fields.at("matrix"))
    position = np.array(fields.numbers("position", (3,), -30, 30))
    if given != ["yaw_pitch_roll"]:
        axes = OPTICAL[fields.choice("axes", tuple(OPTICAL), default="optical")]
        if inverse:
            position, turn = -(turn.T @ position), turn.T
        turn = turn @ axes.T
    fields.done()
    x, y, z = (float(v) for v in position)
    rows = [tuple(float(v) for v in row) for row in turn]
    return (x, y, z), ((*rows[0],), (*rows[1],), (*rows[2],))  # pyright: ignore[reportReturnType]


def rotation_of(values: tuple[float, ...], order: str, where: str) -> np.ndarray:
    """A quaternion as a matrix. Raises BadRecording where its length is not 1."""
    from scipy.spatial.transform import Rotation

    length = math.sqrt(sum(v * v for v in values))
    if abs(length - 1) > 0.01:
        raise bad(f"{where} has length {length:.3g}", "a unit quaternion", "give all four of its numbers, with enough digits")
    return Rotation.from_quat(values if order == "xyzw" else (*values[1:], values[0])).as_matrix()


def _matrix(value: Any, where: str) -> np.ndarray:
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(row, list) and len(row) == 3 for row in value):
        raise bad(f"{where} is {describe(value)}", "3 rows of 3 numbers", REFERENCE)
    turn = np.array([[number(v, -1.01, 1.01, where) for v in row] for row in value])
    if np.abs(turn @ turn.T - np.eye(3)).max() > 0.01:
        raise bad(f"{where} is no rotation (R R^T is off the identity)", "a rotation matrix", "check rows and digits")
    if np.linalg.det(turn) < 0:
        raise bad(f"{where} mirrors (its determinant is -1)", "a right-handed rotation", "one axis points the wrong way: turn its sign")
    u, _, v = np.linalg.svd(turn)
    return u @ v


def _roll(angle: float) -> np.ndarray:
    """A turn about the optical axis."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _frames(fields: Fields, root: Path) -> Frames:
    video, images = fields.has("video"), fields.has("images")
    if video == images:
        raise bad(f"{fields.path} has {'video and images' if video else 'neither video nor images'}", "one of them", REFERENCE)
    pattern = fields.text("images") if images else None
    if pattern is not None and (pattern.startswith(("/", "\\")) or ".." in Path(pattern).parts or ":" in pattern):
        raise bad(
            f"{fields.at('images')} is {pattern!r}", "a pattern within the folder, such as front/*.jpg", "write it relative to the folder"
        )
    times, unit, start, fps, names = None, "s", 0.0, None, False
    column, file_column = "time", "file"
    if fields.has("times"):
        table = fields.section("times")
        if table.has("file"):
            times = file_in(root, table.text("file"), table.at("file"))
            column = table.text("column", default="time")
            file_column = table.text("file_column", default="file")
            unit = table.choice("unit", tuple(UNITS))
        elif images and table.has("from_names"):
            names, unit = True, table.choice("unit", tuple(UNITS))
            if table.get("from_names", "true") is not True:
                raise bad(f"{table.at('from_names')} is {describe(table.values['from_names'])}", "true", REFERENCE)
        else:
            start = table.number("start", -1e12, 1e12)
            fps = table.number("fps", 0.5, 1000) if images or table.has("fps") else None
        table.done()
    else:
        raise bad(
            f"{fields.path} has no times",
            "times: {file, column, unit}, or {start, fps} in seconds of the poses' clock" + (", or {from_names, unit}" if images else ""),
            "say when each frame was taken: a frame at the wrong time looks like another motion",
        )
    path = None if not video else file_in(root, fields.text("video"), fields.at("video"))
    fields.done()
    return Frames(path, pattern, times, column, file_column, unit, start, fps, names)


def _views(fields: Fields, cameras: dict[str, CameraSetup]) -> Views:
    mode = fields.choice("mode", ("canonical", "raw"), default="canonical")
    views = Views(
        mode,
        int(fields.number("width", 32, 4096, default=960)),
        int(fields.number("height", 32, 4096, default=540)),
        fields.choice("missing", ("leave_out", "fill"), default="leave_out"),
        fields.number("least_coverage", 0, 1, default=0.5),
        fields.choice("device", ("cpu", "cuda"), default="cpu"),
        fields.choice("depth", ("road", "far"), default="road"),
    )
    fields.done()
    roles = [camera.role for camera in cameras.values() if camera.role is not None]
    twice = sorted({role for role in roles if roles.count(role) > 1})
    if twice:
        raise bad(f"two cameras have the role {twice[0]}", "each role once", "give one of them another role, or none")
    if mode == "raw" and not roles:
        raise bad("views.mode is raw, but no camera has a role", f"role: one of {', '.join(CAMERAS)}", "say which camera stands for which")
    return views
