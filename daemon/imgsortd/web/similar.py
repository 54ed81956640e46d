"""One picture: what is known of it, and the pictures of the library most like it."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

from imgsortd.config.model import Config
from imgsortd.errors import FindError
from imgsortd.records import FileState
from imgsortd.reports.similar import library_extractor, nearest_pictures
from imgsortd.reports.subjects import place_of
from imgsortd.store.database import Store
from imgsortd.store.lookup import FileRow
from imgsortd.system import filesystem
from imgsortd.web.shown import Picture, ShownNames, head_of, shown

DEFAULT_PICTURES, MOST_PICTURES = 60, 200
# Each goes through all features, 16 MB at a time, and would take a core and its memory besides.
_one_at_a_time = Lock()


@dataclass(frozen=True, slots=True)
class KnownPicture(Picture):
    """What is known of a picture; ``seen_at`` is in Unix seconds."""

    file: str
    cluster: int | None
    name_of_cluster: str | None
    folder: str | None
    state: str
    pinned: bool
    seen_at: float
    distance: float | None
    reason: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class LikePicture(Picture):
    """A picture like another one, by the distance of their features."""

    cluster: int | None
    folder: str | None
    distance: float
    same_bytes: bool


@dataclass(frozen=True, slots=True)
class Similar:
    """The pictures most like one, the nearest first, of so many that were compared."""

    of: KnownPicture
    compared: int
    pictures: list[LikePicture]


def read_picture(config: Config, store: Store, file_id: int) -> KnownPicture:
    """Return what is known of a picture.

    Raises
    ------
    FindError
        There is no such picture, or its owner has taken it away.
    """
    row = _row(store, file_id)
    rows, names = store.shown, ShownNames(store)
    seen = rows.pictures([file_id])[file_id]
    return KnownPicture(
        *head_of(seen),
        file=str(place_of(config, row)),
        cluster=row.cluster_id,
        name_of_cluster=names.name(row.cluster_id),
        folder=_folder(row),
        state=str(row.state),
        pinned=bool(seen.is_pinned),
        seen_at=row.seen_at,
        distance=None if row.distance is None else round(row.distance, 4),
        reason=row.reason,
        size_bytes=rows.size_bytes(file_id),
    )


def find_similar(
    config: Config, store: Store, file_id: int, count: int = DEFAULT_PICTURES
) -> Similar:
    """Return the pictures of the library most like one, at most 200, the nearest first.

    Raises
    ------
    FindError
        There is no such picture, or no features of it are stored.
    """
    row = _row(store, file_id)
    extractor = library_extractor(store)
    features = store.fits.get_features(extractor, [row.sha256 or b""])
    if row.sha256 not in features:
        raise FindError(
            f"picture {file_id}: no features of it are stored, so nothing can be compared with "
            f"it; the daemon extracts them of what it can read"
        )
    count = max(1, min(count, MOST_PICTURES))
    with _one_at_a_time:
        nearest = nearest_pictures(config, store, extractor, features[row.sha256], count, row)
    seen = store.shown.pictures([one.file_id for one, _ in nearest.found])
    pictures = [
        LikePicture(
            *head_of(seen[one.file_id]),
            cluster=one.cluster_id,
            folder=_folder(one),
            distance=round(distance, 4),
            same_bytes=one.sha256 == row.sha256,
        )
        for one, distance in nearest.found
        if one.file_id in seen
    ]
    return Similar(read_picture(config, store, file_id), nearest.compared, pictures)


def _row(store: Store, file_id: int) -> FileRow:
    row = store.lookup.by_id(file_id)
    if row is None:
        raise FindError(f"there is no picture {file_id}")
    if row.state is FileState.GONE:
        raise FindError(f"picture {file_id} is no longer in the library: {row.reason or 'gone'}")
    return row


def _folder(row: FileRow) -> str | None:
    """Return the folder below target that a picture stands in; None for one in the inbox."""
    return None if row.in_target is None else shown(filesystem.split(row.in_target)[0])
