"""A running world: an inbox with a daemon, the web page as a process of its own, and the books."""

from __future__ import annotations

import os
import signal
import subprocess
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

import warm
from imgsortd.store.database import Store, open_for_reading
from inboxes import Inbox
from support import sums, tree, wait_until

GROUPS: Mapping[str, tuple[int, int, int]] = {
    "red": (200, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 60, 200),
    "yellow": (200, 190, 40),
}
# Upright sizes: wide, tall, square, a panorama; a number's place says which one it has.
SIZES = ((192, 128), (120, 180), (160, 160), (288, 96), (180, 135))
_ORIENTATION = 0x0112
_TURNS = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}


def draw(
    path: Path, colour: tuple[int, int, int], number: int, orientation: int | None = None
) -> Path:
    """Paint a picture of one colour with bars of light and shade; each name gives other bytes.

    Parameters
    ----------
    number
        Chooses its size.
    orientation
        Written into the EXIF of a JPEG whose pixels lie as a camera held so leaves them.
    """
    width, height = SIZES[number % len(SIZES)]
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    bars = np.repeat(rng.integers(-30, 31, (height // 12 + 1, 6, 1)), 12, axis=0)[:height]
    shades = np.repeat(bars, -(-width // 6), axis=1)[:, :width]
    pixels = np.asarray(colour) * (1 + shades / 100) + rng.integers(-6, 7, (height, width, 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".jpg":
        image.save(path)
        return path
    exif = Image.Exif()
    if orientation is not None:
        exif[_ORIENTATION] = orientation
        image = image.transpose(_TURNS[orientation])
    image.save(path, quality=88, exif=exif)
    return path


class Website:
    """What a person has: pictures in an inbox, a daemon that sorts them, a page to look at.

    Attributes
    ----------
    inbox
        The daemon's folders, and what was ever dropped.
    base
        The address of the page, without a slash at its end.
    """

    def __init__(self, folder: Path, **changes: Any) -> None:
        # The first fit has its least number of pictures when it has all of them: no need to wait.
        clusters = {"n_clusters": len(GROUPS), "quiet_s": 0, **changes.pop("clusters", {})}
        self.folder = folder
        # No fit but those that are asked for.
        refit = {"growth": "off", "interval": "off", **changes.pop("refit", {})}
        self.inbox = Inbox(folder, clusters=clusters, refit=refit, **changes)
        self.config = self.inbox.config
        self.target = self.inbox.target
        self.base = ""
        self._dropped: list[str] = []
        self._web: tuple[warm.Process | subprocess.Popen[bytes], IO[bytes]] | None = None

    # --- processes -------------------------------------------------------------------------

    def serve(self, *options: str) -> str:
        """Start ``imgsortd web`` on a free port; return its address."""
        config = str(self.folder / "config.yaml")
        command = [warm.QUICK, "web", "-c", config, "--port", "0", *options]
        with open(self.folder / "web.log", "ab") as log:
            self._web = warm.start_to_read(command, log)
        said = self._web[1].readline().decode().strip()
        assert said.startswith("open http://"), said + self.web_log[-3000:]
        self.base = said.removeprefix("open ").rstrip("/")
        return self.base

    @property
    def web_log(self) -> str:
        """All that the web process has logged."""
        return (self.folder / "web.log").read_text(errors="replace")

    def stop(self) -> None:
        """End both processes."""
        if self._web is not None:
            process, stdout = self._web
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, self.web_log[-3000:]
            stdout.close()
            self._web = None
        if self.inbox.daemon.is_alive():
            self.inbox.daemon.stop()

    # --- pictures --------------------------------------------------------------------------

    def drop(self, group: str, count: int, colour: tuple[int, int, int] | None = None) -> None:
        """Drop pictures of a group, ``red-0.jpg``, ``red-1.png`` …, going on where it was."""
        first = len(self.names(group))
        for number in range(first, first + count):
            suffix = ".png" if number % 4 == 1 else ".jpg"
            orientation = {2: 6, 7: 3}.get(number % 10)
            made = self.folder / "made" / f"{group}-{number}{suffix}"
            draw(made, colour or GROUPS[group], number, orientation)
            self._dropped.append(made.name)
            self.inbox.bring(made, made.name)

    def drop_all(self, each: int) -> None:
        """Drop pictures of each group."""
        for group in GROUPS:
            self.drop(group, each)

    def drop_bytes(self, name: str, data: bytes) -> None:
        """Drop a file that may be no picture."""
        made = self.folder / "made" / name
        made.parent.mkdir(exist_ok=True)
        made.write_bytes(data)
        self.inbox.bring(made, name)

    def names(self, group: str) -> list[str]:
        """Return the names of what was dropped of a group."""
        return [name for name in self._dropped if name.rpartition("-")[0] == group]

    # --- books -----------------------------------------------------------------------------

    @contextmanager
    def store(self) -> Iterator[Store]:
        """Open the database to read."""
        store = open_for_reading(self.config.database)
        try:
            yield store
        finally:
            store.close()

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with self.store() as store:
            return list(store.connection.execute(query, values))

    def folder_of(self, group: str) -> str:
        """Return the one folder in which all pictures of a group are."""
        wanted = set(self.names(group))
        found = {name for name, files in tree(self.target).items() if wanted & set(files)}
        assert len(found) == 1, found
        return found.pop()

    def cluster_of(self, group: str) -> int:
        """Return the number of the cluster in which a group is."""
        name = os.fsencode(self.names(group)[0])
        [(number,)] = self.rows("SELECT cluster_id FROM files WHERE src = ?", name)
        return int(number)

    def files_in(self, folder: str) -> set[str]:
        """Return the names of the files in a folder of the target, now."""
        return {path.name for path in (self.target / folder).glob("*") if path.is_file()}

    def pins(self) -> list[tuple[Any, ...]]:
        """Return every pin."""
        return self.rows("SELECT sha256, cluster_id, pinned_at FROM pins ORDER BY sha256")

    def wait_sorted(self) -> None:
        """Wait until all that was dropped has its place."""
        self.inbox.wait_sorted()

    def wait_for(self, folder: str, *names: str) -> None:
        """Wait until files are in a folder of the target."""
        wait_until(lambda: set(names) <= self.files_in(folder), what=f"{names} in {folder}")

    def check_nothing_lost(self) -> None:
        """See that every byte that was ever dropped is in inbox or target, as often as it was."""
        wait_until(  # the daemon may move one while they are counted
            lambda: sums(self.target, self.config.inbox) == self.inbox.dropped,
            what="every byte that was dropped in inbox or target",
        )


@contextmanager
def running_website(
    folder: Path, each: int = 10, *options: str, **changes: Any
) -> Iterator[Website]:
    """Run a website over pictures that are sorted; nothing may be lost by the end."""
    # The first fit is to see every group.
    clusters = {"min_images": each * len(GROUPS) or 24, **changes.pop("clusters", {})}
    site = Website(folder, clusters=clusters, **changes)
    try:
        if each:
            site.drop_all(each)
        site.inbox.daemon.start()
        site.inbox.daemon.wait_ready()
        if each:
            site.wait_sorted()
        site.serve(*options)
        yield site
        site.check_nothing_lost()
    finally:
        site.stop()
