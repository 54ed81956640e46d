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
from benchmarks import (
    article,
    ceiling,
    clocks,
    latency,
    model_stage,
    prepare,
    processes,
    refit,
    roofline,
    synthetic,
)
from benchmarks.burst import Burst, burst_figures, waits
from benchmarks.figures import (
    Figure,
    Goal,
    Part,
    Target,
    Unit,
    figure_of,
    percentile_figures,
)
from benchmarks.machine import describe_machine
from benchmarks.options import parse_options, plain
from benchmarks.pictures import (
    PictureSet,
    gather,
    make_camera_files,
    make_photographs,
    picture_paths,
)
from benchmarks.quality import largest_share, purity, quality_figures
from benchmarks.report import WIDTH, render, write_json
from benchmarks.running import busy_share, read_status, write_config
from benchmarks.stage_names import ASSIGN, STAGE_TITLES
from benchmarks.subject import Subject, subjects_of
from benchmarks.targets import LARGEST_TARGET, Kind, whole_sort_target
from benchmarks.throughput import Contest, Round, in_turns, job_figures, stage_figures
from PIL import Image
from rich.console import Console

from imgsortd.adapters.images import decode
from imgsortd.adapters.weight_sources import AUTO
from imgsortd.core.routing import nearest
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
    times = Target(Goal.AT_LEAST, 3.3)

    assert Figure("whole sort", 3.3, Unit.RATIO, target=times).is_met is True
    assert Figure("whole sort", 3.2, Unit.RATIO, target=times).is_met is False
    assert Figure("largest", 0.21, Unit.SHARE, target=LARGEST_TARGET).is_met is False
    assert Figure("largest", 0.05, Unit.SHARE, target=LARGEST_TARGET).is_met is True
    assert Figure("model alone", 1.0, Unit.RATIO).is_met is None


def test_the_table_shows_each_figure_beside_its_target(machine: dict[str, Any]) -> None:
    ratio = figure_of("whole sort", [3.0, 2.9, 3.4], Unit.RATIO, Target(Goal.AT_LEAST, 3.3))
    stage = figure_of("decode", [2.0], Unit.MILLISECONDS, ratios=[99.0, 80.0, 100.0])
    share = Figure("largest cluster", 0.4, Unit.SHARE, target=LARGEST_TARGET)

    table = text_of(
        [Part("throughput", [ratio, stage]), Part("quality", [share], ["22 classes"])], machine
    )

    assert line_with("whole sort", table) == "whole sort 3.00 × 2.90 … 3.40 ≥ 3.30 not met"
    assert line_with("decode", table) == "decode 2.00 ms/image 99.00 ×"
    assert line_with("largest", table) == "largest cluster 40.0 % ≤ 20.0 not met"
    assert line_with("22 classes", table) == "22 classes"


def test_no_line_of_the_widest_table_is_cut_or_folded(machine: dict[str, Any]) -> None:
    lite = Subject("efficientnet_lite0", "openvino")
    contest = Contest(Kind.PHOTOS, PictureSet(Path(), 10, "made"))
    runs = [round_of(slow) for slow in (1e3, 1e4)]
    names = [
        *job_figures(contest, lite, runs),
        *stage_figures(10, runs),
        *ceiling.summarise(Subject(), model_alone_values()).figures,
        *refit.size_figures(1_000_000, REFIT_VALUES),
        *latency.summarise([2.1], [2.4], rest_s=45).figures,
        *burst_figures(Burst((3.0,) * 1000, 9.0, 0.97, None), 2.0),
    ]
    target, ratios = Target(Goal.AT_LEAST, 1.999), (9999.0,)
    wide = [
        Figure(f.name, value, f.unit, value, value + 0.01, target, ratios)
        for f in names
        for value in [1.41 if f.unit is Unit.SHARE else 1234.5]
    ]

    lines = text_of(
        [Part("throughput, " + Kind.PHOTOS + ", " + lite.name, wide)], machine
    ).splitlines()

    assert max(map(len, lines)) <= WIDTH
    assert any(line.endswith("how many times as long its script takes") for line in lines)
    assert not [line for line in lines if "…" in line.replace(" … ", "")]
    assert all(
        any(f.name in line and line.rstrip().endswith("met") for line in lines) for f in names
    )


