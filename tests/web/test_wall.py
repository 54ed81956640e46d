"""The pictures of a cluster come in their order, each once, chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsortd.errors import CursorError, FindError
from imgsortd.records import REBUILT
from imgsortd.store.database import open_for_reading, open_for_writing
from imgsortd.web.clusters import Overview
from imgsortd.web.wall import MOST_PICTURES, Order, Wall, nearest_first
from line import Line
from support import RED, ColourExtractor, make_config, paint, paint_groups
from synthetic import fill
from web_asking import told


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted six pictures of each of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 6)
    line.run()
    yield line
    line.close()


@pytest.fixture
def wall() -> Wall:
    return Wall(Overview())


def sql(line: Line, statement: str, *values: object) -> list[Any]:
    with line.store.atomic():
        return line.store.connection.execute(statement, values).fetchall()


def ids(chunk: dict[str, Any]) -> list[int]:
    return [picture[0] for picture in chunk["pictures"]]


def chunks(wall: Wall, line: Line, order: Order, limit: int) -> Iterator[dict[str, Any]]:
    """Yield the chunks of cluster 0 to the end."""
    after = None
    while True:
        chunk = told(wall.pictures(line.store, 0, order, after, limit))
        yield chunk
        after = chunk["next"]
        if after is None:
            return


def by_distance_to_the_middle(line: Line, middle: str = "center") -> list[int]:
    """Return cluster 0's pictures by their distance to its center, or to their mean."""
    model = line.store.fits.current()
    assert model is not None
    center = model.centers[model.cluster_ids.index(0)] if middle == "center" else None
    rows = sql(line, "SELECT id, sha256 FROM files WHERE cluster_id = 0 ORDER BY id")
    found = line.store.fits.get_features(line.extractor.id, [sha256 for _, sha256 in rows])
    vectors = np.stack([found[sha256] for _, sha256 in rows])
    center = vectors.mean(axis=0) if center is None else center
    distances = np.linalg.norm(vectors - center, axis=1)
    return [rows[row][0] for row in np.argsort(distances, kind="stable")]


def test_the_nearest_to_the_center_of_the_cluster_comes_first(line: Line, wall: Wall) -> None:
    sql(line, "UPDATE files SET cluster_id = 0 WHERE id = (SELECT min(id) FROM files "
              "WHERE cluster_id = 1)")  # fmt: skip

    chunk = told(wall.pictures(line.store, 0))

    assert ids(chunk) == by_distance_to_the_middle(line)
    assert (chunk["total"], chunk["next"]) == (7, None)
    assert ids(chunk) != by_distance_to_the_middle(line, "mean")


def test_another_fit_in_force_gives_another_order_though_the_pictures_are_the_same(
    line: Line, wall: Wall
) -> None:
    before = ids(told(wall.pictures(line.store, 0)))
    line.fit()
    (far,) = sql(line, "SELECT vector FROM features WHERE sha256 = (SELECT sha256 FROM files "
                       "WHERE id = ?)", before[-1])[0]  # fmt: skip
    center = np.frombuffer(far, np.float16).astype("<f4")
    sql(line, "UPDATE centers SET vector = ? WHERE cluster_id = 0 AND fit_id = 2", center.tobytes())

    after = ids(told(wall.pictures(line.store, 0)))

    assert after == by_distance_to_the_middle(line)
    assert (after[0], set(after)) == (before[-1], set(before))


def test_a_cluster_that_is_in_force_no_more_goes_by_the_mean_of_its_pictures(
    line: Line, wall: Wall
) -> None:
    expected = by_distance_to_the_middle(line, "mean")
    sql(line, "UPDATE clusters SET retired_fit = 1 WHERE id = 0")
    sql(line, "DELETE FROM centers WHERE cluster_id = 0")

    assert ids(told(wall.pictures(line.store, 0))) == expected


