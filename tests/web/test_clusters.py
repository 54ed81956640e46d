"""The grid of clusters says what the rows say, and looks at them no oftener than it must."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synthetic
from imgsortd.config.model import Config
from imgsortd.errors import StoreError
from imgsortd.store.database import Store, open_for_reading, open_for_writing
from imgsortd.web.clusters import DAYS, Overview, day_edges
from line import Line
from support import ColourExtractor, make_config, paint_groups
from synthetic import note_places
from web_asking import told

NOON = time.mktime((2026, 7, 15, 12, 0, 0, 0, 0, -1))
DAY_S = 86_400.0


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted twelve pictures of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    yield line
    line.close()


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def look(line: Line, overview: Overview | None = None) -> dict[str, Any]:
    return told((overview or Overview()).read(line.config, line.store))


def sql(line: Line, statement: str, *values: object) -> None:
    with line.store.atomic():
        line.store.connection.execute(statement, values)


def by_id(grid: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {cluster["id"]: cluster for cluster in grid["clusters"]}


def test_the_grid_says_of_each_cluster_what_is_in_it(line: Line) -> None:
    line.put("twin.png", next((line.config.target / "cluster_0").iterdir()).read_bytes())
    line.put("broken.jpg", b"no picture")
    line.run()

    grid = look(line)

    clusters = by_id(grid)
    assert (clusters[0]["name"], clusters[0]["folder"]) == (None, "cluster_0")
    assert [clusters[number]["files"] for number in range(3)] == [5, 4, 4]
    assert [clusters[number]["duplicates"] for number in range(3)] == [1, 0, 0]
    assert all(cluster["days"][-1] == cluster["week"] for cluster in clusters.values())
    assert sum(cluster["week"] for cluster in clusters.values()) == 13
    assert (grid["fit"], grid["set_aside"], grid["review"], grid["pending"]) == (1, 1, 0, 0)
    assert grid["next_fit"].startswith("after ")
    assert "retired" not in clusters[0]
    json.dumps(grid).encode()


def to_the_center(line: Line, cluster_id: int, center: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return how far the pictures of a cluster lie from a place, by key, the nearest first."""
    query = "SELECT DISTINCT sha256 FROM files WHERE cluster_id = ?"
    hashes = [sha256 for (sha256,) in line.store.connection.execute(query, (cluster_id,))]
    vectors = line.store.fits.get_features(line.extractor.id, hashes)
    far = {key.hex()[:8]: float(np.linalg.norm(vectors[key] - center)) for key in hashes}
    return dict(sorted(far.items(), key=lambda pair: pair[1]))


def center_of(line: Line, cluster_id: int) -> np.ndarray[Any, Any]:
    model = line.store.fits.current()
    assert model is not None
    return model.centers[model.cluster_ids.index(cluster_id)]


def keys(cluster: dict[str, Any]) -> list[str]:
    return [key for _, key in cluster["mosaic"]]


def test_the_mosaic_is_of_the_four_nearest_and_shows_no_bytes_twice(line: Line) -> None:
    line.put("twin.png", next((line.config.target / "cluster_0").iterdir()).read_bytes())
    line.run()

    cluster = by_id(look(line))[0]

    far = to_the_center(line, 0, center_of(line, 0))
    assert keys(cluster) == list(far)[:4]
    assert cluster["loose"] == pytest.approx(np.mean(list(far.values())), abs=1e-4)


def test_the_mosaic_goes_by_the_fit_in_force_and_not_by_the_distances_of_older_ones(
    line: Line,
) -> None:
    paint_groups(line.config.inbox, 8)
    line.run()
    before = by_id(look(line))
    # The next fit has its center where the one picture is that was farthest out.
    far = to_the_center(line, 0, center_of(line, 0))
    query = "SELECT sha256 FROM files WHERE cluster_id = 0 AND hex(sha256) LIKE ?"
    (sha256,) = line.store.connection.execute(query, (f"{list(far)[-1]}%",)).fetchone()
    center = line.store.fits.get_features(line.extractor.id, [sha256])[sha256]
    line.fit()
    sql(line, "UPDATE centers SET vector = ? WHERE cluster_id = 0 AND fit_id = 2",
        center.astype("<f4").tobytes())  # fmt: skip

    after = by_id(look(line))

    assert keys(before[0]) == list(far)[:4]
    nearest = to_the_center(line, 0, center)
    assert keys(after[0]) == list(nearest)[:4] != keys(before[0])
    assert after[0]["loose"] == pytest.approx(np.mean(list(nearest.values())), abs=1e-4)
    assert after[0]["loose"] > before[0]["loose"]


