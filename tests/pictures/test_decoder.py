"""A picture can take down, hold up or fill the process that decodes it, and nothing else."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from imgsortd.errors import PictureError
from imgsortd.pictures.decoder import REPLY, SIZES, Answer, DecodeLimits, Decoder, NoDecoderError
from imgsortd.pictures.pixels import decode, decode_sized
from support import RED, paint, wait_until

pytestmark = pytest.mark.usefixtures("started_decoders")


@pytest.fixture
def red(tmp_path: Path) -> bytes:
    return paint(tmp_path / "red.png", RED, 0).read_bytes()


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeLimits())
    yield decoder
    decoder.close()


def pid_of(decoder: Decoder) -> int:
    assert decoder._worker is not None
    return decoder._worker.process.pid


def png(width: int, height: int) -> bytes:
    """Return a PNG of zeros: a few kilobytes that decode to width x height x 3."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = zlib.compress(bytes((1 + 3 * width) * height), 9)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_pixels_are_those_of_decoding_here(decoder: Decoder, red: bytes) -> None:
    np.testing.assert_array_equal(decoder.decode(red), decode(red))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((900, 300), (33, 100)), ((300, 900), (100, 33)), ((90, 30), (30, 90))],
)
def test_a_whole_picture_keeps_its_sides_ratio_within_the_side_asked_for(
    decoder: Decoder, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, RED).save(file, "PNG")

    pixels = decoder.decode_sized(file.getvalue(), 100)[0]

    assert pixels.shape == (*expected, 3)
    np.testing.assert_array_equal(pixels, decode_sized(file.getvalue(), 100)[0])
    assert decoder.decode(file.getvalue()).shape == (224, 224, 3)


def test_a_whole_picture_stands_upright_as_its_camera_noted(decoder: Decoder) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6  # the camera was turned
    Image.new("RGB", (300, 100), RED).save(file, "JPEG", exif=exif)

    height, width, _ = decoder.decode_sized(file.getvalue(), 90)[0].shape

    assert (height, width) == (90, 30)


def test_with_the_pixels_comes_the_size_that_the_picture_has_upright(decoder: Decoder) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6
    Image.new("RGB", (2101, 1500), RED).save(file, "JPEG", exif=exif)
    data = file.getvalue()

    _, size_px = decoder.decode_sized(data)
    pixels, size_of_whole_px = decoder.decode_sized(data, 100)

    assert size_px == size_of_whole_px == (1500, 2101)
    assert pixels.shape == (100, 71, 3)


def test_what_is_no_picture_is_refused_in_the_same_words(decoder: Decoder, red: bytes) -> None:
    for data in (b"", b"%PDF-1.7 \xff", red[:-40], b"\xff\xd8\xff\xe0"):
        with pytest.raises(PictureError) as here:
            decode(data)

        with pytest.raises(PictureError) as there:
            decoder.decode(data)

        assert str(there.value) == str(here.value)


def test_one_process_decodes_many(decoder: Decoder, red: bytes) -> None:
    decoder.decode(red)
    pid = pid_of(decoder)

    for _ in range(20):
        decoder.decode(red)

    assert pid_of(decoder) == pid


def test_a_picture_that_takes_too_long_is_refused_and_the_next_is_decoded(red: bytes) -> None:
    decoder = Decoder(DecodeLimits(max_s=1))
    decoder.decode(red)
    os.kill(pid_of(decoder), signal.SIGSTOP)  # as good as a decoder in an endless loop

    with pytest.raises(PictureError, match=r"^takes over 1 s to decode \(pictures.max_decode_s\)$"):
        decoder.decode(red)

    assert decoder.decode(red).shape == (224, 224, 3)
    decoder.close()


def test_a_picture_that_needs_too_much_memory_is_refused_and_the_next_is_decoded(
    red: bytes,
) -> None:
    decoder = Decoder(DecodeLimits(max_megapixels=1000, max_memory_mb=128))

    with pytest.raises(PictureError, match=r"^needs over 128 MB .*pictures.max_decode_memory_mb"):
        decoder.decode(png(10_000, 10_000))

    assert decoder.decode(red).shape == (224, 224, 3)
    decoder.close()


def test_a_process_that_dies_once_is_not_the_pictures_fault(decoder: Decoder, red: bytes) -> None:
    decoder.decode(red)
    os.kill(pid_of(decoder), signal.SIGKILL)  # the system, short of memory

    assert decoder.decode(red).shape == (224, 224, 3)


def test_a_picture_that_kills_the_process_twice_is_refused(
    red: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(crashing_python(tmp_path)))
    decoder = Decoder(DecodeLimits())

    with pytest.raises(PictureError, match=r"^crashes the decoder \(SIGSEGV\)$"):
        decoder.decode(red)

    decoder.close()


def crashing_python(folder: Path) -> Path:
    """Return a program that is ready for pictures and dies of the first byte."""
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, signal, socket, sys\n"
        "peer = socket.socket(fileno=int(sys.argv[4]))\n"
        f"peer.send({REPLY.pack(Answer.READY.value, 0)!r})\n"
        "peer.recv(1)\n"
        "os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    program.chmod(0o700)
    return program


