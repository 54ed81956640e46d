"""The quick daemon in a world that a test makes worse: ``wrapped_imgsortd.py HOW run …``.

``slow-copies``: every copy across filesystems takes half a second.
``without-lease``: not allowed to ask the kernel of files of other owners (CAP_LEASE).
``few-watches=N``: in a user namespace where inotify may watch so many folders.
``dying=reader|emitter|dispatcher``: this thread of the watch ends with the first event.
``clock=FILE``: with a wall clock that is off by as many seconds as FILE says, at any time.
``ordinary``: without root's exemption from permissions, where root runs it.
``model-hangs``: with a model that never returns, and two seconds of patience with it.
``memory-for=N``: with a model that has memory for N pictures at a time.
``disk-fails=FILE``: while FILE is there, a step of the loop meets a disk that fails.
``without-tmpfile``: on filesystems that have no unnamed files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imgsortd.records import Pixels, Vectors

_CLONE_NEWUSER = 0x10000000
_REFUSED = 77
_CAPABILITIES_OF_64_BITS = 0x20080522
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_LEASE = 1, 2, 28


def few_watches(watches: str) -> None:
    uid, gid = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        sys.exit(_REFUSED)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        Path("/proc/sys/user/max_inotify_watches").write_text(watches)
    except OSError:
        sys.exit(_REFUSED)


def shift_clock(file: Path) -> None:
    real = time.time
    time.time = lambda: real() + float(file.read_text() or 0)


def slow_copies() -> None:
    from imgsortd.moves import staging

    stage = staging.stage

    def slowly(*arguments: Any) -> staging.Staged:
        time.sleep(0.5)
        return stage(*arguments)

    staging.stage = slowly


def die_once(thread: str) -> None:
    """Let a thread of watchdog's meet an error with the first file; the next one lives."""
    from watchdog.observers.api import BaseObserver
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import InotifyFD

    owner, name = {
        "reader": (InotifyFD, "handle_event"),
        "emitter": (InotifyEmitter, "queue_event"),
        "dispatcher": (BaseObserver, "dispatch_events"),
    }[thread]
    real = getattr(owner, name)

    def dying(*arguments: object) -> object:
        setattr(owner, name, real)
        if name == "dispatch_events":  # it waits here for the event
            real(*arguments)
        raise RuntimeError(f"the {thread} dies")

    setattr(owner, name, dying)


def drop(*capabilities: int) -> None:
    """Be a root without these capabilities from now on, as any service's user is."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_OF_64_BITS, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; and those from 32 on
    if os.geteuid() != 0 or libc.capget(header, sets):
        sys.exit(_REFUSED)
    for capability in capabilities:
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):  # else an exec brings it back
            sys.exit(_REFUSED)
        for number in range(3):
            sets[capability // 32 * 3 + number] &= ~(1 << capability % 32)
    if libc.capset(header, sets):
        sys.exit(_REFUSED)


def hang() -> None:
    import support
    from imgsortd.networks import model_thread

    def never(*_: object) -> None:
        time.sleep(3600)

    support.ColourExtractor.extract = never  # type: ignore[method-assign,assignment]
    model_thread._PIECE_S = 2.0


def bound_memory(images: int) -> None:
    import support

    real = support.ColourExtractor.extract

    def extract(self: support.ColourExtractor, pixels: Sequence[Pixels]) -> Vectors:
        if len(pixels) > images:
            raise MemoryError
        return real(self, pixels)

    support.ColourExtractor.extract = extract  # type: ignore[method-assign]


def fail_disk(file: Path) -> None:
    from imgsortd.inbox.intake import Intake

    real = Intake.settle

    def settle(self: Intake, now_s: float, at_most: int | None = None) -> int:
        if file.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, now_s, at_most)

    Intake.settle = settle  # type: ignore[method-assign]


def take_unnamed_files_away() -> None:
    os.O_TMPFILE = os.O_DIRECTORY  # opens to EISDIR, as where it is not supported


WORLDS: dict[str, Callable[[str], None]] = {
    "few-watches": few_watches,
    "clock": lambda file: shift_clock(Path(file)),
    "ordinary": lambda _: drop(_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH),
    "without-lease": lambda _: drop(_CAP_LEASE),
    "slow-copies": lambda _: slow_copies(),
    "dying": die_once,
    "model-hangs": lambda _: hang(),
    "memory-for": lambda images: bound_memory(int(images)),
    "disk-fails": lambda file: fail_disk(Path(file)),
    "without-tmpfile": lambda _: take_unnamed_files_away(),
}


def change_world() -> None:
    """Take HOW from the arguments, and do it."""
    how, _, value = sys.argv.pop(1).partition("=")
    WORLDS[how](value)
