"""Valid pictures, mutated at random: pixels or a reason, never a crash, a hang or a flood.

Each goes through a real decoding process with its limits. ``IMGSORTD_FUZZ_EXAMPLES`` sets
how many of each format (1,000 by default).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import numpy as np
import pillow_heif
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgsortd.adapters.decoding import DecodeLimits, Decoder
from imgsortd.errors import PictureError

EXAMPLES = int(os.environ.get("IMGSORTD_FUZZ_EXAMPLES", "1000"))
MAX_S, MAX_MEMORY_MB = 10.0, 1024
pillow_heif.register_heif_opener()


def samples(kind: str) -> list[bytes]:
    """Return small valid pictures of a format, in some of its variants."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    rgb = rgba.convert("RGB")
    exif = rgb.getexif()
    exif[274] = 6
    variants: dict[str, list[tuple[Image.Image, dict[str, object]]]] = {
        "JPEG": [
            (rgb, {"exif": exif}),
            (rgb, {"progressive": True}),
            (rgb.convert("L"), {}),
            (rgb.convert("CMYK"), {"quality": 30}),
        ],
        "PNG": [(rgba, {}), (rgb.convert("P"), {}), (rgb.convert("I;16"), {}), (rgb, {})],
        "WEBP": [(rgba, {}), (rgb, {"lossless": True})],
        "GIF": [(rgb, {}), (rgb, {"save_all": True, "append_images": [rgb.rotate(90)] * 3})],
        "TIFF": [
            (rgb, {}),
            (rgb, {"compression": "tiff_lzw"}),
            (rgba, {"compression": "tiff_deflate"}),
            (rgb.convert("L"), {"compression": "packbits"}),
        ],
        "BMP": [(rgb, {}), (rgb.convert("1"), {})],
        "HEIF": [(rgb, {"quality": 50}), (rgba, {"quality": 50})],
        "AVIF": [(rgb, {"quality": 50})],
    }
    made = []
    for image, options in variants[kind]:
        file = io.BytesIO()
        image.save(file, kind, **options)
        made.append(file.getvalue())
    return made


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Change bytes, cut, repeat, or put the numbers that break arithmetic into a sample."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        # Headers decide most: half of all changes fall on the first 100 bytes.
        at = at % 100 if draw(st.booleans()) else at
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                odd = draw(st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80"]))
                data[at : at + len(odd)] = odd
            case 2:
                del data[at : at + draw(st.integers(1, 64))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 256))]
            case _:
                data = data[: max(1, at)]
    return bytes(data)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(DecodeLimits(50, MAX_S, MAX_MEMORY_MB))
    yield decoder
    decoder.close()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF"])
def test_a_mutated_picture_gives_pixels_or_a_reason(decoder: Decoder, kind: str) -> None:
    seeds = samples(kind)
    for seed in seeds:
        assert decoder.decode(seed).shape == (224, 224, 3)
    outcomes = {"pixels": 0, "reason": 0}

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,  # the same in every run; more by the environment
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(mutations(seeds))
    def check(data: bytes) -> None:
        try:
            pixels = decoder.decode(data)
        except PictureError as error:
            outcomes["reason"] += 1
            text = str(error)
            assert 0 < len(text) < 400
            assert text.isprintable()
            for limit in ("crashes the decoder", "takes over", "needs over"):
                assert not text.startswith(limit), (text, data[:64])
        else:
            outcomes["pixels"] += 1
            assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)

    check()

    assert min(outcomes.values()) > 0, f"the mutations are too weak or too strong: {outcomes}"
    assert decoder._worker is not None
    rss_mb = psutil.Process(decoder._worker._process.pid).memory_info().rss / 1e6
    assert rss_mb < MAX_MEMORY_MB
