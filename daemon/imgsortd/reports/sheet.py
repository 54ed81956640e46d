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

from imgsortd.config.model import Config
from imgsortd.pictures.reading import RootedName, is_there
from imgsortd.records import FileState
from imgsortd.reports.subjects import places_of
from imgsortd.reports.typical import SPARE, Ranked, rank_members
from imgsortd.store.database import Store
from imgsortd.store.fits import FitRecord
from imgsortd.store.folders import in_use
from imgsortd.store.health import foreign_errors
from imgsortd.store.lookup import FileLookup, FileRow

NEAREST, FARTHEST = 9, 3  # of each cluster, beside its medoid
REVIEWED, LISTED = 60, 100


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
    places: tuple[RootedName, ...]
    role: Role
    distance: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """A cluster on the sheet; ``duplicates`` are among the ``size`` files in its folder.

    ``share`` is of all files in cluster folders, 0 to 1.
    """

    cluster_id: int
    name: str
    folder: str
    size: int
    duplicates: int
    share: float
    pictures: tuple[Shown, ...]

    @property
    def title(self) -> str:
        """What a person calls it."""
        return self.name or self.folder


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet: the clusters by size, then the newest in review and set aside.

    ``set_aside`` has (name, reason) of files that are no pictures, so that there is nothing to
    show; ``note`` is a sentence of the caller's for the header, as plain text.
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
    config: Config,
    store: Store,
    note: str = "",
    on_pictures: Callable[[int, int], None] = lambda *_: None,
) -> Sheet:
    """Read what the sheet of a library shows.

    Raises
    ------
    StoreError
        The database cannot be read.
    """
    with foreign_errors(store.path):
        rows, counts = store.lookup, store.files.counts()
        sizes = store.files.cluster_sizes()
        clusters = in_use(store.hands.cluster_folders(), sizes)
        clusters.sort(key=lambda c: -sizes.get(c.cluster_id, 0))
        ids = [cluster.cluster_id for cluster in clusters]
        ranked = rank_members(store, ids, NEAREST + 1 + SPARE, FARTHEST + SPARE, on_pictures)
        duplicates = store.files.cluster_sizes(only_duplicates=True)
        total = max(1, sum(sizes.values()))
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
            review=_those_there(config, rows.newest(FileState.REVIEW, REVIEWED), Role.REVIEW),
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


def _pictures(
    config: Config, rows: FileLookup, cluster_id: int, ranked: Ranked | None
) -> tuple[Shown, ...]:
    """Choose the pictures of one cluster, the medoid first; those that are gone are passed over."""
    count = 1 + NEAREST + FARTHEST
    if ranked is None:
        return _those_there(config, rows.first_of(cluster_id, count + SPARE), Role.ANY)[:count]
    files = rows.by_ids({i for i, _ in (*ranked.nearest, *ranked.farthest)})
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


def _those_there(config: Config, files: Iterable[FileRow], role: Role) -> tuple[Shown, ...]:
    shown = (_shown(config, file, role) for file in files)
    return tuple(picture for picture in shown if is_there(picture.places))


def _shown(config: Config, file: FileRow, role: Role, distance: float | None = None) -> Shown:
    name = os.fsdecode(os.path.basename(file.dst or file.src))
    return Shown(file.file_id, name, places_of(config, file), role, distance, file.reason)
