"""What a command does where a daemon runs, and where none does: the locks, and in what order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from imgsortd.config.model import Config
from imgsortd.daemon.here import ask_or_do, decide, refit, rename, undo, unpin
from imgsortd.errors import LockedError, ProposalError, RequestError, StoreError
from imgsortd.moves.undo import UndoChoice
from imgsortd.store.database import Store
from imgsortd.system.locks import Locks
from line import Line
from support import make_config, paint_groups, wait_until


def no_word(_: str) -> None:
    """Listen to no progress."""


@pytest.fixture
def line(tmp_path: Path, hurried: None) -> Iterator[Line]:
    """Return a line that has sorted nine pictures of three colours."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    line.run()
    yield line
    line.close()


NOTHING_SORTED = "so nothing was sorted yet"
WITHOUT: list[tuple[Callable[[Config], Any], str]] = [
    (partial(undo, choice=UndoChoice(), dry_run=False), NOTHING_SORTED),
    (partial(undo, choice=UndoChoice(), dry_run=True), NOTHING_SORTED),
    (partial(rename, cluster_id=0, name="Sky"), NOTHING_SORTED),
    (partial(unpin, files=["a.png"]), NOTHING_SORTED),
    (
        partial(decide, verb="accept", fit_id=None, move=None, progress=no_word),
        "so there is no fit yet",
    ),
    (
        partial(refit, n_clusters=None, dry_run=True, progress=no_word),
        "so there are no features to fit; start the daemon first (imgsortd run -c …)",
    ),
]


@pytest.mark.parametrize(("command", "text"), WITHOUT)
def test_without_a_database_each_command_says_what_that_means_and_makes_none(
    tmp_path: Path, command: Callable[[Config], Any], text: str
) -> None:
    config = make_config(tmp_path)

    with pytest.raises(StoreError) as raised:
        command(config)

    assert str(raised.value) == f"{config.database}: no such database, {text}"
    assert not config.database.exists()


def answer(line: Line, verb: str, state: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer the next request as a daemon does; return what it was asked with."""

    def is_there() -> bool:
        return line.store.control.next_verb() == verb

    wait_until(is_there, what="the request")
    with line.store.atomic():
        request = line.store.control.take(verb)
        assert request is not None
        line.store.control.answer(request.request_id, state, result)
    return [request.params]


def test_a_running_daemon_is_asked_and_nothing_is_done_here(line: Line) -> None:
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(rename(line.config, 0, "Sky", no_word)))

    with Locks(line.config.state_dir):
        asking.start()
        asked = answer(line, "rename", "done", {"folder": "as the daemon says"})
        asking.join(20)

    assert asked == [{"cluster_id": 0, "name": "Sky"}]
    assert answers == [{"folder": "as the daemon says"}]
    assert (line.config.target / "cluster_0").exists()


def test_what_the_daemon_could_not_do_is_an_error_with_its_reason(line: Line) -> None:
    errors: list[str] = []

    def ask() -> None:
        with pytest.raises(RequestError) as raised:
            decide(line.config, "rollback", None, None, no_word)
        errors.append(str(raised.value))

    asking = threading.Thread(target=ask)

    with Locks(line.config.state_dir):
        asking.start()
        asked = answer(line, "rollback", "failed", {"error": "there is none"})
        asking.join(20)

    assert asked == [{"fit_id": None, "move": None}]
    assert errors == ["rollback: there is none"]


@pytest.mark.parametrize("lock_inbox", [True, False])
def test_where_none_runs_it_is_done_under_the_locks_which_are_given_back(
    line: Line, lock_inbox: bool
) -> None:
    seen: list[tuple[bool, bool]] = []

    def is_held(state_dir: Path, inbox: Path | None = None) -> bool:
        try:
            with Locks(state_dir, inbox):
                return False
        except LockedError:
            return True

    def do(store: Store) -> dict[str, Any]:
        other = line.config.state_dir.with_name("other state")
        seen.append((is_held(line.config.state_dir), is_held(other, line.config.inbox)))
        assert store.files.counts().seen == 9
        raise ProposalError("it cannot be done")

    line.close()
    for _ in range(2):
        with pytest.raises(ProposalError):
            ask_or_do(line.config, "paint", {}, no_word, do, lock_inbox=lock_inbox)
    line._open()

    assert seen == [(True, lock_inbox)] * 2
    assert not is_held(line.config.state_dir, line.config.inbox)


@pytest.mark.parametrize(
    ("verb", "text"),
    [
        ("accept", "no proposal waits"),
        ("reject", "no proposal waits"),
        ("rollback", "is the first one"),
    ],
)
def test_what_is_wrong_is_found_before_the_network_is_loaded(
    line: Line, verb: str, text: str
) -> None:
    told: list[str] = []
    line.close()

    with pytest.raises(ProposalError, match=text):
        decide(line.config, verb, None, None, told.append)

    line._open()
    assert told == []
