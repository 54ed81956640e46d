"""``python -m benchmarks.quality DIR…``: clusters against labels, alone, over refits, with pins."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.arrival_orders import QUIET_S, measure_orders
from benchmarks.figures import Figure, Goal, Part, Target, Unit, figure_of
from benchmarks.labelled import CLOSE, Labelled, read_labelled
from benchmarks.quality import largest_share, purity
from benchmarks.shelf import Labels, Shelf
from imgsortd.core.lifecycle import PARTIAL
from imgsortd.core.records import Vectors

_FIRST_SHARE, _GROWTH = 0.3, 0.25
_PINS = (1, 3, 10)
_TARGETS = {
    "k given": Target(Goal.AT_LEAST, 0.93),
    "k auto": Target(Goal.AT_LEAST, 0.90),
    "lost": Target(Goal.AT_MOST, 0.02),
    "churn": Target(Goal.AT_MOST, 0.03),
}


def scores(classes: Labels, clusters: Labels) -> tuple[float, float]:
    """Return NMI and ARI."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return (
        float(normalized_mutual_info_score(classes, clusters)),
        float(adjusted_rand_score(classes, clusters)),
    )


def measure_ways(labelled: Labelled, work: Path) -> Part:
    """Cluster a set in one go: in the ways that came before, and in imgsortd's."""
    k = len(labelled.names)
    part = Part(f"{labelled.name}: {len(labelled.classes)} pictures, k = {k}")
    if labelled.maps.shape[1]:
        flat = labelled.maps.astype(np.float32)
        pooled = flat.reshape(len(flat), labelled.features.shape[1], -1).mean(axis=2)
        part.figures += way("last maps, KMeans", labelled, _kmeans(flat, k))
        part.figures += way("their means, KMeans", labelled, _kmeans(pooled, k))
        part.notes.append("last maps: the article's way as far as weights without classifier allow")
    part.figures += way("of length 1, KMeans", labelled, _kmeans(labelled.features, k))
    for name, wanted in (("k given", k), ("k auto", "auto")):
        shelf = sorted_shelf(labelled, work / name.replace(" ", "-"), wanted)
        clusters = shelf.clusters_of(labelled.features)
        shelf.close()
        target = _TARGETS[name] if labelled.name == "caltech22" else None
        part.figures += way(f"imgsortd, {name}", labelled, clusters, target)
        part.notes += [f"k auto took {len(set(clusters.tolist()))}"] if name == "k auto" else []
    return part


def way(
    name: str, labelled: Labelled, clusters: Labels, target: Target | None = None
) -> list[Figure]:
    """Return the four figures of one way."""
    nmi, ari = scores(labelled.classes, clusters)
    texts = [str(label) for label in labelled.classes], [str(number) for number in clusters]
    return [
        Figure(f"{name}: NMI", nmi, Unit.INDEX, target=target),
        Figure("  ARI", ari, Unit.INDEX),
        Figure("  purity", purity(*texts), Unit.SHARE),
        Figure("  largest cluster", largest_share(texts[1]), Unit.SHARE),
    ]


def _kmeans(features: Vectors, k: int) -> Labels:
    from sklearn.cluster import KMeans

    labels: npt.NDArray[np.intp] = KMeans(k, random_state=42).fit(features).labels_
    return labels


def sorted_shelf(labelled: Labelled, folder: Path, wanted: int | str) -> Shelf:
    """Return a library into which the set was dropped at once."""
    n = len(labelled.classes)
    clusters = {"n_clusters": wanted, "min_images": n, "max_share": "off"}
    shelf = Shelf(folder, labelled.extractor, labelled.features, clusters=clusters)
    shelf.drop(range(n))
    shelf.work(QUIET_S)
    return shelf


@dataclass(frozen=True, slots=True)
class Growth:
    """What came of a library that grew: after all, and at each refit."""

    nmi: float
    churns: tuple[float, ...]
    changed: float


def grow(labelled: Labelled, folder: Path, seed: int) -> Growth:
    """Drop 30 % of the pictures, then in random order a quarter more each time."""
    order = np.random.default_rng(seed).permutation(len(labelled.classes))
    n, k = len(order), len(labelled.names)
    until, here = max(k, round(_FIRST_SHARE * n)), 0
    clusters = {"n_clusters": k, "min_images": until, "max_share": "off"}
    shelf = Shelf(folder, labelled.extractor, labelled.features, clusters=clusters)
    while here < n:
        shelf.drop(order[here:until].tolist())
        shelf.work(QUIET_S)
        here, until = until, min(n, math.ceil(until * (1 + _GROWTH)))
    churns = tuple(
        fit.churn for fit in shelf.fits if fit.churn is not None and fit.trigger not in PARTIAL
    )
    nmi, _ = scores(labelled.classes, shelf.folders(n))
    changed = float(np.mean(shelf.moves(n) > 0))
    shelf.close()
    return Growth(nmi, churns, changed)


