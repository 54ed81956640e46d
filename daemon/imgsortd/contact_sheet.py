"""What a contact sheet shows: for each cluster a few pictures, then what is for a person to see.

Read from the store alone, part by part, so that it works beside the daemon and in bounded
memory: the features go by twice, for the middle of each cluster and for what is nearest to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from imgsortd.adapters.picture_pool import Place, is_there
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_health import foreign_errors
from imgsortd.adapters.store_records import FitRecord
from imgsortd.adapters.store_sheets import SheetRows, ShownFile
from imgsortd.config import Config
from imgsortd.core.closest import Extremes, MeanFeatures, Ranked
from imgsortd.core.records import FileState

NEAREST = 9
FARTHEST = 3
REVIEWED = 60
LISTED = 100
# Kept for those that their owner has taken away since they were sorted.
SPARE = 12

OnPictures = Callable[[int, int], None]
"""Told (pictures whose features were read, of how many)."""


class Role(StrEnum):
    """Why a picture is shown."""

    MEDOID = "medoid"
    NEAR = "near"
    FAR = "far"
    ANY = "any"  # its features are not kept, so that nothing is known of its distance
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture on the sheet: its row, its name, where it may stand, and why it is shown."""

    file_id: int
    name: str
    places: tuple[Place, ...]
    role: Role
    distance: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """A cluster on the sheet.

    Attributes
    ----------
    size
        Files in its folder, ``duplicates`` among them.
    share
        Of all files in cluster folders, 0 to 1.
    """

    cluster_id: int
    name: str
    folder: str
    size: int
    duplicates: int
    share: float
    pictures: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet: the clusters by size, then the newest in review and set aside.

    Attributes
    ----------
    set_aside
        (name, reason) of files that are no pictures, so that there is nothing to show.
    note
        A sentence of the caller's for the header, as plain text.
    """

    clusters: tuple[ClusterPart, ...]
    review: tuple[Shown, ...]
    n_review: int
    set_aside: tuple[tuple[str, str], ...]
    n_set_aside: int
    n_duplicates: int
    fit: FitRecord | None
    made_at: float
    note: str = ""

    @property
    def n_pictures(self) -> int:
        """Files in cluster folders."""
        return sum(cluster.size for cluster in self.clusters)

    def by_importance(self) -> Iterator[Shown]:
        """Yield the pictures in the order in which they are worth their room."""
        for cluster in self.clusters:
            yield from cluster.pictures[:1]
        yield from self.review
        for cluster in self.clusters:
            yield from cluster.pictures[1:]


def read_sheet(
    config: Config, store: Store, note: str = "", on_pictures: OnPictures = lambda *_: None
) -> Sheet:
    """Read what the sheet of a library shows.

    Raises
    ------
    StoreError
        The database cannot be read.
    """
    with foreign_errors(store.path):
        rows = SheetRows(store.connection)
        sizes, counts = store.files.cluster_sizes(), store.files.counts()
        clusters = sorted(rows.clusters(sizes), key=lambda c: -sizes.get(c.cluster_id, 0))
        ids = [cluster.cluster_id for cluster in clusters]
        ranked = rank_members(store, ids, NEAREST + 1 + SPARE, FARTHEST + SPARE, on_pictures)
        duplicates, total = rows.duplicates(), max(1, sum(sizes.values()))
        return Sheet(
            clusters=tuple(
                ClusterPart(
                    cluster.cluster_id,
                    cluster.name,
                    os.fsdecode(cluster.folder),
                    size := sizes.get(cluster.cluster_id, 0),
                    duplicates.get(cluster.cluster_id, 0),
                    size / total,
                    _pictures(config, rows, cluster.cluster_id, ranked.get(cluster.cluster_id)),
                )
                for cluster in clusters
            ),
            review=tuple(
                _shown(config, file, Role.REVIEW)
                for file in rows.newest(FileState.REVIEW, REVIEWED)
                if is_there(places_of(config, file))
            ),
            n_review=counts.review,
            set_aside=tuple(
                (os.fsdecode(file.dst or file.src), file.reason)
                for file in rows.newest(FileState.SET_ASIDE, LISTED)
            ),
            n_set_aside=counts.set_aside,
            n_duplicates=counts.duplicates,
            fit=store.records.current_record(),
            made_at=time.time(),
            note=note,
        )


def rank_members(
    store: Store,
    cluster_ids: Iterable[int],
    nearest: int,
    farthest: int,
    on_pictures: OnPictures = lambda *_: None,
) -> dict[int, Ranked]:
    """Return, for each cluster whose features are kept, the pictures nearest to its middle.

    The middle is the mean of the features of the pictures that are in its folder now: where a
    person has moved some, it is not the center of the fit.
    """
    model = store.fits.current()
    ids = np.array(sorted(cluster_ids), dtype=np.int64)
    if model is None or not len(ids):
        return {}
    means = MeanFeatures(len(ids), model.extractor.dims)
    extremes = Extremes(nearest, farthest)
    total, done = 2 * store.records.count_features(), 0
    rows = SheetRows(store.connection)
    for part in rows.members(model.extractor):
        # A cluster that came meanwhile is not on the sheet.
        known = np.isin(part.cluster_ids, ids)
        means.add(np.searchsorted(ids, part.cluster_ids[known]), part.features[known])
        done += len(part.file_ids)
        on_pictures(done, total)
    middles = means.means()
    for part in rows.members(model.extractor):
        known = np.isin(part.cluster_ids, ids)
        of_row = np.searchsorted(ids, part.cluster_ids[known])
        distances = np.linalg.norm(part.features[known] - middles[of_row], axis=1)
        extremes.add(part.cluster_ids[known], part.file_ids[known], distances)
        done += len(part.file_ids)
        on_pictures(done, total)
    on_pictures(total, total)
    return extremes.of_clusters()


def places_of(config: Config, file: ShownFile) -> tuple[Place, ...]:
    """Return where a file may stand; what a link in target leads to is its source."""
    places: list[Place] = [] if file.dst is None else [(config.target, file.dst)]
    if file.stays:
        places.append((config.inbox, file.src))
    return tuple(places)


def _pictures(
    config: Config, rows: SheetRows, cluster_id: int, ranked: Ranked | None
) -> tuple[Shown, ...]:
    """Choose the pictures of one cluster, the medoid first; those that are gone are passed over."""
    count = 1 + NEAREST + FARTHEST
    if ranked is None:
        first = rows.first_of(cluster_id, count + SPARE)
        there = [file for file in first if is_there(places_of(config, file))]
        return tuple(_shown(config, file, Role.ANY) for file in there[:count])
    files = rows.files({i for i, _ in (*ranked.nearest, *ranked.farthest)})
    known = {i for i, file in files.items() if is_there(places_of(config, file))}
    near = [(i, distance) for i, distance in ranked.nearest if i in known][: 1 + NEAREST]
    shown = {i for i, _ in near}
    far = [(i, distance) for i, distance in ranked.farthest if i in known and i not in shown]
    far = far[:FARTHEST][::-1]  # the very farthest at the end
    roles = [Role.MEDOID, *[Role.NEAR] * NEAREST][: len(near)] + [Role.FAR] * len(far)
    return tuple(
        _shown(config, files[i], role, distance)
        for role, (i, distance) in zip(roles, (*near, *far), strict=True)
    )


def _shown(config: Config, file: ShownFile, role: Role, distance: float | None = None) -> Shown:
    name = os.fsdecode(os.path.basename(file.dst or file.src))
    return Shown(file.file_id, name, places_of(config, file), role, distance, file.reason)
