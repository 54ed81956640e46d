"""``imgsortd names``: the list, and suggestions that change nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imgsortd.records import Pixels, Vectors
from imgsortd.reports.cluster_names import (
    NamedCluster,
    Suggestion,
    commands,
    read_names,
    suggest_names,
)
from line import Line
from support import make_config, paint_groups, run_cli

COLOURS = ("red", "green", "blue")


class ColourClassifier:
    """Its classes are the three colours; it counts the pictures that it was given at a time."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def extract(self, pixels: Sequence[Pixels]) -> Vectors:
        self.seen.append(len(pixels))
        means = np.stack([picture.mean(axis=(0, 1)) for picture in pixels])
        return (means / 20).astype(np.float32)


def colour_library(folder: Path, each: int = 11) -> Line:
    line = Line(folder)
    paint_groups(line.config.inbox, each=each)
    line.run()
    line.close()
    return line


def colour_in(line: Line, cluster: NamedCluster) -> str:
    return next((line.config.target / cluster.folder).iterdir()).name.partition("-")[0]


def test_the_clusters_are_listed_by_size_with_their_folders(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, each=3)
    paint_groups(line.config.inbox, each=3, suffix=".bmp")
    for extra in ("blue-0.png", "blue-1.png"):
        (line.config.inbox / extra).unlink()
    line.run()
    with line.store.atomic():
        line.store.connection.execute(
            "UPDATE clusters SET name = 'Sky', folder = ? WHERE id = 2", (b"Sky\xff",)
        )
    line.close()

    clusters = read_names(line.config)

    assert sorted((c.files for c in clusters), reverse=True) == [c.files for c in clusters]
    assert [c.files for c in clusters] == [6, 6, 4]
    named = next(cluster for cluster in clusters if cluster.id == 2)
    assert (named.name, named.folder, named.is_named) == ("Sky", "Sky\udcff", True)


def test_suggestions_come_from_the_nine_pictures_nearest_to_the_middle(tmp_path: Path) -> None:
    line, classifier = colour_library(tmp_path), ColourClassifier()

    clusters = suggest_names(line.config, read_names(line.config), classifier, COLOURS)

    assert classifier.seen == [9, 9, 9]
    for cluster in clusters:
        assert cluster.suggestions[0].name == colour_in(line, cluster)
        assert cluster.suggestions[0].share > 0.9
        assert len(cluster.suggestions) == 3
        assert cluster.looked_at == 9


def test_a_cluster_whose_pictures_are_gone_gets_no_suggestion(tmp_path: Path) -> None:
    line = colour_library(tmp_path, each=3)
    clusters = read_names(line.config)
    for file in (line.config.target / clusters[0].folder).iterdir():
        file.unlink()
    next((line.config.target / clusters[1].folder).iterdir()).write_text("not any more")

    found = suggest_names(line.config, clusters, ColourClassifier(), COLOURS)

    assert [cluster.looked_at for cluster in found] == [0, 2, 3]
    assert found[0].suggestions == ()


def test_no_two_clusters_are_offered_one_name_and_named_ones_none() -> None:
    def cluster(number: int, *likely: str, name: str = "", folder: str = "") -> NamedCluster:
        suggestions = tuple(Suggestion(text, 0.3) for text in likely)
        folder = folder or f"cluster_{number}"
        return NamedCluster(number, name, folder, 9, 9, suggestions)

    chosen = commands(
        [
            cluster(0, "bee", "fly", "ant"),
            cluster(1, "Bee", "ant", "fly"),
            cluster(2, "bee", name="Insects", folder="Insects"),
            cluster(3, "bee", "ant"),
            cluster(4, "fly", folder="by hand"),
            cluster(5, "insects", "fly"),
        ]
    )

    vague = NamedCluster(6, "", "cluster_6", 9, 9, (Suggestion("tench", 0.05),))
    assert commands([vague]) == []
    assert chosen == [(0, "bee"), (1, "ant"), (5, "fly")]


def test_the_command_lists_and_as_json_too(tmp_path: Path) -> None:
    colour_library(tmp_path, each=2)
    config = tmp_path / "config.yaml"

    text, as_json = run_cli("names", "-c", config), run_cli("names", "-c", config, "--json")

    assert text.returncode == as_json.returncode == 0, text.stderr + as_json.stderr
    assert "cluster_2" in text.stdout
    assert json.loads(as_json.stdout)[0] == {
        "id": 0,
        "name": "",
        "folder": "cluster_0",
        "files": 2,
        "looked_at": 0,
        "suggestions": [],
    }


def test_suggest_without_the_full_weights_fails_with_what_to_do(tmp_path: Path) -> None:
    colour_library(tmp_path, each=2)
    elsewhere = {"IMGSORTD_CACHE_DIR": str(tmp_path), "TORCH_HOME": str(tmp_path)}

    done = run_cli("names", "-c", tmp_path / "config.yaml", "--suggest", environ=elsewhere)

    assert done.returncode == 78
    assert "needs VGG16's full weights" in done.stderr
    assert done.stdout == ""


def test_a_library_without_clusters_says_so(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.close()

    done = run_cli("names", "-c", tmp_path / "config.yaml", "--suggest")

    assert done.returncode == 0, done.stderr
    assert "no clusters yet" in done.stdout


def test_where_no_daemon_has_run_the_list_is_an_error(tmp_path: Path) -> None:
    make_config(tmp_path)

    done = run_cli("names", "-c", tmp_path / "config.yaml")

    assert done.returncode == 1
    assert "no such database" in done.stderr
