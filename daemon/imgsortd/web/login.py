"""Logging in with the token, and out."""

from __future__ import annotations

import time
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from imgsortd.web import access, pages
from imgsortd.web.security import (
    COOKIE,
    CSRF_HEADER,
    STALE,
    address_of,
    check_token,
    has_csrf,
    safe_next,
)
from imgsortd.web.site import session_of, site_of

_FORM = "application/x-www-form-urlencoded"
_MOST_FORM_BYTES = 10_000


async def login(request: Request) -> Response:
    """Answer ``/login``: the form, or what came of it."""
    site = site_of(request)
    after = safe_next(request.query_params.get("next", ""))
    if not site.wants_token:
        return RedirectResponse("/", 303)
    if request.method != "POST":
        if session_of(request):
            return RedirectResponse(after, 303)
        return await run_in_threadpool(pages.login_form, after, failed=False)
    form = await _read_form(request)
    after = safe_next(form.get("next", after))
    given = form.get("token", "").strip().encode("utf-8", "replace")
    refusal = check_token(site, request, given)
    if refusal is not None:
        if refusal.status_code != 401:
            return refusal
        again = await run_in_threadpool(pages.login_form, after, failed=True)
        again.headers["WWW-Authenticate"] = refusal.headers["WWW-Authenticate"]
        return again
    site.tries.succeed(address_of(request))
    response = RedirectResponse(after, 303)
    _set_cookie(request, response, access.make_session(site.keys, time.time()), access.SESSION_S)
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
