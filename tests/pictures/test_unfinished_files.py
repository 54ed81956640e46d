"""Half a file looks unfinished, whole ones do not: every variant of every format."""

from __future__ import annotations

import pytest

from imgsortd.errors import IncompleteError, PictureError
from imgsortd.pictures.formats import looks_unfinished
from imgsortd.pictures.pixels import decode
from picture_seeds import KINDS, seeds_of

SEEDS = [(kind, variant, data) for kind in KINDS for variant, data in seeds_of(kind).items()]
IDS = [f"{kind} {variant}" for kind, variant, _ in SEEDS]


def seems_unfinished(data: bytes) -> bool:
    """Ask as the reader does: the structure first, then the decoder."""
    if looks_unfinished(data):
        return True
    try:
        decode(data)
    except IncompleteError:
        return True
    except PictureError:
        return False
    return False


@pytest.mark.parametrize(("kind", "variant", "data"), SEEDS, ids=IDS)
def test_a_whole_picture_looks_whole(kind: str, variant: str, data: bytes) -> None:
    assert looks_unfinished(data) == ""


@pytest.mark.parametrize(("kind", "variant", "data"), SEEDS, ids=IDS)
def test_a_picture_that_is_cut_in_half_looks_unfinished(
    kind: str, variant: str, data: bytes
) -> None:
    if variant in ("with further images", "pages"):
        pytest.skip("its first picture is whole before the cut")

    assert seems_unfinished(data[: len(data) // 2])


@pytest.mark.parametrize(("kind", "variant", "data"), SEEDS, ids=IDS)
def test_a_picture_with_room_laid_out_for_its_second_half_looks_unfinished(
    kind: str, variant: str, data: bytes
) -> None:
    half = len(data) // 2
    if variant in ("with further images", "pages"):
        pytest.skip("its first picture is whole before the cut")
    if kind in ("TIFF", "BMP") and half <= 4096:
        pytest.skip("so few zeros may be black pixels")

    assert seems_unfinished(data[:half] + bytes(len(data) - half))


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_trailer_that_a_camera_appends_is_no_sign(kind: str) -> None:
    for data in seeds_of(kind).values():
        assert looks_unfinished(data + b"SEFHe\0\0\0\1\0\0\0trailer of a camera") == ""


@pytest.mark.parametrize("data", [b"", b"no picture", b"GIF89a", b"II*\0", b"\0\0\0\x18ftypheic"])
def test_the_shortest_files_have_an_answer(data: bytes) -> None:
    assert isinstance(looks_unfinished(data), str)
