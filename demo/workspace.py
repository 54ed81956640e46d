"""The demo's own folder: made anew each run, and never removed unless it is ours."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from imgsortd.config.model import ClustersConfig
from imgsortd.errors import ImgsortdError
from imgsortd.system.locks import running_pid

MARKER = ".imgsortd-demo"
_MARKER_TEXT = "imgsortd's `make demo` made this folder and makes it anew at its next run.\n"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Folders and files of one run. ``lock_fd`` holds the lock for as long as it is open."""

    root: Path
    lock_fd: int

    @property
    def inbox(self) -> Path:
        """Where the pictures are dropped."""
        return self.root / "inbox"

    @property
    def target(self) -> Path:
        """Where the cluster folders appear."""
        return self.root / "sorted"

    @property
    def state_dir(self) -> Path:
        """Where the daemon keeps its SQLite file."""
        return self.root / "state"

    @property
    def config_file(self) -> Path:
        """The daemon's configuration."""
        return self.root / "config.yaml"

    @property
    def log_file(self) -> Path:
        """What the daemon logged."""
        return self.root / "daemon.log"

    @property
    def sheet(self) -> Path:
        """The contact sheet."""
        return self.root / "contact-sheet.html"

    def write_config(self, count: int) -> None:
        """Write the configuration for so many files: the folders, and :func:`own_settings`."""
        data = {
            "inbox": str(self.inbox),
            "target": str(self.target),
            "state_dir": str(self.state_dir),
            "clusters": own_settings(count),
        }
        self.config_file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")

    def log_tail(self, lines: int = 12) -> str:
        """Return the end of the daemon's log."""
        try:
            text = self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def tidy(self) -> None:
        """Remove the log; leave the sorted folders, the sheet, and what the web page reads."""
        self.log_file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all of it, the marker last: without it the next run would not touch the rest."""
        _empty(self.root)
        (self.root / MARKER).unlink()
        self.root.rmdir()

    def release(self) -> None:
        """Give up the lock."""
        os.close(self.lock_fd)


def own_settings(count: int) -> dict[str, str | int]:
    """Return what is set of ``clusters`` for so many files; all else is the default.

    The number of clusters is found in the pictures, for nobody can know it of pictures of
    their own. Where the files are too few for a first fit, as many as there are suffice.
    """
    settings: dict[str, str | int] = {"n_clusters": "auto"}
    if count < ClustersConfig().min_images:
        settings["min_images"] = count
    return settings


def claim(root: Path) -> Workspace:
    """Lock the demo's folder and empty it; make it where it is new.

    Raises
    ------
    ImgsortdError
        Something else has that name, or a demo or its daemon is still at work there.
    """
    marker = root / MARKER
    if os.path.lexists(root) and (root.is_symlink() or not marker.is_file()):
        raise ImgsortdError(
            f"{root}: was not made by the demo (it has no {MARKER} in it) and is left alone; "
            f"move it away and run `make demo` again"
        )
    root.mkdir(exist_ok=True)
    fd = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    workspace = Workspace(root, fd)
    try:
        _lock(workspace)
        os.pwrite(fd, _MARKER_TEXT.encode(), 0)
        _empty(root)
        for folder in (workspace.inbox, workspace.target, workspace.state_dir):
            folder.mkdir()
    except BaseException:
        workspace.release()
        raise
    return workspace


def _lock(workspace: Workspace) -> None:
    try:
        fcntl.flock(workspace.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ImgsortdError(
            f"{workspace.root}: another `make demo` is at work there; let it end, or stop it"
        ) from error
    pid = running_pid(workspace.state_dir)
    if pid is not None:
        raise ImgsortdError(
            f"{workspace.root}: the daemon of an earlier demo still runs there; stop it: kill {pid}"
        )


def _empty(root: Path) -> None:
    for entry in root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()


def contents(folder: Path) -> Counter[str]:
    """Count the files below a folder by the SHA-256 (hex) of their bytes."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                found[hashlib.file_digest(file, "sha256").hexdigest()] += 1
    return found
