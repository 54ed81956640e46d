"""Bytes of a file in, RGB pixels out, or a reason a person understands.

The inbox is hostile: the content decides the format, sizes are checked before pixels
are, and whatever Pillow raises becomes a PictureError. Safe in threads; no torch.

For the model, pixels equal those of torchvision's preset for VGG16 (short side to 256,
antialiased; crop of 224). Only JPEGs of 1024 or more are shrunk by libjpeg first, to no less
than 512: their pixels show the same part of the picture, and differ by about one grey level
of 256. For a person, all of the picture is made to fit a square, and is never enlarged.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pillow_heif
from PIL import Image, ImageOps, features
from PIL.JpegImagePlugin import JpegImageFile

from imgsortd.errors import IncompleteError, PictureError
from imgsortd.pictures.formats import HEAD_BYTES, check_jpeg, is_only_begun, looks_like, sniff
from imgsortd.records import Pixels, SizePx

Box = tuple[int, int, float, float]

DEFAULT_MAX_MEGAPIXELS = 100
RESIZE_SIZE = 256
CROP_SIZE = 224
_MAX_SIDE, _MAX_ASPECT, _MAX_REASON_CHARS = 65_535, 512, 160
_STRIP_ROWS = 256
# What a person looks at is reduced by whole numbers first, to no less than twice its final
# size; libjpeg, whose reducing is as good as an antialiased resize, may go closer to a large one.
_REDUCING_GAP, _SMALL_SIDE = 2.0, 640
_BILINEAR, _LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT = 274, 322, 323
_TRANSPOSED = 5  # orientations from this one on swap width and height

# Pillow warns of odd tags, and of sizes that decode() refuses by itself. Silenced once for
# the process, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def warm_up() -> None:
    """Load what decoding loads: afterwards the process may lose the right to open files."""
    Image.init()
    sample = Image.new("RGB", (32, 32))
    exif = sample.getexif()
    exif[_ORIENTATION] = 6
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF"):
        file = io.BytesIO()
        with suppress(KeyError, OSError):  # one that this Pillow cannot write
            sample.save(file, kind, exif=exif)
            decode(file.getvalue())


def decode(data: bytes, *, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> Pixels:
    """Decode a whole file to what VGG16 looks at.

    That is uint8 [224, 224, 3], RGB, upright by EXIF, alpha on white, the first frame.

    Parameters
    ----------
    max_megapixels
        Most pixels, in millions, that may really be decoded (``pictures.max_megapixels``).
        A large JPEG counts with the reduced size it is decoded at.

    Raises
    ------
    PictureError
        ``not a picture: …``, ``incomplete: …``, ``decompression bomb: …``, ``damaged JPEG: …``;
        an IncompleteError where the file may only be unfinished.
    MemoryError
        There is not memory enough for it.
    """
    return decode_sized(data, max_megapixels=max_megapixels)[0]


def decode_sized(
    data: bytes, side_px: int = 0, *, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS
) -> tuple[Pixels, SizePx]:
    """Decode for the model, or to a small one of all of it for a person; tell the size, too.

    It is that of the upright picture as it is in the file, ends of strips and all.

    Parameters
    ----------
    side_px
        Most pixels of a side of a picture for a person: uint8 [height, width, 3], otherwise
        as :func:`decode`, with its errors; one that is smaller stays as it is, and strips
        over 512:1 lack their ends. 0: as :func:`decode`.
    """
    small, size_px = _decode(data, side_px, max_megapixels)
    if not side_px:
        x, y = (round((side - CROP_SIZE) / 2) for side in small.size)
        small = small.crop((x, y, x + CROP_SIZE, y + CROP_SIZE))
    return np.array(small, dtype=np.uint8), size_px


def _decode(data: bytes, side_px: int, max_megapixels: float) -> tuple[Image.Image, SizePx]:
    """Return the picture upright, as RGB, at its final scale, and its size in the file."""
    kind = sniff(data[:HEAD_BYTES])
    if kind is None:
        looks = looks_like(data[:HEAD_BYTES])
        error_type = IncompleteError if is_only_begun(data[:HEAD_BYTES]) else PictureError
        raise error_type(f"not a picture: it begins like {looks}")
    if kind == "AVIF" and not features.check("avif"):
        raise PictureError("AVIF is not supported by this Pillow; install the wheel from PyPI")
    # Pillow's own guard stays on, because GIF and WebP allocate while they are being opened.
    # It is one number for the process, and every caller has the same configuration.
    Image.MAX_IMAGE_PIXELS = int(max_megapixels * 1e6)
    try:
        return _decode_kind(data, kind, side_px, max_megapixels)
    except (PictureError, MemoryError):  # no memory: the picture may be, or the machine
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _bomb(int(re.findall(r"\d+", f"{error} 0")[0]), max_megapixels) from error
    except Exception as error:  # fuzzing met a dozen types; one missed would stop the daemon
        error_type = IncompleteError if "truncated" in str(error).lower() else PictureError
        raise error_type(f"damaged {kind}: {_short(error)}") from error


def _bomb(pixels: int, max_megapixels: float) -> PictureError:
    size = f"{pixels / 1e6:,.1f} megapixels, but pictures.max_megapixels is {max_megapixels:g}"
    return PictureError(f"decompression bomb: {size}")


def _short(error: Exception) -> str:
    text = re.sub(r" <.* at 0x.*", "", str(error))  # an address says nothing to a person
    if not text or not isinstance(error, OSError | SyntaxError | ValueError):
        text = f"{type(error).__name__} {text}".rstrip()
    return text.encode("unicode_escape").decode("ascii")[:_MAX_REASON_CHARS]


def _decode_kind(
    data: bytes, kind: str, side_px: int, max_megapixels: float
) -> tuple[Image.Image, SizePx]:
    # Not Image.open for JPEG: it refuses a 200-megapixel photograph before it can be reduced,
    # and reads the index of further images (MPF), which editors often leave broken.
    file, is_jpeg = io.BytesIO(data), kind == "JPEG"
    at_full_size = not is_jpeg or check_jpeg(data)
    with JpegImageFile(file) if is_jpeg else Image.open(file, formats=[kind]) as image:
        pixels, covered, size_px = _count_pixels(image), None, image.size
        if is_jpeg and (least := _least_size(image.size, side_px)):
            # libjpeg shrinks by 2, 4 or 8 and is faster for it.
            _, covered = image.draft("RGB", least) or ("", None)
        pixels = pixels if at_full_size else _count_pixels(image)
        if pixels > max_megapixels * 1e6:
            raise _bomb(pixels, max_megapixels)
        image.load()
        small = _resize(_without_far_ends(image), covered, side_px)
        return _upright(small, size_px if is_jpeg else image.size, _orientation(image))


def _least_size(size: SizePx, side_px: int) -> SizePx | None:
    """Return the size below which a JPEG is not reduced before its resize; None: not at all.

    For the model and for small pictures it is twice the final size, so that the antialiased
    resize still has real pixels to average.
    """
    if not side_px:
        return (2 * RESIZE_SIZE, 2 * RESIZE_SIZE) if min(size) >= 4 * RESIZE_SIZE else None
    if max(size) > _MAX_ASPECT * min(size):
        return None  # its ends are cut, at whole pixels
    share = (2 if side_px <= _SMALL_SIDE else 1) * side_px / max(size)
    return (int(share * size[0]) or 1, int(share * size[1]) or 1) if share <= 1 / 2 else None


def _count_pixels(image: Image.Image) -> int:
    width, height = image.size
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        size = f"{width:,} x {height:,} pixels; a side may have 1 to {_MAX_SIDE:,}"
        raise PictureError(f"decompression bomb: {size}")
    tags = getattr(image, "tag_v2", {})  # libtiff allocates a whole tile for any image
    return max(width * height, int(tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)))


def _without_far_ends(image: Image.Image) -> Image.Image:
    """Cut the ends of strips over 512:1, which resized whole would take gigabytes."""
    longest = _MAX_ASPECT * min(image.size)
    x, y = (max(0, side - longest) // 2 for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y)) if x or y else image


@np.errstate(all="ignore")  # float pictures may hold infinities and NaN
def _resize(image: Image.Image, covered: Box | None, side_px: int) -> Image.Image:
    """Bring the short side to 256, or with ``side_px`` the long one to that, as RGB.

    libjpeg rounds a reduced side up: 2250 rows are 562.5 of 563. ``covered`` says so, for
    the crop would else be off by up to a pixel, which is more than all reducing changes.

    Other modes are converted strip by strip, each made narrow at once, so that a picture
    never exists twice. Pillow resizes rows first: the result is that of converting first.
    """
    _, _, right, bottom = covered or (0, 0, *image.size)
    width, height = _final_size(right, bottom, side_px)
    how, gap = (_LANCZOS, _REDUCING_GAP) if side_px else (_BILINEAR, None)
    if image.mode in ("RGB", "L") and not image.has_transparency_data:
        return image.resize((width, height), how, (0, 0, right, bottom), gap).convert("RGB")
    levels, narrow = _levels(image), Image.new("RGB", (width, image.height))
    for top, strip in _strips(image):
        rgb = _grey(strip, *levels) if levels else _on_white(strip)
        part = rgb.resize((width, strip.height), how, (0, 0, right, strip.height), gap)
        narrow.paste(part, (0, top))
    return narrow.resize((width, height), how, (0, 0, width, bottom), gap)


def _final_size(width: float, height: float, side_px: int) -> SizePx:
    if not side_px:
        short = min(width, height)
        return int(RESIZE_SIZE * width / short), int(RESIZE_SIZE * height / short)
    scale = min(1.0, side_px / max(width, height))
    return round(scale * width) or 1, round(scale * height) or 1


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    for top in range(0, image.height, _STRIP_ROWS):
        yield top, image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _levels(image: Image.Image) -> tuple[float, float] | None:
    """Tell which values are black and white, or None; Pillow would clip all above 255."""
    if image.mode.startswith("I;16"):
        return 0.0, 65_535.0
    if image.mode not in ("I", "F"):
        return None
    values = (np.asarray(strip, dtype=np.float64) for _, strip in _strips(image))
    ends = [f(v[np.isfinite(v)]) for v in values for f in (np.min, np.max) if np.isfinite(v).any()]
    low, high = float(min(ends, default=0)), float(max(ends, default=0))
    return low, high if high > low else np.inf


def _grey(image: Image.Image, low: float, high: float) -> Image.Image:
    scaled = (np.asarray(image, dtype=np.float64) - low) * (255.0 / (high - low))
    grey = np.nan_to_num(scaled).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _upright(small: Image.Image, size_px: SizePx, orientation: int) -> tuple[Image.Image, SizePx]:
    """Turn the reduced picture, and its size, as the EXIF orientation says."""
    small.info.clear()
    small.getexif()[_ORIENTATION] = orientation
    size_px = size_px[::-1] if orientation >= _TRANSPOSED else size_px
    return ImageOps.exif_transpose(small), size_px


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; broken metadata is no reason to refuse good pixels."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:
        return 1
