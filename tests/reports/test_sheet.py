"""The contact sheet: what it shows, that it obeys no name, and that it is whole or not there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from imgsortd.cli.shared import stage_bars
from imgsortd.config.model import Config
from imgsortd.errors import ImgsortdError, StoreError
from imgsortd.reports.sheet import read_sheet
from imgsortd.reports.sheet_files import write_contact_sheet
from imgsortd.store import features as stored_features
from imgsortd.store.database import Store, open_for_reading, open_for_writing
from inboxes import Inbox
from line import Line
from pages import PageText
from support import BLUE, GREEN, RED, make_config, paint, paint_groups, run_cli

HOSTILE = '"><img onerror=alert(1)>.png'
OWN_WORDS = {"script", "iframe", "object", "embed", "form", "base", "video", "audio"}


def sorted_library(folder: Path) -> Config:
    """Sort 16 pictures of three colours, one of no picture's bytes, one twice."""
    line = Line(folder)
    paint_groups(line.config.inbox, each=5)
    paint(line.config.inbox / HOSTILE, GREEN, seed=7)
    (line.config.inbox / "no-<b>picture.jpg").write_bytes(b"text")
    (line.config.inbox / "again.png").write_bytes((line.config.inbox / "red-0.png").read_bytes())
    line.run()
    line.close()
    return line.config


def one_cluster(folder: Path, count: int) -> Config:
    """Sort pictures from red to blue into one cluster."""
    line = Line(folder, clusters={"n_clusters": 1, "min_images": 1})
    for number in range(count):
        part = (number / count) ** 2  # the middle is no picture's place
        colour = [round(a + part * (b - a)) for a, b in zip(RED, BLUE, strict=True)]
        paint(line.config.inbox / f"{number:02}.png", colour, seed=number)
    line.run()
    line.close()
    return line.config


@contextmanager
def opened(config: Config) -> Iterator[Store]:
    store = open_for_writing(config.database)
    try:
        yield store
    finally:
        store.close()


def page_of(config: Config, folder: Path, note: str = "") -> PageText:
    write_contact_sheet(config, folder / "sheet.html", note=note)
    return PageText.read(folder / "sheet.html")


@pytest.fixture
def page(tmp_path: Path) -> PageText:
    return page_of(sorted_library(tmp_path), tmp_path, "Crops <i>only</i>.")


def test_the_sheet_has_a_section_for_every_cluster_and_bytes_there_twice_are_shown_once(
    page: PageText,
) -> None:
    sections = [page.section(f"c{number}") for number in range(3)]

    groups = {
        "red": {f"red-{n}.png" for n in range(1, 5)} | {"again.png"},
        "blue": {f"blue-{n}.png" for n in range(5)},
        "green": {f"green-{n}.png" for n in range(5)} | {HOSTILE},
    }
    found = [set(section.names()) for section in sections]
    red = next(names for names in found if "red-1.png" in names)
    assert len(red & {"again.png", "red-0.png"}) == 1
    assert sorted(map(len, found)) == [5, 5, 6]
    for names in found:
        assert any(names - {"red-0.png"} <= group for group in groups.values())
    assert "17 pictures in 3 clusters · 1 set aside · 1 duplicate" in page.text
    assert "6 pictures · 35.3 % · 1 duplicate among them" in page.text


def test_the_sheet_is_one_file_that_loads_nothing_and_runs_nothing(page: PageText) -> None:
    found = {tag for tag, _ in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag in ("a", "link")]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    style = re.search(r"<style>(.*?)</style>", page.html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert found & OWN_WORDS == set()
    assert {link for link in links if not link.startswith("#")} == {"data:,"}
    assert all(a["src"].startswith("data:image/webp;") for tag, a in page.tags if tag == "img")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r'base64,[^"]*', "", page.html))
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in policy
    assert not any("style" in a or any(name.startswith("on") for name in a) for _, a in page.tags)


def test_every_link_leads_to_one_place_on_the_page(page: PageText) -> None:
    anchors = [a["id"] for _, a in page.tags if "id" in a]
    links = [a["href"][1:] for tag, a in page.tags if tag == "a"]

    assert len(anchors) == len(set(anchors))
    assert set(links) <= set(anchors)
    assert {f"c{number}" for number in range(3)} <= set(links)


