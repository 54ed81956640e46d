"""Killed at every step of the journal: no byte lost, nothing doubled, nothing overwritten."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import pytest

from imgsortd.adapters.crossing import CLAIM_FOLDER
from imgsortd.adapters.faults import LABELS
from imgsortd.adapters.store import open_read_only, open_store
from killed_line import KillServer
from mounts import tmpfs
from support import BLUE, GREEN, RED, make_config, paint, sums

Without: TypeAlias = tuple[str, ...]
ALWAYS = {"arrived", "read", "planned", "folder_made", "moves_synced", "closed"}
# op, what the filesystem lacks, and the fault points that only this way passes
WAYS: dict[str, tuple[str, Without, set[str]]] = {
    "move": ("move", (), {"opened", "renamed", "verified"}),
    "move by links": ("move", ("renameat2",), {"linked", "renamed"}),
    "copy": ("copy", (), {"staged", "staged_synced", "published"}),
    "copy to named parts": ("copy", ("tmpfile", "renameat2"), {"staged", "linked", "published"}),
    "hardlink": ("hardlink", (), {"linked"}),
    "symlink": ("symlink", (), {"linked"}),
}
CROSSED = {"claimed", "claim_synced", "staged", "staged_synced", "published"} | {
    "published_synced",
    "copied",
    "claim_dropped",
}
WAYS_ACROSS: dict[str, tuple[str, Without, set[str]]] = {
    "move": ("move", (), CROSSED),
    "move by links": ("move", ("renameat2", "tmpfile"), CROSSED | {"linked"}),
    "move without links": ("move", ("renameat2", "tmpfile", "links"), CROSSED),
}


class Scene:
    """An inbox with every kind of file, a stranger in target, and what must come of them."""

    def __init__(self, folder: Path, op: str, without: Without = ()) -> None:
        self.folder, self.op, self.without = folder, op, without
        self.config = make_config(folder, op=op, settle_s=0)
        self.inbox, self.target = self.config.inbox, self.config.target
        drawn = folder / "drawn"
        paint(drawn / "inbox" / "red.png", RED, 1, 16)
        paint(drawn / "inbox" / "sub" / "red.png", RED, 2, 16)
        shutil.copy(drawn / "inbox" / "red.png", drawn / "inbox" / "sub" / "same.png")
        paint(drawn / "inbox" / "green.png", GREEN, 3, 16)
        (drawn / "inbox" / "broken.jpg").write_bytes(b"no picture")
        paint(drawn / "target" / "cluster_0" / "red.png", BLUE, 4, 16)
        self.files = sums(drawn / "inbox")
        self.reset()

    def reset(self) -> None:
        """Begin anew in the same folders, which may be mounts."""
        for root in (self.inbox, self.target, self.config.state_dir):
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name in ("inbox", "target"):
            shutil.copytree(self.folder / "drawn" / name, self.folder / name, dirs_exist_ok=True)

    def sort(self, server: KillServer, fault: str = "") -> dict[str, int]:
        """Sort to the end; return how often each fault point was passed."""
        answer = server.run(self.folder, fault, self.without)
        assert answer["killed"] == bool(fault), fault
        passed: dict[str, int] = answer.get("passed", {})
        return passed

    def check_alive(self) -> None:
        """See that at the instant of death every content has a name, and not many."""
        found = sums(self.inbox, self.target)
        most = 3 if self.without or self.op != "move" else 2
        for content, count in self.files.items():
            assert 1 <= found.get(content, 0) <= most * count

    def check_end(self) -> None:
        """See that every file has exactly one place, and that the books say so."""
        stranger = hashlib.sha256((self.target / "cluster_0" / "red.png").read_bytes())
        placed = sums(self.target)
        assert placed.pop(stranger.hexdigest()) == 1
        assert placed == ({} if self.op == "symlink" else self.files)
        assert sums(self.inbox) == ({} if self.op == "move" else self.files)
        assert not list(self.inbox.rglob(".*")) + list(self.target.rglob(".*"))
        store = open_read_only(self.config.database)
        counts = store.files.counts()
        places = [self.target / Path(dst.decode()) for _, dst in store.files.placed()]
        unfinished = store.journal.unfinished()
        store.close()
        assert (counts.seen, counts.sorted, counts.duplicates, counts.set_aside) == (5, 3, 1, 1)
        assert len(set(places)) == 5
        assert sums_of(places) == self.files
        assert unfinished == []

    def snapshot(self) -> dict[str, tuple[int, int]]:
        """Return inode and mtime of every name."""
        return {
            str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns)
            for root in (self.inbox, self.target)
            for path in root.rglob("*")
        }


def sums_of(paths: list[Path]) -> dict[str, int]:
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return {digest: digests.count(digest) for digest in digests}


def points(passed: dict[str, int]) -> list[str]:
    """Return the first and the last time that each fault point is passed."""
    return [
        f"{label}:{n}" for label in LABELS if label in passed for n in sorted({1, passed[label]})
    ]


def check_all_kills(server: KillServer, scene: Scene) -> set[str]:
    """Die at each fault point, recover, recover again; return the fault points."""
    passed = scene.sort(server)
    scene.check_end()
    for point in points(passed):
        scene.reset()

        scene.sort(server, point)
        scene.check_alive()
        scene.sort(server)

        scene.check_end()
        after = scene.snapshot()
        scene.sort(server)
        assert scene.snapshot() == after, point
    return set(passed)


@pytest.fixture(scope="module")
def server() -> Iterator[KillServer]:
    with KillServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory, where there is one: an fsync costs nothing there."""
    memory = Path("/dev/shm")
    where = memory if os.access(memory, os.W_OK) else tmp_path
    with TemporaryDirectory(prefix="imgsortd-test-", dir=where) as folder:
        yield Path(folder)


