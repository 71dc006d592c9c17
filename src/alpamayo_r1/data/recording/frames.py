"""A camera's pictures in time: a video that is decoded forward once, or images. Opening reads no picture."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.notes import Note
from alpamayo_r1.data.camera import MAX_SIDE, upright
from alpamayo_r1.data.clock import read_times, rows_at
from alpamayo_r1.data.errors import BadRecording, BadVideo
from alpamayo_r1.data.recording.fields import bad
from alpamayo_r1.data.recording.poses import read_table, to_microseconds
from alpamayo_r1.data.recording.schema import UNITS, CameraSetup, file_in
from alpamayo_r1.data.tables import reading

if TYPE_CHECKING:
    import av
    import pandas as pd

CACHE = 48 * 2**20
"""Bytes of decoded pictures that a camera keeps."""

MOST_IMAGES = 1_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings, in small letters, of the files of a folder that are its images."""


class Pictures:
    """What serves frames by number: `count` of them, of `size` (width, height), upright RGB u8[h, w, 3]."""

    count: int
    size: tuple[int, int]

    def decode(self, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        """Frames of these numbers. Raises BadVideo, ValueError."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what is open."""


class Video(Pictures):
    """One video stream, indexed by its container without reading frames; decoded forward where the wanted frame is near."""

    def __init__(self, path: Path, name: str):
        import av

        self.name = name
        with reading(BadVideo, f"the video of {name} ({path.name})", "a video with one video stream"):
            self._container: Any = av.open(str(path))
            if len(self._container.streams.video) != 1:
                raise BadVideo(
                    f"{path.name} has {len(self._container.streams.video)} video streams.", "one", "ffmpeg -i IN -map 0:v:0 OUT.mp4"
                )
            self._stream: Any = self._container.streams.video[0]
            self._stream.thread_type = "SLICE"
            self.size = (self._stream.width, self._stream.height)
            if not 1 <= max(self.size) <= MAX_SIDE:
                raise BadVideo(f"{path.name} has pictures of {self.size} pixels.", f"at most {MAX_SIDE} a side", "scale it")
            self._stamps, self._keys, self._entries = self._index()
        self.count = len(self._stamps)
        self._next = -1
        self._decoder: Iterator[Any] = iter(())
        if not len(self._keys):
            raise BadVideo(f"{path.name} has no key frame.", "a video that can be sought", "write it again: ffmpeg -i IN -g 30 OUT.mp4")

    def _index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times of all frames as they are shown i64[N], the numbers of those that are key frames, and where each of these is entered.

        From the container's index where frames are shown in the order in which they are stored; else (B frames) from all packets, for only
        these know when a frame is shown.
        """
        stream = self._stream
        entries = stream.index_entries
        if not stream.codec_context.has_b_frames and len(entries) and len(entries) == (stream.frames or len(entries)):
            found = [(e.timestamp, e.timestamp, e.is_keyframe) for e in entries]
        else:
            found = [(p.pts, p.dts if p.dts is not None else p.pts, p.is_keyframe) for p in self._container.demux(stream) if p.size]
        if not found or any(pts is None for pts, _, _ in found):
            raise ValueError("its frames have no times: put it into an mp4 (ffmpeg -r RATE -i IN -c copy OUT.mp4)")
        shown, entered, key = (np.array(column, dtype=np.int64) for column in zip(*found))
        order = np.argsort(shown, kind="stable")
        keys = np.flatnonzero(key[order])
        return shown[order], keys, entered[order][keys]

    @property
    def seconds(self) -> np.ndarray:
        """The time of every frame by the container, from the first one on."""
        return (self._stamps - self._stamps[0]).astype(np.float64) * float(self._stream.time_base)

    def decode(self, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}
        with reading(BadVideo, f"frames of {self.name}", "a whole video"):
            for number in sorted(set(numbers)):
                group = max(int(np.searchsorted(self._keys, number, side="right")) - 1, 0)
                if not self._keys[group] <= self._next <= number:
                    self._seek(group)
                frame = None
                while self._next <= number:
                    frame = next(self._decoder)
                    self._next += 1
                if frame is None or frame.is_corrupt:
                    raise ValueError(f"frame {number} is damaged")
                found[number] = upright(frame)
        return found

    def _seek(self, group: int) -> None:
        """Stands before the key frame of that group. Frames that are stored behind it but shown before it belong to the group before."""
        self._container.seek(int(self._entries[group]), any_frame=False, backward=True, stream=self._stream)
        self._decoder = self._container.decode(self._stream)
        first = next(self._decoder)
        while not first.key_frame:
            first = next(self._decoder)
        self._decoder = _again(first, self._decoder)
        at = int(np.searchsorted(self._stamps, first.pts))
        self._next = at if at < self.count and self._stamps[at] == first.pts else int(self._keys[group])

    def close(self) -> None:
        self._container.close()


def _again(first: av.VideoFrame, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


class Images(Pictures):
    """A file per picture."""

    def __init__(self, files: Sequence[Path], name: str):
        from PIL import Image

        self.files, self.name, self.count = files, name, len(files)
        with reading(BadVideo, f"{files[0].name} of {name}", "an image (jpg, png)"), Image.open(files[0]) as first:
            self.size = first.size

    def decode(self, numbers: Sequence[int]) -> dict[int, np.ndarray]:
        from PIL import Image

        found = {}
        for number in set(numbers):
            with (
                reading(BadVideo, f"{self.files[number].name} of {self.name}", "an image (jpg, png)"),
                Image.open(self.files[number]) as image,
            ):
                if image.mode.startswith(("I", "F")):
                    raise ValueError("its pixels have more than 8 bits")
                found[number] = np.asarray(image.convert("RGB"))
        return found


class Stream:
    """A camera of a recording: pictures and their times i64[N] in microseconds of the poses' clock."""

    def __init__(self, setup: CameraSetup, root: Path):
        self.name, self.lens = setup.name, setup.calibration.lens
        self._lock, self._cache = threading.Lock(), OrderedDict[int, np.ndarray]()
        self._pictures, self.timestamps = open_pictures(setup, root)
        self.period_us = float(np.median(np.diff(self.timestamps)))
        if self._pictures.size != (self.lens.width, self.lens.height):
            width, height = self._pictures.size
            raise bad(
                f"pictures of {self.name} have {width} x {height} pixels, but cameras.{self.name}.size is "
                f"[{self.lens.width}, {self.lens.height}]",
                "the size that the intrinsics are for",
                "if the pictures were scaled, scale focal, centre (and polynomial) with them",
            )

    def frames(self, times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, tuple[Note, ...]]:
        """The last picture at or before each time: u8 [K, 3, h, w], their own times i64 [K], and a note where one is old.

        Raises:
            BadVideo: a picture older at its time than STALE_US, or one that can't be decoded.
        """
        rows, notes = rows_at(self.timestamps, times_us, self.period_us, self.name, "mend the camera's times")
        stamps = self.timestamps[rows]
        pictures = self.pictures(rows.tolist())
        return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(stamps), notes

    def pictures(self, numbers: Sequence[int]) -> np.ndarray:
        """Pictures of these numbers u8[K, h, w, 3]."""
        with self._lock:
            missing = [number for number in numbers if number not in self._cache]
            found = self._pictures.decode(missing) if missing else {}
            found |= {number: self._cache[number] for number in numbers if number in self._cache}
            each = max(1, found[numbers[0]].nbytes)
            for number in numbers:
                self._cache[number] = found[number]
                self._cache.move_to_end(number)
            while len(self._cache) > max(4, CACHE // each):
                self._cache.popitem(last=False)
        sizes = {picture.shape for picture in found.values()}
        if sizes != {(self.lens.height, self.lens.width, 3)}:
            raise BadVideo(f"pictures of {self.name} change their size: {sorted(sizes)}.", "one size", "scale them alike.")
        return np.stack([found[number] for number in numbers])

    def close(self) -> None:
        """Closes the video."""
        self._pictures.close()
        self._cache.clear()


def open_pictures(setup: CameraSetup, root: Path) -> tuple[Pictures, np.ndarray]:
    """The pictures of a camera and their times. Raises BadRecording, BadVideo."""
    import pandas as pd

    said, name, offset = setup.frames, f"cameras.{setup.name}.frames", setup.clock_offset
    table = None if said.times is None else read_table(said.times, f"{name}.times ({said.times.name})")
    files: list[Path] = []
    pictures: Pictures
    if said.video is not None:
        pictures = Video(said.video, name)
    else:
        files = _files(said.images or "", table, said.file_column, root, name)
        pictures = Images(files, name)
    if table is not None:
        times = to_microseconds(table, said.column, said.unit, f"{name}.times", offset)
    elif said.names:
        stems = pd.DataFrame({"time": [_stem(file, name) for file in files]})
        times = to_microseconds(stems, "time", said.unit, f"the file names of {name}", offset)
    else:
        each = np.arange(pictures.count) / said.fps if said.fps else pictures.seconds if isinstance(pictures, Video) else np.zeros(0)
        stamps = np.round((said.start + offset + each) * UNITS["s"]).astype(np.int64)
        times = read_times(pd.DataFrame({"timestamp": stamps}), name, BadRecording)
    if len(times) != pictures.count:
        pictures.close()
        raise bad(
            f"{name} has {pictures.count} pictures but {len(times)} times",
            "a time for every picture, a picture for every time",
            "write the table of times again, or check that the video is whole",
        )
    return pictures, times


def _files(pattern: str, table: pd.DataFrame | None, column: str, root: Path, name: str) -> list[Path]:
    """The images of a camera: those that a table lists, or all that fit a pattern, by name, numbers in it by their value (2 before 10)."""
    if table is not None and column in table.columns:
        folder = pattern if (root / pattern).is_dir() else Path(pattern).parent.as_posix()
        named = [str(entry) for entry in table[column]]
        inside = named and (root / folder / named[0]).is_file()  # else as seen from the recording's own folder
        return [file_in(root, f"{folder}/{entry}" if inside else entry, name) for entry in named]
    whole = (root / pattern).is_dir()
    fitting = (file for file in root.glob(f"{pattern}/*" if whole else pattern) if file.is_file() and not file.name.startswith("."))
    files = sorted((file for file in fitting if not whole or file.suffix.lower() in SUFFIXES), key=_natural)
    if not 2 <= len(files) <= MOST_IMAGES:
        raise bad(
            f"{name}.images ({pattern}) fits {len(files)} files",
            f"2 to {MOST_IMAGES:,} images",
            "a folder of images, or a pattern such as front/*.jpg",
        )
    return files


def _natural(file: Path) -> list[tuple[int, str]]:
    """What sorts names as people do: each run of digits by its value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name) if part]


def _stem(file: Path, name: str) -> float | int:
    """The number with which a file's name ends."""
    found = re.search(r"\d+(\.\d+)?$", file.stem)
    if found is None:
        raise bad(
            f"{name} has {file.name}", "names that end with their time, such as 1532402927.647.jpg or front_1532402927647951.jpg",
            "give a table of times instead",
        )  # fmt: skip
    return float(found[0]) if found[1] else int(found[0])
