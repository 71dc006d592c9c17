"""What the rows of an evaluation are made from: fingerprints of the data set's index and of the files that its clips lie in.

A fingerprint knows content, not places: a folder that was moved has the same ones.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

from alpamayo_r1.core.types import CAMERAS
from alpamayo_r1.data.recording.drive import Recording
from alpamayo_r1.data.source import MARKER, Source

INDEX = ("features.csv", "clip_index.parquet", "metadata/feature_presence.parquet", "metadata/data_collection.parquet", MARKER)
"""Files that say what the data set holds, as far as it has them."""

FEATURES = ("egomotion", *CAMERAS, "camera_intrinsics", "sensor_extrinsics", "vehicle_dimensions")
"""What is read of each clip."""


def index_digest(source: Source) -> str:
    """SHA-256 over the data set's index and labels."""
    digest = hashlib.sha256()
    if isinstance(source.origin, Recording):
        return hashlib.sha256(repr(sorted(source.origin.fingerprints().items())).encode()).hexdigest()
    for name in INDEX:
        content = _content(source, name)
        if content is not None:
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def fingerprints(source: Source, clip_ids: Iterable[str]) -> dict[str, str]:
    """File -> fingerprint, of every file on this machine that holds a part of the clips; clips that the index lacks are left out."""
    if isinstance(source.origin, Recording):
        return source.origin.fingerprints()
    interface, known = source.origin.interface, set(source.clip_ids)
    features = [name for name in FEATURES if name in interface.features.ALL]
    chunks = {interface.get_clip_chunk(clip_id) for clip_id in dict.fromkeys(clip_ids) if clip_id in known}
    files = sorted({interface.features.get_chunk_feature_filename(chunk, feature) for chunk in chunks for feature in features})
    return {name: _fingerprint(source, name) for name in files if interface.is_file_cached(name)}


def _fingerprint(source: Source, name: str) -> str:
    """Of a zip its members' names, sizes and CRCs; of anything else, a broken zip too, its bytes."""
    if name.endswith(".zip"):
        try:
            with source.origin.interface.open_file(name) as file, zipfile.ZipFile(file) as chunk:
                listed = "\n".join(f"{one.filename} {one.file_size} {one.CRC}" for one in chunk.infolist())
            return hashlib.sha256(listed.encode()).hexdigest()[:16]
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            pass
    return hashlib.sha256(_content(source, name) or b"").hexdigest()[:16]


def _content(source: Source, name: str) -> bytes | None:
    """A file of the data set's, None where it is not on this machine."""
    root, interface = source.origin.root, source.origin.interface
    if root is not None:
        path = Path(root) / name
        return path.read_bytes() if path.is_file() else None
    if not interface.is_file_cached(name):
        return None
    with interface.open_file(name) as file:
        return file.read()
