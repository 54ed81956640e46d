"""What a person says of pictures in rows alone: which are pinned, which alike ones are to stay."""

from __future__ import annotations

import logging
import os
from string import hexdigits
from typing import Any

from imgsortd.config.model import Config
from imgsortd.errors import PinError, RequestError
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.pins import Pins

log = logging.getLogger(__name__)

MAX_FILES = 500
"""Files of one decision to keep alike ones: it is kept as pairs, of which these make 125,000."""
_LEAST_HEX_DIGITS = 8


def list_pins(config: Config) -> list[dict[str, Any]]:
    """Return the pins, the newest first, beside a running daemon too.

    Raises
    ------
    StoreError
        There is no database, or one of an older imgsortd that has not been started since.
    """
    with open_for_reading(config.database, one_moment=True) as store:
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


def unpin_files(
    store: Store, files: dict[str, list[str]], cluster_id: int | None, everything: bool
) -> dict[str, Any]:
    """Free pinned pictures: files, those of a cluster, or all; return how many were.

    ``files`` holds what each may be called in target, by what its owner calls it.

    Raises
    ------
    PinError
        One of the files is not pinned; nothing is freed then.
    """
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
    if not found and len(name) >= _LEAST_HEX_DIGITS and set(name) <= set(hexdigits):
        found = [sha256 for sha256 in pins.all() if sha256.hex().startswith(name.lower())]
    if not found:
        raise PinError(f"{name}: is not pinned; `imgsortd pins` lists what is")
    return found


def keep_alike(store: Store, params: dict[str, Any]) -> dict[str, Any]:
    """Keep, or forget, all pairs of some pictures: by their bytes, and so for good.

    A request has ``hashes``, the SHA-256 of each in hexadecimal, and ``forget``.

    Raises
    ------
    RequestError
        The request is not one of this version.
    """
    try:
        hashes = [bytes.fromhex(text) for text in params["hashes"]]
        forget = bool(params["forget"])
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"expected hashes and forget, got {sorted(params)}") from error
    if len(hashes) > MAX_FILES or any(len(sha256) != 32 for sha256 in hashes):
        raise RequestError(f"expected at most {MAX_FILES} SHA-256, got {len(hashes)} values")
    with store.atomic():
        pairs = store.hashes.forget(hashes) if forget else store.hashes.keep(hashes)
    log.info("near-duplicates %s pairs=%d", "forgotten" if forget else "kept", pairs)
    return {"pairs": pairs}
