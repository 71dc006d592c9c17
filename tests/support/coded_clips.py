"""A tiny data set in the published layout whose videos carry their frame numbers as bar codes, and what its clip holds by construction."""

import io
import json
import math
import zipfile
from fractions import Fraction

import av
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from alpamayo_r1.core.types import CAMERAS

CLIP, OTHER = "030c760c-ae38-49aa-9ad8-f5650a545d26", "11111111-ae38-49aa-9ad8-f5650a545d26"
COMMIT = "0" * 39 + "1"
SIZE = (64, 96)
BITS, BAR = 12, 8
FRAMES, FIRST_US = 240, -20_000
LATE_US = {camera: 3_000 * i for i, camera in enumerate(CAMERAS)}
REAR = "camera_rear_tele_30fov"


def stamps(camera):
    """Times of a camera's frames, 30 Hz, each camera a little later than the one before."""
    return FIRST_US + LATE_US[camera] + (np.arange(FRAMES) * 1e6 / 30).round().astype(np.int64)


def bars(number):
    """A picture whose vertical bars are the bits of a number."""
    row = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], BAR)
    return np.broadcast_to(row[None, :, None], (*SIZE, 3)).astype(np.uint8)


def number_of(picture):
    """The number that a picture u8[3, h, w] carries."""
    columns = picture.float().mean((0, 1)).unflatten(0, (BITS, BAR)).mean(1)
    return sum(1 << bit for bit, value in enumerate(columns.tolist()) if value > 127)


def video(frames=FRAMES, first=0, time_base=None, container="mp4"):
    """Bytes of a small video; frame n shows bars(n)."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream("libx264", rate=30, options={"crf": "18", "preset": "ultrafast", "g": "30", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        if time_base:
            stream.time_base = stream.codec_context.time_base = time_base
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(bars(n), format="rgb24")
            frame.time_base = time_base or Fraction(1, 30)
            frame.pts = round((n + first) / 30 / frame.time_base)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


SPEED, RATE = 10.0, 0.1


def pose(t):
    """The analytic drive: a circle, climbing, pitched and rolled. t [N] seconds -> xyz, Rotation."""
    yaw = 0.3 + RATE * t
    xyz = np.stack([SPEED / RATE * np.sin(yaw) + 7, -SPEED / RATE * np.cos(yaw) - 3, 0.2 * t], -1)
    return xyz, Rotation.from_euler("ZYX", np.stack([yaw, 0.02 * np.sin(t), 0.01 * np.cos(t)], -1))


def egomotion():
    """100 Hz from 0 to 15 s."""
    t = np.arange(0, 15.005, 0.01)
    xyz, rot = pose(t)
    data = (
        {"timestamp": (t * 1e6).round().astype(np.int64)} | dict(zip(("qx", "qy", "qz", "qw"), rot.as_quat().T)) | dict(zip("xyz", xyz.T))
    )
    return pd.DataFrame(data | dict.fromkeys(("vx", "vy", "vz", "ax", "ay", "az", "curvature"), math.nan))


def parquet(table):
    file = io.BytesIO()
    table.to_parquet(file)
    return file.getvalue()


def zipped(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as chunk:
        for name, content in members.items():
            chunk.writestr(name, content)


def table(path, frame):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)


def chunk(root, feature):
    folder = "camera" if feature.startswith("camera") else "labels"
    return root / folder / feature / f"{feature}.chunk_0000.zip"


def put_camera(root, camera, clip=None, times=None):
    """(Re)writes a camera's chunk."""
    times = stamps(camera) if times is None else times
    times = pd.DataFrame({"timestamp": times, "frame_index": np.arange(len(times))})
    zipped(chunk(root, camera), {f"{CLIP}.{camera}.mp4": clip or VIDEO, f"{CLIP}.{camera}.timestamps.parquet": parquet(times)})


