"""The web application asked without a browser or a server: what was sent is what it gets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette

from imgsortd.config.model import Config
from imgsortd.store.database import open_for_reading, open_for_writing
from imgsortd.system.locks import Locks
from imgsortd.web.access import known_hosts, make_csrf, make_keys
from imgsortd.web.app import build_app
from imgsortd.web.shown import to_json
from imgsortd.web.site import Site
from support import make_config

TOKEN = "correct-horse-battery-staple"
HOST = "127.0.0.1:8420"
Header = tuple[str, str]
_LATEST_S = 60


def told(answer: object) -> Any:
    """Return what a reader found as a script gets it."""
    return json.loads(to_json(answer))


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name in lower case."""
        return {n.decode("latin-1").lower(): v.decode("latin-1") for n, v in self.raw_headers}

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Web:
    """A site, its application and its folder; in the end, `close` it."""

    config: Config
    site: Site
    app: Starlette
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)

    def close(self) -> None:
        """End what the site began, such as processes that decode pictures."""
        self.runner.run(self.site.stop())
        self.runner.close()

    def get(self, target: str, *headers: Header, **changes: Any) -> Answer:
        """Ask for a path."""
        return self.ask("GET", target, *headers, **changes)

    def post(self, target: str, body: object, *headers: Header, **changes: Any) -> Answer:
        """Send JSON, or bytes as they are."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(
            "POST", target, ("Content-Type", "application/json"), *headers, body=[sent], **changes
        )

    def ask(
        self,
        method: str,
        target: str,
        *headers: Header,
        body: Sequence[bytes] = (),
        host: str | None = HOST,
        scheme: str = "http",
        client: str = "127.0.0.1",
    ) -> Answer:
        """Send a request as the server hands it on; endless answers are cut after one piece."""
        hosts = [] if host is None else [("host", host)]
        scope = _scope(method, target, [*hosts, *headers], scheme, client)
        return self.runner.run(_run(self.app, scope, body))

    def login(self, *headers: Header, token: str = TOKEN, **changes: Any) -> Answer:
        """Send the form of the login page."""
        form = ("Content-Type", "application/x-www-form-urlencoded")
        return self.ask(
            "POST", "/login", form, *headers, body=[f"token={token}".encode()], **changes
        )

    def cookie(self) -> Header:
        """Log in; return the header of the session."""
        return "Cookie", self.login().headers["set-cookie"].partition(";")[0]

    def csrf(self, session: str = "") -> Header:
        """Return the header that a page of ours would send along."""
        return "X-CSRF-Token", make_csrf(self.site.keys, session, time.time())

    def requests(self) -> int:
        """Count the rows that were left for the daemon."""
        store = open_for_reading(self.config.database)
        try:
            return int(store.connection.execute("SELECT count(*) FROM requests").fetchone()[0])
        finally:
            store.close()


def make_web(
    folder: Path,
    token: str | None = None,
    allowed: Iterable[str] = (),
    *,
    any_address: bool = False,
    **changes: Any,
) -> Web:
    """Build the application over an empty library."""
    config = make_config(folder, **changes)
    open_for_writing(config.database).close()
    return open_web(config, token, allowed, any_address=any_address)


def open_web(
    config: Config,
    token: str | None = None,
    allowed: Iterable[str] = (),
    *,
    any_address: bool = False,
) -> Web:
    """Build the application over a library that is there."""
    hosts = known_hosts(allowed, any_address=any_address, machine="attic")
    site = Site(config, make_keys(token), hosts)
    web = Web(config, site, build_app(site))
    site.look()
    return web


@contextmanager
def as_if_running(config: Config) -> Iterator[None]:
    """Hold the lock by which a running daemon is known."""
    with Locks(config.state_dir):
        yield


def _scope(
    method: str, target: str, headers: Iterable[Header], scheme: str, client: str
) -> dict[str, Any]:
    raw_path, _, query = target.encode().partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8420),
        "client": (client, 50_000),
        "scheme": scheme,
        "method": method,
        "root_path": "",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers
        ],
        "state": {},
    }


async def _run(app: Starlette, scope: dict[str, Any], body: Sequence[bytes]) -> Answer:
    pieces = list(body) or [b""]
    over = asyncio.Event()
    start: dict[str, Any] = {}
    came: list[bytes] = []

    async def receive() -> dict[str, Any]:
        if pieces:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not start, "a second answer was begun"
            start.update(message)
        else:
            came.append(message.get("body", b""))
            if message.get("more_body") is not True or came[-1]:
                over.set()

    await asyncio.wait_for(app(scope, receive, send), _LATEST_S)
    return Answer(start["status"], start["headers"], b"".join(came))
