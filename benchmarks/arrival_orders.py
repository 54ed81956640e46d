"""Does it matter in which order pictures come? The same set, dropped in many ways.

Each order is sorted by imgsortd's own line on a clock that is made up (:mod:`benchmarks.shelf`),
with the default configuration, and compared with one fit over all the pictures at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, Goal, Part, Target, Unit
from benchmarks.labelled import Labelled
from benchmarks.shelf import Labels, Shelf

QUIET_S = 100.0  # longer than clusters.quiet_s, shorter than a day
_MINUTE_S = 60.0
_TURN = 50
_NAMED, _PINS = 3, 10

Drops = list[tuple[Sequence[int], float]]
"""Pictures that are dropped together, and the seconds that pass before the next are."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one order.

    Attributes
    ----------
    nmi
        Of folders and classes; ``_review`` is a folder.
    review
        Share (0 to 1) of the pictures in ``_review``.
    moved_again
        Share (0 to 1) of the pictures that were moved more than once after they were sorted.
    kept
        What a person had named or pinned after the first third, and where it is now.
    """

    nmi: float
    review: float
    moved_again: float
    kept: Kept | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Names and pins: how many were set, and how many are as they were."""

    names: int
    names_kept: int
    pins: int
    pins_kept: int

    @property
    def share(self) -> float:
        """Return the share (0 to 1) that is as it was."""
        return (self.names_kept + self.pins_kept) / (self.names + self.pins)


@dataclass(frozen=True, slots=True)
class Arrival:
    """An order, how far it may end below one fit over all, and whether all came at once.

    Attributes
    ----------
    by_hand
        Whether a person names and pins after the first third.
    is_asked
        Whether a person accepts the proposal that waits at the end: kinds that come when a
        library is grown are proposed.
    """

    name: str
    drops: Callable[[Labels], Drops]
    may_lose: float
    is_at_once: bool = False
    by_hand: bool = False
    is_asked: bool = False


def _at_once(order: Labels) -> Drops:
    return [(order.tolist(), QUIET_S)]


def _by_class(classes: Labels) -> Labels:
    return np.argsort(classes, kind="stable")


def _at_random(classes: Labels) -> Labels:
    return np.random.default_rng(0).permutation(len(classes))


def _bursts(order: Labels) -> Drops:
    return [(part.tolist(), QUIET_S) for part in np.array_split(order, 3)]


def _trickle(order: Labels) -> Drops:
    return [([number], _MINUTE_S) for number in order.tolist()]


def _alternating(classes: Labels) -> Drops:
    """Two sources, half of the classes each, in turns of fifty."""
    order = _by_class(classes)
    sources = np.array_split(order, 2)
    drops: Drops = []
    for start in range(0, len(sources[0]), _TURN):
        drops += [(source[start : start + _TURN].tolist(), 5.0) for source in sources]
    return [*drops[:-1], (drops[-1][0], QUIET_S)]


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
    """Let a set arrive in an order, and say what came of it.

    Parameters
    ----------
    wanted
        ``clusters.n_clusters``.
    """
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
    if arrival.is_asked and shelf.store.proposals.waiting() is not None:
        shelf.accept()
    stands, moves = shelf.folders(n), shelf.moves(n)
    kept = None
    if arrival.by_hand:
        now = shelf.names
        kept = Kept(
            len(names),
            sum(now.get(number) == name for number, name in names.items()),
            len(pins),
            sum(bool(stands[number] == cluster_id) for number, cluster_id in pins.items()),
        )
    shelf.close()
    review = float(np.mean(stands == -1))
    return Outcome(_nmi(labelled.classes, stands), review, float(np.mean(moves > 1)), kept)


def _nmi(classes: Labels, clusters: Labels) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes, clusters))


def _by_hand(shelf: Shelf, labelled: Labelled) -> tuple[dict[int, bytes], dict[int, int]]:
    """Name the largest clusters by what most of them are, and pin pictures of that into them."""
    stands = shelf.folders(len(labelled.classes))
    numbers, sizes = np.unique(stands[stands >= 0], return_counts=True)
    largest = numbers[np.argsort(-sizes, kind="stable")][:_NAMED].tolist()
    rng = np.random.default_rng(1)
    pins: dict[int, int] = {}
    for cluster_id in largest:
        label = np.bincount(labelled.classes[stands == cluster_id]).argmax()
        shelf.name(cluster_id, f"{labelled.names[label]} {cluster_id}")
        own = rng.permutation(np.flatnonzero((stands != -2) & (labelled.classes == label)))
        for number in own[: -(-_PINS // len(largest))].tolist():
            if number not in pins and len(pins) < _PINS:
                shelf.pin(number, cluster_id)
                pins[number] = cluster_id
    return shelf.names, pins


def measure_orders(labelled: Labelled, work: Path, say: Callable[[str], None]) -> Part:
    """Measure every order, for k given and for auto."""
    part = Part(f"{labelled.name}: orders of arrival, below one fit over all pictures")
    for title, wanted in (("k given", len(labelled.names)), ("k auto", "auto")):
        base = None
        for number, arrival in enumerate(ARRIVALS):
            say(f"{labelled.name}, {title}: {arrival.name}")
            folder = work / f"order-{title.replace(' ', '-')}-{number}"
            outcome = arrive(labelled, arrival, wanted, folder)
            base = outcome.nmi if base is None else base
            part.figures += _figures(f"{title}, {arrival.name}", arrival, outcome, base)
        part.notes.append(f"{title}: NMI {base:.3f} in one go, which is the order `random`")
    return part


def _figures(name: str, arrival: Arrival, outcome: Outcome, base: float) -> list[Figure]:
    at_most = Goal.AT_MOST
    lost = Target(at_most, arrival.may_lose)
    figures = [
        Figure(f"{name}: NMI lost", base - outcome.nmi, Unit.INDEX, target=lost),
        Figure("  in review", outcome.review, Unit.SHARE, target=Target(at_most, 0.03)),
    ]
    again = Target(at_most, 0.1) if arrival.is_at_once else None
    figures.append(Figure("  moved more than once", outcome.moved_again, Unit.SHARE, target=again))
    if outcome.kept is not None:
        all_kept = Target(Goal.AT_LEAST, 1.0)
        figures.append(
            Figure("  names and pins kept", outcome.kept.share, Unit.SHARE, target=all_kept)
        )
    return figures
