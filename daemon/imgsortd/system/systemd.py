"""Telling systemd how the daemon is: the sd_notify protocol, without libsystemd."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_MORE_USEC = 60_000_000
_SEND_TIMEOUT_S = 1.0
# systemd drops a datagram above 4096 bytes whole, READY=1 included.
_STATUS_LIMIT_BYTES = 1000


@dataclass(slots=True)
class Notifier:
    """Sends one datagram for each change of state; without a socket it does nothing.

    Parameters
    ----------
    address
        Where systemd listens: a path, or a zero byte and a name (abstract socket).
    watchdog_interval_s
        How often ``watchdog()`` is to be called, in seconds: half of systemd's limit,
        so that one late ping is no restart. None: nobody waits for pings.

    Notes
    -----
    A listener that is gone or full must not stop sorting, so sending never raises.
    """

    address: str | None = None
    watchdog_interval_s: float | None = None
    _failure_logged: bool = field(default=False, init=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Notifier:
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        if address.startswith("@"):
            address = "\0" + address[1:]
        return cls(address, _watchdog_interval_s(environ))

    def ready(self, status: str) -> None:
        """Say that starting, or reloading, is over."""
        self._send(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def starting(self, text: str) -> None:
        """Say that starting goes on, and ask for another minute; for work of any length."""
        self._send(f"EXTEND_TIMEOUT_USEC={_MORE_USEC}\nSTATUS={_one_line(text)}")

    def reloading(self, monotonic_usec: int) -> None:
        """Say that the configuration is read again; ``ready()`` must follow.

        ``monotonic_usec`` is CLOCK_MONOTONIC in microseconds, taken when the reload
        began: without it a unit of Type=notify-reload takes every reload for failed.
        """
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_usec}")

    def stopping(self) -> None:
        """Say that the daemon is on its way out."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Say that the working loop is alive; only that loop may call this."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self.address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_SEND_TIMEOUT_S)
                sender.sendto(message.encode(errors="replace"), self.address)
        except OSError as error:
            self._log_once(error)

    def _log_once(self, error: OSError) -> None:
        if not self._failure_logged:
            log.debug("notify failed address=%r error=%r", self.address, str(error))
        self._failure_logged = True


def _watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """Half of the watchdog's limit in seconds, if it is meant for this process."""
    meant_for = environ.get("WATCHDOG_PID", "")
    limit_usec = environ.get("WATCHDOG_USEC", "")
    if meant_for not in ("", str(os.getpid())) or not limit_usec.isdecimal():
        return None
    return int(limit_usec) / 2e6 or None


def _one_line(text: str) -> str:
    """Keep a line break in a status from starting a field of its own."""
    line = " ".join(text.split()).encode(errors="replace")[:_STATUS_LIMIT_BYTES]
    return line.decode(errors="ignore")
