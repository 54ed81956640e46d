"""What the daemon is at, in the few words that stand on every page."""

from __future__ import annotations

from typing import Any

from imgsortd.core.lifecycle import Phase

_WRONG = (Phase.PAUSED, Phase.INBOX_LOST)


def in_words(pulse: dict[str, Any]) -> dict[str, str]:
    """Return ``text`` and ``lamp``: ``fine``, ``working`` or ``wrong``.

    Parameters
    ----------
    pulse
        ``daemon``, ``phase``, ``note``, ``queue`` and ``images_per_s`` as in
        :class:`imgsortd.status.StatusReport`, and ``fit``, the one in force or None.
    """
    phase, note = pulse["phase"], pulse["note"]
    if pulse["daemon"] != "running":
        return {"lamp": "wrong", "text": f"The daemon is {pulse['daemon']}"}
    if note or phase in _WRONG:
        return {"lamp": "wrong" if phase in _WRONG else "working", "text": note or phase}
    if phase == Phase.SORTING:
        queue = f", {pulse['queue']:,} waiting" if pulse["queue"] else ""
        # Before the first fit pictures are looked at, and none is sorted.
        at = "Looking" if pulse["fit"] is None else "Sorting"
        return {"lamp": "working", "text": f"{at}{_speed(pulse['images_per_s'])}{queue}"}
    return {"lamp": "fine", "text": _CALM.get(phase, phase)}


_CALM = {
    Phase.STARTING: "Starting",
    Phase.WAITING: "Waiting for the first fit",
    Phase.IDLE: "Watching the inbox",
    Phase.REEXTRACTING: "Extracting features anew",
    Phase.STOPPED: "Stopped",
}


def _speed(images_per_s: float | None) -> str:
    if images_per_s is None:
        return ""
    return f" {images_per_s:.0f}/s" if images_per_s >= 10 else f" {images_per_s:.1f}/s"
