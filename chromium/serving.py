"""``imgsortd web`` as a process beside whoever drives a browser at it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from chromium.process import BrowserError


@contextmanager
def served(
    config_file: Path, log_file: Path, environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run it on a free port beside the block; yield its address.

    Raises
    ------
    BrowserError
        It does not come up; the text has what it said.
    """
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "imgsortd", "web", "-c", str(config_file), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environ,
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        said = process.stdout.readline().decode().strip()
        if not said.startswith("open "):
            raise BrowserError(f"the page does not come up: {said}\n{log_file.read_text()}")
        yield said.removeprefix("open ").rstrip("/")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
