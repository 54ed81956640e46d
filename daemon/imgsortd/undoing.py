"""``imgsortd undo``: ask the running daemon, or do it under the lock when none runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from imgsortd.adapters.crossing import return_orphans
from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import CommittedJournal, Store, open_read_only, open_store
from imgsortd.adapters.whereabouts import Whereabouts
from imgsortd.asking import Progress, ask_daemon
from imgsortd.cluster_folders import ClusterFolders
from imgsortd.config import Config
from imgsortd.errors import StoreError
from imgsortd.reversing import Undo
from imgsortd.undo_job import UndoChoice


def undo(
    config: Config, choice: UndoChoice, *, dry_run: bool, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Undo by the running daemon, or here when none runs; return the report.

    Raises
    ------
    UndoError, RequestError
        There is nothing to undo.
    StoreError
        There is no database.
    """
    if not config.database.exists():
        raise StoreError(f"{config.database}: no such database, so nothing was sorted yet")
    if dry_run:
        store = open_read_only(config.database)
        try:
            _check_version(store)
            return Undo(config, store, _mover(config, store)).preview(choice).as_dict()
        finally:
            store.close()
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, "undo", asdict(choice), progress)
    with Locks(config.state_dir, config.inbox):
        store = open_store(config.database)
        try:
            mover = _mover(config, store)
            mover.whereabouts = Whereabouts(config.inbox, store)
            mover.whereabouts.insist()
            _finish_open_moves(config, store, mover)
            return Undo(config, store, mover, progress=progress).run(choice).as_dict()
        finally:
            store.close()


def _check_version(store: Store) -> None:
    columns = [row[1] for row in store.connection.execute("PRAGMA table_info(moves)")]
    if "undoes" not in columns:
        raise StoreError(
            f"{store.path}: was written by an older imgsortd, which kept no batches; start the "
            f"daemon once, and what it sorts from then on can be undone"
        )


def _mover(config: Config, store: Store) -> Mover:
    return Mover(config.inbox, config.target, CommittedJournal(store))


def _finish_open_moves(config: Config, store: Store, mover: Mover) -> None:
    """Do what the daemon does at its start: finish what a crash left."""
    ClusterFolders(store, config).follow()
    moves = store.journal.unfinished()
    return_orphans(config.inbox, moves)
    return_orphans(config.target, moves, deep=False)
    results = mover.apply(moves, again=True) if moves else []
    with store.atomic():
        store.journal.close(results)
