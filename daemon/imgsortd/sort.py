"""``imgsortd sort``: the article's job in one go, on the daemon's pipeline and store."""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from imgsortd.clusters.fit import compute_fit, fit_source, nearest_sizes
from imgsortd.clusters.kmeans import fit_kmeans
from imgsortd.config import check_nesting
from imgsortd.config.model import Config
from imgsortd.config.values import Precision
from imgsortd.errors import FitError, ImgsortdError, NoSpaceError
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.library import Library, open_library
from imgsortd.moves.roots import Roots, own_target, read_marker
from imgsortd.names import folder_of
from imgsortd.networks.int8_checks import read_check
from imgsortd.networks.model_thread import ModelThread
from imgsortd.networks.resident import FeatureExtractor
from imgsortd.networks.sources import default_cache_dir
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.flow import Flow
from imgsortd.pipeline.following import bring_all
from imgsortd.pipeline.int8 import TRIAL_IMAGES, make_and_check, openvino_of
from imgsortd.pipeline.line import Line, Way
from imgsortd.pipeline.rereading import Rereading
from imgsortd.records import (
    REBUILT,
    BatchReport,
    Candidate,
    FitTrigger,
    Op,
    Picture,
    ReadResult,
    StageProgress,
    Unreadable,
)
from imgsortd.refits.adopting import Adoption
from imgsortd.store.database import Store, open_for_writing
from imgsortd.store.library import LibraryFile
from imgsortd.system import filesystem
from imgsortd.system.locks import Hold, Locks
from imgsortd.target.rebuild import open_or_restore

# To make and check an int8 model takes as long as some hundred pictures.
_INT8_PAYS_FROM_IMAGES = 1000
_NAMES = {"inbox": "SOURCE", "target": "TARGET", "state_dir": "the state folder"}

DEFAULT_CLUSTERS = 100
STATE_FOLDER = ".imgsortd"
PICTURES_A_CLUSTER = 10

_LOOK_S = 0.005


