"""The pictures of a fit: all in memory or streamed from the store; where they stand; the pins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import MINI_BATCH_ABOVE_IMAGES, refuse_no_numbers
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_fits import Fits
from imgsortd.core.clustering import SAMPLE_IMAGES
from imgsortd.core.held import Held
from imgsortd.core.lifecycle import Start
from imgsortd.core.records import ExtractorId, Vectors
from imgsortd.core.review import ReviewRule

Ids = npt.NDArray[np.int64]
Part = tuple[Ids, Vectors]
Tell = Callable[[str], None]
"""Told in words how far a fit has come."""

_PART_ROWS = 8192
_SEEDS = SAMPLE_IMAGES // 2
_OF_A_NAMED = 50
_OF_ALL_NAMED = 1000  # a hierarchy takes memory with the square of its pictures
_NO_REVIEW = ReviewRule()

_ALL = 2**63 - 1
IN_REVIEW, NOWHERE, BY_HAND = -1, -2, -3
"""In place of a cluster id: of a picture in review, of one in the inbox, and of one that a person
has put into review, where it stays."""


@dataclass(frozen=True, slots=True)
class FitSource:
    """What a fit is made of: all that its thread needs, and nothing that the loop works on.

    Attributes
    ----------
    database
        The SQLite file, opened anew by the fit, for reading.
    old_centers
        Those in force, float32 [k, d]; None before the first fit.
    n_images
        Pictures in the fit, more or less: some may come or go until it has read them.
    whole_up_to
        Pictures up to which all features are in memory at once; above, they are streamed.
    old_ids
        Cluster id of each old center.
    start
        Whether the old clusters stay where new ones are hardly better.
    rule
        When a picture goes to review.
    """

    database: Path
    extractor: ExtractorId
    old_centers: Vectors | None
    n_images: int
    whole_up_to: int = MINI_BATCH_ABOVE_IMAGES
    old_ids: tuple[int, ...] = ()
    start: Start = Start.FORMER
    rule: ReviewRule = _NO_REVIEW


class Rows(Protocol):
    """File ids and features, which can be gone through several times in the same order."""

    is_sampled: bool
    """Whether the sample is not all of them."""

    def sample(self, random_state: int) -> Part:
        """Return some thousands of them, chosen at random, or all where there are no more."""

    def parts(self, number: int, passes: int) -> Iterator[Part]:
        """Yield them all; ``number`` of ``passes`` is told."""


class WholeRows:
    """All in memory, in the order of the file names."""

    def __init__(self, fits: Fits, extractor: ExtractorId) -> None:
        self.ids, self.vectors = fits.load_features(extractor)
        refuse_no_numbers(self.vectors)
        self.is_sampled = len(self.ids) > SAMPLE_IMAGES

    def sample(self, random_state: int) -> Part:
        """Return a seeded sample."""
        if not self.is_sampled:
            return self.ids, self.vectors
        order = np.random.default_rng(random_state).permutation(len(self.ids))
        rows = np.sort(order[:SAMPLE_IMAGES])
        return self.ids[rows], self.vectors[rows]

    def parts(self, number: int, passes: int) -> Iterator[Part]:
        """Yield some thousands at a time."""
        for start in range(0, len(self.ids), _PART_ROWS):
            part = slice(start, start + _PART_ROWS)
            yield self.ids[part], self.vectors[part]


class StreamedRows:
    """Read anew each time, in the order of the hashes; the first are a random sample of all."""

    def __init__(
        self,
        fits: Fits,
        extractor: ExtractorId,
        n_images: int,
        sample_rows: int,
        tell: Tell,
    ) -> None:
        self._fits = fits
        self._extractor = extractor
        self._n_images = n_images
        self.sample_rows = sample_rows
        self._tell = tell
        self.is_sampled = True

    def sample(self, random_state: int) -> Part:
        """Return the first rows."""
        left = min(SAMPLE_IMAGES, self.sample_rows)
        self._tell(f"first clusters of {left:,} of {self._n_images:,} pictures")
        ids, vectors = [], []
        for part_ids, part in self._fits.stream_features(self._extractor):
            ids.append(part_ids[:left])
            vectors.append(part[:left])
            left -= len(ids[-1])
            if left == 0:
                break
        if not ids:
            dims = self._extractor.dims
            return np.empty(0, dtype=np.int64), np.empty((0, dims), dtype=np.float32)
        return np.concatenate(ids), np.concatenate(vectors)

    def parts(self, number: int, passes: int) -> Iterator[Part]:
        """Yield what the store gives at a time."""
        done = 0
        for ids, vectors in self._fits.stream_features(self._extractor):
            refuse_no_numbers(vectors)
            yield ids, vectors
            done += len(ids)
            self.on_rows(number, done, passes)

    def untold(self) -> Iterator[Part]:
        """Yield them without a word."""
        return self._fits.stream_features(self._extractor)

    def on_rows(self, number: int, done: int, passes: int) -> None:
        """Tell how far a pass has come."""
        total = max(self._n_images, done)
        self._tell(f"pass {number} of {passes}, {done:,} of {total:,} pictures")


@dataclass(frozen=True, slots=True)
class StandingFiles:
    """Which files stand in which cluster's folder, or in review; of all others it says nothing.

    ``file_ids``, int64 [m], ascend; ``cluster_ids``, int64 [m], are of each, IN_REVIEW or BY_HAND.
    """

    file_ids: Ids
    cluster_ids: Ids
    last_file: int
    """The newest that stood there at the fit in force; the others were only routed by it."""

    @classmethod
    def read(cls, store: Store) -> StandingFiles:
        """Read it from the store."""
        numbers = (number for row in store.files.standing() for number in row)
        pairs = np.fromiter(numbers, dtype=np.int64).reshape(-1, 2)
        last_file = store.proposals.last_file()
        return cls(pairs[:, 0], pairs[:, 1], _ALL if last_file is None else last_file)

    def settled(self, file_ids: Ids) -> Ids:
        """Return the same as :meth:`of`, but NOWHERE for what has come since the fit in force.

        That tells what a folder is, where what was routed to it since may be of another kind.
        """
        return np.where(file_ids <= self.last_file, self.of(file_ids), NOWHERE)

    def of(self, file_ids: Ids) -> Ids:
        """Return where each file stands: a cluster id, IN_REVIEW, BY_HAND or NOWHERE."""
        if not len(self.file_ids):
            return np.full(len(file_ids), NOWHERE, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.file_ids, file_ids), len(self.file_ids) - 1)
        return np.where(self.file_ids[at] == file_ids, self.cluster_ids[at], NOWHERE)


@dataclass(frozen=True, slots=True)
class Hands:
    """What a person has put where, and which clusters a person has named or made.

    Attributes
    ----------
    file_ids, cluster_ids, vectors
        The pins: int64 [p], int64 [p], float32 [p, d].
    standing
        Where all pictures stand.
    named
        Clusters with a name, or made by hand, in whose folder something stands.
    of_named
        Some of their pictures, for a sample that has few of them.
    """

    file_ids: Ids
    cluster_ids: Ids
    vectors: Vectors
    standing: StandingFiles
    named: tuple[int, ...]
    of_named: Part

    @classmethod
    def read(cls, store: Store, extractor: ExtractorId) -> Hands:
        """Read them from the store."""
        standing = StandingFiles.read(store)
        named = np.intersect1d(store.records.by_hand(), standing.cluster_ids)
        each = min(_OF_A_NAMED, max(1, _OF_ALL_NAMED // max(1, len(named))))
        some = [np.flatnonzero(standing.cluster_ids == number)[:each] for number in named.tolist()]
        rows = np.concatenate([np.empty(0, dtype=np.intp), *some])
        return cls(
            *store.fits.pinned_features(extractor),
            standing,
            tuple(named.tolist()),
            store.fits.features_of(extractor, standing.file_ids[rows].tolist()),
        )

    def groups(self) -> list[int]:
        """Return the held clusters, those with pins or a name or made by hand, ascending."""
        return sorted({*self.cluster_ids.tolist(), *self.named})

    def added_to(self, sample: Part) -> tuple[Part, npt.NDArray[np.intp]]:
        """Return a sample with the pins in it, and with some pictures of each named cluster.

        Returns
        -------
        int64 [m], float32 [m, d]
            The sample, and what was not in it.
        intp [p]
            Which of the pins are in it: all, or of very many only some.
        """
        some = np.arange(len(self.file_ids))
        if len(some) > _SEEDS:
            some = np.unique(np.linspace(0, len(some) - 1, _SEEDS).astype(np.intp))
            some = np.union1d(some, np.unique(self.cluster_ids, return_index=True)[1])
        for ids, vectors in ((self.file_ids[some], self.vectors[some]), self.of_named):
            is_new = ~np.isin(ids, sample[0])
            sample = (
                np.concatenate([sample[0], ids[is_new]]),
                np.concatenate([sample[1], vectors[is_new]]),
            )
        return sample, some

    def held(self, sample_ids: Ids, pins: npt.NDArray[np.intp], old_ids: tuple[int, ...]) -> Held:
        """Say which rows of a sample are pinned, and where each stands.

        Parameters
        ----------
        pins
            intp [p], the pins that are in it.
        old_ids
            Cluster id of each former center.
        """
        groups = self.groups()
        order = np.argsort(sample_ids, kind="stable")
        rows = order[np.searchsorted(sample_ids, self.file_ids[pins], sorter=order)]
        stands = self.standing.settled(sample_ids)
        stands[rows] = self.cluster_ids[pins]
        others = np.setdiff1d(stands[stands >= 0], groups)
        numbers = np.array([*groups, *others.tolist()], dtype=np.int64)
        sorter = np.argsort(numbers)
        at = np.minimum(np.searchsorted(numbers, stands, sorter=sorter), max(0, len(numbers) - 1))
        folders = sorter[at] if len(numbers) else np.zeros(len(stands), dtype=np.intp)
        former = [old_ids.index(number) if number in old_ids else -1 for number in groups]
        return Held(
            rows.astype(np.intp),
            np.searchsorted(groups, self.cluster_ids[pins]).astype(np.intp),
            np.array(former, dtype=np.intp),
            np.where(stands >= 0, folders, -1).astype(np.intp),
        )

    def labels_for(
        self, file_ids: Ids, label_of: dict[int, int]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return which of some files are pinned, and the label of each of these."""
        _, rows, at = np.intersect1d(
            file_ids, self.file_ids, assume_unique=True, return_indices=True
        )
        labels = [label_of[number] for number in self.cluster_ids[at].tolist()]
        return rows, np.array(labels, dtype=np.intp)
