"""The demo's parts, without the demo: its sample, its contact sheet, its sums, its folder."""

from __future__ import annotations

import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsortd.adapters.inbox import Inbox
from imgsortd.adapters.reading import PictureReader
from imgsortd.adapters.store import open_read_only
from imgsortd.adoption import adopt_fit
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.errors import ImgsortdError
from imgsortd.fits import compute_fit, fit_source
from imgsortd.intake import Intake
from imgsortd.pipeline import process_batch, route_waiting
from support import GREEN, make_config, make_library, paint, paint_groups

DEMO = Path(__file__).parents[1] / "demo"
HOSTILE = '"><img onerror=alert(1)>.png'


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the demo, as demo/run.py does."""
    monkeypatch.syspath_prepend(DEMO)

    def load(name: str) -> ModuleType:
        import importlib

        return importlib.import_module(name)

    return load


@pytest.fixture
def sorted_library(tmp_path: Path) -> tuple[Path, Path]:
    """Sort 15 red, green and blue pictures, one of no picture's bytes, one twice.

    Returns the database and the target.
    """
    config = make_config(tmp_path)
    paint_groups(config.inbox, each=5)
    paint(config.inbox / HOSTILE, GREEN, seed=7)
    (config.inbox / "no-<b>picture.jpg").write_bytes(b"text")
    (config.inbox / "again.png").write_bytes((config.inbox / "red-0.png").read_bytes())
    library, store = make_library(config)
    intake = Intake(
        Inbox(config.inbox, config.recursive, config.ignore, config.extensions), store, settle_s=0
    )
    intake.scan(0.0)
    intake.settle(0.0)
    reader = PictureReader(config.inbox, threads=1)
    process_batch(library, [reader.read(candidate) for candidate in intake.queue])
    reader.close()
    adopt_fit(library, compute_fit(fit_source(library), 3, 0), FitTrigger.BOOTSTRAP)
    route_waiting(library)
    store.close()
    return config.database, config.target


class _Page(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


@pytest.fixture
def html(demo: Any, sorted_library: tuple[Path, Path], tmp_path: Path) -> str:
    """Return the contact sheet of :func:`sorted_library`, as written."""
    database, target = sorted_library
    store = open_read_only(database)
    demo("contact_sheet").write_contact_sheet(
        store, target, tmp_path / "sheet.html", "Crops <i>only</i>."
    )
    store.close()
    return (tmp_path / "sheet.html").read_text(encoding="utf-8")


def test_the_sheet_has_a_row_for_every_cluster_with_all_of_its_pictures(html: str) -> None:
    page = _Page(html)

    assert [f"cluster_{number}" in page.text for number in range(3)] == [True] * 3
    names = {str(image["alt"]) for image in page.images()}
    assert names == {f"{c}-{n}.png" for c in ("red", "green", "blue") for n in range(5)} | {
        HOSTILE,
        "again.png",
    }
    assert "17 pictures in 3 folders" in page.text


def test_the_sheet_is_one_file_that_loads_nothing_and_runs_nothing(html: str) -> None:
    page = _Page(html)

    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a"} == set()
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.images())
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", html))
    assert "default-src 'none'" in html


def test_names_and_notes_are_shown_in_the_sheet_not_obeyed(html: str) -> None:
    page = _Page(html)

    assert [tag for tag, attributes in page.tags if "onerror" in attributes] == []
    assert "b" not in {tag for tag, _ in page.tags}  # of the file that was set aside
    assert "&quot;&gt;&lt;img onerror=alert(1)&gt;.png" in html
    assert "Crops &lt;i&gt;only&lt;/i&gt;." in html


def test_the_sheet_tells_what_was_set_aside_and_what_was_there_twice(html: str) -> None:
    text = _Page(html).text

    assert "_set_aside/no-<b>picture.jpg not a picture: it begins like text" in text
    assert re.search(r"Duplicates\s+1 file, the same bytes as another file", text)


def test_a_large_cluster_shows_its_first_pictures_and_how_many_more(
    demo: Any, sorted_library: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = demo("contact_sheet")
    monkeypatch.setattr(sheet, "_THUMBNAILS", 4)
    store = open_read_only(sorted_library[0])
    page = _Page(sheet.contact_sheet(store, sorted_library[1]))
    store.close()

    assert len(page.images()) == 9
    assert page.text.count("+3") == 2
    assert page.text.count("+2") == 1


def test_pictures_that_their_owner_took_away_are_left_out_of_the_sheet(
    demo: Any, sorted_library: tuple[Path, Path]
) -> None:
    database, target = sorted_library
    for file in target.glob("cluster_*/blue-*"):
        file.unlink()
    store = open_read_only(database)
    page = _Page(demo("contact_sheet").contact_sheet(store, target))
    store.close()

    assert len(page.images()) == 12
    assert "none of its pictures is there any more" in page.text


def test_a_name_that_is_not_text_is_written_as_its_codes(demo: Any) -> None:
    shown = demo("contact_sheet")._text(os.fsdecode(b"caf\xe9\x1b[31m\xe2\x80\xaegpj.exe"))

    assert shown == "caf\\udce9\\x1b[31m\\u202egpj.exe"


def test_the_sample_is_crops_of_photographs_inside_the_installed_scikit_image(demo: Any) -> None:
    skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
    scenes = demo("scenes").find_scenes()

    assert len(scenes) == 12
    for path in scenes.values():
        assert path.is_relative_to(Path(skimage.__file__).parent)
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        # Drawings, phantoms and chessboards have few grey levels; photographs have many.
        assert len(np.unique(pixels)) > 100


def test_the_sample_is_the_same_in_every_run_and_no_two_crops_are_equal(demo: Any) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    scenes = demo("scenes")
    found = scenes.find_scenes()
    first, second = (list(scenes.crops(found, each=3)) for _ in range(2))

    assert first == second
    assert len({data for _, data in first}) == 3 * len(found)
    assert {scenes.scene_of(name) for name, _ in first} == set(found)
    sizes = [Image.open(io.BytesIO(data)).size for _, data in first]
    assert max(max(size) for size in sizes) <= 500


def test_purity_is_the_share_of_the_commonest_class_of_each_cluster(demo: Any) -> None:
    purity = demo("agreement").purity

    assert purity("aabbb", "00011") == pytest.approx(4 / 5)
    assert purity("ab", "01") == 1.0
    assert purity("", "") == 0.0


def test_nmi_does_not_depend_on_the_names_of_the_clusters(demo: Any) -> None:
    assert demo("agreement").nmi([*"aabb"], [*"7733"]) == pytest.approx(1.0)
    assert demo("agreement").nmi([*"abab"], [*"0011"]) == pytest.approx(0.0)


def test_only_a_folder_with_the_demos_marker_is_emptied(demo: Any, tmp_path: Path) -> None:
    workspace = demo("workspace")
    precious = tmp_path / "demo-run" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")

    with pytest.raises(ImgsortdError, match="was not made by the demo"):
        workspace.claim(tmp_path / "demo-run")
    assert precious.read_text() == "mine"


def test_a_second_run_empties_what_the_first_left_and_a_second_at_once_is_refused(
    demo: Any, tmp_path: Path
) -> None:
    workspace = demo("workspace")
    first = workspace.claim(tmp_path / "demo-run")
    (first.target / "cluster_0").mkdir()
    with pytest.raises(ImgsortdError, match="another `make demo` is at work"):
        workspace.claim(tmp_path / "demo-run")
    first.release()
    second = workspace.claim(tmp_path / "demo-run")

    assert list(second.target.iterdir()) == []
    second.remove()
    second.release()
    assert not (tmp_path / "demo-run").exists()


def test_own_pictures_are_copied_under_names_of_their_own_and_stay(
    demo: Any, tmp_path: Path
) -> None:
    photos = demo("photos")
    for folder in ("a", "b"):
        paint(tmp_path / "pictures" / folder / "IMG_1.png", GREEN, seed=ord(folder))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    found = photos.find_photos(tmp_path / "pictures", tmp_path / "demo-run")
    names = list(photos.inbox_names(found))
    for path, name in zip(found, names, strict=True):
        photos.copy_in(path, inbox / name)

    assert names == ["IMG_1.png", "IMG_1-1.png"]
    assert [(inbox / name).read_bytes() for name in names] == [p.read_bytes() for p in found]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("missing", "PHOTOS must be an existing folder"),
        ("empty", "expected at least two pictures"),
        ("demo-run/sorted", "PHOTOS must not lie in"),
    ],
)
def test_a_folder_that_cannot_be_the_demos_photos_is_refused_in_words(
    demo: Any, tmp_path: Path, folder: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "demo-run" / "sorted").mkdir(parents=True)

    with pytest.raises(ImgsortdError, match=message):
        demo("photos").find_photos(tmp_path / folder, tmp_path / "demo-run")
