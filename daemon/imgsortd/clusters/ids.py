"""What a cluster's number means, kept over refits.

A refit gives new centers in any order. Each new cluster takes the id of the folder in which
most of its pictures stand, one to one, so that the pictures that stay are as many as can be
(linear sum assignment; Kuhn 1955, in SciPy's implementation). Pictures that stand in no folder
say nothing. When a cluster splits, its number stays with the larger part, and when two are
joined one number is retired. A cluster that shares nothing gets a number never used before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

HAND_WEIGHT = 2
"""What a picture counts for in a folder that a person has pinned into, or named."""


def match_ids(
    old_labels: npt.NDArray[np.intp],
    new_labels: npt.NDArray[np.intp],
    old_ids: Sequence[int],
    n_new: int,
    next_id: int,
    fixed: Mapping[int, int] = MappingProxyType({}),
    weights: npt.NDArray[np.int64] | None = None,
) -> tuple[int, ...]:
    """Give each new label a cluster id; return them all, and all different.

    Parameters
    ----------
    old_labels, new_labels
        intp [n]: the same n pictures, labelled by the folder that they stand in and by the
        new centers.
    old_ids
        Cluster id of each old label.
    next_id
        The lowest number never used as an id.
    fixed
        New label → cluster id, where a person's hand says which cluster it is.
    weights
        int64 [n], what each picture counts for; 1 where None.
    """
    overlap = np.zeros((n_new, len(old_ids)), dtype=np.int64)
    np.add.at(overlap, (new_labels, old_labels), 1 if weights is None else weights)
    overlap[list(fixed)] = 0
    overlap[:, np.isin(old_ids, list(fixed.values()))] = 0
    ids: dict[int, int] = dict(fixed)
    next_id = max([next_id, *(number + 1 for number in (*fixed.values(), *old_ids))])
    for new, old in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
        if overlap[new, old] > 0:
            ids[int(new)] = old_ids[int(old)]
    for new in range(n_new):
        if new not in ids:
            ids[new] = next_id
            next_id += 1
    return tuple(ids[new] for new in range(n_new))


def churn(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> float:
    """Return the share (0 to 1) of n pictures whose cluster ids, int64 [n], differ."""
    return float(np.mean(before != after)) if len(after) else 0.0
