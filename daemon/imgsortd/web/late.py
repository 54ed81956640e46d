"""Modules of the page that are looked up when they are first called."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


class LateModule:
    """Stands for a module; a function of it that is not there answers 501."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(importlib.import_module(self._name), name)
        except (ModuleNotFoundError, AttributeError) as error:
            raise HTTPException(501, f"{self._name}.{name} is not there yet") from error


class LateHandlers:
    """Stands for a module of handlers, coroutines or plain functions."""

    def __init__(self, name: str) -> None:
        self._module = LateModule(name)

    def __getattr__(self, name: str) -> Handler:
        async def handler(request: Request) -> Response:
            function = getattr(self._module, name)
            if inspect.iscoroutinefunction(function):
                response: Response = await function(request)
                return response
            return await run_in_threadpool(function, request)

        handler.__name__ = name
        return handler
