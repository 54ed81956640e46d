"""The companions that stand in the inbox: raw files, sidecars and films of pictures.

A companion is planned only when its picture's move is done, into the same batch: so it is
never sent off without a picture that changed or vanished in the last instant, a picture
waits for no companion, and one that comes a day later takes the same way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from imgsortd.adapters.inbox import PICTURE_EXTENSIONS
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_companions import PictureRow, StoreCompanions
from imgsortd.config import Config
from imgsortd.core.companions import CompanionRule, parts
from imgsortd.core.records import FileState, Stamp

log = logging.getLogger(__name__)

IsSettling = Callable[[bytes], bool]
"""Tells whether a name in the inbox is one that has not settled yet."""

_NAMES = tuple(
    spelled
    for ending in sorted(PICTURE_EXTENSIONS)
    for spelled in (ending, ending.upper(), b"." + ending[1:].capitalize())
)


def companion_rule(config: Config) -> CompanionRule:
    """Return the rule that a configuration makes."""
    return CompanionRule.of([os.fsencode(ending) for ending in config.companions])


class Companions:
    """Knows the companions in the inbox, and which picture each goes with.

    Parameters
    ----------
    exists
        Tells whether something has a name below target.

    Attributes
    ----------
    rule
        What makes a file the companion of another.
    reserved
        Names below target, by the name in the inbox, that are kept free for companions whose
        picture has gone before.
    """

    def __init__(self, rule: CompanionRule, store: Store, exists: Callable[[bytes], bool]) -> None:
        self.rule = rule
        self.reserved: dict[bytes, bytes] = {}
        self._rows = StoreCompanions(store.connection)
        self._exists = exists
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
        self.reserved.pop(name, None)
        for stem in self.rule.stems(name):
            self._by_stem[stem].discard(name)
            if not self._by_stem[stem]:
                del self._by_stem[stem]

    def keep(self, there: set[bytes]) -> None:
        """Forget the files that a listing of the inbox lacks."""
        for name in [name for name in self._stamps if name not in there]:
            self.drop(name)

    def of(self, picture: bytes) -> list[bytes]:
        """Return the companions in the inbox that a picture leads, were it the only one."""
        found = self._by_stem.get(parts(picture)[0], ())
        return sorted(name for name in found if self.rule.leads(picture, name))

    def take_ready(self) -> list[tuple[bytes, Stamp]]:
        """Take the companions that may be able to follow."""
        ready, self._ready = self._ready, {}
        stamps = ((name, self._stamps.get(name)) for name in ready)
        return [(name, stamp) for name, stamp in stamps if stamp is not None]

    @property
    def has_ready(self) -> bool:
        """Whether :meth:`take_ready` would return some."""
        return bool(self._ready)

    def awaits_picture(self, name: bytes, is_settling: IsSettling) -> bool:
        """Tell whether a finished file is to be left to a picture of its name.

        A raw file that can be decoded is a picture itself, unless another kind of picture
        has its name.
        """
        if not self.rule.is_companion(name) or self._rows.is_picture(name):
            return False
        first = self.rule.first(self._pictures(name, is_settling), name)
        return first is not None and not self.rule.is_companion(first)

    def leave(self, name: bytes, stamp: Stamp, is_settling: IsSettling, reason: str) -> bool:
        """Leave a file that is no picture where it is, until one of its name comes.

        Returns
        -------
        bool
            Whether no picture of its name is known.
        """
        is_alone = True
        if self.rule.is_companion(name):
            self.settled(name, stamp)
            is_alone = self.rule.first(self._pictures(name, is_settling), name) is None
        if is_alone:
            log.info("file left alone reason=%s name=%r", reason, os.fsdecode(name))
        return is_alone

    def picture_of(self, name: bytes, is_settling: IsSettling) -> PictureRow | None:
        """Return the picture that a companion may follow now; None where it has to wait."""
        if self._rows.is_picture(name):
            return None
        pictures = self._pictures(name, is_settling)
        first = self.rule.first(pictures, name)
        row = None if first is None else pictures[first]
        if row is None or row.dst is None or row.state in (FileState.PENDING, FileState.UNDONE):
            return None
        return row

    def _pictures(self, name: bytes, is_settling: IsSettling) -> dict[bytes, PictureRow | None]:
        """Return the pictures of a companion's stem, with no row where they are settling."""
        stems = self.rule.stems(name)
        found: dict[bytes, PictureRow | None] = {
            row.src: row
            for row in self._rows.pictures(stems)
            if row.dst is None or row.state is FileState.PENDING or self._exists(row.dst)
        }
        spelled: Iterable[bytes] = (stem + ending for stem in stems for ending in _NAMES)
        found.update((picture, None) for picture in spelled if is_settling(picture))
        return found