def test_a_fit_that_comes_into_force_changes_the_mosaics_of_an_overview_that_has_looked(
    line: Line,
) -> None:
    clock = Clock()
    overview = Overview(clock)
    look(line, overview)
    line.fit()
    sql(line, "UPDATE centers SET vector = (SELECT vector FROM centers WHERE cluster_id = 1 "
              "AND fit_id = 1) WHERE cluster_id = 0 AND fit_id = 2")  # fmt: skip

    clock.now_s = 3.0

    assert by_id(look(line, overview)) == by_id(look(line))


def test_a_cluster_that_is_in_force_no_more_goes_by_the_mean_of_its_pictures(line: Line) -> None:
    sql(line, "UPDATE clusters SET retired_fit = 1 WHERE id = 1")
    sql(line, "DELETE FROM centers WHERE cluster_id = 1")

    cluster = by_id(look(line))[1]

    query = "SELECT sha256 FROM files WHERE cluster_id = 1"
    hashes = [sha256 for (sha256,) in line.store.connection.execute(query)]
    vectors = line.store.fits.get_features(line.extractor.id, hashes)
    far = to_the_center(line, 1, np.mean(list(vectors.values()), axis=0))
    assert keys(cluster) == list(far)[:4]


def test_a_picture_that_a_refit_has_moved_is_ranked_though_no_distance_is_stored(
    line: Line,
) -> None:
    expected = by_id(look(line))
    sql(line, "UPDATE files SET distance = NULL, fit_id = NULL")

    assert by_id(look(line)) == expected


def test_pictures_without_features_fill_a_mosaic_up(line: Line) -> None:
    kept, *lost = list(to_the_center(line, 0, center_of(line, 0)))
    for key in lost:
        sql(line, "DELETE FROM features WHERE hex(sha256) LIKE ?", f"{key}%")

    cluster = by_id(look(line))[0]

    assert len(cluster["mosaic"]) == 4
    assert keys(cluster)[0] == kept
    numbers = [number for number, _ in cluster["mosaic"][1:]]
    assert numbers == sorted(numbers)


def test_where_there_is_much_to_look_at_a_few_pictures_of_each_are_enough_at_first(
    tmp_path: Path,
) -> None:
    config = make_config(tmp_path)
    store = open_for_writing(config.database)
    vectors = np.random.default_rng(0).random((120, 3)).astype(np.float32)
    synthetic.fill(store, ColourExtractor().id, vectors, range(120))
    with store.atomic():
        store.connection.execute("UPDATE files SET cluster_id = id % 2")
        store.connection.execute(
            "INSERT INTO fits(extractor_id, is_current, fit_trigger, algorithm, n_clusters, "
            "n_images, random_state, inertia, fit_s, created_at) "
            "VALUES (1, 1, 'bootstrap', 'x', 2, 120, 0, 0, 0, 0)"
        )
    now_s = [0.0]

    def slow_clock() -> float:
        now_s[0] += 0.2  # more than half of what a look may take
        return now_s[0]

    overview, expected = Overview(slow_clock), by_id(told(Overview().read(config, store)))
    first = by_id(told(overview.read(config, store)))
    for _ in range(3):
        now_s[0] += 60
        later = by_id(told(overview.read(config, store)))
    store.close()

    assert first[0] == expected[0]
    assert len(first[1]["mosaic"]) == 4
    assert first[1]["loose"] != expected[1]["loose"]
    assert later == expected


def test_what_came_is_counted_by_the_day_on_which_it_found_its_place(line: Line) -> None:
    ages = [0.0, 0.2, 1.0, 6.0, 7.0, 27.0, 28.0, 100.0, -30.0]
    sql(line, "UPDATE files SET done_at = NULL")
    sql(line, "UPDATE files SET cluster_id = 0")
    ids = line.store.connection.execute("SELECT id FROM files").fetchall()
    for (file_id,), age in zip(ids, ages, strict=False):
        sql(line, "UPDATE files SET done_at = ? WHERE id = ?", NOON - age * DAY_S, file_id)

    cluster = by_id(look(line, Overview(now=lambda: NOON)))[0]

    days = [0] * DAYS
    days[-1], days[-2], days[-7], days[-8], days[-28] = 3, 1, 1, 1, 1
    assert cluster["days"] == days  # one of a clock that was set back since came today
    assert cluster["week"] == 5
    assert cluster["newest"] == NOON + 30 * DAY_S


