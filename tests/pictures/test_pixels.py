"""Decoding: equal to torchvision where promised, a clear reason for everything else."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, features
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from imgsortd.errors import PictureError
from imgsortd.pictures import pixels as images
from imgsortd.pictures.formats import sniff
from imgsortd.pictures.pixels import CROP_SIZE, RESIZE_SIZE, decode, decode_sized

# pytest sets its own warning filters, over those of the module.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

Array = npt.NDArray[np.uint8]

ENCODERS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 98},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "HEIF": {"quality": 90},
    "AVIF": {"quality": 90},
}
MODES = {
    "JPEG": ["RGB", "L", "CMYK", "YCbCr"],
    "PNG": ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"],
    "WEBP": ["RGB", "RGBA"],
    "GIF": ["P", "L", "1"],
    "BMP": ["RGB", "L", "P", "1", "RGBA"],
    "TIFF": ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "HEIF": ["RGB", "RGBA", "L"],
    "AVIF": ["RGB", "RGBA"],
}


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a smooth RGB scene with detail, so that every pixel matters."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    scene = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = scene + rng.integers(-12, 13, scene.shape, dtype=np.int16)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **{**ENCODERS[kind], **options})
    return buffer.getvalue()


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        grey = np.asarray(image.convert("L"), dtype=np.uint16)
        return Image.fromarray(grey * 257)
    if mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    return image.convert(mode)


def plain(image: Image.Image) -> Array:
    """Return what the weights' own transforms see of an RGB picture."""
    resized = tv.resize(image, [RESIZE_SIZE], InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(tv.center_crop(resized, [CROP_SIZE]))


def difference(left: Array, right: Array) -> float:
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


def png(width: int, height: int, rows: int = 0) -> bytes:
    """Return an 8-bit grey PNG of zeros with the given header and so many rows of data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 1) * rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def jpeg_claiming(width: int, height: int, **options: object) -> bytes:
    """Return a small JPEG whose header claims other dimensions."""
    data = bytearray(encode(photo(64, 64), "JPEG", **options))
    sof = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[sof + 5 : sof + 9] = struct.pack(">HH", height, width)
    return bytes(data)


SAMPLES = {
    kind: encode(photo(80, 60).quantize() if kind == "GIF" else photo(80, 60), kind)
    for kind in ENCODERS
}


# --- the geometry


SIZES = [
    (1, 1), (2, 3), (1, 500), (500, 1), (3, 700), (224, 224), (255, 257), (256, 256), (256, 300),
    (300, 256), (257, 511), (640, 480), (479, 641), (333, 1000), (999, 334), (1023, 1500),
    (31, 17), (100, 223), (1280, 40),
]  # fmt: skip


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pixels_equal_torchvision_exactly(width: int, height: int) -> None:
    image = photo(width, height)

    pixels = decode(encode(image, "PNG"))

    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, plain(image))


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_pixels_equal_torchvision_for_any_size(width: int, height: int) -> None:
    image = photo(width, height)

    assert np.array_equal(decode(encode(image, "BMP")), plain(image))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr"])
def test_converting_in_strips_equals_converting_first(mode: str) -> None:
    image = in_mode(photo(401, 600), mode)

    assert np.array_equal(decode(encode(image, "TIFF")), plain(image.convert("RGB")))


@pytest.mark.parametrize("size", [(700, 1), (1, 700), (2, 2000), (60_000, 3)])
def test_a_strip_over_512_to_1_is_its_middle(size: tuple[int, int]) -> None:
    image = Image.new("L", size, 10)
    x, y = (side // 3 if side > 3 else 0 for side in size)
    image.paste(200, (x, y, size[0] - x, size[1] - y))

    assert (decode(encode(image, "PNG")) == 200).all()


def test_the_result_can_be_written_and_owns_its_memory() -> None:
    pixels = decode(SAMPLES["PNG"])

    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


# --- formats and modes


@pytest.mark.parametrize(("kind", "mode"), [(k, m) for k, modes in MODES.items() for m in modes])
def test_every_format_and_mode_decodes_to_its_colours(kind: str, mode: str) -> None:
    image = photo(300, 260)
    grey = mode in ("L", "LA", "I;16", "I", "F")
    expected = image.convert("L").convert("RGB") if grey else image
    limit = {"1": 130, "P": 25, "CMYK": 6, "LAB": 6}.get(mode, 20 if kind == "GIF" else 6)

    pixels = decode(encode(in_mode(image, mode), kind))

    tolerance = 20 if mode in ("I", "F") else limit  # scaled to their own range
    assert difference(pixels, plain(expected)) < tolerance


@pytest.mark.parametrize("kind", ENCODERS)
def test_sniff_names_each_format(kind: str) -> None:
    assert sniff(SAMPLES[kind][:64]) == kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", "AVIF"),
        (b"\0\0\0\x1cftypmsf1\0\0\0\0msf1avismiaf", "AVIF"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0hevcmif1", "HEIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", None),
        (b"II+\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"BMW is a maker of motor cars", None),
        (b"RIFF\0\0\0\0AVI LIST", None),
        (b"", None),
    ],
)
def test_sniff_reads_brands_and_magic(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


def test_a_premultiplied_tiff_is_shown_on_white() -> None:
    data = encode(Image.new("RGBA", (40, 40), (255, 0, 0, 255)), "TIFF", tiffinfo={338: 1})

    assert (decode(data) == (255, 0, 0)).all()


def transparent(mode: str) -> Image.Image:
    return Image.new("RGBA", (50, 50), (200, 10, 10, 0)).convert(mode)


def palette_index(index: int) -> Image.Image:
    image = Image.new("P", (50, 50), index)
    image.putpalette([level for level in range(256) for _ in "RGB"])
    return image


@pytest.mark.parametrize(
    "data",
    [
        encode(transparent("RGBA"), "PNG"),
        encode(transparent("LA"), "PNG"),
        encode(transparent("RGBA"), "WEBP"),
        encode(transparent("RGBA"), "TIFF"),
        encode(transparent("RGBA"), "HEIF"),
        encode(transparent("RGBA"), "AVIF"),
        encode(palette_index(3), "PNG", transparency=3),
        encode(palette_index(3), "PNG", transparency=bytes(256)),
        encode(palette_index(3), "GIF", transparency=3),
        encode(Image.new("RGB", (50, 50), (9, 9, 9)), "PNG", transparency=(9, 9, 9)),
        encode(Image.new("L", (50, 50), 9), "PNG", transparency=9),
    ],
)
def test_transparency_is_shown_on_white(data: bytes) -> None:
    assert (decode(data) == 255).all()


def test_half_transparent_red_becomes_pink() -> None:
    data = encode(Image.new("RGBA", (300, 300), (255, 0, 0, 128)), "PNG")

    assert (decode(data) == (255, 127, 127)).all()


def test_sixteen_bit_grey_is_not_blown_out() -> None:
    ramp = np.linspace(0, 65_535, 256 * 256).reshape(256, 256).astype(np.uint16)

    pixels = decode(encode(Image.fromarray(ramp), "PNG"))

    assert pixels[0].mean() < 20
    assert 120 < pixels.mean() < 135
    assert pixels[-1].mean() > 235


def test_big_endian_sixteen_bit_tiff_has_the_same_greys() -> None:
    ramp = np.linspace(0, 65_535, 300 * 300).reshape(300, 300).astype(np.uint16)
    little, big = (
        Image.fromarray(ramp),
        Image.frombytes("I;16B", (300, 300), ramp.byteswap().tobytes()),
    )

    assert np.array_equal(decode(encode(big, "TIFF")), decode(encode(little, "TIFF")))


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e30])
def test_float_tiffs_are_scaled_by_their_own_range(scale: float) -> None:
    ramp = np.linspace(-scale, scale, 256 * 256, dtype=np.float32).reshape(256, 256)

    pixels = decode(encode(Image.fromarray(ramp), "TIFF"))

    assert 125 < pixels.mean() < 130
    assert pixels.std() > 50


def test_float_tiffs_with_nan_and_infinity_keep_the_rest() -> None:
    ramp = np.linspace(0, 1, 256 * 256, dtype=np.float32).reshape(256, 256)
    ramp[0, :3] = (np.nan, np.inf, -np.inf)

    assert decode(encode(Image.fromarray(ramp), "TIFF")).std() > 50


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 7.5, 3e38, np.nan, np.inf])
def test_a_float_tiff_of_one_value_decodes(value: float) -> None:
    flat = Image.fromarray(np.full((20, 20), value, dtype=np.float32))

    assert decode(encode(flat, "TIFF")).std() == 0


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "lime")]

    pixels = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]))

    assert difference(pixels, np.full((224, 224, 3), (255, 0, 0), dtype=np.uint8)) < 4


def test_the_frames_behind_the_first_are_not_read() -> None:
    first = encode(Image.new("P", (64, 64), 0), "GIF")
    frame = first[first.index(b",\0\0\0\0") : -1]
    animation = first[:-1] + frame * 100_000 + b"not even a frame"

    assert decode(animation).shape == (224, 224, 3)


# --- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientations_give_the_same_upright_picture(kind: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    scene = photo(300, 257)
    stored = scene.transpose(undo[orientation]) if orientation in undo else scene
    exif = Image.Exif()
    exif[274] = orientation

    pixels = decode(encode(stored, kind, exif=exif.tobytes()))

    assert difference(pixels, plain(scene)) < 4


def test_a_reduced_jpeg_is_turned_too() -> None:
    scene = photo(2400, 2200)
    exif = Image.Exif()
    exif[274] = 6

    pixels = decode(encode(scene.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif))

    assert difference(pixels, plain(scene)) < 4


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"M" * 50]
)
def test_broken_exif_is_ignored(exif: bytes) -> None:
    scene = photo(300, 300)

    assert difference(decode(encode(scene, "JPEG", exif=exif)), plain(scene)) < 4


# --- large JPEGs


class Drafts(list[tuple[int, int]]):
    """Sizes that JPEGs were really decoded at."""


@pytest.fixture
def decoded_sizes(monkeypatch: pytest.MonkeyPatch) -> Drafts:
    sizes = Drafts()
    resize: Callable[[Image.Image, images.Box | None, int], Image.Image] = images._resize

    def watch(image: Image.Image, covered: images.Box | None, side_px: int) -> Image.Image:
        sizes.append(image.size)
        return resize(image, covered, side_px)

    monkeypatch.setattr(images, "_resize", watch)
    return sizes


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((1500, 1023), (1500, 1023)),
        ((1500, 1024), (750, 512)),
        ((2100, 2048), (525, 512)),
        ((1000, 4000), (1000, 4000)),
    ],
)
def test_large_jpegs_are_reduced_while_decoding_but_not_below_512(
    decoded_sizes: Drafts, size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    scene = photo(*size)
    data = encode(scene, "JPEG")

    pixels = decode(data)

    with Image.open(io.BytesIO(data)) as whole:
        assert difference(pixels, plain(whole.convert("RGB"))) < 1.5
    assert decoded_sizes == [decoded]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1822, 1025), (1025, 1822), (2055, 2049), (4000, 2250)])
def test_a_reduced_jpeg_shows_the_same_part_of_the_picture(
    size: tuple[int, int], mode: str
) -> None:
    y, x = np.mgrid[0 : size[1], 0 : size[0]] * (2 * np.pi * RESIZE_SIZE / min(size) / 5)
    grey = 128 + 60 * np.sin(x) + 60 * np.sin(y)  # waves five pixels long after the resize
    data = encode(Image.fromarray(grey.astype(np.uint8)).convert(mode), "JPEG")

    pixels = decode(data)

    with Image.open(io.BytesIO(data)) as whole:
        assert difference(pixels, plain(whole.convert("RGB"))) < 2


def test_small_jpegs_equal_the_plain_way() -> None:
    data = encode(photo(1400, 1000), "JPEG")

    with Image.open(io.BytesIO(data)) as whole:
        assert np.array_equal(decode(data), plain(whole.convert("RGB")))


def test_a_jpeg_far_over_the_limit_is_decoded_reduced() -> None:
    data = encode(photo(2100, 2100), "JPEG")

    assert decode(data, max_megapixels=0.5).shape == (224, 224, 3)


def test_a_large_cmyk_jpeg_keeps_its_colours() -> None:
    scene = Image.new("RGB", (1400, 1100), (200, 40, 90))

    pixels = decode(encode(scene.convert("CMYK"), "JPEG"))

    assert np.abs(pixels.astype(int) - (200, 40, 90)).max() < 6


# --- the size, and pictures for a person to look at


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(kind: str, orientation: int) -> None:
    stored = photo(301, 200)

    _, size_px = decode_sized(encode(stored, kind, exif=turned(orientation)))

    assert size_px == ((301, 200) if orientation < 5 else (200, 301))


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_format_tells_its_size(kind: str) -> None:
    assert decode_sized(SAMPLES[kind])[1] == (80, 60)


@pytest.mark.parametrize("side_px", [0, 320, 500])
@pytest.mark.parametrize("size", [(4001, 2999), (1025, 2055)])
def test_a_reduced_jpeg_tells_the_size_in_its_file(size: tuple[int, int], side_px: int) -> None:
    data = encode(Image.new("RGB", size, "red"), "JPEG")

    assert decode_sized(data, side_px)[1] == size


def test_a_strip_tells_its_size_with_its_ends() -> None:
    assert decode_sized(encode(Image.new("L", (60_000, 3)), "PNG"))[1] == (60_000, 3)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", turned(9), turned(0), turned(65_535)]
)
def test_an_orientation_that_is_none_leaves_the_size_as_it_is(exif: bytes) -> None:
    assert decode_sized(encode(photo(30, 20), "JPEG", exif=exif))[1] == (30, 20)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (300, 320)])
def test_a_small_picture_is_shown_as_it_is(size: tuple[int, int], kind: str) -> None:
    data = encode(photo(*size), kind)

    pixels = decode_sized(data, 320)[0]

    with Image.open(io.BytesIO(data)) as whole:
        assert np.array_equal(pixels, np.asarray(whole))


@pytest.mark.parametrize(
    ("size", "side_px", "decoded", "shown"),
    [
        ((4000, 3000), 320, (1000, 750), (320, 240)),
        ((4000, 3000), 1600, (2000, 1500), (1600, 1200)),
        ((3199, 2399), 1600, (3199, 2399), (1600, 1200)),
        ((3200, 2399), 1600, (1600, 1200), (1600, 1200)),
        ((1500, 1100), 1600, (1500, 1100), (1500, 1100)),
        ((45, 8192), 320, (6, 1024), (2, 320)),
        ((4, 4000), 320, (4, 2048), (1, 320)),
    ],
)
def test_a_jpeg_is_reduced_while_decoding_but_not_below_what_is_shown(
    decoded_sizes: Drafts,
    size: tuple[int, int],
    side_px: int,
    decoded: tuple[int, int],
    shown: tuple[int, int],
) -> None:
    pixels = decode_sized(encode(Image.new("RGB", size, "red"), "JPEG"), side_px)[0]

    assert decoded_sizes == [decoded]
    assert pixels.shape == (shown[1], shown[0], 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(("size", "side_px"), [((2055, 1025), 320), ((3501, 2333), 1600)])
def test_what_is_shown_of_a_jpeg_is_all_of_it(
    size: tuple[int, int], side_px: int, mode: str
) -> None:
    y, x = np.mgrid[0 : size[1], 0 : size[0]] * (2 * np.pi * size[0] / side_px / 400)
    grey = 128 + 60 * np.sin(x) + 60 * np.sin(y)
    data = encode(Image.fromarray(grey.astype(np.uint8)).convert(mode), "JPEG")

    pixels = decode_sized(data, side_px)[0]

    with Image.open(io.BytesIO(data)) as image:
        whole = image.convert("RGB").resize(pixels.shape[1::-1], Image.Resampling.LANCZOS)
    assert difference(pixels, np.asarray(whole)) < 1


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_what_is_shown_of_any_mode_is_the_picture_made_smaller(mode: str) -> None:
    image = in_mode(photo(901, 600), mode)
    rgb = photo(901, 600).convert("L") if mode == "I;16" else image
    whole = rgb.convert("RGB").resize((320, 213), Image.Resampling.LANCZOS)

    pixels = decode_sized(encode(image, "TIFF"), 320)[0]

    assert difference(pixels, np.asarray(whole)) < 1.5


def test_what_is_shown_stands_upright_and_on_white() -> None:
    image = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 200, 200))

    pixels = decode_sized(encode(image, "PNG", exif=turned(6)), 100)[0]

    assert pixels.shape == (100, 50, 3)
    assert (pixels[5] == (255, 0, 0)).all()  # the left is at the top
    assert (pixels[-5] == 255).all()


@pytest.mark.parametrize(
    ("size", "share"), [((700, 1), 234 / 512), ((1, 700), 234 / 512), ((60_000, 3), 1.0)]
)
def test_what_is_shown_of_a_strip_over_512_to_1_is_its_middle(
    size: tuple[int, int], share: float
) -> None:
    image = Image.new("L", size, 10)
    x, y = (side // 3 if side > 3 else 0 for side in size)
    image.paste(200, (x, y, size[0] - x, size[1] - y))

    pixels = decode_sized(encode(image, "PNG"), 320)[0]

    assert max(pixels.shape) == 320
    assert (pixels > 100).mean() == pytest.approx(share, abs=0.01)


def test_what_is_shown_is_refused_for_the_same_reasons() -> None:
    data = jpeg_claiming(30_000, 30_000, progressive=True)

    with pytest.raises(PictureError, match="decompression bomb: 900"):
        decode_sized(data, 1600)


# --- unfinished files


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_incomplete(part: float, progressive: bool) -> None:
    data = encode(photo(600, 400), "JPEG", progressive=progressive)

    with pytest.raises(PictureError, match=r"^incomplete: the JPEG has no end marker"):
        decode(data[: int(len(data) * part)])


def test_a_jpeg_with_a_zero_second_half_is_incomplete() -> None:
    data = encode(photo(600, 400), "JPEG")
    half = len(data) // 2

    with pytest.raises(PictureError, match=r"^incomplete: "):
        decode(data[:half] + bytes(len(data) - half))


def test_an_end_marker_in_the_thumbnail_does_not_make_a_jpeg_complete() -> None:
    data = encode(photo(600, 400), "JPEG", exif=b"Exif\0\0" + encode(photo(90, 60), "JPEG"))

    with pytest.raises(PictureError, match=r"^incomplete: "):
        decode(data[:-2])


@pytest.mark.parametrize(
    "trailer",
    [
        b"\0\0\0\x18ftypmp42" + bytes(300_000),
        b"\0" * 70_000,
        os.urandom(200_000).replace(b"\xff\xd9", b""),
        b"\0\0\x01\x0aImage_UTC_Data1710000000000SEFT",
        SAMPLES["JPEG"],
    ],
)
def test_a_motion_photo_or_trailer_is_accepted(trailer: bytes) -> None:
    data = encode(photo(600, 400), "JPEG")

    assert np.array_equal(decode(data + trailer), decode(data))


def test_a_second_image_in_the_jpeg_is_left_alone() -> None:
    scene = photo(600, 400)
    buffer = io.BytesIO()
    scene.save(buffer, "MPO", save_all=True, append_images=[photo(600, 400, seed=1)], quality=95)

    assert difference(decode(buffer.getvalue()), plain(scene)) < 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_file_of_another_format_is_damaged(kind: str, part: float) -> None:
    data = SAMPLES[kind]

    with pytest.raises(PictureError, match=rf"^damaged {kind}: \S"):
        decode(data[: int(len(data) * part)])


# --- bombs


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(100_000, 100_000), r"10,000\.0 megapixels.*pictures\.max_megapixels is 100"),
        (png(13_376, 13_376), r"178\.9 megapixels.*pictures\.max_megapixels is 100"),
        (png(1, 60_000_000), r"1 x 60,000,000 pixels; a side may have 1 to 65,535"),
        (jpeg_claiming(60_000, 60_000, progressive=True), r"3,600\.0 megapixels"),
        (b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xfe\xff\0\xfe\xff\0", r"4,294\.8 megapixels"),
        (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08\0;", r"4,294\.8 megapixels"),
    ],
)
def test_bombs_are_refused_by_their_header(data: bytes, reason: str) -> None:
    with pytest.raises(PictureError, match=rf"^decompression bomb: {reason}"):
        decode(data)


@pytest.mark.filterwarnings("error")
def test_a_bomb_has_the_same_reason_where_warnings_are_errors() -> None:
    with pytest.raises(PictureError, match=r"^decompression bomb: 178\.9 megapixels"):
        decode(png(13_376, 13_376))


def test_a_non_interleaved_jpeg_counts_in_full() -> None:
    data = bytearray(jpeg_claiming(60_000, 60_000))
    data[data.index(b"\xff\xda") + 4] = 1

    with pytest.raises(PictureError, match=r"^decompression bomb: 3,600\.0 megapixels"):
        decode(bytes(data))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encode(photo(64, 64), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]

    with pytest.raises(PictureError, match=r"^decompression bomb: more than 100 JPEG scans"):
        decode(data[:-2] + scan * 200 + data[-2:])


def test_a_tiny_tiff_with_a_huge_tile_is_refused() -> None:
    tags = [
        (256, 8),
        (257, 8),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 65_520),
        (323, 65_520),
    ]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (324, 8), (325, 8)]]
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(32)

    with pytest.raises(PictureError, match=r"^decompression bomb: 4,292\.9 megapixels"):
        decode(data)


def test_the_limit_is_a_parameter() -> None:
    with pytest.raises(PictureError, match=r"0\.1 megapixels.*pictures\.max_megapixels is 0\.05"):
        decode(encode(photo(300, 300), "PNG"), max_megapixels=0.05)


def test_nothing_is_written_to_stderr_for_a_bomb_or_an_odd_file() -> None:
    code = (
        "import sys\n"
        "from imgsortd.pictures.pixels import decode; from imgsortd.errors import PictureError\n"
        "try: decode(sys.stdin.buffer.read())\n"
        "except PictureError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]

    done = subprocess.run(
        command, input=png(13_376, 13_376), capture_output=True, env=environment, check=True
    )

    assert done.stdout.startswith(b"decompression bomb")
    assert done.stderr == b""


# --- what is no picture


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"", "nothing: the file is empty"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript or EPS document"),
        (b"\xc5\xd0\xd3\xc6\x20\0\0\0", "a PostScript or EPS document"),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP or other archive"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2", "video or sound"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "video or sound"),
        (b"8BPS\0\x01\0\0", "camera raw, Photoshop or JPEG XL, not supported"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01", "camera raw, Photoshop or JPEG XL, not supported"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"\n <HTML><body>404</body>", "an HTML page"),
        (b"<?xml version='1.0'?><svg/>", "XML or an SVG drawing, not supported"),
        (b"Dear diary,\ntoday", "text"),
        ("Käse und Brot".encode(), "text"),
        (bytes(4096), "zero bytes, as in an unfinished download"),
        (b"\x7fELF\x02\x01", "unknown bytes 7f 45 4c 46 02 01"),
    ],
)
def test_other_files_are_named_for_what_they_look_like(data: bytes, looks: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode(data)

    assert str(caught.value) == f"not a picture: it begins like {looks}"


def test_a_pillow_without_avif_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")

    with pytest.raises(PictureError, match=r"^AVIF is not supported by this Pillow"):
        decode(SAMPLES["AVIF"])


def test_a_reason_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("\x1b[2J\n\udcff" + "x" * 10_000)

    monkeypatch.setattr(images, "_resize", fail)

    with pytest.raises(PictureError) as caught:
        decode(SAMPLES["PNG"])

    assert str(caught.value).startswith("damaged PNG: KeyError ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_an_unreadable_header_has_a_reason_without_addresses() -> None:
    with pytest.raises(PictureError, match=r"^damaged PNG: cannot identify image file$"):
        decode(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)


# --- whatever comes


def decodes_or_explains(data: bytes) -> None:
    try:
        pixels = decode(data, max_megapixels=2)
    except PictureError:
        return

    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300))
@example(b"\xff\xd8\xff")
@example(b"\xff\xd8\xff\xd9")
@example(b"\xff\xd8\xff\xc0\x00")
@example(b"GIF89a")
@example(b"II*\0")
@example(b"BM" + bytes(12) + b"\x28\0\0\0")
def test_random_bytes_decode_or_explain(data: bytes) -> None:
    decodes_or_explains(data)


@pytest.mark.parametrize("kind", ENCODERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=6),
    near_start=st.booleans(),
    cut=st.floats(0, 1) | st.just(1.0),
    tail=st.binary(max_size=40),
)
def test_damaged_files_decode_or_explain(
    kind: str, flips: list[tuple[float, int]], near_start: bool, cut: float, tail: bytes
) -> None:
    data = bytearray(SAMPLES[kind])
    reach = min(len(data), 200) if near_start else len(data)
    for where, mask in flips:
        data[int(where * (reach - 1))] ^= mask

    decodes_or_explains(bytes(data[: int(len(data) * cut)]) + tail)
