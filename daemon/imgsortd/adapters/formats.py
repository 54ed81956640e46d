"""What a file is by its first bytes: one of the eight formats that are decoded, or what else.

The name of a file plays no part. Nothing here decodes, so the daemon itself, which
holds files and the database, never loads a picture library.
"""

from __future__ import annotations

import re

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
