"""Refits in a browser: a proposal side by side, accepted or rejected, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from browser import wait
from playwright.sync_api import Page

from imgsortd.store.fits import KeptFit
from support import BLUE, GREEN, RED, run_cli, tree, wait_until
from website import Website, running_website

pytestmark = pytest.mark.timeout(600)  # Chromium may have to be fetched

PALE = {"a": (200, 160, 160), "b": (160, 200, 160), "c": (160, 160, 200)}
# They leave the pale ones so close to each other that these become one cluster.
BRIGHT = {"x": RED, "y": GREEN, "z": BLUE}
SAID = "document.querySelector('.said:not([hidden]) p')?.innerText"
TITLE = "document.querySelector('#waiting-title')?.innerText"
LOADED = """
[...document.querySelectorAll('#waiting img')].every(image => {
  image.loading = 'eager';
  return image.naturalWidth > 0; })
"""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Website]:
    """Return a website with a proposal that waits: fit 2."""
    clusters = {"n_clusters": 3, "min_images": 36}
    folder = tmp_path_factory.mktemp("site")
    with running_website(folder, 0, clusters=clusters, refit={"max_churn": 0.1}) as site:
        for colours in (PALE, BRIGHT):
            for group, colour in colours.items():
                site.drop(group, 12, colour)
            site.wait_sorted()
        done = run_cli("refit", "-c", folder / "config.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: site.inbox.status().proposal is not None, what="a proposal")
        yield site


def fits(site: Website) -> dict[int, KeptFit]:
    with site.store() as store:
        return {fit.fit_id: fit for fit in store.records.list_fits()}


def places(site: Website) -> dict[str, list[str]]:
    return {folder: files for folder, files in tree(site.target).items() if files}


def say(page: Page, text: str) -> None:
    """Wait until the bar at the foot says something that begins so."""
    wait(page, f"({SAID})?.startsWith({text!r})")


def test_a_proposal_stands_side_by_side_is_accepted_with_its_moves_and_taken_back(
    site: Website, page: Page
) -> None:
    before = places(site)
    page.goto(f"{site.base}/refits")
    assert page.inner_text("#waiting-title") == "Fit 2 waits for your word"
    wait(page, LOADED)
    assert page.evaluate("document.querySelectorAll('#waiting .side').length") >= 2
    assert page.inner_text("#waiting .side p") == "Now"
    assert page.inner_text("[data-count=refits]") == "1"

    page.click("[data-ask=accept]")
    say(page, "Fit 2 is in force; ")
    wait(page, f"!({TITLE})")
    assert fits(site)[2].in_force
    after = places(site)
    assert after != before
    assert page.inner_text("tbody tr td:last-child").startswith("in force")
    wait(page, "document.querySelector('[data-count=refits]').innerText === ''")

    page.click(".said .button")
    say(page, "Fit 1 is in force again; the files are back where they were")
    wait(page, "!document.querySelector('[data-ask=rollback]')")
    assert places(site) == before
    assert fits(site)[1].in_force


def test_the_way_back_to_the_former_fit_takes_the_files_along(site: Website, page: Page) -> None:
    before = places(site)
    page.goto(f"{site.base}/refits")
    wait(page, LOADED)
    page.click("[data-ask=accept]")
    say(page, "Fit 2 is in force; ")
    wait(page, "document.querySelector('[data-ask=rollback]')")
    assert places(site) != before
    assert page.inner_text("[data-ask=rollback]") == "Return to fit 1, files too"

    page.click("[data-ask=rollback]")
    say(page, "Fit 1 is in force again; ")
    wait(page, "!document.querySelector('[data-ask=rollback]')")

    assert fits(site)[1].in_force
    assert places(site) == before


def test_a_rejected_proposal_changes_nothing_and_another_fit_can_be_asked_for(
    site: Website, page: Page
) -> None:
    before = places(site)
    page.goto(f"{site.base}/refits")

    page.keyboard.press("j")
    page.keyboard.press("Enter")
    say(page, "Fit 2 was rejected")
    wait(page, f"!({TITLE})")
    assert not fits(site)[2].in_force
    assert places(site) == before

    page.click("[data-ask=refit]")
    say(page, "Fit 3 changes much and waits for your word")
    wait(page, f"({TITLE}) === 'Fit 3 waits for your word'")
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.dataset.ask") == "accept"
    page.click("[name=keep]")
    page.click("[data-ask=accept]")
    say(page, "Fit 3 is in force")

    assert fits(site)[3].in_force
    assert places(site) == before


def test_a_proposal_appears_on_an_open_page_and_vanishes_when_it_is_decided_elsewhere(
    site: Website, page: Page, new_page: Callable[..., Page]
) -> None:
    page.goto(f"{site.base}/refits")
    page.evaluate("window.isStillHere = true")
    assert page.inner_text("#waiting-title") == "Fit 2 waits for your word"
    elsewhere = new_page()
    elsewhere.goto(f"{site.base}/refits")

    elsewhere.click("[data-ask=reject]")
    wait(page, f"!({TITLE})")
    assert page.inner_text("main section h2") == "No fit waits"
    elsewhere.click("[data-ask=refit]")
    wait(page, f"({TITLE}) === 'Fit 3 waits for your word'")

    assert page.evaluate("window.isStillHere")
