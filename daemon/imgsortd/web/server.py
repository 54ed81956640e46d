"""The web process: what it listens on, under which conditions, and how it ends."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from imgsortd.adapters.systemd import Notifier
from imgsortd.adapters.token_file import read_token
from imgsortd.config import Config, LogLevel
from imgsortd.errors import ConfigError, ImgsortdError
from imgsortd.web.app import build_app
from imgsortd.web.hosts import is_loopback, known_hosts
from imgsortd.web.protocol import Protocol
from imgsortd.web.site import Site
from imgsortd.web.tokens import make_keys

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_KEEP_ALIVE_S = 15
_GRACE_S = 2  # what is under way then, such as a picture being sent, is cut off
_BACKLOG = 128


def serve(
    config: Config,
    config_file: Path,
    address: Address,
    port: int,
    *,
    environ: Mapping[str, str] = os.environ,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve the page until SIGTERM or Ctrl-C.

    Parameters
    ----------
    config_file
        Named in errors.
    address, port
        Where to listen (`find_address`); port 0 takes a free one.
    on_ready
        Told the address to open when connections are answered.

    Raises
    ------
    ConfigError
        This host needs a token, or the token cannot be used; nothing was bound.
    ImgsortdError
        The address cannot be had.
    """
    local = is_loopback(address)
    token = _token(config, config_file, address, local=local)
    listener = _listen(address, port)
    hosts = known_hosts(
        config.web.allowed_hosts, any_address=not local, machine=socket.gethostname()
    )
    site = Site(config, make_keys(token), hosts)
    url = _url(address, listener.getsockname()[1])
    notifier = Notifier.from_environment(environ)

    def ready() -> None:
        notifier.ready(f"serving {url}")
        log.info("web started url=%s token=%s", url, "yes" if token else "no")
        on_ready(url)

    _set_up_logs(config.log_level)
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
        http=Protocol,
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


def _set_up_logs(level: LogLevel) -> None:
    """Keep what strangers send from filling the log, but for whoever looks for a fault."""
    quiet = level is not LogLevel.DEBUG
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR if quiet else logging.DEBUG)


def _token(config: Config, config_file: Path, address: Address, *, local: bool) -> str | None:
    if config.web.token_file is not None:
        return read_token(config.web.token_file)
    reason = ""
    if not local:
        reason = f"with --host {address}, as others can reach the page there"
    elif config.web.allowed_hosts:
        reason = "with web.allowed_hosts, as others can reach the page through the proxy"
    if reason:
        raise ConfigError(
            f"{config_file}: web.token_file must be the path of a file with a token {reason}, got "
            f"off; make one: (umask 077; openssl rand -hex 32 > token), and name it there"
        )
    return None


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
        raise _not_listening(str(address), port, error) from error
    return listener


def _not_listening(address: str, port: int, error: OSError) -> ImgsortdError:
    advice = {
        errno.EADDRINUSE: f"another program listens there (ss -ltnp 'sport = :{port}' names it); "
        "stop it, or take another --port",
        errno.EACCES: "ports below 1024 need root; take another --port, and a reverse proxy",
        errno.EADDRNOTAVAIL: "this machine has no such address; take another --host",
    }.get(error.errno or 0, error.strerror or str(error))
    return ImgsortdError(f"cannot listen on {address} port {port}: {advice}")


def _url(address: Address, port: int) -> str:
    """Return what to open; where every address is listened on, this machine's name."""
    if address.is_unspecified:
        return f"http://{socket.gethostname()}:{port}/"
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{shown}:{port}/"
