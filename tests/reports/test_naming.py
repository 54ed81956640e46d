"""Each picture has one vote, and the likeliest classes come first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imgsortd.reports.cluster_names import likely_classes

NAMES = ("bee", "daisy", "sunflower")


def test_a_picture_with_large_logits_has_no_more_votes_than_another() -> None:
    logits = np.array([[500, 0, 0], [0, 0, 9], [0, 0, 9]], dtype=np.float32)

    found = likely_classes(logits, NAMES, 2)

    assert [suggestion.name for suggestion in found] == ["sunflower", "bee"]
    assert found[0].share == pytest.approx(2 / 3, abs=1e-3)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.just(3)),
        elements=st.floats(-900, 900, width=32),
    )
)
def test_the_shares_of_all_classes_add_up_to_one_and_fall(logits: np.ndarray) -> None:
    shares = [suggestion.share for suggestion in likely_classes(logits, NAMES, 3)]

    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


def test_no_picture_says_nothing() -> None:
    assert likely_classes(np.empty((0, 3), dtype=np.float32), NAMES, 3) == ()
