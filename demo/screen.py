"""What the demo says in the terminal: a topic at the left, its text beside it."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from rich.console import Console
from rich.text import Text

_TOPIC_CHARS = 11

out = Console(highlight=False, soft_wrap=True)


def say(topic: str, text: str) -> None:
    """Print a text under a topic; paths are not broken, so that they can be copied."""
    indent = " " * _TOPIC_CHARS
    lines = textwrap.wrap(
        text,
        max(60, min(100, out.width)) - _TOPIC_CHARS,
        break_long_words=False,
        break_on_hyphens=False,
    )
    body = f"\n{indent}".join(lines)
    out.print(Text.assemble((f"{topic:<{_TOPIC_CHARS}}", "bold"), body))


def shown(path: Path) -> str:
    """Return a path as short as it can be typed from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
