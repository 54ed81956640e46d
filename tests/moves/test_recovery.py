"""Killed at every step of the journal: no byte lost, nothing doubled, nothing overwritten."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imgsortd.moves.crossing import CLAIM_FOLDER
from imgsortd.store.database import open_for_reading, open_for_writing
from killed_line import KillServer
from scene import ENDS_WITH_COMPANIONS, Scene, Without, points
from support import sums

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


HOW_OFTEN = ["once", pytest.param("twice", marks=pytest.mark.faults)]


def check_all_kills(server: KillServer, scene: Scene, how_often: str) -> set[str]:
    """Die at each fault point, recover, recover again; return the fault points.

    ``twice``: the first and the last time that it is passed; and then at each fault point
    that a recovery passes, too, in the recovery after the earliest and the latest death
    with which it does.
    """
    passed = scene.sort(server)
    scene.check_end()
    recoveries: dict[str, list[str]] = {}
    for point in points(passed) if how_often == "twice" else passed:
        scene.reset()

        scene.sort(server, point)
        scene.check_alive()
        for label in scene.sort(server):
            recoveries.setdefault(label, []).append(point)

        scene.check_end()
        after = scene.snapshot()
        scene.sort(server)
        assert scene.snapshot() == after, point
    for label, deaths in recoveries.items() if how_often == "twice" else ():
        for point in {deaths[0], deaths[-1]}:
            check_killed_twice(server, scene, point, label)
    return set(passed)


def check_killed_twice(server: KillServer, scene: Scene, first: str, second: str) -> None:
    scene.reset()
    scene.sort(server, first)
    scene.sort(server, second)
    scene.check_alive()
    scene.sort(server)
    scene.check_end()


@pytest.mark.parametrize(
    ("way", "how_often"),
    [
        *((way, "once") for way in ("move", "copy", "hardlink")),
        *(pytest.param(way, "twice", marks=pytest.mark.faults) for way in WAYS),
    ],
)
def test_killed_anywhere_on_one_filesystem_each_file_ends_in_one_place(
    folder: Path, server: KillServer, way: str, how_often: str
) -> None:
    op, without, labels = WAYS[way]
    scene = Scene(folder, op, without)

    passed = check_all_kills(server, scene, how_often)

    assert passed >= ALWAYS | labels


@pytest.mark.parametrize(
    ("way", "how_often"),
    [
        ("move", "once"),
        *(pytest.param(way, "twice", marks=pytest.mark.faults) for way in WAYS_ACROSS),
    ],
)
def test_killed_anywhere_across_filesystems_each_file_ends_in_one_place(
    folder_across: Path, server: KillServer, way: str, how_often: str
) -> None:
    op, without, labels = WAYS_ACROSS[way]
    scene = Scene(folder_across, op, without)

    passed = check_all_kills(server, scene, how_often)

    assert passed >= ALWAYS | labels


@pytest.mark.parametrize(
    ("op", "how_often"),
    [
        ("move", "once"),
        *(
            pytest.param(op, "twice", marks=pytest.mark.faults)
            for op in ("move", "copy", "symlink")
        ),
    ],
)
def test_killed_anywhere_companions_end_beside_their_pictures(
    folder: Path, server: KillServer, op: str, how_often: str
) -> None:
    scene = Scene(folder, op, names=list(ENDS_WITH_COMPANIONS))

    passed = check_all_kills(server, scene, how_often)

    assert passed >= ALWAYS


@pytest.mark.parametrize("how_often", HOW_OFTEN)
def test_killed_anywhere_across_filesystems_companions_end_beside_their_pictures(
    folder_across: Path, server: KillServer, how_often: str
) -> None:
    scene = Scene(folder_across, "move", names=list(ENDS_WITH_COMPANIONS))

    passed = check_all_kills(server, scene, how_often)

    assert passed >= ALWAYS | CROSSED


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
    writer = open_for_writing(scene.config.database)
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

    store = open_for_reading(scene.config.database)

    assert store.files.counts().seen == 5
    store.close()
