"""Keep watch over the inbox: events where they come, listing always, and word when it is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from imgsortd.adapters.watching import Watcher
from imgsortd.config import Config, Polling
from imgsortd.errors import NoSpaceError, StoreLockedError, WatchError
from imgsortd.intake import Intake

log = logging.getLogger(__name__)

_LOST_RETRY_S = 5.0
_POLL_S = 5.0
_DEAF_AFTER_S = 5.0
_DEAF_TIMES = 3
_TRY_AGAIN_S = 600.0
_LISTING = f"listing it every {_POLL_S:g} s instead"


class Lookout:
    """Brings what is heard and listed to the intake.

    Parameters
    ----------
    on_error
        Told (event, detail) of a watch that cannot be had and of a lost inbox.

    Attributes
    ----------
    lost
        Why the inbox cannot be listed; empty while it can.
    """

    def __init__(
        self,
        config: Config,
        intake: Intake,
        watcher: Watcher,
        on_error: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._intake = intake
        self._watcher = watcher
        self._on_error = on_error
        self._scan_every_s = config.rescan_s
        self._next_scan_s = 0.0
        self._scan_again_s = 0.0
        self._sentinel_at_s: float | None = None
        self._deaf_times = 0
        self._folders, self._watches = 0, 0  # at the last listing
        self._is_short = False
        self._watch_again_s = float("inf")
        self.lost = ""

    @property
    def is_watching(self) -> bool:
        """Whether events come of all folders; False means that listing finds the files."""
        return self._watcher.is_watching and not self._is_short

    def start(self) -> None:
        """Watch, then list: in this order nothing is missed."""
        self._watch()
        self._scan(time.monotonic())

    def stop(self) -> None:
        """Stop the watcher's threads."""
        self._watcher.stop()

    def hear(self, patience_s: float) -> None:
        """Wait for events, at most so many seconds, and list the inbox where it is due."""
        hints = self._watcher.hints.take(patience_s)
        now = time.monotonic()
        self._intake.hint(hints, now)
        asked = self._watcher.hints.scan_wanted and now >= self._scan_again_s and not self.lost
        if asked or now >= self._next_scan_s:
            self._scan(now)

    def _watch(self) -> None:
        polling = self._config.polling
        if polling is not Polling.ON:
            try:
                self._watcher.start()
            except WatchError as error:
                if polling is Polling.OFF:
                    raise
                self._on_error("watch failed", f"{error}; {_LISTING}")
        self._is_short = False
        self._set_pace()

    def _set_pace(self) -> None:
        self._scan_every_s = self._config.rescan_s
        if not self.is_watching:
            self._scan_every_s = min(self._scan_every_s, _POLL_S)

    def _scan(self, now: float) -> None:
        self._watcher.hints.scan_wanted = False
        self._next_scan_s = now + self._scan_every_s
        try:
            self._intake.scan(now)
            # A tree that is copied in asks with every folder: list half of the time at most.
            self._scan_again_s = 2 * time.monotonic() - now
            if self.lost or now >= self._watch_again_s:
                self._renew_watcher()
            if self.lost:
                log.info("inbox found path=%s", self._config.inbox)
                self.lost = ""
            self._check_watcher()
            self._check_folders()
            self._next_scan_s = now + self._scan_every_s
        except (NoSpaceError, StoreLockedError):  # the books could not be kept: list again soon
            self._next_scan_s = now + _LOST_RETRY_S
            raise
        except WatchError as error:
            if not self.lost:
                self._on_error("inbox lost", str(error))
            self.lost = str(error)
            self._next_scan_s = now + _LOST_RETRY_S

    def _check_watcher(self) -> None:
        """See that the last sentinel was heard, and send the next one."""
        sent_s, hints = self._sentinel_at_s, self._watcher.hints
        if self._watcher.is_watching and not self._watcher.is_alive:
            self._renew_deaf("a thread of the watch has ended")
        elif sent_s is not None and not hints.sentinel_seen:
            if time.monotonic() - sent_s < _DEAF_AFTER_S:
                return  # it may stand behind thousands of other events
            self._renew_deaf("no event comes")
        elif sent_s is not None:
            self._deaf_times = 0
        self._sentinel_at_s = None
        if self._watcher.is_watching and self._watcher.send_sentinel():
            self._sentinel_at_s = time.monotonic()

    def _renew_deaf(self, why: str) -> None:
        """Watch anew; where that does not help either, list for a while."""
        self._deaf_times += 1
        if self._deaf_times < _DEAF_TIMES:
            self._on_error("watch deaf", f"{self._config.inbox}: {why}; watching it anew")
            self._renew_watcher()
            return
        self._on_error("watch deaf", f"{self._config.inbox}: {why}, time and again; {_LISTING}")
        self._watcher.stop()
        self._deaf_times = 0
        self._watch_again_s = time.monotonic() + _TRY_AGAIN_S
        self._set_pace()

    def _check_folders(self) -> None:
        """See that the kernel watches every folder that was listed, twice in a row."""
        folders, watches = self._intake.folders, self._watcher.count_watches()
        if not self._watcher.is_watching or watches is None:
            return
        settled = min(folders, self._folders) if watches == self._watches else 0
        self._folders, self._watches = folders, watches
        was_short, self._is_short = (
            self._is_short,
            watches < (folders if self._is_short else settled),
        )
        if self._is_short and not was_short:
            self._on_error(
                "watch failed", f"{self._watcher.shortage(folders, watches)}; {_LISTING}"
            )
            self._watch_again_s = time.monotonic() + _TRY_AGAIN_S
        self._set_pace()
        if watches < folders:  # look again soon: new folders get their watch in a moment
            self._scan_every_s = min(self._scan_every_s, _POLL_S)

    def _renew_watcher(self) -> None:
        self._watcher.stop()
        self._sentinel_at_s = None
        self._watch_again_s = float("inf")
        self._watch()
        self._watcher.hints.ask_scan()  # what came between the two watches
