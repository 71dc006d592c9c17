"""MCAP files and ROS bags: compressed or raw images, camera_info, tf, odometry or NavSatFix with an IMU.

Frames: every sensor's frame is looked up from `base_footprint`, or else `base_link`, through tf. Poses are taken from the first odometry
topic, or from the tf of `map` or `odom`, or from a NavSatFix with the IMU's orientation; those of another frame than base_link are moved
there, as tf says. base_link may be anywhere on a car: where it is not the rear axle's middle on the ground, set poses.lever_arm (and the
cameras' places) in the recording.yaml that is written.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.importers.draft import QUATERNION, Draft, DraftCamera, mounting, picture_size, pinhole, transform
from alpamayo_r1.data.tables import reading

INSTALL = "pip install 'alpamayo-r1[recordings]'"
ROOTS = ("base_footprint", "base_link", "rear_axle", "ego_vehicle", "vehicle")
WORLDS = ("map", "odom", "world", "utm", "earth")
PINHOLES, FISHEYES = ("plumb_bob", "rational_polynomial", ""), ("equidistant", "fisheye", "kannala_brandt", "kannala_brandt4")
MODELS = {**dict.fromkeys(PINHOLES, "pinhole"), **dict.fromkeys(FISHEYES, "fisheye")}

KINDS = {
    *("CompressedImage", "Image", "CameraInfo", "CameraCalibration", "TFMessage", "FrameTransform", "FrameTransforms"),
    *("Odometry", "PoseStamped", "PoseWithCovarianceStamped", "PoseInFrame", "NavSatFix", "LocationFix", "Imu"),
}
"""Names of the messages that are read."""

PLAIN = {"compressed", "image", "image_raw", "image_rect", "image_color", "image_rect_color"}
"""Parts of an image topic's name that say nothing of the camera."""


@dataclass
class Log:
    """What was read of a bag: by topic, and by frame."""

    infos: dict[str, Any] = field(default_factory=dict)
    images: dict[str, list[tuple[float, Path]]] = field(default_factory=dict)
    frames: dict[str, str] = field(default_factory=dict)
    still: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    moving: list[tuple[float, str, str, np.ndarray]] = field(default_factory=list)
    odometry: dict[str, list[tuple[float, np.ndarray]]] = field(default_factory=dict)
    places: list[tuple[float, float, float, float]] = field(default_factory=list)
    attitudes: list[tuple[float, list[float]]] = field(default_factory=list)
    of: dict[str, str] = field(default_factory=dict)
    """An odometry topic, "place" or "attitude" -> the frame that it is of."""


def convert(kind: str, src: Path, out: Path, pick: str | None) -> Path:
    """The bag as a recording; pick: only image topics whose name holds this. Raises SourceError."""
    with tempfile.TemporaryDirectory(dir=out.parent if out.parent.is_dir() else None) as aside:
        log = Log()
        with reading(SourceError, f"{src}", "a whole MCAP file or ROS bag", "record it again, or `mcap recover` it."):
            for topic, name, message in mcap_messages(src) if src.is_file() and src.suffix == ".mcap" else bag_messages(src):
                _take(log, topic, name.split("/")[-1], message, Path(aside), pick)
            draft = _draft(log, src)
        return draft.write(out)


