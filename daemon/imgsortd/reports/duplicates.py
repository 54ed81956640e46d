"""What ``imgsortd duplicates`` reports; nothing is moved, deleted or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from imgsortd.config.model import Config
from imgsortd.errors import FindError
from imgsortd.pictures.hashing import differing_bits
from imgsortd.records import ExtractorId, FileState, Progress, Vectors
from imgsortd.reports.near_pairs import MAX_BITS, Rows, are_near, groups_of, near_pairs
from imgsortd.reports.similar import library_extractor
from imgsortd.reports.subjects import ClusterNames, ToldFile, find_subject, place_of, stands
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.lookup import FileRow

_PAIRS_TOLD, _PAIRS_AT_ONCE = 100, 4096

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class StoredFile(ToldFile):
    """A file and its size; None where it was taken away just now."""

    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class EqualFile(StoredFile):
    """A file of equal bytes; the first that came is the original."""

    original: bool


@dataclass(frozen=True, slots=True)
class EqualFiles:
    """Files with the same bytes, the original first."""

    sha256: str
    files: list[EqualFile]


@dataclass(frozen=True, slots=True)
class NearPair(Generic[Name]):
    """Two pictures by SHA-256 or place, bits of 64 in which hashes differ, cosine of features."""

    first: Name
    second: Name
    bits: int
    cosine: float


@dataclass(frozen=True, slots=True)
class AlikeFiles:
    """Near-duplicates, the largest first, and the nearest of their pairs."""

    files: list[StoredFile]
    n_pairs: int
    pairs: list[NearPair[str | None]]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found; None for a kind that was not looked for."""

    kept_pairs: int
    exact: list[EqualFiles] | None = None
    near: list[AlikeFiles] | None = None


@dataclass(frozen=True, slots=True)
class NearDuplicates(Duplicates):
    """The same with near-duplicates: pictures with a hash, and ``lacking`` one yet.

    ``crowded`` are like so many others that not all pairs were looked at.
    """

    compared: int = 0
    crowded: int = 0
    lacking: int = 0


def duplicates(
    config: Config, *, exact: bool, near: bool, progress: Progress = lambda _: None
) -> Duplicates:
    """Report the groups of exact and of near-duplicates.

    Raises
    ------
    StoreError, FindError
        There is no library yet, or no picture in it.
    """
    with open_for_reading(config.database) as store:
        kept, look, equal = store.hashes.kept(), _Pictures(config, store), None
        if exact:
            same = (name for name in store.hashes.repeated() if (name, name) not in kept)
            equal = [group for name in same if len((group := look.equal(name)).files) > 1]
        if not near:
            return Duplicates(len(kept), equal)
        found = find_near(
            store, library_extractor(store), lambda name: bool(look.rows(name)), progress
        )
        return NearDuplicates(
            len(kept),
            equal,
            [look.alike(group) for group in found.groups],
            found.compared,
            found.crowded,
            store.hashes.count_lacking(),
        )