def test_a_picture_is_told_with_its_size_its_name_and_its_pin(line: Line, wall: Wall) -> None:
    (row,) = sql(line, "SELECT id, sha256 FROM files WHERE cluster_id = 0 ORDER BY id LIMIT 1")
    sql(line, "UPDATE files SET dst = ? WHERE id = ?", b"cluster_0/\xffno.png", row[0])
    sql(line, "INSERT INTO pins VALUES (?, 0, 1)", row[1])
    sql(line, "INSERT OR REPLACE INTO picture_hashes VALUES (?, x'00', 640, 480)", row[1])

    chunk = told(wall.pictures(line.store, 0))

    pictures = {picture[0]: picture for picture in chunk["pictures"]}
    assert pictures[row[0]] == [row[0], row[1].hex()[:8], 640, 480, "?no.png", 1]
    assert {picture[5] for number, picture in pictures.items() if number != row[0]} == {0}
    assert chunk["cluster"]["files"] == 6
    assert "mosaic" not in chunk["cluster"]
    json.dumps(chunk, ensure_ascii=False).encode()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("limit", [1, 4, 6, 100])
def test_chunks_put_together_are_the_whole_each_picture_once(
    line: Line, wall: Wall, order: Order, limit: int
) -> None:
    found = [number for chunk in chunks(wall, line, order, limit) for number in ids(chunk)]

    assert found == ids(told(wall.pictures(line.store, 0, order)))
    assert len(found) == len(set(found)) == 6


def test_the_newest_comes_first_and_of_one_instant_the_highest_number(
    line: Line, wall: Wall
) -> None:
    numbers = [row[0] for row in sql(line, "SELECT id FROM files WHERE cluster_id = 0")]
    for number, came in zip(sorted(numbers), (5.5, 7.25, 5.5, 9.0, None, None), strict=True):
        sql(line, "UPDATE files SET done_at = ? WHERE id = ?", came, number)
    first, second, third, fourth, fifth, sixth = sorted(numbers)

    found = [number for chunk in chunks(wall, line, Order.NEW, 2) for number in ids(chunk)]

    assert found == [fourth, second, third, first, sixth, fifth]


@pytest.mark.parametrize("n_pictures", [pytest.param(40_000, marks=pytest.mark.faults), 20])
def test_a_large_cluster_has_the_same_order_as_if_it_were_read_at_once(
    tmp_path: Path, n_pictures: int
) -> None:
    extractor = replace(ColourExtractor().id, dims=512)
    store = open_for_writing(make_config(tmp_path).database)
    vectors = np.zeros((n_pictures, 512), dtype=np.float32)
    vectors[:, 0] = np.random.default_rng(0).permutation(n_pictures) / n_pictures
    fill(store, extractor, vectors, range(n_pictures))
    rows = store.shown

    found = nearest_first(rows, extractor, rows.members(0))

    stored = vectors[:, 0].astype(np.float16).astype(np.float32)
    middle = np.float32(stored.mean(dtype=np.float64))
    distances = np.abs(stored - middle)[found - 1]  # they are numbered as they were stored
    store.close()
    assert len(set(found.tolist())) == n_pictures
    assert (np.diff(distances) >= -1e-6).all()


def test_pictures_without_features_come_last(line: Line, wall: Wall) -> None:
    near = by_distance_to_the_middle(line)
    sql(line, "DELETE FROM features WHERE sha256 IN (SELECT sha256 FROM files WHERE id IN (?, ?))",
        *near[:2])  # fmt: skip

    assert ids(told(wall.pictures(line.store, 0)))[-2:] == sorted(near[:2])


@pytest.mark.parametrize("lost", ["features", "fits"])
def test_without_any_features_they_come_by_number(line: Line, wall: Wall, lost: str) -> None:
    if lost == "features":
        sql(line, "DELETE FROM features")
    else:
        sql(line, "UPDATE extractors SET weights_digest = ?", REBUILT)

    found = ids(told(wall.pictures(line.store, 0)))

    assert found == sorted(found)
    assert len(found) == 6


