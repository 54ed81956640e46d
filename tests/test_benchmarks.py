"""The benchmarks measure what they say; nothing here asserts a time."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import article, daemon, models, processes, refit, throughput
from benchmarks.__main__ import parse_options
from benchmarks.figures import (
    WIDTH,
    Figure,
    Part,
    Unit,
    at_least,
    at_most,
    describe_machine,
    figure_of,
    percentiles,
    render,
    write_json,
)
from benchmarks.models import Subject, subjects_of
from benchmarks.pictures import Kind, camera_files, gather, photographs, picture_paths
from benchmarks.processes import imgsortd, write_config
from benchmarks.quality import purity
from benchmarks.throughput import STAGE_TITLES, in_turns, job_figures, stage_figures
from PIL import Image
from rich.console import Console

from imgsortd.clusters.routing import nearest
from imgsortd.networks.sources import AUTO
from imgsortd.pictures.pixels import decode
from made_once import made_once
from support import BLUE, GREEN, RED, paint, tree


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the benchmarks say of this machine; torch is asked in a process of its own."""

    def describe(folder: Path) -> None:
        (folder / "machine.json").write_text(json.dumps(describe_machine()))

    made = made_once(tmp_path_factory, "machine", describe) / "machine.json"
    read: dict[str, Any] = json.loads(made.read_text())
    return read


def text_of(parts: list[Part], machine: dict[str, Any]) -> str:
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(render(parts, machine))
    return capture.get()


def squeezed(line: str) -> str:
    return " ".join(line.split())


def line_with(text: str, table: str) -> str:
    return squeezed(next(line for line in table.splitlines() if text in line))


def test_a_figure_is_met_only_on_its_targets_side() -> None:
    assert Figure("whole sort", 3.3, Unit.RATIO, at_least(3.3)).is_met is True
    assert Figure("whole sort", 3.2, Unit.RATIO, at_least(3.3)).is_met is False
    assert Figure("lost", 0.21, Unit.SHARE, at_most(0.2)).is_met is False
    assert Figure("lost", 0.05, Unit.SHARE, at_most(0.2)).is_met is True
    assert Figure("model alone", 1.0, Unit.RATIO).is_met is None


def test_the_table_shows_each_figure_beside_its_target(machine: dict[str, Any]) -> None:
    ratio = figure_of("whole sort", [3.0, 2.9, 3.4], Unit.RATIO, at_least(3.3))
    stage = figure_of("decode", [2.0], Unit.MILLISECONDS)
    share = Figure("in review", 0.4, Unit.SHARE, at_most(0.2))

    table = text_of(
        [Part("throughput", [ratio, stage]), Part("quality", [share], ["22 classes"])], machine
    )

    assert line_with("whole sort", table) == "whole sort 3.00 × 2.90 … 3.40 ≥ 3.30 not met"
    assert line_with("decode", table) == "decode 2.00 ms/image"
    assert line_with("in review", table) == "in review 40.0 % ≤ 20.0 not met"
    assert line_with("22 classes", table) == "22 classes"


def test_no_line_of_the_widest_table_is_cut_or_folded(machine: dict[str, Any]) -> None:
    rounds = [round_of(slow) for slow in (1e3, 1e4)]
    named = [
        *job_figures(10, rounds, None),
        *stage_figures(rounds),
        *refit.size_figures(1_000_000, REFIT_VALUES),
        *daemon.latency_figures([2.1], [2.4], rest_s=45),
        *daemon.burst_figures([3.0] * 1000, 0.97),
    ]
    wide = [
        Figure(f.name, value, f.unit, at_least(1.999), value, value + 0.01)
        for f in named
        for value in [1.41 if f.unit is Unit.SHARE else 1234.5]
    ]

    lines = text_of([Part("throughput, efficientnet_lite0 on openvino", wide)], machine)

    shown = lines.splitlines()
    assert max(map(len, shown)) <= WIDTH
    assert not [line for line in shown if "…" in line.replace(" … ", "")]
    assert all(
        any(f.name in line and line.rstrip().endswith("met") for line in shown) for f in named
    )


def round_of(slow: float) -> dict[str, dict[str, Any]]:
    stages_ms = {**dict.fromkeys(STAGE_TITLES, 100.0 * slow), "model": 1000.0 * slow}
    return {
        "article": {"work_s": 30.0 * slow, "wall_s": 40.0 * slow},
        "sort": {
            "total_s": 10.0 * slow,
            "wall_s": 20.0 * slow,
            "images_per_s": 0.9 / slow,
            "model_busy": 0.97,
        },
        "stages": {"ms_per_image": stages_ms},
    }


