"""Files are there whole or not at all, on every system, and never written through a link."""

from __future__ import annotations

import ast
import errno
import os
import stat
from pathlib import Path

import pytest

import alpamayo_r1
from alpamayo_r1.core.files import own_folder, remove_unfinished, writable_file, write_bytes, write_text, written_whole

SOURCE = Path(alpamayo_r1.__file__).parent


def test_a_file_that_fails_leaves_the_one_before_and_nothing_else(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "before")
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "deep" / "a.txt") as beside:
        beside.write_bytes(b"half")
        raise KeyboardInterrupt
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.txt"]
    assert (tmp_path / "deep" / "a.txt").read_bytes() == b"before"


def test_a_link_is_replaced_and_its_target_kept(tmp_path):
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"precious" and not (tmp_path / "link").is_symlink()


def test_folders_that_are_links_are_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rows").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"is a link to .*elsewhere"):
        own_folder(tmp_path / "rows")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file where a folder"):
        own_folder(tmp_path / "file")
    with pytest.raises(ValueError, match="is a folder: give"):
        writable_file(tmp_path)


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), written_whole(tmp_path / "a.txt"):
        full()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_while_writing_names_the_file(tmp_path, monkeypatch):
    def full(self: Path, content: bytes) -> None:
        with open("/dev/full", "wb") as file:
            file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*b\.txt'"):
        write_bytes(tmp_path / "b.txt", b"x")


def test_a_folder_without_permission_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        write_bytes(tmp_path / "file" / "a.txt", b"x")


def test_without_the_functions_of_unix(tmp_path, monkeypatch):
    for name in ("fchmod", "O_DIRECTORY", "O_NOFOLLOW", "fork", "sync", "fdatasync", "getuid"):
        monkeypatch.delattr(os, name, raising=False)
    write_text(tmp_path / "a.txt", "ü\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xbc\n"


def test_files_have_the_modes_that_users_set(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_what_killed_writers_left_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "a") as beside:
        left = beside.name
        raise KeyboardInterrupt
    for name in (left, "a", ".other"):
        (tmp_path / name).write_bytes(b"")
    remove_unfinished(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other", "a"]


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda f: str(f.relative_to(SOURCE)))
def test_text_is_utf_8_and_calls_are_those_of_every_system(file):
    """Every text file names its encoding; nothing imports what only Unix has."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"fcntl", "pwd", "grp", "resource", "termios"}, node.lineno
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}
        if called == "read_text":
            assert "encoding" in given, node.lineno
        if isinstance(node.func, ast.Attribute) and called == "write_text":
            assert {"encoding", "newline"} <= given, f"{node.lineno}: core.files.write_text is meant"
        if called == "open" and _opens_text(node):
            assert "encoding" in given, node.lineno


def _opens_text(call: ast.Call) -> bool:
    """Whether a built-in open(), or an .open() whose mode stands in the code, opens text."""
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str) and set(a.value) <= set("rwaxb+t")]
    if isinstance(call.func, ast.Name):
        return not any("b" in mode for mode in modes)
    is_av = any(keyword.arg == "format" for keyword in call.keywords)
    return bool(modes) and not is_av and not any("b" in mode for mode in modes)
