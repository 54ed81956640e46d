"""``/api/…``: what the readers find, as JSON; and changes, left as rows of ``requests``."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from imgsortd.config.model import Config
from imgsortd.store.database import open_beside_daemon, open_for_reading
from imgsortd.system.locks import running_pid
from imgsortd.target.placing import MOST_FILES
from imgsortd.web import review, similar, wall
from imgsortd.web.health import is_healthy, metrics_text, read_health
from imgsortd.web.refits import compare, history
from imgsortd.web.replies import Json, text_reply
from imgsortd.web.shown import decimal
from imgsortd.web.site import site_of

MOST_UNANSWERED = 200
_MOST_ROW = 2**63 - 1
_MOST_NAME = 255
_MOST_CURSOR = 200
_FINDINGS = 3


def clusters(request: Request) -> Response:
    """Answer ``/api/clusters``."""
    site = site_of(request)
    with open_for_reading(site.config.database) as store:
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
    limit = _number(request, "limit", wall.DEFAULT_PICTURES, least=1, most=wall.MOST_PICTURES)
    with open_for_reading(site.config.database) as store:
        number = request.path_params["id"]
        return Json(site.wall.pictures(store, number, wall.Order(order), after, limit))


def review_pictures(request: Request) -> Response:
    """Answer ``/api/review``."""
    site = site_of(request)
    after = _number(request, "after", 0, least=0, most=_MOST_ROW)
    limit = _number(request, "limit", review.DEFAULT_PICTURES, least=1, most=review.MOST_PICTURES)
    with open_for_reading(site.config.database) as store:
        return Json(site.review.read(store, after, limit))


def refits(request: Request) -> Response:
    """Answer ``/api/refits``."""
    with open_for_reading(site_of(request).config.database) as store:
        return Json(history(store))


def refit(request: Request) -> Response:
    """Answer ``/api/refits/{id}``."""
    with open_for_reading(site_of(request).config.database) as store:
        return Json(compare(store, request.path_params["id"]))


def picture(request: Request) -> Response:
    """Answer ``/api/pictures/{id}``."""
    site = site_of(request)
    with open_for_reading(site.config.database) as store:
        return Json(similar.read_picture(site.config, store, request.path_params["id"]))


def similar_pictures(request: Request) -> Response:
    """Answer ``/api/pictures/{id}/similar``."""
    site = site_of(request)
    count = _number(request, "count", similar.DEFAULT_PICTURES, least=1, most=similar.MOST_PICTURES)
    with open_for_reading(site.config.database) as store:
        return Json(similar.find_similar(site.config, store, request.path_params["id"], count))


def status(request: Request) -> Response:
    """Answer ``/api/status``."""
    return Json(read_health(site_of(request).config))


def healthz(request: Request) -> Response:
    """Answer ``/healthz``: 200 or 503 and a few words; it is open to all."""
    fine, text = is_healthy(site_of(request).config)
    return text_reply(text, 200 if fine else 503)


def metrics(request: Request) -> Response:
    """Answer ``/metrics``."""
    body, media_type = metrics_text(site_of(request).config)
    return Response(body, headers={"Content-Type": media_type})


def _number(request: Request, name: str, default: int, *, least: int, most: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    number = decimal(given, 19)
    if number is None or not least <= number <= most:
        raise HTTPException(422, f"{name}: expected a whole number from {least} to {most}")
    return number


# --- changes --------------------------------------------------------------------------------------


def _each_once(files: list[int]) -> list[int]:
    if len(set(files)) != len(files):
        raise PydanticCustomError("files", "expected each file once")
    return files


Row = Annotated[int, Field(ge=0, le=_MOST_ROW)]
Files = Annotated[list[Row], Field(min_length=1, max_length=MOST_FILES), AfterValidator(_each_once)]
Name = Annotated[str, Field(max_length=_MOST_NAME)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Place(_Body):
    cluster: Row | None = None
    folder: Annotated[str, Field(min_length=1, max_length=_MOST_NAME)] | None = None
    review: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> _Place:
        given = [getattr(self, name) for name in self.model_fields_set]
        if len(given) != 1 or None in given:
            raise PydanticCustomError("to", "expected one of cluster, folder and review")
        return self


class _RetryBody(_Body):
    files: Files


class _PlaceBody(_RetryBody):
    to: _Place


class _UndoBody(_Body):
    batch: Row
    since_s: None = None


class _RenameBody(_Body):
    cluster_id: Row
    name: Name


class _DecisionBody(_Body):
    fit_id: Row
    move: bool | None = None
    """Whether files follow; None for what the configuration says."""


class _RollbackBody(_Body):
    fit_id: None = None
    move: bool | None = None


class _RefitBody(_Body):
    n_clusters: Annotated[int, Field(ge=1, le=10_000)] | None = None
    dry_run: bool = False
    accept: bool = False
    keep_files: bool = False


VERBS: dict[str, type[_Body]] = {
    "place": _PlaceBody,
    "retry": _RetryBody,
    "undo": _UndoBody,
    "rename": _RenameBody,
    "accept": _DecisionBody,
    "reject": _DecisionBody,
    "rollback": _RollbackBody,
    "refit": _RefitBody,
}


def action(verb: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return the handler of ``POST /api/VERB``: 202 with the number of the request."""
    model = VERBS[verb]

    async def handler(request: Request) -> Response:
        if not _is_json(request.headers.get("content-type", "")):
            raise HTTPException(415, "expected Content-Type: application/json")
        params = _params(model, await request.body())
        number = await run_in_threadpool(leave, site_of(request).config, verb, params)
        return Json({"request": number}, 202)

    handler.__name__ = f"post_{verb}"
    return handler


