"""One camera's video and its clock: opened once, checked before a frame is decoded, strict about frames that are damaged."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from alpamayo_r1.core.notes import Note
from alpamayo_r1.data.clock import integers, read_times, rows_at
from alpamayo_r1.data.errors import BadVideo
from alpamayo_r1.data.tables import reading

if TYPE_CHECKING:
    import av
    import pandas as pd
    from av.container import InputContainer

KEPT_BYTES = 32 * 2**20
"""Bytes of pictures that a camera keeps of the last moment: at a film's next one three of four are the same."""

MAX_SIDE = 8192
"""Pixels of the longest side of a picture."""


class Camera:
    """One camera's video and its clock. `name` is for messages.

    clock: a row per frame: `timestamp` (us) and, optionally, `frame_index`, the number of each row's frame in the video.

    Raises:
        BadVideo: a clock or a container that would give wrong frames.
    """

    def __init__(self, video: bytes, clock: pd.DataFrame, name: str):
        from physical_ai_av.video import SeekVideoReader

        self.name, self._lock = name, threading.Lock()
        self._last: dict[int, np.ndarray] = {}
        self.timestamps = read_times(clock, name, BadVideo)
        self._numbers = self._frame_numbers(clock)
        self.period_us = float(np.median(np.diff(self.timestamps)))
        with reading(BadVideo, f"the video of {name} can't be opened: it", "an mp4 with one video stream"):
            self._reader = SeekVideoReader(io.BytesIO(video), self.timestamps)
            self._container = cast("InputContainer", self._reader.container)
            self._stream = cast("av.VideoStream", self._reader.stream)
            self._check_stream()
            self._check_frames()

    def frames(self, times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, tuple[Note, ...]]:
        """The last frame at or before each time: u8 [K, 3, h, w], their own times i64 [K], and a note where one is old.

        Raises:
            BadVideo: a frame older at its time than STALE_US, or one that a strict decoder rejects.
        """
        rows, notes = rows_at(self.timestamps, times_us, self.period_us, self.name, "leave this clip out")
        stamps = self.timestamps[rows]
        with self._lock, reading(BadVideo, f"frames of {self.name} can't be decoded: the video", "a whole video"):
            pictures = self._decode(self._numbers[rows])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(stamps), notes

    def close(self) -> None:
        """Closes the video."""
        self._reader.close()
        self._last = {}

    def _frame_numbers(self, clock: pd.DataFrame) -> np.ndarray:
        """The number of each row's frame in the video i64[rows]."""
        if "frame_index" not in clock.columns:
            return np.arange(len(clock))
        number = integers(clock, "frame_index", self.name, BadVideo)
        if number[0] < 0 or not (np.diff(number) > 0).all():
            raise BadVideo(
                f"the frame_index of {self.name} doesn't count upwards from 0.", "0, 1, 2, ..., each once", "write the clip again."
            )
        return number

    def _decode(self, numbers: np.ndarray) -> np.ndarray:
        """The frames of these numbers u8[K, h, w, 3], upright; each key frame is sought once. Raises ValueError for a damaged one."""
        reader, stream = self._reader, self._stream
        if not stream.codec_context.is_open:
            stream.codec_context.options = {"err_detect": "explode"}
        found, pts = {p: self._last[p] for p in self._pts[numbers].tolist() if p in self._last}, self._pts[np.unique(numbers)]
        pts = pts[[p not in found for p in pts.tolist()]]
        keys = reader._key_pts[np.searchsorted(reader._key_pts, pts, side="right") - 1]
        for key in np.unique(keys):
            wanted = set(pts[keys == key].tolist())
            self._container.seek(int(key), any_frame=False, backward=True, stream=stream)
            for frame in self._container.decode(stream):
                if frame.is_corrupt:
                    raise ValueError(f"the frame at {frame.time} s of the video is damaged")
                if frame.pts in wanted:
                    found[frame.pts] = upright(frame)
                    wanted.remove(frame.pts)
                if not wanted:
                    break
        pictures = [found[p] for p in self._pts[numbers].tolist()]
        room = KEPT_BYTES // pictures[0].nbytes
        self._last = dict(sorted(found.items())[-room:]) if room else {}
        return np.stack(pictures)

    def _check_stream(self) -> None:
        stream, streams = self._stream, self._container.streams
        if streams.best("video") is not stream or len(streams.video) > 1:
            raise BadVideo(
                f"the video of {self.name} has {len(streams.video)} video streams.", "one", "write it again: ffmpeg -i IN -map 0:v:0 OUT."
            )
        shape = stream.sample_aspect_ratio
        if shape and shape != 1:
            raise BadVideo(f"the pixels of {self.name} are {shape} as wide as high.", "square pixels", "scale it to square pixels.")
        if not 1 <= max(stream.width, stream.height) <= MAX_SIDE:
            raise BadVideo(f"the pictures of {self.name} have {stream.width} x {stream.height} pixels.", f"at most {MAX_SIDE}", "scale it.")

    def _check_frames(self) -> None:
        """A frame for every row, at a constant rate from pts 0, as the devkit numbers them. Raises BadVideo."""
        reader, numbers = self._reader, self._numbers
        self._container.seek(0, any_frame=True, backward=True, stream=self._stream)
        self._pts = np.sort(np.array([p.pts for p in self._container.demux(self._stream) if p.pts is not None], dtype=np.int64))
        count = len(self._pts)
        if count != numbers[-1] + 1:
            ends = "is truncated" if count <= numbers[-1] else "goes on after its clock"
            raise BadVideo(
                f"the video of {self.name} {ends}: {count} frames for {len(numbers)} timestamps.",
                "a frame for every timestamp, and a timestamp for every frame",
                "download the chunk again, or leave this clip out.",
            )
        if self._pts[0] != 0:
            raise BadVideo(
                f"the video of {self.name} starts at pts {self._pts[0]} (time base {reader.time_base}), so every frame would be mistaken.",
                "a first frame at pts 0",
                "write it again with its clock from 0, e.g. ffmpeg -i IN -vf setpts=PTS-STARTPTS OUT.mp4.",
            )
        number = np.round(self._pts / max(reader.pts_per_frame, 1))
        if (number != np.arange(count)).any():
            first = int(np.argmax(number != np.arange(count)))
            raise BadVideo(
                f"the clock of the video of {self.name} (time base {reader.time_base}, {float(reader.fps or 0):.3f} frames/s) drifts: "
                f"from frame {first} on the reader would give another frame without notice.",
                "a constant frame rate, and a time base that divides the frame time (mp4's usual 1/15360 or 1/90000)",
                "write it again, e.g. ffmpeg -i IN -r 30 -video_track_timescale 15360 OUT.mp4.",
            )


def upright(frame: av.VideoFrame) -> np.ndarray:
    """A decoded frame as u8[h, w, 3], turned as its display matrix says. Raises ValueError where that is no turn by 90 degrees."""
    picture = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5] / 2**16
    turns = {(1, 0, 0, 1): 0, (0, 1, -1, 0): -1, (-1, 0, 0, -1): 2, (0, -1, 1, 0): 1}.get((a, b, c, d))
    if turns is None:
        raise ValueError(f"its display matrix ({a:g} {b:g} {c:g} {d:g}) mirrors, scales or slants: write it again without it")
    return np.ascontiguousarray(np.rot90(picture, turns))