REFIT_VALUES: dict[str, Any] = {
    "algorithm": "MiniBatchKMeans",
    "refit_s": 60.0,
    "peak_bytes": 1_900_000_000,
    "fit_bytes": 1_200_000_000,
    "status_s": [0.2, 0.4, 0.25],
    "program_start_s": [0.1],
}


def test_the_json_file_holds_machine_options_figures_and_raw_numbers(
    tmp_path: Path, machine: dict[str, Any]
) -> None:
    seconds = [2.1, 2.2, 2.3]
    figures = daemon.latency_figures(seconds, [2.4], rest_s=45)
    part = Part("latency", figures, raw={"drop_to_folder_s": seconds})

    options = parse_options(["--images", "8"])
    write_json(tmp_path / "bench.json", [part], machine, vars(options))

    read = json.loads((tmp_path / "bench.json").read_text())
    assert set(read) == {"machine", "options", "parts"}
    assert {"cpu_model", "cores", "cpu_flags", "versions", "torch_build", "date"} <= set(
        read["machine"]
    )
    assert set(read["machine"]["cpu_flags"]) == {"avx2", "avx512", "avx512_bf16", "amx"}
    assert {"torch", "imgsortd"} <= set(read["machine"]["versions"])
    assert read["options"]["images"] == 8
    figure = read["parts"]["latency"]["figures"][0]
    assert figure["value"] == pytest.approx(2.2 - daemon.SETTLE_S)
    assert figure["target"] == {"goal": "≤", "value": 0.5}
    assert read["parts"]["latency"]["raw"]["drop_to_folder_s"] == [2.1, 2.2, 2.3]


def test_percentiles_lie_between_measurements() -> None:
    figures = percentiles("burst", [float(number) for number in range(101)])

    assert [figure.name for figure in figures] == ["burst, p50", "burst, p95", "burst, p99"]
    assert [figure.value for figure in figures] == [50.0, 95.0, 99.0]
    assert (figures[0].low, figures[0].high) == (0.0, 100.0)
    assert percentiles("two", [1.0, 2.0])[1].value == pytest.approx(1.95)


def test_ratios_are_taken_round_by_round_so_that_a_slow_round_cancels_out() -> None:
    rounds = [round_of(slow) for slow in (1, 5, 1.5)]

    work, wall, article_ms, sort_ms, *_ = job_figures(10, rounds, at_least(3.3))

    assert (work.value, work.low, work.high) == (3.0, 3.0, 3.0)
    assert work.is_met is False
    assert wall.value == 2.0
    assert (article_ms.value, sort_ms.value) == (4500.0, 1500.0)  # an image


def test_the_stages_are_shown_one_by_one_and_in_sum() -> None:
    in_sum, *rows = stage_figures([round_of(1), round_of(2)])

    assert in_sum.low == 1000 + 100 * (len(STAGE_TITLES) - 1)
    assert [row.name.strip() for row in rows] == list(STAGE_TITLES.values())


def test_the_features_stage_is_compared_with_the_model_alone_in_the_same_round() -> None:
    *_, share, busy = job_figures(10, [round_of(1), round_of(2)], None)

    assert (share.value, share.low, share.high) == pytest.approx((0.9, 0.9, 0.9))
    assert share.is_met is True
    assert busy.value == 0.97


def test_a_round_and_the_next_one_run_in_opposite_order() -> None:
    assert [in_turns("ABC", number) for number in range(3)] == [
        ["A", "B", "C"],
        ["C", "B", "A"],
        ["A", "B", "C"],
    ]


@pytest.mark.parametrize(
    ("subject", "kind", "times"),
    [
        (Subject(), Kind.PHOTOS, 3.3),
        (Subject(), Kind.CAMERAS, 4.2),
        (Subject(engine="openvino", precision="int8"), Kind.CAMERAS, 7.5),
        (Subject("efficientnet_lite0"), Kind.PHOTOS, 8.0),
    ],
)
def test_the_whole_sort_has_a_target_for_each_model(
    subject: Subject, kind: Kind, times: float
) -> None:
    assert throughput.target_of(subject, kind) == at_least(times)


def test_nothing_was_promised_for_vgg16_on_openvino_without_int8() -> None:
    assert throughput.target_of(Subject(engine="openvino"), Kind.PHOTOS) is None


def test_only_what_is_not_the_default_is_asked_of_imgsortd() -> None:
    usual, other = Subject(), Subject("efficientnet_lite0", "openvino", "int8")

    assert usual.arguments == []
    assert usual.settings == {}
    assert other.arguments[:4] == ["--backbone", "efficientnet_lite0", "--engine", "openvino"]
    assert set(other.settings) == {"backbone", "engine", "precision"}
    assert other.name == "efficientnet_lite0 on openvino int8"


