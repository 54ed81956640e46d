"""The clusters as a grid shows them: name, size, growth, how loose, and four pictures each."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from heapq import nsmallest
from math import inf
from statistics import fmean
from threading import Lock

import numpy as np

from imgsortd.config.model import Config
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER
from imgsortd.records import ExtractorId, FileState, Vectors
from imgsortd.reports.status import look_ahead
from imgsortd.store.database import Store
from imgsortd.store.files import file_groups
from imgsortd.store.folders import ClusterFolder, in_use
from imgsortd.store.shown import Member, WebRows
from imgsortd.web.shown import Thumb, digest_of, key_of, left_out, shown, to_json

DAYS, WEEK = 28, 7
MOSAIC = 4
SAMPLE, FIRST_SAMPLE = 2000, 24
"""Pictures of a cluster that are looked at; so few where there is no time for all."""

_AT_ONCE_BYTES = 2**26
_LEAST_S = 0.2
_COST = 20
"""Looks take a twentieth of the time at most, however large the library."""
_LATEST_S = 15.0
_LONGEST_S = 0.25
"""Where there is more to look at than this, a look goes on at the next time."""
_PLACED = (FileState.SORTED, FileState.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What takes a look at the pictures of a cluster.

    Attributes
    ----------
    days
        Pictures that came on each of the last days, the oldest first.
    newest
        When the last one came, in Unix seconds.
    loose
        Mean distance of its pictures, of 2,000 at most, to its middle.
    mosaic
        Its most typical pictures.
    """

    days: tuple[int, ...]
    newest: float | None
    loose: float | None
    mosaic: tuple[Thumb, ...]


