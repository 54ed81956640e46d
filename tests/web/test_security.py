"""Hostile requests to the page: what they get, and that nothing comes of them."""

from __future__ import annotations

import ast
import inspect
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from imgsortd.store.database import open_for_writing
from imgsortd.web import access, login, security, site
from imgsortd.web.access import FREE, FREE_IN_ALL, Tries
from imgsortd.web.security import HEADERS
from support import make_config
from web_asking import HOST, TOKEN, Answer, Header, Web, as_if_running, make_web

RENAME = {"cluster_id": 1, "name": "Receipts"}
BEARER = ("Authorization", f"Bearer {TOKEN}")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Return what makes a page over an empty library."""
    made: list[Web] = []

    def make(*arguments: Any, **changes: Any) -> Web:
        made.append(make_web(tmp_path, *arguments, **changes))
        return made[-1]

    yield make
    for web in made:
        web.close()


@pytest.fixture
def web(make: Callable[..., Web]) -> Web:
    """Return a page that nobody has to log in to."""
    return make()


@pytest.fixture
def locked(make: Callable[..., Web]) -> Web:
    """Return a page with a token."""
    return make(TOKEN)


def routes_of(web: Web) -> list[tuple[str, str]]:
    """Return (method, path) of every route, with a number for each number in it."""
    return [
        (
            method,
            route.path.replace("{id:row}", "1").replace("{version}", "1").replace("{name}", "x"),
        )
        for route in web.app.routes
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
    ]


def is_bare(answer: Answer) -> bool:
    """Tell whether an answer tells nothing of the program's insides."""
    return not any(text in answer.body for text in (b"Traceback", b'.py"', b"site-packages"))


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["", ":8420", ":80", ":65535"])
@pytest.mark.parametrize("name", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "[::1]"])
def test_the_names_of_this_machine_alone_are_answered_to(web: Web, name: str, port: str) -> None:
    answer = web.get("/api/requests/1", host=name + port)

    assert answer.status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:8420", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("attic", 421),  # the machine's own name: nobody listens there
        ("192.168.1.5", 421),
        ("0.0.0.0", 421),
        ("[::ffff:127.0.0.1]", 421),
        ("[2001:db8::1]", 421),
        ("127.1", 421),
        ("2130706433", 421),
        ("localhost.", 421),
        ("", 400),
        (" ", 400),
        ("localhost:", 400),
        ("localhost:0", 400),
        ("localhost:99999", 400),
        ("localhost:8420:8420", 400),
        ("user@localhost", 400),
        ("localhost/..", 400),
        ("localhost, evil.example", 400),
        ("local host", 400),
        ("::1", 400),
        ("[::1", 400),
        ("[:::]", 400),
        ("[::1%25lo]", 400),
        ("lokalhöst", 400),
        ("a" * 300, 400),
        (None, 400),
    ],
)
def test_a_name_that_is_not_ours_gets_nothing(web: Web, host: str | None, status: int) -> None:
    answer = web.get("/healthz", host=host)

    assert answer.status == status
    assert b"<" not in answer.body


def test_two_host_headers_get_nothing(web: Web) -> None:
    answer = web.get("/healthz", ("Host", "evil.example"))

    assert answer.status == 400


def test_no_route_answers_to_a_name_that_was_bound_anew(web: Web) -> None:
    answered = [
        (method, path)
        for method, path in routes_of(web)
        if web.ask(method, path, host="evil.example:8420").status != 421
    ]

    assert answered == []


def test_beyond_this_machine_any_address_is_ours_but_no_foreign_name(
    make: Callable[..., Web],
) -> None:
    web = make(TOKEN, ["pictures.example"], any_address=True)

    asked = ("192.168.1.5:8420", "[2001:db8::1]", "attic:8420", "Pictures.Example", "localhost")
    refused = ("evil.example", "attic.evil.example", "www.pictures.example")

    assert {web.get("/login", host=host).status for host in asked}.isdisjoint({400, 421})
    assert {web.get("/login", host=host).status for host in refused} == {421}


