"""The benchmarks measure what they say; nothing here asserts a time."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import article, latency, processes, stages
from benchmarks.machine import describe_machine
from benchmarks.pictures import (
    PictureSet,
    gather,
    make_camera_files,
    make_photographs,
    picture_paths,
)
from benchmarks.quality import largest_share, purity, quality_figures
from benchmarks.report import (
    LARGEST_TARGET,
    PHOTOS_TARGET,
    Figure,
    Part,
    Unit,
    figure_of,
    render,
    write_json,
)
from benchmarks.throughput import Contest, job_figures
from PIL import Image
from rich.console import Console

from support import BLUE, GREEN, RED, paint, tree


def text_of(parts: list[Part]) -> str:
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(render(parts, describe_machine()))
    return capture.get()


def squeezed(line: str) -> str:
    return " ".join(line.split())


def test_a_figure_is_met_only_on_its_targets_side() -> None:
    assert Figure("whole job", 2.8, Unit.RATIO, target=PHOTOS_TARGET).is_met is True
    assert Figure("whole job", 2.7, Unit.RATIO, target=PHOTOS_TARGET).is_met is False
    assert Figure("largest", 0.21, Unit.SHARE, target=LARGEST_TARGET).is_met is False
    assert Figure("largest", 0.05, Unit.SHARE, target=LARGEST_TARGET).is_met is True
    assert Figure("model alone", 1.0, Unit.RATIO).is_met is None


def test_the_table_shows_each_figure_beside_its_target() -> None:
    ratio = figure_of("whole job, photographs", [3.0, 2.9, 3.4], Unit.RATIO, PHOTOS_TARGET)
    share = Figure("largest cluster", 0.4, Unit.SHARE, target=LARGEST_TARGET)

    table = text_of([Part("throughput", [ratio]), Part("quality", [share], ["k=22"])])

    line = next(line for line in table.splitlines() if "whole job" in line)
    assert squeezed(line) == "whole job, photographs 3.00 × 2.90 × … 3.40 × ≥ 2.80 × met"
    line = next(line for line in table.splitlines() if "largest" in line)
    assert squeezed(line) == "largest cluster 40.0 % ≤ 20.0 % not met"
    assert "quality: k=22" in table


def test_the_json_file_holds_machine_options_figures_and_raw_numbers(tmp_path: Path) -> None:
    part = latency.summarise([2.1, 2.2, 2.3], [2.4], rest_s=45)

    write_json(tmp_path / "bench.json", [part], describe_machine(), {"rounds": 1})

    read = json.loads((tmp_path / "bench.json").read_text())
    assert set(read) == {"machine", "options", "parts"}
    assert {"cpu_model", "cores", "cpu_flags", "versions", "torch_build", "date"} <= set(
        read["machine"]
    )
    assert set(read["machine"]["cpu_flags"]) == {"avx2", "avx512", "avx512_bf16", "amx"}
    assert {"torch", "imgsortd"} <= set(read["machine"]["versions"])
    figure = read["parts"]["latency"]["figures"][0]
    assert figure["value"] == pytest.approx(2.2 - latency.SETTLE_S)
    assert figure["is_met"] is True
    assert read["parts"]["latency"]["raw"]["drop_to_folder_s"] == [2.1, 2.2, 2.3]


def test_ratios_are_taken_round_by_round_so_that_a_slow_round_cancels_out() -> None:
    contest = Contest("photographs", PictureSet(Path(), 10, "made"), PHOTOS_TARGET)
    rounds = [
        {
            "article_work_s": 30.0 * slow,
            "imgsortd_work_s": 10.0 * slow,
            "article_wall_s": 40.0 * slow,
            "imgsortd_wall_s": 20.0 * slow,
        }
        for slow in (1, 5, 1.5)
    ]

    work, whole, rate = job_figures(contest, rounds)

    assert (work.value, work.low, work.high) == (3.0, 3.0, 3.0)
    assert whole.value == 2.0
    assert rate.value == 1500.0  # ms an image


def test_the_stages_of_the_working_thread_add_up_to_the_whole() -> None:
    seconds = {"read and decode": 3.0, "decode": 2.0, "model": 6.0, "store": 1.0}

    table = stages.stage_table(seconds, total_s=8.0, images=10)

    assert table["read and hash, in threads"] == 100.0
    assert table["model"] + table["store"] + table["waiting, listing"] == table["whole"] == 800.0


def test_stages_and_the_sort_they_time_see_every_picture(
    tmp_path: Path, conv_weights: Path
) -> None:
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(tmp_path / "in" / f"{number}.png", colour, number)
    arguments = (tmp_path / "in", tmp_path / "out", "-k", "2", "--weights", conv_weights)

    values = processes.run_module("benchmarks.stages", *arguments).values

    assert values["images"] == 3
    assert all(values["ms_per_image"][name] > 0 for name in ("decode, in threads", "model", "fit"))
    assert processes.count_sorted(tmp_path / "out") == 3


def test_a_process_that_fails_ends_the_benchmark_with_its_text(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"exit 2[\s\S]*none"):
        processes.run_module("imgsortd", "sort", tmp_path / "none", tmp_path / "out")


def test_the_process_that_measures_does_not_load_torch() -> None:
    code = "import sys, benchmarks.__main__; sys.exit('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT, check=False)

    assert done.returncode == 0


def test_purity_and_largest_share_count_pictures() -> None:
    labels = ["cat", "cat", "cat", "dog", "dog", "fox"]
    clusters = ["0", "0", "1", "1", "1", "1"]

    assert purity(labels, clusters) == pytest.approx(4 / 6)
    assert largest_share(clusters) == pytest.approx(4 / 6)


def test_a_partition_like_the_labels_is_perfect_whatever_the_clusters_are_called() -> None:
    figures = quality_figures("toy", ["cat", "cat", "dog", "fox"], list("9904"), promised=True)

    values = {figure.name.split(",")[0]: figure.value for figure in figures}
    assert values == pytest.approx({"NMI": 1, "ARI": 1, "purity": 1, "largest cluster": 0.5})
    assert [figure.is_met for figure in figures] == [True, None, None, False]


def test_gathered_pictures_all_have_bytes_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "own" / f"class-{number}" / "same-name.png", RED, number)

    made = gather(tmp_path / "own", 7, tmp_path / "work")

    paths = picture_paths(made.folder)
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 7
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.asarray(Image.open(paths[3])))


def test_made_photographs_are_500_px_and_camera_files_10_megapixels(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image (the extra: demo) has the pictures")

    photographs = make_photographs(2, tmp_path / "photographs")
    cameras = make_camera_files(1, tmp_path / "cameras")

    sizes = [Image.open(path).size for path in picture_paths(photographs.folder)]
    assert [max(size) for size in sizes] == [500, 500]
    camera = Image.open(picture_paths(cameras.folder)[0])
    assert 8e6 <= camera.width * camera.height <= 12e6
    assert camera.getexif()


def test_the_articles_script_copies_every_picture_into_a_cluster(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(source / f"{number}.jpg", colour, number, size=300)
    (source / "broken.jpg").write_bytes(b"no picture")
    weights = article.save_random_weights(tmp_path / "random-vgg16.pth")
    try:
        model = article.load_model(weights)
    finally:
        weights.unlink()

    copied = article.sort_folder(source, target, model, n_clusters=2)

    folders = tree(target)
    assert copied == 3
    assert set(folders) == {"cluster_0", "cluster_1"}
    assert sorted(name for files in folders.values() for name in files) == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]
    assert all(path.exists() for path in picture_paths(source))
