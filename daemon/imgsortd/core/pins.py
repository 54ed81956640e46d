"""Pins at once: what a person has corrected draws others like it, before the next fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from imgsortd.core.pinned import pin_centers
from imgsortd.core.records import Model, Vectors
from imgsortd.core.routing import nearest


def routing_model(
    model: Model, features: Vectors, pinned_to: npt.NDArray[np.int64] | Sequence[int]
) -> Model:
    """Return the model that new pictures are routed by: the fit, and a center for its pins.

    A pin that lies nearest to a center of its own cluster anyway changes nothing. Of those
    that do not, each cluster gets one more center (:func:`imgsortd.core.pinned.pin_centers`);
    its distances stay the fit's. At most twice as many centers come out, however many pins
    there are.

    Parameters
    ----------
    model
        The fit in force; it is not changed.
    features
        float32 [n, d], of the pinned pictures.
    pinned_to
        int [n], the cluster id of each; those of clusters that the fit lacks are left out.
    """
    ids = np.asarray(pinned_to, dtype=np.int64)
    if not len(ids):
        return model
    own = np.asarray(model.cluster_ids, dtype=np.int64)
    wrong = np.isin(ids, own) & (own[nearest(features, model.centers)[0]] != ids)
    if not wrong.any():
        return model
    more, numbers = pin_centers(model.centers, features[wrong], ids[wrong])
    return replace(
        model,
        centers=np.concatenate([model.centers, more]),
        cluster_ids=(*model.cluster_ids, *numbers.tolist()),
    )
