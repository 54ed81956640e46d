"""What systemd hears, over real datagram sockets."""

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from imgsortd.system.systemd import Notifier


class Listener:
    """Stands in for systemd: a bound datagram socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.settimeout(5)

    def heard(self) -> bytes:
        return self.socket.recv(65536)


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    # A socket's path holds 107 bytes at most, and pytest's folders can be longer.
    monkeypatch.chdir(tmp_path)
    made = Listener("notify")
    yield made
    made.socket.close()


@pytest.fixture
def notifier(listener: Listener) -> Notifier:
    return Notifier("notify")


def test_each_message_is_one_exact_datagram(listener: Listener, notifier: Notifier) -> None:
    notifier.ready("watching /srv/inbox")
    notifier.status("12 pictures waiting")
    notifier.watchdog()
    notifier.reloading(1234567)
    notifier.stopping()

    assert [listener.heard() for _ in range(5)] == [
        b"READY=1\nSTATUS=watching /srv/inbox",
        b"STATUS=12 pictures waiting",
        b"WATCHDOG=1",
        b"RELOADING=1\nMONOTONIC_USEC=1234567",
        b"STOPPING=1",
    ]


def test_the_socket_comes_from_the_environment(tmp_path: Path) -> None:
    address = tmp_path / "s"
    if len(bytes(address)) > 107:
        pytest.skip(f"{address} is longer than the 107 bytes of a socket's path")
    listener = Listener(str(address))

    Notifier.from_environment({"NOTIFY_SOCKET": str(address)}).watchdog()

    assert listener.heard() == b"WATCHDOG=1"
    listener.socket.close()


def test_an_abstract_socket_is_reached() -> None:
    name = f"imgsortd-test-{uuid.uuid4()}"
    listener = Listener(f"\0{name}")

    Notifier.from_environment({"NOTIFY_SOCKET": f"@{name}"}).stopping()

    assert listener.heard() == b"STOPPING=1"
    listener.socket.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_without_a_socket_it_can_use_nothing_is_sent(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})

    notifier.ready("nobody hears this")

    assert notifier == Notifier(address=None, watchdog_interval_s=None)


def test_a_status_cannot_smuggle_in_another_field(listener: Listener, notifier: Notifier) -> None:
    notifier.status("set aside a\nSTOPPING=1\r\n.jpg")

    assert listener.heard() == b"STATUS=set aside a STOPPING=1 .jpg"


def test_a_name_that_is_no_text_does_not_stop_the_status(
    listener: Listener, notifier: Notifier
) -> None:
    notifier.status(f"moved {os.fsdecode(bytes([0xFF]))}.jpg")

    assert listener.heard() == b"STATUS=moved ?.jpg"


def test_a_long_status_is_cut_between_characters(listener: Listener, notifier: Notifier) -> None:
    notifier.ready("x" + "ü" * 5000)

    heard = listener.heard()

    assert heard.startswith(b"READY=1\nSTATUS=x\xc3\xbc")
    assert len(heard.decode()) < 4096


def test_a_missing_listener_is_logged_once_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(str(tmp_path / "gone"))

    with caplog.at_level(logging.DEBUG):
        notifier.ready("started")
        notifier.watchdog()

    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert caplog.messages[0].startswith("notify failed address=")


@pytest.mark.parametrize(
    ("watchdog", "interval_s"),
    [
        ({"WATCHDOG_USEC": "120000000"}, 60.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit_if_it_is_ours(
    watchdog: dict[str, str], interval_s: float | None
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/systemd/notify", **watchdog})

    assert notifier.watchdog_interval_s == interval_s
