"""Review in a browser: one picture after another, answered by single keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import wait
from playwright.sync_api import Page

from imgsortd.names import REVIEW_FOLDER
from support import wait_until
from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

REVIEW = REVIEW_FOLDER.decode()
# Far from every group, and from one another: what looks like an answered one follows it.
ODD = (
    (130, 125, 128),
    (30, 180, 190),
    (190, 40, 190),
    (210, 110, 30),
    (110, 40, 180),
    (30, 150, 110),
    (220, 130, 170),
    (120, 190, 40),
    (90, 130, 190),
    (170, 170, 120),
)
LIKELIEST = "[...document.querySelectorAll('[data-answer] bdi')].map(name => name.innerText)"
NAME = "document.querySelector('#name').innerText"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website with pictures in review."""
    clusters = {"review_quantile": 0.99}
    with running_website(tmp_path_factory.mktemp("site"), 8, clusters=clusters) as site:
        for colour in ODD:
            site.drop("odd", 1, colour)
        site.wait_sorted()
        wait_until(lambda: set(site.names("odd")) <= site.files_in(REVIEW), what="all in review")
        yield site


def in_review(site: Website) -> int:
    return site.inbox.status().counts["review"]


def folder_of(site: Website, name: str) -> str:
    """Return the folder in which a file stands, once it is no longer in review."""
    wait_until(lambda: not (site.target / REVIEW / name).exists(), what=f"{name} leaves review")
    [found] = [path.parent.name for path in site.target.rglob(name)]
    return found


def next_name(page: Page, before: str) -> str:
    """Wait for the picture after this one, shown; return its name."""
    wait(page, f"{NAME} !== {before!r}")
    wait(page, "document.querySelector('#picture').naturalWidth > 0")
    return str(page.evaluate(NAME))


def test_every_answer_has_a_key_and_the_next_picture_is_there_at_once(
    site: Website, page: Page
) -> None:
    total = in_review(site)
    page.goto(f"{site.base}/review")
    first = next_name(page, "\N{NO-BREAK SPACE}")
    assert page.inner_text("[data-left]") == f"{total} pictures to look at"
    assert len(page.inner_text("#reason")) > 10

    name, went = first, {}
    for key in ("1", "2", "3"):
        went[name] = page.evaluate(LIKELIEST)[int(key) - 1]
        page.keyboard.press(key)
        name = next_name(page, name)
    for moved, folder in went.items():
        assert folder_of(site, moved) == folder
    assert page.inner_text("[data-done]") == ", 3 answered"
    # A file stands in its place before the move is closed, and its pin with it.
    wait_until(lambda: len(site.pins()) == 3, what="three pins")
    assert len(set(went.values())) > 1

    page.keyboard.press("n")
    page.keyboard.type("Fog")
    page.keyboard.press("Enter")
    fog, name = name, next_name(page, name)
    assert folder_of(site, fog) == "Fog"

    page.keyboard.press("s")
    skipped, name = name, next_name(page, name)
    assert (site.target / REVIEW / skipped).exists()

    page.keyboard.press("m")
    page.keyboard.type(site.folder_of("blue"))
    page.keyboard.press("Enter")
    blue, name = name, next_name(page, name)
    assert folder_of(site, blue) == site.folder_of("blue")

    page.keyboard.press("r")
    kept, name = name, next_name(page, name)
    # It is said for some seconds only.
    wait(page, f"document.querySelector('.said p').innerText === '{kept} stays in {REVIEW}'")
    wait_until(lambda: len(site.pins()) == 6, what="a pin that keeps it in review")
    assert (site.target / REVIEW / kept).exists()
    wait_until(lambda: in_review(site) == total - 5, what="five of them gone")


def test_the_last_answer_is_taken_back_and_asked_again(site: Website, page: Page) -> None:
    pins = site.pins()
    page.goto(f"{site.base}/review")
    first = next_name(page, "\N{NO-BREAK SPACE}")
    page.keyboard.press("1")
    second = next_name(page, first)
    folder_of(site, first)
    wait(page, f"document.querySelector('.said p').innerText.startsWith('Moved {first}')")

    page.keyboard.press("u")
    wait(page, f"{NAME} === {first!r}")
    wait(page, "document.querySelector('.said p').innerText === 'Taken back'")

    assert (site.target / REVIEW / first).exists()
    assert site.pins() == pins
    page.keyboard.press("s")
    assert next_name(page, first) == second


def test_all_are_answered_faster_than_the_daemon_moves_them_and_each_is_where_it_was_sent(
    site: Website, page: Page
) -> None:
    total = in_review(site)
    page.goto(f"{site.base}/review")
    name, went = next_name(page, "\N{NO-BREAK SPACE}"), {}

    for number in range(total):
        went[name] = page.evaluate(LIKELIEST)[number % 3]
        page.keyboard.press(str(number % 3 + 1))
        if number < total - 1:
            wait(page, f"{NAME} !== {name!r}")
            name = page.evaluate(NAME)
    assert page.inner_text("#none h2") == "Nothing to review"

    assert {name: folder_of(site, name) for name in went} == went
    assert set(site.names("odd")) <= set(went)
    wait_until(lambda: len(site.pins()) == total, what="all pins")
    wait(page, "document.querySelector('[data-count=review]').innerText === ''")
    assert in_review(site) == 0
