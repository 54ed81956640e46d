"""Small filesystems of their own, where this machine permits mounting them; folders in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Make a folder in memory, where there is one, and remove it at the end."""
    memory = "/dev/shm"
    where = memory if os.access(memory, os.W_OK) else None
    with TemporaryDirectory(prefix="imgsortd-test-", dir=where) as folder:
        yield Path(folder)


@contextmanager
def tmpfs(folder: Path, size: str = "64m") -> Iterator[Path]:
    """Mount a tmpfs on a folder, made where it is new; skip the test where that is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def make_ext4(image: Path, size_mb: int) -> None:
    """Write an empty ext4 into a file; skip the test where there is no mkfs for it."""
    with open(image, "wb") as file:
        file.truncate(size_mb << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 can be made here: {error}")


@contextmanager
def loop_ext4(image: Path, folder: Path) -> Iterator[None]:
    """Mount an image; it writes back nothing by itself that nobody has asked to be synced.

    At the end all of it is in the image. Unmounted alone it might not be: a container that was
    begun meanwhile has a copy of the mount, and the filesystem lives as long as that.
    """
    _mount("-t", "ext4", "-o", "loop,commit=300", str(image), str(folder))
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def bind(folder: Path, onto: Path) -> Iterator[Path]:
    """Mount a folder a second time: the same filesystem, but EXDEV between the two."""
    onto.mkdir(parents=True, exist_ok=True)
    _mount("--bind", str(folder), str(onto))
    try:
        yield onto
    finally:
        subprocess.run(["umount", "-l", str(onto)], check=True)


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