def round_of(slow: float) -> Round:
    return Round(
        article_work_s=30.0 * slow,
        article_wall_s=40.0 * slow,
        sort_work_s=10.0 * slow,
        sort_wall_s=20.0 * slow,
        stages_ms={**dict.fromkeys(STAGE_TITLES, 100.0 * slow), "model": 1000.0 * slow, ASSIGN: 1},
    )


def model_alone_values() -> dict[str, Any]:
    return {
        "runs_on": "cpu fp32 winograd",
        "precision": "fp32",
        "threads": 2,
        "batch_images": 16,
        "gflop_per_image": 30.7,
        "article_s": [0.2, 0.4, 0.2],
        "imgsortd_s": [0.1, 0.2, 0.1],
        "products_gflop_s": [{"64x64x64": 90.0, "8x8x8": 1.0}, {"64x64x64": 100.0, "8x8x8": 2.0}],
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
    part = latency.summarise([2.1, 2.2, 2.3], [2.4], rest_s=45)

    options = plain(parse_options(["--images", "8"]))
    write_json(tmp_path / "bench.json", [part], machine, options)

    read = json.loads((tmp_path / "bench.json").read_text())
    assert set(read) == {"machine", "options", "parts"}
    assert {"cpu_model", "cores", "cpu_flags", "versions", "torch_build", "date"} <= set(
        read["machine"]
    )
    assert set(read["machine"]["cpu_flags"]) == {"avx2", "avx512", "avx512_bf16", "amx"}
    assert {"torch", "imgsortd"} <= set(read["machine"]["versions"])
    assert read["options"]["subjects"] == ["vgg16 on torch"]
    figure = read["parts"]["latency"]["figures"][0]
    assert figure["value"] == pytest.approx(2.2 - latency.SETTLE_S)
    assert figure["is_met"] is True
    assert read["parts"]["latency"]["raw"]["drop_to_folder_s"] == [2.1, 2.2, 2.3]


def test_percentiles_lie_between_measurements() -> None:
    figures = percentile_figures("burst", [float(number) for number in range(101)])

    assert [figure.name for figure in figures] == ["burst, p50", "burst, p95", "burst, p99"]
    assert [figure.value for figure in figures] == [50.0, 95.0, 99.0]
    assert (figures[0].low, figures[0].high) == (0.0, 100.0)
    assert percentile_figures("two", [1.0, 2.0])[1].value == pytest.approx(1.95)


def test_ratios_are_taken_round_by_round_so_that_a_slow_round_cancels_out() -> None:
    contest = Contest(Kind.PHOTOS, PictureSet(Path(), 10, "made"))
    rounds = [round_of(slow) for slow in (1, 5, 1.5)]

    work, wall, article_rate, sort_rate = job_figures(contest, Subject(), rounds)

    assert (work.value, work.low, work.high) == (3.0, 3.0, 3.0)
    assert wall.value == 2.0
    assert (article_rate.value, sort_rate.value) == (4500.0, 1500.0)  # ms an image
    assert sort_rate.ratios == (3.0, 3.0, 3.0)


def test_each_stage_is_compared_with_the_whole_of_the_article_in_the_same_round() -> None:
    in_sum, *rows = stage_figures(10, [round_of(1), round_of(2)])

    model = next(row for row in rows if row.name.strip() == "model")
    assert in_sum.low == 1000 + 100 * (len(STAGE_TITLES) - 1)
    assert model.ratios == (3.0, 3.0)


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
    assert whole_sort_target(subject, kind) == Target(Goal.AT_LEAST, times)


def test_nothing_was_promised_for_vgg16_on_openvino_without_int8() -> None:
    assert whole_sort_target(Subject(engine="openvino"), Kind.PHOTOS) is None


def test_the_model_stage_is_compared_with_the_bare_loop_of_the_same_round() -> None:
    values = {
        "runs_on": "vgg16 torch cpu fp32 direct",
        "batch_images": 16,
        "bare_images_per_s": [10.0, 5.0, 10.0],
        "sort_images_per_s": [9.0, 4.5, 8.0],
        "model_busy": [0.99, 0.97, 0.98],
    }

    share, bare, *_ = model_stage.summarise("model stage", values).figures

    assert (share.value, share.low, share.high) == (0.9, 0.8, 0.9)
    assert share.target == Target(Goal.AT_LEAST, 0.85)
    assert bare.value == 10.0


def test_the_roofline_divides_the_models_rate_by_the_best_product() -> None:
    part = ceiling.summarise(Subject(), model_alone_values())

    assert roofline.product_gflop((512, 4608, 784)) == pytest.approx(3.699, abs=1e-3)
    assert part.raw["roofline"] == {"achieved": 307.0, "best": 100.0, "shape": "64x64x64"}
    assert part.notes[1] == (
        "roofline: model 307.0 GFLOP/s ÷ best matrix product 100.0 GFLOP/s "
        "(fp32, 2 threads) = 307.0 %"
    )
    assert any("may exceed 100 %" in note for note in part.notes)


def test_without_a_number_of_operations_there_is_no_roofline() -> None:
    values = {**model_alone_values(), "gflop_per_image": None}

    part = ceiling.summarise(Subject("efficientnet_lite0"), values)

    assert [figure.unit for figure in part.figures].count(Unit.GFLOPS) == 0
    assert "does not tell its gflop_per_image" in part.notes[-1]


def test_operations_device_and_precision_are_the_extractors_own() -> None:
    class Small:
        gflop_per_image = 0.8

    assert roofline.gflop_per_image(Small(), "efficientnet_lite0") == 0.8
    assert roofline.gflop_per_image(object(), "vgg16") == roofline.VGG16_GFLOP
    assert roofline.gflop_per_image(object(), "efficientnet_lite0") is None
    assert roofline.arithmetic("cpu fp32 winograd") == ("cpu", "fp32")
    assert roofline.arithmetic("cuda fp16 direct") == ("cuda", "fp16")
    assert roofline.arithmetic("openvino int8") == ("cpu", "int8")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_products_are_computed_in_each_precision(precision: str) -> None:
    rates = roofline.Products("cpu", precision, [(64, 64, 64)]).rates()

    assert rates["64x64x64"] > 0


def test_only_what_is_not_the_default_is_asked_of_imgsortd() -> None:
    usual, other = Subject(), Subject("efficientnet_lite0", "openvino", "int8")

    assert usual.arguments == ["--weights", "auto"]
    assert usual.settings == {"weights": "auto"}
    assert other.arguments[2:6] == ["--backbone", "efficientnet_lite0", "--engine", "openvino"]
    assert set(other.settings) == {"weights", "backbone", "engine", "precision"}
    assert other.name == "efficientnet_lite0 on openvino int8"
    assert other.file_name == "efficientnet_lite0-openvino-int8"


def test_options_take_lists_with_commas_and_by_repetition(tmp_path: Path) -> None:
    given = ["--only", "refit,latency", "--only", "memory", "--refit-sizes", "1000,2000"]

    options = parse_options([*given, "--images", "10", "--photos", str(tmp_path)])

    assert options.sections == ["refit", "latency", "memory"]
    assert options.refit_sizes == [1000, 2000]
    assert options.burst == 10
    assert [subject.name for subject in options.subjects] == ["vgg16 on torch"]
    assert len(parse_options([]).sections) == 7
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
    said: list[str] = []

    ready = prepare.prepare(
        [Subject(engine="openvino", precision="int8")], tmp_path, pytest.fail, said.append
    )

    assert ready.subjects == []
    assert "made and checked on 384 photographs" in ready.parts[0].notes[0]
    assert ready.parts[0].notes[0].endswith("has 1")
    assert len(said) == 1


def test_an_int8_model_that_did_not_pass_is_shown_with_its_figures() -> None:
    part = Part("int8, vgg16 on openvino int8")
    check = {"agreement": 0.9, "min_cosine": 0.95, "n_images": 256, "passed": False, "engine": "x"}

    prepare.summarise(part, {"check": check, "made_s": 60.0})

    assert part.figures[0].is_met is False
    assert part.notes[-1].endswith("not measured")


def test_the_cache_of_the_benchmark_begins_with_a_copy_of_the_users_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, own, state = tmp_path / "user", tmp_path / "bench", tmp_path / "state"
    for folder in (users, state):
        folder.mkdir()
    (users / AUTO.cache_name).write_bytes(b"weights")
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(users))

    prepare.use_cache(own)
    (own / "calibration.json").write_text("{}")
    prepare.keep_in(state)

    assert os.environ["IMGSORTD_CACHE_DIR"] == str(own)
    assert (own / AUTO.cache_name).read_bytes() == b"weights"
    assert [path.name for path in state.iterdir()] == ["calibration.json"]
    assert [path.name for path in users.iterdir()] == [AUTO.cache_name]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--photos", "/no/such"], "--photos: expected an existing folder, got '/no/such'"),
        (["--weights", "/no.pth"], "--weights: expected an existing file, got '/no.pth'"),
        (["--backbone", "vgg19"], "expected vgg16, efficientnet_lite0, got 'vgg19'"),
        (
            ["--only", "speed"],
            "expected prepare, throughput, model, latency, memory, refit",
        ),
        (["--precision", "int8"], "torch cannot compute in int8; int8 needs --engine openvino"),
        (["--refit-sizes", "10k"], "expected whole numbers from 1000"),
        (["--images", "2"], "--images must be 8 or more"),
        (["--burst", "0"], "--burst must be 1 or more"),
    ],
)
def test_a_wrong_option_is_refused_with_what_was_expected(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)

    assert ended.value.code == 2
    assert text in capsys.readouterr().err


