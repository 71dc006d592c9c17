"""One clip of the data set -> Samples: where the car was and will be, what its cameras saw, in the ego frame at t0."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alpamayo_r1.core.family import ORDER
from alpamayo_r1.core.gate.values import check_flag, check_texts, check_whole
from alpamayo_r1.core.notes import Note
from alpamayo_r1.core.types import CAMERAS, DT, FRAMES, F, Observation, Sample
from alpamayo_r1.data.around import read_surroundings, surroundings_at
from alpamayo_r1.data.calibration import read_calibration, read_vehicle
from alpamayo_r1.data.camera import Camera
from alpamayo_r1.data.clock import moment
from alpamayo_r1.data.egomotion import FUTURE_US, PAST_US, STEP_US, Egomotion, read_egomotion
from alpamayo_r1.data.errors import BadCalibration, BadEgomotion, BadVideo, DataError, MissingCamera, NotDownloaded, OutOfRange
from alpamayo_r1.data.origin import Origin
from alpamayo_r1.data.tables import MAX_TABLE, WHOLE, read_parquet, reading, zip_members

if TYPE_CHECKING:
    import pandas as pd

T0_US = 5_100_000
"""The release's default moment."""

MAX_FRAMES = 1024
"""Frames per camera that a sample may ask for; the release's plans take 4."""


