"""``GET /api/…``: what the readers find, as JSON."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from imgsortd.web import comparing, health, resemblance
from imgsortd.web.metrics import metrics_text
from imgsortd.web.replies import Json, plain
from imgsortd.web.site import open_library, site_of
from imgsortd.web.wall import Order

_MOST_ROW = 2**63 - 1
_MOST_CURSOR = 200
_MOST_PICTURES, _PICTURES = 5_000, 2_000
_MOST_REVIEW, _REVIEW = 200, 50
_MOST_ALIKE, _ALIKE = 200, 60


def clusters(request: Request) -> Response:
    """Answer ``/api/clusters``."""
    site = site_of(request)
    with open_library(site) as store:
        return Json(site.overview.read(site.config, store))


def cluster_pictures(request: Request) -> Response:
    """Answer ``/api/clusters/{id}/pictures``."""
    site = site_of(request)
    order = request.query_params.get("order", "near")
    if order not in ("near", "new"):
        raise HTTPException(422, "order: expected near or new")
    after = request.query_params.get("after") or None
    if after is not None and len(after) > _MOST_CURSOR:
        raise HTTPException(422, "after: expected what an earlier answer gave as next")
    limit = _number(request, "limit", _PICTURES, least=1, most=_MOST_PICTURES)
    with open_library(site) as store:
        number = request.path_params["id"]
        return Json(site.wall.pictures(store, number, Order(order), after, limit))


def review(request: Request) -> Response:
    """Answer ``/api/review``."""
    site = site_of(request)
    after = _number(request, "after", 0, least=0, most=_MOST_ROW)
    limit = _number(request, "limit", _REVIEW, least=1, most=_MOST_REVIEW)
    with open_library(site) as store:
        return Json(site.review.read(store, after, limit))


def refits(request: Request) -> Response:
    """Answer ``/api/refits``."""
    site = site_of(request)
    with open_library(site) as store:
        return Json(comparing.history(site.config, store))


def refit(request: Request) -> Response:
    """Answer ``/api/refits/{id}``."""
    site = site_of(request)
    with open_library(site) as store:
        return Json(comparing.compare(site.config, store, request.path_params["id"]))


def picture(request: Request) -> Response:
    """Answer ``/api/pictures/{id}``."""
    site = site_of(request)
    with open_library(site) as store:
        return Json(resemblance.picture(site.config, store, request.path_params["id"]))


def similar(request: Request) -> Response:
    """Answer ``/api/pictures/{id}/similar``."""
    site = site_of(request)
    count = _number(request, "count", _ALIKE, least=1, most=_MOST_ALIKE)
    with open_library(site) as store:
        return Json(resemblance.similar(site.config, store, request.path_params["id"], count))


def status(request: Request) -> Response:
    """Answer ``/api/status``."""
    return Json(health.read_health(site_of(request).config))


def healthz(request: Request) -> Response:
    """Answer ``/healthz``: 200 or 503 and a few words; it is open to all."""
    fine, text = health.is_healthy(site_of(request).config)
    return plain(text, 200 if fine else 503)


def metrics(request: Request) -> Response:
    """Answer ``/metrics``."""
    body, media_type = metrics_text(site_of(request).config)
    return Response(body, headers={"Content-Type": media_type})


def _number(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    given: Any = request.query_params.get(name)
    if given is None:
        return default
    is_number = given.isascii() and given.isdecimal() and len(given) <= 19
    if not (is_number and least <= int(given) <= most):
        raise HTTPException(422, f"{name}: expected a whole number from {least} to {most}")
    return int(given)
