"""Hear of new files: watchdog's events are hints, the inbox's listing is the truth.

Measured (watchdog 7.1): with closed and moved events only, a burst of 10,000 files
loses none; with the default mask thousands. An overflow of the kernel's queue
reaches no handler, only the log; an observer whose inbox was replaced stays
``is_alive()``. So every warning asks for a scan, and a sentinel file proves that
events still arrive.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.inotify_c import InotifyFD

from imgsortd.config.model import Config
from imgsortd.config.values import Polling
from imgsortd.errors import NoSpaceError, StoreLockedError, WatchError
from imgsortd.inbox.intake import Intake

log = logging.getLogger(__name__)

SENTINEL = ".imgsortd-sentinel-"
"""How the names of the files begin that prove the watch."""

_FDS = Path("/proc/self/fd")
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_QUEUE_NAMES = 65_536
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "davfs", "virtiofs", "vboxsf"),
    *("fuse.sshfs", "fuse.rclone", "fuse.glusterfs", "fuse.s3fs", "fuse.davfs2"),
    "fuse.vmhgfs-fuse",
}

_LOST_RETRY_S = 5.0
_POLL_S = 5.0
_DEAF_AFTER_S = 5.0
_DEAF_TIMES = 3
_TRY_AGAIN_S = 600.0
_LISTING = f"listing it every {_POLL_S:g} s instead"


class HintQueue(FileSystemEventHandler):
    """Names that events spoke of; bounded, and when it is full a scan is asked for."""

    def __init__(self, root: bytes) -> None:
        self.root, self.scan_wanted = root, False
        self.sentinel, self.sentinel_seen = "", False
        self._names: queue.Queue[bytes] = queue.Queue(_QUEUE_NAMES)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take an event; runs in watchdog's thread, which an error would end."""
        try:
            self._take_event(event)
        except Exception as error:
            log.warning("event not understood error=%r", error)
            self.ask_scan()

    def _take_event(self, event: FileSystemEvent) -> None:
        if event.is_directory:
            self.ask_scan()
            return
        path = os.fsencode(event.dest_path or event.src_path)
        name = os.path.basename(path)
        if name.startswith(SENTINEL.encode()):
            self.sentinel_seen = self.sentinel_seen or name == self.sentinel.encode()
        elif path.startswith(self.root + b"/"):
            self._put(path[len(self.root) + 1 :])

    def _put(self, name: bytes) -> None:
        try:
            self._names.put_nowait(name)
        except queue.Full:
            self.scan_wanted = True

    def ask_scan(self) -> None:
        """Ask for a scan and wake the loop."""
        self.scan_wanted = True
        self._put(b"")

    def wake(self) -> None:
        """Wake whoever waits in :meth:`take`, with nothing to tell."""
        with suppress(queue.Full):  # then nobody waits
            self._names.put_nowait(b"")

    def take(self, timeout_s: float) -> list[bytes]:
        """Wait for a hint; return all that are there, each name once."""
        names: dict[bytes, None] = {}
        try:
            name = self._names.get(timeout=max(0.0, timeout_s))
            while True:
                if name:
                    names[name] = None
                name = self._names.get_nowait()
        except queue.Empty:
            return list(names)


class _OverflowAlarm(logging.Handler):
    """Any warning of watchdog's (overflow, a dead watch) asks for a scan."""

    def __init__(self, hints: HintQueue) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:
        self._hints.ask_scan()


class Watcher:
    """An inotify observer on the inbox, or none where listing alone finds the files."""

    def __init__(self, root: Path, recursive: bool) -> None:
        self._root, self._recursive = root, recursive
        self.hints = HintQueue(os.fsencode(root))
        self._observer: InotifyObserver | None = None
        self._alarm = _OverflowAlarm(self.hints)

    @property
    def is_watching(self) -> bool:
        """Whether an observer runs; False means polling."""
        return self._observer is not None

    @property
    def is_alive(self) -> bool:
        """Whether every thread lives that an event passes through."""
        if self._observer is None:
            return False
        reads = any(isinstance(thread, InotifyFD) for thread in threading.enumerate())
        threads = (self._observer, *self._observer.emitters)
        return reads and all(thread.is_alive() for thread in threads)

    @staticmethod
    def count_watches() -> int | None:
        """Count the folders that this process watches, or None where /proc does not tell.

        watchdog says nothing of a folder that the kernel has refused to watch.
        """
        try:
            fds = [fd for fd in os.listdir(_FDS) if _is_inotify(fd)]
            infos = [Path("/proc/self/fdinfo", fd).read_bytes() for fd in fds]
        except OSError:
            return None
        return sum(info.count(b"\ninotify ") for info in infos)

    def shortage(self, folders: int, watches: int) -> str:
        """Say that the kernel does not watch as many folders as there are, and what to set."""
        used_up = _used_up(28) or ""
        return f"only {watches:,} of {folders:,} folders of {self._root} are watched: {used_up}"

    def start(self) -> None:
        """Begin to watch; a WatchError tells what stands against it, and which limit to raise."""
        root = os.path.realpath(self._root)  # a symlink itself would be watched, not its folder
        self.hints.root = os.fsencode(root)
        observer: InotifyObserver | None = None
        _drop_dead_reader()
        try:
            observer = InotifyObserver(generate_full_events=True)
            observer.schedule(self.hints, root, recursive=self._recursive, event_filter=_EVENTS)
            observer.start()
        except (OSError, RecursionError) as error:  # the second: folders nested without end
            if observer is not None:
                with suppress(Exception):
                    observer.stop()
            raise WatchError(_watch_text(self._root, error)) from error
        logging.getLogger("watchdog.observers").addHandler(self._alarm)
        self._observer = observer

    def stop(self) -> None:
        """Stop watching and wait for the threads."""
        logging.getLogger("watchdog.observers").removeHandler(self._alarm)
        if self._observer is not None:
            complaints = logging.getLogger("watchdog.observers.inotify")
            complaints.disabled = True  # its thread calls its own end an error
            self._observer.stop()
            self._observer.join(timeout=5)
            complaints.disabled = False
            self._observer = None

    def send_sentinel(self) -> bool:
        """Write a file that the observer must report; False where the inbox is read-only."""
        name = f"{SENTINEL}{os.getpid()}-{secrets.token_hex(8)}"
        self.hints.sentinel, self.hints.sentinel_seen = name, False
        try:
            # Only a file that was made here is removed: others may have files of any name.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._root / name, flags, 0o600)
        except OSError:
            return False
        inode = os.fstat(fd).st_ino
        os.close(fd)
        with suppress(OSError):
            if os.lstat(self._root / name).st_ino == inode:
                os.unlink(self._root / name)
        return True


