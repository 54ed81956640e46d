"""What every request passes: ASGI middleware, outermost first as `app` puts it together."""

from __future__ import annotations

import logging
import re
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgsortd.web import tokens
from imgsortd.web.hosts import parse_authority
from imgsortd.web.paths import safe_next
from imgsortd.web.replies import error_reply, is_page, plain
from imgsortd.web.site import SESSION, Site, session_of

log = logging.getLogger(__name__)

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

_CLOSE = {"Connection": "close"}
_METHODS = frozenset({"GET", "HEAD", "POST"})
_SAFE = frozenset({"GET", "HEAD"})
_PUBLIC = re.compile(r"/healthz|/login|/static/[^/]+/[^/]+")
_FORMS = frozenset({"/login", "/logout"})  # they check their own form's field
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class SecureHeaders:
    """Sets the headers that every answer has, and answers where a handler failed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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


class FirstLook:
    """Refuses names that are not ours, methods that nothing here has, and what is odd."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._hosts = app, site.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        found = headers.getlist("host")
        authority = parse_authority(found[0]) if len(found) == 1 else None
        if authority is None:
            return plain("expected one Host header with a name or an address", 400, _CLOSE)
        if scope["http_version"] not in ("1.0", "1.1"):
            return plain("expected HTTP/1.1", 400, _CLOSE)
        if not self._hosts.knows(authority[0]):
            return plain(
                f"this page does not answer to the name {authority[0]}; open it under its "
                f"address, or add the name to web.allowed_hosts of the configuration",
                421,
            )
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy might believe the one and we the other, and the rest be another request.
            return plain("expected one length of the body, not two", 400, _CLOSE)
        if scope["method"] not in _METHODS:
            return plain("method not allowed", 405, {"Allow": "GET, HEAD, POST"})
        if _UNPRINTABLE.search(scope["path"]) or not scope["path"].startswith("/"):
            return plain("not found", 404)
        return None


class Login:
    """Finds whose a request is; without a session or the token, only the way in is open."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http" and self._site.wants_token:
            refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        keys, now_s = self._site.keys, time.time()
        path = str(request.scope["path"])
        cookie = request.cookies.get(COOKIE)
        session = None if cookie is None else tokens.session_of(keys, cookie, now_s)
        if session is not None:
            request.scope[SESSION] = session
            return None
        if _PUBLIC.fullmatch(path):
            return None
        given = bearer_of(request)
        if given is not None:
            refusal = self._check_bearer(request, given)
            if refusal is None:
                request.scope[BEARER] = cookie is None
            return refusal
        if is_page(path):
            wanted = safe_next(path, request.scope["query_string"])
            return RedirectResponse(f"/login?next={quote(wanted, safe='/')}", 303)
        return _unauthorized(request)

    def _check_bearer(self, request: Request, given: bytes) -> Response | None:
        attempts, now_s, address = self._site.attempts, time.monotonic(), address_of(request)
        wait_s = attempts.wait_s(address, now_s)
        if wait_s:
            return too_many(request, wait_s)
        if tokens.is_token(self._site.keys, given):
            return None
        attempts.fail(address, now_s)
        log.warning("wrong token address=%s", address)
        return _unauthorized(request)


class SameOrigin:
    """Keeps other sites' pages out.

    They may link to a page of ours, but not embed or fetch anything, not even to see whether
    it is there; a change is asked for by our own pages, or by who brings the token itself.
    """

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            request = Request(scope)
            is_safe = scope["method"] in _SAFE
            refusal = _foreign_read(request) if is_safe else self._refusal(request)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        origins = headers.getlist("origin")
        if len(origins) > 1 or not all(
            self._site.hosts.is_own_origin(origin, headers["host"]) for origin in origins
        ):
            return error_reply(request, 403, _FOREIGN)
        if _is_foreign(headers):
            return error_reply(request, 403, _FOREIGN)
        if request.scope["path"] in _FORMS or request.scope.get(BEARER):
            return None
        if not has_csrf(self._site, request, headers.get(CSRF_HEADER, "")):
            return error_reply(request, 403, STALE)
        return None


def _is_foreign(headers: Headers) -> bool:
    """Tell whether the browser says that another site's page asks, or another port's."""
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _foreign_read(request: Request) -> Response | None:
    headers = request.headers
    follows_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == (
        "navigate",
        "document",
    )
    if _is_foreign(headers) and not (follows_link and is_page(request.scope["path"])):
        return error_reply(request, 403, _FOREIGN)
    return None


def has_csrf(site: Site, request: Request, value: str) -> bool:
    """Tell whether a request brings the token of a page that was made for its session."""
    session = session_of(request)
    if site.wants_token and not session:
        return False
    return tokens.is_csrf(site.keys, value, session, time.time())


def bearer_of(request: Request) -> bytes | None:
    """Return the token of the Authorization header; None where it has none."""
    found = request.headers.getlist("authorization")
    scheme, _, given = found[0].partition(" ") if len(found) == 1 else ("", "", "")
    return given.strip().encode("latin-1") if scheme.lower() == "bearer" else None


def address_of(request: Request) -> str:
    """Return where a request comes from, as told by a reverse proxy on this machine."""
    return request.client.host if request.client else ""


def too_many(request: Request, wait_s: int) -> Response:
    """Refuse another try for some seconds."""
    text = f"too many wrong tokens; try again in {wait_s} s"
    return error_reply(request, 429, text, {"Retry-After": str(wait_s)})


def _unauthorized(request: Request) -> Response:
    text = "log in first: open /login, or send the header Authorization: Bearer TOKEN"
    return error_reply(request, 401, text, {"WWW-Authenticate": 'Bearer realm="imgsortd"'})
