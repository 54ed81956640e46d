"""Where the program begins: ``imgsortd``, or ``python -m imgsortd``."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line.

    A plain ``status`` goes past typer, whose import alone takes longer than the answer.
    """
    gc.disable()  # what is imported stays: looking through it again and again finds nothing
    if "status" in sys.argv[1:2]:
        from imgsortd.cli.status import plain_status, show_status
        from imgsortd.cli.terminal import run_to_exit

        plain = plain_status(sys.argv[1:])
        if plain is not None:
            run_to_exit(lambda: show_status(*plain))
    from imgsortd.cli.app import main as run_command_line

    gc.enable()
    run_command_line()


if __name__ == "__main__":
    main()