def test_a_redirect_never_depends_on_the_host_that_was_sent(locked: Web) -> None:
    answers = [locked.get(path) for path in ("/", "/status", "/status/", "/clusters/1/")]

    places = [answer.headers["location"] for answer in answers]
    assert [place.partition("?")[0] for place in places] == ["/login"] * 4


# --- what every answer has ----------------------------------------------------------------------


def test_every_answer_has_the_headers_that_keep_a_page_safe(web: Web, locked: Web) -> None:
    answers = [
        web.get("/"),
        web.get("/api/requests/1"),
        web.get("/no/such/page"),
        web.get("/healthz", host="evil.example"),
        web.get("/healthz", host=None),
        web.get("/api/events"),
        web.ask("TRACE", "/"),
        web.ask("PUT", "/api/status"),
        web.post("/api/rename", RENAME),
        web.post("/api/rename", b"x", web.csrf()),
        web.post("/api/rename", b"x" * 2_000_000, web.csrf()),
        web.get("/api/review?limit=x"),
        locked.get("/"),
        locked.get("/api/status"),
        locked.login(),
        locked.login(token="wrong"),
    ]

    assert len({answer.status for answer in answers}) > 8
    for answer in answers:
        got = answer.headers
        assert {name: got.get(name.lower()) for name in HEADERS} == HEADERS
        assert got["cache-control"] == "no-store"
        assert len(answer.raw_headers) == len(got), "a header came twice"


def test_the_policy_allows_no_script_but_files_of_ours() -> None:
    policy = HEADERS["Content-Security-Policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "unsafe" not in policy


def test_an_error_of_the_program_is_logged_and_not_shown(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_request: Request) -> Response:
        raise ValueError(f"a secret in {__file__}")

    web.app.router.routes.extend([Route("/api/broken", broken), Route("/broken", broken)])

    with caplog.at_level(logging.ERROR):
        answers = [web.get("/api/broken"), web.get("/broken")]

    assert [answer.status for answer in answers] == [500, 500]
    assert answers[0].json == {"error": "something went wrong here; the log has more"}
    assert all(is_bare(answer) and b"secret" not in answer.body for answer in answers)
    assert {name: answers[1].headers.get(name.lower()) for name in HEADERS} == HEADERS
    assert "a secret in" in caplog.text


def test_a_name_that_is_no_text_can_be_answered(web: Web) -> None:
    with as_if_running(web.config):
        web.post("/api/rename", RENAME, web.csrf())
    with sqlite3.connect(web.config.database) as connection:
        connection.execute("UPDATE requests SET result = ?", ('{"file": "caf\\udce9.jpg"}',))

    answer = web.get("/api/requests/1")

    assert answer.json["result"] == {"file": "caf?.jpg"}


# --- logging in ---------------------------------------------------------------------------------


def test_every_route_but_three_asks_for_the_token(locked: Web) -> None:
    answers = {
        (method, path): locked.ask(method, path)
        for method, path in routes_of(locked)
        if path not in ("/healthz", "/login") and not path.startswith("/static/")
    }

    let_in = [ask for ask, answer in answers.items() if answer.status not in (303, 401)]
    assert let_in == []
    assert answers["GET", "/api/status"].headers["www-authenticate"].startswith("Bearer")
    assert answers["GET", "/"].headers["location"] == "/login?next=/"
    assert answers["GET", "/parts/clusters"].status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api/requests/1",
        "/static/1/..%2f..%2fapi%2frequests%2f1",
        "/static/1/%2e%2e/%2e%2e/api/status",
        "/login/../status",
        "/login/",
        "/login%0a",
        "/healthz/",
        "//healthz",
        "/HEALTHZ",
        "http://127.0.0.1:8420/healthz",
        "*",
    ],
)
def test_no_spelling_of_an_open_path_opens_another(locked: Web, path: str) -> None:
    answer = locked.get(path)

    assert answer.status in (303, 401, 404)
    assert answer.headers.get("location", "/login?next=/") == "/login?next=/"


