"""What is told of fits without an array: their facts, what became of each, what it changes.

NumPy is not imported here: ``status`` needs no more than this.
"""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from imgsortd.records import KEPT, PARTIAL, AdoptedFit, FitState, FitTrigger
from imgsortd.store.files import file_groups
from imgsortd.store.queries import FREE, OPEN, PLACED, Queries

ROLLED_BACK = "rolled back"
_QUANTILES = 1000  # as in clusters/routing.py, which needs NumPy
_COLUMNS = (
    "id, fit_trigger, state, is_current, former_id, n_images, n_clusters, churn, algorithm, "
    "created_at, decided_at, about_id, about_images, note"
)
_WHOLE = f"fit_trigger NOT IN ({', '.join('?' * len(PARTIAL))})"
_STANDING = (
    "((old_id IS NULL AND state = 'review') OR "
    f"(state IN ('sorted', 'duplicate') AND cluster_id = old_id)) AND {PLACED} AND {FREE}"
)
_MOVED = f"state IN ('sorted', 'duplicate') AND cluster_id = new_id AND {PLACED} AND {FREE}"


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
    """Quantiles of the fit's own distances, float32 [1001] (clusters/routing.py)."""
    about_id: int | None = None
    """For a split, the cluster that it splits."""
    about_images: int | None = None
    """For a split, that cluster's pictures; for a new cluster, those in review."""


@dataclass(frozen=True, slots=True)
class KeptFit:
    """One fit as ``imgsortd refits`` lists it. Times are Unix seconds."""

    fit_id: int
    trigger: FitTrigger
    state: FitState
    in_force: bool
    former_id: int | None
    n_images: int
    n_clusters: int
    churn: float | None
    algorithm: str
    created_at: float
    decided_at: float | None
    about_id: int | None
    about_images: int | None
    note: str


@dataclass(frozen=True, slots=True)
class Base:
    """The last whole fit or decision on one: from here on the triggers count."""

    at: float
    images: int
    last_file: int


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that a proposal gives another cluster, and that stands in the old one's folder.

    No :class:`~imgsortd.store.lookup.FileRow`: a refit of a large library has a million.
    ``old_id`` is None where it stands in review; ``dst`` is its name below target.
    """

    file_id: int
    old_id: int | None
    new_id: int
    dst: bytes


@dataclass(frozen=True, slots=True)
class Arrived:
    """The latest arrivals against the fit in force."""

    distances: list[float]
    """Of each to its nearest center."""
    quantile: float
    """The distance within which the asked share of the fit's own pictures lies."""
    in_review: int


