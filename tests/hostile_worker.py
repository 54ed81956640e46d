"""A decoding process in which some pictures do what the worst of real ones could."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable

from imgsortd.pictures import worker
from imgsortd.records import Pixels, SizePx


def eat() -> None:
    held = []
    while True:
        held.append(bytearray(64 << 20))


def hang() -> None:
    time.sleep(3600)


def crash() -> None:
    ctypes.string_at(0)


def kill_the_daemon() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


DEEDS: dict[bytes, Callable[[], None]] = {
    b"\x89PNG eats": eat,
    b"\x89PNG hangs": hang,
    b"\x89PNG crashes": crash,
    b"\x89PNG kills": kill_the_daemon,
}

if __name__ == "__main__":
    real_decode = worker.decode_sized

    def decode(data: bytes, side_px: int, *, max_megapixels: float) -> tuple[Pixels, SizePx]:
        DEEDS.get(data, lambda: None)()
        return real_decode(data, side_px, max_megapixels=max_megapixels)

    worker.decode_sized = decode
    worker.confine = lambda readable: []  # the deeds shall be possible
    worker.main()
