"""A wall of ten thousand pictures in a browser, and a daemon that answers late or never.

The page is the real one; what the server would say of the pictures and of requests is said here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser import press, wait
from playwright.sync_api import Page

from support import wait_until
from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

TOTAL, CHUNK = 10_000, 2000
# `asked` are the pictures that were asked for, `left` the requests; `answer(n, …)` answers one.
SERVER = """
window.asked = []; window.left = []; window.broken = 0;
const answers = new Map(), real = window.fetch;
window.answer = (n, state, result) => answers.set(n, { state, result });
const reply = (value, status = 200) => new Response(JSON.stringify(value), { status });
window.fetch = async (path, options) => {
  const url = new URL(path, location.href);
  if (window.broken > 0 && (window.broken -= 1, true)) throw new TypeError('no network');
  if (url.pathname.endsWith('/pictures')) {
    if (window.isAway && url.searchParams.has('after')) throw new TypeError('no network');
    const start = Number(url.searchParams.get('after') ?? 0), end = Math.min(start + CHUNK, TOTAL);
    const pictures = [];
    for (let i = start; i < end; i += 1) {
      pictures.push([i + 1, 'k', [3, 2, 4][i % 3], [2, 3, 3][i % 3], `p${i}`, 0]);
    }
    return reply({ total: TOTAL, pictures, next: end < TOTAL ? String(end) : null });
  }
  if (options?.method === 'POST') {
    window.left.push([url.pathname, JSON.parse(options.body)]);
    return reply({ request: window.left.length });
  }
  const request = url.pathname.match(/requests.(.+)/);
  return request ? reply(answers.get(Number(request[1])) ?? { state: 'new' }) : real(path, options);
};
const { set } = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, 'src');
Object.defineProperty(HTMLImageElement.prototype, 'src', { set(path) {
  window.asked.push(path);
  set.call(this, document.querySelector('link[rel=icon]').href);
} });
"""
NAMES = "[...document.querySelectorAll('#wall .shot:not(.going) img')].map(image => image.alt)"
SELECTED = """
[...document.querySelectorAll('#wall [aria-selected=true] img')].map(image => image.alt)
"""
FOCUSED = "document.activeElement.querySelector('img')?.alt"
SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"
TOP = """
[...document.querySelectorAll('#wall .shot')].map(shot => [shot.getBoundingClientRect().top,
  shot.firstElementChild.alt]).filter(([top]) => top > -20).sort((a, b) => a[0] - b[0])[0][1]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with running_website(tmp_path_factory.mktemp("site"), 6) as site:
        yield site


def open_wall(page: Page, site: Website, total: int = TOTAL, before: str = "") -> None:
    """Open a cluster that seems to hold so many pictures, the first of them called p0."""
    numbers = f"const TOTAL = {total}, CHUNK = {CHUNK};"
    script = f"(() => {{ {numbers} {SERVER} {before} }})()"
    page.add_init_script(script)
    page.goto(f"{site.base}/clusters/{site.cluster_of('red')}")
    wait(page, "document.querySelectorAll('#wall .shot').length > 0")


def go_to_end(page: Page) -> None:
    """Press End until the last picture of all has come."""

    def is_there() -> bool:
        page.keyboard.press("End")
        return bool(page.evaluate(FOCUSED) == f"p{TOTAL - 1}")

    wait_until(is_there, what="the last picture")


def answer(page: Page, number: int, state: str = "done", **result: Any) -> None:
    """Wait until the page has left a request; let the daemon answer it."""
    wait(page, f"window.left.length >= {number}")
    page.evaluate(f"window.answer({number}, '{state}', {json.dumps(result)})")


def placed(count: int, batch: int, *left: int) -> dict[str, Any]:
    gone = [{"id": one, "file": f"p{one - 1}", "reason": "it is gone"} for one in left]
    return {"placed": count, "batch": batch, "folder": "There", "left": gone}


def move(page: Page) -> None:
    page.keyboard.press("m")
    wait(page, "document.querySelector('.picker li')")
    page.keyboard.press("Enter")
    wait(page, "!document.querySelector('.picker')")