def test_the_token_opens_everything_by_header_or_by_cookie(locked: Web) -> None:
    by_header = locked.get("/api/requests/1", BEARER)
    by_cookie = locked.get("/api/requests/1", locked.cookie())

    assert (by_header.status, by_cookie.status) == (404, 404)


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer wrong")],
        [("Authorization", f"Bearer {TOKEN}x")],
        [("Authorization", f"Bearer {TOKEN[:-1]}")],
        [("Authorization", f"Basic {TOKEN}")],
        [("Authorization", TOKEN)],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer \xff\xfe")],
        [BEARER, BEARER],
        [("Cookie", f"imgsortd_session={TOKEN}")],
        [("Cookie", "imgsortd_session=")],
        [("Cookie", "imgsortd_session=99999999999." + "0" * 32 + "." + "0" * 64)],
        [("Cookie", '="; imgsortd_session="\\377\\')],
    ],
)
def test_what_only_looks_like_the_token_opens_nothing(locked: Web, headers: list[Header]) -> None:
    assert locked.get("/api/requests/1", *headers).status == 401


def test_the_cookie_is_for_this_page_alone_and_holds_no_token(locked: Web) -> None:
    plain, secure = locked.login(), locked.login(scheme="https")

    cookie = plain.headers["set-cookie"]
    value, *flags = [part.strip() for part in cookie.split(";")]
    assert sorted(flags) == ["HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=strict"]
    assert "Secure" in secure.headers["set-cookie"]
    assert TOKEN not in value
    assert plain.status == 303
    assert value != secure.headers["set-cookie"].partition(";")[0], "each session is another"


def test_a_session_outlives_a_restart_and_dies_with_another_token(
    make: Callable[..., Web],
) -> None:
    cookie = make(TOKEN).cookie()

    again = make(TOKEN).get("/api/requests/1", cookie)
    other = make(TOKEN[::-1]).get("/api/requests/1", cookie)

    assert (again.status, other.status) == (404, 401)


def test_a_session_ends_after_thirty_days() -> None:
    keys = access.make_keys(TOKEN)

    value = access.make_session(keys, 1_000_000)

    assert access.session_of(keys, value, 1_000_000 + 30 * 86_400 - 1) is not None
    assert access.session_of(keys, value, 1_000_000 + 30 * 86_400) is None
    assert access.session_of(keys, value.replace(value[:3], "999"), 1_000_000) is None


def test_logging_out_takes_the_cookie_away(locked: Web) -> None:
    cookie = locked.cookie()
    session = access.session_of(locked.site.keys, cookie[1].partition("=")[2], time.time())
    _, csrf = locked.csrf(session or "")
    form = ("Content-Type", "application/x-www-form-urlencoded")

    without = locked.ask("POST", "/logout", cookie, form)
    by_form = locked.ask("POST", "/logout", cookie, form, body=[f"csrf={csrf}".encode()])

    assert without.status == 403
    assert by_form.status == 303
    assert "Max-Age=0" in by_form.headers["set-cookie"]


NOT_OURS = [
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "/%5cevil.example",
    "/%2fevil.example",
    "\t//evil.example",
    "/\r\nSet-Cookie: a=b",
    "/status\n",
    "javascript:alert(1)",
    "/logout",
    "/api/status",
    "/static/1/x",
    "/status?x=<script>",
    "/clusters/" + "1" * 100,
    "/status#//evil.example",
    "",
]


@pytest.mark.parametrize("place", NOT_OURS)
def test_after_logging_in_one_is_sent_to_a_page_of_ours_or_the_first(
    locked: Web, place: str
) -> None:
    form = ("Content-Type", "application/x-www-form-urlencoded")
    body = f"token={TOKEN}&next={quote(place, safe='')}".encode()

    by_form = locked.ask("POST", "/login", form, body=[body])
    by_query = locked.login().status and locked.ask(
        "POST", f"/login?next={quote(place, safe='')}", form, body=[f"token={TOKEN}".encode()]
    )
    already = locked.get(f"/login?next={quote(place, safe='')}", locked.cookie())

    assert [a.headers["location"] for a in (by_form, by_query, already)] == ["/", "/", "/"]


def test_after_logging_in_one_comes_where_one_wanted_to(locked: Web) -> None:
    first = locked.get("/clusters/7?order=new")

    then = locked.get(first.headers["location"], locked.cookie())

    assert then.headers["location"] == "/clusters/7?order=new"


