"""The surroundings that clips of our world bring: lines on the road and boxes, for pictures."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from alpamayo_r1.core.types import DT, Marking, Obstacle, Surroundings

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES = 16 * 2**20
"""A larger table is refused; one of a clip of 20 s takes 0.03 MB."""

SIZES = ["length", "width", "height"]


def read_surroundings(root: Path, chunk: int, clip_id: str) -> pd.DataFrame | None:
    """The clip's table (world.around.surroundings_table) in a folder of our world's clips; None where the folder has none.

    Raises:
        ValueError: the file is broken.
    """
    import pandas as pd

    path = root / f"world/surroundings.chunk_{chunk:04d}.zip"
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{clip_id}.surroundings.parquet")
            if member.file_size > MOST_BYTES:
                raise ValueError(f"{member.filename} has {member.file_size / 2**20:.0f} MB, expected at most {MOST_BYTES >> 20}")
            table = pd.read_parquet(io.BytesIO(archive.read(member)), columns=["kind", *SIZES, "x", "y", "yaw"])
        _check(table)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no surroundings of clip {clip_id}: {error}") from error
    return table


def surroundings_at(table: pd.DataFrame, t0_us: int, xyz: np.ndarray, rot: np.ndarray) -> Surroundings:
    """The table at t0 in the ego frame there; xyz [3] and rot [3, 3] are the car's pose at t0 in the table's frame."""
    heading = np.arctan2(rot[1, 0], rot[0, 0])
    lines, boxes = [], []
    for row in table.itertuples():
        local = (np.stack([row.x, row.y], -1).astype(np.float64) - xyz[:2]) @ rot[:2, :2]
        if not len(row.yaw):
            lines.append(Marking(row.kind, torch.from_numpy(local).float()))
            continue
        x, y, yaw = (_at(t0_us, track) for track in (local[:, 0], local[:, 1], np.unwrap(row.yaw) - heading))
        boxes.append(Obstacle(row.kind, x, y, yaw, row.length, row.width, row.height))
    return Surroundings(tuple(lines), tuple(boxes))


def _check(table: pd.DataFrame) -> None:
    """ValueError unless every row is a line or a box, of numbers."""
    for row in table.itertuples():
        box = len(row.yaw) > 0
        same = len(row.x) == len(row.y) and (len(row.yaw) == len(row.x) or not box) and len(row.x) > 0
        numbers = [*row.x, *row.y, *row.yaw] + [row.length, row.width, row.height] * box
        if not (isinstance(row.kind, str) and same and np.isfinite(np.asarray(numbers, dtype=np.float64)).all()):
            raise ValueError(f"row {row.Index} ({row.kind!r}) is neither a line nor a box of finite numbers")


def _at(t0_us: int, track: np.ndarray) -> float:
    """The value at t0 of a track at 10 Hz from clip time 0, held at its ends."""
    return float(np.interp(t0_us / 1e6, DT * np.arange(len(track)), track))
