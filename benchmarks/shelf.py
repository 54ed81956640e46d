"""A library in a folder of its own, sorted by imgsortd's own line, of which only features exist.

Its pictures are small real files: they arrive, are routed, fitted and moved as a daemon does it,
on a clock that is made up. Nothing is decoded, and no model runs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.running import write_config
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.store import open_store
from imgsortd.adapters.store_proposals import KeptFit
from imgsortd.adoption import FitSummary, make_following, settle_fit
from imgsortd.batch_report import BatchReport
from imgsortd.config import load_config
from imgsortd.core.lifecycle import Age, FitTrigger, Start
from imgsortd.core.names import cluster_of, folder_of
from imgsortd.core.records import ExtractorId, FileState, KRange, Picture, Pixels, Vectors
from imgsortd.core.routing import nearest
from imgsortd.corrections import Corrections
from imgsortd.deciding import accept
from imgsortd.fits import compute_fit, fit_source
from imgsortd.fitting import BackgroundFits
from imgsortd.intake import Intake
from imgsortd.library import open_library
from imgsortd.pipeline import process_batch, route_waiting
from imgsortd.reviewing import route_review

Labels = npt.NDArray[np.intp]
_AT_ONCE = 64
_SIDE_PX = 32
_MOST_STEP_S = 30.0


class _Kept:
    """A FeatureExtractor that has made the features: a picture is the number of its row."""

    def __init__(self, extractor: ExtractorId, features: Vectors) -> None:
        self.id, self._features = extractor, features
        self.batch_images = _AT_ONCE
        self.on_cpu = True

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return the features of the numbers, float32 [n, d]."""
        return self._features[[int.from_bytes(picture.tobytes()[:8]) for picture in pixels]]

    def describe(self) -> str:
        """Say that there is no model."""
        return "no model"

    def unload(self) -> None:
        """Free nothing."""