def put_egomotion(root, data):
    zipped(chunk(root, "egomotion"), {f"{CLIP}.egomotion.parquet": parquet(data)})


VIDEO = video()


def write_tree(root):
    """A data set of one whole clip (chunk 0) and one whose chunk (1) was never downloaded."""
    root.mkdir(parents=True)
    rows = [("egomotion", "labels", "labels/egomotion/egomotion.chunk_{chunk_id:04d}.zip", {"egomotion": "{clip_id}.egomotion.parquet"})]
    for camera in (*CAMERAS, REAR):
        members = {"video": f"{{clip_id}}.{camera}.mp4", "frame_timestamps": f"{{clip_id}}.{camera}.timestamps.parquet"}
        rows.append((camera, "camera", f"camera/{camera}/{camera}.chunk_{{chunk_id:04d}}.zip", members))
    tables = ("camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions")
    rows += [(t, "calibration", f"calibration/{t}/{t}.chunk_{{chunk_id:04d}}.parquet", None) for t in tables]
    features = pd.DataFrame(rows, columns=["feature", "directory", "chunk_path", "clip_files_in_zip"])
    features["clip_files_in_zip"] = features["clip_files_in_zip"].map(lambda m: json.dumps(m) if m else None)
    features.to_csv(root / "features.csv", index=False)
    clips = pd.Index([CLIP, OTHER], name="clip_id")
    table(root / "clip_index.parquet", pd.DataFrame({"clip_is_valid": True, "chunk": [0, 1], "split": "test"}, index=clips))
    table(root / "splits" / "default.parquet", pd.DataFrame({"split": "test"}, index=clips))
    presence = pd.DataFrame({f: True for f in features["feature"]}, index=clips).assign(**{REAR: False})
    table(root / "metadata" / "feature_presence.parquet", presence)
    table(root / "metadata" / "data_collection.parquet", pd.DataFrame({"country": "x", "platform_class": "hyperion_8"}, index=clips))
    put_egomotion(root, egomotion())
    for camera in CAMERAS:
        put_camera(root, camera)
    put_calibration(root)
    return root


def put_calibration(root):
    names = pd.MultiIndex.from_tuples([(CLIP, c) for c in CAMERAS], names=["clip_id", "camera_name"])
    lens = {"width": SIZE[1], "height": SIZE[0], "cx": 47.5, "cy": 31.5}
    lens |= {f"fw_poly_{i}": v for i, v in enumerate((0.0, 46.0, 0.0, 0.0, 0.0))}
    lens |= {f"bw_poly_{i}": v for i, v in enumerate((0.0, 1 / 46.0, 0.0, 0.0, 0.0))}
    table(root / "calibration/camera_intrinsics/camera_intrinsics.chunk_0000.parquet", pd.DataFrame(lens, index=names))
    forward = dict(zip(("qx", "qy", "qz", "qw"), Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]).as_quat()))
    sensors = pd.DataFrame(forward | {"x": 1.5, "y": 0.0, "z": 1.4}, index=names.rename(["clip_id", "sensor_name"]))
    table(root / "calibration/sensor_extrinsics/sensor_extrinsics.chunk_0000.parquet", sensors)
    body = {"length": 4.9, "width": 1.9, "height": 1.5, "rear_axle_to_bbox_center": 1.4, "wheelbase": 2.9, "track_width": 1.6}
    body = pd.DataFrame(body, index=pd.Index([CLIP], name="clip_id"))
    table(root / "calibration/vehicle_dimensions/vehicle_dimensions.chunk_0000.parquet", body)


def expected_path(t0, t):
    """The analytic drive in the ego frame at t0."""
    (origin,), axes = pose(np.array([t0]))
    xyz, rot = pose(t)
    return axes[0].inv().apply(xyz - origin), (axes[0].inv() * rot).as_matrix()


def shown(sample):
    """Frame numbers [C][K] read off the pictures."""
    return [[number_of(picture) for picture in camera] for camera in sample.observation.frames]
