"""What decoding one picture may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgsortd.config_sections import PicturesConfig


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one picture may take.

    Attributes
    ----------
    max_megapixels
        Limit given to :func:`imgsortd.adapters.images.decode`.
    max_s
        Seconds until the process is killed.
    max_memory_mb
        Megabytes that the process may take for one picture, its file included.
    """

    max_megapixels: float = 100.0
    max_s: float = 30.0
    max_memory_mb: int = 2048


def decode_limits(pictures: PicturesConfig) -> DecodeLimits:
    """Take the limits from the configuration."""
    return DecodeLimits(
        pictures.max_megapixels, pictures.max_decode_s, pictures.max_decode_memory_mb
    )
