"""The sheet of a proposed refit: which pictures would move from where to where."""

from __future__ import annotations

from pathlib import Path

import pytest

from imgsortd.adapters.store import Store
from imgsortd.refit_changes import SHOWN_OF_A_GROUP, MoveGroup, RefitChanges, read_move_groups
from imgsortd.sheets import write_refit_sheet
from line import Line
from pages import PageText
from support import make_config, paint_groups


def propose(store: Store, changes: dict[bytes, tuple[int | None, int]]) -> int:
    """Keep a proposal that would move files, by name in the inbox, between clusters."""
    with store.atomic():
        (fit_id,) = store.connection.execute("SELECT max(id) FROM fits").fetchone()
        for src, (old, new) in changes.items():
            store.connection.execute(
                "INSERT INTO proposed_changes SELECT ?, id, ?, ? FROM files WHERE src = ?",
                (fit_id, old, new, src),
            )
    return int(fit_id)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, each=5)
    line.run()
    return line


def test_the_files_of_a_proposal_are_grouped_by_where_from_and_where_to(line: Line) -> None:
    with line.store.atomic():
        line.store.connection.execute("UPDATE clusters SET folder = ? WHERE id = 2", (b"Sk\xff",))
    moves: dict[bytes, tuple[int | None, int]] = {
        b"red-0.png": (1, 0),
        b"red-1.png": (0, 2),
        b"red-2.png": (0, 2),
        b"blue-0.png": (None, 2),
    }
    fit_id = propose(line.store, moves)

    groups = read_move_groups(line.store, fit_id)

    names = dict(line.store.connection.execute("SELECT src, dst FROM files").fetchall())
    assert [(group.old, group.new) for group in groups] == [
        ("cluster_0", "Sk\udcff"),
        ("cluster_1", "cluster_0"),
        ("_review", "Sk\udcff"),
    ]
    assert groups[0].names == (names[b"red-1.png"], names[b"red-2.png"])
    assert read_move_groups(line.store, fit_id + 1) == ()
    line.close()


def test_the_sheet_shows_the_largest_group_first_and_how_many_more(line: Line) -> None:
    names = tuple(
        str(path.relative_to(line.config.target)).encode()
        for path in sorted(line.config.target.glob("cluster_*/*"))
    )
    groups = (MoveGroup("cluster_1", "<b>new", names[:1]), MoveGroup("cluster_0", "B", names[1:]))
    changes = RefitChanges("Refit 12 <i>", ("cluster 3 splits into <3> and 9",), groups)

    report = write_refit_sheet(line.config, changes, line.config.state_dir / "refit.html")

    page = PageText.read(Path(report.file))
    assert page.text.index("from cluster_0 to B") < page.text.index("from cluster_1 to <b>new")
    assert "15 pictures would change folder" in page.text
    assert "14 pictures, 2 of them not shown" in page.text
    assert "cluster 3 splits into <3> and 9" in page.text
    assert len(page.images()) == SHOWN_OF_A_GROUP + 1
    assert {tag for tag, _ in page.tags} & {"i", "script"} == set()
    line.close()


def test_files_that_are_gone_by_now_are_counted_not_shown(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    changes = RefitChanges("Refit 1", (), (MoveGroup("a", "b", (b"a/gone.png",)),))

    report = write_refit_sheet(config, changes, tmp_path / "refit.html")

    assert (report.pictures, report.unread) == (0, 1)
    assert "None of them can be shown." in PageText.read(tmp_path / "refit.html").text


def test_a_refit_that_moves_nothing_says_so(tmp_path: Path) -> None:
    write_refit_sheet(
        make_config(tmp_path), RefitChanges("Refit 1", (), ()), tmp_path / "refit.html"
    )

    assert "No picture would change folder" in PageText.read(tmp_path / "refit.html").text


def test_the_sample_of_a_group_goes_from_its_first_file_to_its_last_part() -> None:
    names = tuple(b"%d" % number for number in range(120))

    sample = MoveGroup("a", "b", names).sample()

    assert sample == tuple(b"%d" % number for number in range(0, 120, 10))
    assert MoveGroup("a", "b", names[:5]).sample() == names[:5]
