"""The small recording's truth, written in the layouts that importers read: nuScenes, KITTI, comma2k19, MCAP and a ROS 2 bag."""

from __future__ import annotations

import io
import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from alpamayo_r1.data.recording.wgs84 import axes_at, ecef, from_enu
from support.recordings import PLACE, truth

SECONDS, FPS = 9.0, 10.0
EPOCH = 1_532_402_927.0
SIZE, FOCAL = (96, 64), 40.0
YAWS = {"FRONT": 0.0, "FRONT_LEFT": 60.0, "FRONT_RIGHT": -60.0}
POSITION = np.array([1.7, 0.1, 1.5])
OPTICAL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
LENS = np.array([[FOCAL, 0, 47.5], [0, FOCAL, 31.5], [0, 0, 1]])
TIMES = np.arange(round(SECONDS * FPS)) / FPS
POSES = np.arange(0, SECONDS + 6.5, 0.05)


def picture(number: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), 40 + number % 100, np.uint8)


def encoded(number: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, format=kind, **({"quality": 95} if kind == "jpeg" else {}))
    return file.getvalue()


def mounted(yaw: float) -> np.ndarray:
    """Camera to car [3, 3] of a camera that looks so many degrees to the left."""
    return Rotation.from_euler("z", yaw, degrees=True).as_matrix() @ OPTICAL