def measure_growth(labelled: Labelled, work: Path, rounds: int, one_go: float) -> Part:
    """Measure a library that grows, several times."""
    grown = [grow(labelled, work / f"grow-{seed}", seed) for seed in range(rounds)]
    lost = [one_go - one.nmi for one in grown]
    medians = [median(one.churns) for one in grown]
    greatest = [max(one.churns) for one in grown]
    nmi, changed = [one.nmi for one in grown], [one.changed for one in grown]
    return Part(
        f"{labelled.name}: 30 % first, then in random order a quarter more each time",
        [
            _spread("NMI at the end", nmi, Unit.INDEX),
            _spread("  below the fit in one go", lost, Unit.INDEX, _TARGETS["lost"]),
            _spread("churn of a refit, median", medians, Unit.SHARE, _TARGETS["churn"]),
            _spread("  the greatest", greatest, Unit.SHARE),
            _spread("folder ever changed", changed, Unit.SHARE),
        ],
        [f"{len(grown[0].churns)} refits, at most; files follow new clusters; {rounds} orders"],
    )


def _spread(name: str, values: Sequence[float], unit: Unit, target: Target | None = None) -> Figure:
    return figure_of(name, values, unit, target)


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
        drawn = [
            _pinned(labelled, work / f"pins-{pins}-{seed}", pins, seed) for seed in range(rounds)
        ]
        titles = ("without", "at once", "after a refit")
        for at, title in enumerate(titles):
            ari, nmi = ([one[at][index] for one in drawn] for index in (1, 0))
            part.figures.append(_spread(f"{pins} a class, {title}: ARI", ari, Unit.INDEX))
            part.figures.append(_spread("  NMI", nmi, Unit.INDEX))
    part.notes.append(
        f"{rounds} draws; a class that is the commonest of no cluster is pinned into a new folder"
    )
    return part


def _pinned(
    labelled: Labelled, folder: Path, pins: int, seed: int
) -> tuple[tuple[float, float], ...]:
    """Return NMI and ARI of the rest: without pins, at once, after a refit."""
    rng = np.random.default_rng(seed)
    k = len(labelled.names)
    shelf = sorted_shelf(labelled, folder, k)
    before = shelf.clusters_of(labelled.features)
    own = clusters_of_classes(labelled.classes, before, shelf)
    rest = np.ones(len(before), dtype=bool)
    for label in range(k):
        members = rng.permutation(np.flatnonzero(labelled.classes == label))[:pins]
        rest[members] = False
        for number in members.tolist():
            shelf.pin(number, own[label])
    at_once = shelf.clusters_of(labelled.features)
    shelf.fit(k)
    after = shelf.clusters_of(labelled.features)
    shelf.close()
    return tuple(scores(labelled.classes[rest], found[rest]) for found in (before, at_once, after))


def measure(labelled: Labelled, work: Path, rounds: int, say: Callable[[str], None]) -> list[Part]:
    """Measure a labelled set in all ways."""
    say(f"{labelled.name}: in one go")
    ways = measure_ways(labelled, work)
    one_go = next(figure.value for figure in ways.figures if "k given" in figure.name)
    say(f"{labelled.name}: growing")
    growth = measure_growth(labelled, work, rounds, one_go)
    say(f"{labelled.name}: pins")
    pins = measure_pins(labelled, work, rounds)
    return [ways, growth, pins, measure_orders(labelled, work, say)]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    from benchmarks.options import folder
    from benchmarks.subject import BACKBONES

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Compare clusters with the labels that the folders' names are.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folders", nargs="+", type=folder, metavar="DIR", help="a folder of class folders")
    add("--classes", metavar="LIST", help="only these, with commas; close = " + ",".join(CLOSE))
    add("--backbone", choices=BACKBONES, default=BACKBONES[0])
    add("--rounds", type=int, default=3, help="random orders and draws of pins (3)")
    add("--cache", type=Path, metavar="DIR", help="keep features there for the next time")
    add("--json", type=Path, metavar="FILE", help="default: quality-DATE.json")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, say: Callable[[str], None]) -> list[Part]:
    """Measure each folder."""
    parts: list[Part] = []
    for path in options.folders:
        labelled = read_labelled(path, options.backbone, options.cache, say)
        if options.classes:
            names = CLOSE if options.classes == "close" else options.classes.split(",")
            labelled = labelled.only(names)
        if len(labelled.names) < 2:
            raise SystemExit(f"{path}: expected two classes or more, got {len(labelled.names)}")
        with tempfile.TemporaryDirectory(prefix="quality-") as work:
            parts += measure(labelled, Path(work), options.rounds, say)
    return parts
