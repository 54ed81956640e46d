"""What the segments of a JPEG tell before it is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from imgsortd.errors import IncompleteError, PictureError

_MAX_SCANS = 100
# In scan data FF 00 is a stuffed byte, FF D0..D7 a restart, FF FF padding; the rest are markers.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SOF, _SOF_SEQUENTIAL = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, {0xC0, 0xC1, 0xC9}


def check_jpeg(data: bytes) -> bool:
    """Refuse an unfinished JPEG; tell whether libjpeg must hold all of it at full size.

    Pillow does not notice zeros for a second half, so the end marker must be there. It is
    found by the structure, not in the last bytes: phones append videos of many MB.
    Progressive files are kept whole, whatever scale is asked for, and gone over per scan.

    Raises
    ------
    PictureError
        It has more scans than any camera writes; an IncompleteError where its end is missing.
    """
    components, scans, at_full_size = 0, 0, False
    for marker, at in _markers(data):
        if marker == _EOI:
            return at_full_size
        if marker in _SOF:
            components, at_full_size = data[at + 7], marker not in _SOF_SEQUENTIAL
        elif marker == _SOS:
            scans, at_full_size = scans + 1, at_full_size or data[at + 2] < components
        if scans > _MAX_SCANS:
            raise PictureError(f"decompression bomb: more than {_MAX_SCANS} JPEG scans")
    raise IncompleteError("incomplete: the JPEG has no end marker, as in an unfinished download")


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset behind it) of the first image, up to and with its end marker."""
    at = 2
    while found := _MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        alone = marker in (_SOI, _EOI, _TEM)
        length = 0 if alone else int.from_bytes(data[at : at + 2], "big")
        if at + length <= len(data):
            yield marker, at
        at += length  # an end marker inside a segment belongs to the EXIF thumbnail
