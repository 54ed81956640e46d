"""Names and values as a page can have them: text that UTF-8 can carry, and no more."""

from __future__ import annotations

import os
from typing import Any

_KEY_DIGITS = 8


def shown(name: bytes) -> str:
    """Return a file's name as text to be shown; ``?`` for each byte that is no character."""
    return shown_text(os.fsdecode(name))


def shown_text(text: str) -> str:
    """Return text without the surrogates that bytes of a name may have left in it."""
    return text.encode("utf-8", "replace").decode()


def plain(value: Any) -> Any:
    """Return a value for JSON, all its texts as :func:`shown_text` has them."""
    if isinstance(value, str):
        return shown_text(value)
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def key_of(sha256: bytes | None) -> str:
    """Return what the address of a picture has besides its id: other bytes, other address."""
    return "" if sha256 is None else sha256.hex()[:_KEY_DIGITS]
