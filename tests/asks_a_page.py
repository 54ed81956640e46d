"""Serve the page in a network of its own, without executable memory, and ask it something.

``asks_a_page.py CONFIG`` prints the status of a page's answer and of the stream of events;
its exit code is that of ``imgsortd web``.
"""

from __future__ import annotations

import ctypes
import fcntl
import signal
import socket
import struct
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

_SIOCSIFFLAGS, _UP = 0x8914, 1
_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1


def bring_loopback_up() -> None:
    """A new network's loopback is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))


def status_of(address: str) -> int:
    try:
        with urlopen(address, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


if __name__ == "__main__":
    bring_loopback_up()
    # Before Linux 6.3 there is no such call; the rest is tried all the same.
    ctypes.CDLL(None).prctl(_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0)
    web = subprocess.Popen(
        [sys.executable, "-m", "imgsortd", "web", "-c", sys.argv[1], "--port", "0"],
        stdout=subprocess.PIPE,
    )
    assert web.stdout is not None
    page = web.stdout.readline().decode().split()[-1]
    sys.stdout.write(f"{status_of(page + 'api/requests/1')} {status_of(page + 'api/events')}\n")
    web.send_signal(signal.SIGTERM)
    sys.exit(web.wait(60))
