"""Which files were being read when the process died? So that one file cannot kill it for ever.

The note is a small file, written without fsync: what ends a process (a crash, the
out-of-memory killer) leaves what it wrote; after a power cut nobody is suspected. Its part has
one name, for the state folder has one owner: what a kill leaves of it is written over.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from imgsortd.records import Candidate
from imgsortd.system.filesystem import write_atomically

log = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Deaths of the process while it reads a file until the file is set aside unread."""


class Suspects:
    """How often has the process died while it was reading a file, by the note in ``path``?"""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._deaths = _load(path)
        self._reading: dict[str, int] = {}

    def deaths(self, candidate: Candidate) -> int:
        """Return how often it has; 0 for nearly all files."""
        return self._deaths.get(_key(candidate), 0)

    def begin(self, candidates: Iterable[Candidate]) -> None:
        """Note, before they are read, that these are being read."""
        for candidate in candidates:
            self._reading[_key(candidate)] = self.deaths(candidate) + 1
        self._write()

    def end(self, candidates: Iterable[Candidate]) -> None:
        """Note that these were read, and the process lives."""
        for candidate in candidates:
            self._reading.pop(_key(candidate), None)
            self._deaths.pop(_key(candidate), None)
        self._write()

    def close(self) -> None:
        """Note that the process ends of its own will, and suspects no file."""
        self._reading.clear()
        self._deaths.clear()
        self._write()

    def _write(self) -> None:
        note = json.dumps({**self._deaths, **self._reading})
        try:
            write_atomically(self._path, [note.encode()], synced=False)
        except OSError as error:  # a full disk: sorting pauses, and says so
            log.debug("note of files being read not written reason=%s", error)


def _key(candidate: Candidate) -> str:
    stamp = candidate.stamp
    return f"{candidate.file_id} {stamp.inode} {stamp.size_bytes} {stamp.mtime_ns}"


def _load(path: Path) -> dict[str, int]:
    try:
        note = json.loads(path.read_text(encoding="ascii"))
        return {str(key): int(count) for key, count in note.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("note of files being read not understood path=%s reason=%s", path, error)
        return {}