def _is_inotify(fd: str) -> bool:
    with suppress(OSError):  # closed meanwhile
        return os.readlink(_FDS / fd) == "anon_inode:inotify"
    return False


def _drop_dead_reader() -> None:
    """Let watchdog make a new reader: it shares one for ever, also one whose thread has died."""
    reader = getattr(InotifyFD, "_instance", None)
    if reader is not None and not reader.is_alive():
        with suppress(Exception):
            reader.close()
        InotifyFD._instance = None


def _watch_text(root: Path, error: OSError | RecursionError) -> str:
    why = "its folders are nested too deep"
    if isinstance(error, OSError):
        why = _used_up(error.errno or 0) or f"{error.strerror}; is it there and readable?"
    return f"cannot watch {root}: {why}"


def _used_up(number: int) -> str | None:
    """Say which limit an error speaks of, its value and its name; None where it is no limit."""
    knobs = {28: "fs.inotify.max_user_watches", 24: "fs.inotify.max_user_instances"}
    knob = knobs.get(number)
    if knob is None:
        return None
    try:
        limit = Path("/proc/sys/" + knob.replace(".", "/")).read_text().strip()
    except OSError:
        limit = "unknown here"
    return f"the inotify limit ({limit}) is used up; raise {knob}"


def filesystem_of(path: Path) -> str:
    """Return the type of the filesystem that holds a path (``ext4``, ``nfs4`` …), or ``""``."""
    try:
        lines = Path("/proc/self/mounts").read_bytes().splitlines()
    except OSError:
        return ""
    best, kind = b"", b""
    resolved = os.fsencode(path.resolve())
    for line in lines:
        _, mount, this, *_ = line.split(b" ")
        # The kernel writes a space as \040; other bytes, UTF-8 or not, stand as they are.
        mount = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), mount)
        inside = resolved == mount or resolved.startswith(mount.rstrip(b"/") + b"/")
        if inside and len(mount) >= len(best):
            best, kind = mount, this
    return kind.decode()


def is_network_filesystem(kind: str) -> bool:
    """Tell whether others can write to it without this kernel hearing of it."""
    return kind in _NETWORK


class Lookout:
    """Brings what is heard and listed to the intake.

    ``on_error`` is told (event, detail) of a watch that cannot be had and of a lost inbox;
    ``lost`` says why the inbox cannot be listed, and is empty while it can.
    """

    def __init__(
        self, config: Config, intake: Intake, watcher: Watcher, on_error: Callable[[str, str], None]
    ) -> None:
        self._config, self._intake, self._watcher = config, intake, watcher
        self._on_error = on_error
        self._scan_every_s = config.rescan_s
        self._next_scan_s, self._scan_again_s = 0.0, 0.0
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
        try:
            if self._config.polling is not Polling.ON:
                self._watcher.start()
        except WatchError as error:
            if self._config.polling is Polling.OFF:
                raise
            self._on_error("watch failed", f"{error}; {_LISTING}")
        self._is_short = False
        self._set_pace()

    def _set_pace(self) -> None:
        rescan_s = self._config.rescan_s
        self._scan_every_s = rescan_s if self.is_watching else min(rescan_s, _POLL_S)

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
        told = f"{self._config.inbox}: {why}"
        if self._deaf_times < _DEAF_TIMES:
            self._on_error("watch deaf", f"{told}; watching it anew")
            self._renew_watcher()
            return
        self._on_error("watch deaf", f"{told}, time and again; {_LISTING}")
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
        was_short = self._is_short
        self._is_short = watches < (folders if was_short else settled)
        if self._is_short and not was_short:
            shortage = self._watcher.shortage(folders, watches)
            self._on_error("watch failed", f"{shortage}; {_LISTING}")
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