class _Pictures:
    """Finds the files of pictures, and says of them what a person knows them by."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config, self._finder = config, store.lookup
        self._names = ClusterNames(config, store)

    def rows(self, sha256: bytes) -> list[FileRow]:
        """Return the files with these bytes that stand, each place once; the original first."""
        same = reversed(self._finder.same_bytes(sha256))
        rows = {place_of(self._config, row): row for row in same}
        return [row for row in reversed(rows.values()) if stands(self._config, row)]

    def equal(self, sha256: bytes) -> EqualFiles:
        rows = enumerate(self.rows(sha256))
        return EqualFiles(sha256.hex(), [EqualFile(*self._told(row), at == 0) for at, row in rows])

    def alike(self, group: NearGroup) -> AlikeFiles:
        rows = {name: self.rows(name) for name in group.members}
        files = [StoredFile(*self._told(row)) for some in rows.values() for row in some]
        # The first file of each picture stands for it; one taken away just now has none.
        place = {name: str(place_of(self._config, some[0])) for name, some in rows.items() if some}
        pairs = sorted(group.pairs, key=lambda pair: (pair.bits, -pair.cosine))
        return AlikeFiles(
            sorted(files, key=lambda file: -(file.size_bytes or 0)),
            len(pairs),
            [
                NearPair(place.get(pair.first), place.get(pair.second), pair.bits, pair.cosine)
                for pair in pairs[:_PAIRS_TOLD]
            ],
        )

    def _told(
        self, row: FileRow
    ) -> tuple[str, str, int | None, str | None, str | None, int | None]:
        """Return the values of a :class:`StoredFile`."""
        try:
            size_bytes = os.stat(place_of(self._config, row)).st_size
        except OSError:  # taken away just now
            size_bytes = None
        return *self._names.of_file(row), size_bytes


def hashes_of(config: Config, paths: Sequence[Path]) -> list[bytes]:
    """Return the SHA-256 of each file, one for each row of the library.

    Raises
    ------
    FindError
        One of them is no picture of the library.
    """
    found: dict[int, bytes] = {}
    with open_for_reading(config.database) as store:
        for path in paths:
            row = find_subject(config, store, path).row
            no_pictures = (FileState.SET_ASIDE, FileState.COMPANION)
            if row is None or row.sha256 is None or row.state in no_pictures:
                raise FindError(f"{path}: is no picture of the library; nothing was changed")
            found[row.file_id] = row.sha256
    return list(found.values())


@dataclass(frozen=True, slots=True)
class NearGroup:
    """Pictures that hang together by pairs: SHA-256, in order."""

    members: list[bytes]
    pairs: list[NearPair[bytes]]


@dataclass(frozen=True, slots=True)
class NearFound:
    """The groups, of how many pictures, and of how many of them not all pairs were looked at."""

    groups: list[NearGroup]
    compared: int
    crowded: int


def find_near(
    store: Store, extractor: ExtractorId, stands: Callable[[bytes], bool], tell: Progress
) -> NearFound:
    """Find the groups of near-duplicates, those pairs left out that a person has kept.

    Bounded by the budget of :func:`imgsortd.reports.near_pairs.near_pairs`: 40 bytes a picture,
    and features for 4,096 pairs at a time.

    Parameters
    ----------
    stands
        Tells whether a picture is on disk still.
    """
    tell("comparing hashes")
    names, hashes = store.hashes.standing()
    near = near_pairs(hashes, MAX_BITS)
    kept = store.hashes.kept()
    found: list[NearPair[bytes]] = []
    for start in range(0, len(near.first), _PAIRS_AT_ONCE):
        tell(f"comparing features: {start:,} of {len(near.first):,} pairs")
        part = slice(start, start + _PAIRS_AT_ONCE)
        first, second = near.first[part], near.second[part]
        bits = differing_bits(hashes[first], hashes[second])
        found += _verified(store, extractor, names, first, second, bits)
    standing = {name: stands(name) for pair in found for name in (pair.first, pair.second)}
    wanted = [
        pair
        for pair in found
        if (pair.first, pair.second) not in kept and standing[pair.first] and standing[pair.second]
    ]
    return NearFound(_grouped(wanted), len(hashes), near.crowded)


def _verified(
    store: Store,
    extractor: ExtractorId,
    names: npt.NDArray[np.uint8],
    first: Rows,
    second: Rows,
    bits: npt.NDArray[np.uint8],
) -> Iterator[NearPair[bytes]]:
    """Yield the pairs whose features say so, too; a picture without features is in none."""
    rows = np.unique(np.concatenate([first, second]))
    by_row = [names[row].tobytes() for row in rows]
    stored = store.fits.get_features(extractor, by_row)
    nothing = np.zeros(extractor.dims, dtype=np.float32)
    vectors: Vectors = np.stack([stored.get(name, nothing) for name in by_row])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    a, b = np.searchsorted(rows, first), np.searchsorted(rows, second)
    cosines = np.einsum("ij,ij->i", vectors[a], vectors[b])
    for at in np.flatnonzero(are_near(bits, cosines)):
        yield NearPair(by_row[a[at]], by_row[b[at]], int(bits[at]), float(cosines[at]))


def _grouped(pairs: list[NearPair[bytes]]) -> list[NearGroup]:
    if not pairs:
        return []
    members = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    number = {name: at for at, name in enumerate(members)}
    ends = np.array([(number[pair.first], number[pair.second]) for pair in pairs])
    group_of: dict[bytes, NearGroup] = {}
    groups = []
    for rows in groups_of(ends[:, 0], ends[:, 1]):
        groups.append(NearGroup([members[row] for row in rows], []))
        group_of |= dict.fromkeys(groups[-1].members, groups[-1])
    for pair in pairs:
        group_of[pair.first].pairs.append(pair)
    return groups
