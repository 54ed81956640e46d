"""What the commands share: two consoles, JSON, and options that several of them have."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

DEFAULT_CONFIG = Path("config.yaml")
ConfigOption = Annotated[
    Path, typer.Option("-c", "--config", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def printable(text: str) -> str:
    """Escape what could steer a terminal or is no character at all."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """Print JSON in ASCII: file names may hold bytes that are not UTF-8 (surrogates)."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