# --- ten thousand pictures ----------------------------------------------------------------------


def test_of_ten_thousand_pictures_few_are_in_the_page_and_each_can_be_reached(
    page: Page, site: Website
) -> None:
    open_wall(page, site)

    go_to_end(page)
    nodes = page.evaluate("document.querySelectorAll('#wall .shot').length")
    page.keyboard.press("Home")

    assert page.evaluate(FOCUSED) == "p0"
    assert nodes < 300
    assert page.evaluate("document.querySelector('[data-total]').innerText") == "10,000 pictures"


def test_pictures_that_are_only_passed_are_not_asked_for(page: Page, site: Website) -> None:
    open_wall(page, site)
    go_to_end(page)
    page.keyboard.press("Home")
    before = page.evaluate("window.asked.length")

    page.evaluate("""new Promise((done) => {
      const end = document.documentElement.scrollHeight;
      const step = () => {
        scrollBy(0, 2500);
        if (scrollY + 2 * innerHeight < end) requestAnimationFrame(step); else done(); };
      step(); })""")
    wait(
        page,
        "[...document.querySelectorAll('#wall img')].every(image => image.hasAttribute('src'))",
    )

    assert page.evaluate("window.asked.length") - before < 1000  # of ten thousand


def test_what_is_looked_at_stays_in_sight_when_the_window_becomes_another(
    page: Page, site: Website
) -> None:
    open_wall(page, site)
    page.evaluate("scrollTo(0, 20000)")
    wait(page, f"({NAMES}).length && !({NAMES}).includes('p30')")
    before = page.evaluate(TOP)

    page.set_viewport_size({"width": 800, "height": 900})
    wait(page, "document.querySelector('#wall').clientWidth < 800")
    wait(page, f"({NAMES}).includes({before!r})")

    shown = page.evaluate(f"""(() => {{
      const box = document.querySelector('#wall img[alt="{before}"]').getBoundingClientRect();
      return box.bottom > 0 && box.top < innerHeight; }})()""")
    assert shown


def test_the_keys_go_on_where_one_has_scrolled_to(page: Page, site: Website) -> None:
    open_wall(page, site)
    page.evaluate("scrollTo(0, 20000)")
    wait(page, f"({NAMES}).length && !({NAMES}).includes('p30')")

    page.keyboard.press("ArrowRight")

    assert page.evaluate("Math.abs(scrollY - 20000) < innerHeight")
    assert int(page.evaluate(FOCUSED)[1:]) > 50


def test_what_could_not_be_read_is_read_when_the_server_is_there_again(
    page: Page, site: Website
) -> None:
    open_wall(page, site, before="window.isAway = true;")
    wait(page, f"({SAID}) === 'imgsortd web cannot be reached'")

    page.evaluate("window.isAway = false")
    page.evaluate("document.dispatchEvent(new CustomEvent('pulse', { detail: {} })) && 0")

    go_to_end(page)


# --- selecting ----------------------------------------------------------------------------------


def test_a_range_is_let_go_as_far_as_one_goes_back_and_single_ones_stay(
    page: Page, site: Website
) -> None:
    open_wall(page, site, 50)

    page.keyboard.press("x")
    press(page, "ArrowRight", "ArrowRight", "ArrowRight")
    page.keyboard.press("x")
    press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    assert page.evaluate(SELECTED) == ["p0", "p3", "p4", "p5"]
    page.keyboard.press("Shift+ArrowLeft")

    assert page.evaluate(SELECTED) == ["p0", "p3", "p4"]


def test_all_means_also_those_that_are_still_to_come(page: Page, site: Website) -> None:
    open_wall(page, site)

    page.keyboard.press("Control+a")

    wait(page, "document.querySelector('.chosen').innerText.startsWith('10,000 selected')")


