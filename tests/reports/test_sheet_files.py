"""A page is there whole or not at all, and takes the place of nothing but a page of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsortd.errors import ImgsortdError
from imgsortd.reports.sheet_files import Replace, write_page
from imgsortd.reports.sheet_pages import MARK

PAGE = f"<!doctype html>\n<head>{MARK}</head>"


def test_a_page_is_written_with_the_rights_that_other_programs_give(tmp_path: Path) -> None:
    umask = os.umask(0o027)

    size_bytes = write_page(tmp_path / "sheet.html", [PAGE, " é"])

    os.umask(umask)
    assert (tmp_path / "sheet.html").read_text(encoding="utf-8") == PAGE + " é"
    assert size_bytes == len((PAGE + " é").encode())
    assert (tmp_path / "sheet.html").stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["sheet.html"]


def test_an_older_page_of_ours_is_replaced(tmp_path: Path) -> None:
    write_page(tmp_path / "sheet.html", [PAGE])

    write_page(tmp_path / "sheet.html", [PAGE, "newer"])

    assert (tmp_path / "sheet.html").read_text() == PAGE + "newer"


def test_what_is_no_page_of_ours_stays_unless_a_person_insists(tmp_path: Path) -> None:
    file = tmp_path / "thesis.html"
    file.write_text("<h1>mine</h1>")
    with pytest.raises(
        ImgsortdError, match=r"no page of imgsortd's; give another name, or --force"
    ):
        write_page(file, [PAGE])
    assert file.read_text() == "<h1>mine</h1>"

    write_page(file, [PAGE], Replace.ANY)

    assert file.read_text() == PAGE


def test_a_stop_half_way_leaves_the_former_page_and_nothing_else(tmp_path: Path) -> None:
    def stopped() -> Iterator[str]:
        yield PAGE
        raise KeyboardInterrupt

    write_page(tmp_path / "sheet.html", [PAGE, "former"])

    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path / "sheet.html", stopped())

    assert (tmp_path / "sheet.html").read_text() == PAGE + "former"
    assert os.listdir(tmp_path) == ["sheet.html"]


def test_a_file_that_comes_while_the_page_is_made_is_not_replaced(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield PAGE
        (tmp_path / "sheet.html").write_text("mine")

    with pytest.raises(ImgsortdError, match="came meanwhile"):
        write_page(tmp_path / "sheet.html", parts())

    assert (tmp_path / "sheet.html").read_text() == "mine"
    assert os.listdir(tmp_path) == ["sheet.html"]


def test_a_page_goes_where_a_link_leads_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "sheet.html").symlink_to(tmp_path / "there" / "page.html")

    write_page(tmp_path / "sheet.html", [PAGE])

    assert (tmp_path / "sheet.html").is_symlink()
    assert (tmp_path / "there" / "page.html").read_text() == PAGE


@pytest.mark.parametrize(
    ("name", "message"), [(".", "is a folder"), ("missing/sheet.html", "there is no folder")]
)
def test_a_place_that_cannot_hold_a_page_is_refused_in_words(
    tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ImgsortdError, match=message):
        write_page(tmp_path / name, [PAGE])
