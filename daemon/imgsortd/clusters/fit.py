"""A fit: stored features → centers → every picture labelled, by the old centers too.

Centers are found by hierarchy on a sample, and then are the means of all pictures. KMeans as the
article calls it is left to logits, which are no unit vectors, and to so many clusters of so many
pictures that a sample would hold too few of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from imgsortd.clusters.hierarchy import Labels, sums_of
from imgsortd.clusters.in_force import InForce
from imgsortd.clusters.kmeans import (
    MINI_BATCH_ABOVE_IMAGES,
    PASSES,
    STREAMED,
    Fit,
    check_features,
    fit_centers,
    fit_kmeans,
    refuse_no_numbers,
)
from imgsortd.clusters.routing import ReviewRule, choose, distance_quantiles, nearest, routing_model
from imgsortd.clusters.sample import (
    SAMPLE_IMAGES,
    Clusters,
    Held,
    choose_number,
    constrain,
    find_clusters,
)
from imgsortd.errors import FitError
from imgsortd.records import (
    IN_REVIEW,
    KEPT,
    NOWHERE,
    ExtractorId,
    KRange,
    Layer,
    Model,
    Progress,
    Start,
    Vectors,
)
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.features import Fits, Part

Ids = npt.NDArray[np.int64]

_ASKED_AT_ONCE = 4096
_IMAGES_A_CLUSTER = 10
_BY_MEANS = 2
_PART_ROWS = 8192
_MOST_PINS = SAMPLE_IMAGES // 2
_OF_A_NAMED = 50
_OF_ALL_NAMED = 1000  # a hierarchy takes memory with the square of its pictures
_NO_REVIEW = ReviewRule()
_NO_ROWS: Labels = np.empty(0, dtype=np.intp)
_LAST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fit and the files it labels: one row each, never their features.

    Attributes
    ----------
    file_ids
        int64 [n]; ``fit.labels``, intp [n], are of these.
    old_labels
        intp [n], the nearest old center of each; None before the first fit.
    stands
        int64 [n], the cluster in whose folder each stood when the fit began; IN_REVIEW, NOWHERE
        or BY_HAND (:mod:`imgsortd.records`).
    taken
        intp [m], rows in review that routing by this fit would take out, to their label.
    distances
        float32 [1001], the quantiles of its own distances, or None where every picture is
        alone.
    fixed_ids
        Label → cluster id, of clusters with pins or a name, or kept as they were.
    """

    file_ids: Ids
    fit: Fit
    old_labels: Labels | None
    stands: Ids
    taken: Labels = field(default_factory=_NO_ROWS.copy)
    distances: Vectors | None = None
    fixed_ids: dict[int, int] = field(default_factory=dict)


def fit_source(
    store: Store, extractor: ExtractorId, in_force: InForce, start: Start = Start.FORMER
) -> FitSource:
    """Say what a fit is to be made of: all sorted and waiting files; no picture is read."""
    model = in_force.model
    return FitSource(
        store.path,
        extractor,
        None if model is None else model.centers,
        store.fits.count_features(),
        old_ids=() if model is None else model.cluster_ids,
        start=start,
        rule=in_force.rule,
    )


def compute_fit(
    source: FitSource,
    n_clusters: int | KRange,
    random_state: int,
    tell: Progress = lambda _: None,
) -> Fitted:
    """Fit the centers; shares nothing with the loop, so that it may run beside it.

    Parameters
    ----------
    n_clusters
        How many; those of folders that a person has made come on top. Or a range in which
        the number is chosen.

    Raises
    ------
    FitError
        Fewer pictures than clusters, or a feature that is not a finite number.
    StoreError
        The features cannot be read.
    """
    started = time.perf_counter()
    with open_for_reading(source.database) as store:
        is_whole = source.n_images <= source.whole_up_to
        rows: Rows
        if is_whole:
            rows = WholeRows(store.fits, source.extractor)
        else:
            rows = StreamedRows(
                store.fits, source.extractor, source.n_images, source.whole_up_to, tell
            )
        hands = HeldClusters.read(store, source.extractor)
        found = _find(source, rows, hands, n_clusters, random_state)
        fitted = _label_all(source, rows, hands, found)
        taken = _take_out(source, store.fits, hands, fitted)
    fit_s = time.perf_counter() - started
    return replace(fitted, fit=replace(fitted.fit, fit_s=fit_s), taken=taken)


def _label_all(source: FitSource, rows: Rows, hands: HeldClusters, found: Found) -> Fitted:
    """Label every picture by its nearest center, and a pinned one by its pin."""
    labelled, done = [], 0
    for ids, vectors in rows.parts(found.passes, found.passes):
        labels, distances = hands.label(ids, vectors, found.centers, found.fixed_ids)
        if found.labels is not None:
            labels = found.labels[done : done + len(ids)]
        old = labels if source.old_centers is None else nearest(vectors, source.old_centers)[0]
        done += len(ids)
        labelled.append((ids, labels, distances, old))
    if not labelled:
        raise FitError("all pictures were taken away while they were fitted; nothing is changed")
    ids, labels, distances, old = (np.concatenate(column) for column in zip(*labelled, strict=True))
    inertia = found.inertia
    if inertia is None:
        inertia = float(np.square(distances, dtype=np.float64).sum())
    return Fitted(
        ids,
        Fit(found.centers, labels, inertia, found.algorithm, 0.0),
        None if source.old_centers is None else old,
        hands.standing.of(ids),
        distances=distance_quantiles(distances, labels),
        fixed_ids=found.fixed_ids,
    )


