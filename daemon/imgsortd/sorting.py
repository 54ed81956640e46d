"""``imgsortd sort``: the article's job in one go, on the daemon's pipeline and store."""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

from imgsortd.adapters import fsops
from imgsortd.adapters.crossing import return_orphans
from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.int8_checks import read_check
from imgsortd.adapters.kmeans import fit_kmeans
from imgsortd.adapters.locking import Hold, Locks
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store import Store, open_store
from imgsortd.adapters.weight_sources import default_cache_dir
from imgsortd.adoption import adopt_fit
from imgsortd.batch_report import BatchReport
from imgsortd.config import Config, Precision, check_nesting
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.names import folder_of
from imgsortd.core.records import Candidate, Op, Picture, ReadResult, Unreadable
from imgsortd.errors import FitError, NoSpaceError
from imgsortd.fits import compute_fit, fit_source, nearest_sizes
from imgsortd.flow import Batch, Flow
from imgsortd.following import bring_all
from imgsortd.int8 import TRIAL_IMAGES, make_and_check, openvino_of
from imgsortd.intake import Intake
from imgsortd.library import FeatureExtractor, Library, open_library
from imgsortd.pipeline import end_batch, recover, route_waiting
from imgsortd.sort_job import (
    DEFAULT_CLUSTERS,
    PICTURES_A_CLUSTER,
    STATE_FOLDER,
    SortJob,
    SortReport,
)

