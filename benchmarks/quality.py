"""How well the clusters fit labels that a person gave. imgsortd itself never sees them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.figures import Figure, Part, Unit
from benchmarks.pictures import picture_paths
from benchmarks.processes import run_module
from benchmarks.subject import Subject
from benchmarks.targets import LARGEST_TARGET, NMI_TARGET
from benchmarks.throughput import sort

# The promise was given for this set, sorted by VGG16.
_PROMISED_FOR = ("caltech22", "vgg16")


def purity(labels: Sequence[str], clusters: Sequence[str]) -> float:
    """Return the share of pictures that are of the commonest label of their cluster."""
    pairs = Counter(zip(clusters, labels, strict=True))
    best: Counter[str] = Counter()
    for (cluster, _), count in pairs.items():
        best[cluster] = max(best[cluster], count)
    return sum(best.values()) / len(labels)


def largest_share(clusters: Sequence[str]) -> float:
    """Return the share of pictures that are in the largest cluster."""
    return max(Counter(clusters).values()) / len(clusters)


def quality_figures(
    labels: Sequence[str], clusters: Sequence[str], *, promised: bool
) -> list[Figure]:
    """Compare a partition with the labels."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    nmi = float(normalized_mutual_info_score(labels, clusters))
    ari = float(adjusted_rand_score(labels, clusters))
    share = largest_share(clusters)
    return [
        Figure("NMI", nmi, Unit.INDEX, target=NMI_TARGET if promised else None),
        Figure("ARI", ari, Unit.INDEX),
        Figure("purity", purity(labels, clusters), Unit.SHARE),
        Figure(
            "largest cluster",
            share,
            Unit.SHARE,
            target=LARGEST_TARGET if promised else None,
        ),
    ]


def measure(
    labelled: Path,
    subjects: Sequence[Subject],
    article_weights: Path | None,
    work: Path,
    say: Callable[[str], None],
) -> list[Part]:
    """Sort a folder of class folders with k = the number of classes, by each subject.

    Parameters
    ----------
    article_weights
        The official full weights; None where they are not at hand, and then the
        article's own quality cannot be measured: with random weights it means nothing.
    """
    classes = sorted(path for path in labelled.iterdir() if path.is_dir())
    flat = _flatten(classes, work / "labelled")
    images = len(os.listdir(flat))
    parts = []
    for subject in subjects:
        say(f"quality, {subject.name}: {images} pictures of {len(classes)} classes")
        target = work / f"quality-{subject.file_name}"
        done = sort(flat, target, len(classes), subject)
        promised = (labelled.name, subject.backbone) == _PROMISED_FOR
        part = _part(subject.name, target, images, promised=promised)
        part.notes = [f"{done.values['images_per_s']:.1f} images/s", *part.notes]
        part.raw = done.values
        parts.append(part)
    if not parts:
        return []
    if article_weights is not None:
        target = work / "quality-article"
        arguments = ("-k", str(len(classes)), "--weights", article_weights)
        run_module("benchmarks.article", flat, target, *arguments)
        parts.append(_part("the article's script", target, images, promised=False))
    else:
        parts[-1].notes.append(
            "the article's own quality is not measured: it needs the real full weights, "
            "--article-weights vgg16-397923af.pth"
        )
    parts[0].notes.insert(0, f"{labelled}: {images} pictures, k = {len(classes)} classes")
    return parts


def _flatten(classes: Sequence[Path], flat: Path) -> Path:
    """Copy the pictures into one folder; their names carry the class, which nothing reads."""
    flat.mkdir(parents=True)
    for folder in classes:
        for path in picture_paths(folder):
            shutil.copyfile(path, flat / f"{folder.name}@{path.name}")
    return flat


def _part(name: str, target: Path, images: int, *, promised: bool) -> Part:
    placed = sorted(target.glob("cluster_*/*"))
    labels = [path.name.split("@")[0] for path in placed]
    clusters = [path.parent.name for path in placed]
    part = Part(f"quality, {name}", quality_figures(labels, clusters, promised=promised))
    if len(placed) != images:
        part.notes.append(f"only {len(placed)} of {images} pictures were placed")
    return part


def main() -> None:
    """Compare clusters with labels, print a table for each folder and write JSON."""
    from datetime import datetime

    from rich.console import Console

    from benchmarks import cluster_quality
    from benchmarks.machine import describe_machine
    from benchmarks.report import WIDTH, render, write_json

    options = cluster_quality.parse()
    notes = Console(stderr=True, highlight=False, soft_wrap=True, style="dim")
    parts = cluster_quality.run(options, lambda line: notes.print(line, markup=False))
    machine = describe_machine()
    console = Console(highlight=False, width=WIDTH)
    console.print(render(parts, machine))
    path = options.json or Path(f"quality-{datetime.now():%Y%m%d-%H%M%S}.json")
    write_json(path, parts, machine, {name: str(value) for name, value in vars(options).items()})
    console.print(f"written  {path}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
