"""What the handlers of one web process share."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from imgsortd.adapters.store import Store
from imgsortd.config import Config
from imgsortd.subjects import open_for_reading
from imgsortd.web import tokens
from imgsortd.web.attempts import Attempts
from imgsortd.web.hosts import Hosts
from imgsortd.web.late import LateModule
from imgsortd.web.live import Pulse
from imgsortd.web.pulse_reader import PulseReader
from imgsortd.web.tokens import Keys

_pictures = LateModule("imgsortd.web.pictures")
_caches = LateModule("imgsortd.adapters.thumbnail_cache")

SESSION = "imgsortd.session"
"""Where a request's scope says whose it is: a session's id; empty where nobody logs in."""


class Site:
    """The configuration, the keys, and what is kept from one request to the next.

    Parameters
    ----------
    config
        Read at the start.
    keys
        The secrets of this process.
    hosts
        The names it answers to.

    Attributes
    ----------
    pulse
        Who listens to what changes.
    attempts
        Logins that failed.
    pictures
        Thumbnails and previews, while the process serves.
    """

    def __init__(self, config: Config, keys: Keys, hosts: Hosts) -> None:
        self.config = config
        self.keys = keys
        self.hosts = hosts
        self.attempts = Attempts()
        self.pulse = Pulse(PulseReader(config))
        self.pictures: Any = None
        self._cache: Any = None
        self._is_stopped = False

    @property
    def wants_token(self) -> bool:
        """Whether people have to log in."""
        return self.keys.token is not None

    def csrf(self, request: Request) -> str:
        """Make the token that a page sends along with the changes it asks for."""
        return tokens.make_csrf(self.keys, session_of(request), time.time())

    @cached_property
    def overview(self) -> Any:
        """The reader of the grid of clusters."""
        return LateModule("imgsortd.web.overview").Overview()

    @cached_property
    def wall(self) -> Any:
        """The reader of one cluster's pictures."""
        return LateModule("imgsortd.web.wall").Wall(self.overview)

    @cached_property
    def review(self) -> Any:
        """The reader of the pictures in review."""
        return LateModule("imgsortd.web.review_queue").ReviewQueue()

    async def start(self) -> None:
        """Make what works in the loop of the requests."""
        with suppress(HTTPException):  # pictures are not there yet
            path = self.config.state_dir / "thumbnails.db"
            size = self.config.web.thumbnails_mb * 10**6
            self._cache = _caches.ThumbnailCache(path, size)
            self.pictures = _pictures.Pictures(self.config, self._cache)

    async def stop(self) -> None:
        """End what `start` and the requests began: whoever waits is answered at once."""
        self.pulse.close()
        if self.pictures is not None and not self._is_stopped:
            await self.pictures.close()
            self._cache.close()
        self._is_stopped = True


def site_of(request: Request) -> Site:
    """Return the site that a request is made to."""
    site: Site = request.app.state.site
    return site


def session_of(request: Request) -> str:
    """Return the id of a request's session; empty where there is none."""
    return str(request.scope.get(SESSION, ""))


def open_library(site: Site) -> AbstractContextManager[Store]:
    """Open the database for one answer.

    Raises
    ------
    StoreError
        There is none yet, it is of an older imgsortd, or it cannot be read.
    """
    return open_for_reading(site.config)