# To make and check an int8 model takes as long as some hundred pictures.
_INT8_PAYS_FROM_IMAGES = 1000
_NAMES = {"inbox": "SOURCE", "target": "TARGET", "state_dir": "the state folder"}

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, in all); may raise :class:`StoppedError`."""


def sort_folder(
    job: SortJob, config: Config, extractor: FeatureExtractor, progress: Progress
) -> SortReport:
    """Sort every picture under ``job.source`` into ``cluster_0 … cluster_{N-1}``.

    Raises
    ------
    ConfigError
        The folders contain one another.
    FitError
        Fewer pictures than clusters, or another number of clusters than before.
    StoppedError
        From ``progress``; a second run carries on.
    """
    started = time.perf_counter()
    with _state_dir(job) as state_dir:
        # One job, in one go: every picture gets a folder.
        without_review = {"review_quantile": None, "review_margin": None}
        clusters = config.clusters.model_copy(update=without_review)
        config = config.model_copy(update={"state_dir": state_dir, "clusters": clusters})
        check_nesting(config, "sort", _NAMES)
        if not job.dry_run:
            job.target.mkdir(parents=True, exist_ok=True)
        hold = Hold.ALONE if job.op is Op.MOVE else Hold.TO_READ
        with Locks(state_dir, job.source, hold):
            store = open_store(config.database)
            try:
                library = open_library(config, store, extractor)
                report = _Sort(job, library, progress).run()
            finally:
                store.close()
    report.runs_on = extractor.describe()
    report.total_s = time.perf_counter() - started
    return report


@contextmanager
def _state_dir(job: SortJob) -> Iterator[Path]:
    """Yield the state folder; a dry run without one of its own leaves nothing behind."""
    chosen = job.state_dir or job.target / STATE_FOLDER
    if job.dry_run and job.state_dir is None and not chosen.exists():
        with tempfile.TemporaryDirectory(prefix="imgsortd-dry-run-") as folder:
            yield Path(folder)
    else:
        yield chosen


class _Sort:
    """One run of the job."""

    def __init__(self, job: SortJob, library: Library, progress: Progress) -> None:
        self._job = job
        self._library = library
        self._progress = progress
        self._report = SortReport(str(job.source), str(job.target), job.op, job.dry_run)

    def run(self) -> SortReport:
        store = self._library.store
        if not self._job.dry_run:
            self._count(recover(self._library))
            if self._job.op is Op.MOVE:  # of a disk that was away when their moves ended
                return_orphans(self._job.source, store.journal.unfinished())
            self._copy_again_what_is_missing(store)
        self._check_same_job(store)
        self._extract()
        if self._library.model is None:
            self._fit()
        if self._job.dry_run:
            self._preview()
        else:
            self._route()
        return self._report

    def _copy_again_what_is_missing(self, store: Store) -> None:
        """Take files in again whose copy was deleted from the target since."""
        if self._job.op is Op.MOVE:
            return
        mover = self._library.mover
        missing = [file_id for file_id, dst in store.files.placed() if not mover.exists(dst)]
        with store.atomic():
            store.files.restart(missing)

    def _check_same_job(self, store: Store) -> None:
        record = store.fits.current_record()
        if record is None:
            return
        asked, seed = self._job.n_clusters, self._job.random_state
        if asked not in (None, record.n_clusters) or seed != record.random_state:
            raise FitError(
                f"{self._job.target}: was sorted before with -k {record.n_clusters} "
                f"--random-state {record.random_state}, now asked for -k {asked} "
                f"--random-state {seed}; give the same numbers to carry on, or another TARGET "
                f"with a state folder of its own"
            )

    def _extract(self) -> None:
        """Read the pictures that are new and keep their features."""
        config = self._library.config
        inbox = Inbox(
            config.inbox, config.recursive, config.ignore, config.extensions, config.companions
        )
        intake = Intake(inbox, self._library.store, 0.0, self._library.companions)
        intake.scan(0.0)
        intake.settle(0.0)
        self._report.known_before = self._library.store.files.count_waiting()
        self._report.found = len(intake.queue) + self._report.known_before
        on_cpu = self._library.extractor.on_cpu
        limits = decode_limits(config.pictures)
        reader = PictureReader(config.inbox, limits, model_on_cpu=on_cpu)
        self._read_all(intake.queue, reader)

    def _read_all(self, queue: deque[Candidate], reader: PictureReader) -> None:
        if self._library.config.model.precision is Precision.INT8:
            self._try_int8(list(queue), reader)
        total, done = len(queue), 0
        flow = Flow(self._library, reader)
        started = time.perf_counter()
        self._progress("features", 0, total)
        try:
            flow.fill(queue, 0.0, None)
            while flow.images:
                flow.wait()
                batch = flow.take_done()
                flow.fill(queue, 0.0, None)
                if batch is not None:
                    self._store(batch)
                    done += len(batch.candidates)
                    self._report.images_per_s = done / (time.perf_counter() - started)
                    self._progress("features", done, total)
            self._report.model_busy = flow.busy.last
        finally:
            flow.close()

    def _try_int8(self, candidates: Sequence[Candidate], reader: PictureReader) -> None:
        """Before a large job: make and check an int8 model, unless an earlier job has.

        There are no clusters yet, so it is checked on clusters of its own pictures.
        """
        engine = openvino_of(self._library.extractor)
        if engine is None:
            return
        file = engine.int8_file(default_cache_dir())
        check = read_check(file)
        if check is None and len(candidates) >= _INT8_PAYS_FROM_IMAGES:
            self._progress("int8", 0, 1)
            read = (reader.read(candidate) for candidate in candidates)
            pictures = (result.pixels for result in read if isinstance(result, Picture))
            pixels = list(islice(pictures, TRIAL_IMAGES))
            if len(pixels) == TRIAL_IMAGES:
                n_clusters = min(self._n_clusters(len(candidates)), TRIAL_IMAGES // 10)
                exact = engine.extract_exactly(pixels)
                centers = fit_kmeans(exact, n_clusters, self._job.random_state).centers
                check = make_and_check(engine, pixels, centers, file)
            self._progress("int8", 1, 1)
        self._report.int8 = None if check is None else asdict(check)

    def _n_clusters(self, images: int) -> int:
        return self._job.n_clusters or max(1, min(DEFAULT_CLUSTERS, images // PICTURES_A_CLUSTER))

    def _without_unreadable(self, results: Sequence[ReadResult]) -> Sequence[ReadResult]:
        """A dry run notes what it would set aside, and leaves it at that."""
        if not self._job.dry_run:
            return results
        for result in results:
            if isinstance(result, Unreadable):
                self._note_set_aside(result.candidate.name, result.reason)
        return [result for result in results if not isinstance(result, Unreadable)]

    def _store(self, batch: Batch) -> None:
        computed = batch.computed.result()
        results = self._without_unreadable(batch.extraction.results)
        extraction = replace(batch.extraction, results=results)
        # The model is put on only for routing: here files first get their features.
        model, self._library.model = self._library.model, None
        try:
            self._count(
                end_batch(
                    self._library,
                    extraction,
                    computed.vectors,
                    computed.extract_s,
                    computed.failed,
                )
            )
        finally:
            self._library.model = model

    def _count(self, report: BatchReport) -> None:
        self._report.companions += report.companions
        self._report.sorted += report.sorted
        self._report.duplicates += report.duplicates
        for name, reason in report.set_aside_reasons:
            self._note_set_aside(name, reason)
        self._report.errors.extend(report.errors)
        for name in report.look_again:
            self._report.errors.append(f"{os.fsdecode(name)!r} changed while it was read")
        if report.no_space:
            raise NoSpaceError(
                f"{self._job.target}: the disk is full; free some space and run the same "
                f"command again, it carries on where it stopped"
            )

    def _note_set_aside(self, name: bytes, reason: str) -> None:
        self._report.set_aside.append({"file": os.fsdecode(name), "reason": reason})

    def _fit(self) -> None:
        source = fit_source(self._library)
        if not source.n_images:
            raise FitError(f"{self._job.source}: no picture that can be read was found there")
        n_clusters = self._n_clusters(source.n_images)
        self._progress("fit", 0, 1)
        fitted = compute_fit(source, n_clusters, self._job.random_state)
        summary = adopt_fit(self._library, fitted, FitTrigger.SORT, dry_run=self._job.dry_run)
        self._report.clusters = dict(summary.sizes)
        self._report.n_clusters = len(summary.sizes)
        self._progress("fit", 1, 1)

    def _preview(self) -> None:
        """Count what a real run would place, without placing it."""
        model = self._library.model
        if model is not None:
            self._report.n_clusters = len(model.cluster_ids)
            self._report.clusters = nearest_sizes(self._library, model)
        self._report.sorted = sum(self._report.clusters.values())

    def _route(self) -> None:
        library, model = self._library, self._library.model
        assert model is not None
        named = library.store.records.named_folders()
        with fsops.Folders(library.config.target) as target:
            for cluster_id in model.cluster_ids:
                folder = folder_of(cluster_id, named)
                target.make(folder)
                target.close(folder)
        total, done = library.store.files.count_waiting(), 0
        self._progress("folders", 0, total)
        while (report := route_waiting(library)).images and not report.errors:
            self._count(report)
            done += report.images
            self._progress("folders", done, total)
        self._count(report)
        for report in bring_all(library):
            self._count(report)
        self._report.n_clusters = len(model.cluster_ids)
        sizes = library.store.files.cluster_sizes()
        self._report.clusters = {number: sizes.get(number, 0) for number in model.cluster_ids}
