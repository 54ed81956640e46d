"""Logging in with the token, and out."""

from __future__ import annotations

import logging
import time
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from imgsortd.web import pages, tokens
from imgsortd.web.paths import safe_next
from imgsortd.web.security import (
    COOKIE,
    CSRF_HEADER,
    STALE,
    address_of,
    has_csrf,
    too_many,
)
from imgsortd.web.site import session_of, site_of

log = logging.getLogger(__name__)

_FORM = "application/x-www-form-urlencoded"
_MOST_FORM_BYTES = 10_000


async def login(request: Request) -> Response:
    """Answer ``/login``: the form, or what came of it."""
    site = site_of(request)
    request.state.next = safe_next(request.query_params.get("next", ""))
    if not site.wants_token:
        return RedirectResponse("/", 303)
    if request.method != "POST":
        if session_of(request):
            return RedirectResponse(request.state.next, 303)
        return await _form_page(request, failed=False)
    form = await _read_form(request)
    request.state.next = safe_next(form.get("next", request.state.next))
    address, now_s = address_of(request), time.monotonic()
    wait_s = site.attempts.wait_s(address, now_s)
    if wait_s:
        return too_many(request, wait_s)
    if not tokens.is_token(site.keys, form.get("token", "").strip().encode("utf-8", "replace")):
        site.attempts.fail(address, now_s)
        log.warning("wrong token address=%s", address)
        response = await _form_page(request, failed=True)
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Bearer realm="imgsortd"'
        return response
    site.attempts.succeed(address)
    response = RedirectResponse(request.state.next, 303)
    _set_cookie(request, response, tokens.make_session(site.keys, time.time()), tokens.SESSION_S)
    return response


async def logout(request: Request) -> Response:
    """Answer ``/logout``."""
    site = site_of(request)
    form = await _read_form(request)
    given = request.headers.get(CSRF_HEADER) or form.get("csrf", "")
    if not has_csrf(site, request, given):
        raise HTTPException(403, STALE)
    response = RedirectResponse("/login" if site.wants_token else "/", 303)
    _set_cookie(request, response, "", 0)
    return response


def _set_cookie(request: Request, response: Response, value: str, seconds: int) -> None:
    response.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        path="/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


async def _form_page(request: Request, *, failed: bool) -> Response:
    page: Response = await run_in_threadpool(pages.login_form, request, failed)
    return page


async def _read_form(request: Request) -> dict[str, str]:
    """Read a plain form; a field that comes twice is none."""
    kind = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if kind != _FORM:
        raise HTTPException(415, f"expected Content-Type: {_FORM}")
    body = await request.body()
    if len(body) > _MOST_FORM_BYTES:
        raise HTTPException(413, "this is more than the form has")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise HTTPException(422, "expected the fields of the form") from error
    return {name: values[0] for name, values in fields.items() if len(values) == 1}
