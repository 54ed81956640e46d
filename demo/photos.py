"""A person's own pictures: found as the daemon finds them, and only ever read."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from imgsortd.config.model import DEFAULT_IGNORE
from imgsortd.errors import ImgsortdError
from imgsortd.inbox.listing import Inbox
from imgsortd.names import base_name, name_choices

_PIECE_BYTES = 1 << 20
_SPARE = 0.9


def find_photos(folder: Path, workspace: Path) -> list[Path]:
    """List the pictures below a folder by the daemon's own rules; the demo's folder is left out.

    Raises
    ------
    ImgsortdError
        There is no such folder, it is the demo's own, or it holds fewer than two pictures.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise ImgsortdError(f"PHOTOS must be an existing folder, got {folder}")
    if folder.is_relative_to(workspace.resolve()):
        raise ImgsortdError(
            f"PHOTOS must not lie in {workspace}, which the demo makes anew, got {folder}; "
            f"copy it elsewhere first"
        )
    inbox = Inbox(folder, recursive=True, ignore=DEFAULT_IGNORE, extensions="auto")
    names = sorted(name for name, _ in inbox.scan())
    paths = [folder / os.fsdecode(name) for name in names if inbox.claims_picture(name)]
    paths = [path for path in paths if not path.is_relative_to(workspace.resolve())]
    if len(paths) < 2:
        raise ImgsortdError(
            f"PHOTOS={folder}: expected at least two pictures (JPEG, PNG, WebP, HEIC, TIFF …) "
            f"in it or its subfolders, got {len(paths)}; give another folder"
        )
    return paths


def check_space(paths: Sequence[Path], workspace: Path) -> int:
    """Return the bytes that copies of the files take.

    Raises
    ------
    ImgsortdError
        The disk of the demo's folder has too little room.
    """
    needed = sum(path.stat().st_size for path in paths)
    free = shutil.disk_usage(workspace.parent).free
    if needed > free * _SPARE:
        raise ImgsortdError(
            f"{workspace}: copies of {len(paths):,} pictures take {needed / 1e9:.1f} GB, but only "
            f"{free / 1e9:.1f} GB are free there; give a smaller folder as PHOTOS"
        )
    return needed


def inbox_names(paths: Sequence[Path]) -> Iterator[str]:
    """Yield a name for each file, no two alike: ``IMG_1.jpg``, ``IMG_1-1.jpg`` …"""
    taken: set[bytes] = set()
    for path in paths:
        base = base_name(os.fsencode(path))
        name = next(choice for choice in name_choices(base) if choice not in taken)
        taken.add(name)
        yield os.fsdecode(name)


def copy_in(source: Path, destination: Path) -> str:
    """Copy a file with its times, piece by piece; return the SHA-256 (hex) of what was copied."""
    sha = hashlib.sha256()
    with source.open("rb") as reader, destination.open("xb") as writer:
        while piece := reader.read(_PIECE_BYTES):
            sha.update(piece)
            writer.write(piece)
        status = os.fstat(reader.fileno())
    os.utime(destination, ns=(status.st_atime_ns, status.st_mtime_ns))
    return sha.hexdigest()


def write_slowly(data: bytes, destination: Path, pieces: int = 4, pause_s: float = 0.005) -> str:
    """Write a file in pieces with pauses, as a camera or a scanner does; return its SHA-256."""
    size = -(-len(data) // pieces)
    with destination.open("xb", buffering=0) as writer:
        for start in range(0, len(data), size):
            writer.write(data[start : start + size])
            time.sleep(pause_s)
    return hashlib.sha256(data).hexdigest()
