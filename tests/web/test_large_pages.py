"""Large libraries in a browser: ten thousand pictures in a wall, a hundred clusters in the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from browser import press, wait
from playwright.sync_api import Page

import examine
from imgsortd.store.database import open_for_writing
from support import ColourExtractor
from synthetic import fill
from website import Website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

PICTURES, CLUSTERS = 10_000, 100
MOST_NODES = 900
MOST_BYTES = 150_000
NODES = "document.querySelectorAll('#wall *').length"
PLACES = """
[...document.querySelectorAll('#wall .shot')].map(shot => [
  Number(shot.getAttribute('aria-posinset')), Number(shot.getAttribute('aria-setsize'))])
"""
FOCUSED = "Number(document.activeElement.getAttribute('aria-posinset'))"
IN_SIGHT = """
(() => { const b = document.activeElement.getBoundingClientRect();
  return b.top >= 0 && b.bottom <= innerHeight; })()
"""
# A part of the window where a picture should be, and none is.
HOLES = """
(() => {
  const holes = [], shots = [...document.querySelectorAll('#wall .shot')];
  const all = document.querySelector('#wall').getBoundingClientRect();
  for (let y = Math.max(60, all.top + 4); y < Math.min(innerHeight, all.bottom - 4); y += 20) {
    const isThere = shots.some(shot => {
      const b = shot.getBoundingClientRect();
      return b.top - 8 <= y && b.bottom + 8 >= y; });
    if (!isThere) holes.push(y);
  }
  return holes;
})()
"""
# Bytes over the wire, and after decompression, of all but pictures and data.
WEIGHT = """
performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
  .filter(entry => !/^\\/(pictures|api)\\//.test(new URL(entry.name).pathname))
  .map(entry => [new URL(entry.name).pathname, entry.encodedBodySize, entry.decodedBodySize])
"""


def make_site(folder_factory: pytest.TempPathFactory, clusters: int) -> Website:
    """Serve a library of made-up rows; no picture of it exists."""
    site = Website(folder_factory.mktemp("site"))
    store = open_for_writing(site.config.database)
    vectors = np.random.default_rng(0).random((PICTURES, 3)).astype(np.float32)
    fill(store, ColourExtractor().id, vectors, range(PICTURES))
    with store.atomic():
        store.connection.execute(
            "UPDATE files SET cluster_id = id % ?1, "
            "dst = CAST('cluster_' || (id % ?1) || '/' || CAST(src AS TEXT) AS BLOB)",
            (clusters,),
        )
    store.close()
    site.serve()
    return site


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    site = make_site(tmp_path_factory, 1)
    yield site
    site.stop()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    site = make_site(tmp_path_factory, CLUSTERS)
    yield site
    site.stop()


@pytest.fixture
def complaints() -> examine.Complaints:
    """Hear whatever is said against the pages, but that there are no pictures."""
    return examine.Complaints(but="404.*/pictures/")


def open_wall(page: Page, site: Website) -> None:
    page.goto(f"{site.base}/clusters/0")
    wait(page, f"document.querySelector('.shot')?.getAttribute('aria-setsize') === '{PICTURES}'")
    wait(page, f"({NODES}) > 0")


@pytest.mark.faults
def test_few_of_ten_thousand_pictures_are_in_the_page_wherever_one_scrolls_and_none_is_missing(
    long: Website, page: Page
) -> None:
    open_wall(page, long)
    page.keyboard.press("End")
    wait(page, f"{FOCUSED} === {PICTURES}")
    height = page.evaluate("document.documentElement.scrollHeight")

    for share in (0, 0.1, 0.37, 0.5, 0.83, 0.999, 1, 0.25, 0):
        page.evaluate(
            f"scrollTo(0, {share} * (document.documentElement.scrollHeight - innerHeight))"
        )
        wait(page, f"!({HOLES}).length")
        assert page.evaluate(NODES) < MOST_NODES, share
        places = page.evaluate(PLACES)
        assert {size for _, size in places} == {PICTURES}
        assert places == sorted(places)
        assert len({place for place, _ in places}) == len(places)

    assert page.evaluate("document.documentElement.scrollHeight") == height


@pytest.mark.parametrize(
    "look", [{}, {"width": 390, "height": 844, "is_phone": True}], ids=["desktop", "phone"]
)
def test_home_end_and_the_arrows_go_to_the_right_picture_of_ten_thousand_and_it_is_seen(
    long: Website, new_page: Callable[..., Page], look: dict[str, Any]
) -> None:
    page = new_page(**look)
    open_wall(page, long)
    at = 1

    for key, to in (
        ("ArrowRight", lambda at: at + 1),
        ("End", lambda _: PICTURES),
        ("ArrowLeft", lambda at: at - 1),
        ("Home", lambda _: 1),
        ("End", lambda _: PICTURES),
        ("ArrowRight", lambda _: PICTURES),
        ("Home", lambda _: 1),
    ):
        page.keyboard.press(key)
        at = to(at)
        wait(page, f"{FOCUSED} === {at}")
        assert page.evaluate(IN_SIGHT), (key, at)
        assert page.evaluate(NODES) < MOST_NODES
    page.keyboard.press("PageDown")
    wait(page, f"{FOCUSED} > 1")
    page.keyboard.press("ArrowDown")
    after = page.evaluate(FOCUSED)
    press(page, "ArrowUp", "PageUp")
    wait(page, f"{FOCUSED} === 1")

    assert after > 3
    assert page.evaluate("[...document.querySelectorAll('#wall [tabindex=\"0\"]')].length") == 1


def test_what_is_asked_of_all_before_the_last_ones_have_come_is_done_when_they_have(
    long: Website, page: Page
) -> None:
    open_wall(page, long)

    page.keyboard.press("Control+a")
    page.keyboard.press("End")

    wait(page, f"{FOCUSED} === {PICTURES}")
    page.reload()
    wait(page, f"({NODES}) > 0")
    page.keyboard.press("Control+a")
    wait(page, f"document.querySelector('.chosen').innerText.includes('{PICTURES:,} selected')")


@pytest.mark.faults
def test_a_range_of_thousands_is_selected_at_once(long: Website, page: Page) -> None:
    open_wall(page, long)

    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("Shift+End")
    wait(page, f"{FOCUSED} === {PICTURES}")
    assert page.inner_text(".chosen [role=status]") == f"{PICTURES - 1:,} selected"
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")

    assert page.inner_text(".chosen [role=status]") == f"{PICTURES:,} selected"
    assert page.evaluate(NODES) < MOST_NODES


def test_a_screen_reader_is_told_how_many_there_are_and_which_one_it_is_at(
    long: Website, page: Page
) -> None:
    open_wall(page, long)
    page.keyboard.press("End")
    wait(page, f"{FOCUSED} === {PICTURES}")

    options = [node for node in examine.accessible(page) if node["role"]["value"] == "option"]
    focused = [
        node
        for node in options
        if any(one["name"] == "focused" and one["value"]["value"] for one in node["properties"])
    ]

    assert 20 < len(options) < MOST_NODES
    assert len(focused) == 1
    assert focused[0]["name"]["value"]


def test_the_grid_of_a_hundred_clusters_weighs_less_than_a_picture(
    many: Website, page: Page
) -> None:
    page.goto(f"{many.base}/")
    wait(page, f"document.querySelectorAll('.tile').length === {CLUSTERS}")

    parts = page.evaluate(WEIGHT)

    names = {name for name, *_ in parts}
    assert {"/", "/parts/clusters"} <= names
    assert any(name.endswith("/app.css") for name in names)
    assert any(name.endswith("/clusters.js") for name in names)
    sent, raw = (sum(part[column] for part in parts) for column in (1, 2))
    assert 5_000 < sent < raw < MOST_BYTES, parts
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
