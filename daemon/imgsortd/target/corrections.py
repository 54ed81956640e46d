"""Keep what a person has done in target: pictures moved by hand are pinned, folders learnt.

Nothing here moves, renames or deletes a file.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from imgsortd.clusters.in_force import InForce
from imgsortd.moves.folders import ClusterFolders
from imgsortd.names import REVIEW_FOLDER, SET_ASIDE_FOLDER, base_name, cluster_of
from imgsortd.records import FileState, FitTrigger, Model, Vectors
from imgsortd.store.database import Store
from imgsortd.store.folders import NewName
from imgsortd.store.lookup import Absent, Standing
from imgsortd.system import filesystem
from imgsortd.system.faults import fault_point

log = logging.getLogger(__name__)

_PICTURES = (FileState.SORTED, FileState.REVIEW, FileState.DUPLICATE)
_HIGHEST_CHOSEN = 1_000_000  # a person's cluster_9999999999 is a name, not a number to go on from

GONE_REASON = "deleted or taken away by its owner"
PUT_REASON = "put there by its owner"
PICTURES_OF_A_CLUSTER = 3


@dataclass(frozen=True, slots=True)
class Place:
    """What a folder directly in target is; ``number`` is also that of a cluster that is no more."""

    folder: bytes
    kind: Kind
    number: int | None = None

    @property
    def cluster_id(self) -> int | None:
        """The cluster in force whose folder it is."""
        return self.number if self.kind is Kind.CLUSTER else None


class Corrections:
    """Writes down what was seen."""

    def __init__(self, store: Store, in_force: InForce, folders: ClusterFolders) -> None:
        self._store, self._in_force, self._folders = store, in_force, folders

    def place(self, folder: bytes) -> Place:
        """Say what a folder directly in target is."""
        if folder == REVIEW_FOLDER:
            return Place(folder, Kind.REVIEW)
        if folder == SET_ASIDE_FOLDER:
            return Place(folder, Kind.SET_ASIDE)
        number = cluster_of(folder, self._store.records.named_folders())
        model = self._in_force.model or self._in_force.former
        is_alive = model is not None and number in model.cluster_ids
        return Place(folder, Kind.CLUSTER if is_alive else Kind.OWN, number)

    def follow(self, moved: Sequence[tuple[Standing, bytes]]) -> None:
        """Keep where a person has moved files to: (its row, its name in target now) of each."""
        groups: dict[tuple[bytes, bytes], list[tuple[Standing, bytes]]] = defaultdict(list)
        for row, dst in moved:
            groups[filesystem.split(row.dst)[0], filesystem.split(dst)[0]].append((row, dst))
        with self._store.atomic():
            for (_, new), files in groups.items():
                place = self.place(new)
                for row, dst in files:
                    self._follow(row, dst, place)
        fault_point("corrected")
        for (old, new), files in groups.items():
            names = map(os.fsdecode, (old, new, base_name(files[0][1])))
            log.info("moved by its owner files=%d from=%r to=%r first=%r", len(files), *names)

    def _follow(self, row: Standing, dst: bytes, place: Place) -> None:
        hands, is_back = self._store.hands, row.state is FileState.GONE
        if not self._is_picture(row):
            lost = FileState.SET_ASIDE if row.companion_of is None else FileState.COMPANION
            state = lost if is_back else row.state
            hands.correct(row.file_id, dst, state, row.cluster_id, PUT_REASON)
            return
        cluster_id = place.cluster_id
        hands.correct(row.file_id, dst, state_in(place.kind, row.state), cluster_id, PUT_REASON)
        stood_there = place.folder == filesystem.split(row.dst)[0] or (
            cluster_id is not None and cluster_id == row.cluster_id
        )
        if not stood_there:
            self._store.pins.put(row.sha256, cluster_id)

    def _is_picture(self, row: Standing) -> bool:
        if row.state is FileState.COMPANION or row.companion_of is not None:
            return False
        return row.state in _PICTURES or self._store.hands.has_features(row.sha256)

    def make_cluster(self, folder: bytes, inode: int) -> bool:
        """Make a person's folder with enough pinned pictures a cluster; return whether it is one.

        It gets a number that no cluster has had, or the one it had before it was retired,
        and a center, the mean of its pictures, beside those of the fit in force.
        """
        model, hands = self._in_force.model, self._store.hands
        pictures = hands.own_pictures(folder)
        if model is None or len(pictures) < PICTURES_OF_A_CLUSTER:
            return False
        features = self._store.fits.get_features(model.extractor, [sha for _, sha in pictures])
        if len(features) < PICTURES_OF_A_CLUSTER:
            return False
        number = self.place(folder).number
        if number is None or number >= _HIGHEST_CHOSEN:
            number = self._store.fits.next_cluster_id()
        cluster_id = number
        if not hands.is_free_number(cluster_id):
            return False
        center = np.stack(list(features.values())).mean(axis=0, keepdims=True)
        with self._store.atomic():
            new = self._with_center(model, center, cluster_id, len(pictures))
            hands.name_clusters([NewName(cluster_id, folder, inode)])
            hands.to_cluster([file_id for file_id, _ in pictures], cluster_id)
            for sha256 in features:
                self._store.pins.put(sha256, cluster_id)
        self._in_force.add_cluster(new)
        fault_point("folder_is_cluster")
        self._folders.keep_names()
        text = "folder is a cluster now cluster=%d folder=%r pictures=%d"
        log.info(text, cluster_id, os.fsdecode(folder), len(pictures))
        return True

    def _with_center(self, model: Model, center: Vectors, cluster_id: int, size: int) -> Model:
        """Save the fit in force with one more center, [1, d]; it decides nothing anew."""
        fits = self._store.fits
        record = fits.current_record()
        assert record is not None
        distances = None if model.distances is None else model.distances.astype("<f4").tobytes()
        sizes = dict(fits.fitted_sizes(model.fit_id))
        return fits.save(
            model.extractor,
            np.concatenate([model.centers, center]),
            [*model.cluster_ids, cluster_id],
            [*(sizes.get(number, 0) for number in model.cluster_ids), size],
            replace(record, trigger=FitTrigger.FOLDER, churn=0.0, fit_s=0.0, distances=distances),
        )


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file in target that no row knows, and its bytes' hash."""

    dst: bytes
    sha256: bytes


