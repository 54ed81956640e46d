"""Does a file look as if its writer was not done yet? By its structure; nothing is decoded.

Decoders are of little help: several show the first frame of half a file, and most take zeros
for pixels where room was laid out for a download. JPEG is checked where it is decoded.
"""

from __future__ import annotations

from typing import Literal

from imgsortd.adapters.formats import HEAD_BYTES, sniff

_ENDS_IN_ZEROS = "it ends in zero bytes, as a download does that room was laid out for"
_ZEROS = {"WEBP": 32, "HEIF": 32, "AVIF": 32, "TIFF": 4096, "BMP": 4096}
"""Zero bytes at the end that tell: of compressed formats few, of plain pixels many."""


_BOXES = (b"ftyp", b"meta", b"mdat", b"moov", b"moof", b"idat", b"free", b"uuid")


def looks_unfinished(data: bytes) -> str:
    """Return the reason, or nothing where the file looks whole.

    It errs on both sides, so it may delay a file and never decide on it.
    """
    kind = sniff(data[:HEAD_BYTES])
    zeros = _ZEROS.get(kind or "", 0)
    if zeros and len(data) > zeros and not any(data[-zeros:]):
        return _ENDS_IN_ZEROS
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
