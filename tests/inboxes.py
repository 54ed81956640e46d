"""An inbox with a daemon: what is dropped into it is counted, byte for byte."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Any

import warm
from imgsortd.config.model import Config
from imgsortd.inbox.watching import SENTINEL
from imgsortd.reports.status import StatusReport, read_status
from support import DaemonProcess, each_file_below, make_config, paint_groups, sums, wait_until

QUICK = (warm.QUICK,)


class Inbox:
    """A daemon's folders, and what was ever dropped into them."""

    def __init__(self, folder: Path, program: tuple[str, ...] = QUICK, **changes: Any) -> None:
        self.config: Config = make_config(folder, **{"settle_s": 0.1, **changes})
        self.folder, self.inbox, self.target = folder, self.config.inbox, self.config.target
        self.daemon = DaemonProcess(folder, program=program)
        self.dropped: dict[str, int] = {}
        self._seed = 0

    def drop(self, each: int = 1, to: str = ".") -> None:
        """Write new pictures of three colours into the inbox, each by a rename."""
        made = self.folder / "made"
        self._seed += 10_000
        for path in paint_groups(made, each, seed=self._seed):
            self.bring(path, f"{to}/{self._seed}-{path.name}")

    def bring(self, path: Path, name: str) -> Path:
        """Move a file into the inbox and count its bytes as dropped."""
        for content, count in sums_of(path).items():
            self.dropped[content] = self.dropped.get(content, 0) + count
        end = self.inbox / name
        end.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.rename(end)
        except OSError as error:  # another filesystem: written beside, as rsync does
            if error.errno != errno.EXDEV:
                raise
            part = shutil.move(path, end.with_name(f".{end.name}.part"))
            return Path(part).rename(end)

    def status(self) -> StatusReport:
        return read_status(self.config)

    def wait_sorted(self, timeout_s: float = 60) -> None:
        """Wait until everything dropped has its place and the books are closed."""
        wait_until(lambda: self._is_empty() and self._is_done(), timeout_s, "all sorted")

    def _is_empty(self) -> bool:
        return all(path.name.startswith(SENTINEL) for path in each_file_below(self.inbox))

    def _is_done(self) -> bool:
        counts = self.status().counts
        return counts["seen"] == sum(self.dropped.values()) and counts["pending"] == 0

    def check(self) -> None:
        """See that every content dropped is in target exactly as often, and counted so."""
        counts = self.status().counts
        assert sums(self.target) == self.dropped
        assert self._is_empty()
        assert counts["seen"] == sum(self.dropped.values())
        assert counts["seen"] == sum(count for state, count in counts.items() if state != "seen")


def sums_of(path: Path) -> dict[str, int]:
    if path.is_dir():
        return sums(path)
    folder = path.parent / "one"
    folder.mkdir()
    shutil.copy(path, folder)
    found = sums(folder)
    shutil.rmtree(folder)
    return found


def quick_cli(command: str, one: Inbox, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process without VGG16, which it may need or not."""
    config = str(one.folder / "config.yaml")
    words = [*QUICK, command, "-c", config, *options]
    return warm.run(words, {"COLUMNS": "120"}, timeout_s=60)
