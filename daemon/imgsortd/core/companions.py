"""Which file goes with which picture? One of the same name, but for its extension.

``IMG_1.xmp``, ``IMG_1.CR2`` and ``IMG_1.MOV`` are companions of ``IMG_1.JPG`` in the same
folder, and so are ``IMG_1.JPG.xmp`` and ``IMG_1.CR2.xmp``, as darktable and others name
their sidecars. Extensions are compared without case, the rest of the name byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imgsortd.core.routing import base_name

_FIRST = (frozenset({b".jpg", b".jpeg", b".jpe", b".jfif"}), frozenset({b".heic", b".heif"}))


def parts(name: bytes) -> tuple[bytes, bytes]:
    """Split a name into its stem, with its folder, and its extension in lower case."""
    folder_length = len(name) - len(base_name(name))
    dot = name.rfind(b".", folder_length + 1)
    return (name, b"") if dot < 0 else (name[:dot], name[dot:].lower())


def name_beside(companion: bytes, picture: bytes, new: bytes) -> bytes:
    """Return a companion's name, without folder, where its picture is called ``new``.

    Parameters
    ----------
    companion, picture
        Their names until now.
    new
        The picture's name from now on: ``cluster_7/IMG_1-1.JPG`` makes an ``IMG_1.xmp``
        an ``IMG_1-1.xmp``. A companion that was given another stem before keeps its name.
    """
    stem, base = base_name(parts(picture)[0]), base_name(companion)
    return base_name(parts(new)[0]) + base[len(stem) :] if base.startswith(stem) else base


@dataclass(frozen=True, slots=True)
class CompanionRule:
    """The extensions of companions, in lower case, each with its dot."""

    extensions: frozenset[bytes] = frozenset()

    @classmethod
    def of(cls, extensions: Sequence[bytes]) -> CompanionRule:
        """Make a rule of extensions as a person writes them: any case, dot or none."""
        return cls(frozenset(b"." + ending.lower().lstrip(b".") for ending in extensions))

    def is_companion(self, name: bytes) -> bool:
        """Tell whether a name is one of a companion, should a picture of its stem be there."""
        return parts(name)[1] in self.extensions

    def stems(self, companion: bytes) -> tuple[bytes, ...]:
        """Return the stems, with folder, that a companion's picture may have."""
        stem = parts(companion)[0]
        shorter, middle = parts(stem)
        return (stem, shorter) if middle else (stem,)

    def leads(self, picture: bytes, companion: bytes) -> bool:
        """Tell whether a companion goes with this picture; a picture is not asked about itself."""
        stem, extension = parts(picture)
        if picture == companion or not self.is_companion(companion):
            return False
        if not companion.startswith(stem + b"."):
            return False
        ending = companion[len(stem) :].lower()
        middle = ending[: ending.rfind(b".")]
        return middle in (b"", extension) or middle in self.extensions

    def order(self, picture: bytes, companion: bytes) -> tuple[bool, int, bytes]:
        """Return a key that sorts the pictures which lead a companion: the first one has it.

        ``IMG_1.JPG.xmp`` names its picture. Else JPEG comes before HEIC, HEIC before other
        pictures, and these before raw files that are pictures themselves; then by name.
        """
        extension = parts(picture)[1]
        rank = next((n for n, group in enumerate(_FIRST) if extension in group), len(_FIRST))
        if extension in self.extensions:
            rank = len(_FIRST) + 1
        return parts(companion)[0] != picture, rank, picture

    def first(self, pictures: Iterable[bytes], companion: bytes) -> bytes | None:
        """Return the picture that a companion goes with, or None where none leads it."""
        leading = [picture for picture in pictures if self.leads(picture, companion)]
        return min(leading, key=lambda p: self.order(p, companion), default=None)
