"""What a file is by its bytes, whatever its name, and whether its writer looks done with it.

Nothing here decodes: the daemon, which holds files and the database, never loads a picture
library. Decoders would be of little help: several show the first frame of half a file, and
most take zeros for pixels where room was laid out for a download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from imgsortd.errors import IncompleteError, PictureError

HEAD_BYTES = 64
"""First bytes of a file that tell its format."""

_FORMATS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    # mif1 and msf1 are any codec's containers: the compatible brands behind them decide.
    "AVIF": rb"....ftyp(avi[fs]|m[is]f1(....)+avi[fs])",
    "HEIF": rb"....ftyp(hei[cxms]|hev[cxms]|m[is]f1)",
}
_NOT_PICTURES = {
    "nothing: the file is empty": rb"\Z",
    "zero bytes, as in an unfinished download": rb"\0{16}",
    "a PDF document": rb"%PDF",
    "a PostScript or EPS document": rb"%!PS|\xc5\xd0\xd3\xc6",
    "a ZIP or other archive": rb"PK[\3\5][\4\6]|\x1f\x8b|Rar!|7z\xbc\xaf",
    "video or sound": rb"\x1aE\xdf\xa3|RIFF....AVI |....ftyp(?!crx)",
    "camera raw, Photoshop or JPEG XL, not supported": rb"....(ftypcrx|JXL )|8BPS|FUJI|\xff\n",
    "an HTML page": rb"(?i)\s*(<!doctype html|<html)",
    "XML or an SVG drawing, not supported": rb"\s*<(\?xml|svg)",
    "text": rb"[\t-\r -~\x80-\xf4]+\Z",
}

_MAX_SCANS = 100
# In scan data FF 00 is a stuffed byte, FF D0..D7 a restart, FF FF padding; the rest are markers.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SOF, _SOF_SEQUENTIAL = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}, {0xC0, 0xC1, 0xC9}

_ZEROS = {"WEBP": 32, "HEIF": 32, "AVIF": 32, "TIFF": 4096, "BMP": 4096}
"""Zero bytes at the end that tell: of compressed formats few, of plain pixels many."""

_BOXES = (b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"idat", b"free", b"uuid")

PICTURE_EXTENSIONS = frozenset(
    b".jpg .jpeg .jpe .jfif .png .apng .webp .gif .bmp .dib .tif .tiff "
    b".heic .heif .hif .avif".split()
)


def sniff(head: bytes) -> str | None:
    """Name the format by a file's first :data:`HEAD_BYTES`; None for all but the eight."""
    return _first_match(_FORMATS, head)


def looks_like(head: bytes) -> str:
    """Say in words what a file of none of the eight formats begins like."""
    return _first_match(_NOT_PICTURES, head) or f"unknown bytes {head[:8].hex(' ')}"


def is_only_begun(head: bytes) -> bool:
    """Tell whether a file holds nothing yet: it is empty, or zeros were laid out for it."""
    return not head or head[:16] == bytes(16)


def _first_match(patterns: dict[str, bytes], head: bytes) -> str | None:
    head = head[:HEAD_BYTES]
    return next((name for name, p in patterns.items() if re.match(p, head, re.DOTALL)), None)


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


def looks_unfinished(data: bytes) -> str:
    """Return the reason, or nothing where the file looks whole; JPEG is left to its decoding.

    It errs on both sides, so it may delay a file and never decide on it.
    """
    kind = sniff(data[:HEAD_BYTES])
    zeros = _ZEROS.get(kind or "", 0)
    if zeros and len(data) > zeros and not any(data[-zeros:]):
        return "it ends in zero bytes, as a download does that room was laid out for"
    return f"the {kind} has no end" if kind is not None and _is_cut(kind, data) else ""


def _is_cut(kind: str, data: bytes) -> bool:
    match kind:
        case "PNG":
            return b"IEND" not in data
        case "GIF":
            return data[-1:] != b";"
        case "WEBP":
            return 8 + int.from_bytes(data[4:8], "little") > len(data)
        case "HEIF" | "AVIF":
            return _boxes_end(data) > len(data)
        case "TIFF":
            return _directory_at(data) > len(data)
    return False


def _boxes_end(data: bytes) -> int:
    """Return where the last of a file's boxes ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        # 0 is to the end of the file; below 8 is damage, and what is no box a camera's trailer.
        if size < 8 or data[at + 4 : at + 8] not in _BOXES:
            return len(data)
        at += size
    return at


def _directory_at(data: bytes) -> int:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    return int.from_bytes(data[4:8], order) + 2 if data[2:4] in (b"*\0", b"\0*") else 0
