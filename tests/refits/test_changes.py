"""The sheet of a proposed refit: which pictures would move from where to where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from imgsortd.refits.changes import (
    SHOWN_OF_A_GROUP,
    Change,
    ChangedGroup,
    ClusterChange,
    RefitChanges,
    change_line,
    move_groups,
)
from imgsortd.reports.sheet_files import write_refit_sheet
from imgsortd.store.database import Store
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
        store.connection.execute("UPDATE fits SET state = 'proposed' WHERE id = ?", (fit_id,))
    return int(fit_id)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, each=5)
    line.run()
    return line


def group_of(old: bytes, new: bytes, files: Sequence[bytes]) -> ChangedGroup:
    return ChangedGroup(1, 2, old, new, tuple(files), len(files))


def cluster_of(line: Line, src: bytes) -> int:
    (row,) = line.store.connection.execute("SELECT cluster_id FROM files WHERE src = ?", (src,))
    return int(row[0])


def test_the_files_of_a_proposal_are_grouped_by_where_from_and_where_to(line: Line) -> None:
    red, green, blue = (cluster_of(line, b"%s-0.png" % c) for c in (b"red", b"green", b"blue"))
    with line.store.atomic():
        line.store.connection.execute(
            "UPDATE clusters SET folder = ? WHERE id = ?", (b"Sk\xff", blue)
        )
        line.store.connection.execute(
            "UPDATE files SET state = 'review', cluster_id = NULL WHERE src = ?", (b"green-4.png",)
        )
    fit_id = propose(
        line.store,
        {
            b"green-0.png": (green, red),
            b"red-1.png": (red, blue),
            b"red-2.png": (red, blue),
            b"green-4.png": (None, blue),
        },
    )

    groups = move_groups(line.config, fit_id)

    names = dict(line.store.connection.execute("SELECT src, dst FROM files").fetchall())
    assert {(group.old_folder, group.new_folder) for group in groups[1:]} == {
        (b"cluster_%d" % green, b"cluster_%d" % red),
        (b"_review", b"Sk\xff"),
    }
    assert (groups[0].old_folder, groups[0].new_folder) == (b"cluster_%d" % red, b"Sk\xff")
    assert groups[0].files == (names[b"red-1.png"], names[b"red-2.png"])
    line.close()


def test_a_file_that_has_left_its_folder_since_would_not_move(line: Line) -> None:
    red, green = cluster_of(line, b"red-0.png"), cluster_of(line, b"green-0.png")
    fit_id = propose(
        line.store,
        {b"red-0.png": (red, green), b"red-1.png": (red, green), b"red-2.png": (red, green)},
    )
    with line.store.atomic():
        line.store.connection.execute(
            "UPDATE files SET cluster_id = ? WHERE src = ?", (green, b"red-0.png")
        )
        line.store.connection.execute(
            "INSERT INTO pins SELECT sha256, ?, 0 FROM files WHERE src = ?", (red, b"red-1.png")
        )

    groups = move_groups(line.config, fit_id)

    (name,) = line.store.connection.execute("SELECT dst FROM files WHERE src = ?", (b"red-2.png",))
    assert [group.files for group in groups] == [name]
    line.close()


def test_a_fit_that_is_in_force_would_move_nothing_any_more(line: Line) -> None:
    red, green = cluster_of(line, b"red-0.png"), cluster_of(line, b"green-0.png")
    fit_id = propose(line.store, {b"red-0.png": (red, green)})
    with line.store.atomic():
        line.store.connection.execute("UPDATE fits SET state = 'adopted'")

    assert move_groups(line.config, fit_id) == []
    line.close()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (ClusterChange(3, Change.APPEARS, 0, 1200), "C3 appears with 1,200 pictures"),
        (
            ClusterChange(3, Change.APPEARS, 0, 52, from_review=50),
            "C3 appears with 52 pictures, 50 of them from review",
        ),
        (
            ClusterChange(3, Change.APPEARS, 0, 1200, from_review=1200),
            "C3 appears with 1,200 pictures, all of them from review",
        ),
        (ClusterChange(3, Change.VANISHES, 7, 0), "C3 vanishes, with 7 pictures before"),
        (
            ClusterChange(3, Change.SPLITS, 9, 5, ((3, 5), (8, 4))),
            "C3 splits into C3 (5), C8 (4)",
        ),
        (
            ClusterChange(3, Change.MERGES, 9, 15, ((3, 9), (8, 6))),
            "C3 is merged from C3 (9), C8 (6)",
        ),
        (ClusterChange(3, Change.GROWS, 9, 15), "C3 grows from 9 to 15"),
        (
            ClusterChange(3, Change.GROWS, 9, 15, from_review=4),
            "C3 grows from 9 to 15, 4 of them from review",
        ),
        (ClusterChange(3, Change.SHRINKS, 15, 9), "C3 shrinks from 15 to 9"),
        (ClusterChange(3, Change.SWAPS, 9, 9), "C3 keeps 9 pictures, not all the same"),
    ],
    ids=lambda value: str(value.change) if isinstance(value, ClusterChange) else "",
)
def test_each_change_is_said_in_a_line(change: ClusterChange, line: str) -> None:
    assert change_line(change, lambda number: f"C{number}") == line
    assert change_line(change) == line.replace("C", "cluster_")


def test_the_sheet_shows_the_largest_group_first_and_how_many_more(line: Line) -> None:
    names = tuple(
        str(path.relative_to(line.config.target)).encode()
        for path in sorted(line.config.target.glob("cluster_*/*"))
    )
    groups = [group_of(b"cluster_1", b"<b>new", names[:1]), group_of(b"cluster_0", b"B", names[1:])]
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
    changes = RefitChanges("Refit 1", (), [group_of(b"a", b"b", [b"a/gone.png"])])

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

    sample = group_of(b"a", b"b", names).sample()

    assert sample == tuple(b"%d" % number for number in range(0, 120, 10))
    assert group_of(b"a", b"b", names[:5]).sample() == names[:5]
