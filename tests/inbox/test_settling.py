"""A file is finished when it was quiet and looks the same at both ends."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from imgsortd.inbox.settling import SettleTracker
from imgsortd.records import Stamp

SETTLE_S = 2.0
STAMP = Stamp(inode=7, size_bytes=100, mtime_ns=5, ctime_ns=5)
CHANGES = [{field: 99} for field in ("inode", "size_bytes", "mtime_ns", "ctime_ns")]


def test_a_file_settles_after_its_quiet_time_and_is_followed_no_more() -> None:
    tracker = SettleTracker(SETTLE_S)
    tracker.see(b"a.jpg", STAMP, 10.0)

    assert tracker.quiet(11.9) == []
    assert tracker.quiet(12.0) == [b"a.jpg"]
    assert tracker.settle([(b"a.jpg", STAMP)], 12.0) == [b"a.jpg"]
    assert b"a.jpg" not in tracker
    assert tracker.next_due_s() is None


def test_a_scan_of_an_unchanged_file_does_not_start_its_time_again_but_an_event_does() -> None:
    tracker = SettleTracker(SETTLE_S)
    tracker.see(b"seen.jpg", STAMP, 0.0)
    tracker.see(b"heard.jpg", STAMP, 0.0)

    tracker.see(b"seen.jpg", STAMP, 1.5)
    tracker.touch(b"heard.jpg", STAMP, 1.5)

    assert tracker.quiet(2.0) == [b"seen.jpg"]
    assert tracker.next_due_s() == 2.0


def test_a_forgotten_file_is_never_due() -> None:
    tracker = SettleTracker(SETTLE_S)
    tracker.see(b"a.jpg", STAMP, 0.0)

    tracker.forget(b"a.jpg")
    tracker.forget(b"never-seen.jpg")

    assert len(tracker) == 0
    assert tracker.quiet(100.0) == []


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 3.0),
            st.sampled_from(["event", "scan", "look"]),
            st.sampled_from([None, *CHANGES]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_file_settles_before_settle_s_without_an_event_and_without_a_change(
    steps: list[tuple[float, str, dict[str, int] | None]],
) -> None:
    tracker, now, stamp = SettleTracker(SETTLE_S), 0.0, STAMP
    tracker.see(b"a.jpg", stamp, now)
    noticed, quiet_since = stamp, now
    for step, (wait_s, what, change) in enumerate(steps):
        now += wait_s
        if change is not None:
            field = next(iter(change))
            stamp = dataclasses.replace(stamp, **{field: 1000 + step})
        if what == "event":
            tracker.touch(b"a.jpg", stamp, now)
            noticed, quiet_since = stamp, now
        elif what == "scan":
            tracker.see(b"a.jpg", stamp, now)
            if stamp != noticed:
                noticed, quiet_since = stamp, now
        else:
            settled = tracker.settle([(name, stamp) for name in tracker.quiet(now)], now)
            assert bool(settled) == (now - quiet_since >= SETTLE_S and stamp == noticed)
            if settled:
                return
            if now - quiet_since >= SETTLE_S:
                noticed, quiet_since = stamp, now
