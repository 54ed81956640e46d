"""``place`` and ``retry``: by the running daemon, or here when none runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from imgsortd.adapters.crossing import return_orphans
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import CommittedJournal, Store, open_store
from imgsortd.adapters.whereabouts import Whereabouts
from imgsortd.asking import Progress, ask_daemon
from imgsortd.config import Config
from imgsortd.core.records import ExtractorId, Layer, Op, Pixels, Vectors
from imgsortd.errors import StoreError
from imgsortd.library import Library
from imgsortd.pipeline import recover
from imgsortd.placing_requests import do_placing


def place(
    config: Config,
    files: Sequence[int],
    to: dict[str, Any],
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Put pictures into a cluster, a folder of one's own, or review; pin them there.

    Parameters
    ----------
    files
        Their rows; at most 5,000.
    to
        ``{"cluster": 7}``, ``{"folder": "Receipts"}`` or ``{"review": True}``.

    Raises
    ------
    PlacingError, RequestError
        There is no such destination; the text says why.
    StoreError
        There is no database.
    """
    return _do(config, "place", {"files": list(files), "to": to}, progress)


def retry(
    config: Config, files: Sequence[int], progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Bring files that were set aside back into the inbox, to be read again.

    Raises
    ------
    PlacingError, RequestError
        The files are not named as they are to be; the text says how.
    StoreError
        There is no database.
    """
    return _do(config, "retry", {"files": list(files)}, progress)


def _do(config: Config, verb: str, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
    if not config.database.exists():
        raise StoreError(f"{config.database}: no such database, so nothing was sorted yet")
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, verb, params, progress)
    is_taking = verb == "retry" or config.op is Op.MOVE
    with Locks(config.state_dir, config.inbox if is_taking else None):
        store = open_store(config.database)
        try:
            library = _library(config, store)
            recover(library)
            return do_placing(library, verb, params)[0]
        finally:
            store.close()


def _library(config: Config, store: Store) -> Library:
    """Return a library that can move files; to load its network would take seconds."""
    mover = Mover(config.inbox, config.target, CommittedJournal(store))
    mover.whereabouts = Whereabouts(config.inbox, store)
    mover.whereabouts.insist()
    moves = store.journal.unfinished()
    return_orphans(config.inbox, moves)
    return_orphans(config.target, moves, deep=False)
    model = store.fits.current()
    return Library(config, store, mover, _NoNetwork(), model)


class _NoNetwork:
    """Stands where a network is not asked for anything."""

    id = ExtractorId("", Layer.POOL5, 0)
    batch_images = 1
    on_cpu = True

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        raise NotImplementedError

    def describe(self) -> str:
        return "no network"

    def unload(self) -> None:
        """Nothing is loaded."""
