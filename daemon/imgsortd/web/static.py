"""Style sheet, scripts and icon: a fixed list of files that came with the program.

Their address holds a digest of them all, so that a browser keeps them for good and a script
finds those beside it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str


@cache
def _files() -> dict[str, _File]:
    folder = files("imgsortd.web").joinpath("static")
    return {
        entry.name: _File(entry.read_bytes(), _TYPES[entry.name[entry.name.rindex(".") :]])
        for entry in folder.iterdir()
        if entry.is_file()
    }


@cache
def _version() -> str:
    digest = hashlib.sha256()
    for name, file in sorted(_files().items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.content).digest())
    return digest.hexdigest()[:_DIGITS]


def address(name: str) -> str:
    """Return the path under which a file of the package is served."""
    if name not in _files():
        raise KeyError(name)
    return f"/static/{_version()}/{name}"


async def static(request: Request) -> Response:
    """Serve one of them; another version's page is to be loaded anew, so it gets none."""
    file = _files().get(request.path_params["name"])
    if file is None or request.path_params["version"] != _version():
        raise HTTPException(404, "There is no such file.")
    return Response(
        file.content,
        media_type=file.media_type,
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )
