"""The grid in a browser: the first visit while the daemon sorts, searched and put in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import wait
from playwright.sync_api import Page

from imgsortd.store.database import open_for_writing
from support import run_cli, tree, wait_until
from website import GROUPS, Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

# Each cluster with its size, in the order in which they stand.
TILES = """
[...document.querySelectorAll('#tiles > li')].filter(tile => !tile.hidden).map(tile => [
  tile.querySelector('.name').innerText, Number(tile.querySelector('.size').firstChild.data)])
"""
LOADED = "[...document.querySelectorAll('.mosaic img')].every(image => image.naturalWidth > 0)"


@pytest.fixture
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website with a daemon over an empty inbox."""
    with running_website(tmp_path_factory.mktemp("empty"), 0) as site:
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website over four groups of unlike size, one of them with a name."""
    with running_website(tmp_path_factory.mktemp("site"), 8) as site:
        for number, group in enumerate(GROUPS):
            site.drop(group, number)
            site.wait_sorted()  # the newest of each group is of another time
        config = site.folder / "config.yaml"
        done = run_cli("rename", str(site.cluster_of("blue")), "Sea and sky", "-c", config)
        assert done.returncode == 0, done.stderr
        yield site


def sizes(site: Website) -> dict[str, int]:
    """Return how many files stand in each folder of the target."""
    return {folder: len(files) for folder, files in tree(site.target).items() if files}


def wait_for_tiles(site: Website, page: Page) -> None:
    """Wait until the page shows each folder with as many pictures as stand in it."""
    wait_until(lambda: dict(page.evaluate(TILES)) == sizes(site), what=f"{page.evaluate(TILES)}")


def test_the_grid_grows_while_the_daemon_sorts_and_counts_what_is_on_the_disk(
    empty: Website, page: Page
) -> None:
    page.goto(f"{empty.base}/")
    assert page.inner_text("#clusters h2") == "No picture yet"
    page.evaluate("window.isStillHere = true")

    empty.drop_all(6)
    empty.wait_sorted()
    wait_for_tiles(empty, page)
    wait(page, LOADED)
    assert page.inner_text("#summary") == "24 pictures in 4 clusters, 24 this week"

    empty.drop("red", 5)
    empty.wait_sorted()
    wait_for_tiles(empty, page)
    wait(page, "document.querySelector('[data-live]').textContent === 'Watching the inbox'")
    assert page.inner_text("#summary") == "29 pictures in 4 clusters, 29 this week"
    assert max(dict(page.evaluate(TILES)).values()) == 11
    assert page.evaluate("window.isStillHere")
    assert sum(sizes(empty).values()) == empty.inbox.status().counts["sorted"] == 29


def test_before_the_first_fit_the_grid_counts_what_was_looked_at_picture_by_picture(
    tmp_path_factory: pytest.TempPathFactory, page: Page
) -> None:
    site = Website(tmp_path_factory.mktemp("waiting"), clusters={"min_images": 4})
    store = open_for_writing(site.config.database)
    with store.atomic():
        store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at) VALUES (?, 1, 1, 1, 1)",
            [(b"%d" % number,) for number in range(7)],
        )
    site.serve()
    page.goto(f"{site.base}/")
    page.evaluate("window.isStillHere = true")

    for number in range(4):
        told = f"Looking at {number} of 7 pictures; sorted when all are seen."
        wait(page, f"document.querySelector('#clusters p').innerText === '{told}'")
        with store.atomic():
            store.connection.execute(
                "UPDATE files SET sha256 = ? WHERE src = ?", (b"%032d" % number, b"%d" % number)
            )

    assert page.inner_text("#clusters h2") == "7 pictures so far"
    assert page.evaluate("window.isStillHere")
    store.close()
    site.stop()


def test_a_cluster_that_becomes_empty_goes_to_the_fold_at_the_end_and_is_still_found(
    empty: Website, page: Page
) -> None:
    empty.drop_all(6)
    empty.wait_sorted()
    number = empty.cluster_of("red")
    page.goto(f"{empty.base}/?sort=name")
    wait_for_tiles(empty, page)
    wait(page, LOADED)

    other = empty.target / empty.folder_of("blue")
    was = empty.target / f"cluster_{number}"
    for name in empty.names("red"):
        (was / name).rename(other / name)
    wait(page, "document.querySelector('#empty summary')?.innerText === '1 empty'")
    assert page.evaluate(f"document.querySelector('#c{number}').closest('details').id") == "empty"
    assert page.inner_text("#summary") == "24 pictures in 3 clusters, 24 this week"

    page.keyboard.press("/")
    page.keyboard.type(f"cluster_{number}")
    wait(page, "document.querySelector('#empty').open")
    assert page.inner_text("#found") == "1 cluster found"
    page.click(f"#c{number} a")
    wait(page, f"document.querySelector('h1')?.innerText === 'cluster_{number}'")


def test_a_click_on_a_cluster_leads_to_all_its_pictures(site: Website, page: Page) -> None:
    page.goto(f"{site.base}/")

    page.click(f"#c{site.cluster_of('green')} a")
    wait(page, "document.querySelectorAll('#wall .shot').length === 9")

    shown = page.evaluate("[...document.querySelectorAll('#wall img')].map(image => image.alt)")
    assert sorted(shown) == sorted(site.names("green"))
    assert page.inner_text("h1") == site.folder_of("green")


def test_a_search_finds_by_any_part_of_the_name_says_how_many_and_can_be_taken_back(
    site: Website, page: Page
) -> None:
    page.goto(f"{site.base}/")
    everything = page.evaluate(TILES)

    page.keyboard.press("/")
    page.keyboard.type("sky SE")
    assert page.evaluate(TILES) == [["Sea and sky", 10]]
    assert page.inner_text("#found") == "1 cluster found"
    wait(page, "location.search === '?q=sky+SE'")
    page.reload()
    assert page.evaluate(TILES) == [["Sea and sky", 10]]

    page.click("#q")
    page.keyboard.press("Control+a")
    page.keyboard.type("nothing is called so")
    assert page.evaluate(TILES) == []
    assert page.inner_text("#none") == "No cluster has a name like that."
    page.keyboard.press("Control+a")
    page.keyboard.press("Backspace")

    assert page.evaluate(TILES) == everything
    assert len(everything) == 4


def test_the_grid_stands_in_the_order_that_is_chosen_also_after_a_reload(
    site: Website, page: Page
) -> None:
    largest = [site.folder_of(group) for group in ("yellow", "blue", "green", "red")]
    loose = "SELECT cluster_id FROM files GROUP BY cluster_id ORDER BY avg(distance) DESC"
    folder_of = {site.cluster_of(group): site.folder_of(group) for group in GROUPS}
    loosest = [folder_of[number] for (number,) in site.rows(loose)]
    page.goto(f"{site.base}/")
    names = f"({TILES}).map(tile => tile[0])"

    assert page.evaluate(names) == largest
    page.click("button[value=loosest]")
    assert page.evaluate(names) == loosest
    page.click("button[value=name]")
    assert page.evaluate(names) == sorted(largest, key=str.casefold)
    page.reload()
    assert page.evaluate(names) == sorted(largest, key=str.casefold)
    page.click("button[value=newest]")

    newest = "SELECT cluster_id FROM files GROUP BY cluster_id ORDER BY max(done_at) DESC"
    assert page.evaluate(names) == [folder_of[number] for (number,) in site.rows(newest)]
    assert page.evaluate("location.search") == "?sort=newest"