def test_options_take_lists_with_commas_and_by_repetition(tmp_path: Path) -> None:
    given = ["--only", "refit,latency", "--only", "memory", "--refit-sizes", "1000,2000"]

    options = parse_options([*given, "--images", "10", "--photos", str(tmp_path)])

    assert options.only == ["refit", "latency", "memory"]
    assert options.refit_sizes == [1000, 2000]
    assert options.burst == 10
    assert [subject.name for subject in options.subjects] == ["vgg16 on torch"]
    assert len(parse_options([]).only) == 6
    assert options.kinds == [Kind.PHOTOS, Kind.CAMERAS]
    assert parse_options(["--kinds", "cameras"]).kinds == [Kind.CAMERAS]


def test_every_backbone_is_measured_on_every_engine_with_weights_that_fit() -> None:
    backbones, engines = ["vgg16", "efficientnet_lite0"], ["torch", "openvino"]

    subjects = subjects_of(backbones, engines, ["auto"], "my.pth")

    assert [(s.backbone, s.engine, s.weights) for s in subjects] == [
        ("vgg16", "torch", "my.pth"),
        ("vgg16", "openvino", "my.pth"),
        ("efficientnet_lite0", "torch", "auto"),
        ("efficientnet_lite0", "openvino", "auto"),
    ]


def test_an_engine_is_measured_only_in_the_precisions_it_has() -> None:
    subjects = subjects_of(["vgg16"], ["torch", "openvino"], ["auto", "fp16", "int8"], "auto")

    assert [subject.name for subject in subjects] == [
        "vgg16 on torch",
        "vgg16 on torch fp16",
        "vgg16 on openvino",
        "vgg16 on openvino int8",
    ]


def test_int8_is_left_out_where_there_are_too_few_photographs_to_check_it(
    tmp_path: Path,
) -> None:
    paint(tmp_path / "one.jpg", RED, 0)
    options = parse_options(["--engine", "openvino", "--precision", "int8"])
    options.photos = tmp_path

    (part,) = models.prepare(options, tmp_path / "work")

    assert options.subjects == []
    assert part.notes == ["skipped: it is checked on 384 photographs, given: 1"]


def test_an_int8_model_that_did_not_pass_is_shown_with_its_figures() -> None:
    check = {"agreement": 0.9, "min_cosine": 0.95, "n_images": 256, "passed": False, "engine": "x"}

    part = models.int8_part("int8, vgg16 on openvino int8", check)

    assert part.figures[0].is_met is False
    assert part.notes[-1].endswith("not measured")


def test_the_cache_of_the_benchmark_begins_with_a_copy_of_the_users_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, own = tmp_path / "user", tmp_path / "bench"
    users.mkdir()
    (users / AUTO.cache_name).write_bytes(b"weights")
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(users))

    models.use_cache(own)

    assert os.environ["IMGSORTD_CACHE_DIR"] == str(own)
    assert (own / AUTO.cache_name).read_bytes() == b"weights"
    assert [path.name for path in users.iterdir()] == [AUTO.cache_name]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--photos", "/no/such"], "--photos: expected an existing folder, got '/no/such'"),
        (["--weights", "/no.pth"], "--weights: expected an existing file, got '/no.pth'"),
        (["--backbone", "vgg19"], "expected vgg16, efficientnet_lite0, got 'vgg19'"),
        (
            ["--only", "speed"],
            "expected prepare, throughput, latency, memory, refit",
        ),
        (["--precision", "int8"], "torch cannot compute in int8; int8 needs --engine openvino"),
        (["--refit-sizes", "10k"], "expected a whole number from 1000, got '10k'"),
        (["--images", "2"], "--images: expected a whole number from 8"),
        (["--burst", "0"], "--burst: expected a whole number from 1"),
    ],
)
def test_a_wrong_option_is_refused_with_what_was_expected(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)

    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_a_decode_is_split_where_the_resize_begins(tmp_path: Path) -> None:
    path = paint(tmp_path / "red.jpg", RED, 0, size=300)

    (pixels,), decode_s, transform_s = throughput.decode_all([path])

    assert np.array_equal(pixels, decode(path.read_bytes()))
    assert decode_s > 0
    assert transform_s > 0


def test_a_bursts_rate_leaves_out_the_wait_for_files_to_settle() -> None:
    figures = {figure.name: figure for figure in daemon.burst_figures([3.0, 4.0, 8.0], 0.9)}

    assert figures["burst, rate"].value == 0.5
    assert figures["burst of 3, p50"].value == 2.0
    assert figures["burst, model busy"].is_met is False


