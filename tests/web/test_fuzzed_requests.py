"""Random requests to every route: none may break anything, or change it without a token."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from starlette.routing import Route

import imgsortd
from fuzzing import few_and_many, fuzzed
from imgsortd.web.api import VERBS
from imgsortd.web.security import HEADERS
from line import Line
from support import paint_groups
from web_asking import HOST, TOKEN, Answer, Header, Web, as_if_running, make_web

MEANT = (503,)
SOURCE = str(Path(imgsortd.__file__).parent)

digits = st.one_of(
    st.integers(0, 40),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, 10**18, 10**5000]),
    st.integers(-5, 10**20),
).map(lambda number: str(number) if number < 10**400 else "9" * 5000)
odd_bytes = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"..",
            b"../../etc/passwd",
            b"\0",
            b"\r\nSet-Cookie: a=b",
            b"<script>",
            b"' OR 1=1 --",
            b"%00",
            b"%2e%2e%2f",
            b"\xff\xfe",
            b"\xed\xa0\x80",
            b"${jndi:ldap://x}",
            b"{{7*7}}",
            b"a" * 3000,
        ]
    ),
)
odd = st.one_of(digits, odd_bytes.map(lambda raw: quote_from_bytes(raw, safe="")))
words = st.sampled_from(
    ["order", "after", "after", "limit", "limit", "count", "count", "sort", "q", "next", "v", "1"]
)


def in_latin(text: str) -> str:
    """Keep what can stand in a header as the server hands it on."""
    return "".join(char for char in text if char not in "\r\n\0")


header_values = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40).map(in_latin),
    st.sampled_from(
        [
            "",
            "*",
            "null",
            "gzip",
            "gzip;q=0",
            "bytes=0-1",
            "bytes=9-",
            'W/"x", *',
            "0",
            "-1",
            "application/json",
            "text/html",
            "cross-site",
            "same-origin",
            "navigate",
            "document",
            f"http://{HOST}",
            "http://evil.example",
            f"Bearer {TOKEN}",
            "Bearer x",
            "imgsortd_session=1.2.3",
            'imgsortd_session="\\303\\',
            "Thu, 01 Jan 1970 00:00:00 GMT",
        ]
    ),
)
header_names = st.one_of(
    st.sampled_from(
        [
            "Accept",
            "Accept-Encoding",
            "Authorization",
            "Content-Encoding",
            "Content-Length",
            "Content-Type",
            "Cookie",
            "Expect",
            "Host",
            "If-Modified-Since",
            "If-None-Match",
            "Last-Event-ID",
            "Origin",
            "Range",
            "Referer",
            "Sec-Fetch-Dest",
            "Sec-Fetch-Mode",
            "Sec-Fetch-Site",
            "Transfer-Encoding",
            "Upgrade",
            "X-CSRF-Token",
            "X-Forwarded-For",
            "X-Forwarded-Host",
            "X-HTTP-Method-Override",
        ]
    ),
    st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True),
)
headers = st.lists(st.tuples(header_names, header_values), max_size=4)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["..", "/etc", "_review", "cluster_1", "\0", "a" * 300]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
KEYS = sorted({key for model in VERBS.values() for key in model.model_fields} | {"to", "x"})
bodies = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4).map(
        lambda body: json.dumps(body).encode()
    ),
    values.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"", b"[" * 5000, b"{" * 5000, b'{"a":' * 2000, b"token=x&next=//evil"]),
)
good_bodies = {
    "place": {"files": [1, 2], "to": {"cluster": 1}},
    "retry": {"files": [1]},
    "undo": {"batch": 1},
    "rename": {"cluster_id": 1, "name": "x"},
    "accept": {"fit_id": 1},
    "reject": {"fit_id": 1},
    "rollback": {"move": False},
    "refit": {},
}


@pytest.fixture(scope="module", params=[None, TOKEN], ids=["open", "with a token"])
def web(request: pytest.FixtureRequest) -> Iterator[Web]:
    """Return a page over a small sorted library whose daemon seems to run."""
    with TemporaryDirectory(prefix="imgsortd-fuzz-") as name:
        folder = Path(name)
        _sort_some(folder)
        with closing(make_web(folder, request.param)) as web, as_if_running(web.config):
            yield web


def _sort_some(folder: Path) -> None:
    line = Line(folder)
    paint_groups(line.config.inbox, 4)
    (line.config.inbox / "broken.jpg").write_bytes(b"no picture")
    line.run()
    line.close()


@st.composite
def targets(draw: DrawFn, web: Web) -> str:
    """Draw a path of the table with anything for its parts, or anything; and a query."""
    routes = [route.path for route in web.app.routes if isinstance(route, Route)]
    # The API takes most that can be wrong, so that it is asked most.
    api = [path for path in routes if path.startswith("/api/")]
    path = draw(st.sampled_from([*routes, *api]))
    while "{" in path:
        head, _, rest = path.partition("{")
        part = draw(st.one_of(st.integers(0, 15).map(str), st.integers(0, 15).map(str), odd))
        path = head + part + rest.partition("}")[2]
    extra = draw(st.sampled_from([""] * 20 + ["/", "/..", "//", "%00", "%0a", ";x", "/../../x"]))
    if draw(st.integers(0, 19)) == 0:
        path = "/" + draw(odd)
    query = draw(st.lists(st.tuples(words, odd), max_size=3))
    joined = "&".join(f"{name}={value}" for name, value in query)
    return path + extra + ("?" + joined if joined else "")


def bodies_for(target: str) -> st.SearchStrategy[bytes]:
    """Return anything, and now and then what would be right."""
    good = good_bodies.get(target.partition("?")[0].removeprefix("/api/"))
    return bodies if good is None else st.one_of(st.just(json.dumps(good).encode()), bodies)


def check(web: Web, answer: Answer) -> None:
    """Hold an answer against the law of all answers."""
    assert answer.status < 500 or answer.status in MEANT, answer.body[:500]
    got = answer.headers
    assert {name: got.get(name.lower()) for name in HEADERS} == HEADERS
    assert "cache-control" in got
    assert all(b"\r" not in value and b"\n" not in value for _, value in answer.raw_headers)
    assert not got.get("location", "/").startswith(("//", "http", "/\\"))
    assert "access-control-allow-origin" not in got
    if got.get("content-encoding") is None:
        assert b"Traceback (most recent" not in answer.body
        assert SOURCE.encode() not in answer.body
        assert b"site-packages" not in answer.body
        if answer.status >= 400:
            assert str(web.config.state_dir.parent).encode() not in answer.body


@few_and_many
def test_no_request_breaks_anything_or_changes_anything_without_a_token(
    web: Web, examples: int
) -> None:
    @fuzzed(examples)
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        method = data.draw(st.sampled_from(["GET", "GET", "HEAD", "POST", "POST", "PUT", "TRACE"]))
        target = data.draw(targets(web))
        sent = data.draw(headers)
        body = data.draw(bodies_for(target)) if method in ("POST", "PUT") else b""
        if method == "POST" and data.draw(st.booleans()):
            sent = [("Content-Type", "application/json"), *sent]
        before = web.requests()

        answer = web.ask(method, target, *sent, body=[body])

        check(web, answer)
        if ("Authorization", f"Bearer {TOKEN}") not in sent:
            assert web.requests() == before

    ask()


@few_and_many
def test_whoever_is_let_in_breaks_nothing_either(web: Web, examples: int) -> None:
    """The same with the token and a page's token for changes: the handlers themselves."""

    @fuzzed(examples)
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        method = data.draw(st.sampled_from(["GET", "GET", "HEAD", "POST"]))
        target = data.draw(targets(web))
        body = data.draw(bodies_for(target)) if method == "POST" else b""
        sent = [*let_in(web), ("Content-Type", "application/json")]
        before = web.requests()

        answer = web.ask(method, target, *sent, body=[body])

        check(web, answer)
        assert web.requests() - before == (1 if answer.status == 202 else 0)
        if web.requests() > 100:
            forget_requests(web)

    ask()


@pytest.mark.parametrize("verb", VERBS)
def test_the_same_door_opens_with_the_right_key(web: Web, verb: str) -> None:
    before = web.requests()

    with_it = web.post(f"/api/{verb}", good_bodies[verb], *let_in(web))
    without = web.post(f"/api/{verb}", good_bodies[verb])

    assert (with_it.status, without.status) == (202, 401 if web.site.wants_token else 403)
    assert web.requests() == before + 1


def let_in(web: Web) -> list[Header]:
    """Return the headers of somebody who may do everything."""
    return [("Authorization", f"Bearer {TOKEN}")] if web.site.wants_token else [web.csrf()]


def forget_requests(web: Web) -> None:
    """Take the requests away: so many unanswered ones may not be left."""
    with sqlite3.connect(web.config.database) as connection:
        connection.execute("DELETE FROM requests")
