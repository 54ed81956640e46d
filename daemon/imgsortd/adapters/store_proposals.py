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
from imgsortd.core.lifecycle import PARTIAL, Adopted, FitTrigger
from imgsortd.core.records import KEPT, FitState

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

_MOVED = f"state IN ('sorted', 'duplicate') AND cluster_id = new_id AND dst IS NOT NULL AND {_FREE}"


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

    def fitted_images(self) -> int | None:
        """Return how many pictures the fit in force was made of; twins that left do not count."""
        images = "min(n_images, coalesce(decided_images, n_images))"
        if not self.is_kept():
            images = "n_images"
        row = self._connection.execute(f"SELECT {images} FROM fits WHERE is_current = 1").fetchone()
        return None if row is None else int(row[0])

    def last_file(self) -> int | None:
        """Return the newest file at the fit in force; None where that was not kept."""
        row = self._connection.execute("SELECT last_file FROM fits WHERE is_current = 1").fetchone()
        return None if row is None or not row[0] else int(row[0])

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
        rows = self._connection.execute(
            "SELECT distance, state FROM files WHERE id > ? AND fit_id = ? "
            "AND distance IS NOT NULL AND state IN ('sorted', 'review') ORDER BY id DESC LIMIT ?",
            (base.last_file, row[0], window),
        ).fetchall()
        in_review = sum(state == "review" for _, state in rows)
        return measure_drift(window, [distance for distance, _ in rows], limit, in_review)

    def adopted(self) -> list[Adopted]:
        """Return the whole fits that were put in force and not rolled back, the oldest first."""
        if not self.is_kept():
            return []
        rows = self._connection.execute(
            "SELECT id, n_images, churn, algorithm FROM fits WHERE state = 'adopted' "
            f"AND fit_trigger NOT IN ({', '.join('?' * len(PARTIAL))}) ORDER BY id",
            PARTIAL,
        )
        return [
            Adopted(fit_id, images, churn, algorithm == KEPT)
            for fit_id, images, churn, algorithm in rows
        ]

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

    def standing(
        self, fit_id: int, *, only_review: bool = False, moved: bool = False
    ) -> Iterator[ChangedFile]:
        """Yield the files that would move: those that stand in their old cluster's folder.

        Parameters
        ----------
        only_review
            Leave out those that stand in a cluster's folder.
        moved
            Those that have been moved instead: they stand in their new cluster's folder.
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
        row = self._connection.execute(
            "SELECT 1 FROM files WHERE id = ? AND state IN ('sorted', 'duplicate') "
            f"AND cluster_id = ? AND dst IS NOT NULL AND {_FREE}",
            (file_id, cluster_id),
        ).fetchone()
        return row is not None

    def note_switch(self, batch: int, fit_id: int, former_id: int) -> None:
        """Keep the batch in which files follow a switch from one fit to another."""
        self._connection.execute(
            "INSERT INTO fit_switches VALUES (?, ?, ?)", (batch, fit_id, former_id)
        )

    def switch_in(self, batch: int) -> tuple[int, int] | None:
        """Return the fit that files followed in a batch, and the one before; None for others."""
        row: tuple[int, int] | None = self._connection.execute(
            "SELECT fit_id, former_id FROM fit_switches WHERE batch = ?", (batch,)
        ).fetchone()
        return row

    def batches_of(self, fit_id: int) -> list[int]:
        """Return the batches in which files followed a fit from its former one, oldest first."""
        if not self._has_switches():
            return []
        rows = self._connection.execute(
            "SELECT batch FROM fit_switches JOIN fits ON fits.id = fit_id "
            "WHERE fit_id = ? AND fit_switches.former_id = fits.former_id ORDER BY batch",
            (fit_id,),
        )
        return [batch for (batch,) in rows]

    def count_following(self, batch: int | None = None) -> int:
        """Count the files that still are to follow a switch of fits; in one batch, or in all."""
        if not self._has_switches():
            return 0
        only = "batch IN (SELECT batch FROM fit_switches)" if batch is None else "batch = ?"
        row = self._connection.execute(
            f"SELECT count(*) FROM moves WHERE phase IN ('planned', 'copied') AND {only}",
            () if batch is None else (batch,),
        ).fetchone()
        return int(row[0])

    def _has_switches(self) -> bool:
        """Tell whether the daemon has started once since the table came."""
        table = "SELECT 1 FROM sqlite_master WHERE name = 'fit_switches'"
        return self._connection.execute(table).fetchone() is not None

    def switch(self, fit_id: int, to_id: int, images: int) -> None:
        """Put another fit in force: the former one, which takes this one back, or a later one.

        Parameters
        ----------
        images
            The pictures that growth counts from.
        """
        fit = self.fit(fit_id)
        goes_back = fit is not None and fit.former_id == to_id
        if goes_back:
            self.decide(fit_id, FitState.REJECTED, images, ROLLED_BACK)
        self.put_in_force(to_id)
        if not goes_back:
            self.decide(to_id, FitState.ADOPTED, images)

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