def test_names_and_notes_are_shown_in_the_sheet_not_obeyed(page: PageText) -> None:
    assert [a for _, a in page.tags if "onerror" in a] == []
    assert "&quot;&gt;&lt;img onerror=alert(1)&gt;.png" in page.html
    assert "no-&lt;b&gt;picture.jpg" in page.html
    assert "Crops &lt;i&gt;only&lt;/i&gt;." in page.html


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9\x1b[31m.png", r"caf\udce9\x1b[31m.png"),
        ("\u202egnp.exe.png".encode(), r"\u202egnp.exe.png"),
        ("תמונה 'א'.png".encode(), "תמונה 'א'.png"),
        (b"</style><script>alert(1)</script>.png".replace(b"/", b"\xe2\x88\x95"), "<∕script>"),
        (b"two\nlines\t.png", r"two\nlines\t.png"),
    ],
)
def test_a_name_that_is_not_plain_text_is_written_as_its_codes(
    tmp_path: Path, name: bytes, shown: str
) -> None:
    line = Line(tmp_path, clusters={"n_clusters": 1, "min_images": 1})
    line.put(name, paint(tmp_path / "one.png", RED, 1).read_bytes())
    line.run()
    line.close()

    page = page_of(line.config, tmp_path)

    assert shown in page.images()[0]
    assert shown in page.section("c0").text
    assert {tag for tag, _ in page.tags} & OWN_WORDS == set()


def test_what_was_set_aside_is_listed_with_its_reason(page: PageText) -> None:
    text = page.section("set-aside").text

    assert "1 file that cannot be read as pictures" in text
    assert "_set_aside/no-<b>picture.jpg not a picture: it begins like text" in text


def test_pictures_in_review_are_shown_with_their_reason(tmp_path: Path) -> None:
    line = Line(tmp_path, clusters={"review_quantile": 0.9})
    paint_groups(line.config.inbox, each=5)
    line.run()
    paint(line.config.inbox / "odd.png", (120, 120, 120), seed=3)
    line.run()
    line.close()

    page = page_of(line.config, tmp_path)

    section = page.section("review")
    assert section.names() == ["odd.png"]
    assert "far from every cluster" in section.text
    assert "1 to review" in page.text


def test_the_medoid_is_first_then_the_nine_nearest_and_the_three_farthest(tmp_path: Path) -> None:
    config = one_cluster(tmp_path, 20)
    with opened(config) as store:
        model = store.fits.current()
        assert model is not None
        ids, features = store.fits.load_features(model.extractor)
        sources = dict(store.connection.execute("SELECT id, src FROM files").fetchall())
    distances = np.linalg.norm(features - features.mean(axis=0), axis=1)
    order = [os.fsdecode(sources[i]) for i in ids[np.argsort(distances)].tolist()]

    page = page_of(config, tmp_path)

    assert page.names() == order[:10] + order[-3:]
    kinds = [a["class"] for tag, a in page.tags if tag == "li" and "class" in a]
    assert kinds == ["medoid"] + ["near"] * 9 + ["far"] * 3
    assert page.text.count("farthest from the middle") == 3


def test_pictures_that_their_owner_took_away_give_their_place_to_the_next(tmp_path: Path) -> None:
    config = one_cluster(tmp_path, 20)
    whole = page_of(config, tmp_path).names()
    for name in (whole[0], whole[5], whole[-1]):
        (config.target / "cluster_0" / name).unlink()

    names = page_of(config, tmp_path).names()

    assert len(names) == 13
    assert set(names) & {whole[0], whole[5], whole[-1]} == set()
    assert names[0] == whole[1]


def test_a_cluster_whose_pictures_are_all_gone_says_so(tmp_path: Path) -> None:
    config = sorted_library(tmp_path)
    for file in config.target.glob("cluster_*/blue-*"):
        file.unlink()

    page = page_of(config, tmp_path)

    assert len(page.images()) == 11
    assert page.text.count("None of its pictures is there any more.") == 1


def test_a_picture_that_was_overwritten_with_something_else_is_counted_as_unread(
    tmp_path: Path,
) -> None:
    config = one_cluster(tmp_path, 3)
    (config.target / "cluster_0" / "01.png").write_text("not any more")

    report = write_contact_sheet(config, tmp_path / "sheet.html")

    assert (report.pictures, report.unread, report.left_out) == (2, 1, 0)
    assert sorted(PageText.read(tmp_path / "sheet.html").names()) == ["00.png", "02.png"]


def test_a_link_in_target_shows_the_picture_it_leads_to(tmp_path: Path) -> None:
    line = Line(tmp_path, op="symlink")
    paint_groups(line.config.inbox, each=2)
    line.run()
    line.close()

    assert len(page_of(line.config, tmp_path).images()) == 6


def test_the_name_that_a_person_gave_stands_before_number_and_folder(tmp_path: Path) -> None:
    config = sorted_library(tmp_path)
    with opened(config) as store, store.atomic():
        store.connection.execute(
            "UPDATE clusters SET name = 'Red <i>things</i>', folder = ? WHERE id = 1",
            (b"Red \xff",),
        )

    page = page_of(config, tmp_path)

    text = page.section("c1").text
    assert "Red <i>things</i>" in text
    assert r"cluster 1 · folder Red \udcff" in text
    assert "Red &lt;i&gt;things&lt;/i&gt;" in page.html


