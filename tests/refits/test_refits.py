"""A refit that changes too much waits for a person's word; every number keeps its meaning."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warm
from imgsortd.clusters.fit import Fitted, compute_fit
from imgsortd.clusters.kmeans import Fit
from imgsortd.clusters.partial import PartialFit, PartialSource, compute_partial
from imgsortd.daemon.here import undo
from imgsortd.errors import ProposalError, UndoError
from imgsortd.library import Library
from imgsortd.moves.undo import UndoChoice
from imgsortd.records import KEPT, NOWHERE, FitState, FitTrigger
from imgsortd.refits.adopting import FitSummary
from imgsortd.refits.changes import Change, changed_groups, read_proposal
from imgsortd.refits.decisions import reject
from imgsortd.refits.due import FitFacts
from imgsortd.refits.facts import fit_facts, start_now
from imgsortd.store.fits import KeptFit
from inboxes import QUICK
from line import Line
from support import (
    BLUE,
    GREEN,
    RED,
    ColourExtractor,
    adoption_of,
    decisions_of,
    make_config,
    make_grown,
    make_library,
    paint,
    paint_groups,
    source_of,
    sums,
)

CYAN, YELLOW = (30, 200, 200), (200, 200, 30)


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[Callable[..., Line]]:
    """Return what makes a line that has sorted twelve pictures of three colours."""
    lines: list[Line] = []

    def make_line(**changes: Any) -> Line:
        changes = {"refit": {"max_churn": 0.1}, **changes}
        line = Line(tmp_path, **changes)
        lines.append(line)
        paint_groups(line.config.inbox, 4)
        line.run()
        return line

    yield make_line
    for line in lines:
        line.close()


def refit(
    line: Line, n_clusters: int, trigger: FitTrigger = FitTrigger.REQUEST, **how: Any
) -> FitSummary:
    """Make a refit as the daemon does, and the moves of files that follow it."""
    library = line.library
    fitted = compute_fit(
        source_of(library, start_now(library.store, library.config.refit.max_churn)), n_clusters, 1
    )
    settled = adoption_of(library).settle(fitted, trigger, basis=library.in_force.model, **how)
    return settled.moved(adoption_of(library).follow(settled.following))


def folders(line: Line) -> set[str]:
    return {name.split("/")[0] for name in line.files()}


def kept(line: Line, fit_id: int | None) -> KeptFit:
    assert fit_id is not None
    found = line.store.records.fit(fit_id)
    assert found is not None
    return found


def in_force(line: Line) -> int:
    assert line.library.in_force.model is not None
    assert line.store.records.current_id() == line.library.in_force.model.fit_id
    return line.library.in_force.model.fit_id


def active(line: Line) -> set[int]:
    rows = line.store.connection.execute("SELECT id FROM clusters WHERE retired_fit IS NULL")
    return {cluster_id for (cluster_id,) in rows}


# --- proposals --------------------------------------------------------------------------


def test_a_refit_above_max_churn_waits_and_routing_goes_on(make_line: Callable[..., Line]) -> None:
    line = make_line()
    before = line.files()

    summary = refit(line, 1)
    line.put("late.png", paint(line.config.inbox.parent / "late.png", BLUE, 9).read_bytes())
    line.run()

    assert (summary.state, summary.retired_ids) == (FitState.PROPOSED, [1, 2])
    assert summary.churn == pytest.approx(2 / 3)
    assert in_force(line) == 1
    assert active(line) == {0, 1, 2}
    assert line.library.in_force.model is not None
    assert len(line.library.in_force.model.cluster_ids) == 3
    (late,) = set(line.files()) - set(before)
    assert late.split("/")[0] in {name.split("/")[0] for name in before if "blue" in name}
    waiting = line.store.records.waiting()
    assert waiting is not None
    assert (waiting.fit_id, waiting.former_id) == (summary.fit_id, 1)


def test_a_refit_within_max_churn_is_in_force_at_once(make_line: Callable[..., Line]) -> None:
    line = make_line()

    summary = refit(line, 3)

    assert (summary.state, summary.churn, in_force(line)) == (FitState.ADOPTED, 0, summary.fit_id)
    assert kept(line, summary.fit_id).former_id == 1


def test_accepted_beforehand_a_refit_is_in_force_whatever_it_changes(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()

    summary = refit(line, 1, accept=True)

    assert (summary.state, in_force(line)) == (FitState.ADOPTED, summary.fit_id)


def test_a_dry_run_keeps_nothing(make_line: Callable[..., Line]) -> None:
    line = make_line()

    summary = refit(line, 1, dry_run=True)

    assert (summary.state, summary.fit_id) == (None, None)
    assert len(line.store.records.list_fits()) == 1


@pytest.mark.parametrize("trigger", [FitTrigger.GROWTH, FitTrigger.INTERVAL, FitTrigger.DRIFT])
def test_a_young_library_is_not_asked_files_follow_in_one_batch_and_rollback_takes_it_back(
    make_line: Callable[..., Line], trigger: FitTrigger
) -> None:
    line = make_line()
    before = line.files()

    summary = refit(line, 1, trigger)
    together = folders(line)
    back = decisions_of(line.library).rollback()

    assert (summary.state, summary.moved, together) == (FitState.ADOPTED, 8, {"cluster_0"})
    assert (back.in_force, back.moved, back.refit_batches) == (1, 8, [summary.batch])
    assert line.files() == before
    assert in_force(line) == 1


@pytest.mark.parametrize("trigger", [FitTrigger.GROWTH, FitTrigger.INTERVAL, FitTrigger.DRIFT])
def test_a_grown_library_is_asked_about_a_refit_that_changes_much(
    make_line: Callable[..., Line], trigger: FitTrigger
) -> None:
    line = make_line()
    make_grown(line.store)
    before = line.files()

    summary = refit(line, 1, trigger)

    assert (summary.state, summary.moved, in_force(line)) == (FitState.PROPOSED, 0, 1)
    assert line.files() == before


@pytest.mark.parametrize(("move_sorted", "moved"), [("auto", 0), (True, 1), (False, 0)])
def test_where_former_clusters_go_on_a_file_that_lies_wrong_stays_but_for_true(
    make_line: Callable[..., Line], move_sorted: str | bool, moved: int
) -> None:
    line = make_line(refit={"max_churn": 0.9, "move_sorted": move_sorted})
    make_grown(line.store)
    put_wrong(line, "red-0.png", "blue-0.png")

    summary = refit(line, 3, FitTrigger.GROWTH)

    assert (summary.algorithm, summary.state) == (KEPT, FitState.ADOPTED)
    assert summary.moved == moved


def put_wrong(line: Line, name: str, beside: str) -> None:
    """Let a file stand in the folder of another one, as of a time when that was nearest."""
    rows = line.store.connection.execute("SELECT src, dst, cluster_id FROM files").fetchall()
    places = {os.fsdecode(src): (os.fsdecode(dst), cluster_id) for src, dst, cluster_id in rows}
    folder = Path(places[beside][0]).parent
    (line.config.target / places[name][0]).rename(line.config.target / folder / name)
    with line.store.atomic():
        line.store.connection.execute(
            "UPDATE files SET dst = ?, cluster_id = ? WHERE src = ?",
            (os.fsencode(folder / name), places[beside][1], os.fsencode(name)),
        )


@pytest.mark.parametrize("move_sorted", ["auto", True, False])
@pytest.mark.parametrize("is_grown", [False, True])
@pytest.mark.parametrize("is_accepted", [False, True])
def test_files_follow_new_clusters_but_for_false(
    make_line: Callable[..., Line],
    move_sorted: str | bool,
    is_grown: bool,
    is_accepted: bool,
) -> None:
    line = make_line(refit={"max_churn": 0.9, "move_sorted": move_sorted})
    if is_grown:
        make_grown(line.store)

    summary = refit(line, 1, accept=is_accepted)

    assert summary.state is FitState.ADOPTED
    assert (summary.moved, len(folders(line))) == ((8, 1) if move_sorted else (0, 3))


def test_files_that_are_to_stay_stay_whatever_else_is_said(make_line: Callable[..., Line]) -> None:
    line = make_line(refit={"move_sorted": True})

    summary = refit(line, 1, accept=True, keep_files=True)

    assert (summary.state, summary.moved, summary.batch) == (FitState.ADOPTED, 0, None)
    assert len(folders(line)) == 3


def test_an_accepted_proposal_routes_from_then_on_and_moves_nothing_where_files_are_kept(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = line.files()
    proposed = refit(line, 1)

    decided = decisions_of(line.library).accept(None, move=False)
    line.put("late.png", paint(line.config.inbox.parent / "late.png", BLUE, 9).read_bytes())
    line.run()

    assert (decided.fit_id, decided.changed, decided.moved) == (proposed.fit_id, 8, 0)
    assert in_force(line) == proposed.fit_id
    assert active(line) == {0}
    assert set(line.files()) - set(before) == {"cluster_0/late.png"}
    line.restart()
    assert in_force(line) == proposed.fit_id


@pytest.mark.parametrize(
    ("move_sorted", "move", "follows"),
    [
        ("auto", None, True),
        (True, None, True),
        (False, None, False),
        (False, True, True),
        (True, False, False),
    ],
)
def test_accepted_files_stand_where_the_proposal_showed_them_unless_they_are_kept(
    make_line: Callable[..., Line], move_sorted: str | bool, move: bool | None, follows: bool
) -> None:
    line = make_line(refit={"max_churn": 0.1, "move_sorted": move_sorted})
    before = set(line.files())
    proposed = refit(line, 1)
    shown = read_proposal(line.store, kept(line, proposed.fit_id), files=99)

    decided = decisions_of(line.library).accept(None, move=move)

    wanted = set(before)
    for group in shown.moves if follows else []:
        names = {os.fsdecode(name) for name in group.files}
        new = os.fsdecode(group.new_folder)
        wanted = wanted - names | {f"{new}/{name.split('/')[1]}" for name in names}
    assert decided.moved == (8 if follows else 0)
    assert set(line.files()) == wanted


def test_undo_returns_the_files_that_followed_a_fit_and_the_fit_with_them(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = line.files()
    refit(line, 1)

    decided = decisions_of(line.library).accept(None)
    moved = line.files()
    line.close()
    report = undo(line.config, UndoChoice(batch=decided.batch), dry_run=False)
    line._open()

    assert (decided.moved, decided.left) == (8, [])
    assert {name.split("/")[0] for name in moved} == {"cluster_0"}
    assert sorted(moved.values()) == sorted(before.values())
    assert (report["placed"], report["fit_in_force"]) == (8, 1)
    assert line.files() == before
    assert in_force(line) == 1
    assert kept(line, decided.fit_id).note == "rolled back"
    assert active(line) == {0, 1, 2}


def test_undoing_that_puts_the_fit_in_force_again_and_the_files_where_it_had_them(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = line.files()
    summary = refit(line, 1, FitTrigger.GROWTH)
    moved = line.files()
    line.close()

    reports = [undo(line.config, UndoChoice(), dry_run=False) for _ in range(3)]
    line._open()
    thrice = line.files(), in_force(line)
    line.close()
    fourth = undo(line.config, UndoChoice(), dry_run=False)
    line._open()

    assert [report["fit_in_force"] for report in reports] == [1, summary.fit_id, 1]
    assert thrice == (before, 1)
    assert fourth["fit_in_force"] == summary.fit_id
    assert (line.files(), in_force(line)) == (moved, summary.fit_id)
    assert kept(line, summary.fit_id).state is FitState.ADOPTED
    assert active(line) == {0}


def test_files_that_followed_a_fit_are_not_undone_under_a_later_one(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    first = refit(line, 1, FitTrigger.GROWTH)
    second = refit(line, 2, FitTrigger.GROWTH)
    before = line.files()
    line.close()

    with pytest.raises(UndoError, match="followed fit 2, but fit 3 is in force now"):
        undo(line.config, UndoChoice(batch=first.batch), dry_run=False)
    line._open()

    assert line.files() == before
    assert in_force(line) == second.fit_id


def test_only_files_that_still_stand_in_their_old_folder_move(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    refit(line, 1)
    deleted, pinned, *_ = sorted(name for name in line.files() if not name.startswith("cluster_0/"))
    (line.config.target / deleted).unlink()
    with line.store.atomic():
        line.store.connection.execute(
            "INSERT INTO pins SELECT sha256, cluster_id, 0 FROM files WHERE dst = ?",
            (os.fsencode(pinned),),
        )
    would = changed_groups(line.store, 2, 0)

    decided = decisions_of(line.library).accept(None, move=True)

    assert decided.moved == 6
    assert sum(group.total for group in would) == 7  # that a file was deleted is seen by the move
    assert [name for name in line.files() if not name.startswith("cluster_0/")] == [pinned]


def test_a_later_proposal_takes_the_place_of_one_that_waits(make_line: Callable[..., Line]) -> None:
    line = make_line()
    first, second = refit(line, 1), refit(line, 6)

    third = refit(line, 3)

    states = [fit.state for fit in line.store.records.list_fits()]
    assert states == [FitState.ADOPTED, FitState.REPLACED, FitState.REPLACED, FitState.ADOPTED]
    assert line.store.records.waiting() is None
    for fit_id, by in ((first.fit_id, second.fit_id), (second.fit_id, third.fit_id)):
        with pytest.raises(ProposalError, match=f"replaced: fit {by} took its place; `imgsortd re"):
            decisions_of(line.library).accept(fit_id)


def test_a_rejected_proposal_changes_nothing_and_its_numbers_are_never_used(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    proposed = refit(line, 6)

    reject(line.store, None)
    later = refit(line, 6, accept=True)

    assert proposed.new_ids == [3, 4, 5]
    assert (kept(line, proposed.fit_id).state, in_force(line)) == (FitState.REJECTED, later.fit_id)
    assert later.new_ids == [6, 7, 8]
    assert active(line) == {0, 1, 2, 6, 7, 8}
    with pytest.raises(ProposalError, match=r"no proposal waits; `imgsortd refits` lists"):
        reject(line.store, None)
    with pytest.raises(ProposalError, match="fit 1 is adopted; only a proposal can be rejected"):
        reject(line.store, 1)


def test_a_rejected_proposal_may_still_be_accepted_until_another_fit_is_in_force(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    proposed = refit(line, 1)
    reject(line.store, None)

    decisions_of(line.library).accept(proposed.fit_id)

    assert in_force(line) == proposed.fit_id
    refused = refit(line, 3)
    assert refused.state is FitState.PROPOSED
    reject(line.store, None)
    refit(line, 2, accept=True)
    with pytest.raises(ProposalError, match="was made to follow fit 2, but fit 4 is in force now"):
        decisions_of(line.library).accept(refused.fit_id)


def test_a_proposal_of_other_features_is_refused(make_line: Callable[..., Line]) -> None:
    line = make_line()
    refit(line, 1)
    line.library.extractor.id = replace(line.library.extractor.id, weights_digest="other")

    with pytest.raises(ProposalError, match="features of weights colour"):
        decisions_of(line.library).accept(None)

    assert in_force(line) == 1


def test_after_a_proposal_a_rejection_and_a_rollback_the_triggers_count_anew(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    paint_groups(line.config.inbox, 2, seed=50)
    line.run()

    def facts() -> FitFacts:
        return fit_facts(line.store)

    assert (facts().fitted_images, facts().n_features) == (12, 18)

    refit(line, 1)
    assert facts().fitted_images == 18
    paint_groups(line.config.inbox, 1, seed=90)
    line.run()
    reject(line.store, None)
    assert facts().fitted_images == 21
    refit(line, 3)
    paint_groups(line.config.inbox, 1, seed=95)
    line.run()
    decisions_of(line.library).rollback()

    assert (facts().fitted_images, facts().n_features) == (24, 24)


@pytest.mark.parametrize("point", ["planned:1", "renamed:3", "moves_synced:1", "closed:1"])
def test_killed_while_it_undoes_the_next_start_has_both_the_files_and_the_fit_back(
    make_line: Callable[..., Line], point: str
) -> None:
    line = make_line(extractor=ColourExtractor("auto"))
    before = line.files()
    summary = refit(line, 1, FitTrigger.GROWTH)
    line.close()

    words = ("undo", "--batch", str(summary.batch))
    killed = command_process(line, words, point)
    line._open()
    line.run()

    assert killed.returncode == -9, killed.stderr
    assert in_force(line) == 1
    assert line.files() == before
    assert line.counts() == {"seen": 12, "sorted": 12}


def test_many_files_that_followed_a_fit_are_undone_as_one_batch(
    make_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsortd.moves.making.MOVES_AT_ONCE", 3)
    line = make_line()
    before = line.files()
    summary = refit(line, 1, FitTrigger.GROWTH)
    first, *_, last = sorted(name for name in line.files() if name not in before)
    for name in (first, last):  # of the portions there is one of which nothing is to be done
        (line.config.target / name).unlink()
    line.close()

    report = undo(line.config, UndoChoice(batch=summary.batch), dry_run=False)
    line._open()

    assert (report["placed"], report["fit_in_force"]) == (6, 1)
    assert len(report["made"]) == 1
    assert in_force(line) == 1


# --- rollback ---------------------------------------------------------------------------


def test_rollback_returns_to_the_former_fit_and_accept_goes_forward_again(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    first = line.files()
    second = refit(line, 1, accept=True)
    files_of_second = line.files()
    third = refit(line, 4, accept=True)
    files_of_third = line.files()

    back = decisions_of(line.library).rollback()
    files_back = line.files()
    first_back = decisions_of(line.library).rollback()

    assert (back.in_force, first_back.in_force) == (second.fit_id, 1)
    assert (files_back, line.files()) == (files_of_second, first)
    assert in_force(line) == 1
    assert active(line) == {0, 1, 2}
    with pytest.raises(ProposalError, match="fit 1 is the first one: there is none to return to"):
        decisions_of(line.library).rollback()
    decisions_of(line.library).accept(second.fit_id)
    assert line.files() == files_of_second
    decisions_of(line.library).accept(third.fit_id)
    assert line.files() == files_of_third
    assert active(line) == set(third.sizes)


def test_rollback_moves_no_file_where_they_are_to_stay(make_line: Callable[..., Line]) -> None:
    line = make_line()
    before = line.files()
    refit(line, 1)
    accepted = decisions_of(line.library).accept(None)
    moved = line.files()

    decided = decisions_of(line.library).rollback(move=False)

    assert moved != before
    assert (decided.moved, decided.batch, decided.refit_batches) == (0, None, [accepted.batch])
    assert line.files() == moved
    assert in_force(line) == 1


def test_rollback_takes_files_back_and_what_has_come_since_goes_by_the_former_fit(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    before = line.files()
    refit(line, 1)
    accepted = decisions_of(line.library).accept(None)
    line.put("late.png", paint(line.config.inbox.parent / "late.png", BLUE, 9).read_bytes())
    line.run()
    assert "cluster_0/late.png" in line.files()

    decided = decisions_of(line.library).rollback()

    blue = next(name.split("/")[0] for name in before if "blue" in name)
    is_moved = blue != "cluster_0"
    assert (decided.moved, decided.refit_batches) == (8 + is_moved, [accepted.batch])
    assert sorted(line.files()) == sorted([*before, f"{blue}/late.png"])
    assert sums(line.config.target) == dict.fromkeys(sums(line.config.target), 1)


def test_a_fit_of_other_features_is_not_returned_to(make_line: Callable[..., Line]) -> None:
    line = make_line()
    line.extractor = ColourExtractor("other")
    line.library = replace(line.library, extractor=line.extractor)
    line.library.in_force.model, line.library.in_force.former = None, line.library.in_force.model
    with line.store.atomic():
        hashes = [r[0] for r in line.store.connection.execute("SELECT sha256 FROM files")]
        vectors = np.eye(3, dtype=np.float32)[np.arange(len(hashes)) % 3]
        line.store.fits.put_features(line.extractor.id, hashes, vectors)
    adoption_of(line.library).adopt(compute_fit(source_of(line.library), 3, 1), FitTrigger.BACKBONE)

    with pytest.raises(ProposalError, match="fit 1 was made of pool5 features of weights colour"):
        decisions_of(line.library).rollback()


# --- what is shown ----------------------------------------------------------------------


def test_show_tells_what_becomes_of_each_cluster_and_which_files_would_move(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    proposed = refit(line, 1)

    shown = read_proposal(line.store, kept(line, proposed.fit_id), files=2)

    assert [(c.change, c.cluster_id) for c in shown.changes] == [
        (Change.VANISHES, 1),
        (Change.VANISHES, 2),
        (Change.MERGES, 0),
        (Change.GROWS, 0),
    ]
    assert [(g.old_folder, g.new_folder, g.total) for g in shown.moves] == [
        (b"cluster_1", b"cluster_0", 4),
        (b"cluster_2", b"cluster_0", 4),
    ]
    assert all(len(group.files) == 2 for group in shown.moves)
    standing = set(line.files())
    assert {os.fsdecode(name) for group in shown.moves for name in group.files} <= standing
    json.dumps(asdict(shown), default=os.fsdecode)


def test_files_that_were_sorted_after_the_proposal_was_made_of_them_move_too(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    with line.store.atomic():  # as if they had arrived, and were not sorted yet
        line.store.connection.execute("UPDATE files SET state = 'pending' WHERE cluster_id = 1")
    refit(line, 1)
    with line.store.atomic():
        line.store.connection.execute("UPDATE files SET state = 'sorted' WHERE state = 'pending'")

    decided = decisions_of(line.library).accept(None, move=True)

    assert decided.moved == 8
    assert {name.split("/")[0] for name in line.files()} == {"cluster_0"}


def test_pictures_that_still_wait_are_told_of_by_the_cluster_they_come_from(
    make_line: Callable[..., Line],
) -> None:
    line = make_line()
    with line.store.atomic():  # as if they had arrived, and were not sorted yet
        line.store.connection.execute("UPDATE files SET state = 'pending' WHERE cluster_id = 1")
    proposed = refit(line, 1)

    flows = line.store.records.flows(proposed.fit_id or 0)

    assert flows == {(0, 0): 4, (1, 0): 4, (2, 0): 4}


# --- the numbers ------------------------------------------------------------------------


def fitted(
    labels: list[int], old_labels: list[int] | None, stands: list[int] | None = None
) -> Fitted:
    """Make a fit of files that stand in the folders of ``stands``, or of their old labels."""
    k = max(labels) + 1
    centers = np.arange(3 * k, dtype=np.float32).reshape(k, 3)
    fit = Fit(centers, np.array(labels, dtype=np.intp), 1.0, "KMeans", 0.1)
    old = None if old_labels is None else np.array(old_labels, dtype=np.intp)
    stands = stands or old_labels or [NOWHERE] * len(labels)
    return Fitted(np.arange(1, len(labels) + 1), fit, old, np.array(stands, np.int64))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Return a library whose fit 1 has ten pictures in cluster 0 and five in cluster 1."""
    library, store = make_library(make_config(tmp_path))
    adoption_of(library).adopt(fitted([0] * 10 + [1] * 5, None), FitTrigger.BOOTSTRAP)
    yield library
    store.close()


