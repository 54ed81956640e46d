"""What a keyboard sends."""

from __future__ import annotations

from typing import Any

ALT, CTRL, SHIFT = 1, 2, 8

# Key: its code, its number, the text it writes.
_NAMED = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    "Backspace": ("Backspace", 8, ""),
    "Delete": ("Delete", 46, ""),
    " ": ("Space", 32, " "),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowUp": ("ArrowUp", 38, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "ArrowDown": ("ArrowDown", 40, ""),
    "PageUp": ("PageUp", 33, ""),
    "PageDown": ("PageDown", 34, ""),
    "End": ("End", 35, ""),
    "Home": ("Home", 36, ""),
    "F2": ("F2", 113, ""),
}


def strokes(key: str, modifiers: int) -> list[dict[str, Any]]:
    """Return the two events of a key that is pressed and let go.

    Parameters
    ----------
    key
        A name such as ``ArrowLeft``, or a character.
    modifiers
        Sum of `ALT`, `CTRL` and `SHIFT`.
    """
    code, number, text = _NAMED.get(key) or _of_character(key)
    if modifiers & (ALT | CTRL):
        text = ""
    shared = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
    down = {"type": "keyDown" if text else "rawKeyDown", "text": text, **shared}
    return [down, {"type": "keyUp", **shared}]


def _of_character(character: str) -> tuple[str, int, str]:
    if character.isascii() and character.isalpha():
        return f"Key{character.upper()}", ord(character.upper()), character
    if character.isdecimal():
        return f"Digit{character}", ord(character), character
    return "", 0, character