def _take_out(source: FitSource, fits: Fits, hands: HeldClusters, fitted: Fitted) -> Labels:
    """Return the rows in review that routing by the new centers takes out; give them its labels.

    So a proposal can say what it would take out.
    """
    ids, labels, centers = fitted.file_ids, fitted.fit.labels, fitted.fit.centers
    model = Model(0, source.extractor, centers, tuple(range(len(centers))), fitted.distances)
    label_of = {number: label for label, number in fitted.fixed_ids.items()}
    pinned_to = [label_of[number] for number in hands.cluster_ids.tolist()]
    routing = routing_model(model, hands.vectors, pinned_to)
    rows = np.flatnonzero(fitted.stands == IN_REVIEW)
    order = np.argsort(ids[rows])
    taken: list[int] = []
    for start in range(0, len(rows), _ASKED_AT_ONCE):
        asked = rows[order[start : start + _ASKED_AT_ONCE]]
        known, vectors = fits.features_of(source.extractor, ids[asked].tolist())
        own = asked[np.searchsorted(ids[asked], known)]
        for row, choice in zip(own.tolist(), choose(vectors, routing, source.rule), strict=True):
            if choice.cluster_id is not None:
                labels[row] = choice.cluster_id
                taken.append(row)
    return np.array(taken, dtype=np.intp)


