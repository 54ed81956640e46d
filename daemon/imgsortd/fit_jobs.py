"""Work on features beside the loop: a thread that only reads, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from imgsortd.adapters.store_control import Request
from imgsortd.adoption import FitSummary
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model
from imgsortd.fits import Fitted
from imgsortd.partial_fits import PartialFit

T = TypeVar("T")


class Progress:
    """How far a fit has come: told by its thread, shown by the loop's."""

    def __init__(self, now_s: float, log_every_s: float) -> None:
        self._log_every_s = log_every_s
        self.text = ""
        self.shown = ""
        self.next_row_s = now_s
        self.next_log_s = now_s + log_every_s

    def tell(self, text: str) -> None:
        """Say it; any thread may."""
        self.text = text

    def is_to_be_logged(self, now_s: float) -> bool:
        """Tell so once in ``log_every_s`` seconds."""
        if now_s < self.next_log_s:
            return False
        self.next_log_s = now_s + self._log_every_s
        return True


@dataclass(frozen=True, slots=True)
class Job:
    """A fit, or a change of a few clusters, on its way.

    Attributes
    ----------
    basis
        The model in force when it began, which its old labels are of.
    request
        Who asked for it; None where nobody did.
    summary
        Set when it was adopted or proposed, for what follows may fail and be tried again.
    """

    trigger: FitTrigger
    future: Future[Fitted] | Future[PartialFit | None]
    progress: Progress
    basis: Model | None
    request: Request | None = None
    summary: FitSummary | None = None

    @property
    def params(self) -> dict[str, Any]:
        """Return what was asked for."""
        return self.request.params if self.request else {}

    @property
    def is_dry_run(self) -> bool:
        """Tell whether nothing is to be changed."""
        return bool(self.params.get("dry_run"))


def begin(compute: Callable[[], T]) -> Future[T]:
    """Compute in a thread of its own; unlike a pool's, it does not hold up the daemon's end."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(compute())
        except Exception as error:  # told by the loop; out of memory is no reason to stop sorting
            future.set_exception(error)

    Thread(target=work, name="fit", daemon=True).start()
    return future
