"""A hash of what a picture looks like: alike pictures have hashes that differ in few bits.

The method is the DCT hash of Zauner (Implementation and Benchmarking of Perceptual Image
Hash Functions, 2010, section 3.2.1), as pHash has it: luma averaged to 32 x 32, a cosine
transform, the 64 lowest frequencies but for the mean, each above their median or not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgsortd.records import Look, Picture, Pixels

HASH_BITS = 64
_SIDE, _LOW = 32, 8
_LUMA = np.array([299, 587, 114], dtype=np.int64)  # ITU-R BT.601, in thousandths


# Rows 1 to 8 of the 32-point DCT-II; row 0 would be the mean.
_DCT = np.cos(np.pi * np.arange(1, _LOW + 1)[:, None] * (2 * np.arange(_SIDE) + 1) / (2 * _SIDE))


def look_of(picture: Picture) -> Look:
    """Return what a picture looks like."""
    return Look(perceptual_hash(picture.pixels), picture.size_px)


def perceptual_hash(pixels: Pixels) -> int:
    """Hash a picture, 0 to 2⁶⁴ - 1.

    All up to the transform is in whole numbers: a picture of one colour has the hash 0, and
    one that is brighter by the same amount everywhere has the same hash. The picture is
    uint8 [224, 224, 3], or any square whose side is a multiple of 32.
    """
    step = len(pixels) // _SIDE
    # Rows first, in whole lines: one sum over both axes takes six times as long.
    rows = pixels.reshape(_SIDE, step, -1).sum(axis=1, dtype=np.uint32)
    blocks = rows.reshape(_SIDE, _SIDE, step, 3).sum(axis=2, dtype=np.int64) @ _LUMA
    waves = _DCT @ (blocks - blocks[0, 0]).astype(np.float64) @ _DCT.T
    above = (waves > np.median(waves)).ravel()
    return int.from_bytes(np.packbits(above).tobytes(), "big")


def differing_bits(
    first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint8]:
    """Return in how many of the 64 bits each hash differs from its counterpart, uint8 [n]."""
    bits: npt.NDArray[np.uint8] = np.bitwise_count(first ^ second)
    return bits