def test_a_split_keeps_the_id_with_the_larger_part(library: Library) -> None:
    labels = [0] * 4 + [1] * 6 + [2] * 5

    summary = adoption_of(library).adopt(fitted(labels, [0] * 10 + [1] * 5), FitTrigger.GROWTH)

    assert summary.sizes == {2: 4, 0: 6, 1: 5}
    assert (summary.new_ids, summary.retired_ids) == ([2], [])
    assert summary.churn == pytest.approx(4 / 15)


def test_a_merge_retires_the_id_of_the_smaller_part_for_good(library: Library) -> None:
    merged = adoption_of(library).adopt(fitted([0] * 15, [0] * 10 + [1] * 5), FitTrigger.GROWTH)

    apart = adoption_of(library).adopt(fitted([0] * 10 + [1] * 5, [0] * 15), FitTrigger.GROWTH)

    assert (merged.sizes, merged.retired_ids) == ({0: 15}, [1])
    assert merged.churn == pytest.approx(5 / 15)
    assert apart.sizes == {0: 10, 2: 5}


def test_a_pin_that_adds_a_center_does_not_give_one_id_to_two_clusters(library: Library) -> None:
    assert library.in_force.model is not None
    more = np.concatenate([library.in_force.model.centers, np.ones((1, 3), np.float32)])
    library.in_force.model = replace(library.in_force.model, centers=more, cluster_ids=(0, 1, 0))

    summary = adoption_of(library).adopt(
        fitted(
            [0] * 5 + [1] * 5 + [2] * 5,
            [0] * 5 + [2] * 5 + [1] * 5,
            stands=[0] * 10 + [1] * 5,
        ),
        FitTrigger.GROWTH,
    )

    assert sorted(summary.sizes) == [0, 1, 2]
    assert summary.new_ids == [2]


