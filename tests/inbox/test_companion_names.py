"""Companions are paired by name: the stem byte for byte, the extension without case."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.config.model import DEFAULT_COMPANIONS
from imgsortd.inbox.companions import CompanionRule
from imgsortd.names import name_beside, parts

RULE = CompanionRule.of([os.fsencode(ending) for ending in DEFAULT_COMPANIONS])
STEMS = st.binary(min_size=1, max_size=12).filter(lambda stem: not set(stem) & set(b"/\0"))
COMPANIONS = st.sampled_from(
    [b".xmp", b".XMP", b".Mov", b".aae", b".cr2", b".CR2.xmp", b".JPG.xmp"]
)


@pytest.mark.parametrize(
    ("picture", "companion"),
    [
        (b"IMG_1.JPG", b"IMG_1.xmp"),
        (b"IMG_1.JPG", b"IMG_1.XMP"),
        (b"IMG_1.jpg", b"IMG_1.CR2"),
        (b"IMG_1.HEIC", b"IMG_1.MOV"),
        (b"IMG_1.JPG", b"IMG_1.AAE"),
        (b"IMG_1.JPG", b"IMG_1.JPG.xmp"),
        (b"IMG_1.JPG", b"IMG_1.jpg.xmp"),
        (b"IMG_1.JPG", b"IMG_1.CR2.xmp"),
        (b"a/b/IMG_1.JPG", b"a/b/IMG_1.xmp"),
        (b"IMG.1.JPG", b"IMG.1.xmp"),
        (b"IMG_1.DNG", b"IMG_1.xmp"),
        (b"IMG_1.DNG", b"IMG_1.DNG.xmp"),
        (b"photo", b"photo.xmp"),
        (b"\xff\xfe.jpg", b"\xff\xfe.xmp"),
    ],
)
def test_a_file_of_the_same_stem_goes_with_its_picture(picture: bytes, companion: bytes) -> None:
    assert RULE.leads(picture, companion)
    assert RULE.first([picture], companion) == picture
    assert parts(picture)[0] in RULE.stems(companion)


@pytest.mark.parametrize(
    ("picture", "other"),
    [
        (b"IMG_1.JPG", b"IMG_1.JPG"),
        (b"IMG_1.JPG", b"IMG_1.txt"),
        (b"IMG_1.JPG", b"IMG_10.xmp"),
        (b"IMG_1.JPG", b"img_1.xmp"),
        (b"IMG_1.JPG", b"IMG_1xmp"),
        (b"IMG_1.JPG", b"a/IMG_1.xmp"),
        (b"a/IMG_1.JPG", b"b/IMG_1.xmp"),
        (b"IMG_1.PNG", b"IMG_1.JPG.xmp"),
        (b"IMG_1.JPG", b"IMG_1.old.xmp"),
        (b"IMG_1.JPG", b"IMG_1.a.CR2.xmp"),
        (b"a.b/IMG", b"a.xmp"),
    ],
)
def test_any_other_file_does_not(picture: bytes, other: bytes) -> None:
    assert not RULE.leads(picture, other)


def test_of_two_pictures_the_jpeg_has_the_companions_then_heic_then_the_others_by_name() -> None:
    pictures = [b"a.png", b"a.DNG", b"a.HEIC", b"a.JPG", b"a.bmp"]

    order = sorted(pictures, key=lambda picture: RULE.order(picture, b"a.xmp"))

    assert order == [b"a.JPG", b"a.HEIC", b"a.bmp", b"a.png", b"a.DNG"]
    assert RULE.first(pictures, b"a.xmp") == b"a.JPG"
    assert RULE.first(pictures, b"a.png.xmp") == b"a.png"
    assert RULE.first([b"b.jpg"], b"a.xmp") is None


def test_extensions_are_taken_with_and_without_their_dot_in_any_case() -> None:
    rule = CompanionRule.of([b"XMP", b".Mov"])

    assert rule.extensions == {b".xmp", b".mov"}


@pytest.mark.parametrize(
    ("companion", "new", "expected"),
    [
        (b"IMG_1.xmp", b"cluster_7/IMG_1-1.JPG", b"IMG_1-1.xmp"),
        (b"IMG_1.CR2.xmp", b"cluster_7/IMG_1-1.JPG", b"IMG_1-1.CR2.xmp"),
        (b"IMG_1.JPG.xmp", b"cluster_7/IMG_1-2.JPG", b"IMG_1-2.JPG.xmp"),
        (b"cluster_3/IMG_1.MOV", b"cluster_7/IMG_1.JPG", b"IMG_1.MOV"),
        (b"cluster_3/other.MOV", b"cluster_7/IMG_1-1.JPG", b"other.MOV"),
    ],
)
def test_a_companion_takes_the_new_stem_of_its_picture(
    companion: bytes, new: bytes, expected: bytes
) -> None:
    assert name_beside(companion, b"IMG_1.JPG", new) == expected


@given(folder=st.sampled_from([b"", b"a/", b"a.b/c/"]), stem=STEMS, ending=COMPANIONS, new=STEMS)
def test_a_companion_goes_with_its_picture_under_any_name_and_after_any_other(
    folder: bytes, stem: bytes, ending: bytes, new: bytes
) -> None:
    picture, companion = folder + stem + b".JPG", folder + stem + ending
    moved = b"cluster_0/" + new + b".JPG"

    beside = b"cluster_0/" + name_beside(companion, picture, moved)

    assert RULE.leads(picture, companion)
    assert RULE.leads(moved, beside)
    assert name_beside(beside, moved, picture) == companion[len(folder) :]


@given(pictures=st.lists(STEMS, max_size=8), companion=STEMS)
def test_the_order_of_arrival_does_not_decide_whose_companion_it_is(
    pictures: list[bytes], companion: bytes
) -> None:
    names = [stem + ending for stem in pictures for ending in (b".png", b".JPG", b".heic")]
    names += [companion + b".jpg"]

    first = RULE.first(names, companion + b".xmp")

    assert first == RULE.first(reversed(names), companion + b".xmp")
    assert first is not None
    assert RULE.leads(first, companion + b".xmp")
