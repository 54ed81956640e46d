"""The web process: what it listens on, under which conditions, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from imgsortd.config.model import Config
from imgsortd.config.values import LogLevel
from imgsortd.errors import ConfigError, ImgsortdError
from imgsortd.system.systemd import Notifier
from imgsortd.web.access import is_loopback, known_hosts, make_keys, read_token
from imgsortd.web.app import build_app
from imgsortd.web.security import HEADERS
from imgsortd.web.site import Site

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_KEEP_ALIVE_S = 15
_GRACE_S = 2  # what is under way then, such as a picture being sent, is cut off
_BACKLOG = 128
_REQUEST_S = 20.0
_LINGER_S = 2.0
_MOST_CONNECTIONS = 200
_NOT_HTTP = "this is no HTTP/1.1 request"
_TOO_MANY = "too many connections are open; try again later"


def serve(
    config: Config,
    config_file: Path,
    address: Address,
    port: int,
    *,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the page until SIGTERM or Ctrl-C; port 0 takes a free one.

    Parameters
    ----------
    config_file
        Named in errors.
    on_ready
        Told the address to open when connections are answered.

    Raises
    ------
    ConfigError
        This host needs a token, or the token cannot be used; nothing was bound.
    ImgsortdError
        The address cannot be had.
    """
    token = _token(config, config_file, address)
    listener = _listen(address, port)
    allowed, machine = config.web.allowed_hosts, socket.gethostname()
    hosts = known_hosts(allowed, any_address=not is_loopback(address), machine=machine)
    site = Site(config, make_keys(token), hosts)
    url = _url(address, listener.getsockname()[1])
    notifier = Notifier.from_environment(os.environ)

    def ready() -> None:
        notifier.ready(f"serving {url}")
        log.info("web started url=%s token=%s", url, "yes" if token else "no")
        on_ready(url)

    if config.log_level is not LogLevel.DEBUG:  # what strangers send is not to fill the log
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = _Server(_settings(site, config.log_level), site, ready)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn puts its own over these, and raises again what it got when it is done.
        signal.signal(number, server.handle_exit)
    try:
        server.run([listener])
    finally:
        notifier.stopping()
        listener.close()
    log.info("web stopped")


class _Server(uvicorn.Server):
    """Says when it answers, and lets open streams end before it waits for connections."""

    def __init__(self, settings: uvicorn.Config, site: Site, on_ready: Callable[[], None]) -> None:
        super().__init__(settings)
        self._site, self._on_ready = site, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._site.stop()
        await super().shutdown(sockets)


def _settings(site: Site, level: LogLevel) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(site),
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=level is LogLevel.DEBUG,
        server_header=False,
        workers=1,
        # A reverse proxy on this machine says who asks and whether by https; nobody else may.
        proxy_headers=True,
        forwarded_allow_ips=["127.0.0.1", "::1"],
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _token(config: Config, config_file: Path, address: Address) -> str | None:
    if config.web.token_file is not None:
        return read_token(config.web.token_file)
    if not is_loopback(address):
        reason = f"with --host {address}, as others can reach the page there"
    elif config.web.allowed_hosts:
        reason = "with web.allowed_hosts, as others can reach the page through the proxy"
    else:
        return None
    raise ConfigError(
        f"{config_file}: web.token_file must be the path of a file with a token {reason}, got "
        f"off; make one: (umask 077; openssl rand -hex 32 > token), and name it there"
    )


def find_address(host: str) -> Address:
    """Return the address to listen on for what ``--host`` gives.

    Raises
    ------
    ValueError
        It is no address, and no name that has one.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        return ipaddress.ip_address(str(found[0][4][0]))
    except (OSError, UnicodeError, ValueError) as error:
        raise ValueError(
            f"expected an address of this machine, such as 127.0.0.1, or a name that has one, "
            f"got {host!r} ({getattr(error, 'strerror', None) or error})"
        ) from error


def _listen(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port that was just left can be had at once; one that is in use cannot.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        advice = {
            errno.EADDRINUSE: f"another program listens there (ss -ltnp 'sport = :{port}' names "
            "it); stop it, or take another --port",
            errno.EACCES: "ports below 1024 need root; take another --port, and a reverse proxy",
            errno.EADDRNOTAVAIL: "this machine has no such address; take another --host",
        }.get(error.errno or 0, error.strerror or str(error))
        raise ImgsortdError(f"cannot listen on {address} port {port}: {advice}") from error
    return listener


def _url(address: Address, port: int) -> str:
    """Return what to open; where every address is listened on, this machine's name."""
    if address.is_unspecified:
        return f"http://{socket.gethostname()}:{port}/"
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{shown}:{port}/"


class _Protocol(H11Protocol):
    """Closes connections that send nothing, or a request byte by byte.

    uvicorn itself only closes those that have been answered, so that a few hundred silent
    connections would shut everybody else out.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            self._refuse(503, b"Service Unavailable", _TOO_MANY)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_clock()

    def data_received(self, data: bytes) -> None:
        """Start or stop the clock by whether a request is whole."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Give the rest of a body that nobody wanted a moment, rather than cut the answer off."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._stop_clock()
            self._request_timer = self.loop.call_later(_LINGER_S, self._too_slow)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, with the headers that every answer has."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its handler is not to answer any more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # in the middle of another answer
        else:
            self._refuse(400, b"Bad Request", _NOT_HTTP)

    def _refuse(self, status: int, reason: bytes, text: str) -> None:
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(text)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **HEADERS,
        }
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        events = (
            h11.Response(status_code=status, headers=fields, reason=reason),
            h11.Data(data=text.encode()),
            h11.EndOfMessage(),
        )
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or self.transport.is_closing():
            self._stop_clock()
        elif self._request_timer is None:
            self._request_timer = self.loop.call_later(_REQUEST_S, self._too_slow)

    def _stop_clock(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _too_slow(self) -> None:
        self._request_timer = None
        if not self.transport.is_closing():
            self.transport.close()
