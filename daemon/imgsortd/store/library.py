"""What a library is known by, beside its database: a small file that outlives that."""

from __future__ import annotations

import json
import logging
import re
import secrets
from pathlib import Path
from typing import Any

from imgsortd.system.filesystem import write_atomically

log = logging.getLogger(__name__)

FILE = "library.json"
_ID = re.compile(r"[0-9a-f]{32}")
_BATCHES_AT_ONCE = 1000
_SHORT = 8


class LibraryFile:
    """The id of a library, those it has taken over, and how far its batches may be numbered.

    It is made when something is first written. A copy of the database knows of no batch that
    was numbered after it was made; this file does, in steps of a thousand.

    Attributes
    ----------
    batches
        No batch has a higher number than this.
    life
        What database and file have in common, and a copy that was made before has not.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file = state_dir / FILE
        noted = self._read()
        self.is_new = noted is None
        noted = noted or {}
        self._id = str(noted.get("id", ""))
        self._taken_over = [str(one) for one in noted.get("taken_over", ())]
        self.batches = int(noted.get("batches", 0))
        self.life, self._is_in_life = str(noted.get("life", "")), False

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        if not self._id:
            self._id = secrets.token_hex(16)
            self._write()
        return self._id

    @property
    def ids(self) -> frozenset[str]:
        """Its own id, and those of libraries that it has taken over; empty for a new one."""
        return frozenset(filter(None, (self._id, *self._taken_over)))

    def is_ours(self, short: bytes) -> bool:
        """Tell whether a mark's digits are those of one of its ids."""
        return short.decode("ascii", "replace") in {one[:_SHORT] for one in self.ids}

    def new_mark(self) -> str:
        """Return a mark that no other move of any library has: it begins with a letter."""
        return f"m{self.id[:_SHORT]}-{secrets.token_hex(8)}"

    def resume(self, library_id: str) -> None:
        """Be the library that was lost with its state folder."""
        self._id, self.is_new = library_id, False
        self._write()

    def take_over(self, library_id: str) -> None:
        """Own what another library has left, from now on."""
        if library_id not in self.ids:
            self._taken_over.append(library_id)
            self._write()

    def next_life(self, former: str) -> str:
        """Return the life to note in a database: another one after a start, or a backup."""
        if not self._is_in_life or former != self.life:
            self.life, self._is_in_life = secrets.token_hex(8), True
            self._write()
        return self.life

    def copied(self) -> None:
        """Learn that there is a copy of the database: what comes now is not in it."""
        self._is_in_life = False

    def reserve(self, batch: int) -> None:
        """Note, before a batch is numbered so, that the number is used; an OSError where not."""
        if batch > self.batches:
            self.batches = batch + _BATCHES_AT_ONCE
            self._write()

    def _write(self) -> None:
        self._id = self._id or secrets.token_hex(16)
        noted = {
            "id": self._id,
            "taken_over": self._taken_over,
            "batches": self.batches,
            "life": self.life,
        }
        write_atomically(self._file, [json.dumps(noted).encode()])
        self.is_new = False

    def _read(self) -> dict[str, Any] | None:
        try:
            noted = json.loads(self._file.read_bytes())
            if not _ID.fullmatch(noted["id"]):
                raise ValueError(noted["id"])
            return {
                "id": noted["id"],
                "taken_over": [str(one) for one in noted["taken_over"]],
                "batches": int(noted["batches"]),
                "life": str(noted["life"]),
            }
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("library not known file=%s reason=%r", self._file, error)
            return None