def test_a_day_begins_at_midnight_also_where_it_has_23_hours() -> None:
    edges = day_edges(NOON)

    assert len(edges) == DAYS
    assert [time.localtime(edge)[3:6] for edge in edges] == [(0, 0, 0)] * DAYS
    assert [time.localtime(edge).tm_mday for edge in edges[-3:]] == [13, 14, 15]


def test_a_name_that_is_no_utf8_is_shown_with_question_marks(line: Line) -> None:
    sql(line, "UPDATE clusters SET folder = ?, name = 'x' WHERE id = 1", b"Sk\xffne")

    cluster = by_id(look(line))[1]

    assert (cluster["name"], cluster["folder"]) == ("Sk?ne", "Sk?ne")


def test_a_cluster_that_is_no_more_is_shown_while_files_are_in_it(line: Line) -> None:
    sql(line, "UPDATE clusters SET retired_fit = 1 WHERE id IN (1, 2)")
    sql(line, "UPDATE files SET cluster_id = 0 WHERE cluster_id = 2")
    sql(line, "UPDATE files SET cluster_id = 9 WHERE id = (SELECT max(id) FROM files)")

    grid = by_id(look(line))

    assert list(grid) == [0, 1, 9]
    assert [cluster.get("retired", False) for cluster in grid.values()] == [False, True, True]


def test_folders_that_are_no_clusters_are_counted_apart(line: Line) -> None:
    own = "UPDATE files SET cluster_id = NULL, dst = ? WHERE id = ?"
    for file_id, dst in enumerate((b"Sk\xff/a.png", b"Sk\xff/b.png", b"_set_aside/c.png"), 1):
        sql(line, own, dst, file_id)

    assert look(line)["folders"] == [{"name": "Sk?", "files": 2}]


def test_sizes_are_those_of_now_and_the_rest_follows_soon(line: Line) -> None:
    clock = Clock()
    overview = Overview(clock)
    before = look(line, overview)
    sql(line, "UPDATE files SET cluster_id = 1 WHERE cluster_id = 0")

    clock.now_s = 0.1
    at_once = look(line, overview)
    clock.now_s = 3.0
    soon = look(line, overview)

    assert [by_id(grid)[0]["files"] for grid in (before, at_once, soon)] == [4, 0, 0]
    assert [len(by_id(grid)[0]["mosaic"]) for grid in (before, at_once, soon)] == [4, 4, 0]
    assert len({grid["stamp"] for grid in (before, at_once, soon)}) == 3


def test_pictures_that_change_places_are_seen_though_no_count_has_changed(line: Line) -> None:
    clock = Clock()
    overview = Overview(clock)
    before = look(line, overview)
    sql(line, "UPDATE files SET cluster_id = 1 - cluster_id WHERE cluster_id IN (0, 1)")
    sql(line, "UPDATE centers SET cluster_id = 1 - cluster_id WHERE cluster_id IN (0, 1)")
    sql(line, "INSERT INTO pins SELECT sha256, cluster_id, 1 FROM files WHERE cluster_id < 2")

    clock.now_s = 3.0
    early = look(line, overview)
    clock.now_s = 16.0
    late = look(line, overview)

    assert early["stamp"] == before["stamp"]
    assert by_id(late)[0]["mosaic"] == by_id(before)[1]["mosaic"]


def test_the_stamp_stays_while_nothing_changes_and_changes_with_a_name(line: Line) -> None:
    overview = Overview()

    stamps = [overview.read(line.config, line.store).stamp for _ in range(2)]
    sql(line, "UPDATE clusters SET folder = ? WHERE id = 0", b"Sky")
    stamps.append(overview.read(line.config, line.store).stamp)

    assert stamps[0] == stamps[1] != stamps[2]
    assert Overview().read(line.config, line.store).stamp == stamps[2]