PICTURES = 10
LABELS = st.lists(st.integers(0, 3), min_size=PICTURES, max_size=PICTURES)
STEPS = st.lists(
    st.tuples(st.sampled_from(["fit", "reject", "accept", "rollback"]), LABELS, st.booleans()),
    max_size=8,
)


@settings(max_examples=40)
@given(LABELS, STEPS)
def test_through_any_decisions_a_number_is_given_once_and_means_one_folder(
    first: list[int], steps: list[tuple[str, list[int], bool]]
) -> None:
    with TemporaryDirectory() as folder:
        config = make_config(Path(folder), refit={"max_churn": 0.3})
        library, store = make_library(config)
        store.connection.execute("PRAGMA synchronous = OFF")
        labels_of: dict[int, list[int]] = {}
        given_out: set[int] = set()
        stands = [NOWHERE] * PICTURES

        def fit(labels: list[int]) -> None:
            model = library.in_force.model
            old = None if model is None else labels_of[model.fit_id]
            had = {*(model.cluster_ids if model else ()), *stands}
            dense = np.unique(labels, return_inverse=True)[1].tolist()
            made = fitted(dense, old, list(stands))
            summary = adoption_of(library).settle(made, FitTrigger.REQUEST, basis=model).summary
            assert summary.fit_id is not None
            labels_of[summary.fit_id] = dense
            new = set(summary.sizes) - had
            assert not given_out & new
            assert new <= set(summary.new_ids)
            given_out.update(new)

        def follow() -> None:
            """Let files stand where the fit in force puts them."""
            assert library.in_force.model is not None
            ids = library.in_force.model.cluster_ids
            stands[:] = [ids[label] for label in labels_of[library.in_force.model.fit_id]]

        fit(first)
        for step, labels, files_follow in steps:
            waits = store.records.waiting() is not None
            if step == "fit":
                fit(labels)
            elif step == "reject" and waits:
                reject(store, None)
            elif step == "accept" and waits:
                decisions_of(library).accept(None)
            elif step == "rollback" and store.records.list_fits()[-1].in_force is False:
                decisions_of(library).rollback()
            if files_follow:
                follow()
            assert library.in_force.model is not None
            assert store.records.current_id() == library.in_force.model.fit_id
            rows = store.connection.execute("SELECT id FROM clusters WHERE retired_fit IS NULL")
            assert {row[0] for row in rows} == set(library.in_force.model.cluster_ids)
            assert len(set(library.in_force.model.cluster_ids)) == len(
                library.in_force.model.cluster_ids
            )
            proposed = [f for f in store.records.list_fits() if f.state is FitState.PROPOSED]
            assert len(proposed) <= 1
        store.close()


