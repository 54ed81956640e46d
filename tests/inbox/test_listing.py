"""What is in the inbox, what is not touched, and what is a picture."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from imgsortd.config.model import DEFAULT_IGNORE
from imgsortd.errors import WatchError
from imgsortd.inbox.listing import Inbox

JPEG = b"\xff\xd8\xff\xe0"


def make_inbox(root: Path, **changes: Any) -> Inbox:
    settings: dict[str, Any] = {
        "recursive": True,
        "ignore": DEFAULT_IGNORE,
        "extensions": "auto",
    }
    return Inbox(root, **{**settings, **changes})


def put(root: Path, *names: str | bytes, data: bytes = JPEG) -> None:
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(inbox: Inbox) -> list[bytes]:
    return sorted(name for name, _ in inbox.scan())


def test_a_scan_finds_regular_files_in_all_folders(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "deep/down/b.jpg")

    found = dict(make_inbox(tmp_path).scan())

    assert sorted(found) == [b"a.jpg", b"deep/down/b.jpg"]
    assert found[b"a.jpg"].size_bytes == len(JPEG)


def test_without_recursive_subfolders_are_left_alone_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a.jpg", "deep/b.jpg")
    caplog.set_level(logging.INFO)
    inbox = make_inbox(tmp_path, recursive=False)

    assert names(inbox) == names(inbox) == [b"a.jpg"]
    assert inbox.look(b"deep/b.jpg") is None
    assert [record.getMessage() for record in caplog.records] == [
        "left alone reason=folder, and recursive is false name='deep'"
    ]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg",
        "a.jpg.part",
        "a.crdownload",
        "~lock.jpg",
        "a.jpg~",
        ".imgsortd-claim/7-a.jpg",
        ".imgsortd-7.part",
        "@eaDir/a.jpg",
        "lost+found/a.jpg",
        "Thumbs.db",
        "deep/.hidden/a.jpg",
    ],
)
def test_half_written_and_system_files_are_not_touched(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    inbox = make_inbox(tmp_path)

    assert names(inbox) == []
    assert inbox.is_ignored(name.encode())
    assert inbox.look(name.encode()) is None


def test_what_imgsortd_makes_is_ignored_whatever_the_configuration_says(tmp_path: Path) -> None:
    put(tmp_path, ".imgsortd-claim/7-a.jpg", ".hidden.jpg")

    assert names(make_inbox(tmp_path, ignore=())) == [b".hidden.jpg"]


def test_symlinks_and_special_files_are_left_alone_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "inbox"
    put(tmp_path, "outside/secret.jpg")
    root.mkdir()
    (root / "file.jpg").symlink_to(tmp_path / "outside/secret.jpg")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "broken.jpg").symlink_to("nowhere")
    os.mkfifo(root / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket.jpg"))
    caplog.set_level(logging.INFO)
    inbox = make_inbox(root)

    assert names(inbox) == names(inbox) == []
    assert inbox.look(b"file.jpg") is inbox.look(b"fifo.jpg") is None
    assert sorted(record.getMessage() for record in caplog.records) == [
        "left alone reason=special file name='fifo.jpg'",
        "left alone reason=special file name='socket.jpg'",
        "left alone reason=symlink name='broken.jpg'",
        "left alone reason=symlink name='file.jpg'",
        "left alone reason=symlink name='folder'",
    ]


def test_a_fifo_that_claims_to_be_a_picture_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert not make_inbox(tmp_path).claims_picture(b"fifo")


@pytest.mark.parametrize("name", [b"new\nline.jpg", b"\xff\xfe.jpg", b"a\x1b[31m.jpg", b"[a].jpg"])
def test_strange_names_are_found_as_bytes(tmp_path: Path, name: bytes) -> None:
    put(tmp_path, name)
    inbox = make_inbox(tmp_path)

    assert names(inbox) == [name]
    assert inbox.look(name) == next(inbox.scan())[1]


def test_names_are_logged_escaped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(os.fsencode(tmp_path) + b"/\x1b[31m\xff")
    caplog.set_level(logging.INFO)

    names(make_inbox(tmp_path))

    assert caplog.messages == ["left alone reason=special file name='\\x1b[31m\\udcff'"]


def test_a_list_of_extensions_takes_only_those_in_any_case_with_or_without_a_dot(
    tmp_path: Path,
) -> None:
    put(tmp_path, "a.jpg", "B.JPG", "c.png", "d.gif", "jpg", "e.notjpg")
    inbox = make_inbox(tmp_path, extensions=(".jpg", "PNG"))

    assert names(inbox) == [b"B.JPG", b"a.jpg", b"c.png"]
    assert inbox.look(b"d.gif") is None


@pytest.mark.parametrize(
    ("name", "data", "claims"),
    [
        ("a.jpg", b"no picture, but it says so", True),
        ("A.HEIC", b"", True),
        ("no-extension", JPEG, True),
        ("wrong.txt", b"\x89PNG\r\n\x1a\n", True),
        ("notes.txt", b"text", False),
        ("empty", b"", False),
        ("gone", None, False),
    ],
)
def test_a_picture_is_known_by_its_extension_or_its_first_bytes(
    tmp_path: Path, name: str, data: bytes | None, claims: bool
) -> None:
    if data is not None:
        put(tmp_path, name, data=data)

    assert make_inbox(tmp_path).claims_picture(name.encode()) is claims


def test_a_lost_inbox_is_told(tmp_path: Path) -> None:
    inbox = make_inbox(tmp_path / "inbox")

    with pytest.raises(WatchError, match=r"cannot be listed \(No such file or directory\)"):
        names(inbox)
    (tmp_path / "inbox").touch()
    with pytest.raises(WatchError, match="is no longer a folder"):
        names(inbox)


def test_the_folders_that_were_listed_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c.jpg", "d/e.jpg", ".hidden/f.jpg")
    inbox = Inbox(tmp_path, True, (".*",), "auto")

    names(inbox)

    assert inbox.folders == 4


def test_folders_nested_without_end_are_listed_as_far_as_paths_reach(endless_folder: Path) -> None:
    put(endless_folder, "a.jpg", "d/b.jpg")

    assert names(make_inbox(endless_folder)) == [b"a.jpg", b"d/b.jpg"]


def test_absence_says_something_only_where_the_folder_was_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jpg", "open/b.jpg", "closed/deep/c.jpg")
    real = os.scandir

    def scandir(path: bytes) -> Any:  # root may read everything
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    inbox = make_inbox(tmp_path, ignore=[".*", "*.part"], extensions=["jpg"])

    assert names(inbox) == [b"a.jpg", b"open/b.jpg"]
    looked_at = [b"gone.jpg", b"open/gone.jpg", b"gone/folder/x.jpg"]
    assert all(map(inbox.has_looked_at, looked_at))
    not_looked_at = [b"closed/deep/c.jpg", b"closed/x.jpg", b"x.part", b".h/x.jpg", b"open/x.png"]
    assert not any(map(inbox.has_looked_at, not_looked_at))
    monkeypatch.undo()
    assert names(inbox) == [b"a.jpg", b"closed/deep/c.jpg", b"open/b.jpg"]
    assert inbox.has_looked_at(b"closed/x.jpg")
