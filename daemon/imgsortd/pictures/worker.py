"""The program that decodes: a process of its own, which can do nothing but that.

``python -P -m imgsortd.pictures.worker SOCKET_FD PARENT_PID MEMORY_BYTES``

A picture is a stranger's, and the libraries that decode it are large. Should one crash,
hang, take all memory or be taken over, it is this process that does, and it holds
neither files nor network. What it does not need is taken from it for good by the kernel
(prctl(2), setrlimit(2), landlock(7)); an older one has fewer measures, and the other end,
:mod:`imgsortd.pictures.decoder`, is told which are in force.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import BufferedRWPair
from pathlib import Path

from imgsortd.errors import IncompleteError, PictureError
from imgsortd.pictures.decoder import REPLY, REQUEST, SIZES, Answer
from imgsortd.pictures.pixels import decode_sized, warm_up

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 1, 38, 65
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_VERSION, _LANDLOCK_PATH_BENEATH = 1, 1
# How many of the access rights below a folder each version of Landlock knows, from the first bit.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_NET_RIGHTS = 0b11  # bind and connect by TCP
_SCOPES = 0b11  # abstract sockets and signals of other processes
_OPEN_FILES = 64
_OOM_SCORE = b"500"

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Confine this process, then decode until the other end of the socket closes."""
    fd, parent_pid, memory_bytes = (int(argument) for argument in sys.argv[1:4])
    die_with(parent_pid)
    warm_up()
    limit_memory(memory_bytes)
    null = os.open(os.devnull, os.O_WRONLY)
    # Where modules may still be imported from while a picture is decoded.
    measures = confine({Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path})
    os.dup2(null, 2)  # from here on, only what libraries say of strangers' files
    with socket.socket(fileno=fd) as connection, connection.makefile("rwb") as stream:
        _send(stream, Answer.READY, ",".join(measures).encode())
        _serve(stream)


def _serve(stream: BufferedRWPair) -> None:
    while header := stream.read(REQUEST.size):
        size_bytes, max_megapixels, side_px = REQUEST.unpack(header)
        try:
            data = stream.read(size_bytes)
            pixels, size_px = decode_sized(data, side_px, max_megapixels=max_megapixels)
        except PictureError as error:
            kind = Answer.INCOMPLETE if isinstance(error, IncompleteError) else Answer.REFUSED
            _send(stream, kind, str(error).encode("utf-8", "backslashreplace"))
        except MemoryError:
            _send(stream, Answer.NO_MEMORY, b"")
            return  # whatever state the libraries are in now
        else:
            sizes = SIZES.pack(*pixels.shape[:2], *size_px)
            _send(stream, Answer.PIXELS, sizes + pixels.tobytes())


def _send(stream: BufferedRWPair, answer: Answer, payload: bytes) -> None:
    stream.write(REPLY.pack(answer.value, len(payload)) + payload)
    stream.flush()


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder_fd", ctypes.c_int32))


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before it could be tied to
        os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Let this process take so many bytes of memory more than it has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * mmap.PAGESIZE + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with suppress(OSError):  # should memory run out all the same, this process goes first
        Path("/proc/self/oom_score_adj").write_bytes(_OOM_SCORE)


def confine(readable: Iterable[Path]) -> list[str]:
    """Give up privileges, new files, the network, and all but reading; return what is in force."""
    done = ["rlimits"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no_new_privs")
        version = _wall_off(readable)
        done.extend([f"landlock-{version}"] if version else [])
    if _libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0) == 0:
        done.append("mdwe")
    return done


def _wall_off(readable: Iterable[Path]) -> int:
    """Restrict this process by Landlock; return its version, 0 where there is none."""
    version = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return 0
    rules = _Ruleset(
        (1 << _FILE_RIGHTS.get(version, max(_FILE_RIGHTS.values()))) - 1,
        _NET_RIGHTS if version >= 4 else 0,
        _SCOPES if version >= 6 else 0,
    )
    fd = _libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    if fd < 0:
        return 0
    for path in readable:
        _allow_reading(fd, path)
    restricted = _libc.syscall(_LANDLOCK_RESTRICT_SELF, fd, 0) == 0
    os.close(fd)
    return version if restricted else 0


def _allow_reading(ruleset_fd: int, path: Path) -> None:
    try:
        folder_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # an entry of sys.path that is a zip file, or is not there
    rule = _PathBeneath(_READ_FILE | _READ_DIR, folder_fd)
    _libc.syscall(_LANDLOCK_ADD_RULE, ruleset_fd, _LANDLOCK_PATH_BENEATH, ctypes.byref(rule), 0)
    os.close(folder_fd)


if __name__ == "__main__":
    main()