# --- a giant cluster, a group in review -------------------------------------------------


def change(line: Line, trigger: FitTrigger, cluster_id: int | None, images: int) -> PartialFit:
    found = look(line, trigger, cluster_id, images)
    assert found is not None
    return found


def look(
    line: Line, trigger: FitTrigger, cluster_id: int | None, images: int, share: float = 0.25
) -> PartialFit | None:
    rule, database = line.library.in_force.rule, line.config.database
    return compute_partial(PartialSource(trigger, database, cluster_id, images, share, 42, rule))


def test_a_giant_cluster_is_split_until_each_part_is_below_the_share(tmp_path: Path) -> None:
    line = Line(tmp_path, clusters={"n_clusters": 1})
    for index, colour in enumerate((RED, GREEN, BLUE, CYAN, YELLOW)):
        for number in range(6 + index):
            paint(line.config.inbox / f"{index}-{number}.png", colour, 100 * index + number)
    line.run()
    assert line.store.records.giants(1, 0.25) == [(0, 40)]

    found = change(line, FitTrigger.SPLIT, 0, 40)
    summary = adoption_of(line.library).propose(found, FitTrigger.SPLIT)

    assert sorted(summary.sizes.values()) == [6, 7, 8, 9, 10]
    assert (summary.sizes[0], summary.state) == (10, FitState.PROPOSED)
    assert line.store.records.was_refused(FitTrigger.SPLIT, 0, 40) is False
    reject(line.store, None)
    assert line.store.records.was_refused(FitTrigger.SPLIT, 0, 49) is True
    assert line.store.records.was_refused(FitTrigger.SPLIT, 0, 50) is False
    line.close()


