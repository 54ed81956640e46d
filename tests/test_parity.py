"""``imgsortd sort`` and the article's script make the same clusters of the same pictures.

Both work with a seeded random full VGG16, saved as .pth: parity does not depend on the
values, and the official file is 528 MB from a server that a test must not need.

The files are listed by name: os.listdir gives any order, and KMeans, which picks its
first centers among the rows by a seeded draw, depends on their order. imgsortd takes
files in by name, too. The pictures have neither EXIF orientation nor transparency, and
are no large JPEGs: there imgsortd looks at the upright picture on white, and the
article does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from benchmarks import article
from benchmarks.pictures import picture_paths
from PIL import Image, ImageDraw

from support import run_cli, tree

N_CLUSTERS = 4
IMAGES = 12
# Of a few seeds, one where no picture lies nearly as close to a second center: then no
# rounding, which is another on each CPU, decides where it goes.
FIRST_SEED = 800
SHAPES = ((64, 64), (320, 200), (200, 320), (257, 255), (500, 375), (300, 900), (640, 48))


def draw(path: Path, number: int) -> None:
    """Write a picture of a kind of its own: patches, stripes, discs, noise or a gradient.

    The logits of a random network are nearly equal for pictures that are much alike.
    """
    rng = np.random.default_rng(FIRST_SEED + number)
    width, height = SHAPES[number % len(SHAPES)]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    colours = rng.integers(0, 256, (2, 3)).astype(np.float32)
    kind = number % 5
    if kind == 0:
        blend = (x + y) / (width + height)
    elif kind == 1:
        blend = np.sin(x / rng.uniform(1, 12)) * np.sin(y / rng.uniform(1, 12)) > 0
    elif kind == 2:
        blend = rng.random((height, width))
    elif kind == 3:
        blend = np.sin(x / rng.uniform(2, 30)) > 0
    else:
        blend = np.hypot(x - width / 2, y - height / 2) < min(width, height) / 3
    mix = np.asarray(blend, dtype=np.float32)[..., None]
    image = Image.fromarray((mix * colours[0] + (1 - mix) * colours[1]).astype(np.uint8))
    ImageDraw.Draw(image).line((0, 0, width, height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    image = image.convert("L") if number % 8 == 7 else image
    image.save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder of varied JPEG and PNG files, and of a file that neither takes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(IMAGES):
        # Not in the order of their making, nor of their kinds.
        name = f"{number * 7 % IMAGES:02}-{number}"
        draw(folder / f"{name}{('.jpg', '.png', '.JPEG')[number % 3]}", number)
    (folder / "notes.txt").write_text("not a picture\n")
    return folder


@pytest.fixture
def full_weights(tmp_path: Path) -> Iterator[Path]:
    """Return a seeded random full VGG16 as .pth; 528 MB, so it is removed at once."""
    path = tmp_path / "random-vgg16.pth"
    article.save_random_weights(path)
    yield path
    path.unlink()


# Its halves are with every `make test`: the logits in test_imagenet, KMeans in test_kmeans.
@pytest.mark.faults
@pytest.mark.timeout(600)  # 528 MB are written and twice read: slow beside other work
def test_sort_with_the_logits_makes_the_partition_and_the_numbers_of_the_article(
    tmp_path: Path, pictures: Path, full_weights: Path
) -> None:
    paths, features = article.extract_all(article.load_model(full_weights), picture_paths(pictures))
    article.copy_to_clusters(
        paths, article.fit(features, N_CLUSTERS), tmp_path / "article", N_CLUSTERS
    )

    done = run_cli(
        *("sort", pictures, tmp_path / "ours", "-k", str(N_CLUSTERS), "--layer", "logits"),
        *("--weights", full_weights, "--precision", "fp32", "--random-state", "42"),
    )

    assert done.returncode == 0, done.stderr
    theirs = tree(tmp_path / "article")
    ours = {name: files for name, files in tree(tmp_path / "ours").items() if name[0] != "."}
    assert len(paths) == IMAGES
    assert len(theirs) == N_CLUSTERS
    assert all(theirs.values()), "a cluster is empty: the pictures are too much alike"
    assert partition(ours) == partition(theirs)
    assert ours == theirs  # the folders' numbers too: they are KMeans' labels


def partition(folders: dict[str, list[str]]) -> set[frozenset[str]]:
    """Return which files lie together, whatever their folder is called."""
    return {frozenset(files) for files in folders.values()}
