"""The sheets in a real browser: at phone and desktop width, in light and dark, by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from playwright.sync_api import Page

from examine import CONTRASTS
from imgsortd.config.model import Config
from imgsortd.refits.changes import ChangedGroup, RefitChanges
from imgsortd.reports.sheet_files import write_contact_sheet, write_refit_sheet
from line import Line
from support import paint, paint_groups

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

NewPage: TypeAlias = Callable[..., Page]

WINDOWS = [(390, "light"), (390, "dark"), (1440, "light"), (1440, "dark")]
LONG = f"a-name-without-any-place-to-break-it-{'x' * 150}.png"
SIDES = """
(() => { const b = document.querySelector('#p%d').getBoundingClientRect();
  return [b.width, b.height]; })()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("library")
    line = Line(folder, clusters={"review_quantile": 0.9})
    paint_groups(line.config.inbox, each=14)
    paint(line.config.inbox / LONG, (200, 30, 30), seed=5)
    (line.config.inbox / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    line.run()
    paint(line.config.inbox / f"odd-{LONG}", (120, 120, 120), seed=3)
    line.run()
    line.close()
    return line.config


@pytest.fixture(scope="module")
def sheet(library: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sheets") / "sheet.html"
    write_contact_sheet(library, path)
    return path


@pytest.fixture(scope="module")
def refit_sheet(library: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = sorted(
        str(path.relative_to(library.target)).encode()
        for path in library.target.glob("cluster_*/*")
    )
    others = (*names[30:32], b"cluster_1/gone.png")
    groups = (
        ChangedGroup(0, 2, b"cluster_0", LONG.encode(), tuple(names[:30]), 30),
        ChangedGroup(1, 3, b"cluster_1", b"_review", others, 3),
    )
    changes = RefitChanges("Refit 12", ("cluster 3 appears", f"{LONG} vanishes"), groups)
    path = tmp_path_factory.mktemp("sheets") / "refit.html"
    write_refit_sheet(library, changes, path)
    return path


def show(new_page: NewPage, sheet: Path, width: int, scheme: str = "light") -> Page:
    page = new_page(width=width, height=900, scheme=scheme, is_phone=width < 600)
    page.goto(sheet.as_uri())
    return page


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
@pytest.mark.parametrize("name", ["sheet", "refit_sheet"])
def test_a_sheet_fits_its_window_shows_every_picture_and_can_be_read(
    new_page: NewPage, request: pytest.FixtureRequest, name: str, width: int, scheme: str
) -> None:
    page = show(new_page, request.getfixturevalue(name), width, scheme)

    loaded = page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(loaded) >= 14
    assert min(loaded) > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    too_wide = page.evaluate(
        "[...document.querySelectorAll('img, figure, section, h1, h2, p, li, a')].filter(e => "
        "e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"
    )
    assert too_wide == []
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 10
    assert [(ratio, what) for ratio, what in contrasts if ratio < 4.5] == []
    paper = {"light": "rgb(250, 249, 246)", "dark": "rgb(21, 20, 22)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper


@pytest.mark.parametrize("width", [390, 1440])
def test_the_tab_key_reaches_the_clusters_and_every_picture_in_the_order_of_the_page(
    new_page: NewPage, sheet: Path, width: int
) -> None:
    page = show(new_page, sheet, width)
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        where = page.evaluate(
            "(() => { const e = document.activeElement, b = e.getBoundingClientRect();"
            " return [e.getAttribute('href') || e.tagName, b.width > 0 && b.right > 0,"
            " getComputedStyle(e).outlineStyle]; })()"
        )
        if where[0] == "BODY":
            break
        reached.append(where)

    targets = [href for href, *_ in reached]
    pictures = [href for href in targets if href.startswith("#p") and href != "#pictures"]
    count = page.evaluate("document.images.length")
    assert targets[0] == "#pictures"  # the way past the list
    assert targets[1] == ("SUMMARY" if width == 390 else "#c0") or targets[1].startswith("#c")
    assert pictures == [f"#p{number}" for number in range(1, count + 1)]
    assert [where for where in reached if not where[1] or where[2] == "none"] == []


def test_enter_enlarges_a_picture_the_next_follows_and_close_returns_to_its_place(
    new_page: NewPage, sheet: Path
) -> None:
    page = show(new_page, sheet, 1440)
    page.evaluate("document.querySelector('a.open[href=\"#p2\"]').focus()")
    page.keyboard.press("Enter")
    assert page.evaluate(SIDES % 2) == [1440, 900]

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Close"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#p3"
    assert page.evaluate(SIDES % 2)[0] < 400

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('figure:target')") is None
    assert page.evaluate("document.activeElement.id") == "f3"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#p3"


def test_a_link_of_the_list_brings_its_cluster_into_sight(new_page: NewPage, sheet: Path) -> None:
    page = show(new_page, sheet, 390)
    page.click("details > summary")
    page.click("nav a[href='#c2']")

    top = page.evaluate("document.querySelector('#c2').getBoundingClientRect().top")

    assert 0 <= top < 844
