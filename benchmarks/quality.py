"""How well clusters fit labels that a person gave; imgsortd itself never sees them.

``python -m benchmarks.quality DIR…`` compares them in one go, over refits, with pins and in
several orders of arrival. All is sorted by imgsortd's own line, on a clock that is made up
(:mod:`benchmarks.shelf`).
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Part, Unit, at_least, at_most, figure_of, finish, say
from benchmarks.models import BACKBONES, build
from benchmarks.pictures import picture_paths
from benchmarks.processes import call
from benchmarks.shelf import Labels, Shelf
from imgsortd.pictures.pixels import decode
from imgsortd.records import PARTIAL, Backbone, ExtractorId, Layer, Vectors

_BATCH = 16
_QUIET_S = 100.0  # longer than clusters.quiet_s, shorter than a day
_FIRST_SHARE, _GROWTH, _PINS = 0.3, 0.25, (1, 3, 10)
# The promise for one go was given for this set.
_PROMISED_FOR, _PROMISED = "caltech22", {"k given": at_least(0.93), "k auto": at_least(0.90)}
_LOST_TARGET, _CHURN_TARGET = at_most(0.02), at_most(0.03)
_TURN, _MINUTE_S, _NAMED_BY_HAND, _PINNED_BY_HAND = 50, 60.0, 3, 10


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled set: features, float32 [n, d]; the class of each, intp [n], a row of ``names``."""

    name: str
    extractor: ExtractorId
    features: Vectors
    classes: Labels
    names: tuple[str, ...]


def read_labelled(folder: Path, backbone: str, cache: Path) -> Labelled:
    """Read class folders by the real model; what was read before comes from the cache."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    paths = [path.resolve() for one in classes for path in picture_paths(one)]
    names = tuple(dict.fromkeys(path.parent.name for path in paths))
    listing = "\n".join(f"{path}:{path.stat().st_size}" for path in paths)
    key = hashlib.sha256(f"{backbone}\n{listing}".encode()).hexdigest()[:16]
    file = cache.resolve() / f"labelled-{key}.npz"
    if not file.exists():
        say(f"{folder}: {len(paths)} pictures through {backbone}")
        file.parent.mkdir(parents=True, exist_ok=True)
        call(_keep_features, listing, backbone, file)
    with np.load(file) as kept:
        digest, features = str(kept["digest"]), kept["features"]
    identity = ExtractorId(digest, Layer.POOL5, features.shape[1], Backbone(backbone))
    labels = np.array([names.index(path.parent.name) for path in paths], dtype=np.intp)
    return Labelled(folder.name, identity, features, labels, names)


def _keep_features(listing: str, backbone: str, file: str) -> dict[str, Any]:
    """Extract in a process that may have torch."""
    paths = [Path(line.rpartition(":")[0]) for line in listing.splitlines()]
    extractor = build({"backbone": backbone})
    features = []
    for start in range(0, len(paths), _BATCH):
        pixels = [decode(path.read_bytes()) for path in paths[start : start + _BATCH]]
        features.append(extractor.extract(pixels))
    np.savez(file, digest=extractor.id.weights_digest, features=np.concatenate(features))
    return {}


def scores(classes: Labels, clusters: Labels) -> tuple[float, float]:
    """Return NMI and ARI."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nmi = float(normalized_mutual_info_score(classes, clusters))
    return nmi, float(adjusted_rand_score(classes, clusters))


def purity(classes: Labels, clusters: Labels) -> tuple[float, float]:
    """Return the share that is of the commonest class of its cluster, and that of the largest."""
    counts = np.zeros((clusters.max() + 1, classes.max() + 1))
    np.add.at(counts, (clusters, classes), 1 / len(classes))
    return float(counts.max(axis=1).sum()), float(counts.sum(axis=1).max())


def measure_ways(labelled: Labelled, work: Path) -> Part:
    """Cluster a set in one go, by KMeans as it is and in imgsortd's way."""
    from sklearn.cluster import KMeans

    k = len(labelled.names)
    part = Part(f"quality of {labelled.name}: {len(labelled.classes)} pictures, k = {k}")
    found = {"KMeans": KMeans(k, random_state=42).fit(labelled.features).labels_}
    for name, wanted in (("k given", k), ("k auto", "auto")):
        shelf = sorted_shelf(labelled, work / name.replace(" ", "-"), wanted)
        found[name] = shelf.clusters_of(labelled.features)
        shelf.close()
    for name, clusters in found.items():
        target = _PROMISED.get(name) if labelled.name == _PROMISED_FOR else None
        nmi, ari = scores(labelled.classes, clusters)
        pure, largest = purity(labelled.classes, clusters)
        part.figures += [
            Figure(f"{name}: NMI", nmi, Unit.INDEX, target),
            Figure("  ARI", ari, Unit.INDEX),
            Figure("  purity", pure, Unit.SHARE),
            Figure("  largest cluster", largest, Unit.SHARE),
        ]
    part.notes.append(f"k auto took {len(np.unique(found['k auto']))}")
    return part