def write_nuscenes(root: Path) -> Path:
    """Three cameras at 10 Hz, and a lidar at 20 Hz whose poses are all that there is after the last picture."""
    tables: dict[str, list] = {name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor", "log")}
    tables["scene"] = [{"token": "s1", "name": "scene-0061", "log_token": "l"}, {"token": "s2", "name": "scene-0100", "log_token": "l"}]
    tables["sample"] = [{"token": "m1", "scene_token": "s1", "timestamp": 0}, {"token": "m2", "scene_token": "s2", "timestamp": 0}]

    def shot(sensor: str, t: float, sample: str, **more) -> None:
        (xyz,), turn = truth(np.array([t]))
        x, y, z, w = turn.as_quat()[0]
        token = f"{sensor}{sample}{t:.3f}"
        stamp = round((EPOCH + t) * 1e6)
        tables["ego_pose"].append(
            {"token": token, "timestamp": stamp, "translation": (xyz + np.array([600.0, 1600.0, 0])).tolist(), "rotation": [w, x, y, z]}
        )
        row = {"token": f"d{token}", "sample_token": sample, "ego_pose_token": token, "calibrated_sensor_token": f"c{sensor}"}
        tables["sample_data"].append(row | {"timestamp": stamp, "is_key_frame": False, "width": SIZE[0], "height": SIZE[1]} | more)

    for name, yaw in YAWS.items():
        channel = f"CAM_{name}"
        x, y, z, w = Rotation.from_matrix(mounted(yaw)).as_quat()
        tables["sensor"].append({"token": f"s{channel}", "channel": channel, "modality": "camera"})
        tables["calibrated_sensor"].append(
            {
                "token": f"c{channel}", "sensor_token": f"s{channel}", "translation": POSITION.tolist(), "rotation": [w, x, y, z],
                "camera_intrinsic": LENS.tolist(),
            }
        )  # fmt: skip
        for number, t in enumerate(TIMES):
            file = f"sweeps/{channel}/{number:04d}.jpg"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(encoded(number, "jpeg"))
            shot(channel, float(t), "m1", filename=file)
        shot(channel, 0.0, "m2", filename="sweeps/other.jpg")
    tables["sensor"].append({"token": "sLIDAR_TOP", "channel": "LIDAR_TOP", "modality": "lidar"})
    tables["calibrated_sensor"].append(
        {"token": "cLIDAR_TOP", "sensor_token": "sLIDAR_TOP", "translation": [0, 0, 0], "rotation": [1, 0, 0, 0], "camera_intrinsic": []}
    )
    for t in POSES:
        shot("LIDAR_TOP", float(t) + 0.013, "m1", filename="x.bin")
    (root / "v1.0-mini").mkdir()
    for name, rows in tables.items():
        (root / f"v1.0-mini/{name}.json").write_text(json.dumps(rows))
    return root


def write_kitti_raw(root: Path) -> Path:
    """A drive with color cameras 2 and 3, GPS/IMU at 20 Hz over a longer time, and the calibration files."""
    from alpamayo_r1.data.importers.kitti import IMU

    drive = root / "2011_09_26_drive_0005_sync"
    imu_to_velo = np.eye(4)
    imu_to_velo[:3, 3] = [-0.81, 0.32, -0.8]
    camera_in_imu = np.eye(4)
    camera_in_imu[:3, :3], camera_in_imu[:3, 3] = OPTICAL, POSITION - IMU
    velo_to_cam = np.linalg.inv(camera_in_imu) @ np.linalg.inv(imu_to_velo)
    for name, matrix in (("imu_to_velo", imu_to_velo), ("velo_to_cam", velo_to_cam)):
        rows = [f"{k}: {' '.join(f'{v:.9e}' for v in values.ravel())}" for k, values in (("R", matrix[:3, :3]), ("T", matrix[:3, 3]))]
        (root).mkdir(parents=True, exist_ok=True)
        (root / f"calib_{name}.txt").write_text("calib_time: 15-Mar-2012 11:37:16\n" + "\n".join(rows) + "\n")
    cams = ["calib_time: 09-Jan-2012 13:57:47", "corner_dist: 9.950000e-02", "R_rect_00: 1 0 0 0 1 0 0 0 1"]
    for number, offset in ((2, 0.0), (3, -0.54)):
        projection = np.concatenate([LENS, LENS @ [[offset], [0], [0]]], 1)
        cams.append(f"P_rect_{number:02d}: " + " ".join(f"{v:.9e}" for v in projection.ravel()))
        (drive / f"image_{number:02d}/data").mkdir(parents=True)
        for n, _ in enumerate(TIMES):
            (drive / f"image_{number:02d}/data/{n:010d}.png").write_bytes(encoded(n, "png"))
        (drive / f"image_{number:02d}/timestamps.txt").write_text(stamps(TIMES))
    (root / "calib_cam_to_cam.txt").write_text("\n".join(cams) + "\n")
    (drive / "oxts/data").mkdir(parents=True)
    xyz, turn = truth(POSES)
    places = from_enu(xyz + turn.apply(IMU), PLACE)
    for n, (place, (yaw, pitch, roll)) in enumerate(zip(places, turn.as_euler("ZYX"))):
        values = [*place, roll, pitch, yaw, 0.0, 0.0, 9.0] + [0.0] * 21
        (drive / f"oxts/data/{n:010d}.txt").write_text(" ".join(f"{v:.12g}" for v in values) + "\n")
    (drive / "oxts/timestamps.txt").write_text(stamps(POSES))
    return root


def stamps(times: np.ndarray) -> str:
    start = datetime(2011, 9, 26, 13, 2, 25)
    return "".join(f"{start + timedelta(seconds=int(t))}.{round((t - int(t)) * 1e9):09d}\n" for t in times)


def write_kitti_odometry(root: Path) -> Path:
    """A sequence with cameras 2 and 3 and the poses of camera 0, which go on after the last picture is taken with 10 per second."""
    from alpamayo_r1.data.importers.kitti import CAMERA_0

    folder = root / "sequences/05"
    times = np.arange(round((SECONDS + 6) * FPS)) / FPS
    xyz, turn = truth(times)
    camera = xyz + turn.apply(CAMERA_0)
    matrix = turn.as_matrix() @ OPTICAL
    poses = np.concatenate([matrix[0].T @ matrix, (matrix[0].T @ (camera - camera[0]).T).T[..., None]], 2)
    (root / "poses").mkdir(parents=True)
    np.savetxt(root / "poses/05.txt", poses.reshape(-1, 12))
    rows = []
    for number, offset in enumerate((0.0, -0.54, 0.06, -0.47)):
        projection = np.concatenate([LENS, LENS @ [[offset], [0], [0]]], 1)
        rows.append(f"P{number}: " + " ".join(f"{v:.12e}" for v in projection.ravel()))
    for number in (2, 3):
        (folder / f"image_{number}").mkdir(parents=True)
        for n, _ in enumerate(times):
            (folder / f"image_{number}/{n:06d}.png").write_bytes(encoded(n, "png"))
    (folder / "calib.txt").write_text("\n".join(rows) + "\n")
    np.savetxt(folder / "times.txt", times)
    return root


def write_comma(root: Path) -> Path:
    """A segment: 20 frames per second, poses of the camera in ECEF."""
    import av

    from alpamayo_r1.data.importers.comma2k19 import CAMERA

    root.mkdir(parents=True)
    times = np.arange(round((SECONDS + 6) * 20)) / 20
    xyz, turn = truth(times)
    here = axes_at(PLACE)
    place = ecef(PLACE) + (xyz + turn.apply(CAMERA)) @ here
    body = Rotation.from_matrix(here.T @ turn.as_matrix() @ np.diag([1.0, -1, -1]))
    (root / "global_pose").mkdir()
    quaternion = body.as_quat()[:, [3, 0, 1, 2]]
    for name, values in (("times", times + 1000), ("positions", place), ("orientations", quaternion)):
        with (root / f"global_pose/frame_{name}").open("wb") as file:
            np.save(file, values)
    (root / "processed_log/CAN/speed").mkdir(parents=True)
    for name, values in (("t", times + 1000), ("value", np.full((len(times), 1), 9.0))):
        with (root / f"processed_log/CAN/speed/{name}").open("wb") as file:
            np.save(file, values)
    with av.open(str(root / "video.hevc"), "w", format="hevc") as container:
        stream = container.add_stream("libx265", rate=20)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 10
        stream.options = {"crf": "8", "x265-params": "bframes=0:keyint=10:min-keyint=10:log-level=none"}
        for n in range(len(times)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(n), format="rgb24")))
        container.mux(stream.encode())
    return root


