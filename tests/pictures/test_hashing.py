"""The perceptual hash: same look, same hash; and it is the published transform."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dctn

from imgsortd.pictures.hashing import differing_bits, perceptual_hash
from imgsortd.records import Pixels

SEEDS = st.integers(0, 2**32 - 1)


def picture(seed: int, low: int = 0, high: int = 256, side: int = 224) -> Pixels:
    """Make a picture of soft coloured patches within some levels."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(low, high, (16, 16, 3)).astype(np.uint8)
    return np.kron(patches, np.ones((side // 16, side // 16, 1), dtype=np.uint8))


def bits_between(first: Pixels, second: Pixels) -> int:
    hashes = np.array([[perceptual_hash(first)], [perceptual_hash(second)]], dtype=np.uint64)
    return int(differing_bits(hashes[0], hashes[1])[0])


@given(SEEDS, st.integers(-50, 50))
def test_a_picture_that_is_evenly_brighter_or_darker_has_the_same_hash(
    seed: int, more: int
) -> None:
    pixels = picture(seed, 50, 206)

    brighter = (pixels.astype(int) + more).astype(np.uint8)

    assert perceptual_hash(brighter) == perceptual_hash(pixels)


@given(SEEDS)
def test_a_picture_with_twice_the_contrast_has_the_same_hash(seed: int) -> None:
    pixels = picture(seed, 0, 128)

    assert perceptual_hash(pixels * 2) == perceptual_hash(pixels)


@given(SEEDS)
def test_a_picture_enlarged_by_whole_pixels_has_the_same_hash(seed: int) -> None:
    pixels = picture(seed, side=224)

    larger = pixels.repeat(2, axis=0).repeat(2, axis=1)

    assert perceptual_hash(larger) == perceptual_hash(pixels)


@given(SEEDS)
def test_a_negative_has_the_opposite_hash(seed: int) -> None:
    pixels = picture(seed)

    assert bits_between(pixels, 255 - pixels) >= 60  # but for values at the median


@given(SEEDS)
def test_faint_noise_changes_few_bits(seed: int) -> None:
    pixels = picture(seed, 10, 246)
    noise = np.random.default_rng(seed).integers(-3, 4, pixels.shape)

    assert bits_between(pixels, (pixels + noise).astype(np.uint8)) <= 4


def test_a_picture_of_one_colour_has_the_hash_0() -> None:
    hashes = {
        perceptual_hash(np.full((224, 224, 3), colour, dtype=np.uint8))
        for colour in ((0, 0, 0), (255, 255, 255), (13, 200, 77))
    }

    assert hashes == {0}


@given(SEEDS)
def test_it_is_the_cosine_transform_above_its_median(seed: int) -> None:
    pixels = picture(seed)
    luma = pixels @ np.array([299, 587, 114], dtype=np.int64)
    small = luma.reshape(32, 7, 32, 7).sum(axis=(1, 3)).astype(float)
    waves = dctn(small, type=2)[1:9, 1:9]
    margin = 1e-7 * np.abs(waves).max()

    bits = np.array([bit == "1" for bit in f"{perceptual_hash(pixels):064b}"]).reshape(8, 8)

    far = np.abs(waves - np.median(waves)) > margin
    assert (bits == (waves > np.median(waves)))[far].all()


@given(SEEDS, SEEDS)
def test_pictures_that_look_otherwise_have_hashes_that_differ_in_many_bits(
    one: int, other: int
) -> None:
    if one != other:
        assert bits_between(picture(one), picture(other)) > 7
