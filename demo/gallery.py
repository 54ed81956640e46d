"""Pictures of the page in a browser, small enough to be kept beside the source."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chromium import Look, Page
from PIL import Image
from workspace import Workspace

from imgsortd.errors import ImgsortdError

DESK = Look(1280, 800)
DARK = Look(1280, 800, scheme="dark")
PHONE = Look(390, 844, scale=1.5, is_phone=True)
MOST_BYTES = 400_000
_GAP_PX = 36
_BEHIND = (226, 223, 215)
_LOADED = """
[...document.images].every(image => {
  const b = image.getBoundingClientRect();
  return !image.src || b.top > innerHeight || b.bottom < 0 || image.naturalWidth > 0; })
"""


class Gallery:
    """Takes pictures of a page into a folder.

    Attributes
    ----------
    sizes
        Bytes of each picture that was taken, by name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sizes: dict[str, int] = {}

    def take(self, page: Page, name: str) -> None:
        """Take a picture of what is in the window."""
        self._save(name, _shot(page))

    def take_together(self, pages: Sequence[Page], name: str) -> None:
        """Take a picture of several pages, side by side."""
        shots = [_shot(page) for page in pages]
        width = sum(shot.width for shot in shots) + _GAP_PX * (len(shots) + 1)
        whole = Image.new("RGB", (width, shots[0].height + 2 * _GAP_PX), _BEHIND)
        left = _GAP_PX
        for shot in shots:
            whole.paste(shot, (left, _GAP_PX))
            left += shot.width + _GAP_PX
        self._save(name, whole)

    def _save(self, name: str, shot: Image.Image) -> None:
        data = _png(shot)
        colours = 256
        while len(data) > MOST_BYTES and colours >= 32:
            data = _png(shot.quantize(colours, dither=Image.Dither.FLOYDSTEINBERG))
            colours //= 2
        if len(data) > MOST_BYTES:
            raise ImgsortdError(f"{name}: {len(data):,} bytes, more than {MOST_BYTES:,}")
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(data)
        self.sizes[name] = len(data)


def _png(shot: Image.Image) -> bytes:
    file = io.BytesIO()
    shot.save(file, "PNG", optimize=True)
    return file.getvalue()


def _shot(page: Page) -> Image.Image:
    page.wait(_LOADED)
    page.run("document.fonts.ready")
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


@contextmanager
def served(workspace: Workspace, config: Path) -> Iterator[str]:
    """Run ``imgsortd web`` on a free port beside the block; yield its address.

    Raises
    ------
    ImgsortdError
        It does not come up; the text has what it said.
    """
    log = workspace.root / "web.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "imgsortd", "web", "-c", str(config), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline().decode().strip()
        if not said.startswith("open "):
            raise ImgsortdError(f"the page does not come up: {said}\n{log.read_text()}")
        yield said.removeprefix("open ").rstrip("/")
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
