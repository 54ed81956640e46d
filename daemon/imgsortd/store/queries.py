"""What the queries of all tables share: short ways to ask, and conditions on moves and files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")

OPEN = "phase IN ('planned', 'copied')"
NOT_MOVING = f"id NOT IN (SELECT file_id FROM moves WHERE {OPEN})"
HERE = "inbox_id = (SELECT id FROM roots WHERE kind = 'inbox' AND is_current)"
"""The file came to the inbox in use."""
PLACED = "in_target AND target_id = (SELECT id FROM roots WHERE kind = 'target' AND is_current)"
"""The file stands in the target in use."""
FREE = "NOT EXISTS (SELECT 1 FROM pins WHERE pins.sha256 = files.sha256)"
EXTRACTOR = "(SELECT id FROM extractors WHERE weights_digest = ? AND layer = ?)"
IDS_AT_ONCE = 500


def parts(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield so many at a time as a query can name."""
    for start in range(0, len(values), IDS_AT_ONCE):
        yield values[start : start + IDS_AT_ONCE]


def marks(part: Sequence[object]) -> str:
    """Return as many question marks in brackets."""
    return f"({', '.join('?' * len(part))})"


class Queries:
    """Queries over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def _one(self, sql: str, *values: Any) -> Any:
        """Return the first row; None where there is none."""
        return self._connection.execute(sql, values).fetchone()

    def _all(self, sql: str, *values: Any) -> list[Any]:
        """Return all rows."""
        return self._connection.execute(sql, values).fetchall()

    def _do(self, sql: str, *values: Any) -> None:
        """Carry out a statement that gives no rows."""
        self._connection.execute(sql, values)

    def _is_any(self, sql: str, *values: Any) -> bool:
        """Tell whether there is a row."""
        return self._one(sql, *values) is not None

    def _value(self, sql: str, *values: Any) -> Any | None:
        """Return what is first in the first row; None where there is none."""
        row = self._one(sql, *values)
        return None if row is None else row[0]

    def _number(self, sql: str, *values: Any) -> int | None:
        """Return the number in the first row; None where there is no row, or no number in it."""
        value = self._value(sql, *values)
        return None if value is None else int(value)

    def _count(self, sql: str, *values: Any) -> int:
        """Return the number in the only row."""
        return int(self._one(sql, *values)[0])

    def _insert(self, table: str, **columns: Any) -> int:
        """Add a row; return its number."""
        marks = ", ".join("?" * len(columns))
        cursor = self._connection.execute(
            f"INSERT INTO {table}({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _column(self, sql: str, *values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return [row[0] for row in self._connection.execute(sql, values)]
