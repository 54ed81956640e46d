"""What a cluster's number means, kept over refits.

A refit gives new centers in any order. Each new cluster takes the id of the old
cluster with which it shares the most pictures, one to one, so that the shared
pictures are as many as can be (linear sum assignment; Kuhn 1955, in SciPy's
implementation). So when a cluster splits its number stays with the larger part, and when two
are joined one number is retired. A cluster that shares nothing gets a number never used before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment


def match_ids(
    old_labels: npt.NDArray[np.intp],
    new_labels: npt.NDArray[np.intp],
    old_ids: Sequence[int],
    n_new: int,
    next_id: int,
    fixed: Mapping[int, int] = MappingProxyType({}),
) -> tuple[int, ...]:
    """Give each new label a cluster id.

    Parameters
    ----------
    old_labels, new_labels
        intp [n]: the same n pictures, labelled by the old and by the new centers.
    old_ids
        Cluster id of each old label.
    n_new
        Number of new labels.
    next_id
        The lowest number never used as an id.
    fixed
        New label → cluster id, where a person's pictures say which cluster it is.

    Returns
    -------
    tuple of int
        Cluster id of each new label, all different.
    """
    overlap = np.zeros((n_new, len(old_ids)), dtype=np.int64)
    np.add.at(overlap, (new_labels, old_labels), 1)
    overlap[list(fixed)] = 0
    overlap[:, np.isin(old_ids, list(fixed.values()))] = 0
    ids: dict[int, int] = dict(fixed)
    next_id = max([next_id, *(number + 1 for number in fixed.values())])
    for new, old in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
        if overlap[new, old] > 0:
            ids[int(new)] = old_ids[int(old)]
    for new in range(n_new):
        if new not in ids:
            ids[new] = next_id
            next_id += 1
    return tuple(ids[new] for new in range(n_new))


def churn(
    old_labels: npt.NDArray[np.intp],
    new_labels: npt.NDArray[np.intp],
    old_ids: Sequence[int],
    new_ids: Sequence[int],
) -> float:
    """Return the share (0 to 1) of pictures whose cluster id differs between two fits."""
    if len(new_labels) == 0:
        return 0.0
    before = np.asarray(old_ids)[old_labels]
    after = np.asarray(new_ids)[new_labels]
    return float(np.mean(before != after))
