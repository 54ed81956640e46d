"""What a person does with a cluster in a browser: rename, look, select, move, and take it back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import press, wait
from playwright.sync_api import Page

from examine import Complaints
from support import wait_until
from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

SHOWN = "[...document.querySelectorAll('#wall .shot:not(.going) img')].map(image => image.alt)"
FOCUSED = "document.activeElement.querySelector('img')?.alt"
SELECTED = """
[...document.querySelectorAll('#wall [aria-selected=true] img')].map(image => image.alt)
"""
SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    with running_website(tmp_path_factory.mktemp("site"), 12) as site:
        yield site


def open_cluster(page: Page, site: Website, group: str) -> list[str]:
    """Open the page of a group's cluster; return the names of its pictures, as they stand."""
    page.goto(f"{site.base}/clusters/{site.cluster_of(group)}")
    wait(page, "document.querySelectorAll('#wall .shot').length > 0")
    wait(page, "[...document.querySelectorAll('#wall img')].every(image => image.naturalWidth)")
    return list(page.evaluate(SHOWN))


def wait_said(page: Page, text: str) -> None:
    """Wait until the bar at the foot begins with a text."""
    wait(page, f"({SAID})?.startsWith({text!r})")


# --- renaming -----------------------------------------------------------------------------------


def test_a_cluster_is_renamed_where_its_name_stands_and_its_folder_on_disk_with_it(
    page: Page, site: Website
) -> None:
    open_cluster(page, site, "yellow")
    before, number = site.folder_of("yellow"), site.cluster_of("yellow")

    page.keyboard.press("F2")
    page.keyboard.type("Sun & sand")
    page.keyboard.press("Enter")
    wait_said(page, "Renamed to Sun & sand")

    assert page.inner_text("h1") == "Sun & sand"
    assert page.evaluate("document.title") == "Sun & sand · imgsortd"
    assert page.evaluate("document.activeElement.dataset.do") == "rename"
    assert site.folder_of("yellow") == "Sun & sand"
    assert not (site.target / before).exists()
    assert site.rows("SELECT name FROM clusters WHERE id = ?", number) == [("Sun & sand",)]

    page.keyboard.press("u")
    wait(page, f"document.querySelector('h1').innerText === {before!r}")
    wait_until(lambda: site.folder_of("yellow") == before, what="the old name")


def test_a_name_that_no_folder_can_have_is_refused_in_words_and_stays_to_be_mended(
    page: Page, site: Website
) -> None:
    open_cluster(page, site, "yellow")
    before = site.folder_of("yellow")

    page.click("[data-do=rename]")
    page.keyboard.type("Sun/sand")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('.said.wrong:not([hidden])')")

    assert "/" in page.evaluate(SAID)
    assert page.evaluate("document.activeElement.value") == "Sun/sand"
    page.keyboard.press("Escape")
    assert page.inner_text("h1") == before == site.folder_of("yellow")


# --- looking and selecting ----------------------------------------------------------------------


def test_space_opens_a_picture_large_the_arrows_turn_pages_and_space_closes_it_where_one_was(
    page: Page, site: Website
) -> None:
    names = open_cluster(page, site, "blue")
    press(page, "ArrowRight", "ArrowRight", "ArrowLeft")
    assert page.evaluate(FOCUSED) == names[1]

    page.keyboard.press(" ")
    wait(page, "document.querySelector('dialog[open] img').naturalWidth > 0")
    assert page.inner_text(".preview bdi") == names[1]
    assert page.inner_text(".preview header .quiet") == "2 of 12"
    press(page, "ArrowRight", "ArrowRight")
    wait(page, f"document.querySelector('.preview img').alt === {names[3]!r}")
    page.keyboard.press("x")
    page.keyboard.press(" ")

    wait(page, f"({FOCUSED}) === {names[3]!r}")
    assert page.evaluate("document.querySelector('dialog[open]')") is None
    assert page.evaluate(SELECTED) == [names[3]]


def test_pictures_stand_upright_in_their_own_shape(page: Page, site: Website) -> None:
    open_cluster(page, site, "blue")

    shapes = page.evaluate("""
      [...document.querySelectorAll('#wall .shot')].map(shot => {
        const image = shot.firstElementChild;
        return [image.alt, image.naturalWidth / image.naturalHeight,
                shot.clientWidth / shot.clientHeight]; })
    """)

    upright = dict(site.rows("SELECT CAST(src AS TEXT), width_px * 1.0 / height_px "
                             "FROM files JOIN picture_hashes USING (sha256)"))  # fmt: skip
    assert len(shapes) == 12
    for name, of_picture, of_place in shapes:
        assert of_picture == pytest.approx(upright[name], rel=0.02), name
        assert of_place == pytest.approx(upright[name], rel=0.03), name


def test_keys_and_clicks_select_single_pictures_ranges_all_and_none(
    page: Page, site: Website
) -> None:
    names = open_cluster(page, site, "blue")

    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.evaluate(SELECTED) == [names[1]]
    press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    assert page.evaluate(SELECTED) == names[1:4]
    assert page.inner_text(".chosen [role=status]") == "3 selected"
    page.click("#wall .shot:nth-of-type(7)", modifiers=["Shift"])
    assert page.evaluate(SELECTED) == names[1:7]
    page.click("#wall .shot:nth-of-type(2)", modifiers=["Control"])
    assert page.evaluate(SELECTED) == names[2:7]
    page.keyboard.press("Control+a")
    assert page.evaluate(SELECTED) == names
    page.keyboard.press("Escape")

    assert page.evaluate(SELECTED) == []
    assert page.evaluate("document.querySelector('.chosen').hidden")


