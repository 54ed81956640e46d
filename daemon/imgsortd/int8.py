"""int8, switched on only when it is seen not to matter on the user's own pictures.

The first pictures calibrate the quantisation; on others, held out, the nearest clusters
by int8 and by float32 features are compared. What came of it is kept beside the model
and shown by ``status``, whether it passed or not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Protocol

import numpy as np

from imgsortd.adapters.int8_checks import Int8Check, keep_check, read_check
from imgsortd.adapters.resident import Resident
from imgsortd.adapters.store_backbones import Kept
from imgsortd.config import Config, Engine, Precision
from imgsortd.core.records import Pixels, Vectors
from imgsortd.core.routing import nearest
from imgsortd.library import FeatureExtractor, Library
from imgsortd.placed_pictures import PlacedPictures, same_picture

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 128
HELD_OUT_IMAGES = 256
TRIAL_IMAGES = CALIBRATION_IMAGES + HELD_OUT_IMAGES
MIN_AGREEMENT = 0.98
_LOOK_EVERY_S = 2.0
_AFTER_FAILURE_S = 600.0


class Quantisable(Protocol):
    """What an engine offers that can compute in int8."""

    precision: Precision

    @property
    def engine_name(self) -> str:
        """Version and CPU."""

    def int8_file(self, folder: Path) -> Path:
        """Name the file of the checked int8 model."""

    def make_int8(self, pixels: Sequence[Pixels], path: Path) -> None:
        """Quantise on pictures and write the model."""

    def extract_int8(self, path: Path, pixels: Sequence[Pixels]) -> Vectors:
        """Compute by an int8 model that is not in use yet."""

    def extract_exactly(self, pixels: Sequence[Pixels]) -> Vectors:
        """Compute in float32."""

    def use_int8(self, path: Path) -> None:
        """Compute by the int8 model from now on."""


def openvino_of(extractor: FeatureExtractor) -> Quantisable | None:
    """Return the engine behind a resident model, if it is OpenVINO's."""
    if not isinstance(extractor, Resident):
        return None
    from imgsortd.adapters.openvino_engine import OpenVinoExtractor

    loaded = extractor.loaded()
    return loaded if isinstance(loaded, OpenVinoExtractor) else None


def make_and_check(
    engine: Quantisable, pixels: Sequence[Pixels], centers: Vectors, file: Path
) -> Int8Check:
    """Make an int8 model and compare it; where it passed, keep it in ``file`` and use it.

    Parameters
    ----------
    pixels
        ``CALIBRATION_IMAGES`` pictures for the quantisation, and others that are held out.
    centers
        float32 [k, d]: of the clusters that are to stay the same.
    """
    calibration, held_out = pixels[:CALIBRATION_IMAGES], pixels[CALIBRATION_IMAGES:]
    candidate = file.with_name(f"{file.stem}-candidate.xml")
    try:
        engine.make_int8(calibration, candidate)
        exact = engine.extract_exactly(held_out)
        quantised = engine.extract_int8(candidate, held_out)
        same = nearest(exact, centers)[0] == nearest(quantised, centers)[0]
        agreement = float(np.mean(same))
        check = Int8Check(
            agreement,
            float(np.einsum("ij,ij->i", exact, quantised).min()),
            len(held_out),
            agreement >= MIN_AGREEMENT,
            engine.engine_name,
        )
        if check.passed:  # the .xml last: with it the model is there
            candidate.with_suffix(".bin").replace(file.with_suffix(".bin"))
            candidate.replace(file)
            engine.use_int8(file)
        keep_check(file, check)
    finally:
        candidate.unlink(missing_ok=True)
        candidate.with_suffix(".bin").unlink(missing_ok=True)
    log.info(
        "int8 %s agreement=%.4f min_cosine=%.4f images=%d",
        "switched on" if check.passed else "stays off",
        check.agreement,
        check.min_cosine,
        check.n_images,
    )
    return check


class Int8Trial:
    """Makes and checks an int8 model beside the sorting, once there are pictures enough.

    Parameters
    ----------
    on_error
        Told (event, detail) of a trial that could not be made.
    engine_of
        Finds the engine behind the library's extractor; None where it has no int8.
    """

    def __init__(
        self,
        library: Library,
        on_error: Callable[[str, str], None],
        engine_of: Callable[[FeatureExtractor], Quantisable | None] = openvino_of,
    ) -> None:
        model = library.config.model
        self._library = library
        self._on_error = on_error
        self._engine_of = engine_of
        self.is_over = model.precision is not Precision.INT8 or model.engine is not Engine.OPENVINO
        self._job: Future[Int8Check | None] | None = None
        self._next_look_s = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a trial is being made now."""
        return self._job is not None

    def step(self, now_s: float) -> None:
        """Start a trial when it is due, and learn what came of it."""
        if self.is_over or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_EVERY_S
        if self._job is None:
            self._start()
        elif self._job.done():
            self._end(self._job, now_s)

    def _start(self) -> None:
        library = self._library
        if library.model is None:
            return
        rows = library.store.backbones.first_sorted(2 * TRIAL_IMAGES)  # some may be gone since
        if len(rows) < TRIAL_IMAGES:
            return
        engine = self._engine_of(library.extractor)
        if engine is None or engine.precision is Precision.INT8:
            self.is_over = True
            return
        file = engine.int8_file(library.config.state_dir)
        check = read_check(file)
        if check is not None and not check.passed:
            self.is_over = True
            return
        log.info("int8 trial started images=%d held_out=%d", TRIAL_IMAGES, HELD_OUT_IMAGES)
        self._job = _begin(library.config, rows, engine, library.model.centers, file)

    def _end(self, job: Future[Int8Check | None], now_s: float) -> None:
        error, self._job = job.exception(), None
        if error is None and job.result() is not None:
            self.is_over = True
            return
        detail = str(error) if error else f"fewer than {TRIAL_IMAGES} sorted pictures are readable"
        self._on_error("int8 not tried", detail)
        self._next_look_s = now_s + _AFTER_FAILURE_S


def _begin(
    config: Config, rows: Sequence[Kept], engine: Quantisable, centers: Vectors, file: Path
) -> Future[Int8Check | None]:
    future: Future[Int8Check | None] = Future()

    def work() -> None:
        try:
            pixels = _read(config, rows)
            enough = len(pixels) == TRIAL_IMAGES
            future.set_result(make_and_check(engine, pixels, centers, file) if enough else None)
        except Exception as error:  # told by the loop; sorting goes on without int8
            future.set_exception(error)

    Thread(target=work, name="int8", daemon=True).start()
    return future


def _read(config: Config, rows: Sequence[Kept]) -> list[Pixels]:
    """Read the first pictures that can still be read, each content once."""
    reader = PlacedPictures(config, threads=1)
    found: dict[bytes, Pixels] = {}
    try:
        for kept in rows:
            read = reader.submit(kept)
            picture = None if read is None else same_picture(kept, read.result())
            if picture is not None:
                found.setdefault(picture.sha256, picture.pixels)
            if len(found) == TRIAL_IMAGES:
                break
    finally:
        reader.close()
    return list(found.values())
