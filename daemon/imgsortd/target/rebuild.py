"""Open the database; where it is damaged or lost, restore it, or rebuild it from target.

Nothing in inbox or target is touched: the new database is made beside the old one's
place, from the newest backup that is whole and from the files that stand in target, and
gets its name when it is finished. A crash before that begins anew.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from imgsortd.config.model import Config
from imgsortd.errors import LostError, StoreDamagedError, StoreError
from imgsortd.moves.folders import ClusterFolders, restore_names
from imgsortd.moves.roots import Roots, read_marker
from imgsortd.records import REBUILT, ExtractorId, FitTrigger, Progress
from imgsortd.store import backups
from imgsortd.store.database import Store, open_for_writing
from imgsortd.store.fits import FitRecord
from imgsortd.store.library import LibraryFile
from imgsortd.system.faults import fault_point
from imgsortd.target.audit import (
    Audit,
    Reconciled,
    audit,
    cluster_numbers,
    holds_sorted_files,
    reconcile,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loss:
    """What became of the database."""

    why: str
    aside: Path | None


def open_or_restore(
    config: Config, tell: Progress = lambda _: None, *, adopt: bool = False
) -> Store:
    """Open the store, made anew where it was lost; tell how far it is, or systemd would not wait.

    Parameters
    ----------
    adopt
        Make it anew from whatever target there is.

    Raises
    ------
    StoreError
        It is locked, read-only, or of a newer imgsortd: no reason to replace it. Or it is
        lost, and cannot be made anew for now.
    """
    try:
        loss = _loss(config)
        if loss is None:
            try:
                return open_for_writing(config.database)
            except StoreDamagedError as error:
                loss = _Loss(str(error.__cause__), _put_aside(config))
        fault_point("database_aside")
        log.error("database lost path=%s reason=%s kept=%s", config.database, loss.why, loss.aside)
        what = _remake(config, loss, tell, adopt)
    except LostError as error:
        raise StoreError(
            f"{config.database}: is lost or damaged, and could not be made anew: {error}"
        ) from error
    except OSError as error:
        raise StoreError(
            f"{config.database}: is lost or damaged, and could not be made anew "
            f"({error.filename}: {error.strerror}); mend that and start again, nothing was touched"
        ) from error
    store = open_for_writing(config.database)
    log.error("database %s", what)
    with store.atomic():
        store.control.add_error("database lost", f"{loss.why}; {what}")
    return store


def _loss(config: Config) -> _Loss | None:
    """Tell whether there is no database, or an empty one, where there has been one."""
    try:
        if os.lstat(config.database).st_size:
            return None
    except FileNotFoundError:
        pass
    cut_off = backups.newest_aside(config.database)  # by a start that had put it aside
    has_sorted = LibraryFile(config.state_dir).batches > 0
    if not (has_sorted or cut_off or _backups(config) or holds_sorted_files(config)):
        return None
    why = "it is not there or empty, though files were sorted before"
    return _Loss(why, _put_aside(config) or cut_off)


def _backups(config: Config) -> list[Path]:
    return backups.backups(config.state_dir, backups.day_of(time.time()))


def _put_aside(config: Config) -> Path | None:
    mark = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S")
    return backups.set_aside(config.database, mark)


def _remake(config: Config, loss: _Loss, tell: Progress, adopt: bool) -> str:
    """Make the new database and give it its name; say what was done."""
    has_sorted = LibraryFile(config.state_dir).batches > 0
    if has_sorted and not adopt and read_marker(config.target) is None:
        raise LostError(
            f"target {config.target}: is not marked as that of this library; mount the disk that "
            f"is, or take this one by --adopt"
        )
    new = config.database.with_name(config.database.name + ".new")
    backup = next(filter(backups.is_whole, _backups(config)), None)
    if backup is None:
        backups.remove(new)
    else:
        backups.copy_to(backup, new)
    with open_for_writing(new) as store:
        restore_names(store, config)
        roots = Roots(config, store, lambda: None)
        roots.claim_target(adopt=adopt)
        ClusterFolders(store, config, roots).follow()
        tell("comparing the database with target")
        found = take_in(store, config, audit(store, config), tell)
    fault_point("database_remade")
    backups.put_in_place(new, config.database)
    made = "rebuilt from the files in target" if backup is None else f"restored from {backup}"
    kept = f"; the damaged one is kept as {loss.aside}" if loss.aside else ""
    what = "; ".join(found.told()) or "it knew every file in target"
    return f"{made}: {what}{kept}"


def take_in(
    store: Store, config: Config, found: Audit, tell: Progress = lambda _: None
) -> Reconciled:
    """Let the books say what stands in target; what has no features gets some, and a fit."""
    done = reconcile(
        store, config, found, lambda done, total: tell(f"reading target: {done:,} of {total:,}")
    )
    known = {row.cluster_id for row in store.hands.cluster_folders()}
    if done.adopted or done.changed or store.files.cluster_sizes().keys() - known:
        note_clusters(store, config)
    return done


def note_clusters(store: Store, config: Config) -> None:
    """Make the folders' clusters the ones in force until features are there for a fit.

    They have no centers. The loop extracts what lacks features, and fits clusters that
    take the numbers of the folders whose pictures they share.
    """
    numbers, sizes = cluster_numbers(store, config), store.files.cluster_sizes()
    if not numbers:
        return
    seed, n_images = config.clusters.random_state, sum(sizes.values())
    record = FitRecord(FitTrigger.REBUILD, "folders", n_images, seed, 0.0, None, 0.0)
    extractor = ExtractorId(REBUILT, config.model.layer, 1, config.model.backbone)
    no_centers = np.zeros((len(numbers), 1), dtype=np.float32)
    each = [sizes.get(number, 0) for number in numbers]
    with store.atomic():
        store.fits.save(extractor, no_centers, numbers, each, record)
        restore_names(store, config)