class Clip:
    """One open clip: each feature is read once, a camera's reader serves every t0. A context manager."""

    def __init__(self, origin: Origin, clip_id: str, closed: Callable[[Clip], None] | None = None):
        self.origin, self.clip_id, self._closed = origin, clip_id, closed
        self._cameras: dict[str, Camera] = {}

    def sample(self, t0_us: int = T0_US, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> Sample:
        """What the car knew at t0 and drove afterwards.

        Frames are the last ones at or before t0 - 0.1 k s, cameras in the released order. With `need_future` all 64 steps of the future
        must be known; without it, steps that the log lacks are NaN, and future is None where it has none of them.
        meta: "source", "frame_timestamps_us" i64 [C, K], and "calibration", "vehicle", "surroundings" where the clip has them.
        notes: "clip-invalid", "frames-stale", "egomotion-gap", "surroundings-broken".

        Raises:
            ValueError: no cameras, one twice, no frames, or t0 no number. OutOfRange, MissingCamera, NotDownloaded, BadVideo, BadEgomotion,
            BadCalibration: what is wrong with the clip there; before a frame is decoded, except a frame that is damaged.
        """
        t0_us, cameras = moment(t0_us), self._in_order(cameras)
        self._require(["egomotion", *cameras])
        self._check_t0(t0_us, cameras, frames, need_future)
        history, notes = self.egomotion.history(t0_us)
        future = self.egomotion.future(t0_us)
        if need_future and (future is None or bool(future.xyz.isnan().any())):
            raise OutOfRange(
                f"the ego motion of clip {self.clip_id} has a gap in the {F * DT:g} s after t0 = {t0_us / 1e6:g} s.",
                "a log without gaps there",
                "choose another t0, or pass need_future=False: what is known is then scored.",
            )
        rig = self.rig
        around, broken = self._surroundings
        known = {} if around is None else {"surroundings": surroundings_at(around, t0_us, *self.egomotion.pose_at(t0_us))}
        pictures, times, seen = self._decode([self._cameras[c] for c in cameras], t0_us + STEP_US * np.arange(1 - frames, 1))
        return Sample(
            observation=Observation(pictures, cameras, history, t0_us),
            future=future,
            clip_id=self.clip_id,
            meta={"source": self.origin.kind, "frame_timestamps_us": times} | rig | known,
            notes=self._validity() + notes + broken + seen,
        )

    def valid_t0(self, *, cameras: Sequence[str] = CAMERAS, frames: int = FRAMES, need_future: bool = True) -> tuple[int, int]:
        """First and last t0 in microseconds that the logs reach (lo > hi: none); between them a log may still have a gap."""
        check_whole("frames", frames, 1, MAX_FRAMES)
        check_flag("need_future", need_future)
        cameras = self._in_order(cameras)
        self._require(["egomotion", *cameras])
        self._open(cameras)
        seen = [self._cameras[c].timestamps for c in cameras]
        past, after = -int(PAST_US[0]), int(FUTURE_US[-1]) if need_future else 0
        lo = max([self.egomotion.start_us + past] + [int(t[0]) + STEP_US * (frames - 1) for t in seen])
        hi = min([self.egomotion.end_us - after] + [int(t[-1]) for t in seen])
        return lo, hi

    @cached_property
    def egomotion(self) -> Egomotion:
        """Where the car was, at any time of the log."""
        name = f"egomotion of clip {self.clip_id}"
        return read_egomotion(read_parquet(self._members("egomotion")["egomotion"], name, BadEgomotion), self.clip_id)

    @cached_property
    def rig(self) -> dict[str, Any]:
        """{"calibration": {camera: Calibration}, "vehicle": {name: metres}} as far as the clip has them. Raises BadCalibration."""
        lens, pose, body = (self._table(f) for f in ("camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions"))
        rig: dict[str, Any] = {}
        where = f"the calibration of clip {self.clip_id}"
        with reading(BadCalibration, where, "one row per camera, and one for the vehicle"):
            for table in (lens, pose):
                if table is not None and not table.index.is_unique:
                    raise BadCalibration(
                        f"{where} has several rows for {table.index[table.index.duplicated()][0]}.", "one per camera", WHOLE
                    )
            if lens is not None and pose is not None:
                both = [str(c) for c in lens.index if c in pose.index]
                rig["calibration"] = {c: read_calibration(lens.loc[c], pose.loc[c], f"{c} in {where}") for c in both}
            if body is not None and body.ndim > 1:
                raise BadCalibration(f"the vehicle of clip {self.clip_id} has {len(body)} rows.", "one", WHOLE)
            if body is not None:
                rig["vehicle"] = read_vehicle(body, f"the vehicle of clip {self.clip_id}")
        return rig

    @cached_property
    def _surroundings(self) -> tuple[pd.DataFrame | None, tuple[Note, ...]]:
        """What pictures can show around the car, where the folder has it; a note where that is broken, for no plan depends on it."""
        try:
            return read_surroundings(self.origin.interface, self.clip_id), ()
        except DataError as error:
            return None, (Note("surroundings-broken", f"pictures show no lanes and no vehicles: {error}"),)

    def close(self) -> None:
        """Closes the videos and forgets what was read; `source.clip` opens the clip anew."""
        while self._cameras:
            self._cameras.popitem()[1].close()
        for read in ("egomotion", "rig", "_surroundings"):
            self.__dict__.pop(read, None)
        if self._closed is not None:
            self._closed(self)

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _in_order(self, cameras: Sequence[str]) -> tuple[str, ...]:
        """The cameras in the released order. Raises MissingCamera; ValueError for none at all, or one twice."""
        check_texts("cameras", cameras, str(CAMERAS[:2]))
        if not cameras or len(set(cameras)) < len(cameras):
            raise ValueError(f"cameras are {tuple(cameras)}, expected at least one, and each once")
        there = [camera for camera in ORDER if self._has(camera)]
        for camera in cameras:
            if camera not in there:
                raise MissingCamera(
                    f'clip {self.clip_id} has no camera "{camera}".',
                    f"one of {', '.join(there) or 'none at all'}",
                    "pass cameras=(...) with the ones it has, or choose another clip.",
                )
        return tuple(sorted(cameras, key=ORDER.index))

    def _has(self, feature: str) -> bool:
        interface = self.origin.interface
        presence = interface.feature_presence
        listed = feature not in presence or bool(presence[feature].get(self.clip_id, True))
        return feature in interface.features.ALL and listed

    def _require(self, features: Sequence[str]) -> None:
        """NotDownloaded unless the chunks of all features are on this machine or may be streamed."""
        interface = self.origin.interface
        files = [self._file(f) for f in features]
        missing = [f for f in files if not interface.is_file_cached(f)]
        if missing and not self.origin.maybe_stream:
            raise NotDownloaded(
                f"clip {self.clip_id} lies in chunk {interface.get_clip_chunk(self.clip_id)}, of which {len(missing)} of "
                f"{len(files)} files are not on this machine: {', '.join(missing)}.",
                f"the files in {self.origin.name}",
                f"{self.origin.download_command(missing)}\n  or open the source with maybe_stream=True.",
            )

    def _check_t0(self, t0_us: int, cameras: Sequence[str], frames: int, need_future: bool) -> None:
        lo, hi = self.valid_t0(cameras=cameras, frames=frames, need_future=need_future)
        if lo <= t0_us <= hi:
            return
        apart = self._apart(cameras)
        if apart:
            raise BadEgomotion(f"the ego motion of clip {self.clip_id} and {apart}.", "one clock for both", "shift or convert one of them.")
        if lo > hi:
            raise OutOfRange(
                f"clip {self.clip_id} is too short: no t0 has {-PAST_US[0] / 1e6:g} s before and {FUTURE_US[-1] / 1e6:g} s after it.",
                "a longer clip",
                "choose another clip" + (", or pass need_future=False if you don't score." if need_future else "."),
            )
        without = need_future and hi < t0_us <= self.valid_t0(cameras=cameras, frames=frames, need_future=False)[1]
        raise OutOfRange(
            f"t0 = {t0_us / 1e6:g} s is too {'early' if t0_us < lo else 'late'} in clip {self.clip_id}.",
            f"{lo / 1e6:.3f} s <= t0 <= {hi / 1e6:.3f} s ({-PAST_US[0] / 1e6:g} s of history, {frames} frames"
            + (f", {FUTURE_US[-1] / 1e6:g} s of future)" if need_future else ")"),
            "choose a t0 in that range" + (", or pass need_future=False if you don't score." if without else "."),
        )

    def _apart(self, cameras: Sequence[str]) -> str | None:
        """A camera whose time span has nothing in common with the ego motion's."""
        log = self.egomotion
        for camera in cameras:
            seen = self._cameras[camera].timestamps
            if seen[-1] < log.start_us or seen[0] > log.end_us:
                return (
                    f"its {camera} have no moment in common: {log.start_us / 1e6:.6g} s .. {log.end_us / 1e6:.6g} s and "
                    f"{seen[0] / 1e6:.6g} s .. {seen[-1] / 1e6:.6g} s"
                )
        return None

    def _open(self, cameras: Sequence[str]) -> None:
        new = [c for c in cameras if c not in self._cameras]
        if new:
            with ThreadPoolExecutor(len(new)) as pool:
                self._cameras |= dict(zip(new, pool.map(self._open_camera, new)))

    def _open_camera(self, name: str) -> Camera:
        members, title = self._members(name), f"{name} of clip {self.clip_id}"
        return Camera(members["video"], read_parquet(members["frame_timestamps"], f"the timestamps of {title}", BadVideo), title)

    def _validity(self) -> tuple[Note, ...]:
        """A note where the data set's own index says that the clip is not to be used."""
        index = self.origin.interface.clip_index
        if "clip_is_valid" not in index.columns or bool(index.at[self.clip_id, "clip_is_valid"]):
            return ()
        return (Note("clip-invalid", f"the data set's index says that clip {self.clip_id} is not valid"),)

    def _decode(self, cameras: Sequence[Camera], times_us: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, tuple[Note, ...]]:
        """u8 [C, K, 3, h, w], their own times i64 [C, K] and notes; one thread per camera."""
        with ThreadPoolExecutor(len(cameras)) as pool:
            pictures, stamps, notes = zip(*pool.map(lambda c: c.frames(times_us), cameras))
        sizes = {p.shape[-2:] for p in pictures}
        if len(sizes) > 1:
            raise BadVideo(
                f"the cameras of clip {self.clip_id} have pictures of different sizes: {sorted(tuple(s) for s in sizes)}.",
                "one size for all",
                "ask for cameras of one size with cameras=(...).",
            )
        return torch.stack(pictures), torch.stack(stamps), tuple(note for some in notes for note in some)

    def _file(self, feature: str) -> str:
        interface = self.origin.interface
        return interface.features.get_chunk_feature_filename(interface.get_clip_chunk(self.clip_id), feature)

    @contextmanager
    def _chunk(self, feature: str) -> Iterator[Any]:
        with self.origin.interface.open_file(self._file(feature), maybe_stream=self.origin.maybe_stream) as file:
            yield file

    def _members(self, feature: str) -> dict[str, bytes]:
        """alias -> content of the clip's members in the chunk of a feature."""
        names = self.origin.interface.features.get_clip_files_in_zip(self.clip_id, feature)
        wanted = {alias: name for alias, name in names.items() if alias in ("egomotion", "video", "frame_timestamps")}
        kind = BadEgomotion if feature == "egomotion" else BadVideo
        if len(wanted) != (1 if feature == "egomotion" else 2):
            raise kind(
                f"features.csv names {', '.join(names)} as the files of {feature}.",
                "egomotion" if feature == "egomotion" else "video and frame_timestamps",
                "write features.csv again.",
            )
        file_name = self._file(feature)
        where = f"{file_name} does not hold {feature} of clip {self.clip_id}: it"
        do = f"the download may be cut off; get it again: {self.origin.download_command([file_name])}"
        with reading(kind, where, f"a whole file {file_name}", do), self._chunk(feature) as file:
            return zip_members(file, wanted, where, kind)

    def _table(self, feature: str) -> pd.DataFrame | pd.Series | None:
        """The clip's rows of a calibration table, or None where there are none on this machine."""
        interface = self.origin.interface
        if feature not in interface.features.ALL or not (interface.is_file_cached(self._file(feature)) or self.origin.maybe_stream):
            return None
        name = self._file(feature)
        with reading(BadCalibration, name, "a parquet table with clip ids as its index"):
            with self._chunk(feature) as file:
                table = read_parquet(file.read(MAX_TABLE + 1), name, BadCalibration)
            if not all(isinstance(key, str) for key in table.index.get_level_values(0)):
                raise BadCalibration(f"{name} has an index that is no text.", "clip ids as its index", "write it with its index.")
            return table.loc[self.clip_id] if self.clip_id in table.index else None
