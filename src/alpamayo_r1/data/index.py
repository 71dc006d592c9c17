"""The indices of a data set, once its devkit has read them: what clips and paths are named in them, checked before any is used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alpamayo_r1.data.errors import SourceError
from alpamayo_r1.data.tables import MAX_TABLE, reading

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from physical_ai_av import PhysicalAIAVDatasetInterface

_CHUNK_PATH = re.compile(r"(?!/)[\w./-]*\{chunk_id(:0?\d)?d?\}[\w./-]*")
_MEMBER = re.compile(r"(?!/)[\w./-]*\{clip_id\}[\w./-]*")

LARGEST_CHUNK = 10_000_000


def check_sizes(root: Path, names: tuple[str, ...]) -> None:
    """Raises SourceError for an index of a folder that is too large to read, before it is read."""
    from alpamayo_r1.data.tables import read_parquet

    for name in names:
        path = root / name
        if path.is_file() and path.stat().st_size > MAX_TABLE:
            raise SourceError(f"{name} in {root} has {path.stat().st_size:,} bytes.", f"at most {MAX_TABLE:,}", "split the data set.")
        if path.is_file() and path.suffix == ".parquet":
            read_parquet(path, f"{name} in {root}", SourceError)


def check_index(interface: PhysicalAIAVDatasetInterface, name: str) -> None:
    """Raises SourceError unless every clip has a chunk, and every feature paths that stay in the data set."""
    with reading(SourceError, f"the index of {name}", "clip_index.parquet and features.csv of the PhysicalAI-AV layout", "write it again."):
        _check_clips(interface.clip_index, name)
        for feature, row in interface.features.features_df.iterrows():
            members: Any = row["clip_files_in_zip"]
            paths = {} if members is None or members != members else dict(members)
            flaw = _flaw(str(row["chunk_path"]), paths)
            if flaw:
                raise SourceError(
                    f"features.csv of {name} names {flaw!r} for {feature}.",
                    "relative paths within the data set, with {chunk_id} or {clip_id} in them",
                    "write features.csv again.",
                )


def _check_clips(index: pd.DataFrame, name: str) -> None:
    chunk = index["chunk"].to_numpy() if "chunk" in index.columns else None
    if chunk is None or chunk.dtype.kind not in "iu":
        given = "not there" if chunk is None else chunk.dtype
        raise SourceError(f"the column chunk in clip_index.parquet of {name} is {given}.", "whole numbers", "write the index again.")
    if len(chunk) and not 0 <= int(chunk.min()) <= int(chunk.max()) <= LARGEST_CHUNK:
        raise SourceError(
            f"clip_index.parquet of {name} names the chunks {chunk.min()} to {chunk.max()}.",
            f"0 to {LARGEST_CHUNK:,}",
            "write the index again.",
        )


def _flaw(chunk_path: str, members: dict[str, str]) -> str | None:
    """A path that may not be used."""
    if not _CHUNK_PATH.fullmatch(chunk_path) or ".." in chunk_path:
        return chunk_path
    return next((str(m) for m in members.values() if not _MEMBER.fullmatch(str(m)) or ".." in str(m)), None)