def test_a_cluster_that_does_not_fall_apart_is_not_split(tmp_path: Path) -> None:
    line = Line(tmp_path, clusters={"n_clusters": 1})
    pictures = [paint(tmp_path / f"{n}.png", RED, n) for n in range(4)]
    for path in pictures:
        path.rename(line.config.inbox / path.name)
    paint_groups(line.config.inbox, 1)
    line.run()

    assert look(line, FitTrigger.SPLIT, 0, 7, share=0.9) is None
    line.close()


REVIEWED = {"clusters": {"review_quantile": 1, "review_margin": "off"}}


def test_a_group_in_review_becomes_a_cluster_when_it_is_accepted(
    make_line: Callable[..., Line],
) -> None:
    line = make_line(**REVIEWED)
    for number in range(6):
        paint(line.config.inbox / f"cyan-{number}.png", CYAN, number)
    paint(line.config.inbox / "odd.png", YELLOW, 77)
    line.run()
    assert line.counts()["review"] == 7
    before = line.files()

    found = change(line, FitTrigger.REVIEW, None, 7)
    summary = adoption_of(line.library).propose(found, FitTrigger.REVIEW)
    shown = read_proposal(line.store, kept(line, summary.fit_id), files=9)
    decided = decisions_of(line.library).accept(None)

    assert (summary.new_ids, summary.retired_ids) == ([3], [])
    assert [(g.old_folder, g.new_folder, g.total) for g in shown.moves] == [
        (b"_review", b"cluster_3", 6)
    ]
    assert decided.moved == 6
    names = set(line.files())
    assert {name for name in names if name.startswith("cluster_3/")} == {
        f"cluster_3/cyan-{number}.png" for number in range(6)
    }
    assert "_review/odd.png" in names
    assert (line.counts()["review"], line.counts()["sorted"]) == (1, 18)
    line.close()
    undo(line.config, UndoChoice(batch=decided.batch), dry_run=False)
    line._open()
    assert line.files() == before
    assert line.counts()["review"] == 7


