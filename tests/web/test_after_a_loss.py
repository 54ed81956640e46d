"""After the loss of the database, every part of the page shows what the folders tell."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_opening import open_if_there
from imgsortd.config import Config
from imgsortd.errors import FindError
from imgsortd.restoring import open_or_restore
from imgsortd.web.comparing import compare, history
from imgsortd.web.health import read_health
from imgsortd.web.metrics import metrics_text
from imgsortd.web.overview import Overview
from imgsortd.web.resemblance import picture, similar
from imgsortd.web.review_queue import ReviewQueue
from imgsortd.web.wall import Order, Wall
from line import Line
from support import make_config, paint_groups


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return the configuration of a library whose database was rebuilt from its folders."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.run()
    line.close()
    line.config.database.unlink()
    review = line.config.target / "_review"
    review.mkdir()
    next((line.config.target / "cluster_0").iterdir()).rename(review / "odd.png")
    open_or_restore(line.config).close()
    return line.config


@pytest.fixture
def store(config: Config) -> Iterator[Store]:
    with open_if_there(config.database) as store:
        assert store is not None
        yield store


def test_the_grid_has_the_folders_as_clusters(config: Config, store: Store) -> None:
    grid = Overview().read(config, store)

    found = [(one["id"], one["files"], len(one["mosaic"])) for one in grid["clusters"]]
    assert found == [(0, 2, 2), (1, 3, 3), (2, 3, 3)]
    assert {one["loose"] for one in grid["clusters"]} == {None}
    assert grid["review"] == 1


@pytest.mark.parametrize("order", list(Order))
def test_a_cluster_has_its_pictures(store: Store, order: Order) -> None:
    chunk = Wall(Overview()).pictures(store, 1, order)

    assert (len(chunk["pictures"]), chunk["total"], chunk["next"]) == (3, 3, None)


def test_what_is_in_review_has_no_likeliest_cluster(store: Store) -> None:
    (one,) = ReviewQueue().read(store)["pictures"]

    assert (one["name"], one["likeliest"]) == ("odd.png", [])


def test_the_fit_of_the_folders_can_be_looked_at(config: Config, store: Store) -> None:
    assert [fit["trigger"] for fit in history(config, store)["history"]] == ["rebuild"]
    assert compare(config, store, 1)["would_move"] == 0


def test_a_picture_is_known_and_nothing_is_compared_with_it(config: Config, store: Store) -> None:
    assert picture(config, store, 1)["state"] in ("sorted", "review")
    with pytest.raises(FindError, match="the features are still to come"):
        similar(config, store, 1)


def test_the_status_and_the_metrics_count_the_files(config: Config) -> None:
    assert read_health(config)["counts"]["seen"] == 9
    assert b'imgsortd_cluster_files{cluster="0"} 2.0' in metrics_text(config)[0]


def test_several_threads_are_told_the_same(config: Config) -> None:
    overview = Overview()
    wall = Wall(overview)

    def ask(_: int) -> tuple[str, list[int]]:
        with open_if_there(config.database) as store:
            assert store is not None
            chunk = wall.pictures(store, 1)
            return overview.stamp(config, store), [one[0] for one in chunk["pictures"]]

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(40)))

    assert told == told[:1] * 40


def test_without_a_database_there_is_none_to_open(tmp_path: Path) -> None:
    with open_if_there(make_config(tmp_path).database) as store:
        assert store is None
