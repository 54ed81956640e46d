"""The system calls beneath: no symlink followed, no FIFO waited for, no writer overlooked."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from imgsortd.system import filesystem


@pytest.fixture
def folder_fd(tmp_path: Path) -> Iterator[int]:
    fd = filesystem.open_root(tmp_path)
    yield fd
    os.close(fd)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", ["missing", "symlink", "fifo", "socket", "folder"])
def test_only_a_regular_file_is_opened(tmp_path: Path, folder_fd: int, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "symlink":
        path.symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with chdir(tmp_path), socket.socket(socket.AF_UNIX) as listener:
            listener.bind("x")
    elif kind == "folder":
        path.mkdir()
    before = open_fds()

    with pytest.raises(OSError, match="x") as caught:
        filesystem.open_regular(folder_fd, b"x")

    assert caught.value.errno in filesystem.NO_FILE
    assert open_fds() == before


@pytest.mark.parametrize("name", [b"..", b"sub/..", b"sub/../../etc", b"link", b"link/below"])
def test_no_folder_is_opened_through_a_symlink_or_upwards(
    tmp_path: Path, folder_fd: int, name: bytes
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    before = open_fds()

    with pytest.raises(OSError, match=r"leaves its root|Not a directory"):
        filesystem.open_below(folder_fd, name)

    assert open_fds() == before


def test_a_folder_is_opened_part_by_part(tmp_path: Path, folder_fd: int) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)

    with filesystem.closing(filesystem.open_below(folder_fd, b"a/b")) as fd:
        assert os.fstat(fd).st_ino == (tmp_path / "a" / "b").stat().st_ino


def test_an_open_writer_is_seen_until_it_closes(tmp_path: Path, leases_allowed: None) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")

    with open(path, "rb") as reader:
        with open(path, "ab"):
            assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.SOME
        assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.NONE


def test_a_writer_that_closed_but_has_the_file_mapped_is_seen(
    tmp_path: Path, leases_allowed: None
) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(4096))
    with open(path, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 4096)

    with open(path, "rb") as reader:
        assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.SOME
        mapped.close()
        assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.NONE


def test_a_writer_that_comes_after_the_question_does_not_kill_the_asker(
    tmp_path: Path, leases_allowed: None
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")

    with open(path, "rb") as reader:
        assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.NONE
        path.write_bytes(b"y")


def test_without_leases_nobody_is_seen_writing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL

    with open(path, "ab"), open(path, "rb") as reader:
        assert filesystem.writer_of(reader.fileno()) is filesystem.Writer.NONE


def test_a_folder_that_cannot_be_synced_is_left_to_its_filesystem() -> None:
    with filesystem.closing(filesystem.open_root(Path("/proc"))) as fd:
        with pytest.raises(OSError, match="Invalid argument"):
            os.fsync(fd)

        filesystem.sync_folder(fd)


def test_folders_are_opened_once_and_closed_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = open_fds()

    with filesystem.Folders(tmp_path) as folders:
        assert folders.fd(b"a") == folders.fd(b"a")
        assert folders.make(b"b") == folders.make(b"b")
        folders.touched(b"a")
        folders.sync()

    assert open_fds() == before
    assert (tmp_path / "b").is_dir()


def test_a_folder_that_was_removed_is_opened_anew(tmp_path: Path) -> None:
    with filesystem.Folders(tmp_path) as folders:
        folders.make(b"a")
        (tmp_path / "a").rmdir()
        folders.close(b"a")

        fd = folders.make(b"a")

        assert os.fstat(fd).st_ino == (tmp_path / "a").stat().st_ino


def test_the_same_bytes_are_told_by_size_and_hash(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"picture")
    with filesystem.closing(os.open(tmp_path / "x", os.O_RDONLY)) as fd:
        sha256 = filesystem.sha256_of(fd)

    with filesystem.Folders(tmp_path) as folders:
        assert filesystem.holds_bytes(folders, b"x", 7, sha256)
        assert not filesystem.holds_bytes(folders, b"x", 8, sha256)
        assert not filesystem.holds_bytes(folders, b"x", 7, bytes(32))
        assert not filesystem.holds_bytes(folders, b"y", 7, sha256)


@pytest.mark.parametrize("lacking", ["nothing", "renameat2", "renameat2 and links"])
def test_a_rename_never_replaces(
    tmp_path: Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    if "renameat2" in lacking:
        monkeypatch.setattr(filesystem, "_libc", object())
    if "links" in lacking:
        monkeypatch.setattr(os, "link", _refuse)
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")

    with pytest.raises(FileExistsError):
        filesystem.rename(folder_fd, b"a", folder_fd, b"b")
    filesystem.rename(folder_fd, b"a", folder_fd, b"c")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"b", "c": b"a"}


def test_a_rename_that_fails_leaves_no_placeholder(
    tmp_path: Path, folder_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_libc", object())
    monkeypatch.setattr(os, "link", _refuse)

    with pytest.raises(FileNotFoundError):
        filesystem.rename(folder_fd, b"missing", folder_fd, b"c")

    assert list(tmp_path.iterdir()) == []


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")
