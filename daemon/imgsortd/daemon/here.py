"""What commands ask of the daemon: done by the one that runs, or here when none runs.

Each fails as :func:`ask_or_do` where there is no database. What only some need, scikit-learn and
the network, is loaded by these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgsortd.clusters.in_force import InForce
from imgsortd.config.model import Config
from imgsortd.errors import FindError, RequestError, StoreError
from imgsortd.library import open_library
from imgsortd.moves.folders import ClusterFolders
from imgsortd.moves.making import Moves, open_moves
from imgsortd.moves.roots import Roots
from imgsortd.moves.undo import Undo, UndoChoice
from imgsortd.pictures.hashing import look_of
from imgsortd.pipeline.rereading import SortedPictures
from imgsortd.records import ExtractorId, FitTrigger, Op, Progress
from imgsortd.store.database import Store, open_beside_daemon, open_for_reading, open_for_writing
from imgsortd.system.locks import Locks, running_pid
from imgsortd.target.choices import MAX_FILES, keep_alike, unpin_files

if TYPE_CHECKING:
    from imgsortd.refits.adopting import Adoption

_LOOK_EVERY_S = 0.2
_FILES_AT_ONCE = 64
_NOTHING_SORTED = "so nothing was sorted yet"


def ask_or_do(
    config: Config,
    verb: str,
    params: dict[str, Any],
    progress: Progress,
    do: Callable[[Store], dict[str, Any]],
    *,
    without: str = _NOTHING_SORTED,
    lock_inbox: bool = False,
) -> dict[str, Any]:
    """Let the running daemon do it; where none runs, take the locks and do it here.

    Parameters
    ----------
    do
        Does it, with the only writing connection, and returns what the daemon would answer.
    without
        What it means that there is no database.
    lock_inbox
        Whether files in the inbox are held, too.

    Raises
    ------
    StoreError
        There is no database, or it cannot be written by this user.
    RequestError
        The daemon could not do it; the text says why.
    LockedError
        Another program holds one of the locks.
    """
    _check_there(config, without)
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, verb, params, progress)
    with _alone(config, config.inbox if lock_inbox else None) as store:
        return do(store)


def ask_daemon(
    config: Config, verb: str, params: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Leave a request, as a row, and return what the daemon answers.

    Raises
    ------
    RequestError
        The daemon could not do it, or stopped; the text says why.
    """
    with open_beside_daemon(config.database) as store:
        with store.atomic():
            request_id = store.control.ask(verb, params)
        while (request := store.control.request(request_id)).state != "done":
            if request.state == "failed":
                reason = request.result.get("error", "the daemon gave no reason")
                raise RequestError(f"{verb}: {reason}")
            if running_pid(config.state_dir) is None:
                raise RequestError(
                    f"{verb}: the daemon stopped before it was done; what it had begun it ends "
                    f"at its next start, so look at `imgsortd status` before you ask again"
                )
            progress(request.progress or "waiting for the daemon's batch to end")
            time.sleep(_LOOK_EVERY_S)
        return request.result


def _check_there(config: Config, without: str = _NOTHING_SORTED) -> None:
    if not config.database.exists():
        raise StoreError(f"{config.database}: no such database, {without}")


@contextmanager
def _alone(config: Config, inbox: Path | None = None) -> Iterator[Store]:
    """Hold the locks, and the database open."""
    locks = Locks(config.state_dir, inbox, target=config.target)
    with locks, open_for_writing(config.database) as store:
        yield store


def _roots(config: Config, store: Store) -> Roots:
    """Return the folders, whose locks are held."""
    return Roots(config, store, lambda: None)


# --- undo ---------------------------------------------------------------------------------


