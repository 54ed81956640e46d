"""What the handlers of one web process share."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_opening import open_if_there
from imgsortd.adapters.thumbnail_cache import ThumbnailCache
from imgsortd.config import Config
from imgsortd.errors import StoreError
from imgsortd.subjects import open_for_reading
from imgsortd.web import tokens
from imgsortd.web.attempts import Attempts
from imgsortd.web.hosts import Hosts
from imgsortd.web.live import Pulse
from imgsortd.web.overview import Overview
from imgsortd.web.pictures import Pictures
from imgsortd.web.pulse_reader import PulseReader
from imgsortd.web.review_queue import ReviewQueue
from imgsortd.web.tokens import Keys
from imgsortd.web.wall import Wall

log = logging.getLogger(__name__)

CACHE_FILE = "thumbnails.db"
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
    overview, wall, review
        Readers that keep what they found out.
    pictures
        Thumbnails and previews.
    pulse
        Who listens to what changes.
    attempts
        Logins that failed.
    """

    def __init__(self, config: Config, keys: Keys, hosts: Hosts) -> None:
        self.config = config
        self.keys = keys
        self.hosts = hosts
        path, size_bytes = config.state_dir / CACHE_FILE, config.web.thumbnails_mb * 10**6
        self._cache = ThumbnailCache(path, size_bytes)
        self.pictures = Pictures(config, self._cache)
        self.overview = Overview()
        self.wall = Wall(self.overview, self._cache.sizes)
        self.review = ReviewQueue(self.overview)
        self.pulse = Pulse(PulseReader(config))
        self.attempts = Attempts()
        self._is_stopped = False

    @property
    def wants_token(self) -> bool:
        """Whether people have to log in."""
        return self.keys.token is not None

    def csrf(self, request: Request) -> str:
        """Make the token that a page sends along with the changes it asks for."""
        return tokens.make_csrf(self.keys, session_of(request), time.time())

    async def start(self) -> None:
        """Look at the library once, so that who comes first need not wait for it."""
        await run_in_threadpool(self._look)

    def _look(self) -> None:
        try:
            with open_if_there(self.config.database) as store:
                self.overview.read(self.config, store)
        except StoreError as error:
            log.warning("library not read reason=%s", error)

    async def stop(self) -> None:
        """End what `start` and the requests began: whoever waits is answered at once."""
        self.pulse.close()
        if not self._is_stopped:
            self._is_stopped = True
            await self.pictures.close()
            self._cache.close()


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
