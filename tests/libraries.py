"""What libraries know and say, seen from outside, and deeds that tests have in common."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

import warm
from imgsortd.config import parse_config
from imgsortd.inbox.watching import SENTINEL
from inboxes import Inbox, quick_cli
from support import each_file_below, wait_until

# No refit comes in between: it is not what these tests are about.
STEADY: dict[str, Any] = {"refit": {"growth": "off", "interval": "off"}}
# Nor does doctor read half a gigabyte of weights each time.
LIGHT: dict[str, Any] = {**STEADY, "model": {"weights": "none.pth"}}
WITHOUT_TMPFILE = (warm.WRAPPED, "without-tmpfile")

_MARKER, _STATE_FOLDER, _CLAIMS = ".imgsortd-library", ".imgsortd", ".imgsortd-claim"
# The stand-in for VGG16 has no weights that doctor could find.
_NOT_LOOKED_AT = ("weights", "free space")


def rows(one: Inbox) -> dict[str, list[tuple[Any, ...]]]:
    """Return what the database holds of files and moves."""
    columns = {
        "files": "id, src, sha256, state, cluster_id, dst, seen_at, done_at",
        "moves": "id, file_id, batch, phase",
    }
    with closing(sqlite3.connect(f"file:{one.config.database}?mode=ro", uri=True)) as database:
        return {
            table: database.execute(f"SELECT {names} FROM {table} ORDER BY id").fetchall()
            for table, names in columns.items()
        }


def states(one: Inbox) -> dict[str, str]:
    """Return the state of each file by its name in the inbox; of the newest row of that name."""
    return {row[1].decode(): row[3] for row in rows(one)["files"]}


def standing(*folders: Path) -> dict[Path, str]:
    """Return the SHA-256 of each file below, by its path; links are followed.

    What is a library's own is left out: the marker in target, a state folder there, and the
    file that proves the watch of the inbox.
    """
    return {
        path: sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in each_file_below(folder)
        if path.name != _MARKER and _STATE_FOLDER not in path.parts
        if not path.name.startswith(SENTINEL)
    }


def claims(*folders: Path) -> list[Path]:
    """Return the files that are hidden by moves between two filesystems."""
    return [path for path in standing(*folders) if path.parent.name == _CLAIMS]


def findings(one: Inbox, *options: str) -> list[tuple[str, str, str]]:
    """Return (what, verdict, text) of each line that doctor has to say."""
    said = json.loads(quick_cli("doctor", one, "--json", *options).stdout)
    return [(found["what"], found["verdict"], found["text"]) for found in said["findings"]]


def complaints(one: Inbox, *options: str) -> list[tuple[str, str]]:
    """Return (what, text) of all that doctor finds bad."""
    return [
        (what, text)
        for what, verdict, text in findings(one, *options)
        if verdict == "bad" and what not in _NOT_LOOKED_AT
    ]


def started(one: Inbox, *options: str) -> None:
    """Start the daemon and wait until it works."""
    file = one.folder / "daemon.log"
    before = one.daemon.log.count("daemon ready") if file.exists() else 0
    one.daemon.start(*options)
    one.daemon.wait_ready(before + 1)


def looked(one: Inbox) -> None:
    """Have three pictures sorted, delete one of them, and wait until the daemon knows.

    By then it has also taken for deleted whatever it missed before.
    """
    before = states(one).keys()
    one.drop(1)

    def new() -> list[str]:
        found = states(one)
        return [name for name in found if name not in before and found[name] == "sorted"]

    wait_until(lambda: len(new()) == 3, 30, "three more sorted\n" + one.daemon.log)
    name = new()[0]
    (path,) = one.target.rglob(name)
    del one.dropped[sha256(path.read_bytes()).hexdigest()]
    path.unlink()
    wait_until(lambda: states(one)[name] == "gone", 30, "the deletion is seen\n" + one.daemon.log)


def places(one: Inbox) -> list[tuple[Any, ...]]:
    """Return what is known of each file that stands in target: id, name there, SHA-256, state."""
    placed = ("sorted", "review", "set_aside", "duplicate", "companion")
    return [
        (row[0], row[5].decode(), row[2].hex(), row[3])
        for row in rows(one)["files"]
        if row[3] in placed and row[5] is not None
    ]


def check_places(one: Inbox) -> None:
    """See that each file in target has one row, which knows its bytes, and each row its file."""
    there = {
        str(path.relative_to(one.target)): digest for path, digest in standing(one.target).items()
    }
    known = [(dst, digest) for _, dst, digest, _ in places(one)]
    assert sorted(known) == sorted(there.items())


def count(one: Inbox, state: str = "sorted") -> int:
    """Return how many files `status` counts of a state."""
    return one.status().counts[state]


def told(one: Inbox) -> str:
    """Return all that `status` and `doctor` say."""
    return quick_cli("status", one, "--json").stdout + quick_cli("doctor", one, "--json").stdout


def squeezed(text: str | Path) -> str:
    """Leave the blanks out: a terminal breaks lines where it likes, also in a long path."""
    return re.sub(r"\s", "", str(text))


def names_pid(text: str, one: Inbox) -> bool:
    """Tell whether a text names the pid of a daemon."""
    assert one.daemon.process is not None
    return re.search(rf"pid{one.daemon.process.pid}(?!\d)", squeezed(text)) is not None


def names_path(text: str, path: Path) -> bool:
    """Tell whether a text names a file or folder."""
    return squeezed(path) in squeezed(text)


def refused(two: Inbox, *options: str) -> str:
    """Start a daemon that is to be refused, and return what it said."""
    file = two.folder / "daemon.log"
    before = len(two.daemon.log) if file.exists() else 0
    two.daemon.start(*options)

    def is_decided() -> bool:
        return not two.daemon.is_alive() or "daemon ready" in two.daemon.log[before:]

    wait_until(is_decided, 30, "ready or refused")
    assert "daemon ready" not in two.daemon.log[before:], "it was not refused"
    assert two.daemon.process is not None
    assert two.daemon.process.wait(30) != 0
    return two.daemon.log[before:]


def killed(one: Inbox, point: str) -> None:
    """Let a daemon die at a fault point."""
    one.daemon.start(IMGSORTD_FAULT_POINT=point)
    assert one.daemon.process is not None
    assert one.daemon.process.wait(60) == -signal.SIGKILL


def sort(
    source: Path, target: Path, *options: str, fault: str = ""
) -> subprocess.CompletedProcess[str]:
    """Sort a folder once, into three clusters unless told otherwise."""
    number = () if "-k" in options else ("-k", "3")
    words = [warm.QUICK, "sort", str(source), str(target), *number, *options]
    return warm.run(words, {"COLUMNS": "120", "IMGSORTD_FAULT_POINT": fault}, timeout_s=60)


def undo_all(one: Inbox) -> None:
    """Undo all that was sorted so far, batch by batch."""
    for batch in sorted({row[2] for row in rows(one)["moves"]}, reverse=True):
        done = quick_cli("undo", one, "--batch", str(batch))
        assert done.returncode == 0, done.stderr


def change(one: Inbox, **changes: Any) -> None:
    """Edit the configuration; no folder is made for it."""
    file = one.folder / "config.yaml"
    data = yaml.safe_load(file.read_text())
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    file.write_text(yaml.safe_dump(data))
    one.config = parse_config(data, file)
    one.inbox, one.target = one.config.inbox, one.config.target


def damage(one: Inbox) -> None:
    """Write garbage over the database of a daemon that is stopped; leave the one backup."""
    folder = one.config.state_dir / "backups"
    shutil.rmtree(folder)
    shutil.copytree(one.folder / "kept backups", folder)
    one.config.database.write_bytes(b"this is no database any more" * 1000)


def reload(one: Inbox) -> None:
    """Have the daemon read its configuration again, and wait for it."""
    before = one.daemon.log.count("daemon ready")
    one.daemon.send(signal.SIGHUP)
    one.daemon.wait_ready(before + 1)


def sorted_nine(one: Inbox) -> Inbox:
    """Let a daemon sort nine pictures of three colours, and end."""
    one.drop(3)
    one.daemon.start()
    one.wait_sorted()
    assert one.daemon.stop() == 0
    return one
