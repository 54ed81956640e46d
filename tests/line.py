"""The working line without a daemon: inbox, reader, pipeline and fits, on one made-up clock."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imgsortd.clusters.fit import compute_fit
from imgsortd.config.model import Config
from imgsortd.daemon.requests import do_placing
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.pipeline.following import Following
from imgsortd.records import BatchReport, FitTrigger, ReadResult
from imgsortd.refits.adopting import FitSummary
from imgsortd.refits.due import RefitRule, fit_due
from imgsortd.refits.facts import fit_facts
from support import (
    ColourExtractor,
    adoption_of,
    each_file_below,
    intake_of,
    line_of,
    make_config,
    make_library,
    process_batch,
    read_all,
    source_of,
)


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
        companions = self.library.companions
        self.intake = intake_of(self.library, patience_s=self.patience_s)
        limits = decode_limits(self.config.pictures)
        self.reader = PictureReader(self.config.inbox, limits, threads=1)
        is_settling = self.intake.tracker.__contains__
        moves = self.library.moves
        self.following = Following(self.store, companions, moves, self.reader, is_settling)
        self.straight = line_of(self.library)

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
        reports = [self.learn(self.library.moves.recover())]
        for _ in range(10):
            results = self.read()
            if not results and not len(self.intake.tracker):
                break
            reports.append(self.process(results))
            self.now_s += 100
        rule = RefitRule(self.config.clusters.min_images, None, None)
        if fit_due(rule, fit_facts(self.store)):
            self.fit()
        while self.library.in_force.model is not None:
            reports.append(self.learn(self.straight.route_waiting()))
            assert len(reports) < 100, "files wait for a route that is never planned"
            if not reports[-1].images:
                reports.append(self.learn(self.straight.route_review()))
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
        fitted = compute_fit(source_of(self.library), number, random_state)
        return adoption_of(self.library).adopt(fitted, FitTrigger.REQUEST)

    def refit(self, n_clusters: int, random_state: int = 1) -> BatchReport:
        """Make a fit that a person has accepted beforehand: files follow it."""
        library = self.library
        fitted = compute_fit(source_of(library), n_clusters, random_state)
        trigger, basis = FitTrigger.REQUEST, library.in_force.model
        settled = adoption_of(library).settle(fitted, trigger, basis=basis, accept=True)
        return adoption_of(library).follow(settled.following)

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


def do_alone(config: Config, verb: str, params: dict[str, Any]) -> None:
    """Place or retry pictures, as a daemon does that has just started."""
    library, store = make_library(config)
    library.moves.recover()
    do_placing(library, verb, params)
    store.close()


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder, by name; ours left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(each_file_below(folder))
        if not path.name.startswith(".imgsortd")
    }
