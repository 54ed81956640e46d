"""The working line in processes that die: a fork server, so that a kill costs milliseconds.

Run as a script it reads one JSON order a line, does it in a forked child, and answers
with the child's wait status and what it reported. No torch is loaded, so that the
child is a copy of a process with one thread.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from sqlite_utils import Database

from imgsortd.config import parse_config
from imgsortd.config.model import Config
from imgsortd.library import open_library
from imgsortd.pictures import reading
from imgsortd.pictures.decoder import DecodeLimits
from imgsortd.pictures.pixels import decode_sized
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.following import Following
from imgsortd.records import FitTrigger, Model, Pixels, SizePx
from imgsortd.store import database
from imgsortd.store.database import Store, open_for_writing
from imgsortd.store.fits import FitRecord
from imgsortd.system import faults, filesystem
from support import (
    BLUE,
    GREEN,
    RED,
    ColourExtractor,
    intake_of,
    process_batch,
    read_all,
    roots_of,
)


class KillServer:
    """Does orders in processes that may die at a fault point.

    Use as a context manager.
    """

    def __enter__(self) -> KillServer:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def run(self, folder: Path, fault: str = "", without: tuple[str, ...] = ()) -> dict[str, Any]:
        """Sort the folder's inbox to the end, or to the fault point ``label:n``.

        ``without`` names what the filesystem is to lack: renameat2, links, tmpfile, and
        what it does not do: fsync, and to tell upper from lower ``case``. Returns whether
        it was ``killed``, and else the fault points it ``passed``.
        """
        answer = self._order(folder=str(folder), fault=fault, without=without)
        assert answer["killed"] or "passed" in answer, answer
        return answer

    def run_traced(self, folder: Path, *strace: str) -> dict[str, Any]:
        """Sort with strace's options in force; its output goes to ``folder/strace``.

        What was injected may have ended the process in any way: see ``status``. Where
        processes may not be traced, the answer has the reason as ``refused``.
        """
        return self._order(folder=str(folder), fault="", without=(), strace=strace)

    @contextmanager
    def stopped(
        self,
        folder: Path,
        fault: str = "",
        without: tuple[str, ...] = (),
        strace: tuple[str, ...] = (),
    ) -> Iterator[None]:
        """Sort up to a fault point, or strace's SIGSTOP, stop while the block runs, and die."""
        order: dict[str, object] = {"folder": str(folder), "fault": fault, "without": without}
        if strace:
            order["strace"] = strace
        answer = self._order(**order, stop=True)
        there = [(str(path), path.lstat()) for path in sorted(folder.rglob("*"))]
        assert "stopped" in answer, (fault, answer, there)
        try:
            yield
        finally:
            os.kill(answer["stopped"], signal.SIGKILL)
            self._read()

    def _order(self, **order: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def fit_colours(store: Store) -> Model:
    """Make three clusters, red 0, green 1 and blue 2, without a fit."""
    centers = np.array([RED, GREEN, BLUE], dtype=np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    record = FitRecord(FitTrigger.SORT, "KMeans", 3, 0, 0.0, None, 0.0)
    with store.atomic():
        return store.fits.save(ColourExtractor().id, centers, [0, 1, 2], [1, 1, 1], record)


def sort_all(config: Config) -> None:
    """Do what the daemon does from its start until nothing is left to do."""
    store = open_for_writing(config.database)
    if store.fits.current() is None:
        fit_colours(store)
    library = open_library(config, store, ColourExtractor(), roots_of(config, store))
    library.moves.recover()
    intake = intake_of(library, settle_s=0.0)
    reader = PictureReader(config.inbox, threads=1)
    following = Following(
        store, library.companions, library.moves, reader, intake.tracker.__contains__
    )
    for now_s in (0, 2):  # a file that changed is looked at again after a second
        intake.scan(now_s)
        intake.settle(now_s)
        candidates = list(intake.queue)
        intake.queue.clear()
        reports = [process_batch(library, read_all(reader, candidates))] if candidates else []
        for report in (*reports, *following.run()):
            intake.learn(report, now_s)
    reader.close()
    store.close()


class DecoderInProcess:
    """Decodes where it is asked to: another process costs more than all the rest of a life."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def decode_sized(self, data: bytes) -> tuple[Pixels, SizePx]:
        return decode_sized(data, max_megapixels=self._limits.max_megapixels)

    def close(self) -> None:
        pass


class _NoRenameat2:
    """A C library from before 2014."""


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _no_fsync(fd: int) -> None:
    """Say that it is done, as a disk does that lies."""


def _be_case_blind() -> None:
    """Let the calls that give names refuse one that differs in case alone from another."""
    rename, link = filesystem.rename_noreplace, os.link

    def refuse(dst: bytes | str, folder_fd: int) -> None:
        name = os.fsdecode(dst).lower()
        if any(there.lower() == name for there in os.listdir(folder_fd)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def blind_rename(src_fd: int, src: bytes, dst_fd: int, dst: bytes) -> bool:
        refuse(dst, dst_fd)
        return rename(src_fd, src, dst_fd, dst)

    def blind_link(src: bytes, dst: bytes, *, dst_dir_fd: int, **named: Any) -> None:
        refuse(dst, dst_dir_fd)
        link(src, dst, dst_dir_fd=dst_dir_fd, **named)

    filesystem.rename_noreplace = blind_rename
    os.link = blind_link  # type: ignore[assignment]


def _take_away(without: list[str]) -> None:
    if "renameat2" in without:
        filesystem._libc = _NoRenameat2()
    if "links" in without:
        os.link = _no_links
    if "case" in without:
        _be_case_blind()
    if "tmpfile" in without:
        os.O_TMPFILE = os.O_DIRECTORY  # opens to EISDIR, as where it is not supported
    if "fsync" in without:
        os.fsync = _no_fsync
        database._set_durability = lambda connection: connection.execute("PRAGMA synchronous=OFF")


def _child(order: dict[str, Any], answer_fd: int) -> None:
    passed: Counter[str] = Counter()
    real = faults.fault_point.__code__

    label, _, count = order["fault"].partition(":")
    faults._LABEL, faults._remaining = label, int(count or 1)
    if order.get("stop"):
        faults.signal = SimpleNamespace(SIGKILL=signal.SIGSTOP)
    _take_away(order["without"])
    if not label:
        counting = _counting(passed)
        for module in list(sys.modules.values()):
            if getattr(getattr(module, "fault_point", None), "__code__", None) is real:
                module.fault_point = counting
    file = Path(order["folder"]) / "config.yaml"
    sort_all(parse_config(yaml.safe_load(file.read_text()), file))
    os.write(answer_fd, json.dumps(passed).encode())


def _counting(passed: Counter[str]) -> Any:
    def fault_point(label: str) -> None:
        passed[label] += 1

    return fault_point


def _trace(pid: int, order: dict[str, Any]) -> tuple[subprocess.Popen[bytes], str]:
    """Attach strace to a child that waits; return it, and why it could not, if so."""
    output = str(Path(order["folder"]) / "strace")
    strace = subprocess.Popen(
        ["strace", "-qq", "-o", output, "-p", str(pid), *order["strace"]], stderr=subprocess.PIPE
    )
    while strace.poll() is None:
        if "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text():
            return strace, ""
    assert strace.stderr is not None
    return strace, strace.stderr.read().decode()


def _do(order: dict[str, Any]) -> dict[str, Any]:
    """Do one order in a child and say what became of it."""
    go_read, go_write = os.pipe()
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go_write)
            os.read(go_read, 1)
            _child(order, write_fd)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    os.close(write_fd)
    os.close(go_read)
    strace, refused = _trace(pid, order) if "strace" in order else (None, "")
    if refused:
        os.kill(pid, signal.SIGKILL)
    os.close(go_write)
    answer = _await(pid, read_fd)
    if strace is not None:
        strace.wait()
    return {"refused": refused} if refused else answer


def _await(pid: int, read_fd: int) -> dict[str, Any]:
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        print(json.dumps({"stopped": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
    answer: dict[str, Any] = {"killed": os.WIFSIGNALED(status), "status": status}
    with open(read_fd, "rb") as pipe:
        passed = pipe.read()
    if status == 0:
        answer["passed"] = json.loads(passed)
    return answer


def _serve() -> None:
    reading.Decoder = DecoderInProcess
    Database(memory=True).close()  # loads sqlite-utils' plugins once, not in every child
    for line in sys.stdin:
        print(json.dumps(_do(json.loads(line))), flush=True)


if __name__ == "__main__":
    _serve()
