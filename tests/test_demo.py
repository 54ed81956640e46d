"""The demo's parts, without the demo: its sample, its sums, its folder."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from imgsortd.config.model import ClustersConfig
from imgsortd.errors import ImgsortdError
from inboxes import Inbox
from support import GREEN, paint

DEMO = Path(__file__).parents[1] / "demo"


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a module of the demo, as demo/run.py does."""
    monkeypatch.syspath_prepend(DEMO)

    def load(name: str) -> ModuleType:
        import importlib

        return importlib.import_module(name)

    return load


def test_the_sample_is_crops_of_photographs_inside_the_installed_scikit_image(demo: Any) -> None:
    skimage = pytest.importorskip("skimage", reason="scikit-image is not installed")
    scenes = demo("scenes").find_scenes()

    assert len(scenes) == 12
    for path in scenes.values():
        assert path.is_relative_to(Path(skimage.__file__).parent)
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
        # Drawings, phantoms and chessboards have few grey levels; photographs have many.
        assert len(np.unique(pixels)) > 100


def test_the_sample_is_the_same_in_every_run_and_no_two_crops_are_equal(demo: Any) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    scenes = demo("scenes")
    found = scenes.find_scenes()
    first, second = (list(scenes.crops(found, each=3)) for _ in range(2))

    assert first == second
    assert len({data for _, data in first}) == 3 * len(found)
    assert {scenes.scene_of(name) for name, _ in first} == set(found)
    sizes = [Image.open(io.BytesIO(data)).size for _, data in first]
    assert max(max(size) for size in sizes) <= 500


def test_the_crops_come_scene_after_scene_and_are_enough_for_a_first_fit(demo: Any) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    scenes = demo("scenes")
    found = scenes.find_scenes()
    names = [name for name, _ in scenes.crops(found, each=2)]

    in_turn = [scene for scene, _ in itertools.groupby(names, scenes.scene_of)]
    assert in_turn == sorted(found)
    assert len(found) * scenes.CROPS_A_SCENE >= ClustersConfig().min_images


def test_nothing_is_set_but_the_folders_and_the_clusters_unless_pictures_are_few(
    demo: Any, tmp_path: Path
) -> None:
    workspace = demo("workspace").claim(tmp_path / "demo-run")
    enough = ClustersConfig().min_images
    workspace.write_config(enough)
    many = yaml.safe_load(workspace.config_file.read_text())
    workspace.write_config(enough - 1)
    few = yaml.safe_load(workspace.config_file.read_text())
    workspace.release()

    assert {"inbox", "target", "state_dir", "clusters"} == many.keys() == few.keys()
    assert many["clusters"] == {"n_clusters": "auto"}
    assert few["clusters"] == {"n_clusters": "auto", "min_images": enough - 1}


def watch(demo: Any, one: Inbox, expected: int) -> Any:
    """Return the demo's monitor of a daemon."""
    workspace = demo("workspace").Workspace(one.folder, -1)
    return demo("progress").Monitor(workspace, one.config, one.daemon.process, expected)


def test_the_wait_for_the_first_fit_is_told_in_the_words_of_the_status(
    demo: Any, make: Callable[..., Inbox], capsys: pytest.CaptureFixture[str]
) -> None:
    one = make(clusters={"quiet_s": 1})
    one.daemon.start()
    one.daemon.wait_ready()
    monitor = watch(demo, one, expected=6)
    with monitor.bars():
        monitor.update()
        one.drop(each=2)
        took = monitor.wait()

    said = capsys.readouterr().out
    waited = said.index("all 6 pictures are looked at; sorted when none has come for 1 s")
    assert said.index("first fit at 6 pictures, 0 so far") < waited
    assert waited < said.index("first fit: 6 pictures in 3 clusters")
    assert "in their folder after" in took
    assert one.status().counts["sorted"] == 6


def test_files_that_cannot_be_read_are_not_waited_for_before_the_first_fit_nor_at_the_end(
    demo: Any, make: Callable[..., Inbox]
) -> None:
    one = make(clusters={"min_images": 8})
    one.drop(each=2)
    (one.inbox / "broken.jpg").write_bytes(b"\xff\xd8 this card was not read to its end")
    whole = paint(one.folder / "whole.png", GREEN, seed=7).read_bytes()
    (one.inbox / "cut-short.png").write_bytes(whole[:-40])
    one.daemon.start()
    one.daemon.wait_ready()
    monitor = watch(demo, one, expected=8)
    with monitor.bars():
        monitor.wait()

    counts = one.status().counts
    assert (counts["sorted"], counts["set_aside"], counts["pending"]) == (6, 1, 1)
    assert monitor.stuck == 1


def test_purity_is_the_share_of_the_commonest_class_of_each_cluster(demo: Any) -> None:
    purity = demo("agreement").purity

    assert purity("aabbb", "00011") == pytest.approx(4 / 5)
    assert purity("ab", "01") == 1.0
    assert purity("", "") == 0.0


def test_nmi_does_not_depend_on_the_names_of_the_clusters(demo: Any) -> None:
    assert demo("agreement").nmi([*"aabb"], [*"7733"]) == pytest.approx(1.0)
    assert demo("agreement").nmi([*"abab"], [*"0011"]) == pytest.approx(0.0)


def test_only_a_folder_with_the_demos_marker_is_emptied(demo: Any, tmp_path: Path) -> None:
    workspace = demo("workspace")
    precious = tmp_path / "demo-run" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")

    with pytest.raises(ImgsortdError, match="was not made by the demo"):
        workspace.claim(tmp_path / "demo-run")
    assert precious.read_text() == "mine"


def test_a_second_run_empties_what_the_first_left_and_a_second_at_once_is_refused(
    demo: Any, tmp_path: Path
) -> None:
    workspace = demo("workspace")
    first = workspace.claim(tmp_path / "demo-run")
    (first.target / "cluster_0").mkdir()
    with pytest.raises(ImgsortdError, match="another `make demo` is at work"):
        workspace.claim(tmp_path / "demo-run")
    first.release()
    second = workspace.claim(tmp_path / "demo-run")

    assert list(second.target.iterdir()) == []
    second.remove()
    second.release()
    assert not (tmp_path / "demo-run").exists()


def test_own_pictures_are_copied_under_names_of_their_own_and_stay(
    demo: Any, tmp_path: Path
) -> None:
    photos = demo("photos")
    for folder in ("a", "b"):
        paint(tmp_path / "pictures" / folder / "IMG_1.png", GREEN, seed=ord(folder))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    found = photos.find_photos(tmp_path / "pictures", tmp_path / "demo-run")
    names = list(photos.inbox_names(found))
    for path, name in zip(found, names, strict=True):
        photos.copy_in(path, inbox / name)

    assert names == ["IMG_1.png", "IMG_1-1.png"]
    assert [(inbox / name).read_bytes() for name in names] == [p.read_bytes() for p in found]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("missing", "PHOTOS must be an existing folder"),
        ("empty", "expected at least two pictures"),
        ("demo-run/sorted", "PHOTOS must not lie in"),
    ],
)
def test_a_folder_that_cannot_be_the_demos_photos_is_refused_in_words(
    demo: Any, tmp_path: Path, folder: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "demo-run" / "sorted").mkdir(parents=True)

    with pytest.raises(ImgsortdError, match=message):
        demo("photos").find_photos(tmp_path / folder, tmp_path / "demo-run")
