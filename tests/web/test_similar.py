"""What is known of one picture, and the pictures most like it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgsortd.errors import FindError
from imgsortd.web.similar import MOST_PICTURES, find_similar, read_picture
from line import Line
from support import make_config, make_library, paint_groups
from web_asking import told


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted three pictures of each of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.run()
    yield line
    line.close()


def sql(line: Line, statement: str, *values: object) -> list[Any]:
    with line.store.atomic():
        return line.store.connection.execute(statement, values).fetchall()


def id_of(line: Line, src: bytes) -> int:
    return int(sql(line, "SELECT id FROM files WHERE src = ?", src)[0][0])


def names(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found["pictures"]]


def test_a_picture_is_told_with_where_it_stands_and_why(line: Line) -> None:
    file_id = id_of(line, b"red-0.png")
    sql(line, "UPDATE clusters SET folder = ? WHERE id = "
              "(SELECT cluster_id FROM files WHERE id = ?)", b"Re\xff", file_id)  # fmt: skip
    sql(line, "UPDATE files SET dst = ?, reason = 'so' WHERE id = ?", b"Re\xff/red-0.png", file_id)
    sql(line, "INSERT INTO pins SELECT sha256, cluster_id, 1 FROM files WHERE id = ?", file_id)
    sql(line, "INSERT OR REPLACE INTO picture_hashes SELECT sha256, x'00', 640, 480 FROM files "
              "WHERE id = ?", file_id)  # fmt: skip

    found = told(read_picture(line.config, line.store, file_id))

    ((sha256, cluster, distance, seen_at, size_bytes),) = sql(
        line,
        "SELECT sha256, cluster_id, distance, seen_at, size_bytes FROM files WHERE id = ?",
        file_id,
    )
    assert found == {
        "id": file_id,
        "key": sha256.hex()[:8],
        "w": 640,
        "h": 480,
        "name": "red-0.png",
        "file": f"{line.config.target}/Re?/red-0.png",
        "cluster": cluster,
        "name_of_cluster": "Re?",
        "folder": "Re?",
        "state": "sorted",
        "pinned": True,
        "seen_at": seen_at,
        "distance": pytest.approx(distance, abs=1e-4),
        "reason": "so",
        "size_bytes": size_bytes,
    }
    json.dumps(found, ensure_ascii=False).encode()


def test_a_picture_that_waits_stands_in_the_inbox(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 1)
    line.run()

    found = told(read_picture(line.config, line.store, 1))
    line.close()

    assert (found["state"], found["folder"], found["cluster"]) == ("pending", None, None)
    assert found["file"].startswith(f"{line.config.inbox}/")


def test_the_pictures_most_like_one_come_nearest_first_without_itself(line: Line) -> None:
    file_id = id_of(line, b"red-0.png")

    found = told(find_similar(line.config, line.store, file_id, 4))

    distances = [one["distance"] for one in found["pictures"]]
    assert set(names(found)[:2]) == {"red-1.png", "red-2.png"}
    assert distances == sorted(distances)
    assert (len(distances), found["compared"]) == (4, 9)
    assert found["of"] == told(read_picture(line.config, line.store, file_id))
    cluster = found["of"]["cluster"]
    assert [(one["cluster"], one["folder"]) for one in found["pictures"][:2]] == [
        (cluster, f"cluster_{cluster}")
    ] * 2
    json.dumps(found, ensure_ascii=False).encode()


def test_distances_are_those_between_the_stored_features(line: Line) -> None:
    rows = dict(sql(line, "SELECT id, sha256 FROM files"))
    features = line.store.fits.get_features(line.extractor.id, list(rows.values()))
    file_id = id_of(line, b"blue-1.png")

    found = told(find_similar(line.config, line.store, file_id, 8))

    expected = {
        number: float(np.linalg.norm(features[sha256] - features[rows[file_id]]))
        for number, sha256 in rows.items()
        if number != file_id
    }
    assert {one["id"]: one["distance"] for one in found["pictures"]} == pytest.approx(
        expected, abs=1e-4
    )


def test_a_copy_byte_for_byte_is_said_to_be_one(line: Line) -> None:
    standing = next(line.config.target.rglob("green-0.png"))
    line.put("twin.png", standing.read_bytes())
    line.run()

    found = told(find_similar(line.config, line.store, id_of(line, b"green-0.png"), 2))

    assert [(one["name"], one["same_bytes"], one["distance"]) for one in found["pictures"]][:1] == [
        ("twin.png", True, 0.0)
    ]
    assert not found["pictures"][1]["same_bytes"]


def test_what_its_owner_took_away_is_not_among_them(line: Line) -> None:
    next(line.config.target.rglob("red-1.png")).unlink()

    found = told(find_similar(line.config, line.store, id_of(line, b"red-0.png"), 20))

    assert "red-1.png" not in names(found)
    assert len(names(found)) == 7


@pytest.mark.parametrize(("count", "pictures"), [(-1, 1), (0, 1), (MOST_PICTURES + 1, 8)])
def test_a_count_out_of_range_is_brought_into_it(line: Line, count: int, pictures: int) -> None:
    found = told(find_similar(line.config, line.store, id_of(line, b"red-0.png"), count))

    assert len(found["pictures"]) == pictures


@pytest.mark.parametrize("ask", [read_picture, find_similar])
def test_a_picture_that_is_not_there_is_told(line: Line, ask: Any) -> None:
    gone = id_of(line, b"red-0.png")
    sql(line, "UPDATE files SET state = 'gone', reason = 'taken away' WHERE id = ?", gone)

    with pytest.raises(FindError, match="there is no picture 777"):
        ask(line.config, line.store, 777)
    with pytest.raises(FindError, match=f"picture {gone} is no longer in the library: taken away"):
        ask(line.config, line.store, gone)


def test_without_its_features_nothing_can_be_compared(line: Line) -> None:
    line.put("broken.jpg", b"no picture")
    line.run()

    with pytest.raises(FindError, match="no features of it are stored"):
        find_similar(line.config, line.store, id_of(line, b"broken.jpg"))


def test_before_the_first_picture_was_read_nothing_can_be_compared(tmp_path: Path) -> None:
    _, store = make_library(make_config(tmp_path))
    with store.atomic():
        store.connection.execute(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, seen_at) "
            "VALUES (x'61', 1, 1, 1, 0)"
        )

    with pytest.raises(FindError, match="no picture was read yet"):
        find_similar(make_config(tmp_path), store, 1)
    store.close()