def test_a_new_fit_takes_out_of_review_what_is_near_to_its_clusters_but_no_pinned_one(
    make_line: Callable[..., Line],
) -> None:
    line = make_line(**REVIEWED)
    for number in range(6):
        paint(line.config.inbox / f"cyan-{number}.png", CYAN, number)
    line.run()
    with line.store.atomic():
        (sha256,) = line.store.connection.execute(
            "SELECT sha256 FROM files WHERE src = ?", (b"cyan-0.png",)
        ).fetchone()
        line.store.pins.put(sha256, None)
    assert line.counts()["review"] == 6

    refit(line, 4, accept=True)
    line.run()

    folders = {name.split("/")[1]: name.split("/")[0] for name in line.files() if "cyan" in name}
    assert folders.pop("cyan-0.png") == "_review"
    assert len(set(folders.values())) == 1
    assert "_review" not in folders.values()
    line.close()
    undo(line.config, UndoChoice(), dry_run=False)
    line._open()
    line.run()
    assert {name for name in line.files() if "cyan" in name} == {
        f"_review/cyan-{at}.png" for at in range(6)
    }


def test_pictures_in_review_that_have_nothing_in_common_stay_there(
    make_line: Callable[..., Line],
) -> None:
    line = make_line(**REVIEWED)
    for number, colour in enumerate((CYAN, YELLOW, (200, 30, 200), (120, 120, 120), (250, 120, 9))):
        paint(line.config.inbox / f"odd-{number}.png", colour, number)
    line.run()
    assert line.counts()["review"] == 5

    assert look(line, FitTrigger.REVIEW, None, 5) is None


# --- a crash between the switch and the moves -------------------------------------------


@pytest.mark.parametrize("point", ["fit_saved:1", "opened:3", "renamed:5", "moves_synced:1"])
def test_killed_while_it_accepts_the_next_start_finishes_the_moves(
    make_line: Callable[..., Line], point: str
) -> None:
    line = make_line(extractor=ColourExtractor("auto"))
    before = line.files()
    refit(line, 1)
    line.close()

    killed = command_process(line, ("refits", "accept"), point)
    line._open()
    planned = len(line.store.journal.unfinished())
    line.run()

    assert killed.returncode == -9, killed.stderr
    assert planned == 8
    assert in_force(line) == 2
    assert {name.split("/")[0] for name in line.files()} == {"cluster_0"}
    assert sorted(line.files().values()) == sorted(before.values())
    assert line.counts() == {"seen": 12, "sorted": 12}


def command_process(
    line: Line, words: tuple[str, ...], fault: str
) -> subprocess.CompletedProcess[str]:
    config = line.config.inbox.parent / "config.yaml"
    return warm.run([*QUICK, *words, "-c", str(config)], {"IMGSORTD_FAULT_POINT": fault})