def test_guessing_is_slowed_down_also_by_header_and_for_the_right_token(locked: Web) -> None:
    for _ in range(FREE):
        assert locked.login(token="guess", client="10.0.0.9").status == 401
    free = locked.get("/api/status", BEARER, client="10.0.0.9")
    assert locked.login(token="guess", client="10.0.0.9").status == 401

    form = locked.login(client="10.0.0.9")
    header = locked.get("/api/status", BEARER, client="10.0.0.9")
    elsewhere = locked.login(client="10.0.0.8")

    assert free.status != 429
    assert (form.status, header.status, elsewhere.status) == (429, 429, 303)
    assert int(form.headers["retry-after"]) >= 1
    assert locked.get("/api/requests/1", locked.cookie(), client="10.0.0.9").status == 404


def test_a_wait_doubles_and_ends_and_a_network_of_one_person_counts_as_one() -> None:
    attempts = Tries()

    for number in range(FREE + 4):
        attempts.fail(f"2001:db8::{number}", now_s=100)

    assert attempts.wait_s("2001:db8::ffff", now_s=100) == 16
    assert attempts.wait_s("2001:db8::ffff", now_s=116) == 0
    assert attempts.wait_s("2001:db8:0:1::1", now_s=100) == 0
    attempts.succeed("2001:db8::1")
    assert attempts.wait_s("2001:db8::ffff", now_s=100) == 0


def test_guessing_from_everywhere_is_slowed_down_and_takes_no_more_memory() -> None:
    attempts = Tries()

    for number in range(5000):
        attempts.fail(f"10.0.{number // 250}.{number % 250}", now_s=100)

    assert 0 < attempts.wait_s("192.168.0.1", now_s=100) <= 10
    assert len(attempts._records) <= 1000
    assert FREE_IN_ALL < 5000


def test_secrets_are_compared_in_a_time_that_tells_nothing() -> None:
    def compares(module: ModuleType, name: str) -> list[str]:
        tree = ast.parse(inspect.getsource(module))
        return [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Compare)
            and any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in node.ops)
            and name in ast.unparse(node)
        ]

    modules = (access, login, security, site)
    unsafe = [
        *(text for word in ("digest", "signature", "key") for text in compares(access, word)),
        *(text for module in modules for text in compares(module, "token")),
        *(text for module in modules for text in compares(module, "csrf")),
    ]

    assert unsafe == []
    assert inspect.getsource(access).count("compare_digest") == 2


# --- changes ------------------------------------------------------------------------------------


def test_a_page_of_ours_may_ask_for_a_change(web: Web) -> None:
    with as_if_running(web.config):
        answer = web.post("/api/rename", RENAME, web.csrf(), ("Origin", f"http://{HOST}"))

    assert (answer.status, answer.json) == (202, {"request": 1})
    assert web.get("/api/requests/1").json["state"] == "new"


