"""The pictures of one cluster, chunk by chunk: nearest to its middle first, or the newest."""

from __future__ import annotations

import math
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from imgsortd.errors import CursorError, FindError
from imgsortd.records import ExtractorId, Vectors
from imgsortd.store.database import Store
from imgsortd.store.shown import Member, WebRows
from imgsortd.web.clusters import Overview, ShownCluster, distances_to_middle
from imgsortd.web.shown import digest_of, key_of, shown

DEFAULT_PICTURES, MOST_PICTURES = 2000, 5000
_KEPT = 4  # orders of so many clusters, 8 bytes a picture

Ints = npt.NDArray[np.int64]
SizesOf = Callable[[Iterable[bytes]], Mapping[bytes, tuple[int, int]]]


class Order(StrEnum):
    """Which pictures come first."""

    NEAR = "near"  # nearest to the center that the cluster has by the fit in force
    NEW = "new"


_CURSORS = {
    Order.NEAR: re.compile(r"n([0-9a-f]{16})-([0-9]{1,15})"),
    Order.NEW: re.compile(r"w([0-9a-f]{16})-([0-9]{1,15})"),
}


class WallPicture(NamedTuple):
    """A picture on a wall; a short list in JSON, for there are thousands."""

    id: int
    key: str
    width_px: int
    height_px: int
    name: str
    pinned: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the pictures of a cluster; ``next`` is what is to be asked for after them."""

    cluster: ShownCluster
    total: int
    pictures: list[WallPicture]
    next: str | None


class Wall:
    """Keeps the order of a few clusters' pictures, so that only the first chunk takes long.

    Who has begun to read a cluster goes on in the order that was, while other pictures come;
    those that have left it since are left out. It may be used by several threads.

    Parameters
    ----------
    overview
        Tells of the cluster itself.
    sizes_of
        Tells width and height of pictures by their hash, as far as it knows: for those that
        were sorted before the store kept sizes.
    """

    def __init__(self, overview: Overview, sizes_of: SizesOf = lambda _: {}) -> None:
        self._overview, self._sizes_of = overview, sizes_of
        self._orders: OrderedDict[tuple[int, str], Ints] = OrderedDict()  # by cluster, version
        self._lock, self._working = Lock(), Lock()

    def pictures(
        self,
        store: Store,
        cluster_id: int,
        order: Order | str = Order.NEAR,
        after: str | None = None,
        limit: int = DEFAULT_PICTURES,
    ) -> Chunk:
        """Return a chunk of a cluster's pictures: the first, or that ``after`` an earlier one.

        Parameters
        ----------
        after
            The ``next`` of the chunk before.
        limit
            Pictures in the chunk; at most 5,000.

        Raises
        ------
        FindError
            There is no such cluster.
        CursorError
            ``after`` was never a ``next`` of this order.
        """
        limit = max(1, min(limit, MOST_PICTURES))
        cluster = self._overview.cluster(store, cluster_id)
        if cluster is None:
            raise FindError(f"there is no cluster {cluster_id}, and no file in its folder")
        rows = store.shown
        if Order(order) is Order.NEAR:
            ids, total, following = self._near(rows, cluster_id, after, limit)
        else:
            ids, following = _newest(rows, cluster_id, after, limit)
            total = cluster.files
        found = rows.pictures(ids)
        pictures = [found[file_id] for file_id in ids if file_id in found]
        sizes = self._sizes_of({one.sha256 for one in pictures if one.sha256 and not one.width_px})
        shown_now = [
            WallPicture(
                one.file_id,
                key_of(one.sha256),
                *sizes.get(one.sha256 or b"", (one.width_px, one.height_px)),
                shown(one.name),
                one.is_pinned,
            )
            for one in pictures
            if one.cluster_id == cluster_id
        ]
        return Chunk(cluster, total, shown_now, following)

    def _near(
        self, rows: WebRows, cluster_id: int, after: str | None, limit: int
    ) -> tuple[list[int], int, str | None]:
        version, start = ("", 0) if after is None else _read_cursor(after, Order.NEAR)
        ids = self._get(cluster_id, version)
        if ids is None:
            version, ids = self._order(rows, cluster_id)
        end = start + limit
        following = f"n{version}-{end}" if end < len(ids) else None
        return ids[start:end].tolist(), len(ids), following

    def _order(self, rows: WebRows, cluster_id: int) -> tuple[str, Ints]:
        with self._working:  # who asks for the same at the same time finds it made
            extractor = rows.extractor()
            state = (rows.membership(cluster_id), extractor, rows.fit_in_force())
            version = digest_of(repr(state))
            ids = self._get(cluster_id, version)
            if ids is None:
                members, center = rows.members(cluster_id), rows.centers(cluster_id)
                ids = nearest_first(rows, extractor, members, center.get(cluster_id))
                with self._lock:
                    self._orders[cluster_id, version] = ids
                    while len(self._orders) > _KEPT:
                        self._orders.popitem(last=False)
            return version, ids

    def _get(self, cluster_id: int, version: str) -> Ints | None:
        with self._lock:
            ids = self._orders.get((cluster_id, version))
            if ids is not None:
                self._orders.move_to_end((cluster_id, version))
            return ids


def nearest_first(
    rows: WebRows,
    extractor: ExtractorId | None,
    members: Sequence[Member],
    center: Vectors | None = None,
) -> Ints:
    """Return the ids of pictures, int64 [n], by their distance to the middle of the cluster.

    That is ``center``, float32 [d], or the mean of all. Those without features come last, by id.
    """
    distances = distances_to_middle(rows, extractor, members, center)
    ids = np.array([file_id for file_id, _ in members], dtype=np.int64)
    far = np.array([distances.get(sha256 or b"", math.inf) for _, sha256 in members])
    return ids[np.lexsort((ids, far))]


def _newest(
    rows: WebRows, cluster_id: int, after: str | None, limit: int
) -> tuple[list[int], str | None]:
    place = None
    if after is not None:
        came, file_id = _read_cursor(after, Order.NEW)
        place = (_seconds(came), file_id)
    places = rows.newest(cluster_id, place, limit + 1)
    following = None
    if len(places) > limit:
        last_s, last_id = places[limit - 1]
        following = f"w{struct.pack('>d', last_s).hex()}-{last_id}"
    return [file_id for _, file_id in places[:limit]], following


def _read_cursor(after: str, order: Order) -> tuple[str, int]:
    """Take a ``next`` apart: the version of an order, or when a picture came; and a number."""
    match = _CURSORS[order].fullmatch(after)
    if match is None or (order is Order.NEW and not math.isfinite(_seconds(match[1]))):
        raise CursorError(
            f"after must be the next of a chunk in the order {order}, got {after[:40]!r}; "
            f"begin again without it"
        )
    return match[1], int(match[2])


def _seconds(digits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(digits))[0])
