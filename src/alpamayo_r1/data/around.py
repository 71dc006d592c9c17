"""The surroundings that clips of our world bring: lines on the road and boxes, for pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from alpamayo_r1.core.types import DT, Marking, Obstacle, Surroundings
from alpamayo_r1.data.errors import BadSurroundings
from alpamayo_r1.data.tables import read_parquet, reading, zip_members

if TYPE_CHECKING:
    import pandas as pd
    from physical_ai_av import PhysicalAIAVDatasetInterface

MAX_POINTS = 1_000_000
"""Values of the largest table that is read; one of a clip of 20 s has about 20,000."""

SIZES = ["length", "width", "height"]


def read_surroundings(interface: PhysicalAIAVDatasetInterface, clip_id: str) -> pd.DataFrame | None:
    """The clip's table (world.around.surroundings_table) in a data set of our world's clips; None where there is none on this machine.

    Raises:
        BadSurroundings: the file is broken, too large, or a link that leads out of the folder.
    """
    path = f"world/surroundings.chunk_{interface.get_clip_chunk(clip_id):04d}.zip"
    where, expected = f"{path}, the surroundings of clip {clip_id},", "a whole zip of tables of lines and boxes"
    with reading(BadSurroundings, where, expected):
        if not interface.is_file_cached(path):
            return None
        with interface.open_file(path) as file:
            content = zip_members(file, {"surroundings": f"{clip_id}.surroundings.parquet"}, path, BadSurroundings)["surroundings"]
        table = cast("pd.DataFrame", read_parquet(content, where, BadSurroundings, MAX_POINTS)[["kind", *SIZES, "x", "y", "yaw"]])
        _check(table)
    return table


def surroundings_at(table: pd.DataFrame, t0_us: int, xyz: np.ndarray, rot: np.ndarray) -> Surroundings:
    """The table at t0 in the ego frame there; xyz [3] and rot [3, 3] are the car's pose at t0 in the table's frame."""
    heading = np.arctan2(rot[1, 0], rot[0, 0])
    lines, boxes = [], []
    for row in _tuples(table):
        local = (np.stack([row.x, row.y], -1).astype(np.float64) - xyz[:2]) @ rot[:2, :2]
        if not len(row.yaw):
            lines.append(Marking(row.kind, torch.from_numpy(local).float()))
            continue
        x, y, yaw = (_at(t0_us, track) for track in (local[:, 0], local[:, 1], np.unwrap(row.yaw) - heading))
        boxes.append(Obstacle(row.kind, x, y, yaw, row.length, row.width, row.height))
    return Surroundings(tuple(lines), tuple(boxes))


def _tuples(table: pd.DataFrame) -> Iterable[Any]:
    """The table's rows, each with its columns as attributes."""
    return table.itertuples()


def _check(table: pd.DataFrame) -> None:
    """ValueError unless every row is a line or a box, of numbers."""
    for row in _tuples(table):
        box = len(row.yaw) > 0
        same = len(row.x) == len(row.y) and (len(row.yaw) == len(row.x) or not box) and len(row.x) > 0
        numbers = np.concatenate([row.x, row.y, row.yaw, [row.length, row.width, row.height] * box]).astype(np.float64)
        if not (isinstance(row.kind, str) and same and np.isfinite(numbers).all()):
            raise ValueError(f"row {row.Index} ({row.kind!r}) is neither a line nor a box of finite numbers")


def _at(t0_us: int, track: np.ndarray) -> float:
    """The value at t0 of a track at 10 Hz from clip time 0, held at its ends."""
    return float(np.interp(t0_us / 1e6, DT * np.arange(len(track)), track))