def test_the_first_event_splits_a_call_and_later_ones_do_not_count() -> None:
    halves = clocks.Halves()

    def work() -> str:
        halves.event()
        halves.event()
        return "done"

    assert halves.call(work) == "done"
    assert halves.before_s > 0
    assert halves.after_s > 0
    after_s = halves.after_s
    halves.call(lambda: None)  # no event: all of it is before
    assert halves.after_s == after_s


def test_a_decode_is_split_where_the_resize_begins(tmp_path: Path) -> None:
    data = paint(tmp_path / "red.jpg", RED, 0, size=300).read_bytes()
    halves = clocks.Halves()

    with clocks.at_first_resize(halves):
        pixels = halves.call(decode, data)

    assert np.array_equal(pixels, decode(data))
    assert halves.before_s > 0
    assert halves.after_s > 0


def test_a_bursts_latencies_are_in_the_order_of_the_drops() -> None:
    assert waits({"b": 1.0, "a": 1.5}, {"a": 3.5, "b": 2.0}) == (1.0, 2.0)


def test_a_bursts_rate_leaves_out_the_wait_for_files_to_settle() -> None:
    burst = Burst((3.0, 4.0, 7.0), whole_s=8.0, busy=None, logged_busy=0.9)

    figures = {figure.name: figure for figure in burst_figures(burst, settle_s=2.0)}

    assert figures["burst, rate"].value == 0.5
    assert figures["burst of 3, p50"].value == 2.0
    assert figures["burst, model busy"].value == 0.9
    assert figures["burst, model busy"].is_met is False


