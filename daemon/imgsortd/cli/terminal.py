"""What the commands share: two consoles, JSON, and how an error of ours ends the program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from imgsortd.errors import ImgsortdError
from imgsortd.words import printable

DEFAULT_CONFIG = Path("config.yaml")

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def run_to_exit(command: Callable[[], object]) -> NoReturn:
    """Run a command; every error of ours becomes its text and its exit code."""
    try:
        command()
    except ImgsortdError as error:
        for line in str(error).splitlines():
            err.print(Text.assemble(("imgsortd: ", "bold red"), printable(line)))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def print_json(answer: object, **more: object) -> None:
    """Print an answer as JSON: a dataclass, with ``more`` keys; plain values; a list of either.

    In ASCII, for file names may hold bytes that are not UTF-8 (surrogates).
    """
    whole = {**_fields(answer), **more} if more else answer
    sys.stdout.write(json.dumps(whole, indent=2, default=_plain) + "\n")


def _plain(value: Any) -> str | dict[str, object]:
    """Return what JSON has for a value of ours: a dataclass, or a name in bytes."""
    if isinstance(value, bytes | Path):
        return os.fsdecode(value)
    return _fields(value)


def _fields(value: Any) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
