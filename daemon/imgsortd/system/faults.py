"""Fault points for tests: die by SIGKILL at a named step of the move journal.

Armed by ``IMGSORTD_FAULT_POINT=label`` or ``label:n`` (the n-th time) in the
environment; without it, a call is one comparison. Dying there is safe at any
time: that is what the tests show.
"""

from __future__ import annotations

import os
import signal

_LABEL, _, _COUNT = os.environ.get("IMGSORTD_FAULT_POINT", "").partition(":")
_remaining = int(_COUNT or 1)

LABELS = (
    "arrived",
    "read",
    "planned",
    "opened",
    "folder_made",
    "renamed",
    "verified",
    "linked",
    "claimed",
    "claim_synced",
    "staged",
    "staged_synced",
    "published",
    "published_synced",
    "copied",
    "claim_dropped",
    "moves_synced",
    "closed",
    "fit_saved",
    "fit_proposed",
    "database_aside",
    "database_remade",
)


def fault_point(label: str) -> None:
    """Die here if this point is armed."""
    global _remaining
    if label == _LABEL:
        _remaining -= 1
        if _remaining == 0:
            os.kill(os.getpid(), signal.SIGKILL)
