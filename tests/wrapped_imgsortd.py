"""The quick daemon in a world that a test makes worse: ``wrapped_imgsortd.py HOW run …``.

``few-watches``: in a user namespace where inotify may watch nothing.
``slow-copies``: every copy across filesystems takes half a second.
``without-lease``: not allowed to ask the kernel of files of other owners (CAP_LEASE).
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


def few_watches() -> None:
    uid, gid = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        sys.exit(_REFUSED)
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        Path("/proc/sys/user/max_inotify_watches").write_text("0")
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


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "few-watches":
        few_watches()
    elif how == "without-lease":
        without_lease()
    elif how == "slow-copies":
        slow_copies()
    else:
        shift_clock(Path(how.removeprefix("clock=")))
    runpy.run_path(str(Path(__file__).with_name("quick_imgsortd.py")), run_name="__main__")