@pytest.mark.parametrize(
    "answer",
    [
        REPLY.pack(99, 0),
        REPLY.pack(Answer.PIXELS.value, 2**31),
        REPLY.pack(Answer.PIXELS.value, 3),
        REPLY.pack(Answer.REFUSED.value, 2**31),
    ],
)
def test_a_process_that_was_taken_over_can_only_say_nonsense(
    red: bytes, answer: bytes, decoder: Decoder
) -> None:
    decoder.decode(red)
    assert decoder._worker is not None
    ours, theirs = socket.socketpair()
    decoder._worker._socket.close()
    decoder._worker._socket = ours
    theirs.sendall(answer)

    pixels = decoder.decode(red)  # by another process

    assert pixels.shape == (224, 224, 3)
    theirs.close()


@pytest.mark.parametrize(
    "sizes",
    [
        (50, 51, 64, 64),
        (1000, 1, 64, 64),
        (0, 0, 64, 64),
        (20, 20, 64, 64),
        (224, 224, 64, 64),
        (50, 50, 0, 64),
        (50, 50, 64, 0),
    ],
)
def test_a_process_that_was_taken_over_can_give_no_size_but_one_asked_for(
    red: bytes, sizes: tuple[int, ...], decoder: Decoder
) -> None:
    decoder.decode(red)
    assert decoder._worker is not None
    ours, theirs = socket.socketpair()
    decoder._worker._socket.close()
    decoder._worker._socket = ours
    payload = SIZES.pack(*sizes) + bytes(3 * 50 * 50)
    theirs.sendall(REPLY.pack(Answer.PIXELS.value, len(payload)) + payload)

    pixels = decoder.decode_sized(red, 50)[0]  # by another process

    assert pixels.shape == (50, 50, 3)
    assert pixels.mean(axis=(0, 1)).argmax() == 0
    theirs.close()


def test_a_program_that_cannot_be_started_is_no_pictures_fault(
    red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(DecodeLimits())
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(NoDecoderError, match="cannot start a decoding process"):
        decoder.decode(red)

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NoDecoderError, match=r"did not start \(exit code 1\)"):
        decoder.decode(red)

    monkeypatch.undo()
    assert decoder.decode(red).shape == (224, 224, 3)
    decoder.close()


def test_a_close_ends_a_decode_under_way(red: bytes, decoder: Decoder) -> None:
    decoder.decode(red)
    os.kill(pid_of(decoder), signal.SIGSTOP)
    errors: list[Exception] = []

    def work() -> None:
        try:
            decoder.decode(red)
        except NoDecoderError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(decoder._in_use.locked, what="the picture is being decoded")

    decoder.close()

    thread.join(30)
    assert len(errors) == 1


def test_a_rest_ends_the_process_until_it_is_needed(red: bytes, decoder: Decoder) -> None:
    decoder.decode(red)
    process = psutil.Process(pid_of(decoder))

    decoder.rest()

    assert not process.is_running()
    assert decoder.decode(red).shape == (224, 224, 3)


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path, red: bytes) -> None:
    code = (
        "import sys, time\n"
        "from imgsortd.pictures.decoder import DecodeLimits, Decoder\n"
        "decoder = Decoder(DecodeLimits())\n"
        "decoder.decode(sys.stdin.buffer.read())\n"
        "print(decoder._worker.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(red)
    parent.stdin.close()
    worker = psutil.Process(int(parent.stdout.readline()))
    os.kill(worker.pid, signal.SIGSTOP)  # it cannot see its socket close

    parent.kill()

    wait_until(lambda: is_dead(worker), what="the worker is dead")
    parent.wait()
    parent.stdout.close()


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_process_holds_no_descriptor_of_ours(
    decoder: Decoder, red: bytes, tmp_path: Path
) -> None:
    with open(tmp_path / "secret", "wb") as secret:
        decoder.decode(red)

        held = [os.readlink(fd) for fd in Path(f"/proc/{pid_of(decoder)}/fd").iterdir()]

    assert secret.name not in held
    assert sorted({name.partition(":")[0] for name in held}) == ["/dev/null", "socket"]


def test_text_that_unpacks_to_64_megabytes_takes_no_memory_for_it(tmp_path: Path) -> None:
    seed = paint(tmp_path / "a.png", RED, 1).read_bytes()
    text = b"Comment\0\0" + zlib.compress(bytes(64 << 20), 9)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    bomb = seed[:33] + chunk * 8 + seed[33:]  # behind IHDR; half a gigabyte in all
    decoder = Decoder(DecodeLimits(max_memory_mb=128))

    try:
        outcome = str(decoder.decode(bomb).shape)
    except PictureError as error:
        outcome = str(error)
    decoder.close()

    assert outcome.startswith(("(224, 224, 3)", "damaged PNG: ")), outcome
    assert "needs over" not in outcome
