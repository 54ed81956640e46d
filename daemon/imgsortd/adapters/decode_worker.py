"""The program that decodes: a process of its own, which can do nothing but that.

``python -P -m imgsortd.adapters.decode_worker SOCKET_FD PARENT_PID MEMORY_BYTES``

A picture is a stranger's, and the libraries that decode it are large. Should one crash,
hang, take all memory or be taken over, it is this process that does, and it holds
neither files nor network. :mod:`imgsortd.adapters.decoding` is the other end.
"""

from __future__ import annotations

import os
import socket
import sys
from io import BufferedRWPair
from pathlib import Path

from imgsortd.adapters import confinement
from imgsortd.adapters.decoding import REPLY, REQUEST, SIZES, Answer
from imgsortd.adapters.images import decode_sized, warm_up
from imgsortd.errors import IncompleteError, PictureError


def main() -> None:
    """Confine this process, then decode until the other end of the socket closes."""
    fd, parent_pid, memory_bytes = (int(argument) for argument in sys.argv[1:4])
    confinement.die_with(parent_pid)
    warm_up()
    confinement.limit_memory(memory_bytes)
    null = os.open(os.devnull, os.O_WRONLY)
    measures = confinement.confine(_python_folders())
    os.dup2(null, 2)  # from here on, only what libraries say of strangers' files
    with socket.socket(fileno=fd) as connection, connection.makefile("rwb") as stream:
        _send(stream, Answer.READY, ",".join(measures).encode())
        _serve(stream)


def _python_folders() -> set[Path]:
    """Return where modules may still be imported from while a picture is decoded."""
    return {Path(path) for path in (sys.prefix, sys.base_prefix, *sys.path) if path}


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


if __name__ == "__main__":
    main()
