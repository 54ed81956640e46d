"""The working line without a daemon: inbox, reader, pipeline and fits, on one made-up clock."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.reading import PictureReader
from imgsortd.adoption import FitSummary, adopt_fit, make_following, settle_fit
from imgsortd.batch_report import BatchReport
from imgsortd.core.lifecycle import FitTrigger, RefitRule, fit_due
from imgsortd.core.records import ReadResult
from imgsortd.fits import compute_fit, fit_source
from imgsortd.following import Following
from imgsortd.intake import Intake
from imgsortd.pipeline import process_batch, recover, route_waiting
from imgsortd.reviewing import route_review
from support import ColourExtractor, each_file_below, make_config, make_library, read_all


class Line:
    """Drives what the loop drives, in the loop's order, until nothing is left to do."""

    def __init__(
        self, folder: Path, extractor: ColourExtractor | None = None, **changes: Any
    ) -> None:
        self.config = make_config(folder, **{"settle_s": 0, **changes})
        self.extractor = extractor or ColourExtractor()
        self.now_s, self.patience_s = 0.0, 0.0
        self._open()

    def _open(self) -> None:
        self.library, self.store = make_library(self.config, self.extractor)
        inbox = Inbox(
            self.config.inbox,
            self.config.recursive,
            self.config.ignore,
            self.config.extensions,
            self.config.companions,
        )
        companions, patience_s = self.library.companions, self.patience_s
        self.intake = Intake(inbox, self.store, self.config.settle_s, companions, patience_s)
        limits = decode_limits(self.config.pictures)
        self.reader = PictureReader(self.config.inbox, limits, threads=1)
        is_settling = self.intake.tracker.__contains__
        self.following = Following(self.library, self.reader, is_settling)

    def close(self) -> None:
        self.reader.close()
        self.store.close()

    def restart(self) -> None:
        """Forget all that is in memory, as a crash does."""
        self.close()
        self._open()

    def read(self) -> list[ReadResult]:
        """Scan, settle and read what is new, as one batch."""
        self.intake.scan(self.now_s)
        self.intake.settle(self.now_s)
        candidates = list(self.intake.queue)
        self.intake.queue.clear()
        return read_all(self.reader, candidates)

    def process(self, results: list[ReadResult]) -> BatchReport:
        return self.learn(process_batch(self.library, results))

    def learn(self, report: BatchReport) -> BatchReport:
        self.intake.learn(report, self.now_s)
        self.following.placed(report.placed)
        return report

    def run(self) -> list[BatchReport]:
        """Take everything in the inbox as far as it goes; return the reports."""
        reports = [self.learn(recover(self.library))]
        for _ in range(10):
            results = self.read()
            if not results and not len(self.intake.tracker):
                break
            reports.append(self.process(results))
            self.now_s += 100
        rule = RefitRule(self.config.clusters.min_images, None, None)
        if fit_due(rule, self.store.fits.facts()):
            self.fit()
        while self.library.model is not None:
            reports.append(self.learn(route_waiting(self.library)))
            assert len(reports) < 100, "files wait for a route that is never planned"
            if not reports[-1].images:
                reports.append(self.learn(route_review(self.library)))
            if not reports[-1].images or reports[-1].errors:
                break
        reports.extend(self.follow())
        self.check_counts()
        return reports

    def follow(self) -> list[BatchReport]:
        """Let the companions follow their pictures."""
        return [self.learn(report) for report in self.following.run()]

    def fit(self, n_clusters: int | None = None, random_state: int = 42) -> FitSummary:
        """Make a fit and put it in force; files stay where they stand."""
        number = n_clusters or self.config.clusters.n_clusters
        fitted = compute_fit(fit_source(self.library), number, random_state)
        return adopt_fit(self.library, fitted, FitTrigger.REQUEST)

    def refit(self, n_clusters: int, random_state: int = 1) -> BatchReport:
        """Make a fit that a person has accepted beforehand: files follow it."""
        library = self.library
        fitted = compute_fit(fit_source(library), n_clusters, random_state)
        trigger, basis = FitTrigger.REQUEST, library.model
        settled = settle_fit(library, fitted, trigger, basis=basis, accept=True)
        return make_following(library, settled.following)

    def counts(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {name: count for name, count in asdict(self.store.files.counts()).items() if count}

    def check_counts(self) -> None:
        counts = asdict(self.store.files.counts())
        seen = counts.pop("seen")
        assert seen == sum(counts.values()), counts

    def put(self, name: bytes | str, data: bytes) -> Path:
        """Write a file into the inbox under another name first, so that its inode is new."""
        path = Path(os.fsdecode(os.path.join(os.fsencode(self.config.inbox), os.fsencode(name))))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("new.part")
        part.write_bytes(data)
        return part.rename(path)

    def files(self) -> dict[str, bytes]:
        """Return every file below the target, by its name relative to it."""
        return files_below(self.config.target)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by name; ours left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(each_file_below(folder))
        if not path.name.startswith(".imgsortd")
    }
