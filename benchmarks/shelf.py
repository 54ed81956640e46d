"""A library in a folder of its own, sorted by imgsortd's own line, of which only features exist.

Its pictures are small real files: they arrive, are routed, fitted and moved as a daemon does it,
on a clock that is made up. Nothing is decoded, and no model runs.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.processes import write_config
from imgsortd.clusters.fit import compute_fit, fit_source
from imgsortd.clusters.routing import nearest
from imgsortd.config import load_config
from imgsortd.config.model import Config
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.inbox.whereabouts import Whereabouts
from imgsortd.library import open_library
from imgsortd.moves.roots import Roots
from imgsortd.names import folder_of
from imgsortd.networks.model_thread import Computed
from imgsortd.pipeline.line import Line, end
from imgsortd.records import (
    BatchReport,
    ExtractorId,
    FileState,
    FitTrigger,
    Picture,
    Pixels,
    Start,
    Vectors,
)
from imgsortd.refits.adopting import Adoption
from imgsortd.refits.background import BackgroundFits
from imgsortd.refits.decisions import Decisions
from imgsortd.store.database import Store, open_for_writing
from imgsortd.store.fits import KeptFit

Labels = npt.NDArray[np.intp]
_AT_ONCE, _SIDE_PX, _MOST_STEP_S = 64, 32, 30.0


class NoModel:
    """A FeatureExtractor whose features, float32 [n, d], are made: a picture tells its row."""

    def __init__(self, extractor: ExtractorId, features: Vectors | None = None) -> None:
        self.id, self.batch_images, self.on_cpu = extractor, _AT_ONCE, True
        self._features = np.empty((0, extractor.dims)) if features is None else features

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Return the features of the numbers, float32 [n, d]."""
        rows = [int.from_bytes(picture.tobytes()[:8]) for picture in pixels]
        return self._features[np.array(rows, dtype=np.intp)].astype(np.float32)

    def describe(self) -> str:
        """Say that there is no model."""
        return "no model"

    def unload(self) -> None:
        """Free nothing."""


def open_roots(config: Config, store: Store) -> Roots:
    """Put the folders of a configuration in use, whatever stands there: rows may have no files."""
    roots = Roots(config, store, lambda: None)
    roots.insist(adopt=True)
    return roots


class Shelf:
    """Pictures by number, which is the row of their features, float32 [n, d].

    ``store`` and ``library`` are what the daemon would have open, ``now_s`` is on its clock.
    """

    def __init__(
        self, folder: Path, extractor: ExtractorId, features: Vectors, **settings: Any
    ) -> None:
        config = load_config(write_config(folder, settle_s=0.0, **settings))
        self.store = open_for_writing(config.database)
        roots = open_roots(config, self.store)
        self.library = open_library(config, self.store, NoModel(extractor, features), roots)
        in_force, moves, made_by = self.library.in_force, self.library.moves, extractor
        companions = self.library.companions
        self._line = Line(
            self.store, self.library.extractor, in_force, moves, companions, lambda: False
        )
        self._adoption = Adoption(config, self.store, made_by, in_force, moves)
        self._decisions = Decisions(self.store, made_by, in_force, moves, self._adoption)
        inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
        whereabouts = Whereabouts(config.inbox, roots, lambda: None, lambda _: False)
        self._intake = Intake(inbox, self.store, whereabouts, companions, 0.0)
        self._inbox, self._target = config.inbox, config.target
        self._fits = self._background()
        self.now_s = 0.0
        self._may_wait = False

    def _background(self) -> BackgroundFits:
        def tell(event: str, detail: str) -> None:
            raise AssertionError(f"{event}: {detail}")

        arrivals = partial(self._intake.arrivals, being_read=0)
        library = self.library
        return BackgroundFits(
            library.config,
            self.store,
            library.extractor.id,
            library.in_force,
            self._adoption,
            lambda _, report: self._learn(report),
            tell,
            arrivals=arrivals,
        )

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def drop(self, numbers: Sequence[int]) -> None:
        """Put pictures into the inbox."""
        for number in numbers:
            (self._inbox / f"{number:07d}.jpg").write_bytes(bytes_of(number))

    def accept(self, fit_id: int | None = None, *, move: bool | None = None) -> None:
        """Accept the proposal that waits, or a fit."""
        self._decisions.accept(fit_id, move=move, on_moved=lambda _, report: self._learn(report))
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
        self.put(number, os.fsdecode(folder_of(cluster_id, self.names)), cluster_id)
        with self.store.atomic():
            self.store.pins.put(sha256_of(number), cluster_id)

    def put(self, number: int, folder: str, cluster_id: int | None) -> None:
        """Move a picture within target into a folder, and its row along."""
        file_id, dst = self.store.connection.execute(
            "SELECT id, dst FROM files WHERE sha256 = ?", (sha256_of(number),)
        ).fetchone()
        (self._target / folder).mkdir(exist_ok=True)
        place = self._target / folder / f"{number:07d}.jpg"
        (self._target / os.fsdecode(dst)).rename(place)
        with self.store.atomic():
            self.store.connection.execute(
                "UPDATE files SET state = 'sorted', cluster_id = ?, dst = ? WHERE id = ?",
                (cluster_id, os.fsencode(place.relative_to(self._target)), file_id),
            )

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
                sha256 = sha256_of(number)
                numbered = number.to_bytes(8) + bytes(3 * _SIDE_PX**2 - 8)
                pixels = np.frombuffer(numbered, np.uint8).reshape(_SIDE_PX, _SIDE_PX, 3)
                pictures.append(Picture(candidate, sha256, pixels))
            way = self._line.way(pictures)
            features = self.library.extractor.extract(next(way))
            report = end(way, Computed(features, 0.0))
            self._fits.heard_of(report.waiting + report.sorted + report.review + report.duplicates)
            self._learn(report)
        return bool(candidates)

    def _route(self) -> bool:
        report = self._line.route_waiting()
        report = report if report.images else self._line.route_review()
        self._learn(report)
        self._may_wait = report.images > 0
        return self._may_wait

    def _learn(self, report: BatchReport) -> None:
        assert not report.errors, report.errors
        self._intake.learn(report, self.now_s)

    def fit(self, wanted: int) -> None:
        """Fit what is there, whatever waits; put the fit in force, and let files follow it."""
        library, seed = self.library, self.library.config.clusters.random_state
        source = fit_source(self.store, library.extractor.id, library.in_force, Start.FORMER)
        fitted, basis = compute_fit(source, wanted, seed), library.in_force.model
        settled = self._adoption.settle(fitted, FitTrigger.REQUEST, basis=basis, accept=True)
        self._adoption.follow(settled.following)
        self._fits = self._background()
        while self._route():
            pass

    @property
    def fits(self) -> list[KeptFit]:
        """The fits there were, the oldest first."""
        return self.store.records.list_fits()[::-1]

    def clusters_of(self, features: Vectors) -> Labels:
        """Return the cluster id that each picture is routed to now, pins heeded."""
        model = self.library.in_force.routing
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
    def names(self) -> dict[int, bytes]:
        """The folder of each named cluster."""
        return self.store.records.named_folders()


def bytes_of(number: int) -> bytes:
    """Return the file of a picture."""
    return b"\xff\xd8\xff\xe0picture %07d\xff\xd9" % number


def sha256_of(number: int) -> bytes:
    """Return the SHA-256 of a picture's file."""
    return hashlib.sha256(bytes_of(number)).digest()
