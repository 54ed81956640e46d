"""Changes that a page asks for: which are left for the daemon, and in which words others go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from imgsortd.store.database import open_for_writing
from imgsortd.web.api import MOST_UNANSWERED
from web_asking import Web, as_if_running, make_web


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with closing(make_web(tmp_path)) as web:
        yield web


def left(web: Web) -> list[tuple[str, dict[str, Any]]]:
    """Return (verb, params) of the rows that wait for the daemon."""
    store = open_for_writing(web.config.database)
    rows = store.connection.execute("SELECT verb, params FROM requests ORDER BY id").fetchall()
    store.close()
    return [(verb, json.loads(params)) for verb, params in rows]


MOST = 2**63 - 1
GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("place", {"files": [1, 2], "to": {"cluster": 7}}, {}),
    ("place", {"files": [MOST], "to": {"folder": "Receipts ä"}}, {}),
    ("place", {"files": list(range(1, 5001)), "to": {"review": True}}, {}),
    ("retry", {"files": [3]}, {}),
    ("undo", {"batch": 3}, {"since_s": None}),
    ("undo", {"batch": 3, "since_s": None}, {}),
    ("rename", {"cluster_id": 7, "name": ""}, {}),
    ("accept", {"fit_id": 2, "move": True}, {}),
    ("accept", {"fit_id": 2}, {"move": None}),
    ("reject", {"fit_id": 2}, {"move": None}),
    ("rollback", {}, {"fit_id": None, "move": None}),
    ("rollback", {"fit_id": None, "move": False}, {}),
    ("refit", {}, {"n_clusters": None, "dry_run": False, "accept": False, "keep_files": False}),
    ("refit", {"n_clusters": 12, "dry_run": True, "accept": True, "keep_files": True}, {}),
]


@pytest.mark.parametrize(("verb", "body", "added"), GOOD)
def test_a_request_is_left_as_it_came(
    web: Web, verb: str, body: dict[str, Any], added: dict[str, Any]
) -> None:
    with as_if_running(web.config):
        answer = web.post(f"/api/{verb}", body, web.csrf())

    assert (answer.status, answer.json) == (202, {"request": 1})
    assert left(web) == [(verb, {**body, **added})]


BAD: list[tuple[str, object]] = [
    ("place", {"files": [], "to": {"cluster": 7}}),
    ("place", {"files": list(range(5001)), "to": {"cluster": 7}}),
    ("place", {"files": [1, 1], "to": {"cluster": 7}}),
    ("place", {"files": [-1], "to": {"cluster": 7}}),
    ("place", {"files": [MOST + 1], "to": {"cluster": 7}}),
    ("place", {"files": ["1"], "to": {"cluster": 7}}),
    ("place", {"files": [1.0], "to": {"cluster": 7}}),
    ("place", {"files": [True], "to": {"cluster": 7}}),
    ("place", {"files": [1], "to": {}}),
    ("place", {"files": [1], "to": {"cluster": 7, "review": True}}),
    ("place", {"files": [1], "to": {"cluster": None}}),
    ("place", {"files": [1], "to": {"review": False}}),
    ("place", {"files": [1], "to": {"folder": ""}}),
    ("place", {"files": [1], "to": {"folder": "x" * 256}}),
    ("place", {"files": [1], "to": {"path": "/etc"}}),
    ("place", {"files": [1], "to": "review"}),
    ("place", {"files": [1]}),
    ("retry", {"files": [1], "path": "/etc/passwd"}),
    ("retry", {"files": {"1": 1}}),
    ("undo", {}),
    ("undo", {"batch": None}),
    ("undo", {"batch": 1, "since_s": 5}),
    ("rename", {"cluster_id": 7}),
    ("rename", {"cluster_id": "7", "name": "x"}),
    ("rename", {"cluster_id": 7, "name": None}),
    ("rename", {"cluster_id": 7, "name": ["x"]}),
    ("accept", {}),
    ("accept", {"fit_id": None}),
    ("accept", {"fit_id": 1, "move": 1}),
    ("rollback", {"fit_id": 5}),
    ("refit", {"n_clusters": 0}),
    ("refit", {"n_clusters": 10_001}),
    ("refit", []),
    ("refit", "x"),
    ("refit", None),
    ("refit", b""),
    ("refit", b"{"),
    ("refit", b'{"dry_run": true} x'),
    ("refit", b'{"dry_run": NaN}'),
    ("refit", b"\xff\xfe{}"),
    ("refit", b'{"n_clusters": ' + b"9" * 5000 + b"}"),
    ("refit", b"[" * 100_000),
    ("rename", b'{"cluster_id": 1, "name": "\\ud800"}'),
]


@pytest.mark.parametrize(("verb", "body"), BAD)
def test_what_is_not_exactly_right_is_refused_in_a_sentence(
    web: Web, verb: str, body: object
) -> None:
    with as_if_running(web.config):
        answer = web.post(f"/api/{verb}", body, web.csrf())

    assert (answer.status, left(web)) == (422, [])
    assert 5 < len(answer.json["error"]) < 1000


def test_with_no_daemon_running_a_change_is_refused_with_what_to_do(web: Web) -> None:
    answer = web.post("/api/refit", {}, web.csrf())

    assert (answer.status, left(web)) == (503, [])
    assert "imgsortd run" in answer.json["error"]


def test_a_daemon_that_does_not_answer_is_asked_so_many_times_only(web: Web) -> None:
    with as_if_running(web.config):
        store = open_for_writing(web.config.database)
        with store.atomic():
            for _ in range(MOST_UNANSWERED):
                store.control.ask("refit", {})
        refused = web.post("/api/refit", {}, web.csrf())
        with store.atomic():
            store.control.answer(1, "done", {})
        again = web.post("/api/refit", {}, web.csrf())
        store.close()

    assert (refused.status, again.status) == (429, 202)
    assert int(refused.headers["retry-after"]) > 0


def test_one_sees_what_came_of_a_request(web: Web) -> None:
    store = open_for_writing(web.config.database)
    with store.atomic():
        number = store.control.ask("refit", {})
        store.control.answer(number, "failed", {"error": "too few pictures"})
    store.close()

    answer = web.get(f"/api/requests/{number}")

    assert answer.json == {
        "request": number,
        "verb": "refit",
        "state": "failed",
        "progress": "",
        "result": {"error": "too few pictures"},
    }


def test_a_request_is_left_also_while_the_daemon_commits_one_thing_after_another(web: Web) -> None:
    is_over = Event()

    def commit() -> None:
        with closing(open_for_writing(web.config.database)) as store:
            while not is_over.wait(0.001):
                with store.atomic():
                    store.connection.execute("DELETE FROM requests")

    daemon = Thread(target=commit)
    daemon.start()
    with as_if_running(web.config):
        answers = [web.post("/api/retry", {"files": [1]}, web.csrf()) for _ in range(30)]
    is_over.set()
    daemon.join()

    assert {answer.status for answer in answers} == {202}, [answer.text for answer in answers]
