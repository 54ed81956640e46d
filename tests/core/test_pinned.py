"""A pin draws pictures like it at once, without drawing others."""

from __future__ import annotations

import numpy as np
import pytest

from imgsortd.core.pinned import pin_centers


def test_no_pins_are_no_centers() -> None:
    found, clusters = pin_centers(
        np.eye(2, 3, dtype=np.float32), np.empty((0, 3), np.float32), np.empty(0, np.intp)
    )

    assert (found.shape, len(clusters)) == ((0, 3), 0)


@pytest.mark.parametrize(("pins", "share"), [(1, 1 / 2), (2, 1 / 3), (3, 1 / 4), (9, 1 / 4)])
def test_a_center_of_pins_lies_between_their_mean_and_the_center_nearest_to_it(
    pins: int, share: float
) -> None:
    centers = np.eye(2, 3, dtype=np.float32)
    features = np.repeat([[0.9, 0.1, 0.4]], pins, axis=0).astype(np.float32)

    found, clusters = pin_centers(centers, features, np.full(pins, 7))

    np.testing.assert_allclose(found[0], (1 - share) * centers[0] + share * features[0], rtol=1e-5)
    assert clusters.tolist() == [7]