def undo(
    config: Config, choice: UndoChoice, *, dry_run: bool, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Undo batches; return the report.

    Raises
    ------
    UndoError, RequestError
        There is nothing to undo.
    """
    if dry_run:
        _check_there(config)
        with open_for_reading(config.database) as store:
            moves = open_moves(config, store, _roots(config, store))
            return Undo(store, moves).preview(choice).as_dict()

    def do(store: Store) -> dict[str, Any]:
        roots = _roots(config, store)
        roots.insist()
        moves = open_moves(config, store, roots)
        moves.recover()
        return Undo(store, moves, progress=progress).run(choice).as_dict()

    return ask_or_do(config, "undo", asdict(choice), progress, do, lock_inbox=True)


# --- names and pins -----------------------------------------------------------------------


def rename(
    config: Config, cluster_id: int, name: str, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Rename a cluster's folder; an empty name gives ``cluster_N`` back.

    Raises
    ------
    NameRefusedError, RequestError
        The name cannot be had; the text says why.
    """
    params = {"cluster_id": cluster_id, "name": name}

    def do(store: Store) -> dict[str, Any]:
        roots = _roots(config, store)
        roots.claim_target()
        return ClusterFolders(store, config, roots).rename(cluster_id, name)

    return ask_or_do(config, "rename", params, progress, do, lock_inbox=config.op is Op.MOVE)


def unpin(
    config: Config,
    files: list[str],
    *,
    cluster_id: int | None = None,
    everything: bool = False,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Free pinned pictures: these files, those of a cluster, or all.

    Raises
    ------
    PinError, RequestError
        One of the files is not pinned; nothing is freed then.
    """
    # Paths are looked up here: the daemon works in another folder.
    names = {name: _names(config.target, name) for name in files}
    params = {"files": names, "cluster_id": cluster_id, "everything": everything}

    def do(store: Store) -> dict[str, Any]:
        return unpin_files(store, names, cluster_id, everything)

    return ask_or_do(config, "unpin", params, progress, do, lock_inbox=config.op is Op.MOVE)


def _names(target: Path, name: str) -> list[str]:
    """Return what a path may be called in target."""
    path = os.path.abspath(name)
    roots = {os.path.abspath(target), os.path.realpath(target)}
    return [name, *(path[len(root) + 1 :] for root in roots if path.startswith(root + "/"))]


# --- fits ---------------------------------------------------------------------------------


def refit(
    config: Config,
    n_clusters: int | None,
    dry_run: bool,
    progress: Progress,
    *,
    accept: bool = False,
    keep_files: bool = False,
) -> dict[str, Any]:
    """Fit the clusters anew and return the summary; above ``refit.max_churn`` it is proposed.

    It is put in force whatever it changes (``accept``), and files stay where they stand
    (``keep_files``), where that is wanted.

    Raises
    ------
    FitError
        Too few pictures, or the daemon could not do it; the text says why.
    """
    how = {"dry_run": dry_run, "accept": accept, "keep_files": keep_files}

    def do(store: Store) -> dict[str, Any]:
        from imgsortd.clusters.fit import compute_fit, fit_source
        from imgsortd.refits.facts import start_now

        made_by, in_force, _, adoption = _with_network(config, store, progress)
        source = fit_source(store, made_by, in_force, start_now(store, config.refit.max_churn))
        progress(f"fitting {source.n_images:,} pictures")
        number, seed = n_clusters or config.clusters.wanted, config.clusters.random_state
        fitted = compute_fit(source, number, seed, progress)
        settled = adoption.settle(fitted, FitTrigger.REQUEST, basis=in_force.model, **how)
        progress("moving files along")
        return settled.moved(adoption.follow(settled.following)).as_dict()

    params = {"n_clusters": n_clusters, **how}
    without = "so there are no features to fit; start the daemon first (imgsortd run -c …)"
    return ask_or_do(config, "refit", params, progress, do, without=without)


def decide(
    config: Config, verb: str, fit_id: int | None, move: bool | None, progress: Progress
) -> dict[str, Any]:
    """Accept or reject a proposal, or roll back.

    Raises
    ------
    ProposalError, RequestError
        It cannot be done; the text says why, and what to do.
    """

    def do(store: Store) -> dict[str, Any]:
        from imgsortd.refits.changes import find_proposal, rollback_pair
        from imgsortd.refits.decisions import Decisions, reject

        if verb == "reject":
            return reject(store, fit_id).as_dict()
        # What is wrong is found before the network is loaded, which takes seconds.
        if verb == "accept":
            find_proposal(store.records, fit_id)
        else:
            rollback_pair(store)
        decisions = Decisions(store, *_with_network(config, store, progress))
        progress(f"{verb} under way")
        if verb == "accept":
            return decisions.accept(fit_id, move=move).as_dict()
        return decisions.rollback(move=move).as_dict()

    params = {"fit_id": fit_id, "move": move}
    return ask_or_do(config, verb, params, progress, do, without="so there is no fit yet")


def _with_network(
    config: Config, store: Store, progress: Progress
) -> tuple[ExtractorId, InForce, Moves, Adoption]:
    """Open the library, and finish what a crash left of its moves; return what fits need of it."""
    from imgsortd.networks.building import build_extractor
    from imgsortd.refits.adopting import Adoption

    progress(f"loading {config.model.backbone.product_name}")
    roots = _roots(config, store)
    roots.claim_target()
    library = open_library(config, store, build_extractor(config.model, config.state_dir), roots)
    library.moves.recover()
    made_by, in_force, moves = library.extractor.id, library.in_force, library.moves
    return made_by, in_force, moves, Adoption(config, store, made_by, in_force, moves)


# --- duplicates ---------------------------------------------------------------------------


def keep(
    config: Config, hashes: Sequence[bytes], *, forget: bool, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Remember that pictures of these bytes are all wanted, or forget it.

    Raises
    ------
    FindError
        There are too few, or too many.
    RequestError, StoreError, LockedError
        The daemon could not do it; there is no library; another program holds it.
    """
    if len(hashes) > MAX_FILES or len(hashes) < (1 if forget else 2):
        expected = f"{1 if forget else 2} to {MAX_FILES} different files"
        raise FindError(f"expected {expected}, got {len(hashes)}")
    params = {"hashes": [sha256.hex() for sha256 in hashes], "forget": forget}
    return ask_or_do(config, "keep", params, progress, lambda store: keep_alike(store, params))


def complete(config: Config, progress: Progress) -> dict[str, int]:
    """Make the hashes of pictures that were sorted before there were any; from their files.

    Beside a running daemon, too, for only rows are added. Stopped half-way, what was made
    stays. Returns how many were made, and how many pictures could not be read, or are no
    longer what was sorted.

    Raises
    ------
    StoreError, LockedError
        There is no library yet, or another program holds it.
    """
    with open_for_reading(config.database):
        pass  # it is there, and has the tables
    is_running = running_pid(config.state_dir) is not None
    after_id, made, unreadable = 0, 0, 0
    with (
        open_beside_daemon(config.database) if is_running else _alone(config) as store,
        closing(SortedPictures(config)) as reader,
    ):
        total = store.hashes.count_lacking()
        while rows := store.hashes.lacking(after_id, _FILES_AT_ONCE):
            after_id = rows[-1].file_id
            pictures = reader.read(rows)
            looks = {one.sha256: look_of(one) for one in pictures}
            with store.atomic():
                store.hashes.put(looks)
            made += len(looks)
            unreadable += sum(kept.sha256 not in looks for kept in rows)
            progress(f"hashing pictures: {made + unreadable:,} of {total:,}")
    return {"hashed": made, "unreadable": unreadable}
