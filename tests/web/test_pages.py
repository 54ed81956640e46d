"""The HTML of each page: whole, escaped, and sensible also where there is nothing to show yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsortd.store.database import open_for_writing
from imgsortd.store.folders import NewName
from line import Line
from pages import PageText
from support import paint, paint_groups
from synthetic import note_places
from web_asking import Web, make_web, open_web

PAGES = ("/", "/review", "/refits", "/status")
HOSTILE = '"><script>alert(1)</script>&amp;'


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """Return a library of twelve pictures in three clusters, which no test changes."""
    line = Line(tmp_path_factory.mktemp("shelf"))
    paint_groups(line.config.inbox, 4)
    line.run()
    yield line
    line.close()


def page(web: Web, path: str) -> PageText:
    answer = web.get(path)
    assert answer.status == 200, answer.text
    return PageText(answer.text)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_there_before_the_daemon_has_ever_run(path: str, tmp_path: Path) -> None:
    web = make_web(tmp_path)
    web.config.database.unlink()

    shown = page(web, path)

    assert "The daemon is not running" in shown.text


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_there_before_the_first_picture(path: str, tmp_path: Path) -> None:
    assert page(make_web(tmp_path), path).text


def test_the_grid_says_how_many_pictures_the_first_fit_waits_for(tmp_path: Path) -> None:
    web = make_web(tmp_path, clusters={"n_clusters": 3, "min_images": 12})

    shown = page(web, "/")

    assert "No picture yet" in shown.text
    assert "First fit at 12 pictures, 0 so far." in shown.text


def test_before_the_first_fit_the_grid_says_how_far_the_daemon_is_with_looking(
    tmp_path: Path,
) -> None:
    line = Line(tmp_path, clusters={"n_clusters": 3, "min_images": 6})
    paint_groups(line.config.inbox, 4)
    line.process(line.read()[:8])
    web = open_web(line.config)

    shown = [page(web, path).text for path in ("/", "/parts/clusters", "/refits", "/status")]

    told = "Looking at 8 of 12 pictures; sorted when all are seen."
    assert [told in text for text in shown] == [True] * 4
    assert "12 pictures so far" in shown[0]
    line.close()


def test_where_clusters_were_made_of_folders_the_grid_still_says_what_the_first_fit_waits_for(
    tmp_path: Path,
) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    with line.store.atomic():
        line.store.connection.execute("UPDATE fits SET fit_trigger = 'rebuild'")

    shown = page(open_web(line.config), "/")

    assert "12 pictures in 3 clusters, 12 this week. All 12 pictures are looked at" in shown.text
    line.close()


@pytest.mark.parametrize("path", ["/status", "/refits"])
def test_it_is_said_whether_the_library_is_young_and_what_comes_of_it(
    path: str, shelf: Line, tmp_path: Path
) -> None:
    with_a_fit = page(open_web(shelf.config), path).text
    without = page(make_web(tmp_path), path).text

    assert "The library is young: no two refits in a row have" in with_a_fit
    assert (
        "the next refit that comes by itself begins from nothing and is not asked about."
        in with_a_fit
    )
    assert "The library is" not in without


def empty_some(line: Line, *numbers: int) -> None:
    """Let every picture of some clusters be in cluster 0."""
    with line.store.atomic():
        for number in numbers:
            line.store.connection.execute(
                "UPDATE files SET cluster_id = 0 WHERE cluster_id = ?", (number,)
            )


@pytest.mark.parametrize("order", ["size", "newest", "loosest", "name"])
@pytest.mark.parametrize("path", ["/", "/parts/clusters"])
def test_clusters_without_a_picture_are_in_a_fold_at_the_end_whatever_the_order(
    tmp_path: Path, path: str, order: str
) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    empty_some(line, 1, 2)
    with line.store.atomic():
        line.store.hands.name_clusters([NewName(1, b"A name that comes first", None)])

    shown = page(open_web(line.config), f"{path}?sort={order}")

    places = [attributes["id"] for tag, attributes in shown.tags if tag in ("li", "details")
              and "id" in attributes]  # fmt: skip
    assert places == ["c0", "empty", "c1", "c2"]
    assert "2 empty" in shown.text
    assert "12 pictures in 1 cluster" in shown.text
    assert len(shown.images()) == 4
    line.close()


def test_where_all_clusters_are_empty_there_is_the_fold_alone(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    with line.store.atomic():
        line.store.connection.execute("UPDATE files SET cluster_id = NULL, state = 'gone'")

    shown = page(open_web(line.config), "/")

    assert "No picture yet" in shown.text
    assert "3 empty" in shown.text
    line.close()


def test_each_cluster_has_a_tile_with_four_pictures_its_size_and_its_week(shelf: Line) -> None:
    shown = page(open_web(shelf.config), "/")

    assert "12 pictures in 3 clusters, 12 this week" in shown.text
    assert shown.text.count("+4 this week") == 3
    assert len(shown.images()) == 12


def test_the_grid_comes_in_the_order_that_was_asked_for(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    with line.store.atomic():
        connection = line.store.connection
        connection.execute(
            "UPDATE centers SET vector = (SELECT vector FROM centers WHERE cluster_id = 2) "
            "WHERE cluster_id = 1"
        )
        connection.execute("UPDATE files SET done_at = done_at + 60 WHERE cluster_id = 2")
    web = open_web(line.config)

    first = {order: first_tile(web, order) for order in ("size", "newest", "loosest", "name", "?")}

    assert first == {"size": "c0", "newest": "c2", "loosest": "c1", "name": "c0", "?": "c0"}
    line.close()


def test_names_with_numbers_stand_in_the_order_in_which_one_counts(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    line.run()
    with line.store.atomic():
        for number, name in enumerate(("Trip 10", "trip 9", "7")):
            line.store.hands.name_clusters([NewName(number, name.encode(), None)])

    tags = page(open_web(line.config), "/?sort=name").tags

    tiles = [attributes["id"] for _, attributes in tags if attributes.get("class") == "tile"]
    assert tiles == ["c2", "c1", "c0"]
    line.close()


def first_tile(web: Web, order: str) -> str:
    tags = page(web, f"/?sort={order}").tags
    return next(attributes["id"] for _, attributes in tags if attributes.get("class") == "tile")


def test_names_of_files_and_folders_are_text_whatever_they_hold(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    odd = line.config.inbox / "odd.png"
    paint(odd, (200, 30, 30), seed=9)
    odd.rename(line.config.inbox / f"{HOSTILE.replace('/', '|')}.png")
    odd_bytes = paint(line.config.inbox / "bytes.png", (200, 30, 30), seed=10)
    os.rename(odd_bytes, os.path.join(os.fsencode(line.config.inbox), b"caf\xe9 \xe2\x80\xae.png"))
    line.run()
    with line.store.atomic():
        line.store.hands.name_clusters([NewName(0, HOSTILE.encode(), None)])
    web = open_web(line.config)
    with_id = line.store.connection.execute("SELECT id FROM files ORDER BY id").fetchall()

    answers = [web.get(path) for path in ("/", "/clusters/0", "/refits", "/status", "/review")]
    answers += [web.get(f"/similar/{file_id}") for (file_id,) in with_id]

    assert {answer.status for answer in answers} == {200}
    assert not any("<script>alert" in answer.text for answer in answers)
    assert not any("\u202e" in answer.text for answer in answers)
    assert any("&#34;&gt;&lt;script&gt;" in answer.text for answer in answers)
    line.close()


def test_a_cluster_that_is_not_there_is_said_so_on_a_page_of_ours(shelf: Line) -> None:
    answer = open_web(shelf.config).get("/clusters/77")

    assert answer.status == 404
    assert "There is no cluster 77." in PageText(answer.text).text


def test_a_page_names_itself_and_where_one_is(shelf: Line) -> None:
    shown = page(open_web(shelf.config), "/refits")

    assert ("a", {"href": "/refits", "aria-current": "page"}) in shown.tags
    assert "Refits · imgsortd" in shown.text
    assert [tag for tag, _ in shown.tags if tag in ("h1", "main")] == ["main", "h1"]


def test_a_page_has_no_script_and_no_style_of_its_own(shelf: Line) -> None:
    web = open_web(shelf.config)

    for path in (*PAGES, "/clusters/0", "/similar/1"):
        shown = page(web, path)
        scripts = [attributes for tag, attributes in shown.tags if tag == "script"]
        assert all(attributes["src"].startswith("/static/") for attributes in scripts)
        assert not any(tag == "style" for tag, _ in shown.tags)
        assert not any(
            name == "style" or name.startswith("on")
            for _, attributes in shown.tags
            for name in attributes
        )


def test_the_first_answer_of_a_large_grid_holds_what_a_window_shows(tmp_path: Path) -> None:
    web = make_web(tmp_path)
    store = open_for_writing(web.config.database)
    with store.atomic():
        store.connection.execute(
            "INSERT INTO extractors(weights_digest, layer, dims) VALUES ('x', 'pool5', 2)"
        )
        store.connection.execute(
            "INSERT INTO fits(extractor_id, is_current, fit_trigger, algorithm, n_clusters, "
            "n_images, random_state, inertia, fit_s, created_at) "
            "VALUES (1, 1, 'bootstrap', 'x', 105, 100, 0, 0, 0, 0)"
        )
        store.connection.executemany(
            "INSERT INTO clusters(id, first_fit) VALUES (?, 1)", [(n,) for n in range(-5, 0)]
        )
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, state, cluster_id, dst, seen_at) "
            "VALUES (?, 1, 1, 1, 'sorted', ?, ?, 0)",
            [(b"a%d" % n, n, b"cluster_%d/a" % n) for n in range(100)],
        )
        note_places(store.connection)
    store.close()

    first, whole, part = web.get("/"), web.get("/?all=1"), web.get("/parts/clusters?from=24")

    assert [answer.text.count('class="tile"') for answer in (first, whole, part)] == [24, 100, 76]
    assert ["5 empty" in answer.text for answer in (first, whole, part)] == [False, True, True]
    assert "Show all 100 clusters" in first.text
    assert "Show all" not in whole.text


@pytest.mark.parametrize("part", ["clusters", "status", "refits"])
def test_a_part_is_what_its_page_holds(part: str, shelf: Line) -> None:
    web = open_web(shelf.config)

    inner, whole = web.get(f"/parts/{part}").text, web.get(_PATHS[part]).text

    lines = PageText(inner).text.split("\n")
    assert any(lines)
    assert all(line in PageText(whole).text for line in lines)


_PATHS = {"clusters": "/", "status": "/status", "refits": "/refits"}


def test_status_shows_counts_that_add_up_and_what_was_set_aside(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 4)
    (line.config.inbox / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    line.run()

    shown = page(open_web(line.config), "/status")

    assert "Seen, all together13" in shown.text.replace("\n", "")
    assert "broken.jpg" in shown.text
    assert any(attributes.get("data-ask") == "retry" for _, attributes in shown.tags)
    line.close()
