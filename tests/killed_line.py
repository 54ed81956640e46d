"""The working line in processes that die: a fork server, so that a kill costs milliseconds.

Run as a script it reads one JSON order a line, does it in a forked child, and answers
with the child's wait status and what it reported. No torch is loaded, so that the
child is a copy of a process with one thread.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sqlite_utils import Database

from imgsortd.adapters import faults, renaming
from imgsortd.adapters.crossing import return_orphans
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store import open_store
from imgsortd.adapters.store_records import FitRecord
from imgsortd.config import Config, parse_config
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.intake import Intake
from imgsortd.library import Library, open_library
from imgsortd.pipeline import process_batch, recover
from support import BLUE, GREEN, RED, ColourExtractor, read_all


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

        ``without`` names what the filesystem is to lack: renameat2, links, tmpfile.
        Returns whether it was ``killed``, and else the fault points it ``passed``.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"folder": str(folder), "fault": fault, "without": without}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["killed"] or "passed" in answer, answer
        return answer


def fit_colours(library: Library) -> None:
    """Make three clusters, red 0, green 1 and blue 2, without a fit."""
    centers = np.array([RED, GREEN, BLUE], dtype=np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    record = FitRecord(FitTrigger.SORT, "KMeans", 3, 0, 0.0, None, 0.0)
    with library.store.atomic():
        library.model = library.store.fits.save(
            library.extractor.id, centers, [0, 1, 2], [1, 1, 1], record
        )


def sort_all(config: Config) -> None:
    """Do what the daemon does from its start until nothing is left to do."""
    store = open_store(config.database)
    library = open_library(config, store, ColourExtractor())
    if library.model is None:
        fit_colours(library)
    return_orphans(config.inbox, store.journal.unfinished())
    recover(library)
    inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
    intake = Intake(inbox, store, 0.0)
    reader = PictureReader(config.inbox, threads=1)
    for now_s in (0, 2):  # a file that changed is looked at again after a second
        intake.scan(now_s)
        intake.settle(now_s)
        candidates = list(intake.queue)
        intake.queue.clear()
        if not candidates:
            continue
        report = process_batch(library, read_all(reader, candidates))
        intake.done(report.settled, report.left, report.look_again, report.denied, now_s)
    reader.close()
    store.close()


class _NoRenameat2:
    """A C library from before 2014."""


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def _take_away(without: list[str]) -> None:
    if "renameat2" in without:
        renaming._libc = _NoRenameat2()
    if "links" in without:
        os.link = _no_links
    if "tmpfile" in without:
        os.O_TMPFILE = os.O_DIRECTORY  # opens to EISDIR, as where it is not supported


def _child(order: dict[str, Any], answer_fd: int) -> None:
    passed: Counter[str] = Counter()
    real = faults.fault_point.__code__

    label, _, count = order["fault"].partition(":")
    faults._LABEL, faults._remaining = label, int(count or 1)
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


def _serve() -> None:
    Database(memory=True).close()  # loads sqlite-utils' plugins once, not in every child
    for line in sys.stdin:
        order = json.loads(line)
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                _child(order, write_fd)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        os.close(write_fd)
        with open(read_fd, "rb") as pipe:
            passed = pipe.read()
        _, status = os.waitpid(pid, 0)
        answer: dict[str, Any] = {"killed": os.WIFSIGNALED(status), "status": status}
        if status == 0:
            answer["passed"] = json.loads(passed)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
