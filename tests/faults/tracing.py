"""What strace does to a life: kill it at a system call, or let the call fail."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from typing import Any

import pytest

from killed_line import KillServer
from scene import Scene

DURABLE = (
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "fsync", "fdatasync", "ftruncate", "fallocate"),
    *("write", "pwrite64"),
)
"""Calls that change what a disk holds, or that wait until it does."""


def trace(server: KillServer, scene: Scene, *options: str) -> dict[str, Any]:
    """Sort under strace; skip the test where there is none, or where it may not trace."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace here")
    answer = server.run_traced(scene.folder, *options)
    if "refused" in answer:
        pytest.skip(f"strace may not trace here: {answer['refused']}")
    return answer


def inject(server: KillServer, scene: Scene, what: str) -> dict[str, Any]:
    """Sort with one of strace's injections: ``fsync:error=EIO:when=2``."""
    call, _, _ = what.partition(":")
    return trace(server, scene, "-y", "-e", f"trace={call},close", "-e", f"inject={what}")


def calls_of(server: KillServer, scene: Scene) -> Counter[str]:
    """Sort to the end; return how often each durable call was made."""
    trace(server, scene, "-e", "trace=" + ",".join(DURABLE))
    return Counter(re.findall(r"^(\w+)\(", output(scene), re.M))


def output(scene: Scene) -> str:
    """Return what strace has written."""
    return (scene.folder / "strace").read_text(errors="replace")
