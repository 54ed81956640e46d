"""``imgsortd`` in processes that start in milliseconds: forked from a warm parent.

A parent is a process that has made a program's imports. Asked over a socket, it forks a
child that goes on as the program would after its imports: with the arguments, environment,
working folder and standard streams that it is given, and to the interpreter's own end.

Run as a script, this is a parent: ``warm.py KIND SOCKET_FD``.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from imgsortd.pictures import decoder, pixels, worker
from imgsortd.system import faults

QUICK = str(Path(__file__).with_name("quick_imgsortd.py"))
WRAPPED = str(Path(__file__).with_name("wrapped_imgsortd.py"))
IN_PROCESS = "IMGSORTD_TEST_DECODES_IN_PROCESS"
"""Set for a quick daemon, it has no decoding process: a life costs milliseconds."""

# A program, by the first of Python's arguments: the kind of parent that has its imports. What
# else Python is to run is started as ever.
_CALL = "call"
_KINDS = {"-m": "real", QUICK: "quick", WRAPPED: "quick", _CALL: "quick"}
# Commands that load neither model nor scikit-learn: with or without stand-ins, they are the same.
_LIGHT = {"init", "check-config", "status", "undo", "rename", "pins", "unpin", "refits", "web"}
_COMMANDS = ("imgsortd.cli.app", "imgsortd.daemon.process", "imgsortd.sort", "imgsortd.web.app")
_IMPORTS = {
    "quick": ("quick_imgsortd", *_COMMANDS),  # the stand-ins first
    "real": ("torchvision.models", "sklearn.cluster", "safetensors.torch", *_COMMANDS),
}
_DECODER, _DECODERS_PROGRAM = "decoder", decoder.PROGRAM
_PID = struct.Struct("<i")


class Process:
    """A forked program; of `subprocess.Popen` what tests need."""

    def __init__(self, answers: socket.socket, command: Sequence[str]) -> None:
        self._answers, self._command = answers, command
        (self.pid,) = _PID.unpack(self._answer())
        self.returncode: int | None = None

    def _answer(self) -> bytes:
        answer = self._answers.recv(_PID.size)
        if not answer:
            raise ChildProcessError(f"the parent of {self._command} is gone")
        return answer

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal's, or None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status.

        Raises
        ------
        subprocess.TimeoutExpired
            It still runs.
        """
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        return status

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            ready, _, _ = select.select([self._answers], [], [], timeout_s)
            if ready:
                (status,) = _PID.unpack(self._answer())
                self.returncode = os.waitstatus_to_exitcode(status)
                self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Parent:
    """The end of a socket on which children are asked for."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._in_use = line, Lock()

    def start(
        self,
        arguments: Sequence[str],
        streams: Sequence[int],
        environ: Mapping[str, str],
        socket_fd: int | None = None,
    ) -> Process:
        """Fork a child.

        Parameters
        ----------
        streams
            File descriptors of its standard input, output and error.
        socket_fd
            One more descriptor for it: a decoder's socket.
        """
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = {"arguments": list(arguments), "cwd": os.getcwd(), "environ": dict(environ)}
        fds = [theirs.fileno(), *streams, *([] if socket_fd is None else [socket_fd])]
        with theirs, self._in_use:
            socket.send_fds(self._line, [json.dumps(order).encode()], fds)
        return Process(answers, arguments)


@cache
def _parent(kind: str) -> Parent:
    """Start a parent, once in this process; it ends with it."""
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # What a program reads at its import must not be what some test has set.
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("IMGSORTD") and name not in ("COLUMNS", "LINES")
    }
    with theirs:
        subprocess.Popen(
            [sys.executable, __file__, kind, str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environ,
        )
    return Parent(line)


def start(
    arguments: Sequence[str],
    stdout: IO[Any],
    stderr: IO[Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Process | subprocess.Popen[bytes]:
    """Start Python with these arguments.

    Parameters
    ----------
    arguments
        What would follow ``python``: ``-m imgsortd``, one of the stand-ins, or any other.
    stdout, stderr
        Where its output and its errors go; without the second, both go to the first.
    environ
        Added to this process's environment.
    """
    if arguments[0] not in _KINDS:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr or stdout,
            env={**os.environ, **(environ or {})},
        )
    with open(os.devnull) as null:
        streams = (null.fileno(), stdout.fileno(), (stderr or stdout).fileno())
        return _start(arguments, streams, environ)


def start_to_read(
    arguments: Sequence[str], stderr: IO[Any], environ: Mapping[str, str] | None = None
) -> tuple[Process | subprocess.Popen[bytes], IO[bytes]]:
    """Start Python with these arguments, and return a pipe with its output, too."""
    reading, writing = os.pipe()
    with open(writing, "wb") as stdout:
        return start(arguments, stdout, stderr, environ), open(reading, "rb")


def _start(
    arguments: Sequence[str], streams: Sequence[int], environ: Mapping[str, str] | None
) -> Process:
    is_light = arguments[0] == "-m" and arguments[2] in _LIGHT
    parent = _parent("quick" if is_light else _KINDS[arguments[0]])
    return parent.start(arguments, streams, {**os.environ, **(environ or {})})


def run(
    arguments: Sequence[str], environ: Mapping[str, str] | None = None, timeout_s: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments to its end, as `subprocess.run` does.

    Raises
    ------
    subprocess.TimeoutExpired
        It took longer, and was killed.
    """
    with (
        open(os.devnull) as null,
        open(os.memfd_create("stdout"), "r+b") as out,
        open(os.memfd_create("stderr"), "r+b") as err,
    ):
        process = _start(arguments, (null.fileno(), out.fileno(), err.fileno()), environ)
        try:
            process.wait(timeout_s)
        finally:
            process.kill()
        said = [_read(file) for file in (out, err)]
    return subprocess.CompletedProcess(list(arguments), process.wait(), *said)


