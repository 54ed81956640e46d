"""Read pictures again that were sorted before: from the target, or where they stayed."""

from __future__ import annotations

import os
from concurrent.futures import Future

from imgsortd.adapters import fsops
from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store_backbones import Kept
from imgsortd.config import Config
from imgsortd.core.records import Candidate, Picture, ReadResult


class PlacedPictures:
    """A pool of threads that reads sorted pictures; only the bytes that were sorted count."""

    def __init__(self, config: Config, threads: int | None = None) -> None:
        self._config = config
        limits = decode_limits(config.pictures)
        self._target = PictureReader(config.target, limits, threads)
        self._inbox = PictureReader(config.inbox, limits, 1)

    def submit(self, kept: Kept) -> Future[ReadResult] | None:
        """Begin to read a file; None where it is not there."""
        root, reader, name = self._config.target, self._target, kept.dst
        if kept.stays or name is None:  # a link's own place is no file, its source is
            root, reader, name = self._config.inbox, self._inbox, kept.src
        try:
            stamp = fsops.stamp_of(os.lstat(os.path.join(os.fsencode(root), name)))
        except OSError:
            return None
        return reader.submit(Candidate(kept.file_id, name, stamp, is_patient=True))

    def close(self) -> None:
        """End the threads."""
        self._target.close()
        self._inbox.close()


def same_picture(kept: Kept, result: ReadResult) -> Picture | None:
    """Return what was read if it is still the picture that was sorted."""
    if isinstance(result, Picture) and result.sha256 == kept.sha256:
        return result
    return None
