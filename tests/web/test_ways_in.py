"""Similar pictures, the status, and the login, in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page

from imgsortd.status import read_status
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
    page.open(f"{site.base}/clusters/{site.cluster_of('red')}")
    page.wait("document.querySelectorAll('#wall .shot').length === 8")
    page.press("ArrowRight")
    name = page.run("document.activeElement.querySelector('img').alt")

    page.press("l")
    page.wait("location.pathname.startsWith('/similar/')")
    page.wait("document.querySelectorAll('#wall .shot').length > 8")

    shown = page.run(SHOWN)
    assert page.text("h1") == f"Like {name}"
    assert page.text("[data-total]") == "The nearest of 32 pictures."
    nearest = {one.partition(",")[0] for one in shown[:7]}
    assert nearest == set(site.names("red")) - {name}
    assert page.text("main a") == site.folder_of("red")

    page.press("Home")
    page.press("l")
    page.wait(f"document.querySelector('h1')?.innerText === 'Like {shown[0].partition(',')[0]}'")


def test_a_similar_picture_can_be_moved_from_where_it_is_seen(page: Page, site: Website) -> None:
    [(number,)] = site.rows("SELECT id FROM files WHERE src = ?", site.names("blue")[0].encode())
    page.open(f"{site.base}/similar/{number}")
    page.wait("document.querySelectorAll('#wall .shot').length > 8")
    name = page.run(SHOWN)[0].partition(",")[0]
    old, new = site.folder_of("blue"), site.folder_of("green")

    page.press("Home")
    page.press("m")
    page.type(new)
    page.press("Enter")
    page.wait(f"({SAID})?.startsWith('Moved {name} to {new}')")
    assert name in site.files_in(new)
    page.press("u")
    page.wait(f"({SAID})?.startsWith('Taken back')")

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
    page.open(f"{site.base}/status")
    counts = site.inbox.status().counts
    facts = page.run(FACTS)
    assert facts["In clusters and folders"] == str(counts["sorted"])
    assert facts["Set aside"] == "1"
    assert facts["Seen, all together"] == str(counts["seen"])
    assert "torn.jpg" in page.text(".rows")
    assert page.run("document.querySelectorAll('.plot rect').length") >= 1

    mended = draw(site.folder / "made" / "torn.jpg", (200, 40, 40), 0)
    shutil.copy(mended, site.target / "_set_aside" / "torn.jpg")
    page.click("[data-ask=retry]")
    page.wait(f"({SAID}) === 'It is back in the inbox and is read again'")
    wait_until(
        lambda: (site.target / site.folder_of("red") / "torn.jpg").exists(), what="torn.jpg sorted"
    )
    page.wait(f"({FACTS})['Set aside'] === '0'")
    (site.target / site.folder_of("red") / "torn.jpg").write_bytes(b"no picture at all")

    assert read_status(site.config).counts["set_aside"] == 0
    assert page.text(".card.wide:nth-of-type(4) .quiet") == "Every file could be read."


def test_the_words_on_every_page_follow_the_daemon(page: Page, site: Website) -> None:
    page.open(f"{site.base}/status")
    page.wait("document.querySelector('[data-live]').innerText === 'Watching the inbox'")

    site.inbox.daemon.stop()
    page.wait("document.querySelector('[data-live]').innerText === 'The daemon is not running'")
    assert page.run("document.querySelector('[data-lamp]').dataset.is") == "wrong"
    page.wait("document.querySelector('.big').innerText === 'The daemon is not running'")
    site.inbox.daemon.start()

    page.wait("document.querySelector('[data-live]').innerText === 'Watching the inbox'")
    site.inbox.daemon.wait_ready(2)


# --- login ----------------------------------------------------------------------------------------


def log_in(page: Page, site: Website, token: str = TOKEN, path: str = "/") -> None:
    page.open(f"{site.base}{path}")
    page.wait("document.activeElement.id === 'token'")
    page.type(token)
    page.press("Enter")


def test_without_the_token_every_page_leads_to_the_login_and_a_wrong_one_is_said_to_be_wrong(
    locked: Website, page: Page
) -> None:
    for path in ("/", "/clusters/0", "/review", "/refits", "/status", "/similar/1"):
        page.open(f"{locked.base}{path}")
        assert page.run("location.pathname") == "/login", path
    page.wait("document.activeElement.id === 'token'")

    page.type("not the token")
    page.press("Enter")
    page.wait("document.querySelector('#wrong')")

    assert page.text("#wrong") == "This is not the token."
    assert page.run("document.activeElement.getAttribute('aria-describedby')") == "wrong"
    assert page.cookies() == []
    assert ["401" in line for line in page.take_complaints()] == [True]


def test_the_token_leads_on_to_where_one_wanted_and_its_cookie_is_for_nobody_else(
    locked: Website, page: Page
) -> None:
    log_in(page, locked, path="/clusters/1?order=new")
    page.wait("document.querySelectorAll('#wall .shot').length === 6")

    assert page.run("location.pathname + location.search") == "/clusters/1?order=new"
    [cookie] = page.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    page.wait("document.querySelector('[data-live]').innerText === 'Watching the inbox'")
    page.wait("[...document.querySelectorAll('#wall img')].every(image => image.naturalWidth)")


def test_what_is_changed_after_the_login_is_changed_and_logging_out_ends_it(
    locked: Website, page: Page
) -> None:
    number = locked.cluster_of("green")
    log_in(page, locked, path=f"/clusters/{number}")
    page.wait("document.querySelectorAll('#wall .shot').length === 6")
    page.press("F2")
    page.type("Woods")
    page.press("Enter")
    page.wait(f"({SAID})?.startsWith('Renamed to Woods')")
    assert locked.folder_of("green") == "Woods"

    page.open(f"{locked.base}/status")
    page.click("form[action='/logout'] button")
    page.wait("location.pathname === '/login'")

    assert page.cookies() == []
    page.open(f"{locked.base}/")
    assert page.run("location.pathname") == "/login"
    # The page that was left may have asked for its news just then.
    assert [line for line in page.take_complaints() if "401" not in line] == []


def test_a_login_that_has_ended_leads_back_to_the_login_at_the_next_thing_one_does(
    locked: Website, page: Page, tmp_path: Path
) -> None:
    log_in(page, locked, path="/clusters/1")
    page.wait("document.querySelectorAll('#wall .shot').length === 6")

    page.ask("Network.clearBrowserCookies")
    page.press("Home")
    page.press("m")
    page.wait("location.pathname === '/login'")

    assert page.run("location.search") == "?next=%2Fclusters%2F1"
    complaints = page.take_complaints()
    assert [line for line in complaints if "401" not in line] == []
