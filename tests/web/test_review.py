"""The pictures in review, each with the clusters it would likeliest belong to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsortd.web.clusters import Overview
from imgsortd.web.review import MOST_PICTURES, ReviewQueue
from line import Line
from support import paint, paint_groups
from web_asking import told

ORANGE = (170, 150, 30)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line with three clusters, and three pictures between red and green in review."""
    line = Line(tmp_path, clusters={"review_margin": 0.5})
    paint_groups(line.config.inbox, 4)
    line.run()
    for number in range(3):
        paint(line.config.inbox / f"odd-{number}.png", ORANGE, seed=500 + number)
    line.run()
    assert line.counts()["review"] == 3
    yield line
    line.close()


def sql(line: Line, statement: str, *values: object) -> list[Any]:
    with line.store.atomic():
        return line.store.connection.execute(statement, values).fetchall()


def cluster_of(line: Line, src: bytes) -> int:
    return int(sql(line, "SELECT cluster_id FROM files WHERE src = ?", src)[0][0])


def test_pictures_in_review_come_oldest_first_and_nothing_else(line: Line) -> None:
    queue = told(ReviewQueue(Overview()).read(line.store))

    expected = [row[0] for row in sql(line, "SELECT id FROM files WHERE state = 'review'")]
    assert [picture["id"] for picture in queue["pictures"]] == sorted(expected)
    assert (queue["total"], queue["next"]) == (3, None)
    first = queue["pictures"][0]
    (row,) = sql(line, "SELECT sha256 FROM files WHERE id = ?", first["id"])
    assert (first["key"], first["name"]) == (row[0].hex()[:8], "odd-0.png")
    assert first["reason"].startswith("between cluster ")
    json.dumps(queue, ensure_ascii=False).encode()


def test_the_likeliest_clusters_are_the_nearest_of_the_fit(line: Line) -> None:
    model = line.store.fits.current()
    assert model is not None

    picture = told(ReviewQueue(Overview()).read(line.store))["pictures"][0]

    (row,) = sql(line, "SELECT sha256 FROM files WHERE id = ?", picture["id"])
    (vector,) = line.store.fits.get_features(model.extractor, row).values()
    distances = np.linalg.norm(model.centers - vector, axis=1)
    expected = [model.cluster_ids[label] for label in np.argsort(distances)]
    assert [one["cluster"] for one in picture["likeliest"]] == expected
    assert [one["distance"] for one in picture["likeliest"]] == pytest.approx(
        sorted(distances), abs=1e-4
    )
    assert picture["likeliest"][2]["cluster"] == cluster_of(line, b"blue-0.png")
    assert [len(one["mosaic"]) for one in picture["likeliest"]] == [4, 4, 4]


def test_a_cluster_is_called_what_its_folder_is(line: Line) -> None:
    red = cluster_of(line, b"red-0.png")
    sql(line, "UPDATE clusters SET folder = ?, name = 'Fire' WHERE id = ?", b"Fir\xff", red)

    picture = told(ReviewQueue(Overview()).read(line.store))["pictures"][0]

    called = {one["cluster"]: (one["name"], one["folder"]) for one in picture["likeliest"]}
    blue = cluster_of(line, b"blue-0.png")
    assert (called[red], called[blue]) == (("Fir?", "Fir?"), (None, f"cluster_{blue}"))


def test_what_a_person_pins_counts_at_once(line: Line) -> None:
    queue, blue = ReviewQueue(Overview()), cluster_of(line, b"blue-0.png")
    before = told(queue.read(line.store))["pictures"]
    (row,) = sql(line, "SELECT sha256 FROM files WHERE id = ?", before[0]["id"])
    with line.store.atomic():
        line.store.pins.put(row[0], blue)

    after = told(queue.read(line.store))["pictures"]

    def distance(picture: dict[str, Any]) -> float:
        return next(one["distance"] for one in picture["likeliest"] if one["cluster"] == blue)

    assert distance(after[1]) < distance(before[1])
    assert len({one["cluster"] for one in after[1]["likeliest"]}) == 3


def test_the_next_ones_follow_the_last_that_was_seen(line: Line) -> None:
    queue = ReviewQueue(Overview())

    first = told(queue.read(line.store, limit=2))
    second = told(queue.read(line.store, first["next"], limit=2))

    assert [picture["name"] for picture in first["pictures"]] == ["odd-0.png", "odd-1.png"]
    assert [picture["name"] for picture in second["pictures"]] == ["odd-2.png"]
    assert (first["next"], second["next"]) == (first["pictures"][1]["id"], None)
    assert told(queue.read(line.store, 2**62))["pictures"] == []


@pytest.mark.parametrize(("limit", "pictures"), [(-1, 1), (0, 1), (MOST_PICTURES + 1, 3)])
def test_a_limit_out_of_range_is_brought_into_it(line: Line, limit: int, pictures: int) -> None:
    assert len(told(ReviewQueue(Overview()).read(line.store, limit=limit))["pictures"]) == pictures


def test_without_features_nothing_is_likeliest(line: Line) -> None:
    sql(line, "DELETE FROM features")

    pictures = told(ReviewQueue(Overview()).read(line.store))["pictures"]

    assert [picture["likeliest"] for picture in pictures] == [[], [], []]


def test_before_the_first_fit_nothing_is_in_review(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 1)
    line.run()

    found = told(ReviewQueue(Overview()).read(line.store))
    line.close()

    assert found == {"total": 0, "pictures": [], "next": None}
