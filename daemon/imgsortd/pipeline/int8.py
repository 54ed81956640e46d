"""int8, switched on only when it is seen not to matter on the user's own pictures.

The first pictures calibrate the quantisation; on others, held out, the nearest clusters
by int8 and by float32 features are compared. What came of it is kept beside the model
and shown by ``status``, whether it passed or not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imgsortd.clusters.in_force import InForce
from imgsortd.clusters.routing import nearest
from imgsortd.config.model import Config
from imgsortd.config.values import Engine, Precision
from imgsortd.networks.int8_checks import Int8Check, keep_check, read_check
from imgsortd.networks.resident import FeatureExtractor, Resident
from imgsortd.pipeline.rereading import SortedPictures
from imgsortd.records import Pixels, Vectors
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.system.threads import begin

if TYPE_CHECKING:
    from imgsortd.networks.openvino_engine import OpenVinoExtractor

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 128
HELD_OUT_IMAGES = 256
TRIAL_IMAGES = CALIBRATION_IMAGES + HELD_OUT_IMAGES
MIN_AGREEMENT = 0.98
_LOOK_EVERY_S = 2.0
_AFTER_FAILURE_S = 600.0


def openvino_of(extractor: FeatureExtractor) -> OpenVinoExtractor | None:
    """Return the engine behind a resident model, if it is OpenVINO's."""
    if not isinstance(extractor, Resident):
        return None
    from imgsortd.networks import openvino_engine

    loaded = extractor.loaded()
    return loaded if isinstance(loaded, openvino_engine.OpenVinoExtractor) else None


def make_and_check(
    engine: OpenVinoExtractor, pixels: Sequence[Pixels], centers: Vectors, file: Path
) -> Int8Check:
    """Make an int8 model and compare it; where it passed, keep it in ``file`` and use it.

    The first ``CALIBRATION_IMAGES`` pictures are for the quantisation, the others held out;
    ``centers``, float32 [k, d], are of the clusters that are to stay the same.
    """
    calibration, held_out = pixels[:CALIBRATION_IMAGES], pixels[CALIBRATION_IMAGES:]
    candidate = file.with_name(f"{file.stem}-candidate.xml")
    try:
        engine.make_int8(calibration, candidate)
        exact = engine.extract_exactly(held_out)
        quantised = engine.extract_int8(candidate, held_out)
        agreement = float(np.mean(nearest(exact, centers)[0] == nearest(quantised, centers)[0]))
        cosine = float(np.einsum("ij,ij->i", exact, quantised).min())
        is_same = agreement >= MIN_AGREEMENT
        check = Int8Check(agreement, cosine, len(held_out), is_same, engine.engine_name)
        if check.passed:  # the .xml last: with it the model is there
            candidate.with_suffix(".bin").replace(file.with_suffix(".bin"))
            candidate.replace(file)
            engine.use_int8(file)
        keep_check(file, check)
    finally:
        candidate.unlink(missing_ok=True)
        candidate.with_suffix(".bin").unlink(missing_ok=True)
    what = "switched on" if check.passed else "stays off"
    found = check.agreement, check.min_cosine, check.n_images
    log.info("int8 %s agreement=%.4f min_cosine=%.4f images=%d", what, *found)
    return check


class Int8Trial:
    """Makes and checks an int8 model beside the sorting, once there are pictures enough.

    ``on_error`` is told (event, detail) of a trial that could not be made.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        extractor: FeatureExtractor,
        in_force: InForce,
        on_error: Callable[[str, str], None],
        engine_of: Callable[[FeatureExtractor], OpenVinoExtractor | None] = openvino_of,
    ) -> None:
        model = config.model
        self._config, self._store, self._extractor = config, store, extractor
        self._in_force, self._on_error, self._engine_of = in_force, on_error, engine_of
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
        model = self._in_force.model
        if model is None:
            return
        rows = self._store.files.first_sorted(2 * TRIAL_IMAGES)  # some may be gone since
        if len(rows) < TRIAL_IMAGES:
            return
        engine = self._engine_of(self._extractor)
        if engine is None or engine.precision is Precision.INT8:
            self.is_over = True
            return
        file = engine.int8_file(self._config.state_dir)
        if (check := read_check(file)) is not None and not check.passed:
            self.is_over = True
            return
        log.info("int8 trial started images=%d held_out=%d", TRIAL_IMAGES, HELD_OUT_IMAGES)

        def try_it() -> Int8Check | None:
            pixels = _read(self._config, rows)
            is_enough = len(pixels) == TRIAL_IMAGES
            return make_and_check(engine, pixels, model.centers, file) if is_enough else None

        self._job = begin(try_it, "int8")

    def _end(self, job: Future[Int8Check | None], now_s: float) -> None:
        error, self._job = job.exception(), None
        if error is None and job.result() is not None:
            self.is_over = True
            return
        detail = str(error) if error else f"fewer than {TRIAL_IMAGES} sorted pictures are readable"
        self._on_error("int8 not tried", detail)
        self._next_look_s = now_s + _AFTER_FAILURE_S


def _read(config: Config, rows: Sequence[FileRow]) -> list[Pixels]:
    """Read the first pictures that can still be read, each content once."""
    found: dict[bytes, Pixels] = {}
    with closing(SortedPictures(config, threads=1)) as reader:
        for kept in rows:
            for picture in reader.read([kept]):
                found.setdefault(picture.sha256, picture.pixels)
            if len(found) == TRIAL_IMAGES:
                break
    return list(found.values())
