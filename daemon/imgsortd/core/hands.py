"""What has a person done in target? Files that are missing against files that are new there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from imgsortd.core.names import base_name
from imgsortd.core.records import FileState

GONE_REASON = "deleted or taken away by its owner"
PUT_REASON = "put there by its owner"
PICTURES_OF_A_CLUSTER = 3


@dataclass(frozen=True, slots=True)
class Absent:
    """A row of the store whose file does not stand where it was put."""

    file_id: int
    dst: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file in target that no row knows, and its bytes' hash."""

    dst: bytes
    sha256: bytes


def match_moves(
    absent: Iterable[Absent], strangers: Iterable[Stranger]
) -> list[tuple[Absent, Stranger]]:
    """Pair each missing file with a new one of the same bytes: where a person has moved it.

    One to one, as many as there are of both; where several have the same bytes, those that
    kept their name first, the rest in the order of their names.
    """
    missing: dict[bytes, list[Absent]] = defaultdict(list)
    for row in sorted(absent, key=lambda row: (row.dst, row.file_id)):
        missing[row.sha256].append(row)
    found: dict[bytes, list[Stranger]] = defaultdict(list)
    for file in sorted(strangers, key=lambda file: file.dst):
        found[file.sha256].append(file)
    pairs: list[tuple[Absent, Stranger]] = []
    for sha256 in sorted(missing.keys() & found.keys()):
        pairs.extend(_pair(missing[sha256], found[sha256]))
    return pairs


def _pair(rows: list[Absent], files: list[Stranger]) -> list[tuple[Absent, Stranger]]:
    pairs: list[tuple[Absent, Stranger]] = []
    by_name: dict[bytes, list[Stranger]] = defaultdict(list)
    for file in reversed(files):
        by_name[base_name(file.dst)].append(file)
    left = []
    for row in rows:
        same = by_name[base_name(row.dst)]
        if same:
            pairs.append((row, same.pop()))
        else:
            left.append(row)
    rest = sorted((file for same in by_name.values() for file in same), key=lambda file: file.dst)
    return [*pairs, *zip(left, rest, strict=False)]


class Kind(StrEnum):
    """What a folder directly in target is."""

    CLUSTER = "cluster"
    REVIEW = "review"
    SET_ASIDE = "set_aside"
    OWN = "own"  # a person's, or that of a cluster that is no more


def state_in(kind: Kind, before: FileState) -> FileState:
    """Return the state of a picture that a person has put into a folder of this kind."""
    if kind is Kind.REVIEW:
        return FileState.REVIEW
    if kind is Kind.SET_ASIDE:
        return FileState.SET_ASIDE
    return FileState.DUPLICATE if before is FileState.DUPLICATE else FileState.SORTED


def renamed_to(known: int, moved: Sequence[tuple[bytes, int]]) -> bytes | None:
    """Return the folder that a folder which is gone has become, judged by its pictures.

    Parameters
    ----------
    known
        Files that stood in it.
    moved
        (folder, files of it that stand there now) of each person's folder.

    Returns
    -------
    bytes or None
        The one with more than half of them; None where they are scattered or deleted.
    """
    best = max(moved, key=lambda folder: folder[1], default=None)
    return best[0] if best is not None and 2 * best[1] > known else None
