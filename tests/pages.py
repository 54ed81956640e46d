"""An HTML page as a test sees it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class PageText(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    @classmethod
    def read(cls, path: Path) -> PageText:
        return cls(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[str]:
        """Return the alternative texts of all pictures, in order."""
        return [attributes["alt"] for tag, attributes in self.tags if tag == "img"]

    def names(self) -> list[str]:
        """Return the file names of all pictures, in order."""
        return [alt.partition(", ")[0] for alt in self.images()]

    def section(self, anchor: str) -> PageText:
        """Return one section alone."""
        _, _, rest = self.html.partition(f'<section id="{anchor}">')
        assert rest, anchor
        return PageText(rest.partition("</section>")[0])