def sort_folder(
    job: SortJob, config: Config, extractor: FeatureExtractor, progress: StageProgress
) -> SortReport:
    """Sort every picture under ``job.source`` into ``cluster_0 … cluster_{N-1}``.

    Raises
    ------
    ConfigError
        The folders contain one another.
    FitError
        Fewer pictures than clusters, or another number of clusters than before.
    OwnedError, LockedError
        The target is another library's, or somebody is at work in one of the folders.
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
        chosen = job.state_dir or job.target / STATE_FOLDER
        asked = config.model_copy(update={"state_dir": chosen})
        own_target(asked, LibraryFile(chosen), adopt=job.adopt, dry_run=True)
        hold = Hold.ALONE if job.op is Op.MOVE else Hold.TO_READ
        with Locks(state_dir, job.source, hold, job.target) as locks:
            if not job.dry_run:
                own_target(config, LibraryFile(state_dir), adopt=job.adopt)
            with _open(job, config) as store:
                _check_same_job(job, store)
                roots = Roots(config, store, lambda: locks.also(state_dir, job.source, job.target))
                whereabouts = Whereabouts(job.source, roots, lambda: None, locks.is_removed)
                whereabouts.accept()
                if not job.dry_run:
                    job.target.mkdir(parents=True, exist_ok=True)
                    roots.enter_inbox()
                    roots.claim_target(adopt=job.adopt)
                library = open_library(
                    config, store, extractor, roots, may_reextract=_is_rebuilt(store)
                )
                report = _Sort(job, library, whereabouts, progress).run()
    report.runs_on = extractor.describe()
    report.total_s = time.perf_counter() - started
    return report


@contextmanager
def _state_dir(job: SortJob) -> Iterator[Path]:
    """Yield the state folder; a dry run without one of its own leaves nothing behind."""
    chosen = job.state_dir or job.target / STATE_FOLDER
    if job.dry_run and not (chosen / "imgsortd.db").exists():
        with tempfile.TemporaryDirectory(prefix="imgsortd-dry-run-") as folder:
            yield Path(folder)
    else:
        yield chosen


def _open(job: SortJob, config: Config) -> Store:
    """Open the store; where that of an earlier sort is lost, it is made anew from TARGET."""
    if job.dry_run or read_marker(job.target) is None:
        return open_for_writing(config.database)
    return open_or_restore(config, adopt=job.adopt)


def _is_rebuilt(store: Store) -> bool:
    model = store.fits.current()
    return model is not None and model.extractor.weights_digest == REBUILT


def _check_same_job(job: SortJob, store: Store) -> None:
    record = store.fits.current_record()
    if record is None:
        return
    asked, seed = job.n_clusters, job.random_state
    if record.trigger is FitTrigger.REBUILD:
        return
    if asked not in (None, record.n_clusters) or seed != record.random_state:
        raise FitError(
            f"{job.target}: was sorted before with -k {record.n_clusters} "
            f"--random-state {record.random_state}, now asked for -k {asked} "
            f"--random-state {seed}; give the same numbers to carry on, or another TARGET "
            f"with a state folder of its own"
        )


class _Sort:
    """One run of the job."""

    def __init__(
        self, job: SortJob, library: Library, whereabouts: Whereabouts, progress: StageProgress
    ) -> None:
        self._job = job
        self._library = library
        self._whereabouts = whereabouts
        self._progress = progress
        self._line = Line(
            library.store,
            library.extractor,
            library.in_force,
            library.moves,
            library.companions,
            lambda: whereabouts.is_away,
        )
        self._report = SortReport(str(job.source), str(job.target), job.op, job.dry_run)

    def run(self) -> SortReport:
        store = self._library.store
        if not self._job.dry_run:
            self._count(self._library.moves.recover())
            self._copy_again_what_is_missing(store)
        self._extract()
        if self._library.in_force.model is None:
            self._fit()
        if self._job.dry_run:
            self._preview()
        else:
            self._route()
        return self._report

    def _copy_again_what_is_missing(self, store: Store) -> None:
        """Take files in again whose copy was deleted from the target, or is in another one."""
        if self._job.op is Op.MOVE:
            return
        mover = self._library.mover
        missing = [file_id for file_id, dst in store.files.placed() if not mover.exists(dst)]
        missing += store.files.placed_elsewhere()
        with store.atomic():
            store.files.restart(missing)

    def _extract(self) -> None:
        """Read the pictures that are new and keep their features."""
        config = self._library.config
        inbox = Inbox(
            config.inbox, config.recursive, config.ignore, config.extensions, config.companions
        )
        store, companions = self._library.store, self._library.companions
        intake = Intake(inbox, store, self._whereabouts, companions, 0.0)
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
        library = self._library
        flow = Flow(self._way, reader, library.extractor, library.config)
        started = time.perf_counter()
        self._progress("features", 0, total)
        try:
            flow.fill(queue, 0.0, None)
            while flow.images:
                flow.wait()
                batch = flow.take_done()
                flow.fill(queue, 0.0, None)
                if batch is not None:
                    self._count(batch.end())
                    done += len(batch.candidates)
                    self._report.images_per_s = done / (time.perf_counter() - started)
                    self._progress("features", done, total)
            self._report.model_busy = flow.busy.last
            self._read_again(flow.model)
        finally:
            flow.close()

    def _read_again(self, model: ModelThread) -> None:
        """Make features of what was sorted before its state was lost: a fit needs them."""
        library = self._library
        rereading = Rereading(
            library.config, library.store, library.extractor, library.in_force.former, model
        )
        try:
            while not rereading.is_over:
                if not rereading.step(may_begin=True):
                    time.sleep(_LOOK_S)
                self._progress("again", rereading.done, rereading.total)
        finally:
            rereading.close()

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

    def _way(self, results: Sequence[ReadResult]) -> Way:
        """Routing comes later: here files first get their features."""
        return self._line.way(self._without_unreadable(results), routes=False)

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
        library = self._library
        source = fit_source(library.store, library.extractor.id, library.in_force)
        if not source.n_images:
            raise FitError(f"{self._job.source}: no picture that can be read was found there")
        former = library.in_force.former
        if former is None:
            n_clusters, trigger = self._n_clusters(source.n_images), FitTrigger.SORT
        else:
            n_clusters = min(len(former.cluster_ids), source.n_images)
            trigger = FitTrigger.REBUILD
        self._progress("fit", 0, 1)
        fitted = compute_fit(source, n_clusters, self._job.random_state)
        adoption = Adoption(
            library.config, library.store, library.extractor.id, library.in_force, library.moves
        )
        summary = adoption.adopt(fitted, trigger, dry_run=self._job.dry_run)
        self._report.clusters = dict(summary.sizes)
        self._report.n_clusters = len(summary.sizes)
        self._progress("fit", 1, 1)

    def _preview(self) -> None:
        """Count what a real run would place, without placing it."""
        model = self._library.in_force.model
        if model is not None:
            self._report.n_clusters = len(model.cluster_ids)
            self._report.clusters = nearest_sizes(self._library.store, model)
        self._report.sorted = sum(self._report.clusters.values())

    def _route(self) -> None:
        library, model = self._library, self._library.in_force.model
        assert model is not None
        named = library.store.records.named_folders()
        with filesystem.Folders(library.config.target) as target:
            for cluster_id in model.cluster_ids:
                folder = folder_of(cluster_id, named)
                target.make(folder)
                target.close(folder)
        total, done = library.store.files.count_waiting(), 0
        self._progress("folders", 0, total)
        while (report := self._line.route_waiting()).images and not report.errors:
            self._count(report)
            done += report.images
            self._progress("folders", done, total)
        self._count(report)
        for report in bring_all(library.store, library.companions, library.moves, library.config):
            self._count(report)
        self._report.n_clusters = len(model.cluster_ids)
        sizes = library.store.files.cluster_sizes()
        self._report.clusters = {number: sizes.get(number, 0) for number in model.cluster_ids}


class StoppedError(ImgsortdError):
    """The person stopped the job; what was done is kept."""


@dataclass(frozen=True, slots=True)
class SortJob:
    """What ``imgsortd sort`` was asked for.

    ``n_clusters`` None means the article's 100, or one for every ten pictures
    where there are fewer than 1,000. ``adopt`` takes the target over from another library.
    """

    source: Path
    target: Path
    n_clusters: int | None
    op: Op
    state_dir: Path | None
    recursive: bool
    random_state: int
    dry_run: bool
    adopt: bool = False


@dataclass(slots=True)
class SortReport:
    """What came of it.

    ``clusters`` maps cluster ids to pictures placed in their folders; ``model_busy`` is
    the share of the time for features in which the model computed.
    """

    source: str
    target: str
    op: str
    dry_run: bool
    n_clusters: int = 0
    found: int = 0
    known_before: int = 0
    sorted: int = 0
    duplicates: int = 0
    companions: int = 0
    set_aside: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    clusters: dict[int, int] = field(default_factory=dict)
    runs_on: str = ""
    images_per_s: float = 0.0
    model_busy: float | None = None
    int8: dict[str, Any] | None = None
    total_s: float = 0.0
