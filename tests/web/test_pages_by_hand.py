"""What a person meets when pages change by themselves, or answers come late, in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import press, wait
from playwright.sync_api import Page

from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

# 26 pictures wait in review, so the server says; `answer(n, …)` answers a request.
REVIEW = """
(() => {
window.left = []; window.reads = 0;
const answers = new Map(), real = window.fetch;
window.answer = (n, state, result) => answers.set(n, { state, result });
const reply = (value) => new Response(JSON.stringify(value));
const likeliest = [1, 2, 3].map((cluster) => (
  { cluster, name: null, folder: `cluster_${cluster}`, distance: .5, mosaic: [] }));
const all = Array.from({ length: 26 }, (_, i) => (
  { id: i + 1, key: 'k', w: 3, h: 2, name: `p${i}`, reason: 'far', likeliest }));
window.fetch = async (path, options) => {
  const url = new URL(path, location.href);
  if (url.pathname === '/api/review') {
    window.reads += 1;
    if (window.isAway && url.searchParams.has('after')) throw new TypeError('no network');
    const start = Number(url.searchParams.get('after') ?? 0);
    const pictures = all.slice(start, start + 20);
    return reply({ total: 26, pictures, next: start + 20 < 26 ? start + 20 : null });
  }
  if (options?.method === 'POST') {
    window.left.push(JSON.parse(options.body));
    return reply({ request: window.left.length });
  }
  const request = url.pathname.match(/requests.(.+)/);
  return request ? reply(answers.get(Number(request[1])) ?? { state: 'new' }) : real(path, options);
};
const { set } = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, 'src');
Object.defineProperty(HTMLImageElement.prototype, 'src', { set(path) {
  set.call(this, document.querySelector('link[rel=icon]').href);
} });
})()
"""
NAME = "document.querySelector('#name').innerText"
SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"
# Short words that stand on more than one line.
BROKEN = """
[...document.querySelectorAll('.choice > *, .facts dd, .table td:first-of-type')]
.filter(place => { const range = document.createRange(); range.selectNodeContents(place);
  return new Set([...range.getClientRects()].map(one => one.bottom)).size > 1; })
.map(place => place.innerText).filter(text => !text.includes(' '))
"""
TILES = "[...document.querySelectorAll('#tiles > li')].map(tile => tile.id)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with running_website(tmp_path_factory.mktemp("site"), 6) as site:
        yield site


def open_review(page: Page, site: Website, before: str = "") -> None:
    page.add_init_script(before + REVIEW)
    page.goto(f"{site.base}/review")
    wait(page, f"{NAME} === 'p0'")


def answer(page: Page, number: int, state: str = "done", **result: Any) -> None:
    """Wait until the page has left a request; let the daemon answer it."""
    wait(page, f"window.left.length >= {number}")
    page.evaluate(f"window.answer({number}, '{state}', {json.dumps(result)})")


# --- the grid -----------------------------------------------------------------------------------


def test_enter_in_the_search_keeps_the_order(page: Page, site: Website) -> None:
    page.goto(f"{site.base}/?sort=name")

    page.keyboard.press("/")
    page.keyboard.type("cluster")
    page.keyboard.press("Enter")

    wait(page, "location.search === '?q=cluster&sort=name'")
    assert page.inner_text("[aria-pressed=true]") == "Name"


def test_a_cluster_that_moves_up_while_it_has_the_focus_keeps_it(page: Page, site: Website) -> None:
    number = site.cluster_of("blue")
    page.goto(f"{site.base}/")
    page.evaluate(f"document.querySelector('#c{number} a').focus()")

    site.drop("blue", 5)
    site.wait_sorted()
    wait(page, f"({TILES})[0] === 'c{number}'")
    wait(page, f"document.querySelector('#c{number} .size').innerText.startsWith('11')")

    assert page.evaluate("document.activeElement.closest('li').id") == f"c{number}"


def test_what_changes_each_second_is_not_read_aloud_and_what_is_wrong_is(
    page: Page, site: Website
) -> None:
    page.goto(f"{site.base}/")
    wait(page, "document.querySelector('[data-live]').innerText === 'Watching the inbox'")
    assert page.evaluate("document.querySelector('[data-live]').closest('[role=status]')") is None
    assert page.evaluate("document.querySelector('[data-told]').textContent") == ""

    site.inbox.daemon.stop()
    wait(page, "document.querySelector('[data-told]').textContent.includes('not running')")
    site.inbox.daemon.start()
    site.inbox.daemon.wait_ready(2)
    wait(page, "!document.querySelector('[data-told]').textContent.includes('not running')")


# --- review -------------------------------------------------------------------------------------


def test_an_answer_that_failed_comes_again_after_the_picture_that_is_looked_at(
    page: Page, site: Website
) -> None:
    open_review(page, site)
    press(page, "1", "2")
    assert page.evaluate(NAME) == "p2"

    answer(page, 1, "failed", error="the disk is full")
    wait(page, f"({SAID}) === 'the disk is full'")
    assert page.evaluate(NAME) == "p2"
    page.keyboard.press("3")

    assert page.evaluate(NAME) == "p0"
    assert [one["files"] for one in page.evaluate("window.left")] == [[1], [2], [3]]


def test_undo_after_more_answers_goes_back_one_by_one(page: Page, site: Website) -> None:
    open_review(page, site)
    press(page, "1", "2", "3")
    for number in (3, 1, 2):  # whichever the page hears of first
        folder = f"cluster_{number}"
        answer(page, number, placed=1, batch=number, folder=folder, left=[])
        wait(page, f"({SAID}).startsWith('Moved p{number - 1}')")

    for number, name in ((4, "p2"), (5, "p1"), (6, "p0")):
        page.keyboard.press("u")
        answer(page, number, left=[])
        wait(page, f"{NAME} === '{name}'")

    assert page.evaluate("window.left.slice(3)") == [{"batch": 3}, {"batch": 2}, {"batch": 1}]
    assert page.inner_text("[data-left]") == "26 pictures to look at"


def test_what_was_skipped_can_be_looked_at_again_at_the_end(page: Page, site: Website) -> None:
    open_review(page, site)

    for number in range(26):
        wait(page, f"{NAME} === 'p{number}'")
        page.keyboard.press("s")
    assert page.inner_text("#none h2") == "26 pictures skipped"
    assert page.evaluate("document.activeElement.id") in ("main", "")
    page.click("#none button")

    assert page.evaluate(NAME) == "p0"
    assert page.inner_text("[data-left]") == "26 pictures to look at"


def test_the_queue_goes_on_when_the_server_is_there_again(page: Page, site: Website) -> None:
    open_review(page, site, "window.isAway = true;")
    for number in range(20):
        wait(page, f"{NAME} === 'p{number}'")
        page.keyboard.press("s")
    assert page.inner_text("#none h2") == "One moment …"

    page.evaluate("window.isAway = false")
    page.evaluate(
        "document.dispatchEvent(new CustomEvent('pulse', { detail: { review: 26 } })) && 0"
    )

    wait(page, f"{NAME} === 'p20'")
    assert page.evaluate("document.querySelector('#none').hidden")


# --- small windows, large letters ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/review", "/refits", "/status", "/clusters/0"])
def test_nothing_is_cut_off_in_a_window_of_320_pixels(
    new_page: Callable[..., Page], site: Website, path: str
) -> None:
    page = new_page(width=320, height=640)
    page.goto(site.base + path)

    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate(BROKEN) == []
