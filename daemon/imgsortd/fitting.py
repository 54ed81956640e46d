"""Fits in the background of routing: one at a time, in a thread that knows no store."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from imgsortd.adapters.kmeans import Fit
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.pipeline import FitData, compute_fit


@dataclass(frozen=True, slots=True)
class FitJob:
    """A fit under way, and who asked for it."""

    trigger: FitTrigger
    data: FitData
    future: Future[Fit]
    request_id: int | None
    dry_run: bool


class FitRunner:
    """Runs one fit at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fit")
        self.job: FitJob | None = None

    def start(
        self,
        data: FitData,
        n_clusters: int,
        random_state: int,
        trigger: FitTrigger,
        *,
        request_id: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Begin a fit; :attr:`job` is it until :meth:`take` gives it back."""
        future = self._pool.submit(compute_fit, data, n_clusters, random_state)
        self.job = FitJob(trigger, data, future, request_id, dry_run)

    def take(self) -> FitJob | None:
        """Return the job once it is done, and be free for another."""
        if self.job is None or not self.job.future.done():
            return None
        job, self.job = self.job, None
        return job

    def close(self) -> None:
        """Leave a fit that runs to its end unused; it has written nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
