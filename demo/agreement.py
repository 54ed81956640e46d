"""How well do the folders agree with the scenes that are known here?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from sklearn.metrics import normalized_mutual_info_score


def purity(truth: Sequence[str], clusters: Sequence[str]) -> float:
    """Return the share (0 to 1) of pictures that belong to the commonest class of their cluster.

    Method: Manning, Raghavan and Schütze, Introduction to Information Retrieval, 16.3.
    """
    if not truth:
        return 0.0
    pairs = Counter(zip(clusters, truth, strict=True))
    best: dict[str, int] = {}
    for (cluster, _), count in pairs.items():
        best[cluster] = max(best.get(cluster, 0), count)
    return sum(best.values()) / len(truth)


def nmi(truth: Sequence[str], clusters: Sequence[str]) -> float:
    """Return the normalised mutual information (0 to 1) of two labellings."""
    return float(normalized_mutual_info_score(truth, clusters))


def labels_on_disk(
    target: Path, class_of: Callable[[str], str]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the class and the cluster folder of every file that stands in one."""
    files = sorted(target.glob("cluster_*/*"))
    return [class_of(file.name) for file in files], [file.parent.name for file in files]
