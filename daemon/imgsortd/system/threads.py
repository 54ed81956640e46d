"""Work beside the loop, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def begin(compute: Callable[[], T], name: str) -> Future[T]:
    """Compute in a thread of its own; unlike a pool's, it does not hold up the process's end."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(compute())
        except Exception as error:  # told by the loop; out of memory is no reason to stop sorting
            future.set_exception(error)

    Thread(target=work, name=name, daemon=True).start()
    return future
