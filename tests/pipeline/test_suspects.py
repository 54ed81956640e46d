"""A file that the process dies with is found out, and others are not suspected."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsortd.pipeline.suspects import Suspects
from imgsortd.records import Candidate, Stamp

BAD, GOOD = (Candidate(n, b"%d.jpg" % n, Stamp(n, 10, 10)) for n in (1, 2))


def test_each_death_while_a_file_is_read_counts(tmp_path: Path) -> None:
    for deaths in range(4):
        suspects = Suspects(tmp_path / "reading.json")
        assert suspects.deaths(BAD) == deaths

        suspects.begin([GOOD])
        suspects.end([GOOD])
        suspects.begin([BAD])  # and here the process dies

    assert Suspects(tmp_path / "reading.json").deaths(GOOD) == 0


def test_a_file_that_was_read_is_no_longer_suspected(tmp_path: Path) -> None:
    Suspects(tmp_path / "reading.json").begin([BAD, GOOD])
    second = Suspects(tmp_path / "reading.json")
    second.begin([GOOD])

    second.end([GOOD])

    third = Suspects(tmp_path / "reading.json")
    assert (third.deaths(BAD), third.deaths(GOOD)) == (1, 0)


def test_another_file_under_the_same_name_is_not_suspected(tmp_path: Path) -> None:
    Suspects(tmp_path / "reading.json").begin([BAD])

    other = Candidate(BAD.file_id, BAD.name, Stamp(7, 10, 11))

    assert Suspects(tmp_path / "reading.json").deaths(other) == 0


def test_an_end_of_its_own_will_suspects_nobody(tmp_path: Path) -> None:
    Suspects(tmp_path / "reading.json").begin([BAD])
    second = Suspects(tmp_path / "reading.json")
    second.begin([GOOD])

    second.close()

    third = Suspects(tmp_path / "reading.json")
    assert (third.deaths(BAD), third.deaths(GOOD)) == (0, 0)


@pytest.mark.parametrize("text", ["", "[]", '{"1 1 10 10": "x"}', "\xff"])
def test_a_damaged_note_suspects_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "reading.json").write_text(text, encoding="latin-1")

    assert Suspects(tmp_path / "reading.json").deaths(BAD) == 0


def test_a_note_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    Suspects(tmp_path / "file" / "reading.json").begin([BAD])


def test_what_a_kill_leaves_of_the_note_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".reading.json.part").write_text("cut off")

    Suspects(tmp_path / "reading.json").begin([BAD])

    assert [path.name for path in tmp_path.iterdir()] == ["reading.json"]
    assert Suspects(tmp_path / "reading.json").deaths(BAD) == 1