def sorted_shelf(labelled: Labelled, folder: Path, wanted: int | str) -> Shelf:
    """Return a library into which the set was dropped at once."""
    n = len(labelled.classes)
    clusters = {"n_clusters": wanted, "min_images": n, "max_share": "off"}
    shelf = Shelf(folder, labelled.extractor, labelled.features, clusters=clusters)
    shelf.drop(range(n))
    shelf.work(_QUIET_S)
    return shelf


def grow(labelled: Labelled, folder: Path, seed: int) -> tuple[float, list[float], float]:
    """Drop 30 % of the pictures, then in random order a quarter more each time.

    Returns NMI at the end, the churn of each refit, and the share whose folder ever changed.
    """
    order = np.random.default_rng(seed).permutation(len(labelled.classes))
    n, k = len(order), len(labelled.names)
    until, here = max(k, round(_FIRST_SHARE * n)), 0
    clusters = {"n_clusters": k, "min_images": until, "max_share": "off"}
    shelf = Shelf(folder, labelled.extractor, labelled.features, clusters=clusters)
    while here < n:
        shelf.drop(order[here:until].tolist())
        shelf.work(_QUIET_S)
        here, until = until, min(n, math.ceil(until * (1 + _GROWTH)))
    churns = [fit.churn for fit in shelf.fits if fit.trigger not in PARTIAL]
    nmi, changed = scores(labelled.classes, shelf.folders(n))[0], shelf.moves(n) > 0
    shelf.close()
    return nmi, [churn for churn in churns if churn is not None], float(np.mean(changed))


def measure_growth(labelled: Labelled, work: Path, rounds: int, one_go: float) -> Part:
    """Measure a library that grows, several times."""
    grown = [grow(labelled, work / f"grow-{seed}", seed) for seed in range(rounds)]
    nmis, churns, changed = zip(*grown, strict=True)
    lost, medians = [one_go - nmi for nmi in nmis], [median(one) for one in churns]
    figures = [
        figure_of("NMI at the end", nmis, Unit.INDEX),
        figure_of("  below the fit in one go", lost, Unit.INDEX, _LOST_TARGET),
        figure_of("churn of a refit, median", medians, Unit.SHARE, _CHURN_TARGET),
        figure_of("  the greatest", [max(one) for one in churns], Unit.SHARE),
        figure_of("folder ever changed", changed, Unit.SHARE),
    ]
    notes = [f"{len(churns[0])} refits, at most; files follow new clusters; {rounds} orders"]
    return Part(f"{labelled.name}: 30 % first, then at random a quarter more", figures, notes)


def clusters_of_classes(classes: Labels, clusters: Labels, shelf: Shelf) -> list[int]:
    """Return the cluster that a person would put each class into.

    The one with the most of it, each once and as many right as can be; a folder of its own
    where there is none in which the class is the commonest.
    """
    from scipy.optimize import linear_sum_assignment

    ids, places = np.unique(clusters, return_inverse=True)
    counts = np.zeros((classes.max() + 1, len(ids)), dtype=np.int64)
    np.add.at(counts, (classes, places), 1)
    found = dict(zip(*linear_sum_assignment(counts, maximize=True), strict=True))
    own = []
    for label in range(len(counts)):
        column = found.get(label)
        is_own = column is not None and counts[:, column].argmax() == label
        own.append(int(ids[column]) if is_own else shelf.new_cluster())
    return own


def measure_pins(labelled: Labelled, work: Path, rounds: int) -> Part:
    """Pin pictures of each class drawn at random; measure the others, at once and refitted."""
    part = Part(f"{labelled.name}: pins, the unpinned rest")
    for pins in _PINS:
        drawn = [_pinned(labelled, work / f"{pins}-{seed}", pins, seed) for seed in range(rounds)]
        for at, title in enumerate(("without", "at once", "after a refit")):
            nmis, aris = zip(*(one[at] for one in drawn), strict=True)
            part.figures.append(figure_of(f"{pins} a class, {title}: ARI", aris, Unit.INDEX))
            part.figures.append(figure_of("  NMI", nmis, Unit.INDEX))
    part.notes = [f"{rounds} draws; a class that is the commonest of no cluster gets a new folder"]
    return part


