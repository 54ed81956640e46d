"""Texts for a person or a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what could steer a terminal or is no character at all."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def counted(count: int, thing: str) -> str:
    """Return ``1 picture``, ``1,200 pictures``."""
    return f"{count:,} {thing}" + "s" * (count != 1)


def duration_text(seconds: float) -> str:
    """Write a duration with two units at most: ``6 d 23 h``, ``4 min``, ``12 s``."""
    parts: list[str] = []
    left = round(seconds)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size and len(parts) < 2:
            parts.append(f"{left // size} {unit}")
            left %= size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def storable(text: str) -> str:
    """Escape what is no character: for a name that is not UTF-8, SQLite would refuse the row."""
    return text.encode("utf-8", "backslashreplace").decode()
