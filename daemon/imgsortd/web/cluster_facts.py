"""What takes a look at the pictures of a cluster: when they came, and which are in its middle."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from math import inf
from statistics import fmean

from imgsortd.adapters.store_web import Member, WebRows
from imgsortd.web.middle import distances_to_middle
from imgsortd.web.plain import key_of

DAYS = 28
MOSAIC = 4


@dataclass(frozen=True, slots=True)
class Facts:
    """What takes a look at the pictures of a cluster; ``loose`` is of 2,000 at most."""

    days: tuple[int, ...]
    newest: float | None
    loose: float | None
    mosaic: tuple[tuple[int, str], ...]


class Middles:
    """The centers of the fit in force, and what its features are made by."""

    def __init__(self, rows: WebRows) -> None:
        self.extractor, self.centers = rows.extractor(), rows.centers()


def look_at(
    rows: WebRows, cluster_id: int, edges: tuple[float, ...], middles: Middles, sample: int
) -> Facts:
    """Look at the pictures of a cluster, at so many of the latest one by one.

    Parameters
    ----------
    edges
        When each day of the bars began, as of :func:`day_edges`.
    """
    newest = rows.last_came(cluster_id)
    days = Counter(
        bisect_right(edges, came) - 1 for came in rows.arrivals(cluster_id, since=edges[0])
    )
    members = rows.latest_members(cluster_id, sample)
    center = middles.centers.get(cluster_id)
    far = distances_to_middle(rows, middles.extractor, members, center)
    return Facts(
        days=tuple(days[day] for day in range(DAYS)),
        newest=None if newest is None else round(newest, 3),
        loose=round(fmean(far.values()), 4) if far else None,
        mosaic=_nearest(members, far),
    )


def _nearest(members: Iterable[Member], far: Mapping[bytes, float]) -> tuple[tuple[int, str], ...]:
    """Return (id, key) of the four nearest, no bytes twice; those without features come last."""
    known: dict[bytes, int] = {}
    for number, sha256 in sorted(members):
        if sha256 is not None:
            known.setdefault(sha256, number)
    first = nsmallest(MOSAIC, known, key=lambda sha256: (far.get(sha256, inf), known[sha256]))
    return tuple((known[sha256], key_of(sha256)) for sha256 in first)


def day_edges(now: float) -> tuple[float, ...]:
    """Return when each of the last 28 local days began, the oldest first, in Unix seconds."""
    today = time.localtime(now)
    return tuple(
        # mktime puts right what is no day of a month, and knows days of 23 and 25 hours.
        time.mktime((today.tm_year, today.tm_mon, today.tm_mday - back, 0, 0, 0, 0, 0, -1))
        for back in range(DAYS - 1, -1, -1)
    )
