"""Pictures of the page in a browser, small enough to be kept beside the source."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from browser import wait
from PIL import Image, ImageColor
from playwright.sync_api import Page

from imgsortd.errors import ImgsortdError

# How a page is opened.
DESK: dict[str, Any] = {}
DARK: dict[str, Any] = {"scheme": "dark"}
PHONE: dict[str, Any] = {"width": 390, "height": 844, "scale": 1.5, "is_phone": True}
MOST_BYTES = 400_000
_GAP_PX = 36
_BEHIND = (226, 223, 215)
_NEAR = 10
_COLOUR = re.compile(r"#[0-9a-f]{3,6}\b")
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
        data, colours = _png(shot), 256
        while len(data) > MOST_BYTES and colours >= 64:
            data = _png(_with_fewer_colours(shot, colours))
            colours //= 2
        if len(data) > MOST_BYTES:
            raise ImgsortdError(f"{name}: {len(data):,} bytes, more than {MOST_BYTES:,}")
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(data)
        self.sizes[name] = len(data)


def _with_fewer_colours(shot: Image.Image, colours: int) -> Image.Image:
    """Keep the colours of the page itself: they fill little room, and would be mixed away."""
    style = files("imgsortd.web").joinpath("static", "app.css").read_text()
    own = [ImageColor.getrgb(text) for text in sorted(set(_COLOUR.findall(style)))]
    values = shot.quantize(colours - len(own)).getpalette() or []
    common = zip(values[::3], values[1::3], values[2::3], strict=True)
    # The nearest is looked up roughly: what nearly is a colour of the page would tinge it.
    others = [colour for colour in common if all(_distance(colour, one) >= _NEAR for one in own)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in (*own, *others) for part in colour])
    return shot.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _distance(one: Sequence[int], other: Sequence[int]) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=False))


def _png(shot: Image.Image) -> bytes:
    file = io.BytesIO()
    shot.save(file, "PNG", optimize=True)
    return file.getvalue()


def _shot(page: Page) -> Image.Image:
    # The scrollbars are not in the picture, and leave no room where they would be.
    page.evaluate("document.documentElement.style.scrollbarGutter = 'auto'")
    wait(page, _LOADED)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