def test_a_finger_opens_selects_by_a_long_press_and_scrolls_without_either(
    new_page: Callable[..., Page], site: Website
) -> None:
    page = new_page(width=390, height=700, is_phone=True)
    fingers = page.context.new_cdp_session(page)
    open_wall(page, site)

    def touch(kind: str, *at: int) -> None:
        points = [{"x": at[0], "y": at[1]}] if at else []
        event = {"type": f"touch{kind}", "touchPoints": points}
        fingers.send("Input.dispatchTouchEvent", event)

    wait(page, "document.querySelector('#wall .shot img').naturalWidth > 0")
    touch("Start", 60, 400)
    for y in range(390, 150, -20):
        touch("Move", 60, y)
    touch("End")
    wait(page, "scrollY > 100")
    assert page.evaluate(SELECTED) == []
    assert page.evaluate("document.querySelector('dialog[open]')") is None

    touch("Start", 60, 400)
    wait(page, f"({SELECTED}).length === 1")
    touch("End")
    [chosen] = page.evaluate(SELECTED)
    page.tap(f"#wall .shot:has([alt={chosen}])")
    wait(page, f"({SELECTED}).length === 0")
    page.tap(f"#wall .shot:has([alt={chosen}])")

    assert page.inner_text(".preview[open] bdi") == chosen


# --- a daemon that is slow ----------------------------------------------------------------------


def test_undo_means_the_last_deed_also_while_it_is_being_done(page: Page, site: Website) -> None:
    open_wall(page, site, 50)
    move(page)
    answer(page, 1, **placed(1, 11))
    wait(page, f"({SAID})?.startsWith('Moved p0')")
    move(page)
    wait(page, "window.left.length === 2")

    page.keyboard.press("u")
    answer(page, 2, **placed(1, 12))
    wait(page, "window.left.length === 3")
    assert page.evaluate("window.left[2]") == ["/api/undo", {"batch": 12}]
    answer(page, 3, left=[])
    wait(page, f"({SAID}) === 'Taken back'")
    page.keyboard.press("u")
    wait(page, "window.left.length === 4")
    answer(page, 4, left=[])

    assert page.evaluate("window.left[3]") == ["/api/undo", {"batch": 11}]
    wait(page, f"({NAMES})[0] === 'p0'")
    assert page.evaluate(NAMES)[:3] == ["p0", "p1", "p2"]
    assert page.evaluate(FOCUSED) == "p0"


def test_what_failed_is_given_back_in_its_place_and_undo_means_the_deed_before(
    page: Page, site: Website
) -> None:
    open_wall(page, site, 50)
    move(page)
    move(page)
    answer(page, 2, **placed(1, 12))
    wait(page, f"({SAID})?.startsWith('Moved p1')")

    answer(page, 1, "failed", error="the disk is full")
    wait(page, f"({SAID}) === 'the disk is full'")
    wait(page, f"({NAMES})[0] === 'p0'")
    assert page.evaluate(FOCUSED) == "p2"
    page.keyboard.press("u")
    wait(page, "window.left.length === 3")
    answer(page, 3, left=[])

    wait(page, f"({NAMES})[1] === 'p1'")
    assert page.evaluate("window.left[2]") == ["/api/undo", {"batch": 12}]
    assert page.evaluate(NAMES)[:3] == ["p0", "p1", "p2"]


def test_an_answer_is_waited_for_also_while_the_server_is_away(page: Page, site: Website) -> None:
    open_wall(page, site, 50)
    move(page)
    wait(page, "window.left.length === 1")

    page.evaluate("window.broken = 1")
    wait(page, "window.broken === 0")
    answer(page, 1, **placed(1, 11))

    wait(page, f"({SAID})?.startsWith('Moved p0')")
    assert "p0" not in page.evaluate(NAMES)


def test_ten_thousand_are_moved_in_parts_and_a_part_that_fails_stays(
    page: Page, site: Website
) -> None:
    open_wall(page, site)
    page.keyboard.press("Control+a")
    wait(page, "document.querySelector('.chosen').innerText.startsWith('10,000 selected')")
    move(page)
    wait(page, "document.querySelector('[data-total]').innerText === '0 pictures'")

    answer(page, 1, **placed(1999, 11, 7))
    answer(page, 2, **placed(2000, 12))
    answer(page, 3, "failed", error="the disk is full")
    wait(page, "document.querySelector('[data-total]').innerText === '6,001 pictures'")
    assert page.evaluate(SAID).startswith("Moved 3,999 pictures to There; 6,001 pictures stayed")
    assert page.evaluate(NAMES)[:2] == ["p6", "p4000"]
    page.keyboard.press("u")
    for number in (4, 5):
        answer(page, number, left=[])

    wait(page, "document.querySelector('[data-total]').innerText === '10,000 pictures'")
    assert [body for _, body in page.evaluate("window.left.slice(3)")] == [
        {"batch": 12},
        {"batch": 11},
    ]
    assert page.evaluate(NAMES)[:8] == [f"p{number}" for number in range(8)]


