"""From the inbox to the folders: nothing is lost, nothing is done twice, the counts add up."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgsortd.clusters.fit import compute_fit
from imgsortd.errors import MixedFeaturesError
from imgsortd.records import FileState, NotRead, Picture, Skipped
from line import Line, files_below
from mounts import folder_in_memory
from support import (
    BLUE,
    GREEN,
    RED,
    ColourExtractor,
    adoption_of,
    make_library,
    paint_groups,
    process_batch,
    source_of,
    sums,
    tree,
)

MakeLine = Callable[..., Line]


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[MakeLine]:
    lines: list[Line] = []

    def make(**changes: Any) -> Line:
        lines.append(Line(tmp_path, **changes))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


def picture(colour: tuple[int, int, int], seed: int = 0) -> bytes:
    """Return a small noisy PNG; each colour and seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(-20, 21, (8, 8, 3))
    pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def folder_of(line: Line, name: str) -> str:
    """Return the folder under target that holds a file of this name."""
    return next(path.parent.name for path in line.config.target.rglob(name))


def sort_three_colours(line: Line) -> None:
    """Put six pictures of each colour in, and sort them."""
    paint_groups(line.config.inbox, 6)
    line.run()


def test_three_colours_become_three_clusters(make_line: MakeLine) -> None:
    line = make_line()

    sort_three_colours(line)

    assert os.listdir(line.config.inbox) == []
    assert sorted(map(tuple, tree(line.config.target).values())) == [
        tuple(f"{colour}-{number}.png" for number in range(6))
        for colour in ("blue", "green", "red")
    ]
    assert set(tree(line.config.target)) == {"cluster_0", "cluster_1", "cluster_2"}
    assert line.counts() == {"seen": 18, "sorted": 18}


def test_before_the_first_fit_files_wait_in_the_inbox_with_their_features_stored(
    make_line: MakeLine,
) -> None:
    line = make_line(clusters={"n_clusters": 3, "min_images": 19})
    paint_groups(line.config.inbox, 6)

    line.run()

    assert len(os.listdir(line.config.inbox)) == 18
    assert tree(line.config.target) == {}
    assert line.counts() == {"seen": 18, "pending": 18}
    assert line.store.fits.count_features() == 18


def test_after_a_restart_what_waited_is_sorted_without_being_read_or_extracted_again(
    make_line: MakeLine,
) -> None:
    line = make_line(clusters={"n_clusters": 3, "min_images": 7})
    paint_groups(line.config.inbox, 2)
    line.run()

    line.restart()
    assert line.read() == []
    line.put("red-new.png", picture(RED))
    line.run()

    assert line.extractor.extracted == 7
    assert line.counts() == {"seen": 7, "sorted": 7}


def test_a_restart_sorts_nothing_twice(make_line: MakeLine) -> None:
    line = make_line(op="copy")
    sort_three_colours(line)
    before = line.files()

    line.restart()
    line.run()

    assert line.files() == before
    assert line.extractor.extracted == 18
    assert line.counts() == {"seen": 18, "sorted": 18}


