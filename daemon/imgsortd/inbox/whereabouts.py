"""Which folder is met under the inbox's path: mounts come and go, and each is another folder.

What is known of files belongs to the folder that they were seen in. Where another one has its
path (a mount point without its disk, a disk mounted over it, a folder made anew) sorting waits
until it stays; then that one is the inbox, and no file of the former one is gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from imgsortd.errors import LockedError, WatchError

log = logging.getLogger(__name__)

_ANOTHER = "another folder is there than before (unmounted, mounted over, or made anew)"

Identity = tuple[int, int]
"""Device and inode: what tells two folders apart while this machine runs."""


class Home(Protocol):
    """The inbox as the library knows it from earlier lives."""

    @property
    def is_home(self) -> bool:
        """Whether the folder under its path is the one that is in use."""

    def enter_inbox(self, *, replaces_removed: bool = False) -> None:
        """Put that folder in use; the former one may be known to be deleted."""


class Whereabouts:
    """Meets the folder under the inbox's path, again before each look.

    Parameters
    ----------
    on_arrival
        Called before a folder is worked with: at the first look, and where it is another one.
        It may raise LockedError or WatchError, and is called again at the next look.
    is_removed
        Tells of a folder that was the inbox whether it was deleted.
    """

    def __init__(
        self,
        inbox: Path,
        home: Home,
        on_arrival: Callable[[], None],
        is_removed: Callable[[Identity], bool],
    ) -> None:
        self._inbox, self._home = inbox, home
        self._on_arrival, self._is_removed = on_arrival, is_removed
        self._here: Identity | None = None
        self._met: Identity | None = None

    @property
    def is_away(self) -> bool:
        """Whether another folder stands under the path: no file that is missing there is gone."""
        return not self._home.is_home

    def meet(self, status: os.stat_result) -> None:
        """Learn which folder has the inbox's path now.

        A WatchError tells that it is another one than at the look before (sorting waits until
        it stays, as mounts come and go), or that another imgsortd is at work there.
        """
        identity = (status.st_dev, status.st_ino)
        if identity == self._here:
            self._met = identity
            return
        is_expected = self._here is None and self._home.is_home
        if identity != self._met and not is_expected:
            self._met = identity
            log.warning("inbox replaced path=%s", self._inbox)
            raise WatchError(f"inbox {self._inbox}: {_ANOTHER}; sorting waits until it stays")
        self._met = identity
        removed = self._here is not None and self._is_removed(self._here)
        try:
            self._on_arrival()
        except LockedError as error:
            raise WatchError(str(error)) from error
        self._home.enter_inbox(replaces_removed=removed)
        self._here = identity

    def accept(self) -> None:
        """Take the folder that is there now for the inbox at the first look, without waiting."""
        if self.is_away:
            log.warning("inbox replaced path=%s; what waited in the former one waits", self._inbox)
        with suppress(OSError):  # told by whoever lists it
            status = os.stat(self._inbox)
            self._met = (status.st_dev, status.st_ino)
