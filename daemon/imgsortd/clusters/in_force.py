"""The clusters in force: the last fit, the one before it, and at once what pins add."""

from __future__ import annotations

import numpy as np

from imgsortd.clusters.routing import ReviewRule, routing_model
from imgsortd.config.model import Config
from imgsortd.records import Model
from imgsortd.store.database import Store
from imgsortd.system.faults import fault_point

# 10,000 pins are 20 MB of features for as long as it takes to put them together.
_NEWEST_PINS = 10_000


class InForce:
    """What pictures are routed by; whoever switches to another fit tells it.

    Parameters
    ----------
    rule
        When a picture goes to review.

    Attributes
    ----------
    model
        The fit in force; None before the first one.
    former
        After a change of backbone, or the loss of the database, the fit that was in force:
        its clusters keep their numbers in the next one, and until then files wait. None
        otherwise.
    """

    def __init__(
        self, store: Store, rule: ReviewRule, model: Model | None, former: Model | None = None
    ) -> None:
        self._store = store
        self._routing: Model | None = None
        self._routing_of: tuple[Model | None, int] = (None, -1)
        self.rule = rule
        self.model, self.former = model, former

    @property
    def fit_id(self) -> int | None:
        """The number of the fit in force."""
        return None if self.model is None else self.model.fit_id

    @property
    def routing(self) -> Model | None:
        """The model that new pictures are routed by: the fit, and centers for a person's pins."""
        of = (self.model, self._store.pins.version)
        if self._routing_of[0] is not of[0] or self._routing_of[1] != of[1]:
            self._routing_of = of
            self._routing = None if self.model is None else with_pins(self.model, self._store)
        return self._routing

    def switch(self, model: Model) -> None:
        """Route by this fit from now on; call after the commit, for the disk may be full."""
        self.model, self.former = model, None
        fault_point("fit_saved")

    def add_cluster(self, model: Model) -> None:
        """Route by the fit in force with a person's cluster beside those it had."""
        self.model = model


def with_pins(model: Model, store: Store) -> Model:
    """Return a model with one more center for each cluster whose pins it would not draw."""
    pins = store.pins.newest(_NEWEST_PINS)
    features = store.fits.get_features(model.extractor, [sha256 for sha256, _ in pins])
    known = [(sha256, number) for sha256, number in pins if sha256 in features]
    if not known:
        return model
    vectors = np.stack([features[sha256] for sha256, _ in known])
    return routing_model(model, vectors, [number for _, number in known])


def review_rule(config: Config) -> ReviewRule:
    """Return when a picture goes to review, as configured."""
    return ReviewRule(config.clusters.review_quantile, config.clusters.review_margin)
