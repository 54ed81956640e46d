"""A model that stays in memory, and may be freed while nothing is to be done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from imgsortd.records import ExtractorId, Pixels, Vectors

log = logging.getLogger(__name__)


class FeatureExtractor(Protocol):
    """Whatever turns pixels into features: an engine with its network, or one that stays."""

    id: ExtractorId
    """What rows made by it are marked with."""
    batch_images: int
    """Pictures in one batch of the pipeline that suit network and device."""
    on_cpu: bool
    """Whether it needs the CPUs that also decode."""

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, d] features."""

    def describe(self) -> str:
        """Say on what and how it runs, in a few words."""

    def unload(self) -> None:
        """Free its memory and threads; only a :class:`Resident` can be used again."""


class Resident:
    """An extractor that is built now, and built again at need after :meth:`unload`.

    ``build`` loads the weights and makes it, in whatever thread needs it.
    """

    def __init__(self, build: Callable[[], FeatureExtractor]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._loaded: FeatureExtractor | None = build()
        self.id = self._loaded.id
        self.batch_images = self._loaded.batch_images
        self.on_cpu = self._loaded.on_cpu
        self._description = self._loaded.describe()

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._loaded is not None

    def loaded(self) -> FeatureExtractor:
        """Return the extractor, loaded anew where it was freed.

        Raises
        ------
        WeightsError
            The weights are no longer where they were.
        """
        with self._lock:
            if self._loaded is None:
                started = time.perf_counter()
                self._loaded = self._build()
                log.info("model loaded again load_s=%.1f", time.perf_counter() - started)
            self._description = self._loaded.describe()
            return self._loaded

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        """Map uint8 [224, 224, 3] pictures to float32 [n, d] features."""
        return self.loaded().extract(pixels)

    def describe(self) -> str:
        """Say on what and how the model runs, also while it is freed."""
        return self._description if self.is_loaded else f"{self._description} (unloaded)"

    def unload(self) -> None:
        """Free the model's memory; not to be called while it computes."""
        with self._lock:
            if self._loaded is not None:
                self._loaded.unload()
                self._loaded = None
                log.info("model unloaded")
