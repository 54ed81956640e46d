"""The requests of ``imgsortd rename`` and ``unpin``, answered in the daemon's loop."""

from __future__ import annotations

import logging
from typing import Any

from imgsortd.adapters.store_control import Request
from imgsortd.errors import ImgsortdError
from imgsortd.hands import HAND_VERBS, do_by_hand
from imgsortd.library import Library

log = logging.getLogger(__name__)


class HandRequests:
    """Takes the requests that change what a person has said of clusters and pictures."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._answer: tuple[int, str, dict[str, Any]] | None = None

    def step(self) -> None:
        """Answer the request that is next, if it is one of these."""
        store = self._library.store
        if self._answer is None:
            verb = store.control.next_verb()
            if verb not in HAND_VERBS:
                return
            with store.atomic():
                request = store.control.take(verb)
            assert request is not None
            self._answer = (request.request_id, *self._do(request))
        with store.atomic():  # should the disk be full, a later step does it
            store.control.answer(*self._answer)
        self._answer = None

    def _do(self, request: Request) -> tuple[str, dict[str, Any]]:
        store, config = self._library.store, self._library.config
        try:
            result = do_by_hand(store, config, request.verb, request.params)
        except (ImgsortdError, TypeError) as error:
            log.error("%s failed reason=%s", request.verb, error)
            return "failed", {"error": str(error)}
        log.info("%s done result=%s", request.verb, result)
        return "done", result
