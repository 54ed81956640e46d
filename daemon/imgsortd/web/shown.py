"""Names and values as a page can have and send them: text that UTF-8 can carry, and no more."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any

from imgsortd.names import REVIEW_FOLDER, folder_of
from imgsortd.store.database import Store
from imgsortd.store.shown import ShownPicture

_KEY_DIGITS = 8


def shown(name: bytes) -> str:
    """Return a file's name as text to be shown; ``?`` for each byte that is no character."""
    return encodable(os.fsdecode(name))


def encodable(text: str) -> str:
    """Return text without the surrogates that bytes of a name may have left in it."""
    return text.encode("utf-8", "replace").decode()


def decimal(text: str, most_digits: int) -> int | None:
    """Return a whole number of so many digits at most; None for any other text."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= most_digits
    return int(text) if is_number else None


def to_json(answer: Any) -> str:
    """Write an answer as JSON that UTF-8 can carry; ``?`` for what is no character.

    Dataclasses become objects. A field that is `left_out` is not there where it is None.
    """
    text = json.dumps(
        answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_dict
    )
    return encodable(text)


def left_out() -> Any:
    """Declare a field that is None for most, and is then no part of the JSON."""
    return field(default=None, metadata={"left_out": True})


def _as_dict(answer: Any) -> dict[str, Any]:
    kind: Any = type(answer)
    names, values_of, may_miss = _fields(kind)
    found = dict(zip(names, values_of(answer), strict=True))
    for name in may_miss:
        if found[name] is None:
            del found[name]
    return found


@cache
def _fields(kind: Any) -> tuple[list[str], Callable[[Any], tuple[Any, ...]], list[str]]:
    """Return what is quickest to read a dataclass by; it has two fields or more."""
    names = [one.name for one in fields(kind)]
    return names, attrgetter(*names), [one.name for one in fields(kind) if one.metadata]


def digest_of(text: str) -> str:
    """Return a short name of a state that is written out: other text, other name."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def key_of(sha256: bytes | None) -> str:
    """Return what the address of a picture has besides its id: other bytes, other address."""
    return "" if sha256 is None else sha256.hex()[:_KEY_DIGITS]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as every answer has it; ``w`` and ``h`` are in pixels, 0 where not known."""

    id: int
    key: str
    w: int
    h: int
    name: str


def head_of(row: ShownPicture) -> tuple[int, str, int, int, str]:
    """Return the fields of a `Picture`."""
    return row.file_id, key_of(row.sha256), row.width_px, row.height_px, shown(row.name)


Thumb = tuple[int, str]
"""What the address of a small picture has: (id, key)."""


class ShownNames:
    """Knows the names of all clusters as they were when it was made."""

    def __init__(self, store: Store) -> None:
        self._named = store.records.named_folders()

    def name(self, cluster_id: int | None) -> str | None:
        """Return the name that a person has given a cluster; None where there is none."""
        named = None if cluster_id is None else self._named.get(cluster_id)
        return None if named is None else shown(named)

    def folder(self, cluster_id: int | None) -> str:
        """Return a cluster's folder; that of review where it is None."""
        return shown(REVIEW_FOLDER if cluster_id is None else folder_of(cluster_id, self._named))
