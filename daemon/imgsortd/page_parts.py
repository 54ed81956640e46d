"""What the pages are made of: head and foot, pictures that can be enlarged, escaped text."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Hashable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Generic, TypeVar

from imgsortd.adapters.page_file import MARK
from imgsortd.adapters.thumbnails import Thumbnail
from imgsortd.terminal import printable

Key = TypeVar("Key", bound=Hashable)
_LINE_CHARS = 60


@cache
def _style() -> str:
    return files("imgsortd").joinpath("pages.css").read_text(encoding="utf-8")


def head(title: str, kind: str) -> str:
    """Return the beginning of a page, up to and with the start of its body."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{MARK}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{shown_text(title)}</title>\n<style>{style}</style>\n</head>\n"
        f'<body class="{kind}">\n'
    )


def skip_link(anchor: str, text: str) -> str:
    """Return the first link of a page, seen only while it has the focus."""
    return f'<a class="skip" href="#{anchor}">{text}</a>\n'


def tail(line: str) -> str:
    """Return the end of a page; ``line`` is HTML."""
    return (
        f'<footer>{line}</footer>\n<a class="up" href="#top" aria-label="Back to the top">'
        '<span aria-hidden="true">↑</span></a>\n</body>\n</html>\n'
    )


def shown_text(text: str) -> str:
    """Escape for HTML; a character that is not printable (or none at all) becomes its code."""
    return escape(printable(text), quote=True)


def clipped(text: str) -> str:
    """Return escaped text of at most a line."""
    return shown_text(text if len(text) <= _LINE_CHARS else f"{text[: _LINE_CHARS - 1]}…")


def number_of(count: int, thing: str) -> str:
    """Return ``1 picture``, ``1,200 pictures``."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def bar(share: float) -> str:
    """Return a bar as long as ``share`` (0 to 1) of its room."""
    # A rectangle, for the policy allows no style attribute.
    return (
        '<svg class="bar" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * share:.2f}" height="1"/></svg>'
    )


class Figures(Generic[Key]):
    """Numbers the pictures of a page, so that each leads to those beside it.

    Attributes
    ----------
    found
        The small pictures of the page; each is shown at most once.
    """

    def __init__(self, found: Mapping[Key, Thumbnail]) -> None:
        self.found = found
        self._number = 0

    @staticmethod
    def base_name(name: bytes) -> str:
        """Return the last part of a name as text."""
        return os.fsdecode(os.path.basename(name))

    def figure(self, key: Key, *, name: str, says: str, badge: str, kind: str) -> str:
        """Return a picture as a list item: a link that enlarges it, and what it is.

        Parameters
        ----------
        name, says
            Its file's name, and why it is here; as plain text.
        badge
            A word on the picture itself.
        kind
            Its class in the style sheet.
        """
        self._number += 1
        number, image = self._number, self.found[key]
        # Pictures that turn out unreadable are known by now: the numbers have no gaps.
        turns = [f'<a class="turn close" href="#f{number}">Close</a>']
        if number > 1:
            turns.append(_turn("previous", number - 1, "‹"))
        if number < len(self.found):
            turns.append(_turn("next", number + 1, "›"))
        shape = "" if badge == "" else f'<span class="badge">{badge}</span>'
        alt = f"{name}, {says}" if says else name
        return (
            f'<li id="f{number}" class="{kind}" tabindex="-1">'
            f'<figure id="p{number}" tabindex="-1">{"".join(turns)}'
            f'<a class="open" href="#p{number}"><img src="{image.uri}" alt="{shown_text(alt)}" '
            f'width="{image.width_px}" height="{image.height_px}" decoding="async">{shape}</a>'
            f"<figcaption><b><bdi>{shown_text(name)}</bdi></b>"
            + (f" <span>{shown_text(says)}</span>" if says else "")
            + "</figcaption></figure></li>\n"
        )


def _turn(word: str, number: int, sign: str) -> str:
    return (
        f'<a class="turn {word}" href="#p{number}" aria-label="The {word} picture">'
        f'<span aria-hidden="true">{sign}</span></a>'
    )