# --- the preview --------------------------------------------------------------------------------


def test_a_move_in_the_preview_is_said_there_and_taken_back_there(
    page: Page, site: Website
) -> None:
    open_wall(page, site, 50)
    page.keyboard.press("ArrowRight")
    page.keyboard.press(" ")
    wait(page, "document.querySelector('.preview[open]')")

    move(page)
    answer(page, 1, **placed(1, 11))
    wait(page, f"({SAID})?.startsWith('Moved p1')")
    assert page.inner_text(".preview bdi") == "p2"
    page.click(".said .button")
    answer(page, 2, left=[])
    wait(page, "document.querySelector('.preview bdi').innerText === 'p1'")
    page.keyboard.press("Escape")

    wait(page, f"({FOCUSED}) === 'p1'")
    assert page.evaluate("document.querySelector('.said').parentElement === document.body")


def test_the_last_picture_that_is_moved_away_leaves_the_focus_in_the_page(
    page: Page, site: Website
) -> None:
    open_wall(page, site, 1)

    move(page)
    answer(page, 1, **placed(1, 11))
    wait(page, f"({SAID})?.startsWith('Moved p0')")

    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("u")
    answer(page, 2, left=[])
    wait(page, f"({FOCUSED}) === 'p0'")


# --- the name -----------------------------------------------------------------------------------


def test_a_name_that_is_sent_twice_is_asked_for_once(page: Page, site: Website) -> None:
    open_wall(page, site, 50)
    page.keyboard.press("F2")
    page.keyboard.type("Sea")

    press(page, "Enter", "Enter")
    answer(page, 1, folder="Sea")
    wait(page, "document.querySelector('h1').innerText === 'Sea'")

    assert len(page.evaluate("window.left")) == 1
    assert page.evaluate("document.activeElement.dataset.do") == "rename"
    assert page.evaluate("document.querySelector('#wall').ariaLabel") == "Pictures of Sea"


# --- choosing a cluster -------------------------------------------------------------------------


def test_the_name_that_was_typed_whole_comes_first_and_a_press_beside_the_field_closes_nothing(
    page: Page, site: Website
) -> None:
    open_wall(page, site, 50)
    page.evaluate("""(() => { const real = window.fetch; window.fetch = (path, options) => {
      if (path !== '/api/clusters') return real(path, options);
      const names = ['Birds of the sea', 'Birds', 'Bird', 'cluster_17', 'cluster_7'];
      const clusters = names.map((folder, index) => (
        { id: [17, 7].includes(+folder.slice(8)) ? +folder.slice(8) : 100 + index,
          folder, files: 99 - index, mosaic: [] }));
      return Promise.resolve(new Response(JSON.stringify({ clusters, folders: [], review: 0 })));
    }; })()""")
    first = "document.querySelector('.picker [aria-selected=true] bdi')?.innerText"
    page.keyboard.press("m")
    wait(page, "document.querySelectorAll('.picker li').length === 6")

    page.keyboard.type("bird")
    assert page.evaluate(first) == "Bird"
    press(page, "Backspace", "Backspace", "Backspace", "Backspace", "7")
    assert page.evaluate(first) == "cluster_7"
    page.click(".picker h2")
    x, y = page.evaluate("""(() => { const box = document.querySelector('.picker .field')
      .getBoundingClientRect(); return [box.left - 6, box.bottom + 4]; })()""")
    page.mouse.click(x, y)
    assert page.evaluate("document.querySelector('.picker').open")
    page.mouse.click(5, 300)

    wait(page, "!document.querySelector('.picker')")
    assert page.evaluate("window.left") == []
