"""The application: every route there is, and what each request passes on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from imgsortd.errors import CursorError, FindError, ImgsortdError, ProposalError
from imgsortd.web import api, live, pages, pictures, security
from imgsortd.web.api import VERBS, action, read_request
from imgsortd.web.login import login, logout
from imgsortd.web.replies import error_reply
from imgsortd.web.site import Site
from imgsortd.web.static import static

_STATUS = {FindError: 404, ProposalError: 404, CursorError: 422}
_GZIP_LEAST_BYTES = 1000


class _Row(Convertor[int]):
    """A row's number. Eighteen digits always fit into SQLite's 64 bits, and into int()."""

    regex = "(?:0|[1-9][0-9]{0,17})"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("row", _Row())


def build_app(site: Site) -> Starlette:
    """Put the application together; what its handlers share ends with it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(pages.warm_up)
        await run_in_threadpool(site.look)
        yield
        await site.stop()

    app = Starlette(
        routes=_routes(),
        middleware=[
            Middleware(security.SecureHeaders),
            Middleware(security.Gate, site=site, check=security.check_shape),
            Middleware(security.BodyLimit),
            Middleware(GZipMiddleware, minimum_size=_GZIP_LEAST_BYTES, compresslevel=6),
            Middleware(security.Gate, site=site, check=security.check_login),
            Middleware(security.Gate, site=site, check=security.check_origin),
        ],
        exception_handlers={
            HTTPException: _refused,
            ImgsortdError: _failed,
            ClientDisconnect: _gone,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would redirect to whatever Host was sent
    app.state.site = site
    return app


def _routes() -> list[Route]:
    return [
        Route("/", pages.clusters),
        Route("/clusters/{id:row}", pages.cluster),
        Route("/review", pages.review),
        Route("/refits", pages.refits),
        Route("/similar/{id:row}", pages.similar),
        Route("/status", pages.status),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/parts/clusters", pages.part_clusters),
        Route("/parts/status", pages.part_status),
        Route("/parts/refits", pages.part_refits),
        Route("/static/{version}/{name}", static),
        Route("/pictures/{id:row}/thumbnail", pictures.thumbnail),
        Route("/pictures/{id:row}/preview", pictures.preview),
        Route("/api/clusters", api.clusters),
        Route("/api/clusters/{id:row}/pictures", api.cluster_pictures),
        Route("/api/review", api.review_pictures),
        Route("/api/refits", api.refits),
        Route("/api/refits/{id:row}", api.refit),
        Route("/api/pictures/{id:row}", api.picture),
        Route("/api/pictures/{id:row}/similar", api.similar_pictures),
        Route("/api/status", api.status),
        Route("/api/requests/{id:row}", read_request),
        Route("/api/events", live.events),
        *(Route(f"/api/{verb}", action(verb), methods=["POST"]) for verb in VERBS),
        Route("/healthz", api.healthz),
        Route("/metrics", api.metrics),
    ]


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = error.detail
    if error.status_code == 404 and text == "Not Found":
        text = "there is nothing here"
    return error_reply(request, error.status_code, text, error.headers)


def _failed(request: Request, error: Exception) -> Response:
    """Show an error of ours, whose text is made for a person."""
    found = (status for kind, status in _STATUS.items() if isinstance(error, kind))
    return error_reply(request, next(found, 503), str(error))


def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it
