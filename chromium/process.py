"""Chromium's process, and the pipe over which it is told what to do."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chromium.finding import find_chromium

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--remote-debugging-pipe",
)
# Where Chromium reads and writes; by way of two more, for the pipes may stand there themselves.
_AT_3_AND_4 = """
import os, sys
ends = [os.dup(os.dup(os.dup(int(fd)))) for fd in sys.argv[1:3]]
for fd, place in zip(ends, (3, 4)):
    os.dup2(fd, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
_ANSWER_S = 60.0

Event = Callable[[str, dict[str, Any]], None]


class BrowserError(Exception):
    """Chromium refused a command, or what was waited for did not come."""


class Browser:
    """A running Chromium: commands go in, answers and events come out, one by one."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.process = process
        self._commands, self._answers = commands, answers
        self._sent, self._rest = 0, b""
        self._waiting: list[dict[str, Any]] = []
        self._listeners: dict[str, Event] = {}

    def listen(self, session: str, event: Event) -> None:
        """Hand what happens in a session to ``event``."""
        self._listeners[session] = event

    def ask(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens in between is handed out.

        Raises
        ------
        BrowserError
            It was refused, or no answer came.
        """
        self._sent += 1
        number = self._sent
        message = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_S
        while True:
            answer = self._next(deadline - time.monotonic())
            if answer is None:
                raise BrowserError(f"no answer to {method} within {_ANSWER_S:g} s")
            if answer.get("id") != number:
                self._hand_out(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error'].get('message')}")
            else:
                return dict(answer["result"])

    def hear(self, timeout_s: float) -> None:
        """Take in what has happened, and wait so long for something to happen."""
        message = self._next(timeout_s)
        while message is not None:
            self._hand_out(message)
            message = self._next(0)

    def _hand_out(self, message: dict[str, Any]) -> None:
        event = self._listeners.get(message.get("sessionId", ""))
        if event and "method" in message:
            event(message["method"], message["params"])

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout_s
        while b"\0" not in self._rest:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], left_s)[0]:
                return None
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise BrowserError(f"Chromium has ended with {self.process.wait()}")
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium with a fresh profile in ``folder``; end it, and remove that, at the end.

    Raises
    ------
    BrowserError
        There is none on this machine.
    """
    program = find_chromium()
    if program is None:
        raise BrowserError("Chromium is not installed; apt-get install chromium, or the like")
    their_commands, our_commands = os.pipe()
    our_answers, their_answers = os.pipe()
    ends = (str(their_commands), str(their_answers))
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_3_AND_4, *ends, program, *_FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(their_commands, their_answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(their_commands)
    os.close(their_answers)
    try:
        yield Browser(process, our_commands, our_answers)
    finally:
        process.kill()
        process.wait()
        os.close(our_commands)
        os.close(our_answers)
        shutil.rmtree(folder, ignore_errors=True)
