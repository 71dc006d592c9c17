"""Results of `alpamayo-r1 eval` that the service was given, by number; no other folder can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHOWN = ("clip_id", "t0_us", "error", "reasoning", "chosen", "decision", "min_ade", "ade", "min_fde", "cv_min_ade", "ctra_min_ade")
"""Columns of results.parquet that are sent; errors of paths in m."""


def check_evaluations(folders: Sequence[Path]) -> None:
    """Raises ValueError for a folder that holds no finished evaluation."""
    for folder in folders:
        if not (folder / "results.parquet").is_file():
            raise ValueError(f"{folder} holds no finished evaluation (no results.parquet): give the --out folder of `alpamayo-r1 eval`")


class Evaluations:
    """Folders of evaluations, each with the name that people see."""

    def __init__(self, folders: Sequence[Path]):
        check_evaluations(folders)
        self.folders = tuple(folders)

    @property
    def names(self) -> list[str]:
        """What they are called: the folders' own names."""
        return [folder.name for folder in self.folders]

    def rows(self, number: int) -> dict[str, Any]:
        """The rows of one evaluation. Raises LookupError for a number that there is not."""
        if not 0 <= number < len(self.folders):
            raise LookupError(f"there is no evaluation {number}: this service was started with {len(self.folders)} (--evaluation FOLDER)")
        from alpamayo_r1.evaluate.summary import read

        table = read(self.folders[number])
        rows = table.select([name for name in SHOWN if name in table.column_names]).to_pylist()
        return {"name": self.names[number], "rows": [{name: _plain(value) for name, value in row.items()} for row in rows]}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
