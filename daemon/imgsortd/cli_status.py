"""``imgsortd status``: asked often, by people and by scripts, so it imports little."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from imgsortd.config import load_config
from imgsortd.status import read_status
from imgsortd.status_view import render
from imgsortd.terminal import DEFAULT_CONFIG, out, print_json


def show_status(config: Path, as_json: bool, watch: bool = False) -> None:
    """Print the report once, or again each second until Ctrl-C."""
    settings = load_config(config)
    if as_json:
        print_json(read_status(settings).as_dict())
    elif not watch:
        # A person's terminal would break words; what reads from a pipe gets whole lines.
        out.print(render(read_status(settings)), soft_wrap=not out.is_terminal)
    else:
        from rich.live import Live

        with Live(render(read_status(settings)), console=out, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(1)
                    live.update(render(read_status(settings)), refresh=True)
            except KeyboardInterrupt:
                pass


def plain_status(arguments: Sequence[str]) -> tuple[Path, bool] | None:
    """Return (configuration, as JSON) of ``status [-c FILE] [--json]``, None for all else.

    What is not plain, a wrong option among it, is left to the command line's own parser.
    """
    if arguments[:1] != ["status"]:
        return None
    config, as_json, rest = DEFAULT_CONFIG, False, list(arguments[1:])
    while rest:
        option = rest.pop(0)
        if option in ("-c", "--config") and rest and not rest[0].startswith("-"):
            config = Path(rest.pop(0))
        elif option == "--json":
            as_json = True
        else:
            return None
    return config, as_json
