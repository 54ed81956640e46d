"""Give memory back to the system while nothing is to be done.

torch's libraries, CUDA's among them, are mapped whole; after start-up most of the
pages that were touched are never needed again. They are clean pages of files, so the
kernel may drop them: what is used again is mapped again from the page cache.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_MADV_PAGEOUT = 21


def give_back() -> None:
    """Return free heap and unused pages of libraries; a hint, so failures are ignored.

    Source: malloc_trim(3); madvise(2), MADV_PAGEOUT (Linux 5.4), on mappings that
    cannot be written: those need no swap.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    if not hasattr(libc, "madvise"):
        return
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        span, flags, _offset, _device, inode, *_ = line.split()
        if inode != "0" and "w" not in flags:
            start, end = (int(edge, 16) for edge in span.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_PAGEOUT)
