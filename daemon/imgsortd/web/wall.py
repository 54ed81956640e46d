"""The pictures of one cluster, chunk by chunk: nearest to its middle first, or the newest."""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.store import Store
from imgsortd.adapters.store_web import Member, Place, WebRows
from imgsortd.core.records import ExtractorId, Vectors
from imgsortd.errors import CursorError, FindError
from imgsortd.web.middle import distances_to_middle
from imgsortd.web.overview import Overview
from imgsortd.web.plain import key_of, shown

DEFAULT_PICTURES, MOST_PICTURES = 2000, 5000
_KEPT = 4  # orders of so many clusters, 8 bytes a picture
_NEAR = re.compile(r"n([0-9a-f]{16})-([0-9]{1,15})")
_NEW = re.compile(r"w([0-9a-f]{16})-([0-9]{1,15})")

Ints = npt.NDArray[np.int64]
SizesOf = Callable[[Iterable[bytes]], Mapping[bytes, tuple[int, int]]]


class Order(StrEnum):
    """Which pictures come first."""

    NEAR = "near"  # nearest to the center that the cluster has by the fit in force
    NEW = "new"


@dataclass(frozen=True, slots=True)
class _Kept:
    version: str
    ids: Ints


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
        self._orders: OrderedDict[tuple[int, str], _Kept] = OrderedDict()
        self._lock, self._working = Lock(), Lock()

    def pictures(
        self,
        store: Store,
        cluster_id: int,
        order: Order | str = Order.NEAR,
        after: str | None = None,
        limit: int = DEFAULT_PICTURES,
    ) -> dict[str, Any]:
        """Return a chunk of a cluster's pictures, as plain values for JSON.

        Parameters
        ----------
        after
            The ``next`` of the chunk before; None for the first one.
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
        rows = WebRows(store.connection)
        if Order(order) is Order.NEAR:
            ids, total, following = self._near(rows, cluster_id, after, limit)
        else:
            ids, following = _newest(rows, cluster_id, after, limit)
            total = cluster["files"]
        found = rows.pictures(ids)
        pictures = [found[file_id] for file_id in ids if file_id in found]
        sizes = self._sizes_of({one.sha256 for one in pictures if one.sha256 and not one.width_px})
        return {
            "cluster": cluster,
            "total": total,
            "pictures": [
                [
                    one.file_id,
                    key_of(one.sha256),
                    *sizes.get(one.sha256 or b"", (one.width_px, one.height_px)),
                    shown(one.name),
                    int(one.is_pinned),
                ]
                for one in pictures
                if one.cluster_id == cluster_id
            ],
            "next": following,
        }

    def _near(
        self, rows: WebRows, cluster_id: int, after: str | None, limit: int
    ) -> tuple[list[int], int, str | None]:
        version, start = (None, 0) if after is None else _near_place(after)
        kept = None if version is None else self._get(cluster_id, version)
        if kept is None:
            kept = self._order(rows, cluster_id)
        end = start + limit
        following = f"n{kept.version}-{end}" if end < len(kept.ids) else None
        return kept.ids[start:end].tolist(), len(kept.ids), following

    def _order(self, rows: WebRows, cluster_id: int) -> _Kept:
        with self._working:  # who asks for the same at the same time finds it made
            extractor = rows.extractor()
            version = _version(rows.membership(cluster_id), extractor, rows.fit_in_force())
            kept = self._get(cluster_id, version)
            if kept is None:
                members, center = rows.members(cluster_id), rows.centers(cluster_id)
                ids = nearest_first(rows, extractor, members, center.get(cluster_id))
                kept = _Kept(version, ids)
                self._put(cluster_id, kept)
            return kept

    def _get(self, cluster_id: int, version: str) -> _Kept | None:
        with self._lock:
            kept = self._orders.get((cluster_id, version))
            if kept is not None:
                self._orders.move_to_end((cluster_id, version))
            return kept

    def _put(self, cluster_id: int, kept: _Kept) -> None:
        with self._lock:
            self._orders[cluster_id, kept.version] = kept
            while len(self._orders) > _KEPT:
                self._orders.popitem(last=False)


def nearest_first(
    rows: WebRows,
    extractor: ExtractorId | None,
    members: Sequence[Member],
    center: Vectors | None = None,
) -> Ints:
    """Return the ids of pictures, int64 [n], by their distance to the middle of the cluster.

    Those without features come last, by their id.

    Parameters
    ----------
    center
        The middle, float32 [d]; None for the mean of all.
    """
    distances = distances_to_middle(rows, extractor, members, center)
    ids = np.array([file_id for file_id, _ in members], dtype=np.int64)
    far = np.array([distances.get(sha256 or b"", math.inf) for _, sha256 in members])
    return ids[np.lexsort((ids, far))]


def _newest(
    rows: WebRows, cluster_id: int, after: str | None, limit: int
) -> tuple[list[int], str | None]:
    places = rows.newest(cluster_id, None if after is None else _new_place(after), limit + 1)
    more = len(places) > limit
    places = places[:limit]
    following = None
    if more:
        came, file_id = places[-1]
        following = f"w{struct.pack('>d', came).hex()}-{file_id}"
    return [file_id for _, file_id in places], following


def _version(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _near_place(after: str) -> tuple[str, int]:
    match = _NEAR.fullmatch(after)
    if match is None:
        raise _wrong(after, Order.NEAR)
    return match[1], int(match[2])


def _new_place(after: str) -> Place:
    match = _NEW.fullmatch(after)
    (came,) = (math.nan,) if match is None else struct.unpack(">d", bytes.fromhex(match[1]))
    if match is None or not math.isfinite(came):
        raise _wrong(after, Order.NEW)
    return came, int(match[2])


def _wrong(after: str, order: Order) -> CursorError:
    return CursorError(
        f"after must be the next of a chunk in the order {order}, got {after[:40]!r}; "
        f"begin again without it"
    )
