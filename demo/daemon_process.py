"""The real daemon as a process of its own, stopped for certain."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workspace import Workspace

from imgsortd.errors import ImgsortdError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READY_S = 120.0
_STOP_S = 60.0


def listen() -> None:
    """Let SIGTERM and a closed terminal stop the demo as Ctrl-C does: through ``finally``."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keep Ctrl-C and its like out of a block; they count when it has ended."""
    heard: list[int] = []
    previous = {
        number: signal.signal(number, lambda which, _frame: heard.append(which))
        for number in STOP_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


@contextmanager
def running_daemon(workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``imgsortd run`` beside the block; whatever ends the block also stops the daemon.

    Raises
    ------
    ImgsortdError
        It does not come up; the text has the end of its log.
    """
    process = None
    try:
        with signals_held_back():  # between fork and the next line nobody would know the pid
            process = _start(workspace)
        _wait_ready(workspace, process)
        yield process
    finally:
        if process is not None:
            with signals_held_back():
                _stop(process)


def _start(workspace: Workspace) -> subprocess.Popen[bytes]:
    with workspace.log_file.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "imgsortd", "run", "-c", str(workspace.config_file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the terminal's Ctrl-C is for the demo, which stops it
        )


def _wait_ready(workspace: Workspace, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while b"daemon ready" not in workspace.log_file.read_bytes():
        check_alive(workspace, process)
        if time.monotonic() > deadline:
            raise ImgsortdError(
                f"the daemon was not ready within {_READY_S:g} s; the end of its log:\n"
                f"{workspace.log_tail()}"
            )
        time.sleep(0.05)


def check_alive(workspace: Workspace, process: subprocess.Popen[bytes]) -> None:
    """Raise ImgsortdError, with the end of its log, where the daemon has ended by itself."""
    code = process.poll()
    if code is not None:
        raise ImgsortdError(
            f"the daemon ended with exit code {code}; the end of its log:\n{workspace.log_tail()}"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end its batch and go; kill it where it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_command(workspace: Workspace, command: str, *, shown: bool) -> None:
    """Run a command of imgsortd on the demo's configuration, as a person would.

    Raises
    ------
    ImgsortdError
        It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "imgsortd", command, "-c", str(workspace.config_file)],
        capture_output=not shown,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or "").strip()
        raise ImgsortdError(f"imgsortd {command} failed with exit code {done.returncode}: {said}")