def test_a_busy_share_that_is_not_told_is_left_out() -> None:
    burst = Burst((3.0,), whole_s=3.0, busy=None, logged_busy=None)

    assert "burst, model busy" not in {figure.name for figure in burst_figures(burst, 2.0)}
    assert "does not tell the model's busy share" in burst.notes(2.0)[-1]


def test_the_logged_busy_share_is_averaged_over_pictures() -> None:
    log = (
        "INFO batch routed images=30 sorted=30 total_s=1.00 busy=1.00\n"
        "INFO batch routed images=10 sorted=10 total_s=1.00 busy=0.60\n"
    )

    assert busy_share(log) == pytest.approx(0.9)
    assert busy_share("INFO batch routed images=30 sorted=30 total_s=1.00") is None


def test_targets_of_refit_and_status_are_for_a_million() -> None:
    small = refit.size_figures(10_000, REFIT_VALUES)
    large = {figure.name.strip(): figure for figure in refit.size_figures(10**6, REFIT_VALUES)}

    assert all(figure.is_met is None for figure in small)
    assert large["peak memory"].is_met is True
    assert large["status"].is_met is True


def test_synthetic_features_are_unit_vectors_near_their_centers() -> None:
    centers = synthetic.make_centers()
    labels = np.arange(1000) % len(centers)

    features = synthetic.make_features(centers, labels, seed=1)

    assert features.shape == (1000, 512)
    assert features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.array_equal(nearest(features, centers)[0], labels)


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_a_synthetic_store_is_as_a_library_leaves_it_and_can_be_refitted(tmp_path: Path) -> None:
    config_file = write_config(tmp_path, clusters={"n_clusters": 10, "min_images": 10})
    processes.run_module("benchmarks.synthetic", config_file, "-n", "1000")

    before = read_status(config_file)
    values = processes.run_module("benchmarks.refit_alone", config_file).values

    assert before["counts"]["sorted"] == before["counts"]["seen"] == 1000
    assert sum(cluster["files"] for cluster in before["clusters"]) == 1000
    assert before["last_fit"]["n_clusters"] == synthetic.N_CENTERS
    assert before["open_moves"] == []
    assert (values["images"], values["n_clusters"]) == (1000, 10)
    assert values["peak_bytes"] >= values["before_bytes"] > 0
    assert read_status(config_file)["last_fit"]["trigger"] == "request"


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_every_stage_is_measured_and_leaves_the_pictures_where_they_are(
    tmp_path: Path, conv_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(tmp_path))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(tmp_path / "in" / f"{number}.png", colour, number)
    (tmp_path / "work").mkdir()
    arguments = (tmp_path / "in", tmp_path / "work", "--weights", conv_weights)

    values = processes.run_module("benchmarks.stages", *arguments).values

    assert values["images"] == 3
    assert set(values["ms_per_image"]) == {*STAGE_TITLES, ASSIGN}
    assert all(value > 0 for value in values["ms_per_image"].values())
    assert processes.count_sorted(tmp_path / "work" / "sorted") == 3
    assert len(picture_paths(tmp_path / "in")) == 3


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
def test_bare_loop_and_sort_are_timed_over_whole_batches_of_the_same_pictures(
    tmp_path: Path, conv_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGSORTD_CACHE_DIR", str(tmp_path))
    for number, colour in enumerate((RED, GREEN, BLUE)):
        paint(tmp_path / "in" / f"{number}.png", colour, number)
    arguments = (tmp_path / "in", tmp_path / "work", "-k", "2", "--rounds", "1")

    values = processes.run_module(
        "benchmarks.model_stage", *arguments, "--batches", "1", "--weights", conv_weights
    ).values

    assert values["images"] == values["batch_images"]
    assert values["bare_images_per_s"][0] > 0
    assert values["sort_images_per_s"][0] > 0
    assert len(picture_paths(tmp_path / "in")) == 3


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
    figures = quality_figures(["cat", "cat", "dog", "fox"], list("9904"), promised=True)

    values = {figure.name: figure.value for figure in figures}
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


@pytest.mark.faults  # nobody's pictures depend on it, and it takes long
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
