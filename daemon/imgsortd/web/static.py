"""Style sheet, scripts and icon: a fixed list of files that came with the program.

Their address holds a digest of them all, so that a browser keeps them for good and a script
finds those beside it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DIGITS = 12


@cache
def _files() -> dict[str, bytes]:
    folder = files("imgsortd.web").joinpath("static")
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


@cache
def _version() -> str:
    digest = hashlib.sha256()
    for name, content in sorted(_files().items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()[:_DIGITS]


def address(name: str) -> str:
    """Return the path under which a file of the package is served."""
    if name not in _files():
        raise KeyError(name)
    return f"/static/{_version()}/{name}"


async def static(request: Request) -> Response:
    """Serve one of them; another version's page is to be loaded anew, so it gets none."""
    name = request.path_params["name"]
    content = _files().get(name)
    if content is None or request.path_params["version"] != _version():
        raise HTTPException(404, "There is no such file.")
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(content, headers=headers, media_type=_TYPES[PurePath(name).suffix])
