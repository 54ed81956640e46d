"""Watch what a person does in target: pictures moved by hand, folders renamed, files deleted."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence

from imgsortd.adapters import fsops
from imgsortd.adapters.store_hands import Standing
from imgsortd.core.hands import (
    GONE_REASON,
    Absent,
    Kind,
    Stranger,
    match_moves,
    renamed_to,
)
from imgsortd.core.names import folder_problem
from imgsortd.corrections import Corrections
from imgsortd.hand_requests import HandRequests
from imgsortd.library import Library
from imgsortd.survey import Survey

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
    is_fitting
        Tells whether a fit is being made: no cluster is added to the fit in force then.
    """

    def __init__(self, library: Library, is_fitting: Callable[[], bool] = lambda: False) -> None:
        self._library, self._is_fitting = library, is_fitting
        self._settle_s = library.config.settle_s
        self._survey = Survey(library)
        self._corrections = Corrections(library)
        self._requests = HandRequests(library)
        self._next_s = 0.0

    def step(self, now: float) -> None:
        """Answer a request, and look, where it is time; never for longer than a small share of it.

        Parameters
        ----------
        now
            Seconds on a clock that only goes forward.
        """
        self._requests.step()
        if now < self._next_s:
            return
        started = time.perf_counter()
        try:
            self._survey.look(now, started + _AT_ONCE_S)
        except OSError as error:  # the mover says so, and why the sorting pauses
            log.debug("target not listed reason=%s", error.strerror)
        else:
            self._judge(now)
        took_s = time.perf_counter() - started
        if self._survey.has_work:
            self._next_s = now + max(_AT_ONCE_S, _REST_AT_WORK * took_s)
        else:
            self._next_s = now + max(_LOOK_EVERY_S, _REST * took_s)

    def _judge(self, now: float) -> None:
        if self._match(now):
            return  # what is left is judged by the next look
        if self._survey.is_through:
            self._end_gone(now)
            self._make_clusters(now)

    def _match(self, now: float) -> bool:
        """Find files that were moved, and keep that; return whether there were any."""
        survey = self._survey
        strangers = [
            Stranger(dst, file.sha256)
            for folder, files in survey.sightings.items()
            if self._is_ready(folder, now)
            for dst, file in files.items()
            if file.sha256 is not None
        ]
        if not strangers:
            return False
        missing = {file.row.file_id: file for file in survey.all_missing()}
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
            survey.found(dst)
            survey.list_again(fsops.split(dst)[0])
        return True

    def _is_ready(self, folder: bytes, now: float) -> bool:
        """Tell whether a folder's strangers may be judged.

        In a person's folder that waits until nothing is moved any more: of a whole
        folder's pictures the first ones look like corrections, all of them like a new name.
        """
        survey = self._survey
        if self._corrections.place(folder).kind is not Kind.OWN:
            return True
        oldest = min((missing.since_s for missing in survey.all_missing()), default=now)
        if now - oldest >= _SETTLES_OF_PATIENCE * max(self._settle_s, _LOOK_EVERY_S):
            return True
        sources = (name for name, files in survey.missing.items() if files)
        return survey.is_through and all(survey.is_quiet(f, now) for f in (folder, *sources))

    def _follow_contents(self, pairs: Sequence[tuple[Absent, Stranger]]) -> bool:
        """Follow a cluster's folder that is gone where its pictures stand in a new one."""
        survey = self._survey
        moved: dict[bytes, Counter[bytes]] = {}
        for row, file in pairs:
            old, new = fsops.split(row.dst)[0], fsops.split(file.dst)[0]
            if old not in survey.folders:
                moved.setdefault(old, Counter())[new] += 1
        named = self._library.store.records.named_folders()
        for old, ends in moved.items():
            place = self._corrections.place(old)
            if place.kind is not Kind.CLUSTER or place.cluster_id is None:
                continue
            own = [(f, n) for f, n in ends.items() if self._corrections.place(f).kind is Kind.OWN]
            new_name = renamed_to(len(survey.missing[old]), own)
            if new_name is None or folder_problem(new_name, place.cluster_id, named):
                continue
            inode = survey.folders[new_name].inode
            self._library.folders.take_name(place.cluster_id, old, new_name, inode)
            survey.list_again(old)
            survey.list_again(new_name)
            return True
        return False

    def _back_again(self, strangers: Sequence[Stranger]) -> list[tuple[Standing, bytes]]:
        """Find files that had been taken for gone: pasted long after they were cut."""
        sightings = self._survey.sightings
        maybe = [
            file
            for file in strangers
            if self._survey.was_gone(sightings[fsops.split(file.dst)[0]][file.dst].size_bytes)
        ]
        hands = self._library.store.hands
        gone = [row for sha256 in {f.sha256 for f in maybe} for row in hands.gone_with(sha256)]
        rows = {row.file_id: row for row in gone}
        pairs = match_moves((row.absent for row in gone), maybe)
        return [(rows[row.file_id], file.dst) for row, file in pairs]

    def _end_gone(self, now: float) -> None:
        """Take files for deleted that have been missing for a while."""
        survey = self._survey
        if not survey.missing or not survey.has_place():
            return  # an empty mount point is no deletion
        unread = {file.size_bytes for file in survey.all_sightings() if file.sha256 is None}
        read = {file.sha256 for file in survey.all_sightings()}
        wait_s = _SETTLES_BEFORE_GONE * self._settle_s
        gone = []
        for missing in survey.all_missing():
            missing.looks += 1
            is_due = missing.looks >= _LOOKS_BEFORE_GONE and now - missing.since_s >= wait_s
            if is_due and missing.row.size_bytes not in unread and missing.row.sha256 not in read:
                gone.append(missing)
        if not gone:
            return
        with self._library.store.atomic():
            hands = self._library.store.hands
            hands.taken_away((missing.row.file_id for missing in gone), GONE_REASON)
        survey.end(gone)
        first = os.fsdecode(gone[0].row.dst)
        log.info("taken away by their owner files=%d first=%r", len(gone), first)

    def _make_clusters(self, now: float) -> None:
        """Make clusters of a person's folders that have enough pictures."""
        if self._library.model is None or self._is_fitting():
            return
        survey = self._survey
        for folder in sorted(survey.listed):
            stamp = survey.folders.get(folder)
            if stamp is not None and self._corrections.place(folder).kind is Kind.OWN:
                if not survey.is_quiet(folder, now):
                    continue
                self._corrections.make_cluster(folder, stamp.inode)
            survey.listed.discard(folder)
