"""``imgsortd rename``, ``pins`` and ``unpin``: by the running daemon, or here when none runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from imgsortd.adapters.locking import Locks, running_pid
from imgsortd.adapters.store import Store, open_read_only, open_store
from imgsortd.adapters.store_pins import Pins
from imgsortd.asking import Progress, ask_daemon
from imgsortd.cluster_folders import ClusterFolders
from imgsortd.config import Config
from imgsortd.core.records import Op
from imgsortd.errors import PinError, StoreError

HAND_VERBS = ("rename", "unpin")
_LEAST_HEX_DIGITS = 8


def rename(
    config: Config, cluster_id: int, name: str, progress: Progress = lambda _: None
) -> dict[str, Any]:
    """Rename a cluster's folder; an empty name gives ``cluster_N`` back.

    Raises
    ------
    NameRefusedError, RequestError
        The name cannot be had; the text says why.
    StoreError
        There is no database.
    """
    return _do(config, "rename", {"cluster_id": cluster_id, "name": name}, progress)


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
    StoreError
        There is no database.
    """
    # Paths are looked up here: the daemon works in another folder.
    names = {name: _names(config.target, name) for name in files}
    params = {"files": names, "cluster_id": cluster_id, "everything": everything}
    return _do(config, "unpin", params, progress)


def list_pins(config: Config) -> list[dict[str, Any]]:
    """Return the pins, the newest first, beside a running daemon too.

    Raises
    ------
    StoreError
        There is no database, or one of an older imgsortd that has not been started since.
    """
    store = open_read_only(config.database)
    try:
        with store.snapshot():
            named = store.records.named_folders()
            return [
                {
                    "file": None if row.dst is None else os.fsdecode(row.dst),
                    "cluster": row.cluster_id,
                    "name": os.fsdecode(named[row.cluster_id]) if row.cluster_id in named else None,
                    "pinned_at": row.pinned_at,
                    "sha256": row.sha256.hex(),
                }
                for row in store.pins.rows()
            ]
    finally:
        store.close()


def do_by_hand(store: Store, config: Config, verb: str, params: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked for; the caller has the only writing connection."""
    if verb == "rename":
        return ClusterFolders(store, config).rename(**params)
    return _unpin(store, **params)


def _do(config: Config, verb: str, params: dict[str, Any], progress: Progress) -> dict[str, Any]:
    if not config.database.exists():
        raise StoreError(f"{config.database}: no such database, so nothing was sorted yet")
    if running_pid(config.state_dir) is not None:
        return ask_daemon(config, verb, params, progress)
    with Locks(config.state_dir, config.inbox if config.op is Op.MOVE else None):
        store = open_store(config.database)
        try:
            return do_by_hand(store, config, verb, params)
        finally:
            store.close()


def _unpin(
    store: Store, files: dict[str, list[str]], cluster_id: int | None, everything: bool
) -> dict[str, Any]:
    pins = store.pins
    hashes = {sha256 for name, dsts in files.items() for sha256 in _hashes(pins, name, dsts)}
    if everything:
        hashes |= pins.all().keys()
    if cluster_id is not None:
        hashes |= set(pins.of_cluster(cluster_id))
    with store.atomic():
        return {"freed": pins.remove(hashes)}


def _hashes(pins: Pins, name: str, dsts: list[str]) -> list[bytes]:
    """Return the pinned bytes that a name in target, or the start of a hash, means."""
    found = [sha256 for dst in dsts for sha256 in pins.of_file(os.fsencode(dst))]
    if not found and len(name) >= _LEAST_HEX_DIGITS and _is_hex(name):
        found = [sha256 for sha256 in pins.all() if sha256.hex().startswith(name.lower())]
    if not found:
        raise PinError(f"{name}: is not pinned; `imgsortd pins` lists what is")
    return found


def _names(target: Path, name: str) -> list[str]:
    """Return what a path may be called in target."""
    path = os.path.abspath(name)
    roots = {os.path.abspath(target), os.path.realpath(target)}
    return [name, *(path[len(root) + 1 :] for root in roots if path.startswith(root + "/"))]


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