def write_bag(root: Path, storage: str = "sqlite3") -> Path:
    """A ROS 2 bag ("sqlite3" or "mcap") with compressed images, camera_info, tf_static and odometry of base_link."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    T = store.types

    def at(t: float):
        return T["builtin_interfaces/msg/Time"](sec=int(t), nanosec=round((t - int(t)) * 1e9) % 10**9)

    def header(t: float, frame: str):
        return T["std_msgs/msg/Header"](stamp=at(t), frame_id=frame)

    def pose(position, quaternion):
        return T["geometry_msgs/msg/Pose"](
            position=T["geometry_msgs/msg/Point"](*map(float, position)),
            orientation=T["geometry_msgs/msg/Quaternion"](*map(float, quaternion)),
        )

    def tf(parent: str, child: str, position, quaternion):
        move = T["geometry_msgs/msg/Transform"](
            translation=T["geometry_msgs/msg/Vector3"](*map(float, position)),
            rotation=T["geometry_msgs/msg/Quaternion"](*map(float, quaternion)),
        )
        return T["geometry_msgs/msg/TransformStamped"](header=header(100.0, parent), child_frame_id=child, transform=move)

    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(root, version=9, storage_plugin=plugin) as writer:

        def send(topic: str, kind: str, messages: list[tuple[float, object]]) -> None:
            connection = writer.add_connection(topic, kind, typestore=store)
            for t, message in messages:
                writer.write(connection, round(t * 1e9), store.serialize_cdr(message, kind))

        moves = []
        for name, yaw in YAWS.items():
            lower = name.lower()
            turn = Rotation.from_euler("z", yaw, degrees=True).as_quat()
            moves.append(tf("base_link", f"{lower}_link", POSITION, turn))
            moves.append(tf(f"{lower}_link", f"{lower}_optical", [0, 0, 0], Rotation.from_matrix(OPTICAL).as_quat()))
            info = T["sensor_msgs/msg/CameraInfo"](
                header=header(100.0, f"{lower}_optical"), height=SIZE[1], width=SIZE[0], distortion_model="plumb_bob", d=np.zeros(5),
                k=LENS.ravel(), r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0, binning_y=0,
                roi=T["sensor_msgs/msg/RegionOfInterest"](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
            )  # fmt: skip
            send(f"/sensing/{lower}/camera_info", "sensor_msgs/msg/CameraInfo", [(100.0, info)])
            pictures = [
                (100 + t, T["sensor_msgs/msg/CompressedImage"](
                    header=header(100 + t, f"{lower}_optical"), format="jpeg", data=np.frombuffer(encoded(n, "jpeg"), np.uint8)
                )) for n, t in enumerate(TIMES)
            ]  # fmt: skip
            send(f"/sensing/{lower}/image/compressed", "sensor_msgs/msg/CompressedImage", pictures)
        send("/tf_static", "tf2_msgs/msg/TFMessage", [(100.0, T["tf2_msgs/msg/TFMessage"](transforms=moves))])
        xyz, turn = truth(POSES)
        zero = T["geometry_msgs/msg/TwistWithCovariance"](
            twist=T["geometry_msgs/msg/Twist"](
                linear=T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0), angular=T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
            ),
            covariance=np.zeros(36),
        )
        odometry = [
            (100 + t, T["nav_msgs/msg/Odometry"](
                header=header(100 + t, "odom"), child_frame_id="base_link", twist=zero,
                pose=T["geometry_msgs/msg/PoseWithCovariance"](pose=pose(p, q), covariance=np.zeros(36)),
            )) for t, p, q in zip(POSES, xyz, turn.as_quat())
        ]  # fmt: skip
        send("/localization/odometry", "nav_msgs/msg/Odometry", odometry)
    return root


def write_mcap_json(file: Path) -> Path:
    """An .mcap of Foxglove's JSON messages: CompressedImage, CameraCalibration, FrameTransform and PoseInFrame."""
    import base64

    from mcap.writer import Writer

    with file.open("wb") as out:
        writer = Writer(out)
        writer.start()

        def channel(topic: str, name: str) -> int:
            schema = writer.register_schema(f"foxglove.{name}", "jsonschema", b"{}")
            return writer.register_channel(topic, "json", schema)

        def send(number: int, t: float, message: dict) -> None:
            writer.add_message(number, round(t * 1e9), json.dumps(message).encode(), round(t * 1e9))

        def stamp(t: float) -> dict:
            return {"sec": int(t), "nsec": round((t - int(t)) * 1e9) % 10**9}

        def turned(turn: Rotation) -> dict:
            return dict(zip("xyzw", turn.as_quat().tolist()))

        poses, moves = channel("/pose", "PoseInFrame"), channel("/tf", "FrameTransform")
        xyz, turn = truth(POSES)
        for t, p, q in zip(POSES + 50, xyz, turn):
            send(
                poses,
                t,
                {"timestamp": stamp(t), "frame_id": "map", "pose": {"position": dict(zip("xyz", p.tolist())), "orientation": turned(q)}},
            )
        for name, yaw in YAWS.items():
            place = dict(zip("xyz", POSITION.tolist()))
            turn_of = turned(Rotation.from_matrix(mounted(yaw)))
            send(
                moves,
                50,
                {"timestamp": stamp(50), "parent_frame_id": "base_link", "child_frame_id": name, "translation": place, "rotation": turn_of},
            )
            info = {"timestamp": stamp(50), "frame_id": name, "width": SIZE[0], "height": SIZE[1], "distortion_model": "plumb_bob"}
            send(channel(f"/{name}/info", "CameraCalibration"), 50, info | {"D": [0.0] * 5, "K": LENS.ravel().tolist()})
            pictures = channel(f"/{name}/image", "CompressedImage")
            for n, t in enumerate(TIMES + 50):
                data = base64.b64encode(encoded(n, "png")).decode()
                send(pictures, t, {"timestamp": stamp(t), "frame_id": name, "format": "png", "data": data})
        writer.finish()
    return file
