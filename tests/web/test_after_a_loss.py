"""After the loss of the database, every part of the page shows what the folders tell."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imgsortd.config.model import Config
from imgsortd.errors import FindError
from imgsortd.store.database import Store, open_for_reading
from imgsortd.target.rebuild import open_or_restore
from imgsortd.web.clusters import Overview
from imgsortd.web.health import metrics_text, read_health
from imgsortd.web.refits import compare, history
from imgsortd.web.review import ReviewQueue
from imgsortd.web.similar import find_similar, read_picture
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
    with open_for_reading(config.database, if_there=True) as store:
        assert store is not None
        yield store


def test_the_grid_has_the_folders_as_clusters(config: Config, store: Store) -> None:
    grid = Overview().read(config, store)

    found = [(one.id, one.files, len(one.mosaic or ())) for one in grid.clusters]
    assert found == [(0, 2, 2), (1, 3, 3), (2, 3, 3)]
    assert {one.loose for one in grid.clusters} == {None}
    assert grid.review == 1


@pytest.mark.parametrize("order", list(Order))
def test_a_cluster_has_its_pictures(store: Store, order: Order) -> None:
    chunk = Wall(Overview()).pictures(store, 1, order)

    assert (len(chunk.pictures), chunk.total, chunk.next) == (3, 3, None)


def test_what_is_in_review_has_no_likeliest_cluster(store: Store) -> None:
    (one,) = ReviewQueue(Overview()).read(store).pictures

    assert (one.name, one.likeliest) == ("odd.png", [])


def test_the_fit_of_the_folders_can_be_looked_at(config: Config, store: Store) -> None:
    assert [fit.trigger for fit in history(store).history] == ["rebuild"]
    assert compare(store, 1).would_move == 0


def test_a_picture_is_known_and_nothing_is_compared_with_it(config: Config, store: Store) -> None:
    assert read_picture(config, store, 1).state in ("sorted", "review")
    with pytest.raises(FindError, match="the features are still to come"):
        find_similar(config, store, 1)


def test_the_status_and_the_metrics_count_the_files(config: Config) -> None:
    assert read_health(config).counts["seen"] == 9
    assert b'imgsortd_cluster_files{cluster="0"} 2.0' in metrics_text(config)[0]


def test_several_threads_are_told_the_same(config: Config) -> None:
    overview = Overview()
    wall = Wall(overview)

    def ask(_: int) -> tuple[str, list[int]]:
        with open_for_reading(config.database, if_there=True) as store:
            assert store is not None
            chunk = wall.pictures(store, 1)
            return overview.read(config, store).stamp, [one.id for one in chunk.pictures]

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(ask, range(40)))

    assert told == told[:1] * 40


def test_without_a_database_there_is_none_to_open(tmp_path: Path) -> None:
    with open_for_reading(make_config(tmp_path).database, if_there=True) as store:
        assert store is None
