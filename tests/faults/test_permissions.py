"""What may not be read, listed or moved is left, named with the reason, and sorted when it may be.

Root is exempt from permissions, so the daemon runs as a root that is not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warm
from faults.books import check_books
from imgsortd.reports.status import LeftAlone, UnreadFile
from inboxes import Inbox
from support import GREEN, paint, wait_until

NOBODY = 65534


@pytest.fixture
def one(make: Callable[..., Inbox]) -> Iterator[Inbox]:
    """Return an inbox with nine pictures sorted by a daemon that permissions hold for."""
    # No weights are there: doctor need not read half a gigabyte of them.
    one = make(program=(warm.WRAPPED, "ordinary"), model={"weights": "none.safetensors"})
    one.drop(3)
    one.daemon.start()
    wait_until(lambda: "daemon ready" in one.daemon.log or not one.daemon.is_alive())
    if one.daemon.process is not None and one.daemon.process.poll() == 77:
        pytest.skip("it takes root to drop a capability")
    one.wait_sorted()
    yield one
    for folder in (one.inbox, one.target):
        for path in (folder, *folder.rglob("*/")):
            path.chmod(0o755)


def waits(one: Inbox, what: Callable[[], object]) -> None:
    wait_until(what, 30, one.daemon.log)


def doctor(one: Inbox) -> dict[str, tuple[str, str]]:
    """Return verdict and text of what a doctor without exemptions finds."""
    config = str(one.folder / "config.yaml")
    done = warm.run([warm.WRAPPED, "ordinary", "doctor", "-c", config, "--json"])
    findings = json.loads(done.stdout)["findings"]
    return {finding["what"]: (finding["verdict"], finding["text"]) for finding in findings}


def test_a_file_that_may_not_be_read_is_named_and_sorted_when_it_may(one: Inbox) -> None:
    made = paint(one.folder / "secret.png", GREEN, 4242)
    made.chmod(0)
    path = one.bring(made, "sub/secret.png")
    one.drop()

    waits(one, lambda: one.status().unread)
    waits(one, lambda: one.status().counts["sorted"] == 12)

    (unread,) = one.status().unread
    assert unread == UnreadFile("sub/secret.png", "cannot be read: Permission denied")
    assert "sub/secret.png" in doctor(one)["inbox"][1]
    path.chmod(0o644)
    one.wait_sorted()
    check_books(one)


def test_a_folder_that_may_not_be_listed_is_named_and_sorted_when_it_may(one: Inbox) -> None:
    (one.inbox / "private").mkdir()
    (one.inbox / "private").chmod(0)
    one.drop()

    waits(one, lambda: one.status().left_alone)
    waits(one, lambda: one.status().counts["sorted"] == 12)

    reason = "folder that cannot be listed: Permission denied"
    assert one.status().left_alone == [LeftAlone(reason, 1, ["private"])]
    assert doctor(one)["inbox"][0] == "bad"
    assert "private/" in doctor(one)["inbox"][1]
    (one.inbox / "private").chmod(0o755)
    one.drop(to="private")
    one.wait_sorted()
    check_books(one)
    waits(one, lambda: not one.status().left_alone)


@pytest.mark.parametrize("where", ["inbox", "target"])
def test_a_folder_that_may_not_be_written_holds_its_files_up_and_no_others(
    one: Inbox, where: str
) -> None:
    folder = one.inbox / "frozen" if where == "inbox" else one.target / "cluster_1"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    one.drop(to="frozen")
    one.drop()

    waits(one, lambda: one.status().open_moves)
    waits(one, lambda: one.status().counts["sorted"] >= 12)

    assert all("Permission denied" in move.error for move in one.status().open_moves)
    assert one.status().phase != "paused"
    folder.chmod(0o755)
    one.wait_sorted()
    check_books(one)


def test_a_file_that_somebody_keeps_open_waits_named_and_holds_up_no_other(one: Inbox) -> None:
    made = paint(one.folder / "open.png", GREEN, 4243)
    with open(made, "r+b"):
        one.bring(made, "open.png")
        one.drop()

        waits(one, lambda: one.status().unread)
        waits(one, lambda: one.status().counts["sorted"] == 12)

        (unread,) = one.status().unread
        assert unread.reason == "somebody has it open for writing"
        assert "open.png (somebody has it open" in doctor(one)["waiting"][1]
    one.wait_sorted()
    check_books(one)


def test_what_is_no_picture_is_left_alone_and_counted(one: Inbox) -> None:
    for number in range(7):
        (one.inbox / f"letter-{number}.txt").write_text("no picture")

    waits(one, lambda: one.status().left_alone and one.status().left_alone[0].count == 7)

    (left,) = one.status().left_alone
    assert left.reason == "not a picture"
    assert left.files == [f"letter-{number}.txt" for number in range(5)]
    assert "7 not a picture" in doctor(one)["left alone"][1]
    for path in one.inbox.glob("*.txt"):
        path.unlink()
    waits(one, lambda: not one.status().left_alone)


def test_doctor_tells_an_ordinary_user_of_a_sticky_inbox_of_another(tmp_path: Path) -> None:
    for name in ("target", "state", "inbox"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o1777 if name == "inbox" else 0o777)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from imgsortd.doctor import check_rights\nfrom imgsortd.config import parse_config\n"
        "folder = Path(sys.argv[1])\n"
        "names = {'inbox': 'inbox', 'target': 'target', 'state_dir': 'state'}\n"
        "data = {key: str(folder / name) for key, name in names.items()}\n"
        "for found in check_rights(parse_config(data, folder / 'config.yaml')): print(found.text)\n"
    )
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o055)
    try:
        done = subprocess.run(
            [*nobody, sys.executable, "-c", code, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("there is no setpriv here")
    if done.returncode:
        pytest.skip(f"another user cannot be had here: {done.stderr[-200:]}")

    assert "has the sticky bit and another owner" in done.stdout
    assert f"chmod -t '{tmp_path / 'inbox'}'" in done.stdout
