"""How many CPUs this process may use, and threads that keep to it.

A container with one CPU on a machine of 64 sees all 64: a thread for each would only
make them wait for one another, and be stopped together when the quota is used up.

What there is to know of memory: that there is none, and how to give it back when idle.

torch's libraries, CUDA's among them, are mapped whole; after start-up most of the
pages that were touched are never needed again. They are clean pages of files, so the
kernel may drop them: what is used again is mapped again from the page cache.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")

_MADV_PAGEOUT = 21
_NO_MEMORY = re.compile(
    "can't allocate memory|cannot allocate memory|not enough memory|out of memory|bad_alloc"
    "|could not create a memory|out_of_memory",
    re.IGNORECASE,
)


def usable_cpus(
    *, affinity: int | None = None, membership: Path = _MEMBERSHIP, mount: Path = _MOUNT
) -> int:
    """Count the CPUs that this process may use at once, at least 1.

    Parameters
    ----------
    affinity
        CPUs that the scheduler may put this process on (taskset, cpusets, systemd's
        ``AllowedCPUs=``); asked for where None.
    membership
        File that says to which cgroups the process belongs.
    mount
        Folder below which the cgroups are.

    Returns
    -------
    int
        The affinity, or a cgroup's CPU time where that is tighter (``docker --cpus``,
        Kubernetes' limits, systemd's ``CPUQuota=``), rounded up: 150 % are 2 CPUs.

    Notes
    -----
    What cannot be read, or reads oddly, is no limit. Source: cgroups(7); the kernel's
    documentation of cgroup v2 (``cpu.max``) and of ``sched-bwc`` (v1's quota and period).
    """
    allowed = affinity or len(os.sched_getaffinity(0))
    return max(1, min([allowed, *_limits(membership, mount)]))


def limit_threads(cpus: int) -> None:
    """Let torch, OpenMP and BLAS compute with ``cpus`` threads at most.

    To be called by the thread that computes, as OpenMP counts for each thread by itself.
    Pools that are smaller already stay so, whether by ``OMP_NUM_THREADS`` or by an
    earlier call. Libraries that are loaded later read ``OMP_NUM_THREADS``, which is set
    where nobody has set it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus))
    # Not above: importing torch takes seconds, which only those who compute shall wait.
    import torch
    from threadpoolctl import ThreadpoolController

    if torch.get_num_threads() > cpus:
        torch.set_num_threads(cpus)
    for library in ThreadpoolController().lib_controllers:
        if (library.num_threads or 1) > cpus:
            library.set_num_threads(cpus)


def _limits(membership: Path, mount: Path) -> Iterator[int]:
    """Yield what each cgroup around the process allows, in whole CPUs."""
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # v2; beside v1 it is mounted one folder deeper
            roots = {mount, mount / "unified"}
        elif "cpu" in controllers.split(","):
            roots = {mount / controllers, mount / "cpu"}
        else:
            continue
        for root in roots:
            yield from _limits_below(root, path)


def _limits_below(root: Path, path: str) -> Iterator[int]:
    # A container may see its own cgroup as the root and yet be told the host's path: then
    # the folders of that path are not there, and the root is what counts.
    names = [name for name in path.split("/") if name]
    for depth in range(len(names) + 1):
        folder = root.joinpath(*names[:depth])
        v1 = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        try:
            quota_us, period_us = map(int, (_text(folder / "cpu.max") or v1).split())
        except ValueError:  # "max", no such file, or odd text
            continue
        if quota_us > 0 and period_us > 0:  # v1 says -1 for no limit
            yield -(-quota_us // period_us)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""


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
