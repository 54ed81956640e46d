"""A fit that comes into force is asked about the pictures in review."""

from __future__ import annotations

from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.store_review import ReviewRows
from imgsortd.batch_report import BatchReport
from imgsortd.core.records import Move, Op
from imgsortd.core.review import Choice, choose
from imgsortd.library import Library
from imgsortd.pipeline import MOVES_AT_ONCE, make_moves, planner_of


def route_review(library: Library) -> BatchReport:
    """Ask the fit in force about the next files in review; ``images`` is 0 at the end.

    Those that are near to one of its clusters go there. Symlinks are never moved again. They
    go in the batch in which others have followed the fit, if any: one undo takes back both.
    """
    report = BatchReport()
    model, routing = library.model, library.routing
    if model is None or routing is None or library.config.op is Op.SYMLINK:
        return report
    rows = ReviewRows(library.store.connection)
    moves: list[Move] = []
    with library.store.atomic():
        asked = rows.before(model.fit_id, MOVES_AT_ONCE)
        stored = library.store.fits.get_features(model.extractor, [sha256 for _, sha256 in asked])
        planner = planner_of(library)
        followed = library.store.proposals.batches_of(model.fit_id)
        planner.batch = followed[-1] if followed else planner.batch
        report.images, report.batch = len(asked), planner.batch
        for file_id, sha256 in asked:
            choice, move = Choice(None, None, "its features are not known"), None
            if sha256 in stored:
                [choice] = choose(stored[sha256][None], routing, library.review_rule)
            if choice.cluster_id is not None:
                move = planner.take_out(file_id, choice.cluster_id)
            if move is None:
                rows.stays(file_id, model.fit_id, choice)
            else:
                moves.append(move)
    if moves:
        fault_point("planned")
    make_moves(library, moves, report)
    return report
