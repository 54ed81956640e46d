"""Fixtures for the adapters' tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def endless_folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder with 1,500 more, each in the one before: deeper than Python's stack."""
    root = tmp_path / "endless"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    yield root
    subprocess.run(["rm", "-rf", root], check=True)  # pytest's own clean-up would recurse