HOSTILE: dict[str, Callable[[Web], list[Header]]] = {
    "no token": lambda _: [],
    "an empty token": lambda _: [("X-CSRF-Token", "")],
    "a made-up token": lambda _: [("X-CSRF-Token", f"{int(time.time())}.{'0' * 32}.{'0' * 64}")],
    "another process's token": lambda _: [
        ("X-CSRF-Token", access.make_csrf(access.make_keys(None), "", time.time()))
    ],
    "another session's token": lambda web: [web.csrf("somebody else")],
    "a token of yesterday": lambda web: [
        ("X-CSRF-Token", access.make_csrf(web.site.keys, "", time.time() - 86_500))
    ],
    "a token of tomorrow": lambda web: [
        ("X-CSRF-Token", access.make_csrf(web.site.keys, "", time.time() + 86_400))
    ],
    "a session's cookie for a token": lambda web: [
        ("X-CSRF-Token", access.make_session(web.site.keys, time.time()))
    ],
    "a foreign origin": lambda web: [web.csrf(), ("Origin", "http://evil.example")],
    "another port": lambda web: [web.csrf(), ("Origin", "http://127.0.0.1:3000")],
    "an origin of a sandbox": lambda web: [web.csrf(), ("Origin", "null")],
    "an origin with our name in it": lambda web: [web.csrf(), ("Origin", f"http://x@{HOST}")],
    "two origins": lambda web: [web.csrf()] + [("Origin", f"http://{HOST}")] * 2,
    "another site's page": lambda web: [web.csrf(), ("Sec-Fetch-Site", "cross-site")],
    "a neighbour's page": lambda web: [web.csrf(), ("Sec-Fetch-Site", "same-site")],
    "a bearer where none is asked for": lambda _: [BEARER],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_else_leaves_a_request(web: Web, kind: str) -> None:
    with as_if_running(web.config):
        answer = web.post("/api/rename", RENAME, *HOSTILE[kind](web))

    assert (answer.status, web.requests()) == (403, 0)


def test_who_brings_the_token_itself_needs_no_other(locked: Web) -> None:
    with as_if_running(locked.config):
        alone = locked.post("/api/rename", RENAME, BEARER)
        beside_a_cookie = locked.post("/api/rename", RENAME, BEARER, locked.cookie())
        beside_a_wrong_one = locked.post(
            "/api/rename", RENAME, BEARER, ("Cookie", "imgsortd_session=x")
        )

    assert [a.status for a in (alone, beside_a_cookie, beside_a_wrong_one)] == [202, 403, 403]
    assert locked.requests() == 1


def test_a_token_for_changes_is_of_one_session(locked: Web) -> None:
    cookies = locked.cookie(), locked.cookie()
    ids = [
        access.session_of(locked.site.keys, cookie[1].partition("=")[2], time.time()) or ""
        for cookie in cookies
    ]

    with as_if_running(locked.config):
        own = locked.post("/api/rename", RENAME, cookies[0], locked.csrf(ids[0]))
        others = locked.post("/api/rename", RENAME, cookies[0], locked.csrf(ids[1]))
        nobodys = locked.post("/api/rename", RENAME, cookies[0], locked.csrf(""))

    assert [a.status for a in (own, others, nobodys)] == [202, 403, 403]


def test_each_page_has_another_token_for_changes(web: Web) -> None:
    assert web.csrf() != web.csrf()


def test_a_proxy_that_puts_its_own_host_still_lets_its_pages_ask(
    make: Callable[..., Web],
) -> None:
    web = make(None, ["pictures.example"])

    with as_if_running(web.config):
        ours = web.post("/api/rename", RENAME, web.csrf(), ("Origin", "https://pictures.example"))
        port = web.post(
            "/api/rename", RENAME, web.csrf(), ("Origin", "https://pictures.example:444")
        )

    assert (ours.status, port.status) == (202, 403)


@pytest.mark.parametrize("site_kind", ["cross-site", "same-site", "odd"])
@pytest.mark.parametrize(
    ("mode", "dest"), [("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe"), ("", "")]
)
def test_another_sites_page_cannot_even_see_whether_something_is_there(
    web: Web, site_kind: str, mode: str, dest: str
) -> None:
    headers = [("Sec-Fetch-Site", site_kind), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", dest)]

    statuses = {
        web.get(path, *headers).status
        for path in ("/", "/pictures/1/thumbnail", "/api/requests/1", "/metrics", "/static/1/x")
    }

    assert statuses == {403}


def test_another_sites_page_may_link_to_a_page_but_not_into_the_api(web: Web) -> None:
    link = [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Sec-Fetch-Dest", "document"),
    ]

    assert web.get("/status", *link).status != 403
    assert web.get("/api/requests/1", *link).status == 403


# --- what a request brings ----------------------------------------------------------------------

PARTS = [
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "..%5c..%5cwin.ini",
    "1%00",
    "%00",
    "-1",
    "+1",
    "1.0",
    "1e3",
    "0x1",
    "1%20",
    "%201",
    "1%0a",
    "١",  # a digit of another script
    "%D9%A1",
    "%ff%fe",
    "9223372036854775808",
    "9" * 5000,
    "1;2",
    "1'--",
    "NaN",
    "imgsortd.db",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_number_in_a_path_is_a_number_or_not_found(web: Web, part: str) -> None:
    part = quote(part, safe="%") if not part.isascii() else part
    paths = [
        route.path.replace("{id:row}", part)
        for route in web.app.routes
        if isinstance(route, Route) and "{id:row}" in route.path
    ]

    found = {path: web.get(path).status for path in paths}

    assert len(found) >= 9
    assert set(found.values()) == {404}


@pytest.mark.parametrize("part", [p for p in PARTS if p.isascii()])
def test_a_name_of_a_file_is_one_of_ours_or_not_found(web: Web, part: str) -> None:
    answers = [web.get(f"/static/{part}/{part}"), web.get(f"/static/{part}")]

    assert {answer.status for answer in answers} <= {404, 501}
    assert all(b"root:" not in answer.body and is_bare(answer) for answer in answers)


@pytest.mark.parametrize("value", ["-1", "x", "", "1e3", "٣", "0x10", "1 ", "9" * 30, "5001", "0"])
def test_a_number_in_a_query_is_checked(web: Web, value: str) -> None:
    answer = web.get(f"/api/clusters/1/pictures?limit={quote(value)}")

    assert answer.status == 422
    assert answer.json == {"error": "limit: expected a whole number from 1 to 5000"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "X"])
def test_a_method_that_nothing_has_is_refused(web: Web, method: str) -> None:
    answers = [web.ask(method, path) for path in ("/", "/api/status", "/api/rename", "/nothing")]

    assert {answer.status for answer in answers} == {405}
    assert answers[0].headers["allow"] == "GET, HEAD, POST"


def test_a_change_is_never_made_by_a_get_nor_a_page_shown_by_a_post(web: Web) -> None:
    override = ("X-HTTP-Method-Override", "POST")

    by_get = web.get("/api/rename?cluster_id=1&name=x", override, web.csrf())
    by_post = web.post("/api/status", {}, web.csrf())

    assert (by_get.status, by_post.status, web.requests()) == (405, 405, 0)


def test_a_body_that_is_too_large_is_not_read_to_its_end(web: Web) -> None:
    piece = b"x" * 100_000

    announced = web.ask("POST", "/api/rename", ("Content-Length", "2000000"), web.csrf())
    in_pieces = web.ask(
        "POST",
        "/api/rename",
        ("Content-Type", "application/json"),
        web.csrf(),
        body=[piece] * 11,
    )
    odd = web.ask("POST", "/api/rename", ("Content-Length", "-1"), web.csrf())
    form = web.ask("POST", "/logout", body=[b"csrf=" + piece])

    assert [a.status for a in (announced, in_pieces, odd, form)] == [413, 413, 413, 413]
    assert announced.headers["connection"] == "close"


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/json; charset=utf-7",
        "application/json, text/plain",
        "application/jsonp",
    ],
)
def test_a_change_comes_as_json_which_no_plain_form_can_send(web: Web, kind: str) -> None:
    with as_if_running(web.config):
        answer = web.ask(
            "POST",
            "/api/rename",
            ("Content-Type", kind),
            web.csrf(),
            body=[b'{"cluster_id":1,"name":"x"}'],
        )

    assert (answer.status, web.requests()) == (415, 0)


def test_the_web_process_loads_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    open_for_writing(make_config(tmp_path).database).close()
    program = (
        "import sys; from pathlib import Path; from imgsortd.config import load_config; "
        "from imgsortd.web import server; from imgsortd.web.app import build_app; "
        "from imgsortd.web.access import known_hosts; from imgsortd.web.site import Site; "
        "from imgsortd.web.access import make_keys; "
        "config = load_config(Path(sys.argv[1])); "
        "hosts = known_hosts([], any_address=False, machine='x'); "
        "app = build_app(Site(config, make_keys(None), hosts)); "
        "from starlette.testclient import TestClient; "
        "client = TestClient(app, 'http://127.0.0.1:8420', raise_server_exceptions=False); "
        "client.__enter__(); "
        "[client.get(route.path.replace('{id:row}', '1')) for route in app.routes "
        "if route.path != '/api/events']; "
        "client.__exit__(); "
        "sys.exit(str({'torch', 'torchvision', 'sklearn', 'scipy'} & set(sys.modules) or ''))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "config.yaml"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stderr.strip() == ""