def call(
    function: Callable[..., object], *arguments: object, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in a process with the stand-ins, where it may die."""
    words = base64.b64encode(pickle.dumps((function, arguments))).decode()
    return run([_CALL, words], environ, timeout_s=60)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def forking_decoders(parent: Parent | None = None) -> SimpleNamespace:
    """Return what `pictures.decoder` takes for ``subprocess``, to have its processes forked.

    They are confined as those that are started. Another program than the usual one is
    started as ever.

    Parameters
    ----------
    parent
        Who is asked; by default the quick one of this process.
    """

    def fork(
        command: Sequence[str], *, pass_fds: tuple[int], env: Mapping[str, str], **how: Any
    ) -> Process | subprocess.Popen[bytes]:
        if tuple(command[1:-3]) != _DECODERS_PROGRAM:
            return subprocess.Popen(command, pass_fds=pass_fds, env=env, **how)
        with open(os.devnull, "r+") as null:
            streams = (null.fileno(), null.fileno(), 2)
            asked = parent or _parent("quick")
            return asked.start([_DECODER, command[-1]], streams, env, pass_fds[0])

    return SimpleNamespace(
        Popen=fork, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )


# --- the parent's side ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to be.

    Attributes
    ----------
    fds
        Its standard streams, and what else it was given.
    line
        A socket on which it may ask for children, as its parent's starter does.
    """

    arguments: list[str]
    cwd: str
    environ: dict[str, str]
    fds: list[int]
    line: socket.socket


def _serve(control: socket.socket) -> Order:
    """Fork a child for each order; return in the child, with its order."""
    poll = select.poll()
    askers, alive = {control.fileno(): control}, dict[int, tuple[int, socket.socket]]()
    poll.register(control, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd in alive:
                poll.unregister(fd)
                os.close(fd)
                pid, answers = alive.pop(fd)
                with answers, suppress(ConnectionError):  # nobody waits for it any more
                    answers.send(_PID.pack(os.waitpid(pid, 0)[1]))
                continue
            words, fds, _, _ = socket.recv_fds(askers[fd], 1 << 20, 5)
            if not words:
                if fd == control.fileno():
                    _end(pid for pid, _ in alive.values())
                poll.unregister(fd)
                askers.pop(fd).close()
                continue
            ours, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
            if pid == 0:
                for each in (ours, *askers.values(), *(sibling for _, sibling in alive.values())):
                    each.close()
                for each_fd in (fds[0], *alive):
                    os.close(each_fd)
                return Order(**json.loads(words), fds=fds[1:], line=line)
            line.close()
            for each_fd in fds[1:]:
                os.close(each_fd)
            answers = socket.socket(fileno=fds[0])
            with suppress(ConnectionError):
                answers.send(_PID.pack(pid))
            pidfd = os.pidfd_open(pid)
            alive[pidfd], askers[ours.fileno()] = (pid, answers), ours
            poll.register(pidfd, select.POLLIN)
            poll.register(ours, select.POLLIN)


def _end(pids: Iterator[int]) -> NoReturn:
    """Take the children along: whoever started them has ended."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def _become(order: Order) -> None:
    """Take what an order gives, as a program finds it at its start."""
    for number, fd in enumerate(order.fds[:3]):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(order.cwd)
    os.environ.clear()
    os.environ.update(order.environ)
    label, _, count = order.environ.get("IMGSORTD_FAULT_POINT", "").partition(":")
    faults._LABEL, faults._remaining = label, int(count or 1)


def _decode(order: Order) -> NoReturn:
    """Be a decoding process; the parent is the one to die with, not who asked."""
    os.setsid()
    memory_bytes = order.arguments[-1]
    sys.argv = [_DECODER, str(order.fds[3]), str(os.getppid()), memory_bytes]
    worker.main()
    sys.exit()


def _run(order: Order) -> NoReturn:
    """Go on as Python would with these arguments."""
    program, *arguments = order.arguments
    if program == "-m":
        arguments.pop(0)
    else:
        import quick_imgsortd

        quick_imgsortd.obey(order.environ)
        decoder.subprocess = forking_decoders(Parent(order.line))  # type: ignore[assignment]
        if program == WRAPPED:
            import wrapped_imgsortd

            sys.argv = [program, *arguments]
            wrapped_imgsortd.change_world()
            arguments = sys.argv[1:]
        if program == _CALL:
            function, called_with = pickle.loads(base64.b64decode(arguments[0]))
            function(*called_with)
            sys.exit()
    sys.argv = ["imgsortd", *arguments]
    import_module("imgsortd.__main__").main()


def _main() -> None:
    kind, fd = sys.argv[1], int(sys.argv[2])
    for name in _IMPORTS[kind]:
        import_module(name)
    assert kind == "real" or "torch" not in sys.modules, "quick no more"
    pixels.warm_up()
    gc.collect()
    gc.freeze()  # else each child would copy every page that the collector looks at
    order = _serve(socket.socket(fileno=fd))
    _become(order)
    if order.arguments[0] == _DECODER:
        _decode(order)
    _run(order)


if __name__ == "__main__":
    _main()
