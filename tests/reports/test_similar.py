"""``similar`` and ``explain`` say what is like a picture, where it is, and why."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.errors import FindError, StoreError
from imgsortd.reports.explain import Explanation, explain
from imgsortd.reports.similar import SimilarReport, extract_features, nearest_rows, similar
from inboxes import Inbox, quick_cli
from line import Line
from support import GREEN, RED, ColourExtractor, make_config, paint, paint_groups
from synthetic import note_places


def no_word(_: str) -> None:
    """Listen to no progress."""


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted nine pictures of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.run()
    yield line
    line.close()


def sorted_file(line: Line, name: str) -> Path:
    """Return where a picture stands now."""
    return next(line.config.target.rglob(name))


def names(report: SimilarReport | Explanation) -> list[str]:
    return [Path(one.file).name for one in report.similar]


def sql(line: Line, statement: str, *values: object) -> None:
    with line.store.atomic():
        line.store.connection.execute(statement, values)


def test_the_pictures_most_like_one_come_nearest_first_without_itself(line: Line) -> None:
    report = similar(line.config, sorted_file(line, "red-0.png"), 4, no_word)

    distances = [one.distance for one in report.similar]
    assert set(names(report)[:2]) == {"red-1.png", "red-2.png"}
    assert distances == sorted(distances)
    assert (len(distances), report.compared, report.model_loaded) == (4, 9, False)


def test_distances_are_those_between_the_stored_features(line: Line) -> None:
    def stored(path: Path) -> Any:
        sha256 = hashlib.sha256(path.read_bytes()).digest()
        return line.store.fits.get_features(line.extractor.id, [sha256])[sha256]

    subject = sorted_file(line, "blue-1.png")

    report = similar(line.config, subject, 8, no_word)

    assert [one.distance for one in report.similar] == pytest.approx(
        [float(np.linalg.norm(stored(Path(one.file)) - stored(subject))) for one in report.similar]
    )


@pytest.mark.parametrize("how", ["absolute", "relative to target", "relative", "by a link", "old"])
def test_a_file_of_the_library_is_known_by_any_path_to_it(
    line: Line, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = sorted_file(line, "red-0.png")
    (tmp_path / "link").symlink_to(line.config.target)
    monkeypatch.chdir(line.config.target if how == "relative" else tmp_path)
    below = file.relative_to(line.config.target)
    path = {
        "absolute": file,
        "relative to target": below,
        "relative": Path(f"./{below}"),
        "by a link": Path("link") / below,
        "old": line.config.inbox / "red-0.png",
    }[how]

    report = similar(line.config, path, 8, no_word)

    assert report.in_library
    assert "red-0.png" not in names(report)


def test_a_copy_elsewhere_is_known_by_its_bytes_and_finds_the_file_marked(
    line: Line, tmp_path: Path
) -> None:
    copy = shutil.copy(sorted_file(line, "green-2.png"), tmp_path / "elsewhere.png")

    report = similar(line.config, copy, 2, no_word)

    assert (names(report)[0], report.similar[0].same_bytes) == ("green-2.png", True)
    assert report.similar[0].distance == 0
    assert not report.similar[1].same_bytes


@pytest.mark.parametrize("policy", ["keep", "set_aside", "skip"])
def test_exact_duplicates_are_named_and_marked_whatever_the_policy(
    tmp_path: Path, policy: str
) -> None:
    line = Line(tmp_path, duplicates=policy)
    paint_groups(line.config.inbox, 3)
    shutil.copy(line.config.inbox / "red-0.png", line.config.inbox / "zz-copy.png")
    line.run()

    report = similar(line.config, sorted_file(line, "red-0.png"), 9, no_word)

    marked = [Path(one.file).name for one in report.similar if one.same_bytes]
    assert marked == ["zz-copy.png"]
    assert all(Path(one.file).exists() for one in report.similar)
    line.close()


def test_what_its_owner_took_away_is_not_named(line: Line) -> None:
    sorted_file(line, "red-1.png").unlink()

    report = similar(line.config, sorted_file(line, "red-0.png"), 8, no_word)

    assert len(names(report)) == 7
    assert "red-1.png" not in names(report)


def test_the_folder_and_the_name_are_those_of_now(line: Line) -> None:
    file = sorted_file(line, "red-1.png")
    number = int(file.parent.name.removeprefix("cluster_"))
    file.parent.rename(line.config.target / "Roses")
    sql(line, "UPDATE clusters SET name = 'Roses', folder = ? WHERE id = ?", b"Roses", number)
    sql(
        line,
        "UPDATE files SET dst = CAST('Roses/' || substr(dst, ?) AS BLOB) WHERE cluster_id = ?",
        len(file.parent.name) + 2,
        number,
    )

    report = similar(line.config, line.config.target / "Roses" / "red-0.png", 1, no_word)

    (one,) = report.similar
    assert Path(one.file).parent == line.config.target / "Roses"
    assert (one.cluster, one.folder, one.name) == (number, "Roses", "Roses")


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.lists(st.integers(0, 7), max_size=6))
def test_the_nearest_are_exact_in_however_many_parts_they_come(
    seed: int, count: int, sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(0, 4, (sum(sizes), 3)).astype(np.float32)
    query, bounds = rng.random(3, dtype=np.float32), np.cumsum(sizes)[:-1]
    ids = np.arange(len(vectors))
    parts = zip(np.split(ids, bounds), np.split(vectors, bounds), strict=True)

    found, compared = nearest_rows(parts if sizes else [], query, count)

    distances = np.sort(np.linalg.norm(vectors - query, axis=1))
    assert [distance for _, distance in found] == distances[:count].tolist()
    for row, distance in found:
        assert distance == pytest.approx(np.linalg.norm(vectors[row] - query))
    assert compared == len(vectors)


def test_half_a_million_pictures_are_gone_through_in_the_memory_of_one_part() -> None:
    part = np.random.default_rng(0).random((5_000, 64), dtype=np.float32)
    parts = ((np.arange(5_000) + 5_000 * number, part) for number in range(100))

    tracemalloc.start()
    found, compared = nearest_rows(parts, part[7], 20)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert ({distance for _, distance in found}, compared) == ({0.0}, 500_000)
    assert peak_bytes < 5 * part.nbytes


def test_before_the_first_daemon_there_is_no_library(tmp_path: Path) -> None:
    picture = paint(tmp_path / "a.png", RED, 1)

    with pytest.raises(StoreError, match="no such database; the daemon makes it"):
        similar(make_config(tmp_path), picture, 5, no_word)


def test_a_path_that_is_nowhere_is_told_with_what_was_expected(line: Line) -> None:
    with pytest.raises(FindError, match=r"nope\.jpg: no such file; expected a picture on disk"):
        similar(line.config, Path("nope.jpg"), 5, no_word)


def test_what_is_no_picture_is_refused_before_a_model_is_loaded(line: Line, tmp_path: Path) -> None:
    text = tmp_path / "letter.jpg"
    text.write_text("dear reader")

    with pytest.raises(FindError, match=r"letter\.jpg: not a picture: .*; expected a picture"):
        extract_features(line.config, line.extractor.id, text, no_word)


def test_a_folder_is_no_picture(line: Line, tmp_path: Path) -> None:
    with pytest.raises(FindError, match="cannot be read as a picture file"):
        similar(line.config, tmp_path, 5, no_word)


def test_explain_says_where_a_file_is_since_when_and_by_which_fit(line: Line) -> None:
    file = sorted_file(line, "red-0.png")

    report = explain(line.config, file, no_word)

    known = report.library
    assert (known.file, known.state, known.stands_there) == (str(file), "sorted", True)
    assert known.folder == file.parent.name == f"cluster_{known.cluster}"
    assert (known.moved.batch, known.moved.op) == (1, "move")
    assert (known.fit.trigger, known.fit.clusters) == ("request", 3)
    assert report.now.cluster == report.clusters[0].cluster == known.cluster
    distances = [one.distance for one in report.clusters]
    assert (len(distances), distances) == (3, sorted(distances))
    assert set(names(report)[:2]) == {"red-1.png", "red-2.png"}


def test_explain_says_why_a_picture_is_in_review_and_what_would_be_now(tmp_path: Path) -> None:
    line = Line(tmp_path, clusters={"review_quantile": 0.9})
    paint_groups(line.config.inbox, 3)
    line.run()
    paint(line.config.inbox / "yellow.png", (200, 200, 30), 5)
    line.run()

    there = explain(line.config, sorted_file(line, "yellow.png"), no_word)
    wide = line.config.clusters.model_copy(update={"review_quantile": None})
    config = line.config.model_copy(update={"clusters": wide})
    then = explain(config, sorted_file(line, "yellow.png"), no_word)

    assert there.library.state == "review"
    assert there.library.reason.startswith("far from every cluster: ")
    assert there.now.review
    assert there.now.distance > there.limits.farthest
    assert there.limits.quantile == 0.9
    assert (then.now.review, then.limits.farthest) == (False, None)
    line.close()


def test_explain_tells_of_pins_companions_and_equal_bytes(line: Line) -> None:
    file = sorted_file(line, "red-0.png")
    row = line.store.lookup.in_target(os.fsencode(file.relative_to(line.config.target)))[0]
    sql(line, "INSERT INTO pins VALUES (?, NULL, 1000)", row.sha256)
    sql(
        line,
        "INSERT INTO files(src, inode, size_bytes, mtime_ns, state, dst, companion_of, seen_at) "
        "VALUES (CAST('red-0.xmp' AS BLOB), 1, 1, 1, 'companion', ?, ?, 0)",
        os.fsencode(f"{file.parent.name}/red-0.xmp"),
        row.file_id,
    )
    note_places(line.store.connection)
    line.store.connection.commit()
    (file.parent / "red-0.xmp").write_text("<x/>")

    picture = explain(line.config, file, no_word).library
    sidecar = explain(line.config, file.with_suffix(".xmp"), no_word)

    assert (picture.pin.cluster, picture.pin.folder) == (None, "_review")
    assert [one.file for one in picture.companions] == [str(file.with_suffix(".xmp"))]
    assert sidecar.library.goes_with.file == str(file)
    assert (sidecar.similar, sidecar.now) == ([], None)


def test_explain_counts_pins_as_centers_as_routing_does(line: Line, tmp_path: Path) -> None:
    red, green = sorted_file(line, "red-0.png"), sorted_file(line, "green-0.png")
    number = int(green.parent.name.removeprefix("cluster_"))
    sha256 = hashlib.sha256(red.read_bytes()).digest()
    sql(line, "INSERT INTO pins VALUES (?, ?, 1000)", sha256, number)

    report = explain(line.config, red, no_word)

    assert report.library.pin.cluster == report.now.cluster == number
    assert report.clusters[0].distance == pytest.approx(0, abs=1e-3)


def test_explain_says_why_a_file_was_set_aside(line: Line) -> None:
    line.put("broken.jpg", b"no picture")
    line.run()

    report = explain(line.config, sorted_file(line, "broken.jpg"), no_word)

    assert report.library.state == "set_aside"
    assert report.library.reason.startswith("not a picture")


def test_explain_knows_a_file_that_its_owner_took_away(line: Line) -> None:
    file = sorted_file(line, "red-0.png")
    file.unlink()

    report = explain(line.config, file, no_word)

    assert (report.there, report.library.stands_there) == (False, False)
    assert report.clusters


def test_a_file_overwritten_in_place_is_not_taken_for_what_was_sorted(line: Line) -> None:
    file, other = sorted_file(line, "red-0.png"), sorted_file(line, "green-0.png")
    shutil.copy(other, file)

    report = explain(line.config, file, no_word)

    assert (report.changed, report.library.is_this_file) == (True, False)
    assert report.library.file == str(other)


def test_the_commands_load_the_model_for_a_strange_picture_and_say_so(tmp_path: Path) -> None:
    one = Inbox(tmp_path)
    line = Line(tmp_path, ColourExtractor(digest="auto"))
    paint_groups(line.config.inbox, 3)
    line.run()
    line.close()
    strange = str(paint(tmp_path / "strange.png", GREEN, 99))

    found = quick_cli("similar", one, strange, "-n", "3")
    told = quick_cli("explain", one, strange)
    as_json = json.loads(quick_cli("explain", one, strange, "--json").stdout)

    assert "the model was loaded for it" in found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == 3
    assert all("/green-" in text and text[1] == "." and text[5] == " " for text in lines)
    assert told.stdout.startswith(f"{strange}: not in the library\nit would go to cluster ")
    assert "nearest clusters:\n  0." in told.stdout
    assert (as_json["in_library"], as_json["model_loaded"]) == (False, True)


def test_features_of_another_model_are_not_compared(tmp_path: Path) -> None:
    one = Inbox(tmp_path)
    line = Line(tmp_path, ColourExtractor(digest="other"))
    paint_groups(line.config.inbox, 3)
    line.run()
    line.close()
    strange = str(paint(tmp_path / "strange.png", GREEN, 99))

    done = quick_cli("similar", one, strange)

    assert done.returncode == 78
    assert "distances between the two mean nothing" in done.stderr
