"""What a refit does to the clusters is told from where their pictures go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgsortd.refits.changes import Change, ClusterChange, Flows, describe_flows


@pytest.mark.parametrize(
    ("flows", "told"),
    [
        ({(1, 1): 9, (2, 2): 4}, []),
        (
            {(1, 1): 9, (None, 5): 6},
            [ClusterChange(5, Change.APPEARS, 0, 6, from_review=6)],
        ),
        (
            {(1, 1): 60, (2, 1): 30, (None, 1): 5},
            [
                ClusterChange(2, Change.VANISHES, 30, 0),
                ClusterChange(1, Change.MERGES, 60, 95, ((1, 60), (2, 30)), from_review=5),
                ClusterChange(1, Change.GROWS, 60, 95, from_review=5),
            ],
        ),
        (
            {(1, 1): 60, (1, 5): 40, (2, 2): 7},
            [
                ClusterChange(5, Change.APPEARS, 0, 40),
                ClusterChange(1, Change.SPLITS, 100, 60, ((1, 60), (5, 40))),
                ClusterChange(1, Change.SHRINKS, 100, 60),
            ],
        ),
        (
            {(1, 1): 60, (2, 1): 30},
            [
                ClusterChange(2, Change.VANISHES, 30, 0),
                ClusterChange(1, Change.MERGES, 60, 90, ((1, 60), (2, 30))),
                ClusterChange(1, Change.GROWS, 60, 90),
            ],
        ),
        (
            {(1, 1): 60, (1, 2): 3, (2, 2): 30},
            [
                ClusterChange(2, Change.GROWS, 30, 33),
                ClusterChange(1, Change.SHRINKS, 63, 60),
            ],
        ),
        (
            {(1, 1): 6, (1, 2): 3, (2, 1): 3, (2, 2): 3},
            [
                ClusterChange(1, Change.SWAPS, 9, 9),
                ClusterChange(2, Change.SWAPS, 6, 6),
            ],
        ),
    ],
)
def test_each_way_a_cluster_can_change_has_its_word(
    flows: Flows, told: list[ClusterChange]
) -> None:
    assert describe_flows(flows) == told


FLOWS = st.dictionaries(
    st.tuples(st.none() | st.integers(0, 5), st.integers(0, 7)), st.integers(1, 50), max_size=20
)


@given(FLOWS)
def test_a_cluster_is_told_of_exactly_when_its_pictures_change(flows: Flows) -> None:
    changes = describe_flows(flows)

    moving = {i for (old, new), _ in flows.items() if old != new for i in (old, new)} - {None}
    own = {c.cluster_id for c in changes if c.change not in (Change.SPLITS, Change.MERGES)}
    assert own == moving
    for change in changes:
        assert change.before == sum(n for (old, _), n in flows.items() if old == change.cluster_id)
        assert change.after == sum(n for (_, new), n in flows.items() if new == change.cluster_id)
        assert change.from_review == flows.get((None, change.cluster_id), 0)
