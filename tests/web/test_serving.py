"""``imgsortd web`` as a process: when it starts, what it does with odd bytes, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import warm
from imgsortd.store.database import open_for_writing
from imgsortd.web.security import HEADERS
from support import make_config, run_cli, wait_until
from web_asking import TOKEN

LINE = b"GET /api/requests/1 HTTP/1.1\r\n"
HOST = b"Host: 127.0.0.1\r\n"


class WebProcess:
    """A page that is served by a process of its own."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        self.folder = folder
        with open(folder / "web.log", "wb") as log:
            config = str(folder / "config.yaml")
            command = [warm.QUICK, "web", "-c", config, "--port", "0", *options]
            self.process, self.stdout = warm.start_to_read(command, log, environ)
        self.said = self.stdout.readline().decode().strip()

    @property
    def log(self) -> str:
        return (self.folder / "web.log").read_text()

    @property
    def port(self) -> int:
        assert self.said.startswith("open http://"), self.said + self.log
        return int(self.said.rstrip("/").rpartition(":")[2])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes, and return all that comes until the other side closes."""
        with closing(self.connect()) as connection:
            with suppress(ConnectionError):  # it may close before it has read all
                connection.sendall(sent)
            return read_to_end(connection)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def read_to_end(connection: socket.socket) -> bytes:
    came = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            came += piece
    return came


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., WebProcess]]:
    """Serve an empty library; killed at the end."""
    made: list[WebProcess] = []

    def serve(*options: str, environ: dict[str, str] | None = None, **web: object) -> WebProcess:
        config = make_config(tmp_path, web=web)
        open_for_writing(config.database).close()
        made.append(WebProcess(tmp_path, *options, **(environ or {})))
        return made[-1]

    yield serve
    for process in made:
        process.process.kill()
        process.process.wait(20)
        process.stdout.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o640)
    return path


# --- beginning and end --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_though_pages_are_open(serve: Callable[..., WebProcess], number: int) -> None:
    web = serve()
    listeners = [web.connect() for _ in range(3)]
    for listener in listeners:
        listener.sendall(b"GET /api/events HTTP/1.1\r\n" + HOST + b"\r\n")
        while b"event: pulse" not in listener.recv(65_536):
            pass

    code = web.stop(number)

    assert code == 0
    assert [read_to_end(listener)[-5:] for listener in listeners] == [b"0\r\n\r\n"] * 3
    assert "Traceback" not in web.log
    assert "ERROR" not in web.log


def test_systemd_is_told_when_it_answers(serve: Callable[..., WebProcess], tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        web = serve(environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})

        said = systemd.recv(4096).decode()
        web.stop()
        last = systemd.recv(4096).decode()

    assert said == f"READY=1\nSTATUS=serving http://127.0.0.1:{web.port}/"
    assert last == "STOPPING=1"


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    make_config(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]

        done = run_cli("web", "-c", tmp_path / "config.yaml", "--port", str(port))

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: another program listens" in done.stderr


@pytest.mark.parametrize(
    ("options", "web", "code", "text"),
    [
        (["--host", "0.0.0.0"], {}, 78, "web.token_file must be the path of a file"),
        (["--host", "::"], {}, 78, "web.token_file must be the path of a file"),
        ([], {"allowed_hosts": ["pictures.example"]}, 78, "reach the page through the proxy"),
        (["--host", "no such host"], {}, 2, "expected an address of this machine"),
        (["--host", "192.0.2.1"], {"token_file": "token"}, 1, "no such address"),
        (["--port", "65536"], {}, 2, "65535"),
        ([], {"token_file": "nothing"}, 78, "cannot be read"),
        ([], {"token_file": "."}, 78, "expected a regular file"),
        ([], {"token_file": "fifo"}, 78, "expected a regular file"),
        ([], {"token_file": "readable"}, 78, "chmod 640"),
        ([], {"token_file": "short"}, 78, "at least 16 characters, got 15"),
        ([], {"token_file": "two words"}, 78, "one word of printable ASCII"),
        ([], {"token_file": "umlaut"}, 78, "one word of printable ASCII"),
        ([], {"allowed_hosts": ["https://x"]}, 78, "a list of host names"),
        ([], {"allowed_hosts": ["x:80"]}, 78, "a list of host names"),
        ([], {"allowed_hosts": ["*"]}, 78, "a list of host names"),
        ([], {"thumbnails_mb": 5}, 78, "megabytes from 10"),
    ],
)
def test_what_cannot_be_served_safely_is_not_served(
    tmp_path: Path,
    token_file: Path,
    options: list[str],
    web: dict[str, object],
    code: int,
    text: str,
) -> None:
    texts = {
        "readable": TOKEN,
        "short": "x" * 15,
        "two words": "one two three four five",
        "umlaut": "ä" * 20,
    }
    for name, content in texts.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o644 if name == "readable" else 0o600)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "config.yaml").write_text("")
    write_config(tmp_path, web)

    done = run_cli("web", "-c", tmp_path / "config.yaml", "--port", "0", *options)

    assert done.returncode == code, done.stderr
    assert text in " ".join(done.stderr.split())
    assert done.stdout == ""


def write_config(folder: Path, web: dict[str, object]) -> None:
    """Write a configuration as a person would, right or wrong."""
    import yaml

    data = {name: str(folder / name) for name in ("inbox", "target", "state_dir")}
    for path in data.values():
        Path(path).mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**data, "web": web}))


def test_with_a_token_others_may_reach_it(
    serve: Callable[..., WebProcess], token_file: Path
) -> None:
    web = serve("--host", "0.0.0.0", token_file=str(token_file))

    without = web.exchange(LINE + HOST + b"Connection: close\r\n\r\n")
    bearer = f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n".encode()
    given = web.exchange(LINE + HOST + bearer)
    evil = web.exchange(LINE + b"Host: evil.example\r\n" + bearer)

    assert without.startswith(b"HTTP/1.1 401")
    assert given.startswith(b"HTTP/1.1 404")
    assert evil.startswith(b"HTTP/1.1 421")
    assert TOKEN not in web.log


def test_a_proxy_on_this_machine_says_that_it_speaks_https(
    serve: Callable[..., WebProcess], token_file: Path
) -> None:
    web = serve(token_file=str(token_file), allowed_hosts=["pictures.example"])
    form = f"token={TOKEN}".encode()
    head = (
        b"POST /login HTTP/1.1\r\nHost: pictures.example\r\nOrigin: https://pictures.example\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
        + f"Content-Length: {len(form)}\r\n".encode()
    )

    by_https = web.exchange(head + b"X-Forwarded-Proto: https\r\n\r\n" + form)
    by_http = web.exchange(head + b"\r\n" + form)

    assert b"SameSite=strict; Secure" in by_https
    assert by_http.startswith(b"HTTP/1.1 303")
    assert b"Secure" not in by_http


def test_a_missing_package_is_named_with_what_to_type(tmp_path: Path) -> None:
    write_config(tmp_path, {})
    program = (
        "import sys; from importlib.machinery import PathFinder\n"
        "class Hide:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'starlette': raise ModuleNotFoundError(name)\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'starlette' else find(name, *a)\n"
        "from imgsortd.__main__ import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, "web", "-c", tmp_path / "config.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 78
    assert "pip install 'imgsortd[web]'" in done.stderr


# --- odd bytes ----------------------------------------------------------------------------------

CLOSE = b"Connection: close\r\n"
POST = b"POST /api/rename HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
ODD = {
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 46\r\n\r\n" + SMUGGLED,
    "a list of lengths": POST + b"Content-Length: 0, 46\r\n\r\n" + SMUGGLED,
    "length and chunks": POST
    + b"Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunks and length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "an unknown encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two encodings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a signed length": POST + b"Content-Length: +5\r\n\r\nhello" + SMUGGLED,
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello" + SMUGGLED,
    "a length with space before the colon": POST + b"Content-Length : 46\r\n\r\n" + SMUGGLED,
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + SMUGGLED,
    "a chunk of a huge size": POST
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"f" * 30
    + b"\r\n"
    + SMUGGLED,
    "no host": LINE + b"\r\n",
    "two hosts": LINE + HOST + b"Host: evil.example\r\n\r\n",
    "a NUL in a header": LINE + HOST + b"X: a\0b\r\n\r\n",
    "a line break in a name": LINE + HOST + b"X\n: a\r\n\r\n",
    "a space in the path": b"GET / HTTP/1.1 HTTP/1.1\r\n" + HOST + b"\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60 + b"\r\n\r\n",
    "HTTP/0.9": b"GET /api/requests/1\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "headers without end": LINE + HOST + b"X: " + b"a" * 200_000,
    "a name without end": b"G" * 200_000,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """Return a page that many tests ask, none of which may end it."""
    folder = tmp_path_factory.mktemp("served")
    open_for_writing(make_config(folder).database).close()
    web = WebProcess(folder)
    yield web
    assert web.stop() == 0
    assert web.log.count("\n") == 2, web.log
    web.stdout.close()


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_plain_http_is_refused_and_the_connection_closed(
    served: WebProcess, kind: str
) -> None:
    answer = served.exchange(ODD[kind])

    assert len(re.findall(rb"HTTP/1\.1 \d", answer)) <= 1, (
        "what came behind it was taken for a request"
    )
    status = answer.split(b" ")[1:2]
    assert status in ([], [b"400"], [b"413"], [b"431"], [b"501"])
    if answer:
        head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
        assert [name for name in HEADERS if f"{name}: ".lower() not in head] == []
        assert "connection: close" in head
        assert "server:" not in head


def test_requests_behind_one_another_are_answered_in_order(served: WebProcess) -> None:
    answer = served.exchange(LINE + HOST + b"\r\n" + LINE + HOST + CLOSE + b"\r\n")

    assert answer.count(b"HTTP/1.1 404 Not Found") == 2


def test_a_head_is_answered_like_a_get_without_its_body(served: WebProcess) -> None:
    get = served.exchange(LINE + HOST + CLOSE + b"\r\n")
    head = served.exchange(LINE.replace(b"GET", b"HEAD") + HOST + CLOSE + b"\r\n")

    assert get.startswith(head[: head.index(b"\r\ndate")])
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 33" in head


def test_a_body_without_end_is_cut_off(served: WebProcess) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

    with closing(served.connect()) as connection:
        connection.sendall(
            POST.replace(b"/api/rename", b"/login") + b"Transfer-Encoding: chunked\r\n"
        )
        connection.sendall(b"\r\n")
        with suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(chunk)
        answer = read_to_end(connection)

    assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 415", b"HTTP/1.1 303", b"")


def test_a_websocket_is_no_way_in(served: WebProcess) -> None:
    upgrade = (
        b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )

    answer = served.exchange(LINE + HOST + upgrade)

    assert answer.startswith(b"HTTP/1.1 404")


def test_it_goes_on_answering_beside_connections_that_send_nothing(served: WebProcess) -> None:
    silent = [served.connect() for _ in range(50)]
    half = [served.connect() for _ in range(50)]
    for connection in half:
        connection.sendall(LINE + b"Host: 127.")

    answer = served.exchange(LINE + HOST + CLOSE + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 404")
    for connection in (*silent, *half):
        connection.close()


def test_more_connections_than_there_may_be_are_refused(served: WebProcess) -> None:
    held = [served.connect() for _ in range(260)]
    refused: list[bytes] = []

    def some_are_refused() -> bool:
        for connection in [one for one in held if one.fileno() >= 0]:
            connection.setblocking(False)
            with suppress(BlockingIOError, ConnectionError):
                if piece := connection.recv(65_536):
                    refused.append(piece)
                    connection.close()
        return len(refused) >= 50

    wait_until(some_are_refused, what="connections above the limit refused")
    for connection in held:
        connection.close()

    assert {piece[:12] for piece in refused} == {b"HTTP/1.1 503"}
    assert b"content-security-policy" in refused[0].lower()

    def is_free() -> bool:
        with suppress(ConnectionError):
            return served.exchange(LINE + HOST + CLOSE + b"\r\n").startswith(b"HTTP/1.1 404")
        return False

    wait_until(is_free, what="the page answers again")