def test_who_has_begun_goes_on_in_the_order_that_was(line: Line, wall: Wall) -> None:
    whole = ids(told(wall.pictures(line.store, 0)))
    first = told(wall.pictures(line.store, 0, limit=2))
    paint(line.config.inbox / "late.png", RED, seed=999)
    line.run()
    sql(line, "UPDATE files SET cluster_id = 0")
    sql(line, "UPDATE files SET cluster_id = 1 WHERE id = ?", whole[3])

    rest = told(wall.pictures(line.store, 0, after=first["next"]))

    assert ids(first) + ids(rest) == [number for number in whole if number != whole[3]]
    assert told(wall.pictures(line.store, 0))["total"] == 18


def test_only_a_few_orders_are_kept_and_one_that_fell_out_is_made_anew(
    line: Line, wall: Wall
) -> None:
    first = told(wall.pictures(line.store, 0, limit=2))
    for number in range(20, 26):
        sql(line, "UPDATE files SET cluster_id = ? WHERE cluster_id IN (1, ?)", number, number - 1)
        wall.pictures(line.store, number)

    rest = told(wall.pictures(line.store, 0, after=first["next"]))

    assert ids(first) + ids(rest) == by_distance_to_the_middle(line)


def test_a_new_order_is_made_when_the_pictures_are_others(line: Line, wall: Wall) -> None:
    wall.pictures(line.store, 0)
    sql(line, "UPDATE files SET cluster_id = 1 - cluster_id WHERE cluster_id < 2")

    assert ids(told(wall.pictures(line.store, 0))) == by_distance_to_the_middle(line)


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(
    "after",
    ["", "7", "n-1", "n0123456789abcdef-", "w7ff8000000000000-1", "w0123456789abcde-1", "é" * 99],
)
def test_a_cursor_that_was_never_given_out_is_refused(
    line: Line, wall: Wall, order: Order, after: str
) -> None:
    with pytest.raises(CursorError, match="must be the next of a chunk in the order"):
        wall.pictures(line.store, 0, order, after)


def test_a_cursor_of_the_other_order_is_refused(line: Line, wall: Wall) -> None:
    near = told(wall.pictures(line.store, 0, Order.NEAR, limit=1))["next"]

    with pytest.raises(CursorError, match="begin again without it"):
        wall.pictures(line.store, 0, Order.NEW, near)


def test_a_cursor_far_behind_the_end_gives_nothing_more(line: Line, wall: Wall) -> None:
    chunk = told(wall.pictures(line.store, 0, after="n0123456789abcdef-999999999999999"))

    assert (chunk["pictures"], chunk["next"]) == ([], None)


@pytest.mark.parametrize(("limit", "pictures"), [(-5, 1), (0, 1), (MOST_PICTURES + 1, 6)])
def test_a_limit_out_of_range_is_brought_into_it(
    line: Line, wall: Wall, limit: int, pictures: int
) -> None:
    assert len(told(wall.pictures(line.store, 0, limit=limit))["pictures"]) == pictures


def test_a_cluster_that_is_not_there_is_told(line: Line, wall: Wall) -> None:
    with pytest.raises(FindError, match="there is no cluster 77"):
        wall.pictures(line.store, 77)


def test_an_empty_cluster_has_no_pictures(line: Line, wall: Wall) -> None:
    sql(line, "UPDATE files SET cluster_id = 1 WHERE cluster_id = 0")

    for order in Order:
        chunk = told(wall.pictures(line.store, 0, order))
        assert (chunk["pictures"], chunk["total"], chunk["next"]) == ([], 0, None)


def test_before_the_daemon_has_started_anew_sizes_are_not_known(line: Line, wall: Wall) -> None:
    expected = [ids(told(wall.pictures(line.store, 0, order))) for order in Order]
    sql(line, "DROP INDEX files_shown")
    for column in ("width_px", "height_px"):
        sql(line, f"ALTER TABLE picture_hashes DROP COLUMN {column}")

    with open_for_reading(line.config.database, any_schema=True) as store:
        found = [told(Wall(Overview()).pictures(store, 0, order)) for order in Order]

    assert [ids(chunk) for chunk in found] == expected
    assert {tuple(picture[2:4]) for picture in found[0]["pictures"]} == {(0, 0)}
