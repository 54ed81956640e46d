"""Which alike pictures are to stay: a person's word, kept by their bytes and so for good."""

from __future__ import annotations

import logging
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.errors import RequestError

log = logging.getLogger(__name__)

MAX_FILES = 500
"""Files of one decision: it is kept as pairs, of which these make 125,000."""


def decide(store: Store, params: dict[str, Any]) -> dict[str, Any]:
    """Keep, or forget, all pairs of some pictures; call inside one transaction.

    Parameters
    ----------
    params
        ``hashes``: the SHA-256 of each in hexadecimal; ``forget``: whether to take it back.

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
    pairs = store.hashes.forget(hashes) if forget else store.hashes.keep(hashes)
    log.info("near-duplicates %s pairs=%d", "forgotten" if forget else "kept", pairs)
    return {"pairs": pairs}
