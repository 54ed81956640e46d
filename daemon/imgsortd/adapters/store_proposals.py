"""What became of each fit: proposed, adopted, rejected, replaced, rolled back.

NumPy is not imported here: ``status`` tells of a proposal that waits.
"""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgsortd.core.drift import QUANTILE, Drift, measure_drift
from imgsortd.core.lifecycle import PARTIAL, FitTrigger
from imgsortd.core.records import FitState

ROLLED_BACK = "rolled back"
_QUANTILES = 1000  # as in core/review.py, which needs NumPy
_COLUMNS = (
    "id, fit_trigger, state, is_current, former_id, n_images, n_clusters, churn, algorithm, "
    "created_at, decided_at, about_id, about_images, note"
)
_FREE = "NOT EXISTS (SELECT 1 FROM pins WHERE pins.sha256 = files.sha256)"
_STANDING = (
    "((old_id IS NULL AND state = 'review') OR "
    f"(state IN ('sorted', 'duplicate') AND cluster_id = old_id)) AND dst IS NOT NULL AND {_FREE}"
)


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

    ``old_id`` is None where it stands in review; ``dst`` is its name below target.
    """

    file_id: int
    old_id: int | None
    new_id: int
    dst: bytes


class Proposals:
    """What ``fits``, ``clusters`` and ``proposed_changes`` say of decisions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    # --- fits --------------------------------------------------------------------------

    def list_fits(self, limit: int = -1) -> list[KeptFit]:
        """Return the fits, the newest first."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM fits ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [_kept(row) for row in rows]

    def fit(self, fit_id: int) -> KeptFit | None:
        """Return one fit."""
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM fits WHERE id = ?", (fit_id,)
        ).fetchone()
        return None if row is None else _kept(row)

    def current_id(self) -> int | None:
        """Return the fit in force; None before the first one."""
        row = self._connection.execute("SELECT id FROM fits WHERE is_current = 1").fetchone()
        return None if row is None else int(row[0])

    def waiting(self) -> KeptFit | None:
        """Return the proposal that waits for a person's word; there is one at most."""
        if not self.is_kept():
            return None
        row = self._connection.execute(
            f"SELECT {_COLUMNS} FROM fits WHERE state = 'proposed' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        return None if row is None else _kept(row)

    def is_kept(self) -> bool:
        """Tell whether the daemon has started once since these columns came."""
        return any(row[1] == "decision" for row in self._connection.execute(_FITS_INFO))

    def base(self) -> Base | None:
        """Return from when on the triggers count; None before the first fit.

        The decisions are numbered: a clock that is set back does not change their order.
        """
        row = None
        if self.is_kept():
            row = self._connection.execute(
                "SELECT decided_at, decided_images, last_file FROM fits "
                "WHERE decision IS NOT NULL ORDER BY decision DESC LIMIT 1"
            ).fetchone()
        row = (
            row
            or self._connection.execute(
                "SELECT created_at, n_images, 0 FROM fits WHERE is_current = 1"
            ).fetchone()
        )
        return None if row is None else Base(*row)

    def was_refused(self, trigger: FitTrigger, about_id: int | None, images: int) -> bool:
        """Tell whether a person rejected the same or rolled it back, with no quarter more since."""
        row = self._connection.execute(
            "SELECT 1 FROM fits WHERE fit_trigger = ? AND state = 'rejected' "
            "AND about_id IS ? AND about_images * 5 > ? * 4",
            (trigger, about_id, images),
        ).fetchone()
        return row is not None

    def drift(self, window: int) -> Drift | None:
        """Compare the latest arrivals with the fit in force; None where it kept no distances."""
        row, base = None, self.base()
        if base is not None and self.is_kept():
            row = self._connection.execute(
                "SELECT id, distances FROM fits WHERE is_current = 1 AND distances IS NOT NULL"
            ).fetchone()
        if row is None or base is None:
            return None
        (limit,) = struct.unpack_from("<f", row[1], 4 * round(QUANTILE * _QUANTILES))
        distances = self._connection.execute(
            "SELECT distance FROM files WHERE id > ? AND fit_id = ? AND distance IS NOT NULL "
            "AND state IN ('sorted', 'review') ORDER BY id DESC LIMIT ?",
            (base.last_file, row[0], window),
        ).fetchall()
        return measure_drift(window, [distance for (distance,) in distances], limit)

    # --- decisions: call inside a transaction -----------------------------------------

    def put_in_force(self, fit_id: int) -> None:
        """Make a fit the current one: its clusters are no longer retired, all others are."""
        self.replace_waiting(fit_id)
        self._connection.execute("UPDATE fits SET is_current = 0 WHERE is_current = 1")
        self._connection.execute(
            "UPDATE fits SET is_current = 1, state = 'adopted', note = '' WHERE id = ?", (fit_id,)
        )
        self._connection.execute(
            "UPDATE clusters SET retired_fit = ? WHERE retired_fit IS NULL", (fit_id,)
        )
        self._connection.execute(
            "UPDATE clusters SET retired_fit = NULL "
            "WHERE id IN (SELECT cluster_id FROM centers WHERE fit_id = ?)",
            (fit_id,),
        )

    def decide(
        self, fit_id: int, state: FitState, images: int | None = None, note: str = ""
    ) -> None:
        """Note what became of a fit, and let the triggers count from now on.

        A change of a few clusters is noted, too, but counts nothing anew.

        Parameters
        ----------
        images
            The pictures that growth counts from; None for as many as at the fit.
        """
        self._connection.execute(
            "UPDATE fits SET state = ?, note = ?, decided_at = ?, "
            "decided_images = coalesce(?, n_images), "
            "last_file = (SELECT coalesce(max(id), 0) FROM files) WHERE id = ?",
            (state, note, time.time(), images, fit_id),
        )
        self._connection.execute(
            "UPDATE fits SET decision = (SELECT coalesce(max(decision), 0) + 1 FROM fits) "
            f"WHERE id = ? AND fit_trigger NOT IN ({', '.join('?' * len(PARTIAL))})",
            (fit_id, *PARTIAL),
        )

    def replace_waiting(self, by: int) -> None:
        """Let a proposal that waits go: another fit takes its place."""
        self._connection.execute(
            "UPDATE fits SET state = 'replaced', note = ? WHERE state = 'proposed' AND id != ?",
            (f"fit {by} took its place", by),
        )
        self._connection.execute(
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
            f"AND state IN ('pending', 'sorted', 'duplicate', 'review') AND {_FREE}",
            ((fit_id, *change) for change in changes),
        )

    def standing(self, fit_id: int, *, only_review: bool = False) -> Iterator[ChangedFile]:
        """Yield the files that would move: those that stand in their old cluster's folder.

        Parameters
        ----------
        only_review
            Leave out those that stand in a cluster's folder.
        """
        only = "AND old_id IS NULL" if only_review else ""
        for row in self._connection.execute(
            "SELECT file_id, old_id, new_id, dst FROM proposed_changes "
            "JOIN files ON files.id = file_id WHERE proposed_changes.fit_id = ? "
            f"AND {_STANDING} {only} ORDER BY old_id, new_id, file_id",
            (fit_id,),
        ):
            yield ChangedFile(*row)

    def stands_in(self, file_id: int, cluster_id: int) -> bool:
        """Tell whether a file stands in this cluster's folder, and no pin holds it there."""
        row = self._connection.execute(
            "SELECT 1 FROM files WHERE id = ? AND state IN ('sorted', 'duplicate') "
            f"AND cluster_id = ? AND dst IS NOT NULL AND {_FREE}",
            (file_id, cluster_id),
        ).fetchone()
        return row is not None

    def batches_of(self, fit_id: int) -> list[int]:
        """Return the batches that moved files within target because of a fit, oldest first."""
        rows = self._connection.execute(
            "SELECT DISTINCT batch FROM moves WHERE fit_id = ? AND src_root = 'target' "
            "AND dst_root = 'target' AND undoes IS NULL AND phase = 'done' ORDER BY batch",
            (fit_id,),
        )
        return [batch for (batch,) in rows]

    def add_flows(self, fit_id: int, flows: Mapping[tuple[int | None, int], int]) -> None:
        """Keep how many pictures go from each old cluster to each new one, or stay."""
        self._connection.executemany(
            "INSERT INTO fit_flows VALUES (?, ?, ?, ?)",
            ((fit_id, old, new, pictures) for (old, new), pictures in flows.items()),
        )

    def flows(self, fit_id: int) -> dict[tuple[int | None, int], int]:
        """Return the pictures that go from each old cluster to each new one, or stay."""
        rows = self._connection.execute(
            "SELECT old_id, new_id, pictures FROM fit_flows WHERE fit_id = ?", (fit_id,)
        )
        return {(old, new): pictures for old, new, pictures in rows}


_FITS_INFO = "PRAGMA table_info(fits)"


def _kept(row: Sequence[Any]) -> KeptFit:
    fit_id, trigger, state, in_force, *rest = row
    return KeptFit(
        fit_id,
        FitTrigger(str(trigger)),
        FitState(str(state)),
        bool(in_force),
        *rest,
    )
