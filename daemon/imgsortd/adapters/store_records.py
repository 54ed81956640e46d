"""What is told of fits without an array: records, sizes, and how many pictures a fit has.

NumPy is not imported here: ``status`` needs no more than this.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from imgsortd.adapters.store_counts import file_groups
from imgsortd.adapters.store_proposals import Proposals
from imgsortd.core.lifecycle import FitFacts, FitTrigger, Maturity, age_of, fit_age_s


@dataclass(frozen=True, slots=True)
class FitRecord:
    """One fit as it is kept and shown."""

    trigger: FitTrigger
    algorithm: str
    n_images: int
    random_state: int
    inertia: float
    churn: float | None
    fit_s: float
    fit_id: int = 0
    n_clusters: int = 0
    created_at: float = 0.0
    distances: bytes | None = None
    """Quantiles of the fit's own distances, float32 [1001] (core/review.py)."""
    about_id: int | None = None
    """For a split, the cluster that it splits."""
    about_images: int | None = None
    """For a split, that cluster's pictures; for a new cluster, those in review."""


class FitRecords:
    """Rows of ``fits`` and ``clusters``, and what they say of the next fit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def count_features(self) -> int:
        """Count the files that a fit would use, from the counts that triggers keep.

        They are the sorted ones, those in review, the kept duplicates, and the waiting
        ones that were read: each has features, for those are stored in the transaction
        that stores the hash. Only a broken file on its way to ``_set_aside``, or a
        companion on its way, is one too many, for as long as its move is open.
        """
        return sum(
            group.files
            for group in file_groups(self._connection)
            if group.is_read
            and (
                group.state in ("pending", "sorted", "review")
                or (group.state == "duplicate" and group.cluster_id is not None)
            )
        )

    def fitted_sizes(self, fit_id: int) -> list[tuple[int, int]]:
        """Return (cluster id, pictures) of each cluster at a fit, by id."""
        return self._connection.execute(
            "SELECT cluster_id, size FROM centers WHERE fit_id = ? ORDER BY cluster_id", (fit_id,)
        ).fetchall()

    def giants(self, fit_id: int, max_share: float | None) -> list[tuple[int, int]]:
        """Return (cluster id, pictures) of each cluster above a share of a fit, largest first."""
        if max_share is None:
            return []
        sizes = self.fitted_sizes(fit_id)
        total = sum(size for _, size in sizes)
        large = [(cluster_id, size) for cluster_id, size in sizes if size > max_share * total]
        return sorted(large, key=lambda cluster: -cluster[1])

    def named_folders(self) -> dict[int, bytes]:
        """Return the folder, directly under target, of each cluster that a person has named."""
        rows = self._connection.execute("SELECT id, folder FROM clusters WHERE folder IS NOT NULL")
        return dict(rows.fetchall())

    def by_hand(self) -> list[int]:
        """Return the clusters that a person has named or made, in force or not."""
        rows = self._connection.execute(
            "SELECT clusters.id FROM clusters LEFT JOIN fits ON fits.id = first_fit "
            "WHERE folder IS NOT NULL OR fit_trigger = ? ORDER BY clusters.id",
            (FitTrigger.FOLDER,),
        )
        return [cluster_id for (cluster_id,) in rows]

    def next_cluster_id(self) -> int:
        """Return the lowest number that no cluster has ever had."""
        row = self._connection.execute("SELECT coalesce(max(id), -1) + 1 FROM clusters").fetchone()
        return int(row[0])

    def current_record(self) -> FitRecord | None:
        """Return the facts of the fit in force, or None before the first one."""
        row = self._connection.execute(
            "SELECT fit_trigger, algorithm, n_images, random_state, inertia, churn, fit_s, id, "
            "n_clusters, created_at FROM fits WHERE is_current = 1"
        ).fetchone()
        return None if row is None else FitRecord(FitTrigger(row[0]), *row[1:])

    def facts(self) -> FitFacts:
        """Return what the decision about the next fit needs to know."""
        base, count = Proposals(self._connection).base(), self.count_features()
        if base is None:
            return FitFacts(count, unread=self.count_unread())
        return FitFacts(count, base.images, fit_age_s(base.at, time.time()))

    def count_unread(self) -> int:
        """Count the files in the inbox that are to be read; not those that were tried in vain."""
        groups = file_groups(self._connection)
        unread = sum(one.files for one in groups if one.state == "pending" and not one.is_read)
        (in_vain,) = self._connection.execute(
            "SELECT count(*) FROM files WHERE state = 'pending' AND sha256 IS NULL AND reason != ''"
        ).fetchone()
        return unread - int(in_vain)

    def maturity(self, max_churn: float | None) -> Maturity | None:
        """Tell whether the library is young; None before the first fit."""
        proposals = Proposals(self._connection)
        images = proposals.fitted_images()
        if images is None:
            return None
        return age_of(proposals.adopted(), images, self.count_features(), max_churn)