class Shelf:
    """Pictures by number, which is the row of their features, float32 [n, d].

    Attributes
    ----------
    store, library
        What the daemon would have open.
    now_s
        Seconds on its clock.
    """

    def __init__(
        self, folder: Path, extractor: ExtractorId, features: Vectors, **settings: Any
    ) -> None:
        config = load_config(write_config(folder, settle_s=0.0, **settings))
        self.store = open_store(config.database)
        self.library = open_library(config, self.store, _Kept(extractor, features))
        inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
        self._intake = Intake(inbox, self.store, 0.0, self.library.companions)
        self._inbox, self._target = config.inbox, config.target
        self._fits = self._background()
        self.now_s = 0.0
        self._may_wait = False

    def _background(self) -> BackgroundFits:
        def tell(event: str, detail: str) -> None:
            raise AssertionError(f"{event}: {detail}")

        return BackgroundFits(
            self.library,
            lambda _event, report: self._learn(report),
            tell,
            arrivals=lambda now_s: self._intake.arrivals(now_s, 0),
        )

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    # --- what a person does ------------------------------------------------------------

    def drop(self, numbers: Sequence[int]) -> None:
        """Put pictures into the inbox."""
        for number in numbers:
            (self._inbox / f"{number:07d}.jpg").write_bytes(_bytes(number))

    def drop_twins(self, numbers: Sequence[int], times: int) -> None:
        """Put the same pictures into the inbox again, under other names."""
        for number in numbers:
            for copy in range(times):
                (self._inbox / f"{number:07d}-{copy}.jpg").write_bytes(_bytes(number))

    def accept(self, fit_id: int | None = None, *, move: bool | None = None) -> None:
        """Accept the proposal that waits, or a fit."""
        accept(self.library, fit_id, move=move, on_moved=lambda _, report: self._learn(report))
        self._fits, self._may_wait = self._background(), True
        self.work(0)

    def name(self, cluster_id: int, name: str) -> None:
        """Give a cluster's folder a name."""
        self.library.folders.rename(cluster_id, name)

    def new_cluster(self) -> int:
        """Return the number of a folder that a person makes."""
        number = self.store.fits.next_cluster_id()
        with self.store.atomic():
            self.store.connection.execute(
                "INSERT INTO clusters(id, first_fit) VALUES (?, (SELECT max(id) FROM fits))",
                (number,),
            )
        return number

    def pin(self, number: int, cluster_id: int) -> None:
        """Put a picture into a cluster, as a person does."""
        self._put(number, os.fsdecode(folder_of(cluster_id, self.names)), cluster_id)
        with self.store.atomic():
            self.store.pins.put(_sha256(number), cluster_id)

    def unpin(self, number: int) -> None:
        """Free a picture; it stays where it stands."""
        with self.store.atomic():
            self.store.pins.remove([_sha256(number)])

    def make_folder(self, name: str, numbers: Sequence[int]) -> int | None:
        """Make a folder in target and put pictures into it; return its cluster, if it is one."""
        for number in numbers:
            self._put(number, name, None)
            with self.store.atomic():
                self.store.pins.put(_sha256(number), None)
        folder = name.encode()
        Corrections(self.library).make_cluster(folder, (self._target / name).stat().st_ino)
        return cluster_of(folder, self.names)

    def _put(self, number: int, folder: str, cluster_id: int | None) -> None:
        file_id, dst = self.store.connection.execute(
            "SELECT id, dst FROM files WHERE sha256 = ?", (_sha256(number),)
        ).fetchone()
        (self._target / folder).mkdir(exist_ok=True)
        place = self._target / folder / f"{number:07d}.jpg"
        (self._target / os.fsdecode(dst)).rename(place)
        with self.store.atomic():
            self.store.connection.execute(
                "UPDATE files SET state = 'sorted', cluster_id = ?, dst = ? WHERE id = ?",
                (cluster_id, os.fsencode(place.relative_to(self._target)), file_id),
            )

    # --- what the daemon does ----------------------------------------------------------

    def work(self, seconds: float) -> None:
        """Let the daemon work for so long, or longer, until nothing is left to do."""
        until_s, step_s = self.now_s + seconds, 1.0
        while True:
            self.now_s += step_s
            has_read = self._read()
            if self._fits.step(self.now_s):
                self._may_wait = True
            if self._fits.is_fitting:
                self._fits.wait()
                continue
            if not has_read and self._may_wait:
                has_read = self._route()
            if not has_read and self.now_s >= until_s:
                break
            step_s = 1.0 if has_read else min(_MOST_STEP_S, max(1.0, until_s - self.now_s))

    def _read(self) -> bool:
        self._intake.scan(self.now_s)
        self._intake.settle(self.now_s)
        candidates = [self._intake.queue.popleft() for _ in range(len(self._intake.queue))]
        for start in range(0, len(candidates), _AT_ONCE):
            pictures = []
            for candidate in candidates[start : start + _AT_ONCE]:
                number = int(candidate.name[:7])
                sha256 = _sha256(number)
                numbered = number.to_bytes(8) + bytes(3 * _SIDE_PX**2 - 8)
                pixels = np.frombuffer(numbered, np.uint8).reshape(_SIDE_PX, _SIDE_PX, 3)
                pictures.append(Picture(candidate, sha256, pixels))
            report = process_batch(self.library, pictures)
            self._fits.heard_of(report.waiting + report.sorted + report.review + report.duplicates)
            self._learn(report)
        return bool(candidates)

    def _route(self) -> bool:
        report = route_waiting(self.library)
        report = report if report.images else route_review(self.library)
        self._learn(report)
        self._may_wait = report.images > 0
        return self._may_wait

    def _learn(self, report: BatchReport) -> None:
        assert not report.errors, report.errors
        self._intake.learn(report, self.now_s)

    def fit(self, wanted: int | KRange, start: Start = Start.FORMER) -> FitSummary:
        """Fit what is there, whatever waits; put the fit in force, and let files follow it."""
        library, seed = self.library, self.library.config.clusters.random_state
        fitted = compute_fit(fit_source(library, start), wanted, seed)
        settled = settle_fit(library, fitted, FitTrigger.REQUEST, basis=library.model, accept=True)
        summary = settled.moved(make_following(library, settled.following))
        self._fits = self._background()
        while self._route():
            pass
        return summary

    # --- what came of it ---------------------------------------------------------------

    @property
    def fits(self) -> list[KeptFit]:
        """The fits there were, the oldest first."""
        return self.store.proposals.list_fits()[::-1]

    def clusters_of(self, features: Vectors) -> Labels:
        """Return the cluster id that each picture is routed to now, pins heeded."""
        model = self.library.routing
        assert model is not None
        return np.asarray(model.cluster_ids, dtype=np.intp)[nearest(features, model.centers)[0]]

    def folders(self, n: int) -> Labels:
        """Return the cluster in whose folder each picture stands, intp [n]; -1 for review."""
        found = np.full(n, -2, dtype=np.intp)
        for src, cluster_id, state in self.store.connection.execute(
            "SELECT src, cluster_id, state FROM files WHERE state IN ('sorted', 'review')"
        ):
            found[int(src[:7])] = -1 if state == FileState.REVIEW else cluster_id
        return found

    def moves(self, n: int) -> Labels:
        """Return how often each picture went from a cluster's folder to another, intp [n]."""
        found = np.zeros(n, dtype=np.intp)
        for src, count in self.store.connection.execute(
            "SELECT files.src, count(*) FROM moves JOIN files ON files.id = file_id "
            "WHERE src_root = 'target' AND moves.phase = 'done' GROUP BY file_id"
        ):
            found[int(src[:7])] = count
        return found

    @property
    def age(self) -> Age | None:
        """Whether it is young or grown; None before the first fit."""
        maturity = self.library.maturity()
        return None if maturity is None else maturity.age

    @property
    def names(self) -> dict[int, bytes]:
        """The folder of each named cluster."""
        return self.store.records.named_folders()


def _bytes(number: int) -> bytes:
    return b"\xff\xd8\xff\xe0picture %07d\xff\xd9" % number


def _sha256(number: int) -> bytes:
    return hashlib.sha256(_bytes(number)).digest()
