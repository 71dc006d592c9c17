"""An hour of driving as one recording: how fast it opens, what it takes of memory, and a moment of it against one of a short recording.

    python checks/long_drive.py --seconds 3600 --moments 1000

Four cameras of one video file each. Moments are read in order, as `eval` does, through a fresh clip each; then some from short
recordings of 12 s, opened anew for each. Prints seconds to open, ms per moment of both, their ratio, and the peak of memory.
"""

from __future__ import annotations

import _head

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from alpamayo_r1.data.recording.drive import Recording
from alpamayo_r1.data.source import open_source
from alpamayo_r1.evaluate.protocol import Item
from alpamayo_r1.evaluate.worker import read_item

CAMERAS = {"front": (0.0, 200.0), "left": (60.0, 200.0), "right": (-60.0, 200.0), "tele": (0.0, 800.0)}
SIZE, FPS = (480, 270), 10
SHORT = 12.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--moments", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        long, short = write(Path(folder) / "long", given.seconds), write(Path(folder) / "short", SHORT)
        before = peak()
        began, worked = time.perf_counter(), time.process_time()
        with open_source(long) as source:
            clips = source.clip_ids
            source.clip(clips[0]).valid_t0()
            opened, worked = time.perf_counter() - began, time.process_time() - worked
            first = read_item(source, Item(0, clips[0], 5_000_000))
            assert first.error is None, first.error
            began = time.perf_counter()
            for n in range(given.moments):
                at = n * (len(clips) - 1) / given.moments
                found = read_item(source, Item(0, clips[int(at)], 5_000_000 + round(10_000_000 * (at % 1))))
                assert found.error is None, found.error
            by_long = (time.perf_counter() - began) / given.moments
            memory = peak()
        few = min(given.moments, 100)
        began, views = time.perf_counter(), None
        for n in range(few):
            with open_source(short) as source:
                assert isinstance(source.origin, Recording)
                source.origin.views_made = views or source.origin.views_made
                assert read_item(source, Item(0, source.clip_ids[0], 2_000_000 + 30_000 * n)).error is None
                if views is None:
                    views, began = source.origin.views_made, time.perf_counter()
        by_short = (time.perf_counter() - began) / max(few - 1, 1)
    print(f"{given.seconds:g} s of driving in {len(clips)} clips: opened in {opened:.2f} s, {worked:.2f} s of it this process's own work")
    ratio = f"of short recordings {1e3 * by_short:.0f} ms; ratio {by_long / by_short:.2f}"
    print(f"{1e3 * by_long:.0f} ms per moment over {given.moments}; {ratio}")
    print(f"memory: {memory:.0f} MB at most, {before:.0f} MB of it before the recording was opened")


def peak() -> float:
    """Most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(folder: Path, seconds: float) -> Path:
    """A straight drive; every camera shows the same drifting noise, key frames every second."""
    import av

    folder.mkdir()
    t = np.arange(0, seconds, 0.05)
    poses = pd.DataFrame({"time": t, "x": 10 * t, "y": 0.0, "z": 0.0, "yaw": 0.0})
    poses.to_csv(folder / "poses.csv", index=False)
    frames = round((seconds - 0.2) * FPS)
    tile = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 6, SIZE[0] // 6 + 64, 3), dtype=np.uint8).repeat(6, 0).repeat(6, 1)
    with av.open(str(folder / "front.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", FPS
        stream.options = {"crf": "28", "preset": "ultrafast"}
        for n in range(frames):
            at = 2 * (n % 150)
            picture = np.ascontiguousarray(tile[:, at : at + SIZE[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for name in list(CAMERAS)[1:]:
        shutil.copyfile(folder / "front.mp4", folder / f"{name}.mp4")
    cameras = {
        name: {
            "model": "fisheye", "size": list(SIZE), "focal": [focal, focal], "centre": [SIZE[0] / 2 - 0.5, SIZE[1] / 2 - 0.5],
            "mounting": {"position": [1.7, 0.0, 1.4], "yaw_pitch_roll": [yaw, 0.0, 0.0]},
            "frames": {"video": f"{name}.mp4", "times": {"start": 0.0, "fps": FPS}},
        }
        for name, (yaw, focal) in CAMERAS.items()
    }  # fmt: skip
    said = {
        "alpamayo_recording": 1,
        "poses": {
            "file": "poses.csv", "time": {"column": "time", "unit": "s"}, "position": {"columns": ["x", "y", "z"], "frame": "local"},
            "orientation": {"kind": "yaw", "columns": ["yaw"], "unit": "rad"},
        },
        "cameras": cameras,
        "views": {"width": 448, "height": 252},
    }  # fmt: skip
    (folder / "recording.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    return folder


if __name__ == "__main__":
    _ = _head
    main()
