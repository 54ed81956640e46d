"""Keep what a person has done in target: pictures moved by hand are pinned, folders learnt.

Nothing here moves, renames or deletes a file.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgsortd.adapters import fsops
from imgsortd.adapters.faults import fault_point
from imgsortd.adapters.store_hands import Standing
from imgsortd.core.hands import PICTURES_OF_A_CLUSTER, PUT_REASON, Kind, state_in
from imgsortd.core.lifecycle import FitTrigger
from imgsortd.core.names import cluster_folder, cluster_of
from imgsortd.core.records import FileState, Model, Vectors
from imgsortd.core.routing import REVIEW_FOLDER, SET_ASIDE_FOLDER
from imgsortd.library import Library

log = logging.getLogger(__name__)

_PICTURES = (FileState.SORTED, FileState.REVIEW, FileState.DUPLICATE)
_HIGHEST_CHOSEN = 1_000_000  # a person's cluster_9999999999 is a name, not a number to go on from


@dataclass(frozen=True, slots=True)
class Place:
    """What a folder is; ``cluster_id`` is also that of a cluster that is no more."""

    kind: Kind
    cluster_id: int | None = None


class Corrections:
    """Writes down what was seen."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def place(self, folder: bytes) -> Place:
        """Say what a folder directly in target is."""
        if folder == REVIEW_FOLDER:
            return Place(Kind.REVIEW)
        if folder == SET_ASIDE_FOLDER:
            return Place(Kind.SET_ASIDE)
        number = cluster_of(folder, self._library.store.records.named_folders())
        model = self._library.model or self._library.former
        is_alive = model is not None and number in model.cluster_ids
        return Place(Kind.CLUSTER if is_alive else Kind.OWN, number)

    def follow(self, moved: Sequence[tuple[Standing, bytes]]) -> None:
        """Keep where a person has moved files to: (its row, its name in target now) of each."""
        groups: dict[tuple[bytes, bytes], list[tuple[Standing, bytes]]] = defaultdict(list)
        for row, dst in moved:
            groups[fsops.split(row.dst)[0], fsops.split(dst)[0]].append((row, dst))
        with self._library.store.atomic():
            for (_, new), files in groups.items():
                place = self.place(new)
                for row, dst in files:
                    self._follow(row, dst, place)
        fault_point("corrected")
        for (old, new), files in groups.items():
            log.info(
                "moved by its owner files=%d from=%r to=%r first=%r",
                len(files),
                os.fsdecode(old),
                os.fsdecode(new),
                os.fsdecode(fsops.split(files[0][1])[1]),
            )

    def _follow(self, row: Standing, dst: bytes, place: Place) -> None:
        hands, is_back = self._library.store.hands, row.state is FileState.GONE
        folder = fsops.split(dst)[0]
        if not self._is_picture(row):
            lost = FileState.SET_ASIDE if row.companion_of is None else FileState.COMPANION
            state = lost if is_back else row.state
            hands.correct(row.file_id, dst, state, row.cluster_id, PUT_REASON)
            return
        cluster_id = place.cluster_id if place.kind is Kind.CLUSTER else None
        state = state_in(place.kind, row.state)
        hands.correct(row.file_id, dst, state, cluster_id, PUT_REASON)
        stood_there = folder == fsops.split(row.dst)[0] or (
            cluster_id is not None and cluster_id == row.cluster_id
        )
        if not stood_there:
            self._library.store.pins.put(row.sha256, cluster_id)

    def _is_picture(self, row: Standing) -> bool:
        if row.state is FileState.COMPANION or row.companion_of is not None:
            return False
        return row.state in _PICTURES or self._library.store.hands.has_features(row.sha256)

    def make_cluster(self, folder: bytes, inode: int) -> bool:
        """Make a person's folder with enough pinned pictures a cluster; return whether it is one.

        It gets a number that no cluster has had, or the one it had before it was retired,
        and a center, the mean of its pictures, beside those of the fit in force.
        """
        library = self._library
        model, hands = library.model, library.store.hands
        pictures = hands.own_pictures(folder)
        if model is None or len(pictures) < PICTURES_OF_A_CLUSTER:
            return False
        features = library.store.fits.get_features(model.extractor, [sha for _, sha in pictures])
        if len(features) < PICTURES_OF_A_CLUSTER:
            return False
        cluster_id = self._number_for(folder)
        if not hands.is_free_number(cluster_id):
            return False
        center = np.stack(list(features.values())).mean(axis=0, keepdims=True)
        with library.store.atomic():
            new = self._with_center(model, center, cluster_id, len(pictures))
            name = None if folder == cluster_folder(cluster_id) else folder
            text = None if name is None else os.fsdecode(name)
            hands.name_cluster(cluster_id, name, text, inode)
            hands.to_cluster([file_id for file_id, _ in pictures], cluster_id)
            for sha256 in features:
                library.store.pins.put(sha256, cluster_id)
        library.model = new
        fault_point("folder_is_cluster")
        library.folders.keep_names()
        log.info(
            "folder is a cluster now cluster=%d folder=%r pictures=%d",
            cluster_id,
            os.fsdecode(folder),
            len(pictures),
        )
        return True

    def _number_for(self, folder: bytes) -> int:
        number = self.place(folder).cluster_id
        if number is not None and number < _HIGHEST_CHOSEN:
            return number
        return self._library.store.fits.next_cluster_id()

    def _with_center(self, model: Model, center: Vectors, cluster_id: int, size: int) -> Model:
        """Save the fit in force with one more center, [1, d]; it decides nothing anew."""
        fits = self._library.store.fits
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
