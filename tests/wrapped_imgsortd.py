"""The quick daemon in a world that a test makes worse: ``wrapped_imgsortd.py HOW run …``.

``slow-copies``: every copy across filesystems takes half a second.
``without-lease``: not allowed to ask the kernel of files of other owners (CAP_LEASE).
``few-watches=N``: in a user namespace where inotify may watch so many folders.
``dying=reader|emitter|dispatcher``: this thread of the watch ends with the first event.
``clock=FILE``: with a wall clock that is off by as many seconds as FILE says, at any time.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import sys
import time
from pathlib import Path
from typing import Any

_CLONE_NEWUSER = 0x10000000
_REFUSED = 77


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


def without_lease() -> None:
    if not shutil.which("setpriv") or os.geteuid() != 0:
        sys.exit(_REFUSED)
    quick = str(Path(__file__).with_name("quick_imgsortd.py"))
    rest = [sys.executable, quick, *sys.argv[1:]]
    os.execvp("setpriv", ["setpriv", "--bounding-set", "-lease", *rest])


def slow_copies() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from imgsortd.adapters import copying

    stage = copying.stage

    def slowly(*arguments: Any) -> copying.Staged:
        time.sleep(0.5)
        return stage(*arguments)

    copying.stage = slowly


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


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "without-lease":
        without_lease()
    elif how == "slow-copies":
        slow_copies()
    elif how.startswith("few-watches="):
        few_watches(how.removeprefix("few-watches="))
    elif how.startswith("dying="):
        die_once(how.removeprefix("dying="))
    else:
        shift_clock(Path(how.removeprefix("clock=")))
    runpy.run_path(str(Path(__file__).with_name("quick_imgsortd.py")), run_name="__main__")