def match_moves(
    absent: Iterable[Absent], strangers: Iterable[Stranger]
) -> list[tuple[Absent, Stranger]]:
    """Pair each missing file with a new one of the same bytes: where a person has moved it.

    One to one, as many as there are of both; where several have the same bytes, those that
    kept their name first, the rest in the order of their names.
    """
    missing: dict[bytes, list[Absent]] = defaultdict(list)
    for row in sorted(absent, key=lambda row: (row.dst, row.file_id)):
        missing[row.sha256].append(row)
    found: dict[bytes, list[Stranger]] = defaultdict(list)
    for file in sorted(strangers, key=lambda file: file.dst):
        found[file.sha256].append(file)
    pairs: list[tuple[Absent, Stranger]] = []
    for sha256 in sorted(missing.keys() & found.keys()):
        pairs.extend(_pair(missing[sha256], found[sha256]))
    return pairs


def _pair(rows: list[Absent], files: list[Stranger]) -> list[tuple[Absent, Stranger]]:
    pairs: list[tuple[Absent, Stranger]] = []
    by_name: dict[bytes, list[Stranger]] = defaultdict(list)
    for file in reversed(files):
        by_name[base_name(file.dst)].append(file)
    left = []
    for row in rows:
        same = by_name[base_name(row.dst)]
        if same:
            pairs.append((row, same.pop()))
        else:
            left.append(row)
    rest = sorted((file for same in by_name.values() for file in same), key=lambda file: file.dst)
    return [*pairs, *zip(left, rest, strict=False)]


class Kind(StrEnum):
    """What a folder directly in target is."""

    CLUSTER = "cluster"
    REVIEW = "review"
    SET_ASIDE = "set_aside"
    OWN = "own"  # a person's, or that of a cluster that is no more


def state_in(kind: Kind, before: FileState) -> FileState:
    """Return the state of a picture that a person has put into a folder of this kind."""
    if kind is Kind.REVIEW:
        return FileState.REVIEW
    if kind is Kind.SET_ASIDE:
        return FileState.SET_ASIDE
    return FileState.DUPLICATE if before is FileState.DUPLICATE else FileState.SORTED


def renamed_to(known: int, moved: Sequence[tuple[bytes, int]]) -> bytes | None:
    """Return the folder that a folder which is gone has become, judged by its pictures.

    That is the one of ``moved`` (folder, files of it that stand there now) with more than half
    of the ``known`` files that stood in it; None where they are scattered or deleted.
    """
    best = max(moved, key=lambda folder: folder[1], default=None)
    return best[0] if best is not None and 2 * best[1] > known else None