@dataclass(frozen=True, slots=True)
class ShownCluster:
    """A cluster in the grid; the rest as in :class:`Facts`.

    Attributes
    ----------
    name
        What a person calls it; None where its folder is ``cluster_N``.
    files, duplicates, week
        Pictures in its folder, those of them that are kept duplicates, and those of a week.
    mosaic
        Left out where one cluster alone is told of.
    retired
        True where it is no more and still holds pictures; else left out.
    """

    id: int
    name: str | None
    folder: str
    files: int
    duplicates: int
    week: int
    days: tuple[int, ...]
    newest: float | None
    loose: float | None
    mosaic: tuple[Thumb, ...] | None = left_out()
    retired: bool | None = left_out()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in target that is a person's own, and no cluster's."""

    name: str
    files: int


@dataclass(frozen=True, slots=True)
class Grid:
    """All clusters, and how many files are elsewhere.

    ``next_fit`` counts seconds, and is the one part that ``stamp`` does not follow.
    """

    next_fit: str
    fit: int | None = None
    clusters: tuple[ShownCluster, ...] = ()
    folders: tuple[Folder, ...] = ()
    review: int = 0
    set_aside: int = 0
    pending: int = 0
    stamp: str = ""


class Overview:
    """Keeps what was found out of each cluster until its pictures are others.

    Sizes are always those of now, for they are kept as counts. The rest is looked at again
    soon after a cluster has more or fewer pictures, and within 15 seconds where pictures have
    only changed places: not with each request, which would go through a million rows.
    It may be used by several threads.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._now = clock, now
        self._lock = Lock()
        self._looks: dict[int, _Look] = {}
        self._folders: tuple[Folder, ...] = ()
        self._folders_of: tuple[object, ...] = ()
        self._next_s = float("-inf")
        self._edges: tuple[float, ...] = ()

    def read(self, config: Config, store: Store | None) -> Grid:
        """Return the grid, where there is a database; its ``stamp`` is another when the grid is.

        Raises
        ------
        StoreError
            The database cannot be read.
        """
        if store is None:
            grid = Grid(look_ahead(config, None, None).next_fit)
        else:
            grid = self._read(config, store)
        return replace(grid, stamp=digest_of(to_json(replace(grid, next_fit=""))))

    def cluster(self, store: Store, cluster_id: int) -> ShownCluster | None:
        """Return one cluster without its mosaic; None where there is none of this number."""
        with self._lock:
            state = self._look(store)
            line = state.lines.get(cluster_id)
            return None if line is None else replace(self._cluster(line, state), mosaic=None)

    def mosaics(self, store: Store, cluster_ids: Iterable[int]) -> dict[int, tuple[Thumb, ...]]:
        """Return the mosaic of each of these clusters, as in :meth:`read`; empty of others."""
        with self._lock:
            self._look(store)
            looks = {number: self._looks.get(number) for number in cluster_ids}
        return {n: () if look is None else look.facts.mosaic for n, look in looks.items()}

    def _read(self, config: Config, store: Store) -> Grid:
        with self._lock:
            state = self._look(store)
            record = store.records.current_record()
            return Grid(
                look_ahead(config, store, record).next_fit,
                None if record is None else record.fit_id,
                tuple(self._cluster(line, state) for line in state.lines.values()),
                self._folders,
                state.by_state[FileState.REVIEW],
                state.by_state[FileState.SET_ASIDE],
                state.by_state[FileState.PENDING],
            )

    def _cluster(self, line: ClusterFolder, state: _State) -> ShownCluster:
        number, facts = line.cluster_id, self._looks[line.cluster_id].facts
        return ShownCluster(
            id=number,
            name=None if line.named is None else shown(line.named),
            folder=shown(line.folder),
            files=state.files(number),
            duplicates=state.sizes[FileState.DUPLICATE][number],
            week=sum(facts.days[-WEEK:]),
            days=facts.days,
            newest=facts.newest,
            loose=facts.loose,
            mosaic=facts.mosaic,
            retired=line.is_retired or None,
        )

    def _look(self, store: Store) -> _State:
        """Look again at what has changed, if it is time to; at what is new, at once."""
        state, rows, started = _State(store), store.shown, self._clock()
        edges = day_edges(self._now())
        is_time = started >= self._next_s or edges != self._edges
        self._edges = edges
        self._looks = {n: look for n, look in self._looks.items() if n in state.lines}
        middles: Middles | None = None
        for number in sorted(state.lines, key=self._last_looked):  # so that none is forgotten
            files = state.files(number)
            key = (edges[-1], state.fit, *(state.sizes[one][number] for one in _PLACED))
            look = self._looks.get(number)
            has_room = self._clock() - started < _LONGEST_S
            is_due = is_time and has_room
            if look is None or (is_due and look.is_stale(key, state.changes, started)):
                middles = middles or Middles(rows)
                # What is new is there at once; a few of its pictures are enough until later.
                sample = SAMPLE if has_room else FIRST_SAMPLE
                facts = look_at(rows, number, edges, middles, sample)
                is_whole = files <= sample or has_room
                self._looks[number] = _Look(facts, key if is_whole else (), state.changes, started)
        of = (state.outside, state.changes)
        if not self._folders_of or (is_time and self._folders_of != of):
            found = rows.own_folders() if state.outside else []
            ours = (b"", REVIEW_FOLDER, SET_ASIDE_FOLDER)
            self._folders = tuple(
                Folder(shown(one), files) for one, files in found if one not in ours
            )
            self._folders_of = of
        if middles is not None:
            ended = self._clock()
            self._next_s = ended + max(_LEAST_S, _COST * (ended - started))
        return state

    def _last_looked(self, cluster_id: int) -> float:
        look = self._looks.get(cluster_id)
        return look.at_s if look is not None and look.key else float("-inf")


@dataclass(frozen=True, slots=True)
class _Look:
    """Facts, and when and of what state of the database they are."""

    facts: Facts
    key: tuple[object, ...]
    changes: tuple[object, ...]
    at_s: float

    def is_stale(self, key: tuple[object, ...], changes: tuple[object, ...], now_s: float) -> bool:
        """Tell whether it is time to look again."""
        is_late = self.changes != changes and now_s - self.at_s >= _LATEST_S
        return self.key != key or is_late


