"""How many files are in which state and cluster, without counting them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_NO_CLUSTER = -1


@dataclass(frozen=True, slots=True)
class FileGroup:
    """Files of one state and cluster; ``is_read`` tells whether their bytes were hashed."""

    state: str
    cluster_id: int | None
    is_read: bool
    files: int


def file_groups(connection: sqlite3.Connection) -> list[FileGroup]:
    """Return the counts that triggers keep (migrations.py), each in its transaction.

    A database that an older imgsortd left has none until the daemon has started
    once; its files are counted one by one.
    """
    kept = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'file_counts'").fetchone()
    rows = connection.execute(
        "SELECT state, cluster_id, is_read, files FROM file_counts WHERE files > 0"
        if kept
        else "SELECT state, coalesce(cluster_id, -1) AS cluster, sha256 IS NOT NULL AS is_read, "
        "count(*) FROM files GROUP BY state, cluster, is_read"
    )
    return [
        FileGroup(state, None if cluster == _NO_CLUSTER else cluster, bool(is_read), files)
        for state, cluster, is_read, files in rows
    ]
