"""``duplicates`` names what is there twice or nearly, and remembers what a person keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgsortd.daemon.here import complete, keep
from imgsortd.errors import FindError, RequestError
from imgsortd.pictures.hashing import perceptual_hash
from imgsortd.pictures.pixels import decode
from imgsortd.records import ExtractorId, Layer, Look
from imgsortd.reports.duplicates import duplicates, find_near, hashes_of
from imgsortd.target.choices import keep_alike
from inboxes import Inbox, quick_cli
from line import Line
from photographs import bundled_paths
from support import ColourExtractor, each_file_below, paint_groups, run_cli, sums, tree


def no_word(_: str) -> None:
    """Listen to no progress."""


def scene(path: Path, seed: int, **options: Any) -> Path:
    """Write a picture of soft coloured patches: each seed looks otherwise."""
    patches = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    image = Image.fromarray(patches).resize((300, 300), Image.Resampling.BICUBIC)
    size = options.pop("size", 300)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((size, size)).save(path, **options)
    return path


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    """Return a line that has sorted twelve scenes, of which 0 and 1 have copies."""
    line = Line(tmp_path, ColourExtractor(digest="auto"))
    for seed in range(12):
        scene(line.config.inbox / f"{seed}.png", seed)
    scene(line.config.inbox / "0-small.jpg", 0, size=256, quality=80)
    scene(line.config.inbox / "0-web.webp", 0, quality=85)
    scene(line.config.inbox / "1-again.jpg", 1, quality=60)
    shutil.copy(line.config.inbox / "5.png", line.config.inbox / "z5-copy.png")
    line.run()
    yield line
    line.close()


def stored(line: Line, name: str) -> Path:
    """Return where a picture stands now."""
    return next(line.config.target.rglob(name))


def report_of(line: Line) -> Any:
    return duplicates(line.config, exact=True, near=True)


def groups(report: Any, kind: str) -> list[set[str]]:
    return [{Path(file.file).name for file in group.files} for group in getattr(report, kind)]


def decide_here(line: Line, *names: str, forget: bool = False) -> int:
    """Keep or forget as the command does where no daemon runs."""
    hashes = hashes_of(line.config, [stored(line, name) for name in names])
    pairs: int = keep(line.config, hashes, forget=forget)["pairs"]
    return pairs


def without_hashes(line: Line) -> None:
    """Make the library one that was sorted before there were hashes."""
    with line.store.atomic():
        line.store.connection.execute("DELETE FROM picture_hashes")


NEAR = [{"0.png", "0-small.jpg", "0-web.webp"}, {"1.png", "1-again.jpg"}]


def test_copies_saved_otherwise_are_near_duplicates_and_other_pictures_are_not(line: Line) -> None:
    report = report_of(line)

    assert groups(report, "near") == NEAR
    assert (report.compared, report.lacking, report.crowded) == (15, 0, 0)
    first = report.near[0]
    assert (first.n_pairs, len(first.pairs)) == (3, 3)
    assert all(pair.bits <= 7 and pair.cosine >= 0.75 for pair in first.pairs)
    assert {Path(pair.first).name for pair in first.pairs} <= NEAR[0]


def test_equal_bytes_are_named_with_the_original_first(line: Line) -> None:
    report = report_of(line)

    (group,) = report.exact
    named = [(Path(file.file).name, file.original) for file in group.files]
    assert named == [("5.png", True), ("z5-copy.png", False)]
    assert all(Path(file.file).exists() for file in group.files)


@pytest.mark.parametrize("policy", ["set_aside", "skip"])
def test_equal_bytes_are_named_where_they_stand_under_any_policy(
    tmp_path: Path, policy: str
) -> None:
    line = Line(tmp_path, duplicates=policy)
    for seed in range(6):
        scene(line.config.inbox / f"{seed}.png", seed)
    line.run()
    shutil.copy(stored(line, "5.png"), line.config.inbox / "z5-copy.png")
    line.run()

    (group,) = duplicates(line.config, exact=True, near=False).exact

    folder = line.config.inbox if policy == "skip" else line.config.target / "_set_aside"
    assert [file.file for file in group.files] == [
        str(stored(line, "5.png")),
        str(folder / "z5-copy.png"),
    ]
    line.close()


def test_what_its_owner_took_away_is_not_reported(line: Line) -> None:
    stored(line, "1-again.jpg").unlink()
    stored(line, "z5-copy.png").unlink()
    stored(line, "0-web.webp").unlink()

    report = report_of(line)

    assert groups(report, "near") == [{"0.png", "0-small.jpg"}]
    assert report.exact == []


def test_what_is_kept_is_never_reported_again_whatever_is_refitted_or_renamed(line: Line) -> None:
    pairs = decide_here(line, "0.png", "0-small.jpg", "0-web.webp")

    line.fit(random_state=7)
    moved = stored(line, "1.png")  # what a rename does to a row is not what is kept by
    with line.store.atomic():
        line.store.connection.execute("UPDATE clusters SET name = 'Renamed'")
    line.restart()
    report = report_of(line)

    assert (pairs, report.kept_pairs) == (3, 3)
    assert groups(report, "near") == [NEAR[1]]
    assert moved.exists()


def test_a_new_copy_of_kept_pictures_is_reported_with_them(line: Line) -> None:
    decide_here(line, "0.png", "0-small.jpg", "0-web.webp")
    scene(line.config.inbox / "0-new.jpg", 0, quality=95)
    line.run()

    group = report_of(line).near[0]

    assert {Path(file.file).name for file in group.files} == {*NEAR[0], "0-new.jpg"}
    assert group.n_pairs == 3  # each with the new one; the kept pairs are none


def test_forgetting_takes_it_back_for_some_or_for_all_of_one(line: Line) -> None:
    decide_here(line, "0.png", "0-small.jpg", "0-web.webp")

    some = decide_here(line, "0.png", "0-small.jpg", forget=True)
    then = groups(report_of(line), "near")
    rest = decide_here(line, "0-web.webp", forget=True)

    assert (some, rest) == (1, 2)
    assert then == [{"0.png", "0-small.jpg"}, NEAR[1]] or then == [
        NEAR[1],
        {"0.png", "0-small.jpg"},
    ]
    assert groups(report_of(line), "near") == NEAR


def test_equal_copies_are_kept_too(line: Line) -> None:
    pairs = decide_here(line, "5.png", "z5-copy.png")

    assert (pairs, report_of(line).exact) == (1, [])
    assert decide_here(line, "5.png", forget=True) == 1
    assert len(report_of(line).exact) == 1


def test_to_keep_takes_two_different_files_of_the_library(line: Line, tmp_path: Path) -> None:
    with pytest.raises(FindError, match="expected 2 to 500 different files, got 1"):
        decide_here(line, "5.png", "5.png")
    strange = scene(tmp_path / "strange.png", 77)
    with pytest.raises(FindError, match=r"strange\.png: is no picture of the library"):
        hashes_of(line.config, [stored(line, "5.png"), strange])

    assert report_of(line).kept_pairs == 0


def test_a_request_that_is_none_of_this_version_is_refused(line: Line) -> None:
    for params in ({"hashes": ["00"], "forget": False}, {"forget": False}, {"hashes": ["x"]}):
        with pytest.raises(RequestError, match="expected"):
            keep_alike(line.store, params)


def test_nothing_is_moved_or_deleted(line: Line) -> None:
    before = tree(line.config.target), sums(line.config.target)

    report_of(line)
    complete(line.config, no_word)
    decide_here(line, "0.png", "0-small.jpg")

    assert (tree(line.config.target), sums(line.config.target)) == before


def test_pictures_sorted_before_there_were_hashes_are_completed_from_their_files(
    line: Line,
) -> None:
    without_hashes(line)
    stored(line, "11.png").write_bytes(b"overwritten")
    line.put("waits.png", scene(line.config.target.parent / "w.png", 50).read_bytes())
    before = report_of(line)
    told: list[str] = []

    done = complete(line.config, told.append)
    after = report_of(line)

    assert (before.near, before.lacking) == ([], 16)
    assert (done["hashed"], done["unreadable"]) == (14, 1)
    assert (groups(after, "near"), after.lacking) == (NEAR, 1)
    assert told[-1] == "hashing pictures: 15 of 16"


def test_a_hash_is_kept_with_the_features_and_is_of_the_pixels(line: Line) -> None:
    names, hashes = line.store.hashes.standing()

    files = each_file_below(line.config.target)
    expected = {perceptual_hash(decode(path.read_bytes())) for path in files}
    assert set(hashes.tolist()) == expected
    assert names.shape == (15, 32)


def sizes_of(line: Line) -> Counter[tuple[int | None, int | None]]:
    return Counter(line.store.connection.execute("SELECT width_px, height_px FROM picture_hashes"))


def test_a_picture_of_before_gets_its_size_when_it_is_read_again_and_keeps_its_hash(
    line: Line,
) -> None:
    sizes = sizes_of(line)
    assert (None, None) not in sizes
    hashes = line.store.hashes.standing()[1].tolist()
    with line.store.atomic():
        line.store.connection.execute(
            "UPDATE picture_hashes SET width_px = NULL, height_px = NULL "
            "WHERE sha256 = (SELECT sha256 FROM files WHERE CAST(src AS TEXT) = '5.png')"
        )
    shutil.copy(stored(line, "5.png"), line.config.inbox / "z5-again.png")

    line.run()

    assert sizes_of(line) == sizes
    assert line.store.hashes.standing()[1].tolist() == hashes


def test_a_crowd_of_plain_pictures_is_one_group_and_is_told(line: Line) -> None:
    for level in range(40):
        path = line.config.inbox / f"plain-{level}.png"
        Image.new("RGB", (64, 64), (100 + level, 100 + level, 100 + level)).save(path)
    line.run()

    report = report_of(line)

    assert len(report.near[0].files) == 40
    assert report.crowded == 40


def test_features_that_disagree_overrule_equal_hashes(tmp_path: Path) -> None:
    line = Line(tmp_path)
    paint_groups(line.config.inbox, 3)
    for name, colour in (("r", (250, 0, 0)), ("b", (0, 0, 250)), ("r2", (200, 0, 0))):
        Image.new("RGB", (64, 64), colour).save(line.config.inbox / f"plain-{name}.png")
    line.run()

    report = report_of(line)

    assert groups(report, "near") == [{"plain-r.png", "plain-r2.png"}]
    line.close()


def test_pairs_are_compared_in_however_many_portions_in_little_memory(line: Line) -> None:
    import tracemalloc

    extractor = ExtractorId("auto", Layer.POOL5, 3)
    rng = np.random.default_rng(3)
    names = [rng.bytes(32) for _ in range(20_000)]
    hashes = rng.integers(0, 2**64, 10_000, dtype=np.uint64)
    twice = np.concatenate([hashes, hashes ^ np.uint64(3)])
    vectors = np.tile(rng.random((10_000, 3), dtype=np.float32) + 1, (2, 1))
    with line.store.atomic():
        line.store.connection.executemany(
            "INSERT INTO files(src, inode, size_bytes, mtime_ns, sha256, state, seen_at) "
            "VALUES (?, 1, 1, 1, ?, 'sorted', 0)",
            [(b"%d" % number, name) for number, name in enumerate(names)],
        )
        line.store.fits.put_features(extractor, names, vectors)
        looks = map(Look, twice.tolist())
        line.store.hashes.put(dict(zip(names, looks, strict=True)))

    tracemalloc.start()
    found = find_near(line.store, extractor, lambda sha256: sha256 in names[:50], no_word)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert found.groups == []  # of each pair only one stands
    assert found.compared == 20_015
    assert peak_bytes < 120e6


def test_the_command_names_groups_and_says_what_is_missing(line: Line) -> None:
    one = Inbox(line.config.target.parent)
    with line.store.atomic():
        line.store.connection.execute(
            "DELETE FROM picture_hashes WHERE sha256 IN "
            "(SELECT sha256 FROM files WHERE CAST(src AS TEXT) = '7.png')"
        )
    decide_here(line, "1.png", "1-again.jpg")
    line.close()

    plain = quick_cli("duplicates", one).stdout
    near = json.loads(quick_cli("duplicates", one, "--near", "--json").stdout)
    completed = quick_cli("duplicates", one, "--complete").stdout

    assert "same bytes: 2 files\n" in plain
    assert "5.png" in plain
    assert "  the original\n" in plain
    assert "nearly the same: 3 files, up to " in plain
    assert "1 group of equal duplicates\n1 group of near duplicates\n" in plain
    assert "kept by your word and not reported: 1 pair\n" in plain
    assert "without a hash yet and not compared: 1 picture; imgsortd duplicates --complete" in plain
    assert near["exact"] is None
    assert [{Path(file["file"]).name for file in one["files"]} for one in near["near"]] == NEAR[:1]
    assert "without a hash" not in completed
    line._open()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--near", "--exact"), "give one of --near, --exact, --keep and --forget"),
        (("--keep",), "need FILES"),
        (("a.jpg",), "nothing else takes any"),
        (("--complete", "--exact"), "--complete goes with --near or alone"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(
    options: tuple[str, ...], expected: str
) -> None:
    done = run_cli("duplicates", *options)

    assert done.returncode == 2
    assert expected in " ".join(done.stderr.replace("│", " ").split())


def test_help_says_that_nothing_is_moved_or_deleted() -> None:
    done = run_cli("duplicates", "--help")

    assert "nothing is ever moved or deleted" in " ".join(done.stdout.split())


def test_a_running_daemon_keeps_and_forgets_and_hashes_come_in_beside_it(
    make: Callable[..., Inbox], tmp_path: Path
) -> None:
    one = make()
    one.daemon.start()
    one.daemon.wait_ready()
    for seed in range(6):
        one.bring(scene(tmp_path / "made" / f"{seed}.png", seed), f"{seed}.png")
    one.bring(scene(tmp_path / "made" / "0-web.webp", 0, quality=85), "0-web.webp")
    one.wait_sorted()
    files = [str(next(one.target.rglob(name))) for name in ("0.png", "0-web.webp")]

    def near(done: subprocess.CompletedProcess[str]) -> int:
        assert done.returncode == 0, done.stderr
        return len(json.loads(done.stdout)["near"])

    before = near(quick_cli("duplicates", one, "--complete", "--json"))
    kept = quick_cli("duplicates", one, "--keep", *files)
    between = near(quick_cli("duplicates", one, "--json"))
    forgotten = quick_cli("duplicates", one, "--forget", files[0])
    after = near(quick_cli("duplicates", one, "--json"))

    assert (kept.stdout, forgotten.stdout) == ("1 pair kept for good\n", "1 pair forgotten\n")
    assert (before, between, after) == (1, 0, 1)
    assert one.daemon.is_alive()
    one.check()


@pytest.mark.usefixtures("threads_given_back")
@pytest.mark.faults
def test_photographs_of_vgg16_are_told_from_their_copies(tmp_path: Path) -> None:
    from imgsortd.config.model import ModelConfig
    from imgsortd.networks.building import build_extractor
    from imgsortd.networks.sources import default_cache_dir, describe_model_weights, first_ready
    from imgsortd.records import Backbone

    if first_ready(describe_model_weights(Backbone.VGG16, "auto")) is None:
        pytest.skip("VGG16's weights are not here")
    extractor: Any = build_extractor(ModelConfig(), default_cache_dir())
    line = Line(tmp_path, extractor)
    for path in bundled_paths(8):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        picture.save(line.config.inbox / f"{path.stem}.png")
        half = picture.resize((picture.width // 2, picture.height // 2))
        half.save(line.config.inbox / f"{path.stem}-half.jpg", quality=75)
    line.run()

    found = groups(duplicates(line.config, exact=False, near=True), "near")

    stems = sorted(path.stem for path in bundled_paths(8))
    assert sorted(map(sorted, found)) == [[f"{stem}-half.jpg", f"{stem}.png"] for stem in stems]
    line.close()
