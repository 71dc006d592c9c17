"""Files, written so that each is there whole or not at all: after a kill, a full disk or a power cut, on every system.

A file is written beside its place under a name of its own (`.name.1f2e3d4c.unfinished`), synced, and moved there. A link at its place is
replaced, never written through. Text is UTF-8 with "\\n" everywhere.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished"
"""Ends the names of files that are being written, or whose writer was killed."""


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A new empty file beside the path, to be filled; moved to the path at the end, or removed where filling it fails.

    Raises:
        OSError: it can't be written (a full disk, a folder without permission); the error names the path.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.open("xb").close()
        try:
            yield beside
            with beside.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.filename not in (None, str(beside), beside):
            raise
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
    _sync_folder(path.parent)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Writes a file whole or not at all; when this returns it is on the disk. Returns its path. Raises OSError, which names it."""
    with written_whole(path) as beside:
        beside.write_bytes(content)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """The same for text, in UTF-8 with the line ends that it has."""
    return write_bytes(path, text.encode("utf-8"))


def writable_folder(path: Path) -> Path:
    """The folder, made where it is not there yet: what runs for long asks for its place first.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise ValueError(f"nothing can be written to {path} ({error.strerror}): choose another folder") from None


def writable_file(path: Path) -> Path:
    """The path of a file to be written, its folder made where it is not there yet.

    Raises:
        ValueError: it is a folder, or nothing can be written there.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file")
    writable_folder(path.parent)
    return path


def own_folder(path: Path) -> Path:
    """A folder inside one that is being written to, made where it is not there yet.

    Raises:
        ValueError: a link or a file stands in its place; what is written there would land elsewhere.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link to {os.readlink(path)}: results are not written through links; remove it")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file where a folder is expected: remove it, or choose another folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def only_writer(folder: Path, what: str) -> Iterator[None]:
    """The right to write into a folder, made where it is not there yet, for this process alone; killed writers' leftovers are removed.

    Raises:
        ValueError: another process writes there (what: its kind of work), or `.lock` is a link.
        OSError: the folder can't be written to.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    if lock.is_symlink():
        raise ValueError(f"{lock} is a link to {os.readlink(lock)}: links are not written through; remove it")
    try:
        with FileLock(lock, timeout=0):
            remove_unfinished(folder)
            yield
    except Timeout:
        raise ValueError(f"another {what} is writing to {folder}: wait for it, or give another --out") from None


def remove_unfinished(folder: Path) -> None:
    """Removes what killed writers left in a folder that nobody else writes to now."""
    for file in folder.glob(f".*{UNFINISHED}"):
        file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a move in a folder outlast a power cut, where the system can open folders (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
