"""One picture: what is known of it, and the pictures of the library most like it."""

from __future__ import annotations

from threading import Lock
from typing import Any

from imgsortd.adapters import fsops
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_find import FileRow, Finder
from imgsortd.adapters.store_web import PictureRow, WebRows
from imgsortd.config import Config
from imgsortd.core.records import FileState
from imgsortd.errors import FindError
from imgsortd.finding import library_extractor, nearest_pictures
from imgsortd.subjects import place_of
from imgsortd.web.names import ShownNames
from imgsortd.web.plain import key_of, shown, shown_text

DEFAULT_PICTURES, MOST_PICTURES = 60, 200
# Each goes through all features, 16 MB at a time, and would take a core and its memory besides.
_one_at_a_time = Lock()


def picture(config: Config, store: Store, file_id: int) -> dict[str, Any]:
    """Return what is known of a picture, as plain values for JSON.

    Raises
    ------
    FindError
        There is no such picture, or its owner has taken it away.
    """
    row = _row(store, file_id)
    rows, names = WebRows(store.connection), ShownNames(store)
    seen = rows.pictures([file_id])[file_id]
    return {
        **_head(row, seen),
        "file": shown_text(str(place_of(config, row))),
        "cluster": row.cluster_id,
        "name_of_cluster": names.name(row.cluster_id),
        "folder": _folder(row),
        "state": str(row.state),
        "pinned": seen.is_pinned,
        "seen_at": row.seen_at,
        "distance": None if row.distance is None else round(row.distance, 4),
        "reason": shown_text(row.reason),
        "size_bytes": rows.size_bytes(file_id),
    }


def similar(
    config: Config, store: Store, file_id: int, count: int = DEFAULT_PICTURES
) -> dict[str, Any]:
    """Return the pictures of the library most like one, the nearest first.

    Parameters
    ----------
    count
        How many; at most 200.

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
    seen = WebRows(store.connection).pictures([one.file_id for one, _ in nearest.found])
    return {
        "of": picture(config, store, file_id),
        "compared": nearest.compared,
        "pictures": [
            {
                **_head(one, seen[one.file_id]),
                "cluster": one.cluster_id,
                "folder": _folder(one),
                "distance": round(distance, 4),
                "same_bytes": one.sha256 == row.sha256,
            }
            for one, distance in nearest.found
            if one.file_id in seen
        ],
    }


def _row(store: Store, file_id: int) -> FileRow:
    row = Finder(store).by_id(file_id)
    if row is None:
        raise FindError(f"there is no picture {file_id}")
    if row.state is FileState.GONE:
        raise FindError(f"picture {file_id} is no longer in the library: {row.reason or 'gone'}")
    return row


def _head(row: FileRow, seen: PictureRow) -> dict[str, Any]:
    return {
        "id": row.file_id,
        "key": key_of(row.sha256),
        "w": seen.width_px,
        "h": seen.height_px,
        "name": shown(seen.name),
    }


def _folder(row: FileRow) -> str | None:
    """Return the folder below target that a picture stands in; None for one in the inbox."""
    return None if row.in_target is None else shown(fsops.split(row.in_target)[0])
