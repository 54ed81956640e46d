"""Changes that a page asks for: rows of ``requests``, which the daemon carries out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from imgsortd.adapters.locking import running_pid
from imgsortd.asking import open_to_ask
from imgsortd.config import Config
from imgsortd.web.replies import Json
from imgsortd.web.site import open_library, site_of

MOST_UNANSWERED = 200
MOST_FILES = 5_000
_MOST_ROW = 2**63 - 1
_MOST_NAME = 255
_FINDINGS = 3


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
        if len(self.model_fields_set) != 1 or None in (
            getattr(self, n) for n in self.model_fields_set
        ):
            raise PydanticCustomError("to", "expected one of cluster, folder and review")
        return self


class _PlaceBody(_Body):
    files: Files
    to: _Place


class _RetryBody(_Body):
    files: Files


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
    with open_library(site_of(request)) as store:
        if not store.control.has_request(number):
            raise HTTPException(404, f"there is no request {number}")
        found = store.control.request(number)
    return Json(
        {
            "request": number,
            "verb": found.verb,
            "state": found.state,
            "progress": found.progress,
            "result": found.result,
        }
    )


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
        where = ".".join(str(part) for part in finding["loc"])
        what = finding["msg"]
        lines.append(f"{where[:80]}: {what}" if where else what)
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
    with open_to_ask(config) as store, store.atomic():
        if store.control.unanswered() >= MOST_UNANSWERED:
            raise HTTPException(
                429,
                f"{MOST_UNANSWERED} requests wait for the daemon already; try again later",
                {"Retry-After": "10"},
            )
        return store.control.ask(verb, params)