def test_a_busy_share_that_is_not_told_is_left_out() -> None:
    assert "burst, model busy" not in {figure.name for figure in daemon.burst_figures([3.0], None)}


def test_targets_of_refit_and_status_are_for_a_million() -> None:
    small = refit.size_figures(10_000, REFIT_VALUES)
    large = {figure.name.strip(): figure for figure in refit.size_figures(10**6, REFIT_VALUES)}

    assert all(figure.is_met is None for figure in small)
    assert large["peak memory"].is_met is True
    assert large["status"].is_met is True


def test_synthetic_features_are_unit_vectors_near_their_centers() -> None:
    centers = refit.make_centers()
    labels = np.arange(1000) % len(centers)

    features = refit.make_features(centers, labels, seed=1)

    assert features.shape == (1000, 512)
    assert features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.array_equal(nearest(features, centers)[0], labels)


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_a_synthetic_store_is_as_a_library_leaves_it_and_can_be_refitted(tmp_path: Path) -> None:
    config_file = write_config(tmp_path, clusters={"n_clusters": 10, "min_images": 10})
    processes.call(refit.fill, config_file, 1000)

    before = imgsortd("status", "-c", config_file, "--json").values
    values = processes.call(refit.refit_once, config_file).values

    assert before["counts"]["sorted"] == before["counts"]["seen"] == 1000
    assert sum(cluster["files"] for cluster in before["clusters"]) == 1000
    assert before["last_fit"]["n_clusters"] == refit.N_CENTERS
    assert before["open_moves"] == []
    assert (values["n_images"], values["n_clusters"]) == (1000, 10)
    assert values["peak_bytes"] >= values["fit_bytes"] > 0
    after = imgsortd("status", "-c", config_file, "--json").values
    assert after["last_fit"]["trigger"] == "request"


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_every_stage_is_measured_and_leaves_the_pictures_where_they_are(
    tmp_path: Path, conv_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(tmp_path))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(tmp_path / "in" / f"{number}.png", colour, number)
    settings = {"weights": str(conv_weights)}

    job = (throughput.time_stages, tmp_path / "in", tmp_path / "work", settings)
    values = processes.call(*job).values

    assert values["images"] == 3
    assert set(values["ms_per_image"]) == set(STAGE_TITLES)
    assert all(value > 0 for value in values["ms_per_image"].values())
    assert len(picture_paths(tmp_path / "in")) == 3


def test_a_process_that_fails_ends_the_benchmark_with_its_text(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"exit 2[\s\S]*none"):
        imgsortd("sort", tmp_path / "none", tmp_path / "out")


def test_the_process_that_measures_does_not_load_torch() -> None:
    code = "import sys, benchmarks.__main__; sys.exit('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT, check=False)

    assert done.returncode == 0


def test_purity_and_the_largest_share_count_pictures() -> None:
    classes, clusters = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])

    assert purity(classes, clusters) == pytest.approx((4 / 6, 4 / 6))


def test_gathered_pictures_all_have_bytes_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "own" / f"class-{number}" / "same-name.png", RED, number)

    made = gather(tmp_path / "own", 7, tmp_path / "work")

    paths = picture_paths(made.folder)
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 7
    assert np.array_equal(np.asarray(Image.open(paths[0])), np.asarray(Image.open(paths[3])))


def test_made_photographs_are_500_px_and_camera_files_10_megapixels(tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="scikit-image (the extra: demo) has the pictures")

    made = photographs(None, 2, tmp_path / "photographs")
    cameras = camera_files(None, 1, tmp_path / "cameras")

    sizes = [Image.open(path).size for path in picture_paths(made.folder)]
    assert [max(size) for size in sizes] == [500, 500]
    camera = Image.open(picture_paths(cameras.folder)[0])
    assert 8e6 <= camera.width * camera.height <= 12e6


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_the_articles_script_copies_every_picture_into_a_cluster(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(source / f"{number}.jpg", colour, number, size=300)
    (source / "broken.jpg").write_bytes(b"no picture")
    weights = tmp_path / "random-vgg16.pth"
    article.save_random_weights(weights)

    copied = article.sort_folder(str(source), str(target), str(weights), 2)["images"]

    weights.unlink()
    folders = tree(target)
    assert copied == 3
    assert set(folders) == {"cluster_0", "cluster_1"}
    assert sorted(name for files in folders.values() for name in files) == [
        "0.jpg",
        "1.jpg",
        "2.jpg",
    ]
    assert all(path.exists() for path in picture_paths(source))
