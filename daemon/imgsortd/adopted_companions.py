"""Files found in target that are companions of the pictures beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imgsortd.adapters import fsops
from imgsortd.adapters.inbox import is_picture_by_content
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_audit import Adopted, Found
from imgsortd.adapters.store_companions import StoreCompanions
from imgsortd.companions import companion_rule
from imgsortd.config import Config
from imgsortd.core.records import FileState


class AdoptedCompanions:
    """Pairs files that are taken into the store where they stand.

    Parameters
    ----------
    target
        The folders of target, open.
    """

    def __init__(self, store: Store, config: Config, target: fsops.Folders) -> None:
        self._rule = companion_rule(config)
        self._rows = StoreCompanions(store.connection)
        self._target = target

    def last(self, found: Sequence[Found]) -> list[Found]:
        """Return the files with pictures first, so that companions find theirs in the store."""
        return sorted(found, key=lambda file: self._rank(file.dst))

    def _rank(self, dst: bytes) -> int:
        if not self._rule.is_companion(dst):
            return 0
        return 1 if is_picture_by_content(self._target, dst) else 2

    def pair(self, file: Adopted) -> Adopted:
        """Make a file the companion of the picture beside it; as it is where there is none."""
        dst = file.found.dst
        if not self._rule.is_companion(dst):
            return file
        rows = {
            row.dst: row.file_id
            for row in self._rows.placed_pictures(self._rule.stems(dst))
            if row.dst is not None
        }
        first = self._rule.first(rows, dst)
        if first is None:
            return file
        is_raw_beside_raw = self._rule.is_companion(first) and self._rank(dst) == 1
        if is_raw_beside_raw:
            return file
        return replace(
            file,
            state=FileState.COMPANION,
            cluster_id=None,
            reason="",
            companion_of=rows[first],
        )
