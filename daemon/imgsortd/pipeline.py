"""The straight line: read files → features → routes → journalled moves.

No policy on when to do what is in here: the daemon and ``imgsortd sort`` both drive
these functions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from imgsortd.adapters.faults import fault_point
from imgsortd.batch_report import BatchReport
from imgsortd.bringing import bring_along, leave_raw
from imgsortd.core.perceptual import look_of
from imgsortd.core.records import (
    Candidate,
    FileState,
    Model,
    Move,
    MovePhase,
    MoveResult,
    NotRead,
    Op,
    Picture,
    Pixels,
    ReadResult,
    Root,
    Skipped,
    Unreadable,
    Vectors,
)
from imgsortd.core.review import choose
from imgsortd.library import Library
from imgsortd.planning import Planner, tell_other_name

MOVES_AT_ONCE = 64
_WAITS = {
    NotRead.DENIED: "cannot be read: ",
    NotRead.BUSY: "somebody has it open for writing",
    NotRead.UNASKED: "waits: nobody can say whether somebody writes it",
    NotRead.CHANGED: "it changed while it was read",
    NotRead.INCOMPLETE: "unfinished, as it seems: ",
}


@dataclass(frozen=True, slots=True)
class Extraction:
    """A batch that was read: ``hashes`` and ``pixels`` are of the pictures that are new."""

    results: Sequence[ReadResult]
    hashes: list[bytes]
    pixels: list[Pixels]


def begin_batch(library: Library, results: Sequence[ReadResult]) -> Extraction:
    """Find the pictures of a batch whose features are not stored yet."""
    fits, extractor = library.store.fits, library.extractor
    new = {
        result.sha256: result.pixels
        for result in results
        if isinstance(result, Picture) and not fits.has_features(extractor.id, result.sha256)
    }
    return Extraction(results, list(new), list(new.values()))


def end_batch(
    library: Library,
    extraction: Extraction,
    vectors: Vectors,
    extract_s: float,
    failed: Collection[int] = (),
) -> BatchReport:
    """Take files from their features to their folders.

    Features are kept and moves are planned in one transaction; the moves are made;
    a second transaction closes them. A file that cannot be read does not hold up
    the others, also when none of the batch can.

    Parameters
    ----------
    vectors
        float32 [n, d], of ``extraction.pixels`` but for those that ``failed``.
    extract_s
        Seconds that the model took for them.
    failed
        Positions of pictures that there was not memory enough for: they are set aside.
    """
    started = time.perf_counter()
    extraction = _without(extraction, failed)
    report = BatchReport(images=len(extraction.results), extracted=len(extraction.hashes))
    report.extract_s = extract_s
    pictures = (result for result in extraction.results if isinstance(result, Picture))
    looks = {picture.sha256: look_of(picture) for picture in pictures}
    fault_point("read")
    with library.store.atomic():
        library.store.fits.put_features(library.extractor.id, extraction.hashes, vectors)
        library.store.hashes.put(looks)
        moves = _plan(library, extraction.results, report)
    fault_point("planned")
    make_moves(library, moves, report)
    report.total_s = extract_s + time.perf_counter() - started
    return report


def _without(extraction: Extraction, failed: Collection[int]) -> Extraction:
    if not failed:
        return extraction
    lost = {extraction.hashes[at] for at in failed}
    results = [
        Unreadable(result.candidate, result.sha256, "the model runs out of memory on it")
        if isinstance(result, Picture) and result.sha256 in lost
        else result
        for result in extraction.results
    ]
    return Extraction(results, [sha256 for sha256 in extraction.hashes if sha256 not in lost], [])


def process_batch(library: Library, results: Sequence[ReadResult]) -> BatchReport:
    """Do both, and what lies between, one after the other."""
    started = time.perf_counter()
    extraction = begin_batch(library, results)
    vectors = library.extractor.extract(extraction.pixels)
    return end_batch(library, extraction, vectors, time.perf_counter() - started)


def planner_of(library: Library, model: Model | None = None) -> Planner:
    """Return a planner for one transaction, by a model that comes into force or the one that is."""
    model = model or library.model
    return Planner(library.config, library.store, library.mover, model, library.companions)


def _plan(library: Library, results: Sequence[ReadResult], report: BatchReport) -> list[Move]:
    planner = planner_of(library)
    report.batch = planner.batch
    moves: list[Move | None] = []
    readable: list[tuple[Candidate, bytes]] = []
    for result in results:
        if isinstance(result, Skipped):
            _note_skipped(library, result, report)
            continue
        report.settled.append(result.candidate)
        if isinstance(result, Unreadable) and leave_raw(library, result):
            continue
        library.store.files.set_read(result.candidate, result.sha256)
        if isinstance(result, Unreadable):
            moves.append(planner.set_aside(result))
        else:
            readable.append((result.candidate, result.sha256))
    moves.extend(_route(library, planner, readable, report))
    return [move for move in moves if move is not None]


def _note_skipped(library: Library, skipped: Skipped, report: BatchReport) -> None:
    candidate = skipped.candidate
    if skipped.why is NotRead.GONE:
        library.store.files.gone(candidate.file_id)
        report.gone += 1
        report.left.append(candidate.name)
        return
    library.store.files.waits(candidate.file_id, _WAITS[skipped.why] + skipped.detail)
    if skipped.why is NotRead.DENIED:
        report.denied.append(candidate.name)
        report.errors.append(f"cannot read {os.fsdecode(candidate.name)!r}: {skipped.detail}")
    elif skipped.why is NotRead.UNASKED:
        report.unasked.append(candidate.name)
    elif skipped.why is NotRead.INCOMPLETE:
        report.incomplete.append(candidate)
    else:
        report.look_again.append(candidate.name)


def _route(
    library: Library,
    planner: Planner,
    files: Sequence[tuple[Candidate, bytes]],
    report: BatchReport,
) -> list[Move | None]:
    model = library.routing
    if model is None:
        report.waiting += len(files)
        return []
    stored = library.store.fits.get_features(library.extractor.id, [sha256 for _, sha256 in files])
    if not files:
        return []
    features = np.stack([stored[sha256] for _, sha256 in files])
    choices = choose(features, model, library.review_rule)
    return [
        planner.route(candidate, sha256, choice)
        for (candidate, sha256), choice in zip(files, choices, strict=True)
    ]


def route_waiting(library: Library) -> BatchReport:
    """Route the next files whose features are stored already; ``images`` is 0 at the end."""
    started = time.perf_counter()
    waiting = library.store.files.waiting(MOVES_AT_ONCE)
    report = BatchReport(images=len(waiting))
    with library.store.atomic():
        planner = planner_of(library)
        report.batch = planner.batch
        planned = _route(library, planner, waiting, report)
        moves = [move for move in planned if move is not None]
    if moves:
        fault_point("planned")
    make_moves(library, moves, report)
    report.total_s = time.perf_counter() - started
    return report


def make_moves(
    library: Library, moves: Sequence[Move], report: BatchReport, *, again: bool = False
) -> None:
    """Make planned moves and close their rows; what cannot be done now stays open."""
    for start in range(0, len(moves), MOVES_AT_ONCE):
        if library.mover.stopping():
            return  # their rows are open: the next start makes them
        now = moves[start : start + MOVES_AT_ONCE]
        if library.folders.follow():  # else a move would make a renamed folder anew
            now = library.store.journal.again(now)
        results = library.mover.apply(now, again=again)
        with library.store.atomic():
            library.store.journal.close(results)
            companions = bring_along(library, results)
        fault_point("closed")
        for result in results:
            _count(library, result, report)
        make_moves(library, companions, report)


def _count(library: Library, result: MoveResult, report: BatchReport) -> None:
    name = result.move.src
    from_inbox = result.move.src_root is Root.INBOX
    if result.phase is MovePhase.GONE:
        report.gone += 1
        report.left.extend([name] if from_inbox else [])
    elif result.phase is MovePhase.CHANGED:
        report.look_again.extend([name] if from_inbox else [])
    elif result.phase is not MovePhase.DONE and not result.error:
        report.stopped += 1
    elif result.phase is not MovePhase.DONE:
        report.errors.append(f"cannot move {os.fsdecode(name)!r}: {result.error}")
        report.no_space = report.no_space or result.no_space
    else:
        if result.move.op is Op.MOVE and from_inbox:
            report.left.append(name)
        state, cluster_id, reason = library.store.journal.outcome(result.move.move_id)
        report.sorted += state is FileState.SORTED
        report.duplicates += state is FileState.DUPLICATE
        report.set_aside += state is FileState.SET_ASIDE
        report.review += state is FileState.REVIEW
        if result.move.dst_root is Root.INBOX and state is not FileState.UNDONE:
            report.look_again.append(result.dst)  # to be read again, after a start that ended badly
        if state is FileState.COMPANION:
            report.companions += 1
            if result.dst != result.move.dst:
                tell_other_name(result.move.dst, result.dst)
        elif from_inbox:
            report.placed.append(name)
        if state is FileState.SET_ASIDE:
            report.set_aside_reasons.append((name, reason))
        if cluster_id is not None:
            report.clusters.add(cluster_id)


def recover(library: Library) -> BatchReport:
    """Apply the unfinished rows of the journal again."""
    report = BatchReport()
    library.folders.follow()
    moves = library.store.journal.unfinished()
    report.images = len(moves)
    make_moves(library, moves, report, again=True)
    return report
