"""What costs much to make and is only read, made once for all processes of a run."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """Return a folder that is for reading only, filled by the first process that asks for it.

    The others wait for it. One that was not filled to its end is not seen: then the next
    process makes it anew.

    Parameters
    ----------
    name
        Of the folder, among all that are made in a run.
    make
        Fills the empty folder that it is given.
    """
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent  # each worker has a folder of its own in that of the run
    folder, part = common / name, common / f"{name}.part"
    with open(common / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder
