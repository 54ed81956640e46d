"""The quick daemon without its imports: forked from a process that has made them.

Run as a script it reads one folder a line, runs ``imgsortd run`` on it in a forked child,
and answers with the child's pid, and with its wait status when it has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from select import select
from typing import IO

IN_PROCESS = "IMGSORTD_TEST_DECODES_IN_PROCESS"


class DaemonForks:
    """Starts one daemon at a time, in milliseconds. Use as a context manager."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        self._environ = {**os.environ, **(environ or {})}
        self.pid = 0

    def __enter__(self) -> DaemonForks:
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._environ,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            self.stop(signal.SIGKILL)
        self._pipe(self._server.stdin).close()
        self._server.wait(30)

    def start(self, folder: Path) -> None:
        """Start a daemon on the folder's configuration; it logs to ``daemon.log`` there."""
        assert not self.pid
        stdin = self._pipe(self._server.stdin)
        stdin.write(f"{folder}\n")
        stdin.flush()
        self.pid = int(self._pipe(self._server.stdout).readline())

    def send(self, number: int) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, number: int, timeout_s: float = 60) -> int:
        """Send a signal and return the exit status, negative for a signal's."""
        self.send(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 60) -> int:
        """Wait for the daemon's end and return its exit status."""
        stdout = self._pipe(self._server.stdout)
        ready, _, _ = select([stdout], [], [], timeout_s)
        assert ready, f"the daemon did not end within {timeout_s:g} s"
        status = int(stdout.readline())
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def _daemon(folder: str) -> None:
    from imgsortd.cli import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(os.path.join(folder, "daemon.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["imgsortd", "run", "-c", os.path.join(folder, "config.yaml")]
    main()


def _serve() -> None:
    for name in ("quick_imgsortd", "imgsortd.cli", "imgsortd.daemon"):  # the stand-ins first
        import_module(name)
    from sqlite_utils import Database

    from imgsortd.adapters import reading
    from killed_line import DecoderInProcess

    if os.environ.get(IN_PROCESS):
        reading.Decoder = DecoderInProcess
    Database(memory=True).close()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _daemon(line.rstrip("\n"))
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else int(bool(end.code)))
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(70)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    _serve()
