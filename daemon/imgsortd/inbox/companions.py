"""The companions that stand in the inbox: raw files, sidecars and films of pictures.

A companion has its picture's name, but for the extension: ``IMG_1.xmp``, ``IMG_1.CR2`` and
``IMG_1.MOV`` go with ``IMG_1.JPG`` in the same folder, and so do ``IMG_1.JPG.xmp`` and
``IMG_1.CR2.xmp``, as darktable and others name their sidecars. Extensions are compared without
case, the rest of the name byte for byte.

A camera uses its names again. So a companion goes with a picture that has come with it, else
with one that stands beside it, else with one that was sorted within a day; an older one of its
name is another picture.

It is planned only when its picture's move is done, into the same batch: so it is never sent
off without a picture that changed or vanished in the last instant, a picture waits for no
companion, and one that comes some hours later takes the same way.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from imgsortd.config.model import Config
from imgsortd.inbox.listing import endings
from imgsortd.names import parts
from imgsortd.pictures.formats import PICTURE_EXTENSIONS
from imgsortd.records import FileState, Stamp
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.system import filesystem

log = logging.getLogger(__name__)

IsSettling = Callable[[bytes], bool]
"""Tells whether a name in the inbox is one that has not settled yet."""

_NAMES = tuple(
    spelled
    for ending in sorted(PICTURE_EXTENSIONS)
    for spelled in (ending, ending.upper(), b"." + ending[1:].capitalize())
)

_TOGETHER_S = 600.0
_SOON_S = 86_400.0
_TOO_FAR = 3

_FIRST = (frozenset({b".jpg", b".jpeg", b".jpe", b".jfif"}), frozenset({b".heic", b".heif"}))


class Companions:
    """Knows the companions in the inbox, and by a rule which picture each goes with."""

    def __init__(self, config: Config, store: Store) -> None:
        self.rule = CompanionRule.of(config.companions)
        self._config, self._rows = config, store.companions
        self._since_s: dict[bytes, float] = {}  # when each was seen first, in Unix seconds
        self._reserved: dict[bytes, bytes] = {}
        self._by_stem: dict[bytes, set[bytes]] = {}
        self._stamps: dict[bytes, Stamp | None] = {}
        self._ready: dict[bytes, None] = {}  # a set in the order of arrival

    def see(self, name: bytes, settled: Stamp | None) -> None:
        """Note a file of the inbox; ``settled`` is None while it may still be written."""
        if not self.rule.is_companion(name):
            return
        for stem in self.rule.stems(name):
            self._by_stem.setdefault(stem, set()).add(name)
        self._stamps[name] = settled
        self._since_s.setdefault(name, time.time())

    def settled(self, name: bytes, stamp: Stamp) -> None:
        """Note that a companion is finished and may follow its picture."""
        self.see(name, stamp)
        self._ready[name] = None

    def placed(self, picture: bytes) -> None:
        """Note that a picture has left, or been copied, so that its companions may follow."""
        for name in self.of(picture):
            if self._stamps[name] is not None:
                self._ready[name] = None

    def drop(self, name: bytes) -> None:
        """Forget a file that is no longer in the inbox."""
        if self._stamps.pop(name, False) is False:
            return
        self._ready.pop(name, None)
        self._reserved.pop(name, None)
        self._since_s.pop(name, None)
        for stem in self.rule.stems(name):
            self._by_stem[stem].discard(name)
            if not self._by_stem[stem]:
                del self._by_stem[stem]

    def keep(self, there: set[bytes]) -> None:
        """Forget the files that a listing of the inbox lacks."""
        for name in self._stamps.keys() - there:
            self.drop(name)

    def of(self, picture: bytes) -> list[bytes]:
        """Return the companions in the inbox that a picture leads, were it the only one."""
        found = self._by_stem.get(parts(picture)[0], ())
        return sorted(name for name in found if self.rule.leads(picture, name))

    def reserve(self, name: bytes, dst: bytes) -> None:
        """Keep a name below target free for a companion whose picture goes before."""
        self._reserved[name] = dst

    def release(self, name: bytes) -> bytes:
        """Give up the name that is kept for a companion, and return it; empty where none is."""
        return self._reserved.pop(name, b"")

    def reserved(self) -> set[bytes]:
        """Return the names below target that are kept."""
        return set(self._reserved.values())

    def take_ready(self) -> list[tuple[bytes, Stamp]]:
        """Take the companions that may be able to follow."""
        ready, self._ready = self._ready, {}
        return [(name, stamp) for name in ready if (stamp := self._stamps.get(name))]

    @property
    def has_ready(self) -> bool:
        """Whether :meth:`take_ready` would return some."""
        return bool(self._ready)

    def awaits_picture(self, name: bytes, is_settling: IsSettling) -> bool:
        """Tell whether a finished file is to be left to a picture of its name.

        A raw file that can be decoded is one itself, unless another kind has its name.
        """
        if not self.rule.is_companion(name) or self._rows.is_picture(name):
            return False
        first = self.rule.first(self._pictures(name, is_settling), name)
        return first is not None and not self.rule.is_companion(first)

    def leave(self, name: bytes, stamp: Stamp, is_settling: IsSettling, reason: str) -> bool:
        """Leave a file until a picture of its name comes; return whether none is known."""
        is_alone = True
        if self.rule.is_companion(name):
            self.settled(name, stamp)
            is_alone = self.rule.first(self._pictures(name, is_settling), name) is None
        if is_alone:
            log.info("file left alone reason=%s name=%r", reason, os.fsdecode(name))
        return is_alone

    def picture_of(self, name: bytes, is_settling: IsSettling) -> FileRow | None:
        """Return the picture that a companion may follow now; None where it has to wait."""
        if self._rows.is_picture(name):
            return None
        pictures = self._pictures(name, is_settling)
        first = self.rule.first(pictures, name)
        row = None if first is None else pictures[first]
        if row is None or row.dst is None or row.state in (FileState.PENDING, FileState.UNDONE):
            return None
        return row

    def _pictures(self, name: bytes, is_settling: IsSettling) -> dict[bytes, FileRow | None]:
        """Return the pictures that may lead a companion, with no row where they are settling."""
        stems = self.rule.stems(name)
        found: dict[bytes, FileRow | None] = {
            row.src: row for row in self._rows.pictures(stems) if self._is_there(row)
        }
        spelled: Iterable[bytes] = (stem + ending for stem in stems for ending in _NAMES)
        found.update((picture, None) for picture in spelled if is_settling(picture))
        leading = {picture: row for picture, row in found.items() if self.rule.leads(picture, name)}
        nearness = {picture: self._nearness(name, row) for picture, row in leading.items()}
        nearest = min(nearness.values(), default=_TOO_FAR)
        return {
            picture: row
            for picture, row in leading.items()
            if nearness[picture] == nearest < _TOO_FAR
        }

    def _is_there(self, row: FileRow) -> bool:
        if row.dst is None or row.state is FileState.PENDING:
            return True
        return row.target is None and filesystem.look(self._config.target, row.dst) is not None

    def _nearness(self, name: bytes, picture: FileRow | None) -> int:
        """Return how near a picture and its companion have come: 0 together, to _TOO_FAR."""
        if picture is None or picture.state is FileState.PENDING:
            return 0
        stamp = self._stamps.get(name)
        came_s = [self._since_s.get(name, time.time())]
        came_s += [stamp.ctime_ns / 1e9] if stamp else []
        if any(abs(at - picture.seen_at) < _TOGETHER_S for at in came_s):
            return 0
        if picture.is_in_inbox and filesystem.look(self._config.inbox, picture.src) is not None:
            return 1
        done_at = picture.done_at
        is_new = done_at is not None and any(at - done_at < _SOON_S for at in came_s)
        return 2 if is_new else _TOO_FAR


@dataclass(frozen=True, slots=True)
class CompanionRule:
    """The extensions of companions, in lower case, each with its dot."""

    extensions: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, extensions: Iterable[str | bytes]) -> CompanionRule:
        """Make a rule of extensions as a person writes them: any case, dot or none."""
        return cls(endings(extensions))

    def is_companion(self, name: bytes) -> bool:
        """Tell whether a name is one of a companion, should a picture of its stem be there."""
        return parts(name)[1] in self.extensions

    def stems(self, companion: bytes) -> tuple[bytes, ...]:
        """Return the stems, with folder, that a companion's picture may have."""
        stem = parts(companion)[0]
        shorter, middle = parts(stem)
        return (stem, shorter) if middle else (stem,)

    def leads(self, picture: bytes, companion: bytes) -> bool:
        """Tell whether a companion goes with this picture; a picture is not asked about itself."""
        stem, extension = parts(picture)
        is_of_stem = picture != companion and companion.startswith(stem + b".")
        if not is_of_stem or not self.is_companion(companion):
            return False
        ending = companion[len(stem) :].lower()
        middle = ending[: ending.rfind(b".")]
        return middle in (b"", extension) or middle in self.extensions

    def order(self, picture: bytes, companion: bytes) -> tuple[bool, int, bytes]:
        """Return a key that sorts the pictures which lead a companion: the first one has it.

        ``IMG_1.JPG.xmp`` names its picture. Else JPEG comes before HEIC, HEIC before other
        pictures, and these before raw files that are pictures themselves; then by name.
        """
        extension = parts(picture)[1]
        rank = next((n for n, group in enumerate(_FIRST) if extension in group), len(_FIRST))
        if extension in self.extensions:
            rank = len(_FIRST) + 1
        return parts(companion)[0] != picture, rank, picture

    def first(self, pictures: Iterable[bytes], companion: bytes) -> bytes | None:
        """Return the picture that a companion goes with, or None where none leads it."""
        leading = [picture for picture in pictures if self.leads(picture, companion)]
        return min(leading, key=lambda p: self.order(p, companion), default=None)
