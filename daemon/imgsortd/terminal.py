"""What the commands share: two consoles, JSON, and how an error of ours ends the program."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from imgsortd.errors import ImgsortdError

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


def printable(text: str) -> str:
    """Escape what could steer a terminal or is no character at all."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """Print JSON in ASCII: file names may hold bytes that are not UTF-8 (surrogates)."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