class FitRecords(Queries):
    """Rows of ``fits``, ``clusters`` and ``proposed_changes``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._tables: set[str] = set()

    # --- pictures and clusters ---------------------------------------------------------

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

    def count_unread(self) -> int:
        """Count the files in the inbox that are to be read; not those that were tried in vain."""
        groups = file_groups(self._connection)
        unread = sum(one.files for one in groups if one.state == "pending" and not one.is_read)
        return unread - self._count(
            "SELECT count(*) FROM files WHERE state = 'pending' AND sha256 IS NULL AND reason != ''"
        )

    def named_folders(self) -> dict[int, bytes]:
        """Return the folder, directly under target, of each cluster that a person has named."""
        return dict(self._all("SELECT id, folder FROM clusters WHERE folder IS NOT NULL"))

    def by_hand(self) -> list[int]:
        """Return the clusters that a person has named or made, in force or not."""
        return self._column(
            "SELECT clusters.id FROM clusters LEFT JOIN fits ON fits.id = first_fit "
            "WHERE folder IS NOT NULL OR fit_trigger = ? ORDER BY clusters.id",
            FitTrigger.FOLDER,
        )

    def is_in_force(self, cluster_id: int) -> bool:
        """Tell whether a cluster is one of the fit in force."""
        return self._is_any(
            "SELECT 1 FROM centers JOIN fits ON fits.id = fit_id "
            "WHERE is_current = 1 AND cluster_id = ?",
            cluster_id,
        )

    def next_cluster_id(self) -> int:
        """Return the lowest number that no cluster has ever had."""
        return self._count("SELECT coalesce(max(id), -1) + 1 FROM clusters")

    def fitted_sizes(self, fit_id: int) -> list[tuple[int, int]]:
        """Return (cluster id, pictures) of each cluster at a fit, by id."""
        return self._all(
            "SELECT cluster_id, size FROM centers WHERE fit_id = ? ORDER BY cluster_id", fit_id
        )

    def giants(self, fit_id: int, max_share: float | None) -> list[tuple[int, int]]:
        """Return (cluster id, pictures) of each cluster above a share of a fit, largest first."""
        if max_share is None:
            return []
        sizes = self.fitted_sizes(fit_id)
        total = sum(size for _, size in sizes)
        large = [(cluster_id, size) for cluster_id, size in sizes if size > max_share * total]
        return sorted(large, key=lambda cluster: -cluster[1])

    # --- fits --------------------------------------------------------------------------

    def current_record(self) -> FitRecord | None:
        """Return the facts of the fit in force, or None before the first one."""
        row = self._one(
            "SELECT fit_trigger, algorithm, n_images, random_state, inertia, churn, fit_s, id, "
            "n_clusters, created_at FROM fits WHERE is_current = 1"
        )
        return None if row is None else FitRecord(FitTrigger(row[0]), *row[1:])

    def list_fits(self, limit: int = -1) -> list[KeptFit]:
        """Return the fits, the newest first."""
        return self._fits("ORDER BY id DESC LIMIT ?", limit)

    def fit(self, fit_id: int) -> KeptFit | None:
        """Return one fit."""
        return next(iter(self._fits("WHERE id = ?", fit_id)), None)

    def _fits(self, which: str, *values: int) -> list[KeptFit]:
        rows = self._all(f"SELECT {_COLUMNS} FROM fits {which}", *values)
        return [
            KeptFit(fit_id, FitTrigger(trigger), FitState(state), bool(in_force), *others)
            for fit_id, trigger, state, in_force, *others in rows
        ]

    def current_id(self) -> int | None:
        """Return the fit in force; None before the first one."""
        return self._number("SELECT id FROM fits WHERE is_current = 1")

    def fitted_images(self) -> int | None:
        """Return how many pictures the fit in force was made of; twins that left do not count."""
        kept = "min(n_images, coalesce(decided_images, n_images))"
        images = kept if self.is_kept() else "n_images"
        return self._number(f"SELECT {images} FROM fits WHERE is_current = 1")

    def last_file(self) -> int | None:
        """Return the newest file at the fit in force; None where that was not kept."""
        return self._number("SELECT last_file FROM fits WHERE is_current = 1") or None

    def waiting(self) -> KeptFit | None:
        """Return the proposal that waits for a person's word; there is one at most."""
        if not self.is_kept():
            return None
        return next(iter(self._fits("WHERE state = 'proposed' ORDER BY id DESC LIMIT 1")), None)

    def is_kept(self) -> bool:
        """Tell whether the daemon has started once since these columns came."""
        return self._has("fit_flows")

    def base(self) -> Base | None:
        """Return from when on the triggers count; None before the first fit.

        The decisions are numbered: a clock that is set back does not change their order.
        """
        row = None
        if self.is_kept():
            row = self._one(
                "SELECT decided_at, decided_images, last_file FROM fits "
                "WHERE decision IS NOT NULL ORDER BY decision DESC LIMIT 1"
            )
        row = row or self._one("SELECT created_at, n_images, 0 FROM fits WHERE is_current = 1")
        return None if row is None else Base(*row)

    def was_refused(self, trigger: FitTrigger, about_id: int | None, images: int) -> bool:
        """Tell whether a person rejected the same or rolled it back, with no quarter more since."""
        return self._is_any(
            "SELECT 1 FROM fits WHERE fit_trigger = ? AND state = 'rejected' "
            "AND about_id IS ? AND about_images * 5 > ? * 4",
            trigger,
            about_id,
            images,
        )

    def latest_arrivals(self, window: int, share: float) -> Arrived | None:
        """Return how the latest arrivals lie to the fit in force; None where it kept no distances.

        ``window`` arrivals at most; ``share``, 0 to 1, of the fit's own pictures lies within the
        ``quantile`` of the answer.
        """
        row, base = None, self.base()
        if base is not None and self.is_kept():
            row = self._one(
                "SELECT id, distances FROM fits WHERE is_current = 1 AND distances IS NOT NULL"
            )
        if row is None or base is None:
            return None
        (quantile,) = struct.unpack_from("<f", row[1], 4 * round(share * _QUANTILES))
        rows = self._connection.execute(
            "SELECT distance, state FROM files WHERE id > ? AND fit_id = ? "
            "AND distance IS NOT NULL AND state IN ('sorted', 'review') ORDER BY id DESC LIMIT ?",
            (base.last_file, row[0], window),
        ).fetchall()
        in_review = sum(state == "review" for _, state in rows)
        return Arrived([distance for distance, _ in rows], quantile, in_review)

    def adopted(self) -> list[AdoptedFit]:
        """Return the whole fits that were put in force and not rolled back, the oldest first."""
        if not self.is_kept():
            return []
        rows = self._all(
            "SELECT id, n_images, churn, algorithm FROM fits WHERE state = 'adopted' "
            f"AND {_WHOLE} ORDER BY id",
            *PARTIAL,
        )
        return [
            AdoptedFit(fit_id, images, churn, algorithm == KEPT)
            for fit_id, images, churn, algorithm in rows
        ]

    # --- decisions: call inside a transaction -----------------------------------------

    def put_in_force(self, fit_id: int) -> None:
        """Make a fit the current one: its clusters are no longer retired, all others are."""
        self.replace_waiting(fit_id)
        self._do("UPDATE fits SET is_current = 0 WHERE is_current = 1")
        self._do(
            "UPDATE fits SET is_current = 1, state = 'adopted', note = '' WHERE id = ?", fit_id
        )
        self._do("UPDATE clusters SET retired_fit = ? WHERE retired_fit IS NULL", fit_id)
        self._do(
            "UPDATE clusters SET retired_fit = NULL "
            "WHERE id IN (SELECT cluster_id FROM centers WHERE fit_id = ?)",
            fit_id,
        )

    def decide(
        self, fit_id: int, state: FitState, images: int | None = None, note: str = ""
    ) -> None:
        """Note what became of a fit, and let the triggers count from now on.

        A change of a few clusters is noted, too, but counts nothing anew. ``images`` are the
        pictures that growth counts from; None for as many as at the fit.
        """
        self._connection.execute(
            "UPDATE fits SET state = ?, note = ?, decided_at = ?, "
            "decided_images = coalesce(?, n_images), "
            "last_file = (SELECT coalesce(max(id), 0) FROM files) WHERE id = ?",
            (state, note, time.time(), images, fit_id),
        )
        self._connection.execute(
            "UPDATE fits SET decision = (SELECT coalesce(max(decision), 0) + 1 FROM fits) "
            f"WHERE id = ? AND {_WHOLE}",
            (fit_id, *PARTIAL),
        )

    def switch(self, fit_id: int, to_id: int, images: int) -> None:
        """Put another fit in force: the former one, which takes this one back, or a later one.

        ``images`` are the pictures that growth counts from.
        """
        fit = self.fit(fit_id)
        goes_back = fit is not None and fit.former_id == to_id
        if goes_back:
            self.decide(fit_id, FitState.REJECTED, images, ROLLED_BACK)
        self.put_in_force(to_id)
        if not goes_back:
            self.decide(to_id, FitState.ADOPTED, images)

    def replace_waiting(self, by: int) -> None:
        """Let a proposal that waits go: another fit takes its place."""
        self._connection.execute(
            "UPDATE fits SET state = 'replaced', note = ? WHERE state = 'proposed' AND id != ?",
            (f"fit {by} took its place", by),
        )
        self._do(
            "DELETE FROM proposed_changes WHERE fit_id IN "
            "(SELECT id FROM fits WHERE state = 'replaced')"
        )

    # --- what a proposal changes --------------------------------------------------------

    def add_changes(self, fit_id: int, changes: Iterable[tuple[int, int | None, int]]) -> None:
        """Keep (file id, old cluster, new cluster) of files that have found a place, or will.

        The old cluster is None for a file in review. Pinned ones stay where they are.
        """
        self._connection.executemany(
            "INSERT INTO proposed_changes SELECT ?1, id, ?3, ?4 FROM files WHERE id = ?2 "
            f"AND state IN ('pending', 'sorted', 'duplicate', 'review') AND {FREE}",
            ((fit_id, *change) for change in changes),
        )

    def standing(
        self, fit_id: int, *, only_review: bool = False, moved: bool = False
    ) -> Iterator[ChangedFile]:
        """Yield the files that would move: those that stand in their old cluster's folder.

        ``only_review`` leaves out those that stand in a cluster's folder; ``moved`` gives those
        that have been moved instead: they stand in their new cluster's folder.
        """
        only = "AND old_id IS NULL" if only_review else ""
        for row in self._connection.execute(
            "SELECT file_id, old_id, new_id, dst FROM proposed_changes "
            "JOIN files ON files.id = file_id WHERE proposed_changes.fit_id = ? "
            f"AND {_MOVED if moved else _STANDING} {only} ORDER BY old_id, new_id, file_id",
            (fit_id,),
        ):
            yield ChangedFile(*row)

    def stands_in(self, file_id: int, cluster_id: int) -> bool:
        """Tell whether a file stands in this cluster's folder, and no pin holds it there."""
        return self._is_any(
            "SELECT 1 FROM files WHERE id = ? AND state IN ('sorted', 'duplicate') "
            f"AND cluster_id = ? AND {PLACED} AND {FREE}",
            file_id,
            cluster_id,
        )

    def note_switch(self, batch: int, fit_id: int, former_id: int) -> None:
        """Keep the batch in which files follow a switch from one fit to another."""
        self._do("INSERT INTO fit_switches VALUES (?, ?, ?)", batch, fit_id, former_id)

    def switch_in(self, batch: int) -> tuple[int, int] | None:
        """Return the fit that files followed in a batch, and the one before; None for others."""
        sql = "SELECT fit_id, former_id FROM fit_switches WHERE batch = ?"
        return next(iter(self._all(sql, batch)), None)

    def batches_of(self, fit_id: int) -> list[int]:
        """Return the batches in which files followed a fit from its former one, oldest first."""
        if not self._has("fit_switches"):
            return []
        return self._column(
            "SELECT batch FROM fit_switches JOIN fits ON fits.id = fit_id "
            "WHERE fit_id = ? AND fit_switches.former_id = fits.former_id ORDER BY batch",
            fit_id,
        )

    def count_following(self, batch: int | None = None) -> int:
        """Count the files that still are to follow a switch of fits; in one batch, or in all."""
        if not self._has("fit_switches"):
            return 0
        moving = f"SELECT count(*) FROM moves WHERE {OPEN} AND batch"
        if batch is not None:
            return self._count(f"{moving} = ?", batch)
        return self._count(f"{moving} IN (SELECT batch FROM fit_switches)")

    def add_flows(self, fit_id: int, flows: Mapping[tuple[int | None, int], int]) -> None:
        """Keep how many pictures go from each old cluster to each new one, or stay."""
        self._connection.executemany(
            "INSERT INTO fit_flows VALUES (?, ?, ?, ?)",
            ((fit_id, old, new, pictures) for (old, new), pictures in flows.items()),
        )

    def flows(self, fit_id: int) -> dict[tuple[int | None, int], int]:
        """Return the pictures that go from each old cluster to each new one, or stay."""
        rows = self._all("SELECT old_id, new_id, pictures FROM fit_flows WHERE fit_id = ?", fit_id)
        return {(old, new): pictures for old, new, pictures in rows}

    def _has(self, table: str) -> bool:
        """Tell whether the daemon has started once since a table came: then it stays."""
        if table not in self._tables:
            rows = self._all("SELECT name FROM sqlite_master WHERE type = 'table'")
            self._tables = {name for (name,) in rows}
        return table in self._tables
