"""Events are hints; whatever could swallow one asks for a scan. A real observer, real files."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from watchdog.events import FileClosedEvent, FileMovedEvent
from watchdog.observers.inotify_c import InotifyFD

from imgsortd.errors import WatchError
from imgsortd.inbox.watching import (
    SENTINEL,
    HintQueue,
    Watcher,
    filesystem_of,
    is_network_filesystem,
)
from support import wait_until

TIMEOUT_S = 20.0


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    (tmp_path / "inbox").mkdir()
    watchers: list[Watcher] = []

    def start(recursive: bool = True, root: Path = tmp_path / "inbox") -> Watcher:
        watchers.append(Watcher(root, recursive))
        watchers[-1].start()
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.stop()


def wait_for(watcher: Watcher, *names: bytes) -> set[bytes]:
    """Collect hints until these names were among them."""
    heard: set[bytes] = set()

    def all_heard() -> bool:
        heard.update(watcher.hints.take(0.05))
        return heard >= set(names)

    wait_until(all_heard, TIMEOUT_S, f"hints {names}")
    return heard


def test_a_file_is_heard_of_when_it_is_closed(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    with open(tmp_path / "inbox" / "a.jpg", "wb") as file:
        file.write(b"half")
        file.flush()
        early = watcher.hints.take(0.3)

    assert early == []
    assert wait_for(watcher, b"a.jpg") == {b"a.jpg"}


def test_a_file_renamed_into_the_inbox_is_heard_of(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    (tmp_path / "a.jpg").write_bytes(b"a")

    (tmp_path / "a.jpg").rename(tmp_path / "inbox" / "a.jpg")

    wait_for(watcher, b"a.jpg")


@pytest.mark.parametrize("name", [b"new\nline.jpg", b"\xff\xfe.jpg", "grüße.jpg".encode()])
def test_names_are_heard_as_bytes(
    tmp_path: Path, watch: Callable[..., Watcher], name: bytes
) -> None:
    watcher = watch()

    Path(os.fsdecode(os.fsencode(tmp_path / "inbox") + b"/" + name)).write_bytes(b"a")

    wait_for(watcher, name)


def test_a_file_in_a_subfolder_is_heard_of_by_its_relative_name(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    (tmp_path / "inbox" / "deep").mkdir()
    watcher = watch()

    (tmp_path / "inbox" / "deep" / "a.jpg").write_bytes(b"a")

    wait_for(watcher, b"deep/a.jpg")


def test_the_inbox_may_be_given_through_a_symlink_and_dots(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "inbox")
    (tmp_path / "other").mkdir()
    watcher = watch(root=tmp_path / "other" / ".." / "link")

    (tmp_path / "inbox" / "a.jpg").write_bytes(b"a")

    wait_for(watcher, b"a.jpg")


@pytest.mark.parametrize("made", ["moved in", "made inside"])
def test_a_new_folder_asks_for_a_scan(
    tmp_path: Path, watch: Callable[..., Watcher], made: str
) -> None:
    watcher = watch()
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "a.jpg").write_bytes(b"a")

    if made == "moved in":
        (tmp_path / "tree").rename(tmp_path / "inbox" / "tree")
    else:
        (tmp_path / "inbox" / "tree").mkdir()

    wait_until(lambda: watcher.hints.scan_wanted, TIMEOUT_S, "a scan asked for")


def test_a_warning_of_watchdogs_asks_for_a_scan_and_wakes_the_loop(
    watch: Callable[..., Watcher],
) -> None:
    watcher = watch()

    logging.getLogger("watchdog.observers.inotify_c").warning("inotify queue overflow")

    assert watcher.hints.take(TIMEOUT_S) == []
    assert watcher.hints.scan_wanted


def test_after_the_end_warnings_reach_nobody(watch: Callable[..., Watcher]) -> None:
    watcher = watch()
    watcher.stop()

    logging.getLogger("watchdog.observers").warning("inotify queue overflow")

    assert not watcher.hints.scan_wanted
    assert not watcher.is_watching


def test_a_full_queue_asks_for_a_scan_and_keeps_what_it_has() -> None:
    hints = HintQueue(b"/inbox")
    for number in range(70_000):
        hints.on_any_event(FileClosedEvent(f"/inbox/{number}.jpg"))

    assert hints.scan_wanted
    assert len(hints.take(0.0)) == 65_536


def test_a_name_is_given_once_and_strangers_are_not_given() -> None:
    hints = HintQueue(b"/inbox")
    for event in (
        FileClosedEvent("/inbox/a.jpg"),
        FileMovedEvent("/inbox/a.part", "/inbox/a.jpg"),
        FileMovedEvent("/inbox/gone.jpg", ""),
        FileClosedEvent("/inbox-2/b.jpg"),
        FileClosedEvent("/inbox"),
    ):
        hints.on_any_event(event)

    assert hints.take(0.0) == [b"a.jpg", b"gone.jpg"]
    assert hints.take(0.0) == []


def test_the_sentinel_is_heard_leaves_no_file_and_is_no_hint(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()

    assert watcher.send_sentinel()

    wait_until(lambda: watcher.hints.sentinel_seen, TIMEOUT_S, "sentinel heard")
    assert watcher.hints.take(0.2) == []
    assert os.listdir(tmp_path / "inbox") == []


def test_a_file_that_somebody_else_named_like_the_sentinel_is_left_alone(
    tmp_path: Path, watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch()
    monkeypatch.setattr("secrets.token_hex", lambda _: "0")
    names = [".imgsortd-sentinel", f"{SENTINEL}{os.getpid()}-0"]
    for name in names:
        (tmp_path / "inbox" / name).write_bytes(b"my only copy")

    assert not watcher.send_sentinel()
    watcher.stop()

    assert {
        path.name: path.read_bytes() for path in (tmp_path / "inbox").iterdir()
    } == dict.fromkeys(names, b"my only copy")


def test_an_event_that_is_not_understood_asks_for_a_scan_and_ends_no_thread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hints = HintQueue(b"/inbox")
    event = FileClosedEvent("/inbox/a.jpg")
    event.src_path = None  # type: ignore[assignment]

    hints.on_any_event(event)

    assert hints.scan_wanted
    assert "event not understood" in caplog.text


def test_every_watched_folder_is_counted(tmp_path: Path, watch: Callable[..., Watcher]) -> None:
    (tmp_path / "inbox" / "a" / "b").mkdir(parents=True)
    # All of the process are counted, and those of a test before may just be ending.
    wait_until(lambda: Watcher.count_watches() == 0, TIMEOUT_S, "no watch but ours")

    watcher = watch()

    assert watcher.count_watches() == 3
    watcher.stop()
    assert watcher.count_watches() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_whose_thread_has_died_is_noticed_and_replaced(
    tmp_path: Path, watch: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = watch()
    assert watcher.is_alive

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(InotifyFD, "handle_event", die)
        (tmp_path / "inbox" / "a.jpg").touch()
        wait_until(lambda: not watcher.is_alive, TIMEOUT_S, "the reader dead")
    watcher.stop()
    watcher.start()
    (tmp_path / "inbox" / "b.jpg").touch()

    wait_for(watcher, b"b.jpg")
    assert watcher.is_alive
    assert watcher.count_watches() == 1


def test_the_sentinel_is_not_heard_from_a_folder_that_was_replaced(
    tmp_path: Path, watch: Callable[..., Watcher]
) -> None:
    watcher = watch()
    (tmp_path / "inbox").rename(tmp_path / "old")
    (tmp_path / "inbox").mkdir()

    assert watcher.send_sentinel()

    watcher.hints.take(0.5)
    assert not watcher.hints.sentinel_seen


def test_a_missing_inbox_cannot_be_watched(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "none", True)

    with pytest.raises(WatchError, match=r"cannot watch .*/none: .*; is it there and readable\?"):
        watcher.start()

    assert not watcher.is_watching


def test_folders_nested_without_end_are_at_worst_not_watched(endless_folder: Path) -> None:
    watcher = Watcher(endless_folder, True)

    with suppress(WatchError):  # Python 3.12 walks them
        watcher.start()

    watcher.stop()


def in_own_namespace(command: str, *arguments: str) -> str:
    """Run a shell command as root of a user and mount namespace of its own; skip if refused."""
    run = ["unshare", "-Urm", "sh", "-ec", command, "sh", *arguments]
    try:
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare(1) here")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("limit", ["watches", "instances"])
def test_a_used_up_limit_is_told_with_the_knob_to_raise(tmp_path: Path, limit: str) -> None:
    program = (
        "from imgsortd.inbox.watching import Watcher\n"
        "from pathlib import Path\n"
        "import sys\n"
        "try: Watcher(Path(sys.argv[1]), True).start()\n"
        "except Exception as error: print(f'{type(error).__name__} {error}')"
    )

    said = in_own_namespace(
        f'echo 0 >/proc/sys/user/max_inotify_{limit} || exit 77; "$1" -c "$2" "$3"',
        sys.executable,
        program,
        str(tmp_path),
    )

    now = Path(f"/proc/sys/fs/inotify/max_user_{limit}").read_text().strip()
    assert said == (
        f"WatchError cannot watch {tmp_path}: the inotify limit ({now}) is used up; "
        f"raise fs.inotify.max_user_{limit}"
    )


@pytest.mark.parametrize("name", ["plain", "with space", "grüße", "back\\slash", "\udcff"])
def test_the_filesystem_of_a_mount_is_found_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "inbox").mkdir(parents=True)
    program = (
        "from imgsortd.inbox.watching import filesystem_of\n"
        "from pathlib import Path\n"
        "import sys\n"
        "print(filesystem_of(Path(sys.argv[1]) / 'inbox'))"
    )

    said = in_own_namespace(
        'mount -t ramfs none "$3" || exit 77; "$1" -c "$2" "$3"',
        sys.executable,
        program,
        str(tmp_path / name),
    )

    assert said == "ramfs"


@pytest.mark.parametrize(
    ("kind", "network"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False), ("tmpfs", False)],
)
def test_on_network_shares_others_writes_raise_no_events(kind: str, network: bool) -> None:
    assert is_network_filesystem(kind) is network


def test_proc_is_a_filesystem_of_its_own() -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"
