"""An inbox with every kind of file, sorted by processes that die: nothing may be lost by it."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from imgsortd.store.database import open_for_reading
from imgsortd.system.faults import LABELS
from killed_line import KillServer
from support import BLUE, GREEN, RED, leftovers, make_config, paint, sums

Without: TypeAlias = tuple[str, ...]
# A name for each way through the journal; one is taken by a stranger, one file is there twice.
ENDS = {
    "red.png": "sorted",
    "sub/red.png": "sorted",
    "sub/same.png": "twin",
    "green.png": "sorted",
    "broken.jpg": "aside",
}
# Companions of one that takes another name, and of one that is set aside.
ENDS_WITH_COMPANIONS = {
    "sub/red.png": "sorted",
    "sub/red.xmp": "companion",
    "sub/red.MOV": "companion",
    "broken.jpg": "aside",
    "broken.CR2": "companion",
}
_ALL_ENDS = {**ENDS, **ENDS_WITH_COMPANIONS}


def draw_inbox(inbox: Path) -> None:
    """Write the files of ``ENDS``, and their companions."""
    paint(inbox / "red.png", RED, 1, 16)
    paint(inbox / "sub" / "red.png", RED, 2, 16)
    shutil.copy(inbox / "red.png", inbox / "sub" / "same.png")
    paint(inbox / "green.png", GREEN, 3, 16)
    (inbox / "broken.jpg").write_bytes(b"no picture")
    (inbox / "broken.CR2").write_bytes(b"II*\0 raw")
    (inbox / "sub" / "red.xmp").write_bytes(b"sidecar")
    (inbox / "sub" / "red.MOV").write_bytes(b"film" * 1000)


class Scene:
    """An inbox with every kind of file, a stranger in target, and what must come of them."""

    def __init__(
        self, folder: Path, op: str, without: Without = (), names: Sequence[str] = ENDS
    ) -> None:
        self.folder, self.op, self.without = folder, op, without
        self.config = make_config(folder, op=op, settle_s=0)
        self.inbox, self.target = self.config.inbox, self.config.target
        drawn = folder / "drawn"
        draw_inbox(drawn / "inbox")
        for name in set(_ALL_ENDS) - set(names):
            (drawn / "inbox" / name).unlink()
        paint(drawn / "target" / "cluster_0" / "red.png", BLUE, 4, 16)
        self.files = sums(drawn / "inbox")
        self.ends = Counter(_ALL_ENDS[name] for name in names)
        self.reset()

    def reset(self) -> None:
        """Begin anew in the same folders, which may be mounts."""
        for root in (self.inbox, self.target, self.config.state_dir):
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.folder / "drawn").iterdir():
            shutil.copytree(path, self.folder / path.name, dirs_exist_ok=True)

    def with_clusters(self, server: KillServer) -> Scene:
        """Begin anew with a database that has seen nothing but a fit, also at each reset."""
        shutil.rmtree(self.inbox)
        self.inbox.mkdir()
        self.sort(server)
        shutil.copytree(self.config.state_dir, self.folder / "drawn" / "state")
        self.reset()
        return self

    def sort(self, server: KillServer, fault: str = "") -> dict[str, int]:
        """Sort to the end; return how often each fault point was passed."""
        answer = server.run(self.folder, fault, self.without)
        assert answer["killed"] == bool(fault), (fault, answer)
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
        assert leftovers(self.inbox, self.target) == []
        store = open_for_reading(self.config.database)
        counts = store.files.counts()
        places = [self.target / Path(dst.decode()) for _, dst in store.files.placed()]
        unfinished = store.journal.unfinished()
        store.close()
        ends = {"sorted": counts.sorted, "twin": counts.duplicates, "aside": counts.set_aside}
        ends["companion"] = counts.companions
        assert ends == {end: self.ends[end] for end in ends}
        companions = {path for path in places if path.suffix in (".xmp", ".MOV", ".CR2")}
        pictures = {path.with_suffix("") for path in set(places) - companions}
        assert {path.with_suffix("") for path in companions} <= pictures
        assert counts.seen == len(set(places)) == self.ends.total()
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
