"""Watch what a person does in target: pictures moved by hand, folders renamed, files deleted."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial

from imgsortd.clusters.in_force import InForce
from imgsortd.config.model import Config
from imgsortd.moves.folders import ClusterFolders
from imgsortd.names import folder_problem
from imgsortd.store.database import Store
from imgsortd.store.lookup import Absent, Standing
from imgsortd.system import filesystem
from imgsortd.target.corrections import (
    GONE_REASON,
    Corrections,
    Kind,
    Stranger,
    match_moves,
    renamed_to,
)
from imgsortd.target.survey import Survey, Target

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 2.0
_REST = 20  # the next look comes after so many times what the last one took
_REST_AT_WORK = 9
_AT_ONCE_S = 0.2
_LOOKS_BEFORE_GONE = 3
_SETTLES_BEFORE_GONE = 5
_SETTLES_OF_PATIENCE = 10


class TargetWatch:
    """Finds out what a person has done; owned by the loop, which calls :meth:`step`.

    Parameters
    ----------
    on_tick
        Called while a large folder is listed.
    is_fitting
        Tells whether a fit is being made: no cluster is added to the fit in force then.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        in_force: InForce,
        folders: ClusterFolders,
        on_tick: Callable[[], None],
        is_fitting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._in_force, self._folders = store, in_force, folders
        self._config, self._on_tick, self._is_fitting = config, on_tick, is_fitting
        self._target = Target(config.target)
        self._identity: tuple[int, int] | None = None
        self._survey = self._begin()
        self._corrections = Corrections(store, in_force, folders)
        self._next_s = 0.0

    def _begin(self) -> Survey:
        return Survey(self._config, self._store, self._target, self._on_tick)

    def step(self, now: float) -> bool:
        """Look, where it is time (monotonic seconds); never for longer than a small share of it.

        Returns whether files were found gone, which others may have been left in the inbox for.
        """
        if now < self._next_s:
            return False
        started, has_ended = time.perf_counter(), False
        try:
            self._look(now, started + _AT_ONCE_S)
        except OSError as error:  # the mover says so, and why the sorting pauses
            log.debug("target not listed reason=%s", error.strerror)
        else:
            has_ended = self._judge(now)
        took_s = time.perf_counter() - started
        if self._survey.has_work:
            self._next_s = now + max(_AT_ONCE_S, _REST_AT_WORK * took_s)
        else:
            self._next_s = now + max(_LOOK_EVERY_S, _REST * took_s)
        return has_ended

    def _look(self, now: float, until: float) -> None:
        identity = self._target.identity()
        if identity != self._identity:  # at the start; mounted anew, or another disk
            self._survey, self._identity = self._begin(), identity
        self._folders.follow()
        self._survey.look(now, until)

    def _judge(self, now: float) -> bool:
        # After a match, what is left is judged by the next look.
        if self._match(now) or not self._survey.is_through:
            return False
        has_ended = self._end_gone(now)
        self._make_clusters(now)
        return has_ended

    def _match(self, now: float) -> bool:
        """Find files that were moved, and keep that; return whether there were any."""
        survey = self._survey
        is_ready = cache(partial(self._is_ready, now=now))
        strangers = [
            Stranger(file.dst, file.sha256)
            for file in survey.sightings()
            if file.sha256 is not None and is_ready(filesystem.split(file.dst)[0])
        ]
        if not strangers:
            return False
        missing = {file.row.file_id: file for file in survey.missing()}
        pairs = match_moves((file.row.absent for file in missing.values()), strangers)
        if self._follow_contents(pairs):
            return True
        matched = {file.dst for _, file in pairs}
        again = self._back_again([file for file in strangers if file.dst not in matched])
        if not (pairs or again):
            return False
        moved = [(missing[row.file_id].row, file.dst) for row, file in pairs]
        self._corrections.follow([*moved, *again])
        for row, file in pairs:
            survey.settle(missing[row.file_id], file.dst)
        for _, dst in again:
            survey.list_again(survey.found(dst))
        return True

    def _is_ready(self, folder: bytes, now: float) -> bool:
        """Tell whether a folder's strangers may be judged.

        In a person's folder that waits until nothing is moved any more: of a whole
        folder's pictures the first ones look like corrections, all of them like a new name.
        """
        survey = self._survey
        if self._corrections.place(folder).kind is not Kind.OWN:
            return True
        oldest = min((missing.since_s for missing in survey.missing()), default=now)
        if now - oldest >= _SETTLES_OF_PATIENCE * max(self._config.settle_s, _LOOK_EVERY_S):
            return True
        sources = {missing.folder for missing in survey.missing()}
        return survey.is_through and all(survey.is_quiet(f, now) for f in (folder, *sources))

    def _follow_contents(self, pairs: Sequence[tuple[Absent, Stranger]]) -> bool:
        """Follow a cluster's folder that is gone where its pictures stand in a new one."""
        survey = self._survey
        moved: dict[bytes, Counter[bytes]] = {}
        for row, file in pairs:
            old, new = filesystem.split(row.dst)[0], filesystem.split(file.dst)[0]
            if survey.inode_of(old) is None:
                moved.setdefault(old, Counter())[new] += 1
        named = self._store.records.named_folders()
        missing = Counter(file.folder for file in survey.missing())
        for old, ends in moved.items():
            place = self._corrections.place(old)
            if place.cluster_id is None:
                continue
            own = [(f, n) for f, n in ends.items() if self._corrections.place(f).kind is Kind.OWN]
            new_name = renamed_to(missing[old], own)
            if new_name is None or folder_problem(new_name, place.cluster_id, named):
                continue
            inode = survey.inode_of(new_name)
            assert inode is not None
            self._folders.take_name(place.cluster_id, old, new_name, inode)
            survey.list_again(old)
            survey.list_again(new_name)
            return True
        return False

    def _back_again(self, strangers: Sequence[Stranger]) -> list[tuple[Standing, bytes]]:
        """Find files that had been taken for gone: pasted long after they were cut."""
        survey = self._survey
        maybe_gone = {f.dst for f in survey.sightings() if survey.was_gone(f.size_bytes)}
        maybe = [file for file in strangers if file.dst in maybe_gone]
        hands = self._store.hands
        gone = [row for sha256 in {f.sha256 for f in maybe} for row in hands.gone_with(sha256)]
        rows = {row.file_id: row for row in gone}
        pairs = match_moves((row.absent for row in gone), maybe)
        return [(rows[row.file_id], file.dst) for row, file in pairs]

    def _end_gone(self, now: float) -> bool:
        """Take files for deleted that have been missing for a while; return whether any were."""
        survey = self._survey
        if not survey.has_place():
            return False  # an empty mount point is no deletion
        sightings, gone = survey.sightings(), []
        unread = {file.size_bytes for file in sightings if file.sha256 is None}
        read = {file.sha256 for file in sightings}
        wait_s = _SETTLES_BEFORE_GONE * self._config.settle_s
        for missing in survey.missing():
            missing.looks += 1
            is_due = missing.looks >= _LOOKS_BEFORE_GONE and now - missing.since_s >= wait_s
            if is_due and missing.row.size_bytes not in unread and missing.row.sha256 not in read:
                gone.append(missing)
        if not gone:
            return False
        with self._store.atomic():
            self._store.hands.taken_away((missing.row.file_id for missing in gone), GONE_REASON)
        survey.end(gone)
        first = os.fsdecode(gone[0].row.dst)
        log.info("taken away by their owner files=%d first=%r", len(gone), first)
        return True

    def _make_clusters(self, now: float) -> None:
        """Make clusters of a person's folders that have enough pictures."""
        if self._in_force.model is None or self._is_fitting():
            return
        survey = self._survey
        for folder in survey.listed():
            inode = survey.inode_of(folder)
            if inode is not None and self._corrections.place(folder).kind is Kind.OWN:
                if not survey.is_quiet(folder, now):
                    continue
                self._corrections.make_cluster(folder, inode)
            survey.judged(folder)
