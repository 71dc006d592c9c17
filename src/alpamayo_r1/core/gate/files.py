"""Files from outside: read within their size, and only in the folder they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

JSON_BYTES = 256 * 2**20
"""The largest JSON file that is read: a tokenizer's has 11 MB."""


def read_object(path: Path, limit: int = JSON_BYTES) -> Mapping[str, Any]:
    """The JSON object in a file.

    Raises:
        OSError: no file, or it cannot be read. ValueError: too large, no UTF-8, no JSON, nested too deeply, NaN, or no object.
    """
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {limit:,}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply for JSON that anybody wrote") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, expected a JSON object")
    return value


def refuse_constant(name: str) -> NoReturn:
    """Python reads NaN and Infinity, which JSON does not know."""
    raise ValueError(f"{name} is no JSON number")


def inside(folder: Path, name: object) -> Path:
    """The file of that name in a folder.

    Raises:
        ValueError: a name that leaves the folder: an absolute path, `..`, a drive, or a link out of it. A snapshot of the Hub's cache is
            made of links into `blobs` beside it: those are followed.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{name!r} is no file name")
    parts = (PurePosixPath(name), PureWindowsPath(name))
    if any(part.is_absolute() or part.drive or ".." in part.parts for part in parts):
        raise ValueError(f"{name!r} leaves the folder {folder}, expected a file in it")
    path = folder / name
    homes = [folder.resolve(), *(place / "blobs" for place in snapshot_home(folder))]
    if not any(path.resolve().is_relative_to(home) for home in homes):
        raise ValueError(f"{name!r} is a link out of the folder {folder}, expected a file in it")
    return path


def snapshot_home(folder: Path) -> list[Path]:
    """The repository's folder in the Hub's cache, of which `folder` is a snapshot or lies in one; [] where there is none."""
    real = folder.resolve()
    return [place.parent.parent for place in (real, *real.parents) if place.parent.name == "snapshots"]