def test_it_may_be_read_within_a_state_of_the_database_that_is_held(line: Line) -> None:
    expected = look(line)

    with line.store.snapshot():
        assert look(line) == expected


def test_one_cluster_is_told_without_its_mosaic(line: Line) -> None:
    overview = Overview()
    expected = by_id(look(line, overview))[2]
    del expected["mosaic"]

    assert told(overview.cluster(line.store, 2)) == expected
    assert overview.cluster(line.store, 77) is None


@pytest.mark.parametrize("database", ["none", "without tables"])
def test_before_the_first_start_there_is_an_empty_grid(tmp_path: Path, database: str) -> None:
    config = make_config(tmp_path)
    if database != "none":
        config.database.touch()

    with open_for_reading(config.database, if_there=True) as store:
        grid = told(Overview().read(config, store))

    assert (grid["clusters"], grid["folders"], grid["fit"]) == ([], [], None)
    assert grid["next_fit"] == "first fit at 6 pictures, 0 so far"


def test_before_the_first_fit_the_waiting_pictures_are_counted(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 1)
    line.run()

    grid = look(line)
    line.close()

    assert (grid["clusters"], grid["pending"], grid["fit"]) == ([], 3, None)
    assert grid["next_fit"] == "first fit at 6 pictures, 3 so far"


def test_without_the_index_the_grid_is_the_same(line: Line) -> None:
    expected = look(line)
    sql(line, "DROP INDEX files_shown")

    with open_for_reading(line.config.database, any_schema=True) as store:
        assert told(Overview().read(line.config, store)) == expected


def test_a_database_of_an_older_imgsortd_is_refused_with_what_to_do(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    with sqlite3.connect(config.database) as connection:
        connection.execute("CREATE TABLE errors(id INTEGER)")
    connection.close()

    with pytest.raises(StoreError, match="start the daemon once"):
        open_for_reading(config.database)


def fill(store: Store, count: int, n_clusters: int) -> None:
    """Keep sorted files in clusters, each picture in the cluster of its number's remainder."""
    rng = np.random.default_rng(0)
    distances, ages = rng.random(count).tolist(), (rng.random(count) * 30 * DAY_S).tolist()
    with store.atomic():
        store.connection.execute(
            "INSERT INTO extractors(weights_digest, layer, dims) VALUES ('x', 'pool5', 2)"
        )
        store.connection.execute(
            "INSERT INTO fits(extractor_id, is_current, fit_trigger, algorithm, n_clusters, "
            "n_images, random_state, inertia, fit_s, created_at) "
            "VALUES (1, 1, 'bootstrap', 'x', ?, ?, 0, 0, 0, 0)",
            (n_clusters, count),
        )
        store.connection.executemany(
            "INSERT INTO clusters(id, first_fit) VALUES (?, 1)",
            [(number,) for number in range(n_clusters)],
        )
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, cluster_id, "
            "distance, dst, seen_at, done_at) VALUES (?, 1, 1, 1, ?, 'sorted', ?, ?, ?, 0, ?)",
            [
                (b"%d" % n, b"%032d" % n, n % n_clusters, distance, b"c/%d" % n, NOON - age)
                for n, (distance, age) in enumerate(zip(distances, ages, strict=True))
            ],
        )
        note_places(store.connection)


@pytest.mark.faults
def test_100_000_pictures_are_counted_right(tmp_path: Path) -> None:
    config: Config = make_config(tmp_path)
    store = open_for_writing(config.database)
    fill(store, 100_000, 101)

    grid = told(Overview(now=lambda: NOON).read(config, store))

    (since,) = day_edges(NOON)[:1]
    rows = store.connection.execute(
        "SELECT cluster_id, count(*), sum(done_at >= ?) FROM files "
        "GROUP BY cluster_id ORDER BY cluster_id",
        (since,),
    ).fetchall()
    store.close()
    found = [(one["id"], one["files"], sum(one["days"])) for one in grid["clusters"]]
    assert found == rows


def test_the_readers_of_the_page_load_no_network_and_no_fit() -> None:
    folder = Path(sys.modules[Overview.__module__].__file__ or "").parent
    names = [f"imgsortd.web.{path.stem}" for path in folder.glob("*.py")]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'torchvision', 'openvino'}\n"
        "print(', '.join(heavy & set(sys.modules)), end='')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
