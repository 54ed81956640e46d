"""Debian's packages that tests need: Chromium, and whatever else is installed for them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from browser import find_chromium

# Without a font of its own a page has none on a bare machine.
_PACKAGES = ("chromium", "fonts-dejavu-core")
_APT = (
    "apt-get",
    "--yes",
    "--quiet",
    "-o=Acquire::Retries=1",
    "-o=Acquire::http::Timeout=15",
    "-o=Acquire::https::Timeout=15",
    "-o=DPkg::Lock::Timeout=60",
    "-o=Dpkg::Use-Pty=0",
)
_UPDATE_S, _INSTALL_S = 90, 300
_BY_HAND = "apt-get install chromium, or the like, and the tests in a browser run"


def install_chromium(run: str = "") -> str | None:
    """Install Debian's Chromium where none is found and that can work.

    Parameters
    ----------
    run
        A name for the run of the tests: its processes try once between them.

    Returns
    -------
    Why there is none, and what to do about it; None where there is one.
    """
    if find_chromium():
        return None
    refusal = why_not_install()
    if refusal:
        return f"Chromium is not installed ({refusal}): {_BY_HAND}"
    notes = Path(tempfile.gettempdir(), f"imgsortd-chromium-{os.getuid()}.lock")
    fd = os.open(notes, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # let go by the close
        if find_chromium():
            return None
        failed_in, _, why = os.pread(fd, 4096, 0).decode(errors="replace").partition("\n")
        if not run or failed_in != run:
            why = install_packages(*_PACKAGES)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{run}\n{why}".encode(), 0)
    finally:
        os.close(fd)
    if find_chromium():
        return None
    return f"Chromium is not installed, and installing it failed ({why}): {_BY_HAND}"


def why_not_install() -> str:
    """Say why Debian's packages cannot be installed here; nothing where they can."""
    if os.environ.get("IMGSORTD_NO_INSTALL"):
        return "IMGSORTD_NO_INSTALL is set"
    if os.getuid() != 0:
        return "only root can install it"
    return "" if shutil.which("apt-get") else "there is no apt-get"


def install_packages(*packages: str) -> str:
    """Install Debian's packages; return what went wrong."""
    # Lists that are a little old often do, and lists cannot always be fetched.
    install = partial(_apt, _INSTALL_S, "install", "--no-install-recommends", *packages)
    return install() and (update_lists() or install())


def update_lists() -> str:
    """Fetch the lists of Debian's packages; return what went wrong."""
    return _apt(_UPDATE_S, "update")


def _apt(limit_s: float, *words: str) -> str:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*_APT, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environ,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {words[0]} took longer than {limit_s:g} s"
    except OSError as error:
        return str(error)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("E:")), "")
    return (said or f"apt-get {words[0]} failed") if done.returncode else ""
