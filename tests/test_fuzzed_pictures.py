"""Valid pictures, mutated at random: pixels or a reason, never a crash, a hang or a flood.

Each goes through a real decoding process with its limits. ``IMGSORTD_FUZZ_EXAMPLES`` sets
how many of each format `make faults` tries, ``IMGSORTD_FUZZ_SEED`` makes its run again, and
``IMGSORTD_PILLOW_IMAGES`` names the ``Tests/images`` of a source tree of Pillow's.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzing import SEED, few_and_many, fuzzed
from imgsortd.errors import PictureError
from imgsortd.pictures.decoder import DecodeLimits, Decoder
from imgsortd.pictures.formats import HEAD_BYTES, sniff
from picture_seeds import KINDS, seeds_of

pytestmark = pytest.mark.usefixtures("started_decoders")

MAX_S, MAX_MEMORY_MB = 10.0, 1024
MAX_KEPT_MB = 256  # after a thousand pictures of some kB: what a leak would exceed
PILLOW_IMAGES = os.environ.get("IMGSORTD_PILLOW_IMAGES", "")
PILLOW_S, PILLOW_MAX_BYTES, PILLOW_MUTATIONS = 60.0, 1 << 20, 5


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


def check_decodes_or_says_why(decoder: Decoder, data: bytes) -> str:
    """Decode; return what came of it, ``pixels`` or ``reason``."""
    try:
        pixels = decoder.decode(data)
    except PictureError as error:
        text = str(error)
        assert 0 < len(text) < 400
        assert text.isprintable()
        for limit in ("crashes the decoder", "takes over", "needs over"):
            assert not text.startswith(limit), (text, data[:64], SEED)
        return "reason"
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    return "pixels"


def memory_mb(decoder: Decoder) -> float:
    assert decoder._worker is not None
    return float(psutil.Process(decoder._worker.process.pid).memory_info().rss / 1e6)


@few_and_many
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_picture_gives_pixels_or_a_reason(
    decoder: Decoder, kind: str, examples: int
) -> None:
    seeds = seeds_of(kind)
    if not seeds:
        pytest.skip(f"this Pillow has no {kind}")
    for variant, data in seeds.items():
        assert check_decodes_or_says_why(decoder, data) == "pixels", variant
    before_mb = memory_mb(decoder)
    outcomes: Counter[str] = Counter()

    @fuzzed(examples)
    @given(mutations(list(seeds.values())))
    def check(data: bytes) -> None:
        outcomes[check_decodes_or_says_why(decoder, data)] += 1

    check()

    assert set(outcomes) == {"pixels", "reason"}, f"too weak or too strong: {outcomes}"
    assert memory_mb(decoder) < before_mb + MAX_KEPT_MB


@pytest.mark.faults
def test_pillows_own_test_pictures_give_pixels_or_a_reason_whole_and_mutated(
    decoder: Decoder,
) -> None:
    folder = Path(PILLOW_IMAGES)
    if not PILLOW_IMAGES or not folder.is_dir():
        pytest.skip("IMGSORTD_PILLOW_IMAGES does not name Pillow's Tests/images")
    print(f"IMGSORTD_FUZZ_SEED={SEED}")
    draw, outcomes = random.Random(SEED), Counter[str]()
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    draw.shuffle(paths)
    until_s = time.monotonic() + PILLOW_S

    for path in paths:
        data = path.read_bytes()
        if len(data) > PILLOW_MAX_BYTES:
            continue
        is_ours = sniff(data[:HEAD_BYTES]) is not None
        outcomes[check_decodes_or_says_why(decoder, data)] += 1
        for _ in range(PILLOW_MUTATIONS if is_ours else 0):
            outcomes[check_decodes_or_says_why(decoder, changed(data, draw))] += 1
        if time.monotonic() > until_s:
            break

    print(dict(outcomes))
    assert set(outcomes) == {"pixels", "reason"}


def changed(data: bytes, draw: random.Random) -> bytes:
    """Change, cut or repeat some bytes, most of them near the beginning."""
    mutated = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(max(1, len(mutated)))
        at = at % 100 if draw.random() < 0.5 else at
        what = draw.randrange(3)
        if what == 0:
            mutated[at : at + 1] = draw.choice([b"\xff" * 4, bytes(4), draw.randbytes(1)])
        elif what == 1:
            del mutated[at : at + draw.randint(1, 64)]
        else:
            mutated[at:at] = mutated[at : at + draw.randint(1, 256)]
    return bytes(mutated)