@pytest.mark.parametrize("op", ["copy", "hardlink", "symlink"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_touch_or_chmod_of_files_that_stay_in_the_inbox_changes_nothing(
    make_line: MakeLine, op: str, restarted: bool
) -> None:
    line = make_line(op=op)
    line.put("again/red-0.png", picture(RED, 99))
    line.put("red-0.png", picture(RED, 99))  # the same bytes twice: sorted both
    line.put("broken.jpg", b"no picture")
    sort_three_colours(line)
    before, counts = line.files(), line.counts()

    for path in line.config.inbox.rglob("*.*"):
        os.utime(path, (1, 1))
        path.chmod(0o640)
    if restarted:
        line.restart()
    line.run()

    assert line.files() == before
    assert line.counts() == counts
    assert line.read() == []


def test_a_touched_file_that_was_left_as_a_duplicate_is_counted_once(make_line: MakeLine) -> None:
    line = make_line(duplicates="skip")
    sort_three_colours(line)
    stays = line.put("twin.png", (line.config.target / line_path(line, "red-0.png")).read_bytes())
    line.run()

    os.utime(stays, (1, 1))
    line.restart()
    line.run()

    assert os.listdir(line.config.inbox) == ["twin.png"]
    assert line.counts() == {"seen": 19, "sorted": 18, "duplicates": 1}


def line_path(line: Line, name: str) -> str:
    """Return the name relative to target of the file called ``name``."""
    return f"{folder_of(line, name)}/{name}"


@pytest.mark.parametrize(
    ("policy", "in_inbox", "state", "folder"),
    [
        ("keep", [], {"duplicates": 1}, "its cluster"),
        ("set_aside", [], {"duplicates": 1}, "_set_aside"),
        ("skip", ["twin.png"], {"duplicates": 1}, None),
    ],
)
def test_a_duplicate_is_kept_set_aside_or_skipped_as_configured(
    make_line: MakeLine, policy: str, in_inbox: list[str], state: dict[str, int], folder: str | None
) -> None:
    line = make_line(duplicates=policy)
    sort_three_colours(line)
    line.put("twin.png", line.files()[line_path(line, "red-0.png")])

    line.run()

    assert os.listdir(line.config.inbox) == in_inbox
    assert line.counts() == {"seen": 19, "sorted": 18, **state}
    assert line.extractor.extracted == 18
    found = [name for name in line.files() if name.endswith("/twin.png")]
    expected = folder_of(line, "red-0.png") if folder == "its cluster" else folder
    assert found == ([] if folder is None else [f"{expected}/twin.png"])


def test_the_reason_of_a_duplicate_names_its_original_also_where_it_is_not_utf_8(
    make_line: MakeLine,
) -> None:
    line = make_line(duplicates="set_aside")
    sort_three_colours(line)
    line.put(b"r\xf6t.png", picture(RED, 50))
    line.run()

    line.put(b"twin.png", picture(RED, 50))
    line.run()

    found = line.store.files.with_state(FileState.DUPLICATE, 9)
    red = folder_of(line, "red-0.png")
    assert found == [(b"twin.png", b"_set_aside/twin.png", f"same bytes as {red}/r\\udcf6t.png")]


def test_another_file_of_the_same_name_gets_a_number_and_overwrites_nothing(
    make_line: MakeLine,
) -> None:
    line = make_line()
    sort_three_colours(line)
    red = folder_of(line, "red-0.png")
    first = line.files()[f"{red}/red-0.png"]

    line.put("red-0.png", picture(RED, 77))
    line.put("deep/red-0.png", picture(RED, 78))
    line.run()

    files = line.files()
    assert files[f"{red}/red-0.png"] == first
    assert {files[f"{red}/red-0-1.png"], files[f"{red}/red-0-2.png"]} == {
        picture(RED, 77),
        picture(RED, 78),
    }
    assert line.counts() == {"seen": 20, "sorted": 20}


def test_a_batch_of_nothing_but_broken_files_is_set_aside_with_reasons(make_line: MakeLine) -> None:
    line = make_line()
    broken = {f"{number}.jpg": b"no picture %d" % number for number in range(3)}
    for name, data in broken.items():
        line.put(name, data)

    [report] = [report for report in line.run() if report.images]

    assert line.files() == {f"_set_aside/{name}": data for name, data in broken.items()}
    assert line.counts() == {"seen": 3, "set_aside": 3}
    assert dict(report.set_aside_reasons) == {
        name.encode(): "not a picture: it begins like text" for name in broken
    }


def test_one_broken_file_does_not_hold_up_the_others(make_line: MakeLine) -> None:
    line = make_line()
    line.put("broken.png", picture(RED)[:50])

    sort_three_colours(line)

    assert os.listdir(line.config.inbox) == []
    assert line.counts() == {"seen": 19, "sorted": 18, "set_aside": 1}


def test_a_file_that_vanishes_while_queued_is_gone_and_its_name_can_come_again(
    make_line: MakeLine,
) -> None:
    line = make_line()
    sort_three_colours(line)
    file = line.put("new.png", picture(RED, 90))
    line.intake.scan(line.now_s)
    line.intake.settle(line.now_s)
    file.unlink()
    report = line.process([line.reader.read(line.intake.queue.popleft())])

    line.put("new.png", picture(BLUE, 91))
    line.run()

    assert report.gone == 1
    assert folder_of(line, "new.png") == folder_of(line, "blue-0.png")
    assert line.counts() == {"seen": 19, "sorted": 19}


def test_a_file_taken_away_after_it_was_read_is_gone_and_may_come_back(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    file = line.put("new.png", picture(RED, 90))
    results = line.read()
    elsewhere = file.rename(line.config.state_dir / "new.png")
    report = line.process(results)
    counts = line.counts()

    elsewhere.rename(file)  # the very same file: same inode, size and times
    line.intake.hint([b"new.png"], line.now_s)
    line.run()

    assert report.gone == 1
    assert counts == {"seen": 18, "sorted": 18}
    assert line.counts() == {"seen": 19, "sorted": 19}


def test_a_file_changed_after_it_was_read_is_read_again_and_sorted_as_it_is_now(
    make_line: MakeLine,
) -> None:
    line = make_line()
    sort_three_colours(line)
    line.put("new.png", picture(RED, 90))
    results = line.read()
    line.put("new.png", picture(BLUE, 91))

    report = line.process(results)
    line.run()

    assert report.look_again == (b"new.png",)
    assert line.files()[f"{folder_of(line, 'blue-0.png')}/new.png"] == picture(BLUE, 91)
    assert line.counts() == {"seen": 19, "sorted": 19}


def test_a_file_that_may_not_be_read_stays_and_is_tried_again(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    line.put("new.png", picture(RED, 90))
    [result] = line.read()
    denied = Skipped(result.candidate, NotRead.DENIED, "Permission denied")

    report = line.process([denied])
    counts = line.counts()
    line.run()

    assert report.errors == ("cannot read 'new.png': Permission denied",)
    assert counts == {"seen": 19, "sorted": 18, "pending": 1}
    assert line.counts() == {"seen": 19, "sorted": 19}


def test_a_move_that_fails_stays_open_and_is_made_when_it_can_be(make_line: MakeLine) -> None:
    line = make_line()
    line.put(b"\xff.jpg", b"no picture")
    in_the_way = line.config.target / "_set_aside"
    in_the_way.write_text("a file where the folder belongs")

    [report] = [report for report in line.run() if report.images]
    counts, [(name, error)] = line.counts(), line.store.journal.open_errors()
    in_the_way.unlink()
    line.restart()
    line.run()

    assert "'\\udcff.jpg': " in report.errors[0]
    assert "Not a directory" in report.errors[0]
    assert counts == {"seen": 1, "pending": 1}
    assert name == b"\xff.jpg"
    assert "_set_aside/\\udcff.jpg" in error  # escaped: SQLite refuses half a character
    assert line.counts() == {"seen": 1, "set_aside": 1}


def test_a_new_file_under_the_name_of_an_open_move_is_a_file_of_its_own(
    make_line: MakeLine,
) -> None:
    line = make_line()
    line.put("a.jpg", b"no picture")
    in_the_way = line.config.target / "_set_aside"
    in_the_way.write_text("a file where the folder belongs")
    line.run()

    line.put("a.jpg", b"another, no picture neither")
    assert line.read() == []  # not before the open move has ended
    in_the_way.unlink()
    line.run()

    assert line.files() == {"_set_aside/a.jpg": b"another, no picture neither"}
    assert line.counts() == {"seen": 1, "set_aside": 1}
    assert line.store.journal.unfinished() == []


def test_a_sorted_file_that_its_owner_brings_back_is_sorted_again(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    stands = line.config.target / line_path(line, "red-0.png")

    stands.rename(line.config.inbox / "red-0.png")
    line.restart()
    line.run()

    assert stands.is_file()
    assert line.extractor.extracted == 18
    assert line.counts() == {"seen": 18, "sorted": 18}


def test_a_folder_in_the_inbox_named_like_a_cluster_is_sorted_like_any_other(
    make_line: MakeLine,
) -> None:
    line = make_line(op="copy")
    sort_three_colours(line)
    red = line_path(line, "red-0.png")

    line.put(red, line.files()[red])  # inbox/cluster_N/red-0.png, a duplicate
    line.run()

    assert line.counts() == {"seen": 19, "sorted": 18, "duplicates": 1}
    assert line.store.files.count_waiting() == 0


def test_a_file_edited_into_a_sorted_one_and_back_is_still_the_sorted_one(
    make_line: MakeLine,
) -> None:
    line = make_line(op="copy")
    sort_three_colours(line)
    original = (line.config.inbox / "red-0.png").read_bytes()
    line.put("red-0.png", picture(RED, 60))
    results = line.read()
    line.put("red-0.png", original)

    report = line.process(results)
    line.run()

    assert report.look_again == (b"red-0.png",)
    assert line.counts() == {"seen": 18, "sorted": 18}
    assert len(line.files()) == 18


def test_a_refit_with_another_seed_keeps_every_cluster_its_number(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    before = {name: folder_of(line, f"{name}-0.png") for name in ("red", "green", "blue")}

    summaries = [line.fit(random_state=seed) for seed in range(5)]
    for name, colour in (("red", RED), ("green", GREEN), ("blue", BLUE)):
        line.put(f"{name}-late.png", picture(colour, 70))
    line.run()

    assert {name: folder_of(line, f"{name}-late.png") for name in before} == before
    assert [(s.kept_ids, s.new_ids, s.retired_ids, s.churn) for s in summaries] == [
        (3, [], [], 0.0)
    ] * 5


def test_a_number_that_was_given_up_is_never_given_again(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)

    line.refit(2)
    more = line.fit(n_clusters=4)

    model = line.library.in_force.model
    assert len(set(model.cluster_ids) & {0, 1, 2}) == 2
    assert more.new_ids == [3, 4]


def test_pictures_that_stay_in_the_folder_of_a_cluster_given_up_are_that_cluster_again(
    make_line: MakeLine,
) -> None:
    line = make_line()
    sort_three_colours(line)

    fewer, again = line.fit(n_clusters=2), line.fit(n_clusters=3)

    assert len(fewer.retired_ids) == 1
    assert again.new_ids == fewer.retired_ids
    assert set(line.library.in_force.model.cluster_ids) == {0, 1, 2}


def test_a_dry_fit_changes_nothing(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    model, record = line.library.in_force.model, line.store.fits.current_record()

    fitted = compute_fit(source_of(line.library), 5, 0)
    summary = adoption_of(line.library).adopt(fitted, record.trigger, dry_run=True)

    assert summary.n_clusters == 5
    assert line.library.in_force.model is model
    assert line.store.fits.current_record() == record


@pytest.mark.parametrize("op", ["move", "copy"])
def test_files_that_follow_a_refit_stand_in_the_cluster_they_now_lie_in(
    make_line: MakeLine, op: str
) -> None:
    line = make_line(op=op, clusters={"n_clusters": 1, "min_images": 6})
    paint_groups(line.config.inbox, 4)
    line.run()
    assert set(tree(line.config.target)) == {"cluster_0"}
    before = sums(line.config.target)
    taken = next((line.config.target / "cluster_0").glob("green-0.png"))
    taken.unlink()  # its owner deleted it: respected

    report = line.refit(3)
    line.restart()
    line.run()

    found = [files for files in tree(line.config.target).values() if files]
    assert sorted(found) == [
        [f"{colour}-{n}.png" for n in range(4) if f"{colour}-{n}" != "green-0"]
        for colour in ("blue", "green", "red")
    ]
    assert not report.errors
    assert sum(sums(line.config.target).values()) == sum(before.values()) - 1
    assert line.counts() == {"seen": 12, "sorted": 12}
    handled = dict(line.store.files.handled())
    assert len(handled) == (12 if op == "copy" else 0)


def test_features_of_another_extractor_are_refused_not_mixed(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)

    with pytest.raises(
        MixedFeaturesError,
        match=r"fitted on pool5 features of weights colour.*"
        r"now gives pool5 features of weights other.* new state_dir",
    ) as caught:
        make_library(line.config, ColourExtractor("other"))

    assert caught.value.exit_code == 78


def test_before_the_first_fit_another_extractor_reads_what_waits_again(make_line: MakeLine) -> None:
    line = make_line(clusters={"n_clusters": 3, "min_images": 18})
    paint_groups(line.config.inbox, 5)
    line.run()

    line.extractor = ColourExtractor("other")
    line.restart()
    line.run()

    assert line.extractor.extracted == 15
    assert line.counts() == {"seen": 15, "pending": 15}


def test_bytes_seen_twice_in_one_batch_are_extracted_once(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)
    line.put("a.png", picture(RED, 80))
    line.put("b.png", picture(RED, 80))

    [report] = [report for report in line.run() if report.images]

    assert (report.images, report.extracted, report.sorted, report.duplicates) == (2, 1, 1, 1)


def test_planned_moves_are_finished_once_after_a_restart(
    make_line: MakeLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = make_line()
    sort_three_colours(line)
    line.put("late.png", picture(RED, 80))
    results = line.read()
    assert isinstance(results[0], Picture)
    mover = line.library.mover
    monkeypatch.setattr(mover, "apply", lambda moves, *, again=False: [])  # it dies before
    process_batch(line.library, results)
    assert mover.exists(b"cluster_0/late.png") is False

    line.restart()
    first, second = line.library.moves.recover(), line.library.moves.recover()

    assert (first.images, first.sorted, second.images) == (1, 1, 0)
    assert line.counts() == {"seen": 19, "sorted": 19}


def test_routing_what_waits_ends_where_nothing_waits(make_line: MakeLine) -> None:
    line = make_line()
    sort_three_colours(line)

    first, again = line.straight.route_waiting(), line.straight.route_waiting()
    assert first == replace(again, total_s=ANY)


class _Any:
    def __eq__(self, other: object) -> bool:
        return True


ANY: Any = _Any()

CONTENTS = [
    *(picture(colour, seed) for colour in (RED, GREEN, BLUE) for seed in (1, 2)),
    b"",
    b"no picture",
    picture(RED, 3)[:60],
]
NAMES = [b"a.png", b"a-1.png", b"b.jpg", b"deep/a.png", b"cluster_0/a.png", b"\xff\n\x1b.png"]
ROUNDS = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*CONTENTS, None]), max_size=5),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25)
@given(
    rounds=ROUNDS,
    op=st.sampled_from(["move", "copy", "hardlink"]),
    duplicates=st.sampled_from(["keep", "set_aside", "skip"]),
    restarts=st.booleans(),
)
def test_no_picture_is_lost_whatever_comes(
    rounds: list[dict[bytes, bytes | None]], op: str, duplicates: str, restarts: bool
) -> None:
    with folder_in_memory() as folder:
        line = Line(
            folder,
            op=op,
            duplicates=duplicates,
            clusters={"n_clusters": 2, "min_images": 3},
        )
        inbox, target = line.config.inbox, line.config.target
        for files in rounds:
            for name, data in files.items():
                if data is not None:
                    line.put(name, data)
                else:
                    Path(os.fsdecode(os.fsencode(inbox) + b"/" + name)).unlink(missing_ok=True)
            before, sorted_before = files_below(inbox), files_below(target)
            contents = Counter([*before.values(), *sorted_before.values()])
            if restarts:
                line.restart()

            line.run()

            after, sorted_after = files_below(inbox), files_below(target)
            assert sorted_before.items() <= sorted_after.items()
            if op == "move":
                assert Counter([*after.values(), *sorted_after.values()]) == contents
            else:
                assert after == before
                if duplicates != "skip" and line.library.in_force.model:
                    assert set(before.values()) <= set(sorted_after.values())
            line.run()
            assert (files_below(inbox), files_below(target)) == (after, sorted_after)
        line.close()