def test_the_question_mark_lists_the_keys_and_escape_leads_back(page: Page, site: Website) -> None:
    open_cluster(page, site, "blue")

    page.keyboard.press("?")
    listed = page.inner_text("dialog.help[open]")
    page.keyboard.press("Escape")

    for word in ("Space", "undo", "rename the cluster"):
        assert word in listed
    assert page.evaluate("document.querySelector('dialog[open]')") is None


# --- moving -------------------------------------------------------------------------------------


def test_what_is_selected_is_moved_by_typing_a_part_of_a_name_and_undo_brings_it_back_with_its_pins(
    page: Page, site: Website
) -> None:
    old, new = site.folder_of("red"), site.folder_of("green")
    pins = site.pins()
    names = open_cluster(page, site, "red")
    moved = names[2:5]

    press(page, "ArrowRight", "ArrowRight")
    page.keyboard.press("x")
    press(page, "Shift+ArrowRight", "Shift+ArrowRight")
    page.keyboard.press("m")
    assert page.inner_text(".picker h2") == "Move 3 pictures to"
    page.keyboard.type(new.removeprefix("cluster"))
    assert page.inner_text(".picker [aria-selected=true] bdi") == new
    page.keyboard.press("Enter")
    wait(page, f"({SHOWN}).length === 9")
    wait_said(page, "Moved 3 pictures to")

    assert page.evaluate(SHOWN) == [name for name in names if name not in moved]
    assert page.evaluate(FOCUSED) == names[5]
    assert page.inner_text("[data-total]") == "9 pictures"
    assert set(moved) <= site.files_in(new)
    assert not set(moved) & site.files_in(old)
    [(number,)] = site.rows(
        f"SELECT DISTINCT cluster_id FROM files WHERE CAST(src AS TEXT) IN {tuple(moved)}"
    )
    assert number == site.cluster_of("green")
    assert len(site.pins()) == len(pins) + 3

    page.keyboard.press("u")
    wait_said(page, "Taken back")
    assert page.evaluate(SHOWN) == names
    assert page.evaluate(FOCUSED) == moved[0]
    assert set(names) == site.files_in(old)
    assert site.pins() == pins


def test_undo_by_the_button_and_ctrl_z_are_the_same_and_a_new_folder_is_made_by_its_name(
    page: Page, site: Website
) -> None:
    old = site.folder_of("red")
    names = open_cluster(page, site, "red")
    ways = {
        "For the wall": lambda: page.click(".said .button"),
        "To print": lambda: page.keyboard.press("Control+z"),
    }
    for folder, take_back in ways.items():
        page.keyboard.press("Home")
        page.keyboard.press("m")
        page.keyboard.type(folder)
        assert page.inner_text(".picker [aria-selected=true]").endswith(f"New folder {folder}")
        page.keyboard.press("Enter")
        wait_said(page, f"Moved {names[0]} to {folder}")
        assert site.files_in(folder) == {names[0]}

        take_back()
        wait_said(page, "Taken back")

        assert site.files_in(old) == set(names)
        assert page.evaluate(SHOWN) == names


def test_a_click_chooses_in_the_list_and_escape_moves_nothing(page: Page, site: Website) -> None:
    old, new = site.folder_of("red"), site.folder_of("blue")
    names = open_cluster(page, site, "red")

    page.keyboard.press("m")
    page.keyboard.press("Escape")
    wait(page, "!document.querySelector('.picker')")
    assert page.evaluate(SHOWN) == names
    page.keyboard.press("m")
    page.keyboard.type(new)
    page.click(".picker li:first-child")
    wait_said(page, f"Moved {names[0]} to {new}")
    assert names[0] in site.files_in(new)
    page.click(".said .button")
    wait_said(page, "Taken back")

    assert site.files_in(old) == set(names)


def test_a_file_that_is_gone_is_put_back_into_the_page_and_said(page: Page, site: Website) -> None:
    names = open_cluster(page, site, "green")
    path = site.target / site.folder_of("green") / names[0]
    away = site.folder / "away"
    path.rename(away)

    page.keyboard.press("Home")
    page.keyboard.press("m")
    page.keyboard.type(site.folder_of("blue"))
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('.said.wrong:not([hidden])')")
    away.rename(path)

    assert page.evaluate(SAID).startswith("Not moved: ")
    assert sorted(page.evaluate(SHOWN)) == sorted(names)


# --- without a daemon ---------------------------------------------------------------------------


def test_with_no_daemon_all_is_shown_and_a_change_is_refused_with_what_to_do(
    page: Page, site: Website, complaints: Complaints
) -> None:
    site.inbox.daemon.stop()
    names = open_cluster(page, site, "blue")
    wait(page, "document.querySelector('[data-lamp]').dataset.is === 'wrong'")

    page.keyboard.press("Home")
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('.said.wrong:not([hidden])')")
    said = page.evaluate(SAID)
    said_by_browser = complaints.take()
    site.inbox.daemon.start()
    site.inbox.daemon.wait_ready(2)
    wait(page, "document.querySelector('[data-lamp]').dataset.is === 'fine'")

    assert said.startswith("the daemon is not running, so nothing can be changed; start it: ")
    assert [line for line in said_by_browser if "503" not in line] == []
    assert page.evaluate(SHOWN) == names
    assert site.files_in(site.folder_of("blue")) == set(names)
