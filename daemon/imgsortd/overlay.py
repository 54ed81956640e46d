"""The model that pictures are routed by: the fit in force, and at once what pins add to it."""

from __future__ import annotations

import numpy as np

from imgsortd.adapters.store import Store
from imgsortd.core.pins import routing_model
from imgsortd.core.records import Model

# 10,000 pins are 20 MB of features for as long as it takes to put them together.
_NEWEST_PINS = 10_000


class Overlay:
    """Keeps the routing model until the fit or the pins are others."""

    def __init__(self) -> None:
        self._of: tuple[Model | None, int] = (None, -1)
        self._routing: Model | None = None

    def over(self, model: Model | None, store: Store) -> Model | None:
        """Return the model to route by; None before the first fit."""
        if self._of[0] is not model or self._of[1] != store.pins.version:
            self._of = (model, store.pins.version)
            self._routing = None if model is None else with_pins(model, store)
        return self._routing


def with_pins(model: Model, store: Store) -> Model:
    """Return a model with one more center for each cluster whose pins it would not draw."""
    pins = store.pins.newest(_NEWEST_PINS)
    features = store.fits.get_features(model.extractor, [sha256 for sha256, _ in pins])
    known = [(sha256, number) for sha256, number in pins if sha256 in features]
    if not known:
        return model
    vectors = np.stack([features[sha256] for sha256, _ in known])
    return routing_model(model, vectors, [number for _, number in known])