@pytest.fixture
def folder_across(folder: Path) -> Iterator[Path]:
    """Return a folder whose ``target`` is another filesystem."""
    with tmpfs(folder / "target"):
        yield folder


@pytest.mark.parametrize("way", WAYS)
def test_killed_anywhere_on_one_filesystem_each_file_ends_in_one_place(
    folder: Path, server: KillServer, way: str
) -> None:
    op, without, labels = WAYS[way]
    scene = Scene(folder, op, without)

    passed = check_all_kills(server, scene)

    assert passed >= ALWAYS | labels


@pytest.mark.parametrize("way", WAYS_ACROSS)
def test_killed_anywhere_across_filesystems_each_file_ends_in_one_place(
    folder_across: Path, server: KillServer, way: str
) -> None:
    op, without, labels = WAYS_ACROSS[way]
    scene = Scene(folder_across, op, without)

    passed = check_all_kills(server, scene)

    assert passed >= ALWAYS | labels


@pytest.mark.parametrize(
    ("op", "without"),
    [("move", ()), ("move", ("renameat2", "tmpfile")), ("copy", ("renameat2", "tmpfile"))],
)
def test_killed_again_during_recovery_each_file_still_ends_in_one_place(
    folder_across: Path, server: KillServer, op: str, without: Without
) -> None:
    scene = Scene(folder_across, op, without)
    all_points = points(scene.sort(server))
    draw = random.Random(0)
    killed_again = 0
    for point in draw.choices(all_points, k=10):
        scene.reset()
        scene.sort(server, point)

        again = server.run(scene.folder, draw.choice(all_points), without)["killed"]
        scene.check_alive()
        scene.sort(server)

        scene.check_end()
        killed_again += again
    assert killed_again > 2


def test_claims_go_back_to_the_inbox_when_the_database_is_lost(
    folder_across: Path, server: KillServer
) -> None:
    scene = Scene(folder_across, "move")
    scene.sort(server, "claim_synced:2")
    claims = [path for path in scene.inbox.rglob("*") if CLAIM_FOLDER.decode() in path.parent.name]
    scene.config.database.unlink()

    scene.sort(server)

    assert claims
    placed = sums(scene.target)
    assert {content: placed[content] for content in scene.files} == scene.files
    assert sums(scene.inbox) == {}


def test_the_books_can_be_read_after_a_death_in_the_middle_of_a_commit(
    folder: Path, server: KillServer
) -> None:
    scene = Scene(folder, "move")
    scene.sort(server)
    writer = open_store(scene.config.database)
    mode = writer.journal_mode()
    writer.close()
    if mode == "wal":
        pytest.skip("this SQLite is safe in WAL mode, which leaves nothing to undo")
    die_writing = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
        "db.execute('PRAGMA cache_size = 1'); db.execute('DELETE FROM files'); "
        "db.executemany('INSERT INTO errors(at, event, detail) VALUES (0, 0, ?)', "
        "[('x' * 4000,)] * 50); os.kill(os.getpid(), 9)"
    )
    died = subprocess.run(
        [sys.executable, "-c", die_writing, str(scene.config.database)], check=False
    )
    assert died.returncode == -9

    store = open_read_only(scene.config.database)

    assert store.files.counts().seen == 5
    store.close()
