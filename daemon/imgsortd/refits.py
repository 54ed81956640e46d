"""``imgsortd refits`` and ``imgsortd rollback``: read, ask the daemon, or do it under the lock."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import Store, open_read_only, open_store
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.store_proposals import KeptFit
from imgsortd.asking import Progress, ask_daemon
from imgsortd.config import Config
from imgsortd.core.lifecycle import describe_age
from imgsortd.core.names import folder_of
from imgsortd.core.records import Op
from imgsortd.deciding import (
    Decided,
    accept,
    find_proposal,
    model_changes,
    moved_back,
    reject,
    rollback,
    rollback_pair,
)
from imgsortd.errors import ProposalError, StoreError
from imgsortd.library import Library, open_library, review_rule
from imgsortd.pipeline import recover
from imgsortd.proposing import Proposal, read_proposal
from imgsortd.refit_changes import MoveGroup, as_move_groups


@contextmanager
def reading(config: Config) -> Iterator[Store]:
    """Open the store for reading, beside a daemon or without one.

    Raises
    ------
    StoreError
        There is none, or its daemon has not started since this version came.
    """
    store = open_read_only(config.database)
    try:
        with foreign_errors(config.database):
            if not store.proposals.is_kept():
                raise StoreError(
                    f"{store.path}: was written by an older imgsortd; start the daemon once, and "
                    f"its fits can be looked at"
                )
            yield store
    finally:
        store.close()


def list_fits(config: Config) -> list[KeptFit]:
    """Return the fits, the newest first."""
    with reading(config) as store:
        return store.proposals.list_fits()


def told_age(config: Config) -> str:
    """Say in a sentence whether the library is young or grown; empty before the first fit."""
    with reading(config) as store:
        maturity = store.records.maturity(config.refit.max_churn)
    return "" if maturity is None else describe_age(maturity, config.refit.max_churn)


def names_of(config: Config) -> Callable[[int], str]:
    """Return what tells the folder of a cluster by its number."""
    with reading(config) as store:
        named = store.records.named_folders()
    return lambda number: os.fsdecode(folder_of(number, named))


def show_fit(config: Config, fit_id: int | None, files: int) -> Proposal:
    """Return what a fit, or the proposal that waits, changes.

    Raises
    ------
    ProposalError
        There is none.
    """
    with reading(config) as store:
        return read_proposal(store, find_proposal(store.proposals, fit_id), files)


def move_groups(config: Config, fit_id: int) -> tuple[MoveGroup, ...]:
    """Return all the files that a fit would move, by where from and where to."""
    return as_move_groups(show_fit(config, fit_id, sys.maxsize).moves)


def preview_rollback(config: Config, move: bool | None) -> dict[str, Any]:
    """Say what a rollback would do: how many pictures belong to another cluster, and move, then."""
    moves = config.op is not Op.SYMLINK and (config.refit.move_sorted if move is None else move)
    with reading(config) as store:
        now, former = rollback_pair(store)
        models = store.fits.model(now.fit_id), store.fits.model(former.fit_id)
        if models[0].extractor != models[1].extractor:
            raise ProposalError(
                f"fit {former.fit_id} was made of other features than fit {now.fit_id}, "
                f"so that it cannot route what is stored now"
            )
        rule = review_rule(config)
        changes = model_changes(store, *models, rule)
        return Decided(
            "would be rolled back",
            now.fit_id,
            former.fit_id,
            changed=sum(1 for _ in changes),
            n_images=store.records.count_features(),
            moved=len(moved_back(store, *models, rule))
            if moves and config.op is not Op.SYMLINK
            else 0,
            refit_batches=store.proposals.batches_of(now.fit_id),
            dry_run=True,
        ).as_dict()


def decide(
    config: Config, verb: str, fit_id: int | None, move: bool | None, progress: Progress
) -> dict[str, Any]:
    """Accept, reject or roll back: by the running daemon, or here when none runs.

    Raises
    ------
    ProposalError, RequestError
        It cannot be done; the text says why, and what to do.
    """
    if not config.database.exists():
        raise StoreError(f"{config.database}: no such database, so there is no fit yet")
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, verb, {"fit_id": fit_id, "move": move}, progress)
    with Locks(config.state_dir):
        store = open_store(config.database)
        try:
            if verb == "reject":
                return reject(store, fit_id).as_dict()
            _check_first(store, verb, fit_id)
            library = _open(config, store, progress)
            recover(library)
            progress(f"{verb} under way")
            if verb == "accept":
                return accept(library, fit_id, move=move).as_dict()
            return rollback(library, move=move).as_dict()
        finally:
            store.close()


def _check_first(store: Store, verb: str, fit_id: int | None) -> None:
    """Find what is wrong before the network is loaded, which takes seconds."""
    if verb == "accept":
        find_proposal(store.proposals, fit_id)
    else:
        rollback_pair(store)


def _open(config: Config, store: Store, progress: Progress) -> Library:
    from imgsortd.adapters.features import build_extractor

    progress(f"loading {config.model.backbone.product_name}")
    return open_library(config, store, build_extractor(config.model, config.state_dir))
