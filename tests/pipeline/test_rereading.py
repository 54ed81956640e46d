"""A change of backbone: features anew in the background, the same numbers on the clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgsortd.daemon.loop import Loop
from imgsortd.errors import MixedFeaturesError
from imgsortd.inbox.watching import Watcher
from imgsortd.library import open_library
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import Backbone, FitTrigger, Phase
from line import Line
from support import (
    BLUE,
    ColourExtractor,
    TurnedColours,
    each_file_below,
    intake_of,
    make_config,
    paint,
    paint_groups,
    sums,
    tree,
    wait_until,
)

LITE = Backbone.EFFICIENTNET_LITE0


@pytest.fixture
def sorted_line(tmp_path: Path, hurried: None) -> Iterator[Line]:
    """Return a library of twelve pictures in three clusters, sorted by the first backbone."""
    line = Line(tmp_path)
    paint_groups(line.config.inbox, each=4)
    line.run()
    yield line
    line.close()


@pytest.fixture
def make_loop(sorted_line: Line) -> Iterator[Callable[..., Loop]]:
    made: list[Loop] = []

    def make(extractor: ColourExtractor) -> Loop:
        config = sorted_line.config
        roots = sorted_line.library.roots
        library = open_library(config, sorted_line.store, extractor, roots, may_reextract=True)
        loop = Loop(
            library,
            intake_of(library),
            Watcher(config.inbox, config.recursive),
            PictureReader(config.inbox, threads=1),
            lambda: False,
            lambda _phase, _note: None,
        )
        loop.prepare()
        made.append(loop)
        return loop

    yield make
    for loop in made:
        loop.close()


def work(loop: Loop, until: Callable[[], object]) -> None:
    """Let the loop work, round by round, until something is true."""

    def a_round() -> bool:
        loop._round()
        return bool(until())

    wait_until(a_round, what="the loop's work")


def test_clusters_and_files_stay_where_they_are(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    before = tree(sorted_line.config.target)
    former = sorted_line.store.fits.current()
    loop = make_loop(TurnedColours())

    work(loop, lambda: loop._library.in_force.model)

    model = loop._library.in_force.model
    assert model is not None
    assert former is not None
    assert model.extractor.backbone is LITE
    assert sorted(model.cluster_ids) == sorted(former.cluster_ids)
    assert tree(sorted_line.config.target) == before
    record = sorted_line.store.records.current_record()
    assert record is not None
    assert (record.trigger, record.churn) == (FitTrigger.BACKBONE, 0.0)


def test_a_new_picture_waits_and_then_goes_to_the_cluster_of_its_kind(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    folders = tree(sorted_line.config.target)
    blue = next(folder for folder, names in folders.items() if "blue-0.png" in names)
    paint(sorted_line.config.inbox / "late.png", BLUE, 99)
    loop = make_loop(TurnedColours())

    work(loop, lambda: not (sorted_line.config.inbox / "late.png").exists())

    assert "late.png" in tree(sorted_line.config.target)[blue]


def test_what_is_stored_is_not_extracted_again_after_a_restart(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    first, second = TurnedColours(), TurnedColours()
    first.batch_images = second.batch_images = 4
    loop = make_loop(first)
    work(loop, lambda: loop._rereading.done >= 4)
    loop.close()

    again = make_loop(second)
    work(again, lambda: again._library.in_force.model)

    assert first.extracted >= 4
    assert first.extracted + second.extracted == 12


def test_pictures_that_are_gone_or_changed_do_not_hold_it_up(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    files = sorted(each_file_below(sorted_line.config.target))
    files[0].unlink()
    files[1].write_bytes(b"something else")
    loop = make_loop(TurnedColours())

    work(loop, lambda: loop._library.in_force.model)

    assert sorted_line.store.records.current_record().n_images == 10  # type: ignore[union-attr]
    assert files[1].read_bytes() == b"something else"


def test_going_back_needs_no_extraction(sorted_line: Line, make_loop: Callable[..., Loop]) -> None:
    loop = make_loop(TurnedColours())
    work(loop, lambda: loop._library.in_force.model)
    loop.close()
    before = ColourExtractor()

    back = make_loop(before)
    work(back, lambda: back._library.in_force.model)

    assert before.extracted == 0
    assert back._library.in_force.model is not None
    assert back._library.in_force.model.extractor.backbone is Backbone.VGG16


def test_its_progress_is_told_and_a_refit_is_put_off(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    loop = make_loop(TurnedColours())
    with sorted_line.store.atomic():
        request = sorted_line.store.control.ask("refit", {})

    loop._round()

    beat = sorted_line.store.control.last_beat()
    answer = sorted_line.store.control.request(request)
    assert beat is not None
    assert beat.phase == Phase.REEXTRACTING
    assert beat.note == "extracting features anew for EfficientNet-Lite0: 0 of 12"
    assert answer.state == "failed"
    assert "ask again when it is done" in answer.result["error"]


def test_links_are_read_from_the_inbox(tmp_path: Path) -> None:
    line = Line(tmp_path, op="symlink")
    paint_groups(line.config.inbox, each=4)
    line.run()
    extractor = TurnedColours()
    roots = line.library.roots
    library = open_library(line.config, line.store, extractor, roots, may_reextract=True)
    loop = Loop(
        library,
        intake_of(library),
        Watcher(line.config.inbox, True),
        PictureReader(line.config.inbox, threads=1),
        lambda: False,
        lambda _phase, _note: None,
    )
    loop.prepare()

    work(loop, lambda: library.in_force.model)

    assert extractor.extracted == 12
    loop.close()
    line.close()


def test_without_the_daemon_another_backbone_is_refused_with_what_to_do(sorted_line: Line) -> None:
    with pytest.raises(MixedFeaturesError, match=r"Start the daemon, which extracts the features"):
        open_library(
            sorted_line.config, sorted_line.store, TurnedColours(), sorted_line.library.roots
        )


def test_no_file_is_changed_while_features_are_made_anew(
    sorted_line: Line, make_loop: Callable[..., Loop]
) -> None:
    before = sums(sorted_line.config.target)
    loop = make_loop(TurnedColours())

    work(loop, lambda: loop._library.in_force.model)

    assert sums(sorted_line.config.target) == before


def test_a_first_start_with_the_small_backbone_is_as_any_other(tmp_path: Path) -> None:
    config = make_config(tmp_path, settle_s=0)
    line = Line(tmp_path, TurnedColours())
    paint_groups(config.inbox, each=4)

    line.run()

    assert line.library.in_force.former is None
    assert line.counts()["sorted"] == 12
    line.close()
