"""Similar pictures, the status, and the login, in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import wait
from playwright.sync_api import Page

from examine import Complaints
from imgsortd.reports.status import read_status
from support import wait_until
from website import Website, draw, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

TOKEN = "correct-horse-battery-staple"
SHOWN = "[...document.querySelectorAll('#wall .shot img')].map(image => image.alt)"
SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"
FACTS = """
Object.fromEntries([...document.querySelectorAll('.facts dt')].map(
  name => [name.innerText, name.nextElementSibling.innerText]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with running_website(tmp_path_factory.mktemp("site"), 8) as site:
        yield site


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website that asks for a token."""
    folder = tmp_path_factory.mktemp("locked")
    file = folder / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    with running_website(folder, 6, web={"token_file": str(file)}) as site:
        yield site


# --- similar --------------------------------------------------------------------------------------


def test_from_any_picture_a_key_leads_to_its_nearest_ones_of_the_whole_library(
    page: Page, site: Website
) -> None:
    page.goto(f"{site.base}/clusters/{site.cluster_of('red')}")
    wait(page, "document.querySelectorAll('#wall .shot').length === 8")
    page.keyboard.press("ArrowRight")
    name = page.evaluate("document.activeElement.querySelector('img').alt")

    page.keyboard.press("l")
    wait(page, "location.pathname.startsWith('/similar/')")
    wait(page, "document.querySelectorAll('#wall .shot').length > 8")

    shown = page.evaluate(SHOWN)
    assert page.inner_text("h1") == f"Like {name}"
    assert page.inner_text("[data-total]") == "The nearest of 32 pictures."
    nearest = {one.partition(",")[0] for one in shown[:7]}
    assert nearest == set(site.names("red")) - {name}
    assert page.inner_text("main a") == site.folder_of("red")

    page.keyboard.press("Home")
    page.keyboard.press("l")
    wait(page, f"document.querySelector('h1')?.innerText === 'Like {shown[0].partition(',')[0]}'")


def test_a_similar_picture_can_be_moved_from_where_it_is_seen(page: Page, site: Website) -> None:
    [(number,)] = site.rows("SELECT id FROM files WHERE src = ?", site.names("blue")[0].encode())
    page.goto(f"{site.base}/similar/{number}")
    wait(page, "document.querySelectorAll('#wall .shot').length > 8")
    name = page.evaluate(SHOWN)[0].partition(",")[0]
    old, new = site.folder_of("blue"), site.folder_of("green")

    page.keyboard.press("Home")
    page.keyboard.press("m")
    page.keyboard.type(new)
    page.keyboard.press("Enter")
    wait(page, f"({SAID})?.startsWith('Moved {name} to {new}')")
    assert name in site.files_in(new)
    page.keyboard.press("u")
    wait(page, f"({SAID})?.startsWith('Taken back')")

    assert name in site.files_in(old)


# --- status ---------------------------------------------------------------------------------------


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Website]:
    """Return a website to which something is added."""
    with running_website(tmp_path, 6) as site:
        yield site


def test_the_status_counts_what_is_there_and_tries_a_set_aside_file_again(
    page: Page, busy: Website
) -> None:
    site = busy
    site.drop_bytes("torn.jpg", b"no picture at all")
    site.wait_sorted()
    page.goto(f"{site.base}/status")
    counts = site.inbox.status().counts
    facts = page.evaluate(FACTS)
    assert facts["In clusters and folders"] == str(counts["sorted"])
    assert facts["Set aside"] == "1"
    assert facts["Seen, all together"] == str(counts["seen"])
    assert "torn.jpg" in page.inner_text(".rows")
    assert page.evaluate("document.querySelectorAll('.plot rect').length") >= 1

    mended = draw(site.folder / "made" / "torn.jpg", (200, 40, 40), 0)
    shutil.copy(mended, site.target / "_set_aside" / "torn.jpg")
    page.click("[data-ask=retry]")
    wait(page, f"({SAID}) === 'It is back in the inbox and is read again'")
    wait_until(
        lambda: (site.target / site.folder_of("red") / "torn.jpg").exists(), what="torn.jpg sorted"
    )
    wait(page, f"({FACTS})['Set aside'] === '0'")
    (site.target / site.folder_of("red") / "torn.jpg").write_bytes(b"no picture at all")

    assert read_status(site.config).counts["set_aside"] == 0
    assert page.inner_text(".card.wide:nth-of-type(4) .quiet") == "Every file could be read."


def test_the_words_on_every_page_follow_the_daemon(page: Page, site: Website) -> None:
    page.goto(f"{site.base}/status")
    wait(page, "document.querySelector('[data-live]').innerText === 'Watching the inbox'")

    site.inbox.daemon.stop()
    wait(page, "document.querySelector('[data-live]').innerText === 'The daemon is not running'")
    assert page.evaluate("document.querySelector('[data-lamp]').dataset.is") == "wrong"
    wait(page, "document.querySelector('.big').innerText === 'The daemon is not running'")
    site.inbox.daemon.start()

    wait(page, "document.querySelector('[data-live]').innerText === 'Watching the inbox'")
    site.inbox.daemon.wait_ready(2)


# --- login ----------------------------------------------------------------------------------------


def log_in(page: Page, site: Website, token: str = TOKEN, path: str = "/") -> None:
    page.goto(f"{site.base}{path}")
    wait(page, "document.activeElement.id === 'token'")
    page.keyboard.type(token)
    page.keyboard.press("Enter")


def test_without_the_token_every_page_leads_to_the_login_and_a_wrong_one_is_said_to_be_wrong(
    locked: Website, page: Page, complaints: Complaints
) -> None:
    for path in ("/", "/clusters/0", "/review", "/refits", "/status", "/similar/1"):
        page.goto(f"{locked.base}{path}")
        assert page.evaluate("location.pathname") == "/login", path
    wait(page, "document.activeElement.id === 'token'")

    page.keyboard.type("not the token")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('#wrong')")

    assert page.inner_text("#wrong") == "This is not the token."
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "wrong"
    assert page.context.cookies() == []
    assert ["401" in line for line in complaints.take()] == [True]


def test_the_token_leads_on_to_where_one_wanted_and_its_cookie_is_for_nobody_else(
    locked: Website, page: Page
) -> None:
    log_in(page, locked, path="/clusters/1?order=new")
    wait(page, "document.querySelectorAll('#wall .shot').length === 6")

    assert page.evaluate("location.pathname + location.search") == "/clusters/1?order=new"
    [cookie] = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    wait(page, "document.querySelector('[data-live]').innerText === 'Watching the inbox'")
    wait(page, "[...document.querySelectorAll('#wall img')].every(image => image.naturalWidth)")


def test_what_is_changed_after_the_login_is_changed_and_logging_out_ends_it(
    locked: Website, page: Page, complaints: Complaints
) -> None:
    number = locked.cluster_of("green")
    log_in(page, locked, path=f"/clusters/{number}")
    wait(page, "document.querySelectorAll('#wall .shot').length === 6")
    page.keyboard.press("F2")
    page.keyboard.type("Woods")
    page.keyboard.press("Enter")
    wait(page, f"({SAID})?.startsWith('Renamed to Woods')")
    assert locked.folder_of("green") == "Woods"

    page.goto(f"{locked.base}/status")
    page.click("form[action='/logout'] button")
    wait(page, "location.pathname === '/login'")

    assert page.context.cookies() == []
    page.goto(f"{locked.base}/")
    assert page.evaluate("location.pathname") == "/login"
    # The page that was left may have asked for its news just then.
    assert [line for line in complaints.take() if "401" not in line] == []


def test_a_login_that_has_ended_leads_back_to_the_login_at_the_next_thing_one_does(
    locked: Website, page: Page, complaints: Complaints
) -> None:
    log_in(page, locked, path="/clusters/1")
    wait(page, "document.querySelectorAll('#wall .shot').length === 6")

    page.context.clear_cookies()
    page.keyboard.press("Home")
    page.keyboard.press("m")
    wait(page, "location.pathname === '/login'")

    assert page.evaluate("location.search") == "?next=%2Fclusters%2F1"
    assert [line for line in complaints.take() if "401" not in line] == []
