"""One log set-up: to standard error, event first, then key=value with units."""

from __future__ import annotations

import logging
import os
import sys
import warnings

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code not in (9, 10)}


class _SafeFormatter(logging.Formatter):
    """Escapes control characters: a file name must not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_CONTROL)


def set_up_logs(level: str) -> None:
    """Log to standard error; under systemd the journal adds the time itself."""
    handler = logging.StreamHandler(sys.stderr)
    under_systemd = "JOURNAL_STREAM" in os.environ
    handler.setFormatter(
        _SafeFormatter(
            "%(levelname)s %(message)s"
            if under_systemd
            else "%(asctime)s %(levelname)s %(message)s"
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # watchdog's own debug lines would repeat every event twice.
    logging.getLogger("watchdog").setLevel(logging.WARNING)
    logging.getLogger("PIL").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    warnings.simplefilter("once", append=True)  # behind the filters that modules set