def nearest_sizes(store: Store, model: Model) -> dict[int, int]:
    """Count, for each cluster id, the pictures that lie nearest to its center."""
    sizes = np.zeros(len(model.centers), dtype=np.int64)
    for _, vectors in store.fits.stream_features(model.extractor):
        sizes += np.bincount(nearest(vectors, model.centers)[0], minlength=len(sizes))
    return dict(zip(model.cluster_ids, sizes.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Found:
    """Centers, before the pictures are labelled.

    Attributes
    ----------
    fixed_ids
        Label → cluster id, of clusters with pins or a name, and of former ones that are kept.
    passes
        How often a fit goes through all pictures, the labelling with it.
    labels, inertia
        Where KMeans itself has told them.
    """

    centers: Vectors
    algorithm: str
    fixed_ids: dict[int, int] = field(default_factory=dict)
    passes: int = _BY_MEANS
    labels: Labels | None = None
    inertia: float | None = None


def _find(
    source: FitSource, rows: Rows, hands: HeldClusters, wanted: int | KRange, random_state: int
) -> Found:
    (ids, sample), pins = hands.added_to(rows.sample(random_state))
    former, former_ids = _former(source)
    groups = hands.groups()
    held = hands.held(ids, pins, former_ids)
    check_features(sample, wanted if isinstance(wanted, int) and not rows.is_sampled else 1)
    are_logits = source.extractor.layer is Layer.LOGITS
    if are_logits and isinstance(wanted, KRange):
        wanted = choose_number(sample, wanted)
    if isinstance(wanted, int) and (
        are_logits or (rows.is_sampled and wanted * _IMAGES_A_CLUSTER > len(sample))
    ):
        found = _by_kmeans(rows, wanted, random_state)
        if not groups:
            return found
        clusters = constrain(sample, found.centers, former, held, found.algorithm)
        return Found(clusters.centers, clusters.algorithm, _ids(clusters, groups), found.passes)
    clusters = find_clusters(sample, wanted, former, held)
    centers, fixed_ids = clusters.centers, _ids(clusters, groups)
    if rows.is_sampled:
        centers = _means(rows, centers, hands, fixed_ids)
    if clusters.algorithm == KEPT:  # also one that has lost all its pictures
        fixed_ids = {**dict(enumerate(former_ids)), **fixed_ids}
    return Found(centers, clusters.algorithm, fixed_ids)


def _former(source: FitSource) -> tuple[Vectors | None, tuple[int, ...]]:
    """Return one center of each former cluster, the fit's own: those of its pins come after it."""
    if source.old_centers is None or source.start is Start.NOTHING:
        return None, ()
    if not source.old_ids:
        return source.old_centers, ()
    rows = np.sort(np.unique(source.old_ids, return_index=True)[1])
    return source.old_centers[rows], tuple(source.old_ids[row] for row in rows.tolist())


def _ids(clusters: Clusters, groups: list[int]) -> dict[int, int]:
    return dict(zip(clusters.held_labels.tolist(), groups, strict=True))


def _by_kmeans(rows: Rows, n_clusters: int, random_state: int) -> Found:
    if isinstance(rows, WholeRows):
        fit = fit_kmeans(rows.vectors, n_clusters, random_state)
        return Found(fit.centers, fit.algorithm, {}, 1, fit.labels, fit.inertia)
    assert isinstance(rows, StreamedRows)
    sample = rows.first(max(rows.sample_rows, n_clusters))[1]
    centers = fit_centers(sample, rows.untold, n_clusters, random_state, rows.on_rows)
    return Found(centers, STREAMED, {}, PASSES)


def _means(rows: Rows, centers: Vectors, hands: HeldClusters, fixed_ids: dict[int, int]) -> Vectors:
    """Return the means, float32 [k, d], of all pictures that lie nearest to each center."""
    sums, sizes = np.zeros(centers.shape), np.zeros(len(centers), dtype=np.int64)
    for ids, vectors in rows.parts(1, _BY_MEANS):
        labels = hands.label(ids, vectors, centers, fixed_ids)[0]
        sums += sums_of(vectors, labels, len(centers))
        sizes += np.bincount(labels, minlength=len(centers))
    means = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return np.where(sizes[:, None] > 0, means, centers)


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
        """Return a seeded sample, or all where they are few."""
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
        self, fits: Fits, extractor: ExtractorId, n_images: int, sample_rows: int, tell: Progress
    ) -> None:
        self._fits, self._extractor = fits, extractor
        self._n_images, self._tell = n_images, tell
        self.sample_rows, self.is_sampled = sample_rows, True

    def sample(self, random_state: int) -> Part:
        """Return the first rows."""
        count = min(SAMPLE_IMAGES, self.sample_rows)
        self._tell(f"first clusters of {count:,} of {self._n_images:,} pictures")
        return self.first(count)

    def first(self, count: int) -> Part:
        """Return so many, or all."""
        ids = [np.empty(0, dtype=np.int64)]
        vectors = [np.empty((0, self._extractor.dims), dtype=np.float32)]
        for part_ids, part in self.untold():
            ids.append(part_ids[:count])
            vectors.append(part[:count])
            count -= len(ids[-1])
            if count == 0:
                break
        return np.concatenate(ids), np.concatenate(vectors)

    def parts(self, number: int, passes: int) -> Iterator[Part]:
        """Yield what the store gives at a time."""
        done = 0
        for ids, vectors in self.untold():
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
        last_file = store.records.last_file()
        return cls(pairs[:, 0], pairs[:, 1], _LAST if last_file is None else last_file)

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
class HeldClusters:
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
    def read(cls, store: Store, extractor: ExtractorId) -> HeldClusters:
        """Read them from the store."""
        standing = StandingFiles.read(store)
        named = np.intersect1d(store.records.by_hand(), standing.cluster_ids)
        each = min(_OF_A_NAMED, max(1, _OF_ALL_NAMED // max(1, len(named))))
        some = [np.flatnonzero(standing.cluster_ids == number)[:each] for number in named.tolist()]
        rows = np.concatenate([_NO_ROWS, *some])
        return cls(
            *store.fits.pinned_features(extractor),
            standing,
            tuple(named.tolist()),
            store.fits.features_of(extractor, standing.file_ids[rows].tolist()),
        )

    def groups(self) -> list[int]:
        """Return the held clusters, those with pins or a name or made by hand, ascending."""
        return sorted({*self.cluster_ids.tolist(), *self.named})

    def added_to(self, sample: Part) -> tuple[Part, Labels]:
        """Return a sample with the pins in it, and with some pictures of each named cluster.

        Returns
        -------
        int64 [m], float32 [m, d]
            The sample, and what was not in it.
        intp [p]
            Which of the pins are in it: all, or of very many only some.
        """
        some = np.arange(len(self.file_ids))
        if len(some) > _MOST_PINS:
            some = np.unique(np.linspace(0, len(some) - 1, _MOST_PINS).astype(np.intp))
            some = np.union1d(some, np.unique(self.cluster_ids, return_index=True)[1])
        for ids, vectors in ((self.file_ids[some], self.vectors[some]), self.of_named):
            is_new = ~np.isin(ids, sample[0])
            sample = (
                np.concatenate([sample[0], ids[is_new]]),
                np.concatenate([sample[1], vectors[is_new]]),
            )
        return sample, some

    def held(self, sample_ids: Ids, pins: Labels, old_ids: tuple[int, ...]) -> Held:
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

    def label(
        self, ids: Ids, vectors: Vectors, centers: Vectors, fixed_ids: dict[int, int]
    ) -> tuple[Labels, Vectors]:
        """Return the nearest center of each picture, of pins their own, and the distance to it."""
        labels, distances = nearest(vectors, centers)
        _, rows, at = np.intersect1d(ids, self.file_ids, assume_unique=True, return_indices=True)
        label_of = {number: label for label, number in fixed_ids.items()}
        own = [label_of[number] for number in self.cluster_ids[at].tolist()]
        labels[rows] = own
        distances[rows] = np.linalg.norm(vectors[rows] - centers[own], axis=1)
        return labels, distances