class _State:
    """What the counts and the clusters say now, of one state of the database."""

    def __init__(self, store: Store) -> None:
        rows = store.shown
        # Who tells several things of one state has begun to read before.
        is_one = store.connection.in_transaction
        with nullcontext() if is_one else store.snapshot():
            groups = file_groups(store.connection)
            lines = store.hands.cluster_folders()
            self.fit = rows.fit_in_force()
            self.changes = rows.last_changes()
        self.by_state = Counter[str]()
        self.sizes: dict[str, Counter[int]] = {state: Counter() for state in _PLACED}
        self.outside = 0
        for group in groups:
            self.by_state[group.state] += group.files
            if group.state in _PLACED and group.cluster_id is None:
                self.outside += group.files
            elif group.state in _PLACED and group.cluster_id is not None:
                self.sizes[group.state][group.cluster_id] += group.files
        sizes = sum(self.sizes.values(), Counter[int]())
        self.lines = {line.cluster_id: line for line in in_use(lines, sizes)}

    def files(self, cluster_id: int) -> int:
        """Return the files in a cluster's folder, kept duplicates with them."""
        return sum(self.sizes[state][cluster_id] for state in _PLACED)


class Middles:
    """The centers of the fit in force, and what its features are made by."""

    def __init__(self, rows: WebRows) -> None:
        self.extractor, self.centers = rows.extractor(), rows.centers()


def look_at(
    rows: WebRows, cluster_id: int, edges: tuple[float, ...], middles: Middles, sample: int
) -> Facts:
    """Look at the pictures of a cluster, at so many of the latest one by one.

    ``edges`` are when each day of the bars began, as of :func:`day_edges`.
    """
    newest = rows.last_came(cluster_id)
    days = Counter(
        bisect_right(edges, came) - 1 for came in rows.arrivals(cluster_id, since=edges[0])
    )
    members = rows.latest_members(cluster_id, sample)
    center = middles.centers.get(cluster_id)
    far = distances_to_middle(rows, middles.extractor, members, center)
    # The four nearest, no bytes twice; those without features come last.
    known: dict[bytes, int] = {}
    for number, sha256 in sorted(members):
        if sha256 is not None:
            known.setdefault(sha256, number)
    first = nsmallest(MOSAIC, known, key=lambda sha256: (far.get(sha256, inf), known[sha256]))
    return Facts(
        days=tuple(days[day] for day in range(DAYS)),
        newest=None if newest is None else round(newest, 3),
        loose=round(fmean(far.values()), 4) if far else None,
        mosaic=tuple((known[sha256], key_of(sha256)) for sha256 in first),
    )


def day_edges(now: float) -> tuple[float, ...]:
    """Return when each of the last 28 local days began, the oldest first, in Unix seconds."""
    today = time.localtime(now)
    return tuple(
        # mktime puts right what is no day of a month, and knows days of 23 and 25 hours.
        time.mktime((today.tm_year, today.tm_mon, today.tm_mday - back, 0, 0, 0, 0, 0, -1))
        for back in range(DAYS - 1, -1, -1)
    )


def distances_to_middle(
    rows: WebRows, extractor: ExtractorId | None, members: Iterable[Member], center: Vectors | None
) -> dict[bytes, float]:
    """Return the distance of each picture with features to the middle, by its SHA-256.

    Not those that are stored: each of them is of the fit that a picture was sorted by, and what
    a refit has moved has none.

    Parameters
    ----------
    center
        The middle, float32 [d]. None for the mean of these pictures, equal bytes once: for a
        cluster that is in force no more. Of many, the features are read twice then, a part at
        a time: they may be gigabytes.
    """
    hashes = sorted({sha256 for _, sha256 in members if sha256 is not None})
    distances: dict[bytes, float] = {}
    if extractor is None:
        return distances
    held: list[tuple[list[bytes], Vectors]] = []
    if center is None:
        if 4 * extractor.dims * len(hashes) <= _AT_ONCE_BYTES:
            held = list(rows.vectors(extractor, hashes))
        total, count = np.zeros(extractor.dims), 0
        for some, vectors in held or rows.vectors(extractor, hashes):
            total += vectors.sum(axis=0, dtype=np.float64)
            count += len(some)
        center = (total / max(1, count)).astype(np.float32)
    for some, vectors in held or rows.vectors(extractor, hashes):
        lengths = np.linalg.norm(vectors - center, axis=1)
        distances.update(zip(some, lengths.tolist(), strict=True))
    return distances
