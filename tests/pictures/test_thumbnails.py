"""Small pictures are made by confined processes, in the order given, within the room given."""

from __future__ import annotations

import base64
import hashlib
import io
from pathlib import Path

import pytest
from PIL import Image

from imgsortd.pictures.decoder import DecodeLimits, Decoder
from imgsortd.pictures.reading import PicturePool, RootedName, is_there
from imgsortd.pictures.thumbnails import Thumbnail, make_thumbnails
from support import BLUE, GREEN, RED, paint

LIMITS = DecodeLimits()
PLENTY = 10**9


def places(*paths: Path) -> list[RootedName]:
    return [(path.parent, path.name.encode()) for path in paths]


def opened(thumbnail: Thumbnail) -> Image.Image:
    head, _, text = thumbnail.uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_small_picture_looks_like_its_file_and_carries_nothing_else_of_it(
    tmp_path: Path,
) -> None:
    exif = Image.Exif()
    exif[270] = "a note that is nobody's business"
    exif[274] = 6  # the camera was turned
    Image.new("RGB", (900, 300), RED).save(tmp_path / "a.jpg", exif=exif)

    made = make_thumbnails([("a", places(tmp_path / "a.jpg"))], LIMITS, PLENTY)

    image = opened(made.found["a"])
    assert image.size == (made.found["a"].width_px, made.found["a"].height_px) == (107, 320)
    assert image.convert("RGB").getpixel((50, 160))[0] > 190  # type: ignore[index]
    assert dict(image.getexif()) == {}
    assert b"nobody" not in base64.b64decode(made.found["a"].uri.partition(",")[2])


def test_pictures_that_are_gone_or_broken_are_named_with_the_reason(tmp_path: Path) -> None:
    paint(tmp_path / "good.png", GREEN, 0)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "link.png").symlink_to(tmp_path / "good.png")
    wanted = [(name, places(tmp_path / f"{name}.png")) for name in ("gone", "text", "link", "good")]
    told: list[int] = []

    made = make_thumbnails(wanted, LIMITS, PLENTY, told.append)

    assert list(made.found) == ["good"]
    assert made.unread == {
        "gone": "gone",
        "text": "not a picture: it begins like text",
        "link": "gone",  # never followed: it may lead anywhere
    }
    assert told == [1, 2, 3, 4]


def test_a_picture_is_looked_for_in_each_of_its_places(tmp_path: Path) -> None:
    paint(tmp_path / "inbox" / "a.png", BLUE, 0)
    both = places(tmp_path / "a.png", tmp_path / "inbox" / "a.png")

    made = make_thumbnails([("a", both)], LIMITS, PLENTY)

    assert list(made.found) == ["a"]
    assert is_there(both)
    assert not is_there(both[:1])


@pytest.mark.parametrize("fitting", [0, 1, 3])
def test_from_the_first_that_does_not_fit_on_none_is_made(tmp_path: Path, fitting: int) -> None:
    wanted = [
        (number, places(paint(tmp_path / f"{number}.png", RED, number))) for number in range(20)
    ]
    whole = make_thumbnails(wanted, LIMITS, PLENTY)
    lengths = [len(whole.found[number].uri) for number in range(20)]

    made = make_thumbnails(wanted, LIMITS, sum(lengths[: fitting + 1]) - 1)

    assert list(made.found) == list(range(fitting))
    assert made.left_out == 20 - fitting


def test_only_the_file_that_was_sorted_is_decoded_where_its_hash_is_given(tmp_path: Path) -> None:
    changed = paint(tmp_path / "changed.png", RED, 0)
    same = paint(tmp_path / "same.png", GREEN, 0)
    sha256 = hashlib.sha256(same.read_bytes()).digest()
    decoded: list[bytes] = []

    def make(decoder: Decoder, data: bytes) -> int:
        decoded.append(data)
        return len(data)

    with PicturePool(LIMITS) as pool:
        both, one, none = (
            pool.submit(make, places(*paths), sha256).result()
            for paths in ((changed, same), (changed, tmp_path / "gone"), (tmp_path / "gone",))
        )

    assert (both, one, none) == (len(same.read_bytes()), "changed since it was sorted", "gone")
    assert decoded == [same.read_bytes()]
