"""What there is to know of memory: that there is none, and how to give it back when idle.

torch's libraries, CUDA's among them, are mapped whole; after start-up most of the
pages that were touched are never needed again. They are clean pages of files, so the
kernel may drop them: what is used again is mapped again from the page cache.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_MADV_PAGEOUT = 21
_NO_MEMORY = re.compile(
    "can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_alloc"
    "|could not create a memory|out_of_memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether that is what NumPy, torch or OpenVINO mean.

    torch has a type of its own for it only on a GPU; elsewhere both say it in a text.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


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
