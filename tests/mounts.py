"""Small filesystems of their own, where this machine permits mounting them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest


@contextmanager
def tmpfs(folder: Path, size: str = "64m") -> Iterator[Path]:
    """Mount a tmpfs on a folder, made where it is new; skip the test where that is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a mount's options: ``ro``, ``rw``, ``size=…``."""
    _mount("-o", f"remount,{options}", str(folder))


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")


def tmpfs_or_none(stack: ExitStack, folder: Path, size: str) -> Path | None:
    """Mount a tmpfs until the stack is closed; None where that is refused."""
    try:
        return stack.enter_context(tmpfs(folder, size))
    except pytest.skip.Exception:
        return None