def mcap_messages(src: Path) -> Iterator[tuple[str, str, Any]]:
    """Topic, type and content of every message of an .mcap that is ROS 2 (cdr), ROS 1 or JSON."""
    try:
        from mcap.reader import make_reader
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError:
        raise SourceError("mcap and rosbags are not installed.", "both", INSTALL) from None
    store, known = get_typestore(Stores.EMPTY), set[str]()
    with src.open("rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            if schema is None:
                continue
            name = _full(schema.name)
            if channel.message_encoding == "json":
                yield channel.topic, name, _named(json.loads(message.data))
                continue
            if channel.message_encoding not in ("cdr", "ros1"):
                if not _wanted(name):
                    continue
                raise SourceError(
                    f"{channel.topic} in {src.name} is encoded as {channel.message_encoding}.",
                    "cdr (ROS 2), ros1 or json",
                    "convert the file.",
                )
            if not _wanted(name):
                continue
            if name not in known:
                types = get_types_from_msg(schema.data.decode(), name)
                store.register({key: value for key, value in types.items() if key not in store.fielddefs})
                known.add(name)
            decode = store.deserialize_cdr if channel.message_encoding == "cdr" else store.deserialize_ros1
            yield channel.topic, name, decode(message.data, name)


def bag_messages(src: Path) -> Iterator[tuple[str, str, Any]]:
    """Topic, type and content of every message of a ROS 2 bag's folder or a ROS 1 .bag."""
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise SourceError("rosbags is not installed.", "it", INSTALL) from None
    with AnyReader([src], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        wanted = [connection for connection in reader.connections if _wanted(connection.msgtype)]
        for connection, _, raw in reader.messages(connections=wanted):
            yield connection.topic, connection.msgtype, reader.deserialize(raw, connection.msgtype)


def _wanted(name: str) -> bool:
    return name.split("/")[-1].split(".")[-1] in KINDS


def _full(name: str) -> str:
    """pkg/Name and pkg.Name as pkg/msg/Name."""
    parts = name.replace(".", "/").split("/")
    return "/".join((parts[0], "msg", parts[-1])) if len(parts) == 2 else "/".join(parts)


def _named(value: Any) -> Any:
    """JSON objects with their keys as attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: _named(entry) for key, entry in value.items()})
    return [_named(entry) for entry in value] if isinstance(value, list) else value


def _take(log: Log, topic: str, name: str, message: Any, aside: Path, pick: str | None) -> None:
    """One message into the log. Pictures go to files at once: an hour of them has many gigabytes."""
    if name in ("CompressedImage", "Image"):
        if pick is None or pick in topic:
            _picture(log, topic, name, message, aside)
    elif name in ("CameraInfo", "CameraCalibration"):
        log.infos.setdefault(topic, message)
    elif name in ("TFMessage", "FrameTransforms", "FrameTransform"):
        for one in [message] if name == "FrameTransform" else message.transforms:
            _frame(log, topic, one)
    elif name in ("Odometry", "PoseWithCovarianceStamped"):
        pose, log.of[topic] = message.pose.pose, str(getattr(message, "child_frame_id", "")).lstrip("/")
        log.odometry.setdefault(topic, []).append((_time(message), _pose(pose.position, pose.orientation)))
    elif name in ("PoseStamped", "PoseInFrame"):
        log.odometry.setdefault(topic, []).append((_time(message), _pose(message.pose.position, message.pose.orientation)))
    elif name in ("NavSatFix", "LocationFix"):
        place = (float(message.latitude), float(message.longitude), float(message.altitude))
        if np.isfinite(place).all() and not (hasattr(message, "status") and message.status.status < 0):  # a receiver without a fix
            log.of["place"] = _frame_of(message)
            log.places.append((_time(message), *place))
    elif name == "Imu":
        q, log.of["attitude"] = message.orientation, _frame_of(message)
        log.attitudes.append((_time(message), [q.x, q.y, q.z, q.w]))


def _picture(log: Log, topic: str, name: str, message: Any, aside: Path) -> None:
    own = log.images.setdefault(topic, [])
    log.frames[topic] = _frame_of(message)
    stem = aside / f"{len(log.images):03d}_{list(log.images).index(topic):03d}_{len(own):06d}"
    if name == "CompressedImage":
        data = base64.b64decode(message.data) if isinstance(message.data, str) else bytes(message.data)
        file = stem.with_suffix(".png" if "png" in str(message.format) else ".jpg")
        file.write_bytes(data)
    else:
        from PIL import Image

        file = stem.with_suffix(".png")
        Image.fromarray(_pixels(message)).save(file, compress_level=1)
    own.append((_time(message), file))


def _frame_of(message: Any) -> str:
    return str(message.header.frame_id if hasattr(message, "header") else message.frame_id).lstrip("/")


def _pixels(message: Any) -> np.ndarray:
    """A raw image as u8[h, w, 3]. Raises SourceError for encodings other than rgb8, bgr8, rgba8, bgra8 and mono8."""
    channels = {"rgb8": (3, [0, 1, 2]), "bgr8": (3, [2, 1, 0]), "rgba8": (4, [0, 1, 2]), "bgra8": (4, [2, 1, 0]), "mono8": (1, [0, 0, 0])}
    if message.encoding not in channels:
        raise SourceError(f"an image is encoded as {message.encoding}.", ", ".join(channels), "republish it as compressed.")
    count, order = channels[message.encoding]
    rows = np.frombuffer(bytes(message.data), dtype=np.uint8).reshape(message.height, -1)[:, : message.width * count]
    return np.ascontiguousarray(rows.reshape(message.height, message.width, count)[..., order])


def _time(message: Any) -> float:
    stamp = message.header.stamp if hasattr(message, "header") else message.timestamp
    seconds = getattr(stamp, "sec", getattr(stamp, "secs", 0))
    rest = getattr(stamp, "nanosec", getattr(stamp, "nsec", getattr(stamp, "nsecs", 0)))
    return int(seconds) + int(rest) / 1e9


def _pose(position: Any, orientation: Any) -> np.ndarray:
    turn = Rotation.from_quat([orientation.x, orientation.y, orientation.z, orientation.w]).as_matrix()
    return transform(turn, np.array([position.x, position.y, position.z]))


def _frame(log: Log, topic: str, one: Any) -> None:
    """A transform of tf; what is published on tf_static, or once, holds for ever."""
    parent = str(one.header.frame_id if hasattr(one, "header") else one.parent_frame_id).lstrip("/")
    child = str(one.child_frame_id).lstrip("/")
    moved = one.transform if hasattr(one, "transform") else one
    matrix = _pose(moved.translation, moved.rotation)
    log.still[child] = (parent, matrix)
    if "static" not in topic and parent in WORLDS:
        log.moving.append((_time(one), parent, child, matrix))


def _to_root(log: Log, frame: str) -> np.ndarray | None:
    """A frame's pose in the car's root frame, None where tf does not lead there."""
    matrix = np.eye(4)
    for _ in range(32):
        if frame in ROOTS:
            break
        if frame not in log.still:
            return None
        parent, step = log.still[frame]
        matrix, frame = step @ matrix, parent
    return _lifted(log, frame) @ matrix if frame in ROOTS else None


def _on_car(log: Log, frame: str) -> np.ndarray:
    """A frame's pose in the car's root frame; the root's own where tf does not say."""
    pose = _to_root(log, frame)
    return np.eye(4) if pose is None else pose


def _lifted(log: Log, root: str) -> np.ndarray:
    """A root's pose in base_footprint, where tf has that too."""
    above = log.still.get(root)
    return above[1] if above is not None and above[0] == "base_footprint" else np.eye(4)


def _draft(log: Log, src: Path) -> Draft:
    draft = Draft(src.stem.lstrip(".- ") or "bag", *_poses(log, src))
    if "lat" in draft.poses:
        draft.lever_arm = _lever_arm(log)
    names = _short(list(log.images))
    lost = []
    for topic, pictures in log.images.items():
        info, pose = _info(log, topic), _to_root(log, log.frames[topic])
        if info is None or pose is None or len(pictures) < 2:
            lost.append(f"{topic} ({'no camera_info' if info is None else f'no tf from {log.frames[topic]} to {ROOTS[0]} or {ROOTS[1]}'})")
            continue
        times, files = zip(*pictures)
        lens = camera_lens(info, picture_size(files[0]), topic)
        draft.cameras[names[topic]] = DraftCamera(lens, mounting(pose), list(times), list(files))
    if not draft.cameras:
        raise SourceError(
            f"{src} has no camera that can be used: {'; '.join(lost) or 'no image topics'}.",
            "image topics with a camera_info beside them, and tf_static up to base_link",
            "record these topics too, or export the pictures and write a recording.yaml.",
        )
    return draft


def _lever_arm(log: Log) -> tuple[float, float, float]:
    """Where the receiver is on the car."""
    x, y, z = (round(float(v), 6) for v in _on_car(log, log.of["place"])[:3, 3])
    return x, y, z


def _short(topics: list[str]) -> dict[str, str]:
    """Topics -> the part of their names that tells them apart."""
    parts = {topic: [p for p in topic.strip("/").split("/") if p] for topic in topics}
    common = set.intersection(*(set(p) for p in parts.values())) if len(topics) > 1 else set()
    common |= PLAIN if len({tuple(p for p in own if p not in PLAIN) for own in parts.values()}) == len(topics) else set()
    return {topic: "_".join(p for p in own if p not in common) or own[0] for topic, own in parts.items()}


def _info(log: Log, topic: str) -> Any | None:
    """The camera_info that shares the longest beginning with an image topic."""
    fits = {other: len(_common(topic, other)) for other in log.infos}
    best = max(fits, key=lambda other: fits[other], default=None)
    if best is None:
        return None
    folder = topic.strip("/").split("/")[0] if len(log.images) > 1 else ""
    return log.infos[best] if not folder or fits[best] > 1 else None


def _common(a: str, b: str) -> list[str]:
    found = []
    for x, y in zip(a.split("/"), b.split("/")):
        if x != y:
            break
        found.append(x)
    return found


def camera_lens(info: Any, size: tuple[int, int], topic: str) -> dict[str, Any]:
    """A camera_info as recording.yaml writes it, scaled where the pictures are smaller than it says."""
    matrix = np.array(getattr(info, "k", getattr(info, "K", None)), dtype=np.float64).reshape(3, 3).copy()
    distortion = [float(v) for v in getattr(info, "d", getattr(info, "D", []))]
    name = str(getattr(info, "distortion_model", ""))
    if name not in MODELS:
        raise SourceError(f"the camera_info of {topic} has the model {name}.", ", ".join(filter(None, MODELS)), "write its lens by hand.")
    across, down = size[0] / int(info.width), size[1] / int(info.height)
    matrix[0, 2], matrix[1, 2] = (matrix[0, 2] + 0.5) * across - 0.5, (matrix[1, 2] + 0.5) * down - 0.5
    matrix[0, 0], matrix[1, 1] = matrix[0, 0] * across, matrix[1, 1] * down
    counts = (0, 4, 5, 8) if MODELS[name] == "pinhole" else (0, 4)
    fits = [count for count in counts if count <= len(distortion)]
    return pinhole(matrix, size, distortion[: fits[-1]]) | {"model": MODELS[name]}


def _poses(log: Log, src: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """Columns of poses, and the sections position and orientation."""
    local = {"columns": ["x", "y", "z"], "frame": "local"}
    topic = next((topic for topic, rows in log.odometry.items() if len(rows) >= 4), None)
    if topic is not None:
        back = np.linalg.inv(_on_car(log, log.of.get(topic, "")))
        rows = [(time, matrix @ back) for time, matrix in log.odometry[topic]]
    else:
        rows = [(time, matrix @ np.linalg.inv(_lifted(log, child))) for time, _, child, matrix in log.moving if child in ROOTS]
    if len(rows) >= 4:
        times, matrices = np.array([time for time, _ in rows]), np.array([matrix for _, matrix in rows])
        turn = Rotation.from_matrix(matrices[:, :3, :3]).as_quat()
        return {"time": times, **dict(zip("xyz", matrices[:, :3, 3].T)), **dict(zip(("qx", "qy", "qz", "qw"), turn.T))}, local, QUATERNION
    if len(log.places) >= 4:
        time, lat, lon, height = np.array(log.places).T
        columns = {"time": time, "lat": lat, "lon": lon, "height": height}
        place = {"columns": ["lat", "lon", "height"], "frame": "WGS84"}
        if len(log.attitudes) < 2:
            return columns, place, {"kind": "from_motion"}
        from scipy.spatial.transform import Slerp

        moments = np.array([t for t, _ in log.attitudes])
        kept = np.unique(moments, return_index=True)[1]
        slerp = Slerp(moments[kept], Rotation.from_quat(np.array([q for _, q in log.attitudes])[kept]))
        inside = (time >= moments.min()) & (time <= moments.max())
        turn = (slerp(time[inside]) * Rotation.from_matrix(_on_car(log, log.of["attitude"])[:3, :3]).inv()).as_quat()
        columns = {key: values[inside] for key, values in columns.items()}
        return columns | dict(zip(("qx", "qy", "qz", "qw"), turn.T)), place, QUATERNION
    raise SourceError(
        f"{src} has no poses.",
        "nav_msgs/Odometry, geometry_msgs/PoseStamped, tf of map or odom, or sensor_msgs/NavSatFix",
        "record one of them too.",
    )
