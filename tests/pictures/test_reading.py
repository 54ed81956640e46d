"""A file is read once, whole, and only as it was when it settled."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from imgsortd.pictures.reading import MAX_FILE_BYTES, PictureReader
from imgsortd.records import Candidate, Hashed, NotRead, Picture, Skipped, Unreadable
from imgsortd.system import filesystem
from support import RED, paint, read_all


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[PictureReader]:
    reader = PictureReader(tmp_path, threads=2)
    yield reader
    reader.close()


def settled(root: Path, name: bytes) -> Candidate:
    """Return the candidate that a file is now."""
    return Candidate(1, name, filesystem.stamp_of(os.lstat(os.fsencode(root) + b"/" + name)))


def test_hash_and_pixels_are_of_the_same_bytes(tmp_path: Path, reader: PictureReader) -> None:
    data = paint(tmp_path / "deep" / "a.png", RED, 0).read_bytes()

    result = reader.read(settled(tmp_path, b"deep/a.png"))

    assert isinstance(result, Picture)
    assert result.sha256 == hashlib.sha256(data).digest()
    assert result.pixels.shape == (224, 224, 3)
    np.testing.assert_allclose(result.pixels.mean(axis=(0, 1)), RED, atol=10)


def test_a_file_that_is_no_picture_has_its_hash_and_the_reason(
    tmp_path: Path, reader: PictureReader
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"text")

    result = reader.read(settled(tmp_path, b"a.jpg"))

    assert isinstance(result, Unreadable)
    assert result.sha256 == hashlib.sha256(b"text").digest()
    assert result.reason == "not a picture: it begins like text"


def test_a_file_over_the_size_limit_is_not_read_into_memory(
    tmp_path: Path, reader: PictureReader
) -> None:
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate((512 << 20) + 1)  # sparse: takes no room

    result = reader.read(settled(tmp_path, b"a.jpg"))

    assert isinstance(result, Unreadable)
    assert result.reason == "too large: 512 MiB, pictures up to 512 MiB are read"


def test_a_file_that_went_is_gone(tmp_path: Path, reader: PictureReader) -> None:
    (tmp_path / "deep").mkdir()
    candidates = []
    for name in ("a.png", "deep/b.png"):
        paint(tmp_path / name, RED, 0)
        candidates.append(settled(tmp_path, name.encode()))
        (tmp_path / name).unlink()
    (tmp_path / "deep").rmdir()

    results = [reader.read(candidate) for candidate in candidates]

    assert [result.why for result in results if isinstance(result, Skipped)] == [NotRead.GONE] * 2


@pytest.mark.parametrize("change", ["longer", "touched", "replaced", "symlink", "fifo", "folder"])
def test_a_file_that_is_not_as_it_settled_is_changed(
    tmp_path: Path, reader: PictureReader, change: str
) -> None:
    file = paint(tmp_path / "a.png", RED, 0)
    candidate = settled(tmp_path, b"a.png")
    times = file.stat()
    if change == "longer":
        file.write_bytes(file.read_bytes() + b"more")
    elif change == "touched":
        os.utime(file, (1, 1))
    else:
        file.rename(tmp_path / "away")
    if change == "replaced":
        (tmp_path / "b").write_bytes((tmp_path / "away").read_bytes())
        (tmp_path / "b").rename(file)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "symlink":
        file.symlink_to("away")
    elif change == "fifo":
        os.mkfifo(file)
    elif change == "folder":
        file.mkdir()

    result = reader.read(candidate)

    assert isinstance(result, Skipped)
    assert result.why is NotRead.CHANGED


@pytest.mark.usefixtures("leases_allowed")
def test_a_file_that_somebody_still_has_open_for_writing_is_busy(
    tmp_path: Path, reader: PictureReader
) -> None:
    file = paint(tmp_path / "a.png", RED, 0)
    candidate = settled(tmp_path, b"a.png")
    with open(file, "ab"):
        busy = reader.read(candidate)
    if isinstance(busy, Picture):
        pytest.skip("no leases on this filesystem")

    free = reader.read(candidate)

    assert isinstance(busy, Skipped)
    assert busy.why is NotRead.BUSY
    assert isinstance(free, Picture)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that all may list; pytest's own are root's alone."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.usefixtures("leases_allowed")
def test_a_file_of_another_owner_that_the_kernel_says_nothing_of_wants_patience(
    open_folder: Path, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another owner")
    os.chown(paint(open_folder / "a.png", RED, 0), 65_533, 65_533)
    candidate = settled(open_folder, b"a.png")
    reader = PictureReader(open_folder, threads=1)
    reader.read(replace(candidate, is_patient=True))  # starts the decoder, as root
    request.getfixturevalue("without_rights")

    unasked = reader.read(candidate)
    taken = reader.read(replace(candidate, is_patient=True))

    reader.close()

    assert unasked == Skipped(candidate, NotRead.UNASKED)
    assert isinstance(taken, Picture)


@pytest.fixture
def without_rights() -> Iterator[None]:
    """Be nobody for a while where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    yield
    os.seteuid(0)


def test_a_file_that_may_not_be_read_is_denied(
    tmp_path: Path, reader: PictureReader, request: pytest.FixtureRequest
) -> None:
    paint(tmp_path / "a.png", RED, 0).chmod(0)
    candidate = settled(tmp_path, b"a.png")
    request.getfixturevalue("without_rights")

    result = reader.read(candidate)

    assert result == Skipped(candidate, NotRead.DENIED, "Permission denied")


def test_results_come_in_the_order_of_the_candidates(tmp_path: Path, reader: PictureReader) -> None:
    big, small = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(big, "PNG")
    Image.new("RGB", (3, 3)).save(small, "PNG")
    for number in range(6):
        data = (big if number % 2 == 0 else small).getvalue()
        (tmp_path / f"{number}.png").write_bytes(data)
    candidates = [settled(tmp_path, b"%d.png" % number) for number in range(6)]

    results = read_all(reader, candidates)

    assert [result.candidate for result in results] == candidates


def test_a_film_is_hashed_whole_though_no_picture_may_be_so_large(
    tmp_path: Path, reader: PictureReader
) -> None:
    with open(tmp_path / "a.mov", "wb") as film:
        film.write(b"film")
        film.truncate(MAX_FILE_BYTES + 1)  # a hole: it takes no room
    candidate = settled(tmp_path, b"a.mov")

    result = reader.submit_hash(candidate).result()

    with open(tmp_path / "a.mov", "rb") as film:
        assert result == Hashed(candidate, hashlib.file_digest(film, "sha256").digest())


def test_only_a_finished_file_is_hashed(tmp_path: Path, reader: PictureReader) -> None:
    (tmp_path / "a.xmp").write_bytes(b"sidecar")
    candidate = settled(tmp_path, b"a.xmp")
    (tmp_path / "a.xmp").write_bytes(b"longer than before")

    changed = reader.hash(candidate)
    (tmp_path / "a.xmp").unlink()
    gone = reader.hash(candidate)

    assert changed == Skipped(candidate, NotRead.CHANGED)
    assert isinstance(gone, Skipped)
    assert gone.why is NotRead.GONE
