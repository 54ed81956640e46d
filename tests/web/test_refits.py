"""A refit is shown side by side: what each cluster is before it and after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.clusters.fit import compute_fit
from imgsortd.errors import ProposalError
from imgsortd.records import FitState, FitTrigger
from imgsortd.refits.adopting import FitSummary
from imgsortd.refits.decisions import reject
from imgsortd.web.refits import SAMPLE, compare, history, spread
from line import Line
from support import adoption_of, decisions_of, paint, paint_groups, source_of
from web_asking import told

ORANGE = (170, 150, 30)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted four pictures of each of three colours."""
    line = Line(tmp_path, refit={"max_churn": 0.1})
    paint_groups(line.config.inbox, 4)
    line.run()
    yield line
    line.close()


def refit(line: Line, n_clusters: int, **how: Any) -> FitSummary:
    fitted = compute_fit(source_of(line.library), n_clusters, 1)
    basis = line.library.in_force.model
    return adoption_of(line.library).settle(fitted, FitTrigger.REQUEST, basis=basis, **how).summary


def sql(line: Line, statement: str, *values: object) -> list[Any]:
    with line.store.atomic():
        return line.store.connection.execute(statement, values).fetchall()


def files_of(line: Line, *clusters: int) -> dict[int, str]:
    """Return the key of each file in these clusters, by number."""
    marks = ",".join("?" * len(clusters))
    rows = sql(line, f"SELECT id, sha256 FROM files WHERE cluster_id IN ({marks})", *clusters)
    return {number: sha256.hex()[:8] for number, sha256 in rows}


def compared(line: Line, fit_id: int | None) -> dict[str, Any]:
    assert fit_id is not None
    found = told(compare(line.store, fit_id))
    json.dumps(found, ensure_ascii=False).encode()
    return found


def change(found: dict[str, Any], kind: str, nth: int = 0) -> dict[str, Any]:
    return [one for one in found["changes"] if one["kind"] == kind][nth]


def sizes(sides: list[dict[str, Any]]) -> list[tuple[int | None, int]]:
    return [(side["cluster"], side["files"]) for side in sides]


def sample(side: dict[str, Any]) -> dict[int, str]:
    return dict(side["sample"])


def test_clusters_that_become_one_are_shown_beside_what_they_become(line: Line) -> None:
    sql(line, "UPDATE clusters SET folder = ? WHERE id = 0", b"Sk\xff")
    proposed = refit(line, 1)

    found = compared(line, proposed.fit_id)

    merge = change(found, "merges")
    assert merge["line"] == "Sk? is merged from Sk? (4), cluster_1 (4), cluster_2 (4)"
    assert sizes(merge["before"]) == [(0, 4), (1, 4), (2, 4)]
    assert sizes(merge["after"]) == [(0, 12)]
    assert [side["folder"] for side in merge["before"]] == ["Sk?", "cluster_1", "cluster_2"]
    assert [sample(side) for side in merge["before"]] == [
        files_of(line, 0),
        files_of(line, 1),
        files_of(line, 2),
    ]
    after = sample(merge["after"][0])
    assert len(after) == SAMPLE
    assert after.items() <= files_of(line, 0, 1, 2).items()
    assert all(after.keys() & files_of(line, number).keys() for number in range(3))


def test_a_cluster_that_vanishes_is_shown_with_where_its_pictures_go(line: Line) -> None:
    found = compared(line, refit(line, 1).fit_id)

    vanishes = change(found, "vanishes", 1)
    assert vanishes["line"] == "cluster_2 vanishes, with 4 pictures before"
    assert (sizes(vanishes["before"]), sizes(vanishes["after"])) == ([(2, 4)], [(0, 4)])
    assert sample(vanishes["before"][0]) == sample(vanishes["after"][0]) == files_of(line, 2)


