"""The clusters as a grid shows them: name, size, growth, how loose, and four pictures each."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_counts import FileGroup, file_groups
from imgsortd.adapters.store_web import ClusterLine, WebRows
from imgsortd.config import Config
from imgsortd.core.records import FileState
from imgsortd.core.routing import REVIEW_FOLDER, SET_ASIDE_FOLDER
from imgsortd.outlook import look_ahead
from imgsortd.web.cluster_facts import Facts, Middles, day_edges, look_at
from imgsortd.web.plain import shown

WEEK = 7
_LEAST_S = 0.2
_COST = 20
"""Looks take a twentieth of the time at most, however large the library."""
_LATEST_S = 15.0
_LONGEST_S = 0.25
"""Where there is more to look at than this, a look goes on at the next time."""
SAMPLE, FIRST_SAMPLE = 2000, 24
"""Pictures of a cluster that are looked at; so few where there is no time for all."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Facts, and when and of what state of the database they are."""

    facts: Facts
    key: tuple[object, ...]
    changes: tuple[object, ...]
    at_s: float


class Overview:
    """Keeps what was found out of each cluster until its pictures are others.

    Sizes are always those of now, for they are kept as counts. The rest is looked at again
    soon after a cluster has more or fewer pictures, and within 15 seconds where pictures have
    only changed places: not with each request, which would go through a million rows.
    It may be used by several threads.

    Parameters
    ----------
    clock
        Seconds that never go back.
    now
        Unix seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._now = clock, now
        self._lock = Lock()
        self._looks: dict[int, _Look] = {}
        self._folders: _FolderLook | None = None
        self._next_s = float("-inf")
        self._edges: tuple[float, ...] = ()

    def read(self, config: Config, store: Store | None) -> dict[str, Any]:
        """Return the grid, as plain values for JSON.

        ``next_fit`` counts seconds, and is the one part that ``stamp`` does not follow.

        Parameters
        ----------
        store
            None where there is no database yet.

        Raises
        ------
        StoreError
            The database cannot be read.
        """
        found = _nothing(config) if store is None else self._read(config, store)
        told = json.dumps({**found, "next_fit": ""}, separators=(",", ":"))
        return {"stamp": hashlib.blake2b(told.encode(), digest_size=8).hexdigest(), **found}

    def stamp(self, config: Config, store: Store | None) -> str:
        """Return a short text that is another one when the grid is."""
        return str(self.read(config, store)["stamp"])

    def cluster(self, store: Store, cluster_id: int) -> dict[str, Any] | None:
        """Return one cluster without its mosaic; None where there is none of this number."""
        with self._lock:
            state = _State(store)
            self._look(store, state)
            line = state.lines.get(cluster_id)
            if line is None:
                return None
            found = self._cluster(line, state)
        del found["mosaic"]
        return found

    def mosaics(self, store: Store, cluster_ids: Iterable[int]) -> dict[int, list[list[object]]]:
        """Return the mosaic of each of these clusters, as in :meth:`read`; empty of others."""
        with self._lock:
            self._look(store, _State(store))
            looks = {number: self._looks.get(number) for number in cluster_ids}
        return {
            number: [] if look is None else [list(picture) for picture in look.facts.mosaic]
            for number, look in looks.items()
        }

    def _read(self, config: Config, store: Store) -> dict[str, Any]:
        with self._lock:
            state = _State(store)
            self._look(store, state)
            record = store.records.current_record()
            return {
                "fit": None if record is None else record.fit_id,
                "clusters": [self._cluster(line, state) for line in state.lines.values()],
                "folders": [] if self._folders is None else self._folders.folders,
                "review": state.by_state[FileState.REVIEW],
                "set_aside": state.by_state[FileState.SET_ASIDE],
                "pending": state.by_state[FileState.PENDING],
                "next_fit": look_ahead(config, store, record).text,
            }

    def _cluster(self, line: ClusterLine, state: _State) -> dict[str, Any]:
        number, facts = line.cluster_id, self._looks[line.cluster_id].facts
        found = {
            "id": number,
            "name": None if line.named is None else shown(line.named),
            "folder": shown(line.folder),
            "files": state.files(number),
            "duplicates": state.sizes[FileState.DUPLICATE][number],
            "week": sum(facts.days[-WEEK:]),
            "days": list(facts.days),
            "newest": facts.newest,
            "loose": facts.loose,
            "mosaic": [list(picture) for picture in facts.mosaic],
        }
        return {**found, "retired": True} if line.is_retired else found

    def _look(self, store: Store, state: _State) -> None:
        """Look again at what has changed, if it is time to; at what is new, at once."""
        started = self._clock()
        edges = day_edges(self._now())
        is_time = started >= self._next_s or edges != self._edges
        self._edges = edges
        rows = WebRows(store.connection)
        self._looks = {n: look for n, look in self._looks.items() if n in state.lines}
        middles: Middles | None = None
        for number in sorted(state.lines, key=self._last_looked):  # so that none is forgotten
            files = state.files(number)
            key = (edges[-1], state.fit, *(state.sizes[one][number] for one in _PLACED))
            look = self._looks.get(number)
            has_room = self._clock() - started < _LONGEST_S
            is_due = is_time and has_room
            if look is None or (is_due and self._is_stale(look, key, state.changes, started)):
                middles = middles or Middles(rows)
                # What is new is there at once; a few of its pictures are enough until later.
                sample = SAMPLE if has_room else FIRST_SAMPLE
                facts = look_at(rows, number, edges, middles, sample)
                is_whole = files <= sample or has_room
                self._looks[number] = _Look(facts, key if is_whole else (), state.changes, started)
        self._look_at_folders(rows, state, started, is_time=is_time)
        if middles is not None:
            ended = self._clock()
            self._next_s = ended + max(_LEAST_S, _COST * (ended - started))

    def _last_looked(self, cluster_id: int) -> float:
        look = self._looks.get(cluster_id)
        return look.at_s if look is not None and look.key else float("-inf")

    def _is_stale(
        self,
        look: _Look,
        key: tuple[object, ...],
        changes: tuple[object, ...],
        now_s: float,
    ) -> bool:
        if look.key != key:
            return True
        return look.changes != changes and now_s - look.at_s >= _LATEST_S

    def _look_at_folders(
        self, rows: WebRows, state: _State, now_s: float, *, is_time: bool
    ) -> None:
        """Count the pictures in folders that are a person's own, and no cluster's."""
        outside, look = state.outside, self._folders
        if look is not None:
            is_same = look.outside == outside and look.changes == state.changes
            if is_same or not is_time:
                return
        found = rows.own_folders() if outside else []
        ours = (REVIEW_FOLDER, SET_ASIDE_FOLDER)
        self._folders = _FolderLook(
            [
                {"name": shown(name), "files": files}
                for name, files in found
                if name and name not in ours
            ],
            outside,
            state.changes,
        )


_PLACED = (FileState.SORTED, FileState.DUPLICATE)


@dataclass(frozen=True, slots=True)
class _FolderLook:
    folders: list[dict[str, Any]]
    outside: int
    changes: tuple[object, ...]


class _State:
    """What the counts and the clusters say now, of one state of the database."""

    def __init__(self, store: Store) -> None:
        rows = WebRows(store.connection)
        # Who tells several things of one state has begun to read before.
        is_one = store.connection.in_transaction
        with nullcontext() if is_one else store.snapshot():
            groups = file_groups(store.connection)
            lines = rows.clusters()
            self.fit = rows.fit_in_force()
            self.changes = rows.last_changes()
        self.by_state = Counter[str]()
        self.sizes: dict[str, Counter[int]] = {state: Counter() for state in _PLACED}
        self.outside = 0
        for group in groups:
            self._count(group)
        self.lines = self._lines(lines)

    def _count(self, group: FileGroup) -> None:
        self.by_state[group.state] += group.files
        if group.state not in _PLACED:
            return
        if group.cluster_id is None:
            self.outside += group.files
        else:
            self.sizes[group.state][group.cluster_id] += group.files

    def files(self, cluster_id: int) -> int:
        """Return the files in a cluster's folder, kept duplicates with them."""
        return sum(self.sizes[state][cluster_id] for state in _PLACED)

    def _lines(self, known: list[ClusterLine]) -> Mapping[int, ClusterLine]:
        """Return the clusters in force, and all that hold files, by number."""
        found = {
            line.cluster_id: line
            for line in known
            if not line.is_retired or self.files(line.cluster_id)
        }
        for number in set().union(*self.sizes.values()) - found.keys():
            found[number] = ClusterLine(number, None, is_retired=True)
        return dict(sorted(found.items()))


def _nothing(config: Config) -> dict[str, Any]:
    """Return the grid of a library that is still to come."""
    return {
        "fit": None,
        "clusters": [],
        "folders": [],
        "review": 0,
        "set_aside": 0,
        "pending": 0,
        "next_fit": look_ahead(config, None, None).text,
    }
