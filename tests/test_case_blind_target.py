"""A target that takes ``A.JPG`` and ``a.jpg`` for one name (vfat, SMB, casefold): nothing is lost.

This kernel has no such filesystem, so the calls that give a file its name are made as blind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsortd.store.database import open_for_reading
from killed_line import KillServer
from scene import Without
from support import RED, make_config, paint, sums

WAYS: dict[str, tuple[str, Without]] = {
    "move": ("move", ()),
    "move by links": ("move", ("renameat2",)),
    "copy": ("copy", ()),
    "copy to named parts": ("copy", ("tmpfile",)),
    "hardlink": ("hardlink", ()),
}
WAYS_ACROSS: dict[str, tuple[str, Without]] = {
    "move": ("move", ()),
    "move by named parts": ("move", ("tmpfile", "renameat2")),
}
NAMES = ("A.jpg", "a.JPG", "sub/a.jpg", "ä.png", "Ä.png")


def sort_blindly(server: KillServer, folder: Path, op: str, without: Without) -> None:
    """Sort names that differ in case alone, of other bytes each, and look for every one."""
    config = make_config(folder, op=op, settle_s=0)
    for number, name in enumerate(NAMES):
        paint(config.inbox / name, RED, number, 16)
    paint(config.target / "cluster_0" / "A.JPG", RED, 99, 16)
    stranger = (config.target / "cluster_0" / "A.JPG").read_bytes()
    before = {**sums(config.inbox), **sums(config.target)}

    answer = server.run(folder, without=(*without, "case"))

    assert not answer["killed"]
    placed = sums(config.target)
    assert placed == before
    assert (config.target / "cluster_0" / "A.JPG").read_bytes() == stranger
    names = [path.name.lower() for path in (config.target / "cluster_0").iterdir()]
    assert len(names) == len(set(names)) == len(NAMES) + 1
    store = open_for_reading(config.database)
    places = [dst for _, dst in store.files.placed()]
    assert store.files.counts().sorted == len(set(places)) == len(NAMES)
    assert store.journal.unfinished() == []
    store.close()
    assert all((config.target / dst.decode()).is_file() for dst in places)


@pytest.mark.parametrize("way", WAYS)
def test_names_that_differ_in_case_alone_all_survive(
    folder: Path, server: KillServer, way: str
) -> None:
    sort_blindly(server, folder, *WAYS[way])


@pytest.mark.parametrize("way", WAYS_ACROSS)
def test_names_that_differ_in_case_alone_all_survive_on_another_filesystem(
    folder_across: Path, server: KillServer, way: str
) -> None:
    sort_blindly(server, folder_across, *WAYS_ACROSS[way])
