"""Every page in a browser: to be read, named, reached, and as wide as the window it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
from browser import press, wait
from playwright.sync_api import Page

import examine
from support import run_cli, wait_until
from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

LOOKS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "dark": {"scheme": "dark"},
    "phone": {"width": 390, "height": 844, "scale": 2, "is_phone": True},
    "small phone": {"width": 320, "height": 568, "is_phone": True},
    "4K": {"width": 3840, "height": 2160},
}
LAB = pytest.mark.faults
# Page: what tells that all of it is there.
SHOTS = "document.querySelectorAll('#wall .shot img[src]').length > 5"
PAGES = {
    "clusters": "document.querySelectorAll('.tile').length === 4",
    "cluster": SHOTS,
    "review": "document.querySelector('#picture').naturalWidth > 0",
    "refits": "document.querySelectorAll('tbody tr').length === 2",
    "similar": SHOTS,
    "status": "document.querySelectorAll('.rows li').length > 0",
    "missing": "document.querySelector('h1')",
}
LOADED = """
[...document.images].every(image => image.loading === 'lazy' || !image.src || image.complete)
"""
LIVE = "document.querySelector('[data-live]')?.innerText !== '' && Array.isArray(window.shifts)"
LONG = f"A name without an end {'x' * 120}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website with everything that a page can show: also long names, and what failed."""
    folder = tmp_path_factory.mktemp("site")
    clusters = {"review_quantile": 0.99}
    with running_website(folder, 8, clusters=clusters, refit={"max_churn": 0}) as site:
        for number, colour in enumerate([(130, 125, 128), (30, 180, 190), (190, 40, 190)]):
            site.drop(f"odd-{number}", 1, colour)
        site.drop_bytes(f"torn-{'y' * 150}.jpg", b"no picture")
        site.wait_sorted()
        for command in (("rename", str(site.cluster_of("green")), LONG), ("refit", "-k", "3")):
            done = run_cli(*command, "-c", folder / "config.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: site.inbox.status().proposal is not None, what="a proposal")
        yield site


def path_of(site: Website, name: str) -> str:
    number = site.cluster_of("green")
    paths = {
        "clusters": "/",
        "cluster": f"/clusters/{number}",
        "similar": "/similar/1",
        "missing": "/clusters/999",
    }
    return paths.get(name, f"/{name}")


Show: TypeAlias = Callable[[str, str], Page]


@pytest.fixture
def show(site: Website, new_page: Callable[..., Page], complaints: examine.Complaints) -> Show:
    """Return a function that opens a page by its name, with a look, and waits for all of it."""

    def show(name: str, look: str) -> Page:
        page = new_page(**LOOKS[look])
        page.goto(site.base + path_of(site, name))
        wait(page, PAGES[name])
        wait(page, LOADED)
        wait(page, LIVE)
        if name == "missing":
            assert ["404" in line for line in complaints.take()] == [True]
        return page

    return show


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_named_in_order_and_all_of_it_is_reached_by_the_tab_key(
    show: Show, name: str
) -> None:
    page = show(name, "desktop")

    assert examine.basics(page) == []
    assert examine.unnamed(page) == []
    assert examine.off_the_keyboard(page) == []
    assert examine.shifted(page) == []


@pytest.mark.parametrize(
    "look",
    # The others lie between these, or beyond them.
    [
        look if look in ("desktop", "dark", "small phone") else pytest.param(look, marks=LAB)
        for look in LOOKS
    ],
)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_read_and_fits_its_window_and_what_is_to_be_hit_is_large_enough(
    show: Show, name: str, look: str
) -> None:
    page = show(name, look)

    assert examine.faint(page) == []
    assert examine.too_wide(page) == []
    assert examine.too_small(page) == []
    assert examine.shifted(page) == []
    paper = {"dark": "rgb(21, 20, 22)"}.get(look, "rgb(250, 249, 246)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper


OPENED: dict[str, Callable[[Page], None]] = {
    "list of clusters": lambda page: press(page, "Home", "m"),
    "preview": lambda page: press(page, "Home", " "),
    "keys": lambda page: page.keyboard.press("?"),
    "selection": lambda page: press(page, "Home", "x"),
    "name": lambda page: page.keyboard.press("F2"),
}


@pytest.mark.parametrize("look", ["desktop", pytest.param("dark", marks=LAB), "small phone"])
@pytest.mark.parametrize("what", OPENED)
def test_what_opens_over_a_cluster_can_be_read_and_fits_and_has_names(
    show: Show, what: str, look: str
) -> None:
    page = show("cluster", look)

    OPENED[what](page)
    if what == "list of clusters":
        wait(page, "document.querySelectorAll('.picker li').length >= 4")

    assert examine.basics(page) == []
    assert examine.faint(page) == []
    assert examine.unnamed(page) == []
    assert examine.too_wide(page) == []
    assert examine.too_small(page) == []


@pytest.mark.parametrize("look", ["desktop", "small phone"])
def test_the_grid_does_not_move_while_pictures_come(site: Website, show: Show, look: str) -> None:
    page = show("clusters", look)
    size = f"document.querySelector('#c{site.cluster_of('blue')} .size').firstChild.data"
    before = int(page.evaluate(size))

    site.drop("blue", 2)
    site.wait_sorted()
    wait(page, f"Number({size}) === {before + 2}")
    wait(page, LOADED)

    assert examine.shifted(page) == []


def test_the_whole_page_can_be_used_by_touch(show: Show) -> None:
    page = show("cluster", "phone")

    page.tap("#wall .shot:nth-of-type(2)")
    wait(page, "document.querySelector('.preview[open] img').naturalWidth > 0")
    page.tap(".preview .turn.on")
    wait(page, "document.querySelector('.preview header .quiet').innerText === '3 of 8'")
    page.tap(".preview footer button:first-child")
    page.tap(".preview header button")
    wait(page, "!document.querySelector('.preview')")
    page.tap("#wall .shot:nth-of-type(5)")

    assert page.inner_text(".chosen [role=status]") == "2 selected"
    page.tap(".chosen .button.main")
    wait(page, "document.querySelectorAll('.picker li').length >= 3")
