"""What every request passes: ASGI middleware, outermost first as `app` puts it together."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsortd.web import access
from imgsortd.web.access import parse_authority
from imgsortd.web.replies import error_reply, is_page, text_reply
from imgsortd.web.shown import decimal
from imgsortd.web.site import SESSION, Site, session_of

log = logging.getLogger(__name__)

MOST_BODY_BYTES = 1_000_000
_TOO_LARGE = f"a request may bring {MOST_BODY_BYTES:,} bytes"
_CLOSE = {"Connection": "close"}  # the rest of the body is not read


COOKIE = "imgsortd_session"
CSRF_HEADER = "x-csrf-token"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
    ),
}
"""On every answer. What a handler sets of these is replaced."""

BEARER = "imgsortd.bearer"
"""Set in a scope whose request brought the token itself, and no cookie."""

STALE = "this page is out of date, or it was not ours; reload it and try again"
_FOREIGN = "this was asked for by another site's page"

_METHODS = frozenset({"GET", "HEAD", "POST"})
_SAFE = frozenset({"GET", "HEAD"})
_PUBLIC = re.compile(r"/healthz|/login|/static/[^/]+/[^/]+")
_OURS = re.compile(
    r"/(?:clusters/[0-9]{1,18}|review|refits|similar/[0-9]{1,18}|status)?"
    r"(?:\?[A-Za-z0-9=&_.~%+-]{0,500})?"
)
_FORMS = frozenset({"/login", "/logout"})  # they check their own form's field
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class _Layer:
    """Middleware; what is no request over HTTP passes by."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        await (self._serve if is_http else self._app)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class SecureHeaders(_Layer):
    """Sets the headers that every answer has, and answers where a handler failed."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if started:
                raise  # the server logs it and cuts the answer off
            log.exception("request failed method=%s path=%r", scope["method"], scope["path"])
            reply = error_reply(Request(scope), 500, "something went wrong here; the log has more")
            await reply(scope, receive, send_with_headers)


class BodyLimit(_Layer):
    """Ends a request whose body is too large, announced or not."""

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = decimal(Headers(scope=scope).get("content-length", "0"), 15)
        if announced is None or announced > MOST_BODY_BYTES:
            reply = error_reply(Request(scope), 413, _TOO_LARGE, _CLOSE)
            await reply(scope, receive, send)
            return
        came_bytes = 0

        async def receive_some() -> Message:
            nonlocal came_bytes
            message = await receive()
            came_bytes += len(message.get("body", b""))
            if came_bytes > MOST_BODY_BYTES:
                raise HTTPException(413, _TOO_LARGE, _CLOSE)
            return message

        await self._app(scope, receive_some, send)


class Gate(_Layer):
    """Lets a request pass, or answers it with the refusal that a check of it gives."""

    def __init__(
        self, app: ASGIApp, site: Site, check: Callable[[Site, Request], Response | None]
    ) -> None:
        super().__init__(app)
        self._site, self._check = site, check

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._check(self._site, Request(scope))
        await (refusal or self._app)(scope, receive, send)


def check_shape(site: Site, request: Request) -> Response | None:
    """Refuse names that are not ours, methods that nothing here has, and what is odd."""
    scope, headers = request.scope, request.headers
    found = headers.getlist("host")
    authority = parse_authority(found[0]) if len(found) == 1 else None
    if authority is None:
        return text_reply("expected one Host header with a name or an address", 400, _CLOSE)
    if scope["http_version"] not in ("1.0", "1.1"):
        return text_reply("expected HTTP/1.1", 400, _CLOSE)
    if not site.hosts.knows(authority[0]):
        return text_reply(
            f"this page does not answer to the name {authority[0]}; open it under its "
            f"address, or add the name to web.allowed_hosts of the configuration",
            421,
        )
    if "content-length" in headers and "transfer-encoding" in headers:
        # A proxy might believe the one and we the other, and the rest be another request.
        return text_reply("expected one length of the body, not two", 400, _CLOSE)
    if scope["method"] not in _METHODS:
        return text_reply("method not allowed", 405, {"Allow": "GET, HEAD, POST"})
    if _UNPRINTABLE.search(scope["path"]) or not scope["path"].startswith("/"):
        return text_reply("not found", 404)
    return None


def check_login(site: Site, request: Request) -> Response | None:
    """Find whose a request is; without a session or the token, only the way in is open."""
    if not site.wants_token:
        return None
    keys, now_s = site.keys, time.time()
    path = str(request.scope["path"])
    cookie = request.cookies.get(COOKIE)
    session = None if cookie is None else access.session_of(keys, cookie, now_s)
    if session is not None:
        request.scope[SESSION] = session
        return None
    if _PUBLIC.fullmatch(path):
        return None
    given = _bearer_of(request)
    if given is not None:
        refusal = check_token(site, request, given)
        if refusal is None:
            request.scope[BEARER] = cookie is None
        return refusal
    if is_page(path):
        wanted = safe_next(path, request.scope["query_string"])
        return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", 303)
    return _unauthorized(request)


def check_origin(site: Site, request: Request) -> Response | None:
    """Keep other sites' pages out.

    They may link to a page of ours, but not embed or fetch anything, not even to see whether
    it is there; a change is asked for by our own pages, or by who brings the token itself.
    """
    headers, path = request.headers, request.scope["path"]
    # The browser says whether another site's page asks, or another port's.
    is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if request.method in _SAFE:
        how = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
        follows_link = how == ("navigate", "document") and is_page(path)
        is_refused = is_foreign and not follows_link
        return error_reply(request, 403, _FOREIGN) if is_refused else None
    origins = headers.getlist("origin")
    are_own = [site.hosts.is_own_origin(one, headers["host"]) for one in origins]
    if are_own not in ([], [True]) or is_foreign:
        return error_reply(request, 403, _FOREIGN)
    if path in _FORMS or request.scope.get(BEARER):
        return None
    if not has_csrf(site, request, headers.get(CSRF_HEADER, "")):
        return error_reply(request, 403, STALE)
    return None


def safe_next(path: str, query: bytes = b"") -> str:
    """Return a path of our pages; the first page for anything else, such as another site."""
    wanted = f"{path}?{query.decode('latin-1')}" if query else path
    return wanted if _OURS.fullmatch(wanted) else "/"


def has_csrf(site: Site, request: Request, value: str) -> bool:
    """Tell whether a request brings the token of a page that was made for its session."""
    session = session_of(request)
    if site.wants_token and not session:
        return False
    return access.is_csrf(site.keys, value, session, time.time())


def check_token(site: Site, request: Request, given: bytes) -> Response | None:
    """Refuse a wrong token, and any while its address has to wait; None for the right one."""
    now_s, address = time.monotonic(), address_of(request)
    wait_s = site.tries.wait_s(address, now_s)
    if wait_s:
        text = f"too many wrong tokens; try again in {wait_s} s"
        return error_reply(request, 429, text, {"Retry-After": str(wait_s)})
    if access.is_token(site.keys, given):
        return None
    site.tries.fail(address, now_s)
    log.warning("wrong token address=%s", address)
    return _unauthorized(request)


def _bearer_of(request: Request) -> bytes | None:
    """Return the token of the Authorization header; None where it has none."""
    found = request.headers.getlist("authorization")
    scheme, _, given = found[0].partition(" ") if len(found) == 1 else ("", "", "")
    return given.strip().encode("latin-1") if scheme.lower() == "bearer" else None


def address_of(request: Request) -> str:
    """Return where a request comes from, as told by a reverse proxy on this machine."""
    return request.client.host if request.client else ""


def _unauthorized(request: Request) -> Response:
    text = "log in first: open /login, or send the header Authorization: Bearer TOKEN"
    return error_reply(request, 401, text, {"WWW-Authenticate": 'Bearer realm="imgsortd"'})
