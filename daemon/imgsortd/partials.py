"""When is a change of a few clusters to be proposed? For a giant cluster, a group in review."""

from __future__ import annotations

import logging

from imgsortd.adapters.store_review import ReviewRows
from imgsortd.core.grouping import LEAST_PICTURES
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.records import Model, Op
from imgsortd.library import Library
from imgsortd.partial_fits import PartialSource

log = logging.getLogger(__name__)


class Partials:
    """Looks after each fit, and as review grows; nothing is proposed twice.

    What was tried is tried again when the cluster, or review, has a quarter more pictures.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._giants: list[tuple[int, int]] = []
        self._fit_id: int | None = None
        self._tried: dict[tuple[FitTrigger, int | None], int] = {}

    def due(self) -> PartialSource | None:
        """Tell what is to be computed now; None while a proposal waits."""
        library = self._library
        if library.model is None:
            return None
        if library.model.fit_id != self._fit_id:
            self._look_at_fit(library.model.fit_id)
        waits: list[tuple[FitTrigger, int | None, int]] = [
            (FitTrigger.SPLIT, cluster_id, images) for cluster_id, images in self._giants
        ]
        in_review = library.store.files.counts().review
        is_known = library.model.distances is not None and not self._is_to_be_asked(library.model)
        if in_review >= LEAST_PICTURES and is_known:
            waits.append((FitTrigger.REVIEW, None, in_review))
        fresh = [wait for wait in waits if 4 * wait[2] > 5 * self._tried.get(wait[:2], 0)]
        if not fresh or library.store.proposals.waiting() is not None:
            return None
        for trigger, cluster_id, images in fresh:
            if not library.store.proposals.was_refused(trigger, cluster_id, images):
                return self._source(trigger, cluster_id, images)
        return None

    def _is_to_be_asked(self, model: Model) -> bool:
        """Tell whether the fit in force may take pictures out of review yet by itself."""
        rows = ReviewRows(self._library.store.connection)
        return self._library.config.op is not Op.SYMLINK and bool(rows.before(model.fit_id, 1))

    def tried(self, source: PartialSource) -> None:
        """Learn that it was computed, whatever came of it."""
        self._tried[source.trigger, source.cluster_id] = source.images

    def _look_at_fit(self, fit_id: int) -> None:
        self._fit_id, self._tried = fit_id, {}
        share = self._library.config.clusters.max_share
        records = self._library.store.records
        self._giants = records.giants(fit_id, share)
        total = sum(size for _, size in records.fitted_sizes(fit_id))
        for cluster_id, images in self._giants:
            log.warning(
                "cluster too large cluster=%d images=%d share=%.3f max_share=%g",
                cluster_id,
                images,
                images / total,
                share,
            )

    def _source(self, trigger: FitTrigger, cluster_id: int | None, images: int) -> PartialSource:
        config = self._library.config
        return PartialSource(
            trigger,
            config.database,
            cluster_id,
            images,
            config.clusters.max_share or 1.0,
            config.clusters.random_state,
            self._library.review_rule,
        )
