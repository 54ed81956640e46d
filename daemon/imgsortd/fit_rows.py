"""The pictures of a fit: all in memory or streamed from the store, and those with a pin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from imgsortd.adapters.kmeans import MINI_BATCH_ABOVE_IMAGES, refuse_no_numbers
from imgsortd.adapters.store_fits import Fits
from imgsortd.core.clustering import SAMPLE_IMAGES
from imgsortd.core.pinned import Pinned
from imgsortd.core.records import ExtractorId, Vectors

Ids = npt.NDArray[np.int64]
Part = tuple[Ids, Vectors]
Tell = Callable[[str], None]
"""Told in words how far a fit has come."""

_PART_ROWS = 8192
_SEEDS = SAMPLE_IMAGES // 2


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
    """

    database: Path
    extractor: ExtractorId
    old_centers: Vectors | None
    n_images: int
    whole_up_to: int = MINI_BATCH_ABOVE_IMAGES
    old_ids: tuple[int, ...] = ()


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
class Pins:
    """What a person has put where: file ids and cluster ids, int64 [p], and features [p, d]."""

    file_ids: Ids
    cluster_ids: Ids
    vectors: Vectors

    def groups(self) -> list[int]:
        """Return the clusters with pins, ascending."""
        return sorted(set(self.cluster_ids.tolist()))

    def added_to(self, sample: Part) -> tuple[Vectors, npt.NDArray[np.intp], Ids]:
        """Return a sample with the pins in it.

        Returns
        -------
        float32 [m, d]
            The sample, and the pins that were not in it.
        intp [p], int64 [p]
            The row of each pin there, and its cluster id; of very many pins only some.
        """
        ids, vectors = sample
        some = np.arange(len(self.file_ids))
        if len(some) > _SEEDS:
            some = np.unique(np.linspace(0, len(some) - 1, _SEEDS).astype(np.intp))
            some = np.union1d(some, np.unique(self.cluster_ids, return_index=True)[1])
        order = np.argsort(ids, kind="stable")
        at = np.searchsorted(ids, self.file_ids[some], sorter=order)
        rows = order[np.minimum(at, len(ids) - 1)] if len(ids) else at
        is_in = ids[rows] == self.file_ids[some] if len(ids) else np.zeros(len(some), dtype=bool)
        rows = np.where(is_in, rows, len(ids) - 1 + np.cumsum(~is_in))
        missing = self.vectors[some[~is_in]]
        both = np.concatenate([vectors, missing]) if len(missing) else vectors
        return both, rows.astype(np.intp), self.cluster_ids[some]

    def labels_for(
        self, file_ids: Ids, label_of: dict[int, int]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return which of some files are pinned, and the label of each of these."""
        _, rows, at = np.intersect1d(
            file_ids, self.file_ids, assume_unique=True, return_indices=True
        )
        labels = [label_of[number] for number in self.cluster_ids[at].tolist()]
        return rows, np.array(labels, dtype=np.intp)


def pinned_of(
    rows: npt.NDArray[np.intp], cluster_ids: Ids, groups: list[int], old_ids: tuple[int, ...]
) -> Pinned:
    """Say of pins which pinned cluster they are in, and which former center that is."""
    return Pinned(
        rows,
        np.searchsorted(groups, cluster_ids).astype(np.intp),
        np.array(
            [old_ids.index(number) if number in old_ids else -1 for number in groups],
            dtype=np.intp,
        ),
    )