def read_request(request: Request) -> Response:
    """Answer ``GET /api/requests/{id}``: how far it is, and what came of it."""
    number = request.path_params["id"]
    with open_for_reading(site_of(request).config.database) as store:
        if not store.control.has_request(number):
            raise HTTPException(404, f"there is no request {number}")
        found = asdict(store.control.request(number))
    told = ("verb", "state", "progress", "result")
    return Json({"request": number} | {name: found[name] for name in told})


def _is_json(content_type: str) -> bool:
    kind, _, parameter = content_type.partition(";")
    charset = parameter.strip().lower().replace('"', "")
    return kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")


def _params(model: type[_Body], body: bytes) -> dict[str, Any]:
    try:
        checked = model.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, _sentence(error)) from error
    given = checked.model_dump()
    if isinstance(checked, _PlaceBody):
        given["to"] = checked.to.model_dump(exclude_unset=True)
    return given


def _sentence(error: ValidationError) -> str:
    findings = error.errors(include_url=False, include_context=False, include_input=False)
    lines = []
    for finding in findings[:_FINDINGS]:
        where = ".".join(str(part) for part in finding["loc"])[:80]
        lines.append(f"{where}: {finding['msg']}" if where else finding["msg"])
    if len(findings) > _FINDINGS:
        lines.append(f"and {len(findings) - _FINDINGS} more")
    return "; ".join(lines)


def leave(config: Config, verb: str, params: dict[str, Any]) -> int:
    """Leave a request for the daemon; return its number.

    Raises
    ------
    HTTPException
        503: no daemon runs; 429: too many requests wait.
    StoreError
        The database cannot be written.
    """
    if running_pid(config.state_dir) is None or not config.database.exists():
        raise HTTPException(
            503,
            "the daemon is not running, so nothing can be changed; start it: "
            "systemctl start imgsortd, or imgsortd run -c config.yaml",
        )
    with open_beside_daemon(config.database) as store, store.atomic():
        if store.control.unanswered() >= MOST_UNANSWERED:
            raise HTTPException(
                429,
                f"{MOST_UNANSWERED} requests wait for the daemon already; try again later",
                {"Retry-After": "10"},
            )
        return store.control.ask(verb, params)
