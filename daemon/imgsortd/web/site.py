"""What the handlers of one web process share."""

from __future__ import annotations

import logging
import time

from starlette.requests import Request

from imgsortd.config.model import Config
from imgsortd.errors import StoreError
from imgsortd.pictures.thumbnail_cache import ThumbnailCache
from imgsortd.store.database import open_for_reading
from imgsortd.web import access
from imgsortd.web.access import Hosts, Keys, Tries
from imgsortd.web.clusters import Overview
from imgsortd.web.live import Broadcast, LiveReader
from imgsortd.web.pictures import Pictures
from imgsortd.web.review import ReviewQueue
from imgsortd.web.wall import Wall

log = logging.getLogger(__name__)

CACHE_FILE = "thumbnails.db"
SESSION = "imgsortd.session"
"""Where a request's scope says whose it is: a session's id; empty where nobody logs in."""


class Site:
    """The configuration, keys and hosts, and what is kept from one request to the next.

    Attributes
    ----------
    overview, wall, review
        Readers that keep what they found out.
    pictures
        Thumbnails and previews.
    broadcast
        Who listens to what changes.
    tries
        Logins that failed.
    """

    def __init__(self, config: Config, keys: Keys, hosts: Hosts) -> None:
        self.config, self.keys, self.hosts = config, keys, hosts
        path, size_bytes = config.state_dir / CACHE_FILE, config.web.thumbnails_mb * 10**6
        self._cache = ThumbnailCache(path, size_bytes)
        self.pictures = Pictures(config, self._cache)
        self.overview = Overview()
        self.wall = Wall(self.overview, self._cache.sizes)
        self.review = ReviewQueue(self.overview)
        self.broadcast = Broadcast(LiveReader(config))
        self.tries = Tries()
        self._is_stopped = False

    @property
    def wants_token(self) -> bool:
        """Whether people have to log in."""
        return self.keys.token is not None

    def csrf(self, request: Request) -> str:
        """Make the token that a page sends along with the changes it asks for."""
        return access.make_csrf(self.keys, session_of(request), time.time())

    def look(self) -> None:
        """Look at the library once, so that who comes first need not wait for it."""
        try:
            with open_for_reading(self.config.database, if_there=True) as store:
                self.overview.read(self.config, store)
        except StoreError as error:
            log.warning("library not read reason=%s", error)

    async def stop(self) -> None:
        """End what the requests began: whoever waits is answered at once."""
        self.broadcast.close()
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
