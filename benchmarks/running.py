"""The daemon as a process of its own, from its start to READY and to its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.prepare import keep_in
from benchmarks.processes import count_sorted, environ, wait_until

_START_TIMEOUT_S = 300.0
_BUSY = re.compile(r"batch routed images=(\d+) .*\bbusy=([\d.]+)")


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """``imgsortd run`` with its folders.

    ``ready_s`` is from just before its exec to the datagram READY=1, as systemd gets it.
    """

    pid: int
    config_file: Path
    inbox: Path
    target: Path
    ready_s: float
    log_file: Path

    def runs_on(self) -> str:
        """Return on what and how its model runs."""
        return str(self.status()["runs_on"])

    def wait_sorted(self, images: int, timeout_s: float = 600) -> None:
        """Wait until so many files stand in cluster folders."""
        if not wait_until(lambda: count_sorted(self.target) >= images, timeout_s, 0.1):
            raise SystemExit(
                f"expected {images} sorted pictures within {timeout_s:g} s, got "
                f"{count_sorted(self.target)}\n{self.log_file.read_text()}"
            )

    def status(self) -> dict[str, Any]:
        """Return what ``imgsortd status --json`` says."""
        return read_status(self.config_file)

    def log_size(self) -> int:
        """Return the length of the log so far, in bytes."""
        return self.log_file.stat().st_size

    def logged_busy(self, since: int) -> float | None:
        """Return the model's busy share by the lines of batches logged since, if they tell it."""
        return busy_share(self.log_file.read_bytes()[since:].decode(errors="replace"))


def busy_share(log: str) -> float | None:
    """Average ``busy=`` over the log lines of batches, weighted by images; None without any."""
    found = [(int(images), float(busy)) for images, busy in _BUSY.findall(log)]
    images = sum(count for count, _ in found)
    return sum(count * busy for count, busy in found) / images if images else None


def read_status(config_file: Path) -> dict[str, Any]:
    """Run ``imgsortd status --json``."""
    command = [sys.executable, "-m", "imgsortd", "status", "-c", str(config_file), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ(), check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def write_config(folder: Path, **settings: Any) -> Path:
    """Make inbox, target and a configuration in ``folder``, with ``settings`` over the defaults."""
    folder = folder.resolve()  # a relative path in the file would be relative to the file
    places = {"inbox": folder / "inbox", "target": folder / "sorted", "state_dir": folder / "state"}
    for path in places.values():
        path.mkdir(parents=True, exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({key: str(path) for key, path in places.items()} | settings))
    return file


@contextmanager
def daemon(folder: Path, **settings: Any) -> Iterator[RunningDaemon]:
    """Run a real daemon in ``folder``, with ``settings`` over the defaults.

    It finds what its first start would have left: the calibration, and a checked int8 model.
    """
    config_file, log_file = write_config(folder, **settings), folder / "daemon.log"
    keep_in(folder / "state")
    command = [sys.executable, "-m", "imgsortd", "run", "-c", str(config_file)]
    with _listener() as (address, ear), open(log_file, "wb") as log:
        environment = {**environ(), "NOTIFY_SOCKET": address}
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            ready_s = _wait_ready(process, ear, log_file) - started
            # Nobody reads on: a full socket would make the daemon wait, a closed one does not.
            ear.close()
            inbox, target = folder / "inbox", folder / "sorted"
            yield RunningDaemon(process.pid, config_file, inbox, target, ready_s, log_file)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


@contextmanager
def _listener() -> Iterator[tuple[str, socket.socket]]:
    """Listen as systemd does; the path is short, because a socket's may have 107 bytes."""
    with (
        tempfile.TemporaryDirectory(prefix="imgsortd-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear,
    ):
        address = f"{folder}/notify"
        ear.bind(address)
        ear.settimeout(0.2)
        yield address, ear


def _wait_ready(process: subprocess.Popen[bytes], ear: socket.socket, log_file: Path) -> float:
    """Return the time of the datagram READY=1."""
    deadline = time.perf_counter() + _START_TIMEOUT_S
    while process.poll() is None and time.perf_counter() < deadline:
        try:
            message = ear.recv(4096)
        except TimeoutError:
            continue
        if b"READY=1" in message.splitlines():
            return time.perf_counter()
    raise SystemExit(f"the daemon did not become ready\n{log_file.read_text()}")