def test_a_cluster_that_splits_is_shown_with_its_parts(line: Line) -> None:
    refit(line, 1)
    decisions_of(line.library).accept(None, move=True)
    proposed = refit(line, 3)
    assert proposed.state is FitState.PROPOSED

    found = compared(line, proposed.fit_id)

    split = change(found, "splits")
    (before,) = split["before"]
    assert (before["cluster"], before["files"], len(before["sample"])) == (0, 12, 8)
    assert {side["files"] for side in split["after"]} == {4}
    parts = [set(sample(side)) for side in split["after"]]
    assert set.union(*parts) == files_of(line, 0).keys()
    assert [len(part) for part in parts] == [4, 4, 4]
    going = sql(
        line, "SELECT new_id, file_id FROM proposed_changes WHERE fit_id = ?", proposed.fit_id
    )
    for side in split["after"]:
        there = {file_id for new, file_id in going if new == side["cluster"]}
        assert not there or set(sample(side)) == there
    appears = change(found, "appears")
    assert sizes(appears["before"]) == [(0, 4)]
    assert sample(appears["before"][0]) == sample(appears["after"][0])


@pytest.fixture
def reviewed(tmp_path: Path) -> Iterator[Line]:
    """Return a line with a dozen pictures in review that would be a cluster of their own."""
    line = Line(tmp_path, clusters={"review_margin": 0.5}, refit={"max_churn": 0})
    paint_groups(line.config.inbox, 4)
    line.run()
    for number in range(12):
        paint(line.config.inbox / f"odd-{number}.png", ORANGE, seed=500 + number)
    line.run()
    assert line.counts()["review"] == 12
    yield line
    line.close()


def ids_in_review(line: Line) -> set[int]:
    return {number for (number,) in sql(line, "SELECT id FROM files WHERE state = 'review'")}


def test_a_cluster_that_is_all_of_review_has_pictures_on_both_sides(reviewed: Line) -> None:
    found = compared(reviewed, refit(reviewed, 4).fit_id)

    (appears,) = found["changes"]
    assert appears["line"] == "cluster_3 appears with 12 pictures, all of them from review"
    (before,), (after,) = appears["before"], appears["after"]
    assert (before["cluster"], before["folder"], before["files"]) == (None, "_review", 12)
    assert (after["files"], after["sample"], after["review"]["files"]) == (12, [], 12)
    assert sample(before) == sample(after["review"])
    assert len(sample(before)) == SAMPLE
    assert sample(before).keys() <= ids_in_review(reviewed)
    (group,) = found["moves"]
    assert (group["old"], group["new"], group["from_review"]) == ("_review", "cluster_3", True)
    assert group["total"] == 12


def test_those_from_review_are_told_apart_from_those_of_other_clusters(reviewed: Line) -> None:
    stray = sorted(ids_in_review(reviewed))[:2]
    sql(reviewed, "UPDATE files SET state = 'sorted', cluster_id = 0 WHERE id IN (?, ?)", *stray)

    found = compared(reviewed, refit(reviewed, 4).fit_id)

    appears = change(found, "appears")
    assert appears["line"] == "cluster_3 appears with 12 pictures, 10 of them from review"
    assert sizes(appears["before"]) == [(None, 10), (0, 2)]
    of_review, of_cluster = appears["before"]
    (after,) = appears["after"]
    assert list(sample(of_cluster)) == list(sample(after)) == stray
    assert (after["files"], after["review"]["files"]) == (12, 10)
    assert sample(of_review) == sample(after["review"])
    assert sample(of_review).keys() <= ids_in_review(reviewed)
    assert {(move["from_review"], move["total"]) for move in found["moves"]} == {
        (True, 10),
        (False, 2),
    }


def test_of_very_many_sources_the_smallest_stand_together_and_review_by_itself(line: Line) -> None:
    fit_id = refit(line, 1).fit_id
    sql(line, "DELETE FROM fit_flows")
    flows = [(None, 1), *((number, 100 - number) for number in range(20, 40))]
    for old, files in flows:
        sql(line, "INSERT INTO fit_flows VALUES (?, ?, 9, ?)", fit_id, old, files)

    before = change(compared(line, fit_id), "appears")["before"]

    assert sizes(before)[:2] == [(20, 80), (21, 79)]
    assert sizes(before)[-2:] == [(None, 1), (None, sum(range(61, 70)))]
    assert [side["is_others"] for side in before] == [False] * 12 + [True]
    assert before[-1]["folder"] == "9 other folders"