def _pinned(labelled: Labelled, folder: Path, pins: int, seed: int) -> list[tuple[float, float]]:
    """Return NMI and ARI of the rest: without pins, at once, after a refit."""
    rng, classes, k = np.random.default_rng(seed), labelled.classes, len(labelled.names)
    shelf = sorted_shelf(labelled, folder, k)
    found = [shelf.clusters_of(labelled.features)]
    rest = np.ones(len(classes), dtype=bool)
    for label, cluster_id in enumerate(clusters_of_classes(classes, found[0], shelf)):
        members = rng.permutation(np.flatnonzero(classes == label))[:pins]
        rest[members] = False
        for number in members.tolist():
            shelf.pin(number, cluster_id)
    found.append(shelf.clusters_of(labelled.features))
    shelf.fit(k)
    found.append(shelf.clusters_of(labelled.features))
    shelf.close()
    return [scores(classes[rest], clusters[rest]) for clusters in found]


# Pictures that are dropped together, and the seconds that pass before the next are.
Drops = list[tuple[Sequence[int], float]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """An order, how far it may end below one fit over all, and whether all came at once.

    ``by_hand``: a person names and pins after the first third. ``is_asked``: a person accepts
    the proposal that waits at the end; kinds that come when a library is grown are proposed.
    """

    name: str
    drops: Callable[[Labels], Drops]
    may_lose: float
    is_at_once: bool = False
    by_hand: bool = False
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one order: NMI of folders (``_review`` is one) and classes, and shares (0 to 1).

    ``kept``: of what a person had named or pinned, what is as it was; None where nobody did.
    """

    nmi: float
    review: float
    moved_again: float
    kept: float | None


def _by_class(classes: Labels) -> Labels:
    return np.argsort(classes, kind="stable")


def _at_random(classes: Labels) -> Labels:
    return np.random.default_rng(0).permutation(len(classes))


def _at_once(order: Labels) -> Drops:
    return [(order.tolist(), _QUIET_S)]


def _bursts(order: Labels) -> Drops:
    return [(part.tolist(), _QUIET_S) for part in np.array_split(order, 3)]


def _trickle(order: Labels) -> Drops:
    return [([number], _MINUTE_S) for number in order.tolist()]


def _alternating(classes: Labels) -> Drops:
    """Two sources, half of the classes each, in turns of fifty."""
    sources = np.array_split(_by_class(classes), 2)
    drops: Drops = []
    for start in range(0, len(sources[0]), _TURN):
        drops += [(source[start : start + _TURN].tolist(), 5.0) for source in sources]
    return [*drops[:-1], (drops[-1][0], _QUIET_S)]


ARRIVALS = (
    Arrival("random", lambda c: _at_once(_at_random(c)), 0.02, is_at_once=True),
    Arrival("by class", lambda c: _at_once(_by_class(c)), 0.02, is_at_once=True),
    Arrival("by class reversed", lambda c: _at_once(_by_class(c)[::-1]), 0.02, is_at_once=True),
    Arrival("two sources", _alternating, 0.02, is_at_once=True),
    Arrival("three bursts", lambda c: _bursts(_by_class(c)), 0.04),
    Arrival("bursts with hands", lambda c: _bursts(_by_class(c)), 0.04, by_hand=True),
    Arrival("trickle", lambda c: _trickle(_at_random(c)), 0.02),
    # What has come since the last refit, a quarter at most, may be of a kind that it has not seen.
    Arrival("trickle by class", lambda c: _trickle(_by_class(c)), 0.05, is_asked=True),
)


def arrive(labelled: Labelled, arrival: Arrival, wanted: int | str, folder: Path) -> Outcome:
    """Let a set arrive in an order, with ``clusters.n_clusters`` wanted; say what came of it."""
    n = len(labelled.classes)
    clusters = {"n_clusters": wanted, "min_images": min(300, max(2, n // 4))}
    shelf = Shelf(folder, labelled.extractor, labelled.features, clusters=clusters)
    names: dict[int, bytes] = {}
    pins: dict[int, int] = {}
    for at, (numbers, seconds) in enumerate(arrival.drops(labelled.classes)):
        if at == 1 and arrival.by_hand:
            names, pins = _by_hand(shelf, labelled)
        shelf.drop(numbers)
        shelf.work(seconds)
    if arrival.is_asked and shelf.store.records.waiting() is not None:
        shelf.accept()
    stands, again = shelf.folders(n), shelf.moves(n) > 1
    same = [shelf.names.get(number) == name for number, name in names.items()]
    same += [bool(stands[number] == cluster_id) for number, cluster_id in pins.items()]
    shelf.close()
    review, kept = float(np.mean(stands == -1)), sum(same) / len(same) if same else None
    return Outcome(scores(labelled.classes, stands)[0], review, float(np.mean(again)), kept)


def _by_hand(shelf: Shelf, labelled: Labelled) -> tuple[dict[int, bytes], dict[int, int]]:
    """Name the largest clusters by what most of them are, and pin pictures of that into them."""
    stands = shelf.folders(len(labelled.classes))
    numbers, sizes = np.unique(stands[stands >= 0], return_counts=True)
    largest = numbers[np.argsort(-sizes, kind="stable")][:_NAMED_BY_HAND].tolist()
    rng = np.random.default_rng(1)
    pins: dict[int, int] = {}
    for cluster_id in largest:
        label = np.bincount(labelled.classes[stands == cluster_id]).argmax()
        shelf.name(cluster_id, f"{labelled.names[label]} {cluster_id}")
        own = rng.permutation(np.flatnonzero((stands != -2) & (labelled.classes == label)))
        for number in own[: -(-_PINNED_BY_HAND // len(largest))].tolist():
            if number not in pins and len(pins) < _PINNED_BY_HAND:
                shelf.pin(number, cluster_id)
                pins[number] = cluster_id
    return shelf.names, pins


def measure_orders(labelled: Labelled, work: Path) -> Part:
    """Measure every order, for k given and for auto, against one fit over all: the first order."""
    part = Part(f"{labelled.name}: orders of arrival, below one fit over all pictures")
    for title, wanted in (("k given", len(labelled.names)), ("k auto", "auto")):
        outcomes: list[Outcome] = []
        for number, arrival in enumerate(ARRIVALS):
            say(f"{labelled.name}, {title}: {arrival.name}")
            outcome = arrive(labelled, arrival, wanted, work / f"{title}-{number}")
            outcomes.append(outcome)
            name, lost = f"{title}, {arrival.name}: NMI lost", outcomes[0].nmi - outcome.nmi
            most = at_most(0.1) if arrival.is_at_once else None
            part.figures += [
                Figure(name, lost, Unit.INDEX, at_most(arrival.may_lose)),
                Figure("  in review", outcome.review, Unit.SHARE, at_most(0.03)),
                Figure("  moved more than once", outcome.moved_again, Unit.SHARE, most),
            ]
            if (kept := outcome.kept) is not None:
                part.figures.append(Figure("  names and pins kept", kept, Unit.SHARE, at_least(1)))
        part.notes.append(f"{title}: NMI {outcomes[0].nmi:.3f} in one go, the order `random`")
    return part


def measure_section(options: Namespace, work: Path) -> list[Part]:
    """Measure ``--labelled`` in one go, for the section ``quality`` of the benchmark."""
    if options.labelled is None:
        return [Part("quality", notes=["skipped: give --labelled DIR with one folder a class"])]
    parts = []
    for backbone in dict.fromkeys(subject.backbone for subject in options.subjects):
        labelled = read_labelled(options.labelled, backbone, work)
        parts.append(measure_ways(labelled, work / backbone))
        parts[-1].name += f", {backbone}"
    return parts


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    text = "Compare clusters with the labels that the folders' names are."
    parser = ArgumentParser("python -m benchmarks.quality", description=text)
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR", help="a folder of class folders")
    add("--backbone", choices=BACKBONES, default=BACKBONES[0])
    add("--rounds", type=int, default=3, help="random orders and draws of pins (3)")
    add("--cache", type=Path, metavar="DIR", help="keep features there for the next time")
    add("--json", type=Path, metavar="FILE", help="default: quality-DATE.json")
    options = parser.parse_args(arguments)
    for path in options.folders:
        if not path.is_dir() or len([one for one in path.iterdir() if one.is_dir()]) < 2:
            parser.error(f"expected a folder of two class folders or more, got {path}")
    return options


def main() -> None:
    """Measure each folder in all ways, print a table for each and write JSON."""
    options, parts = parse(), []
    for path in options.folders:
        with tempfile.TemporaryDirectory(prefix="quality-") as folder:
            work = Path(folder)
            labelled = read_labelled(path, options.backbone, options.cache or work)
            say(f"{labelled.name}: in one go, growing, pins")
            ways = measure_ways(labelled, work)
            one_go = next(figure.value for figure in ways.figures if "k given" in figure.name)
            parts += [ways, measure_growth(labelled, work, options.rounds, one_go)]
            parts.append(measure_pins(labelled, work, options.rounds))
            parts.append(measure_orders(labelled, work))
    finish(parts, vars(options), options.json, "quality")


if __name__ == "__main__":
    main()