def test_a_library_before_its_first_fit_has_a_sheet_that_says_so(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint(line.config.inbox / "one.png", RED, 1)
    line.run()
    line.close()

    page = page_of(line.config, tmp_path)

    assert "0 pictures in 0 clusters" in page.text
    assert "There are no clusters yet: the first fit is still to come." in page.text
    assert page.images() == []


def test_where_no_daemon_has_ever_run_the_error_says_so(tmp_path: Path) -> None:
    config = make_config(tmp_path)

    with pytest.raises(StoreError, match="no such database; the daemon makes it"):
        write_contact_sheet(config, tmp_path / "sheet.html")

    assert not (tmp_path / "sheet.html").exists()


def test_clusters_whose_features_are_not_kept_are_shown_without_claims_of_distance(
    tmp_path: Path,
) -> None:
    config = one_cluster(tmp_path, 4)
    with opened(config) as store, store.atomic():
        store.connection.execute("DELETE FROM features")

    page = page_of(config, tmp_path)

    assert len(page.images()) == 4
    assert "middle of the cluster" not in page.text


def test_where_room_is_short_each_cluster_keeps_its_medoid_before_any_has_more(
    tmp_path: Path,
) -> None:
    config = sorted_library(tmp_path)
    whole = PageText.read(Path(write_contact_sheet(config, tmp_path / "whole.html").file))
    medoids = [whole.section(f"c{number}").names()[0] for number in range(3)]
    lengths = [len(a["src"]) for tag, a in whole.tags if tag == "img"]

    report = write_contact_sheet(
        config, tmp_path / "sheet.html", max_mb=(3.5 * max(lengths) + 1) / 1e6
    )

    page = PageText.read(tmp_path / "sheet.html")
    assert report.pictures < 6
    assert report.left_out == 16 - report.pictures
    assert set(medoids) <= set(page.names())
    assert f"{report.left_out} pictures left out" in page.text


def test_the_features_come_in_parts_of_any_size_to_the_same_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sorted_library(tmp_path)
    with opened(config) as store:
        whole = read_sheet(config, store)
        monkeypatch.setattr(stored_features, "_STREAM_BYTES", 1)  # one row at a time

        in_parts = read_sheet(config, store)

    assert in_parts.clusters == whole.clusters


def test_a_stop_half_way_leaves_the_former_sheet_and_no_process(tmp_path: Path) -> None:
    config = sorted_library(tmp_path)
    write_contact_sheet(config, tmp_path / "sheet.html", note="the former one")

    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "pictures" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_contact_sheet(config, tmp_path / "sheet.html", on_progress=stop)

    assert "the former one" in PageText.read(tmp_path / "sheet.html").text
    assert [name for name in os.listdir(tmp_path) if name.endswith(".part")] == []
    assert b"decode_worker" not in b"".join(commands_of_children())


def commands_of_children() -> list[bytes]:
    found = []
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def test_ctrl_c_at_the_terminal_ends_in_words() -> None:
    with (
        pytest.raises(ImgsortdError, match=r"^stopped; sheet\.html is as it was$"),
        stage_bars("stopped; sheet.html is as it was", quiet=True),
    ):
        raise KeyboardInterrupt


def test_the_command_writes_the_sheet_while_a_daemon_works_and_leaves_the_books_alone(
    tmp_path: Path,
) -> None:
    one = Inbox(tmp_path)
    one.drop(each=4)
    one.daemon.start()
    one.daemon.wait_ready()
    one.wait_sorted()
    config, output = tmp_path / "config.yaml", tmp_path / "sheet.html"

    done = run_cli("sheet", "-c", config, "-o", output)
    as_json = run_cli("sheet", "-c", config, "-o", output, "--json")

    assert done.returncode == 0, done.stderr
    assert "12 pictures of 3 clusters" in done.stdout
    assert json.loads(as_json.stdout)["pictures"] == 12
    assert len(PageText.read(output).images()) == 12
    assert one.daemon.stop() == 0
    one.check()


def test_the_command_refuses_a_file_that_is_not_a_sheet_before_it_works(tmp_path: Path) -> None:
    sorted_library(tmp_path)
    (tmp_path / "notes.html").write_text("mine")

    done = run_cli("sheet", "-c", tmp_path / "config.yaml", "-o", tmp_path / "notes.html")

    assert done.returncode == 1
    assert "is no page of imgsortd's" in done.stderr
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_the_sheet_writes_nothing_into_the_database(tmp_path: Path) -> None:
    config = sorted_library(tmp_path)
    with opened(config) as store:
        before = list(store.connection.iterdump())

    write_contact_sheet(config, tmp_path / "sheet.html")

    with opened(config) as store:
        assert list(store.connection.iterdump()) == before
    reader = open_for_reading(config.database)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.connection.execute("DELETE FROM files")
    reader.close()