def test_the_files_that_would_move_are_counted_by_where_from_and_where_to(line: Line) -> None:
    proposed = refit(line, 1)
    pinned, *_ = files_of(line, 1)
    sql(line, "INSERT INTO pins SELECT sha256, 1, 0 FROM files WHERE id = ?", pinned)

    found = compared(line, proposed.fit_id)

    assert [(move["old"], move["new"], move["total"]) for move in found["moves"]] == [
        ("cluster_2", "cluster_0", 4),
        ("cluster_1", "cluster_0", 3),
    ]
    assert found["would_move"] == 7
    assert dict(found["moves"][0]["sample"]) == files_of(line, 2)
    assert pinned not in dict(found["moves"][1]["sample"])
    assert found["churn"] == found["fit"]["churn"] == pytest.approx(2 / 3)
    assert (found["fit"]["state"], found["fit"]["can_roll_back"]) == ("proposed", False)


def test_of_a_fit_in_force_the_numbers_are_told_without_pictures(line: Line) -> None:
    proposed = refit(line, 1)
    decisions_of(line.library).accept(None)

    found = compared(line, proposed.fit_id)

    merge = change(found, "merges")
    assert sizes(merge["before"]) == [(0, 4), (1, 4), (2, 4)]
    assert {len(side["sample"]) for one in found["changes"] for side in one["before"]} == {0}
    assert (found["moves"], found["would_move"]) == ([], 0)
    assert found["fit"]["can_roll_back"]


def test_a_rejected_proposal_still_says_what_it_would_have_done(line: Line) -> None:
    proposed = refit(line, 1)
    reject(line.store, None)

    assert compared(line, proposed.fit_id)["would_move"] == 8


def test_the_first_fit_has_nothing_before_it(line: Line) -> None:
    found = compared(line, 1)

    assert [one["kind"] for one in found["changes"]] == []
    assert found["would_move"] == 0


def test_a_fit_that_is_not_there_is_told(line: Line) -> None:
    with pytest.raises(ProposalError, match="there is no fit 77"):
        compare(line.store, 77)


def test_the_history_says_which_fit_waits_and_which_can_be_rolled_back(line: Line) -> None:
    def fits() -> tuple[int | None, list[tuple[int, str, bool, bool]]]:
        found = told(history(line.store))
        json.dumps(found, ensure_ascii=False).encode()
        return found["waiting"], [
            (fit["fit_id"], fit["state"], fit["in_force"], fit["can_roll_back"])
            for fit in found["history"]
        ]

    first = fits()
    refit(line, 1)
    proposed = fits()
    decisions_of(line.library).accept(None)
    accepted = fits()
    decisions_of(line.library).rollback()
    rolled = fits()

    assert first == (None, [(1, "adopted", True, False)])
    assert proposed == (2, [(2, "proposed", False, False), (1, "adopted", True, False)])
    assert accepted == (None, [(2, "adopted", True, True), (1, "adopted", False, False)])
    assert rolled == (None, [(2, "rejected", False, False), (1, "adopted", True, False)])


def test_a_fit_of_other_features_cannot_be_returned_to(line: Line) -> None:
    refit(line, 1, accept=True)
    sql(line, "INSERT INTO extractors(weights_digest, layer, dims) VALUES ('other', 'pool5', 3)")
    sql(line, "UPDATE fits SET extractor_id = (SELECT max(id) FROM extractors) WHERE id = 1")

    fits = told(history(line.store))["history"]

    assert [fit["can_roll_back"] for fit in fits] == [False, False]


def test_before_there_is_a_database_there_is_no_fit(line: Line) -> None:
    assert told(history(None)) == {"waiting": None, "history": []}


@given(st.integers(0, 300))
def test_a_sample_is_spread_over_all_and_begins_with_the_first(count: int) -> None:
    found = spread(np.arange(count, dtype=np.int64))

    assert len(found) == min(SAMPLE, count)
    assert found == sorted(set(found))
    assert found[:1] == list(range(count))[:1]
    gaps = np.diff([*found, count])
    assert not count or gaps.max() - gaps.min() <= 1
