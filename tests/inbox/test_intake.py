"""Hints and scans become settled files, each once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsortd.config.model import DEFAULT_IGNORE, Config
from imgsortd.errors import WatchError
from imgsortd.inbox.companions import Companions
from imgsortd.inbox.intake import Intake
from imgsortd.inbox.listing import Inbox
from imgsortd.moves.roots import Roots
from imgsortd.records import Arrivals, BatchReport
from imgsortd.store.database import Store, open_for_writing
from support import whereabouts_of

SETTLE_S = 2.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_for_writing(tmp_path / "state" / "imgsortd.db")
    yield store
    store.close()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def make_intake(inbox: Path, store: Store) -> Intake:
    config = Config(inbox=inbox, target=inbox.with_name("target"), state_dir=store.path.parent)
    roots = Roots(config, store, lambda: None)
    where, companions = whereabouts_of(roots, inbox), Companions(config, store)
    return Intake(Inbox(inbox, True, DEFAULT_IGNORE, "auto"), store, where, companions, SETTLE_S)


@pytest.fixture
def intake(inbox: Path, store: Store) -> Intake:
    return make_intake(inbox, store)


def queued(intake: Intake) -> list[bytes]:
    return [candidate.name for candidate in intake.queue]


def take(intake: Intake) -> list[bytes]:
    """Take all that is queued and let it be stored."""
    taken = list(intake.queue)
    intake.queue.clear()
    intake.done(taken, [], 0.0)
    return [candidate.name for candidate in taken]


def test_a_file_is_queued_once_when_it_has_been_quiet(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.hint([b"a.jpg"], 0.0)
    intake.scan(1.0)

    early = intake.settle(1.9)
    late = intake.settle(2.0)
    intake.hint([b"a.jpg"], 2.1)
    intake.scan(3.0)
    again = intake.settle(99.0)

    assert (early, late, again) == (0, 1, 0)
    assert queued(intake) == [b"a.jpg"]


def test_a_flood_of_files_is_queued_in_portions_and_whole(inbox: Path, intake: Intake) -> None:
    for number in range(5):
        (inbox / f"{number}.jpg").write_bytes(b"x")
    intake.scan(0.0)

    portions = [intake.settle(10.0, at_most=2) for _ in range(4)]

    assert portions == [2, 2, 1, 0]
    assert sorted(queued(intake)) == [b"%d.jpg" % number for number in range(5)]


def test_a_file_that_grew_without_an_event_waits_again(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    (inbox / "a.jpg").write_bytes(b"longer")

    assert intake.settle(2.0) == 0
    assert intake.settle(3.9) == 0
    assert intake.settle(4.0) == 1


def test_a_file_that_goes_before_it_settles_leaves_no_trace(
    inbox: Path, intake: Intake, store: Store
) -> None:
    (inbox / "a.jpg").touch()
    intake.scan(0.0)
    (inbox / "a.jpg").unlink()

    assert intake.settle(99.0) == 0
    assert len(intake.tracker) == 0
    assert store.files.counts().seen == 0


def test_what_is_no_picture_by_name_nor_by_content_is_left_alone_and_not_counted(
    inbox: Path, intake: Intake, store: Store
) -> None:
    (inbox / "notes.txt").write_text("text")
    (inbox / "photo").write_bytes(b"\xff\xd8\xff\xe0")
    intake.scan(0.0)

    intake.settle(2.0)
    intake.scan(3.0)
    intake.settle(99.0)

    assert queued(intake) == [b"photo"]
    assert store.files.counts().seen == 1


def test_a_pending_file_that_its_owner_took_away_is_gone_at_the_next_scan(
    inbox: Path, intake: Intake, store: Store
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    take(intake)
    before = store.files.counts().pending
    (inbox / "a.jpg").unlink()

    intake.scan(3.0)

    assert (before, store.files.counts().seen) == (1, 0)


def test_nothing_is_taken_for_gone_when_the_inbox_itself_is(
    inbox: Path, intake: Intake, store: Store
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    take(intake)
    inbox.rename(inbox.with_name("away"))

    with pytest.raises(WatchError, match="cannot be listed"):
        intake.scan(3.0)

    assert store.files.counts().pending == 1


def test_after_a_restart_only_files_without_a_hash_are_queued(
    inbox: Path, intake: Intake, store: Store
) -> None:
    for name in ("read.jpg", "unread.jpg"):
        (inbox / name).write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    [read] = [candidate for candidate in intake.queue if candidate.name == b"read.jpg"]
    with store.atomic():
        store.files.set_read(read, bytes(32))

    restarted = make_intake(inbox, store)
    restarted.scan(0.0)
    restarted.settle(2.0)

    assert queued(restarted) == [b"unread.jpg"]
    assert store.files.counts().pending == 2


def test_a_waiting_file_is_read_again_when_its_bytes_change_but_not_when_only_its_mode_does(
    inbox: Path, intake: Intake
) -> None:
    for name in ("edited.jpg", "chmod.jpg"):
        (inbox / name).write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    take(intake)

    (inbox / "edited.jpg").write_bytes(b"longer")
    (inbox / "chmod.jpg").chmod(0o600)
    intake.hint([b"edited.jpg", b"chmod.jpg"], 10.0)
    intake.settle(12.0)

    assert queued(intake) == [b"edited.jpg"]


def test_a_changed_file_is_tried_again_soon_and_a_denied_one_later(
    inbox: Path, intake: Intake
) -> None:
    for name in ("busy.jpg", "denied.jpg"):
        (inbox / name).write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    intake.queue.clear()
    intake.learn(BatchReport(look_again=(b"busy.jpg",), denied=(b"denied.jpg",)), 10.0)

    intake.settle(20.0)
    soon = queued(intake)
    intake.settle(80.0)

    assert soon == [b"busy.jpg"]
    assert queued(intake) == [b"busy.jpg", b"denied.jpg"]


def test_a_file_that_nobody_can_be_asked_of_is_taken_when_it_was_quiet_five_times_as_long(
    inbox: Path, intake: Intake
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    first = intake.queue.popleft()
    intake.learn(BatchReport(unasked=(b"a.jpg",)), 2.0)

    intake.settle(9.9)
    early = queued(intake)
    intake.settle(10.0)

    assert not first.is_patient
    assert early == []
    assert intake.queue[0].is_patient


def test_patience_begins_anew_when_the_file_has_changed(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    intake.queue.clear()
    intake.learn(BatchReport(unasked=(b"a.jpg",)), 2.0)

    (inbox / "a.jpg").write_bytes(b"longer")
    intake.hint([b"a.jpg"], 9.0)
    intake.settle(11.0)

    assert not intake.queue[0].is_patient


def test_a_batch_that_could_not_be_stored_comes_first_again(inbox: Path, intake: Intake) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (inbox / name).write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    batch = [intake.queue.popleft(), intake.queue.popleft()]

    intake.put_back(batch)
    intake.settle(2.0)

    assert queued(intake) == [b"a.jpg", b"b.jpg", b"c.jpg"]


def test_a_file_that_left_may_come_again_under_its_name(inbox: Path, intake: Intake) -> None:
    file = inbox / "a.jpg"
    file.write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    taken = list(intake.queue)
    intake.queue.clear()
    os.rename(file, inbox.with_name("elsewhere"))
    intake.done(taken, [b"a.jpg"], 3.0)

    os.rename(inbox.with_name("elsewhere"), file)
    intake.hint([b"a.jpg"], 4.0)
    intake.settle(6.0)

    assert queued(intake) == [b"a.jpg"]


# --- what a fit waits for ---------------------------------------------------------------


def unread(intake: Intake, now_s: float, being_read: int = 0) -> int:
    arrivals = intake.arrivals(now_s, being_read)
    return arrivals.settling + arrivals.unread


def fail_to_read(intake: Intake, report: BatchReport, now_s: float) -> None:
    """Take all that is queued, and learn that it could not be read."""
    intake.queue.clear()
    intake.learn(report, now_s)


def test_it_is_quiet_from_the_start_at_the_earliest_for_who_copies_may_have_begun_before(
    intake: Intake,
) -> None:
    before = intake.arrivals(5.0, 0)
    intake.scan(6.0)

    assert before == Arrivals(0, 0, 0.0)
    assert intake.arrivals(16.0, 0) == Arrivals(0, 0, 10.0)


def test_what_may_still_be_written_is_told_apart_from_what_is_finished(
    inbox: Path, intake: Intake
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    (inbox / "b.jpg").write_bytes(b"b")
    intake.hint([b"b.jpg"], 3.0)

    assert intake.arrivals(4.0, 0) == Arrivals(unread=1, settling=1, quiet_s=2.0)


def test_files_that_settle_wait_in_the_queue_or_are_being_read_are_unread(
    inbox: Path, intake: Intake
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (inbox / name).write_bytes(b"a")
    intake.scan(0.0)
    settling = unread(intake, 0.0)
    intake.settle(2.0)
    in_queue = unread(intake, 2.0)
    taken = [intake.queue.popleft(), intake.queue.popleft()]
    being_read = unread(intake, 3.0, being_read=2)
    intake.put_back(taken)
    given_back = unread(intake, 4.0)
    intake.settle(5.0)

    take(intake)

    assert (settling, in_queue, being_read, given_back) == (3, 3, 3, 3)
    assert unread(intake, 6.0) == 0


def test_it_is_quiet_from_the_last_file_that_has_settled(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    take(intake)
    first = intake.arrivals(10.0, 0).quiet_s
    (inbox / "b.jpg").write_bytes(b"b")
    intake.hint([b"b.jpg"], 20.0)
    intake.settle(22.0)
    take(intake)

    intake.scan(30.0)

    assert first == 8.0
    assert intake.arrivals(32.0, 0).quiet_s == 10.0


@pytest.mark.parametrize("kind", ["denied", "unfinished"])
def test_a_file_that_is_denied_or_looks_unfinished_is_no_longer_waited_for(
    inbox: Path, intake: Intake, kind: str
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    [candidate] = intake.queue
    if kind == "denied":
        report = BatchReport(denied=(b"a.jpg",))
    else:
        report = BatchReport(incomplete=(candidate,))

    fail_to_read(intake, report, 3.0)
    at_once = unread(intake, 4.0)
    intake.settle(10_000.0)  # it is tried again: neither is that an arrival
    tried = intake.arrivals(10_001.0, 0)
    fail_to_read(intake, report, 10_002.0)

    assert at_once == 0
    assert tried.quiet_s == 9_999.0
    assert unread(intake, 10_003.0) == 0


def test_a_busy_file_is_waited_for_only_the_first_time(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    busy = BatchReport(look_again=(b"a.jpg",))

    fail_to_read(intake, busy, 2.0)
    once = unread(intake, 3.0)
    intake.settle(10.0)
    fail_to_read(intake, busy, 10.0)

    assert once == 1
    assert unread(intake, 11.0) == 0


@pytest.mark.parametrize("report", ["denied", "look_again"])
def test_a_file_that_could_not_be_read_is_waited_for_again_when_it_has_changed(
    inbox: Path, intake: Intake, report: str
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    for now_s in (2.0, 90.0):
        intake.settle(now_s)
        fail_to_read(intake, BatchReport(**{report: (b"a.jpg",)}), now_s)
    given_up = unread(intake, 100.0)

    (inbox / "a.jpg").write_bytes(b"longer")
    intake.hint([b"a.jpg"], 200.0)
    counted = unread(intake, 200.0)
    intake.settle(202.0)

    assert (given_up, counted) == (0, 1)
    assert intake.arrivals(203.0, 0).quiet_s == 1.0
    take(intake)
    assert unread(intake, 204.0) == 0


def test_a_file_that_was_read_in_the_end_counts_when_it_comes_again(
    inbox: Path, intake: Intake
) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    intake.settle(2.0)
    fail_to_read(intake, BatchReport(denied=(b"a.jpg",)), 2.0)
    intake.settle(90.0)
    read = list(intake.queue)
    intake.queue.clear()
    (inbox / "a.jpg").unlink()
    intake.done(read, [b"a.jpg"], 90.0)

    (inbox / "a.jpg").write_bytes(b"another")
    intake.hint([b"a.jpg"], 100.0)

    assert unread(intake, 100.0) == 1


def test_a_file_that_its_owner_took_away_is_not_waited_for(inbox: Path, intake: Intake) -> None:
    (inbox / "a.jpg").write_bytes(b"a")
    intake.scan(0.0)
    (inbox / "a.jpg").unlink()

    intake.settle(2.0)

    assert unread(intake, 3.0) == 0


def test_what_is_no_picture_is_not_waited_for_however_often_it_is_written(
    inbox: Path, intake: Intake
) -> None:
    (inbox / "rsync.log").write_text("one line")
    intake.scan(0.0)
    intake.settle(2.0)

    for now_s in range(3, 9):
        (inbox / "rsync.log").write_text("more lines " * now_s)
        intake.hint([b"rsync.log"], now_s)

    assert intake.arrivals(9.0, 0) == Arrivals(quiet_s=9.0)
