"""Small valid pictures of every promised format, in the variants that its decoder has code for."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TypeAlias

import numpy as np
import pillow_heif
from PIL import Image, features

Variant: TypeAlias = tuple[Image.Image, dict[str, object]]

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF")
_WIDTH, _HEIGHT = 64, 48
# Adam7: where each pass begins, and its steps (PNG specification, 8.2).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_PASSES += ((0, 1, 1, 2),)

pillow_heif.register_heif_opener()


def seeds_of(kind: str) -> dict[str, bytes]:
    """Return pictures of a format by the name of their variant."""
    noise = np.random.default_rng(0).integers(0, 256, (_HEIGHT, _WIDTH, 4), dtype=np.uint8)
    noise[8:40, 8:56] = (200, 80, 40, 128)  # a plain part, too: noise alone compresses oddly
    rgba = Image.fromarray(noise)
    made = {name: _encode(kind, *variant) for name, variant in _variants(kind, rgba).items()}
    pixels = np.asarray(rgba.convert("RGB"))
    if kind == "PNG":
        made["interlaced"] = _interlaced_png(pixels)
    if kind == "TIFF":
        made["tiled"] = _tiled_tiff(pixels)
    return made


def _encode(kind: str, image: Image.Image, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    image.save(file, options.pop("format", kind), **options)
    return file.getvalue()


def _variants(kind: str, rgba: Image.Image) -> dict[str, Variant]:
    rgb = rgba.convert("RGB")
    grey, one_bit = rgb.convert("L"), rgb.convert("1")
    exif = rgb.getexif()
    exif[274] = 6
    more: dict[str, object] = {"save_all": True, "append_images": [rgb.rotate(90)] * 3}
    numbers = np.arange(_WIDTH * _HEIGHT).reshape(_HEIGHT, _WIDTH)
    sixteen = Image.fromarray((numbers * 21 % 65536).astype(np.uint16))
    real = Image.fromarray(numbers.astype(np.float32))
    variants: dict[str, dict[str, Variant]] = {
        "JPEG": {
            "upright by EXIF": (rgb, {"exif": exif}),
            "progressive": (rgb, {"progressive": True}),
            "grey": (grey, {}),
            "grey progressive": (grey, {"progressive": True}),
            "CMYK": (rgb.convert("CMYK"), {"quality": 30}),
            "full chroma": (rgb, {"subsampling": 0}),
            "restart markers": (rgb, {"restart_marker_blocks": 2}),
            "with further images": (rgb, {"format": "MPO", **more}),
            "with a profile": (rgb, {"icc_profile": bytes(range(256)) * 8}),
        },
        "PNG": {
            "alpha": (rgba, {}),
            "colours": (rgb, {}),
            "palette": (rgb.convert("P"), {}),
            "palette with a transparent colour": (rgb.convert("P"), {"transparency": 3}),
            "16 bits": (sixteen, {}),
            "grey and alpha": (rgba.convert("LA"), {}),
            "1 bit": (one_bit, {}),
            "animated": (rgb, more),
        },
        "WEBP": {
            "alpha": (rgba, {}),
            "lossless": (rgb, {"lossless": True}),
            "animated": (rgb, more),
            "animated with alpha": (rgba, {**more, "lossless": True}),
        },
        "GIF": {
            "interlaced": (rgb, {"interlace": 1}),
            "plain": (rgb, {"interlace": 0}),
            "animated": (rgb, more),
            "transparent": (rgba, {}),
            "grey": (grey, {}),
        },
        "TIFF": {
            "raw": (rgb, {}),
            "LZW": (rgb, {"compression": "tiff_lzw"}),
            "deflate": (rgba, {"compression": "tiff_adobe_deflate"}),
            "packed bits": (grey, {"compression": "packbits"}),
            "JPEG": (rgb, {"compression": "jpeg"}),
            "fax": (one_bit, {"compression": "group4"}),
            "pages": (rgb, {**more, "compression": "tiff_lzw"}),
            "16 bits": (sixteen, {}),
            "real numbers": (real, {}),
            "CMYK": (rgb.convert("CMYK"), {}),
            "palette": (rgb.convert("P"), {}),
        },
        "BMP": {
            "colours": (rgb, {}),
            "alpha": (rgba, {}),
            "palette": (rgb.convert("P"), {}),
            "1 bit": (one_bit, {}),
        },
        "HEIF": {
            "colours": (rgb, {"quality": 50}),
            "alpha": (rgba, {"quality": 50}),
            "grey": (grey, {"quality": 50}),
            "several": (rgb, {**more, "quality": 50}),
        },
        "AVIF": {
            "colours": (rgb, {"quality": 50}),
            "alpha": (rgba, {"quality": 50}),
            "full chroma": (rgb, {"quality": 50, "subsampling": "4:4:4"}),
            "animated": (rgb, {**more, "quality": 50}),
        },
    }
    if kind == "AVIF" and not features.check("avif"):
        return {}
    return variants[kind]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _interlaced_png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Write what Pillow reads and does not write: a PNG in seven passes."""
    rows = [
        b"\0" + row.tobytes()
        for x, y, step_x, step_y in _PASSES
        for row in pixels[y::step_y, x::step_x]
    ]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _tiled_tiff(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Write what Pillow reads and does not write: a TIFF of 16 x 16 tiles, deflated."""
    height, width = pixels.shape[:2]
    tiles = [
        zlib.compress(pixels[y : y + 16, x : x + 16].tobytes())
        for y in range(0, height, 16)
        for x in range(0, width, 16)
    ]
    data, offsets = bytearray(8), []
    for tile in tiles:
        offsets.append(len(data))
        data += tile
    bits_at = len(data)
    data += struct.pack("<HHH", 8, 8, 8)
    offsets_at = len(data)
    data += struct.pack(f"<{len(tiles)}I", *offsets)
    counts_at = len(data)
    data += struct.pack(f"<{len(tiles)}I", *map(len, tiles))
    short, long = 3, 4
    entries = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, 3, bits_at),
        (259, short, 1, 8),
        (262, short, 1, 2),
        (277, short, 1, 3),
        (322, short, 1, 16),
        (323, short, 1, 16),
        (324, long, len(tiles), offsets_at),
        (325, long, len(tiles), counts_at),
    ]
    data[:8] = struct.pack("<2sHI", b"II", 42, len(data))
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return bytes(data) + struct.pack("<H", len(entries)) + directory + bytes(4)
