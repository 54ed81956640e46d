"""Plots are drawn from what the benchmark wrote, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks import daemon, plots, refit
from benchmarks.figures import Part, write_json
from benchmarks.models import Subject
from benchmarks.pictures import Kind
from benchmarks.throughput import STAGE_TITLES, job_figures, stage_figures, target_of
from PIL import Image

MACHINE = {"cpu_model": "A Processor", "cores": 2, "date": "2026-01-31T10:00:00+01:00"}
SUBJECTS = {
    Subject(): 1.0,
    Subject(engine="openvino"): 1.4,
    Subject(engine="openvino", precision="int8"): 2.6,
    Subject("efficientnet_lite0"): 5.0,
    Subject("efficientnet_lite0", "openvino"): 6.5,
}
NAMES = [f"performance-{name}.png" for name in ("whole-job", "stages", "refit", "latency")]


def throughput_parts() -> list[Part]:
    parts = []
    for kind, reading_ms in ((Kind.PHOTOS, 3.0), (Kind.CAMERAS, 50.0)):
        for subject, speed in SUBJECTS.items():
            stages_ms = dict.fromkeys(STAGE_TITLES, 0.5)
            stages_ms |= {"decode": reading_ms, "model": 150 / speed}
            rounds: list[dict[str, dict[str, Any]]] = [
                {
                    "article": {"work_s": slow * 6.0, "wall_s": 9.0},
                    "sort": {
                        "total_s": slow * 1.6 / speed**0.9 * wobble,
                        "wall_s": 3.0,
                        "images_per_s": 6.0,
                        "model_busy": 0.97,
                    },
                    "stages": {"ms_per_image": stages_ms},
                }
                for slow, wobble in ((1.0, 1.0), (1.2, 1.1), (1.0, 0.93))
            ]
            figures = [*job_figures(10, rounds, target_of(subject, kind)), *stage_figures(rounds)]
            parts.append(Part(f"throughput, {kind}, {subject.name}", figures))
    return parts


def refit_part() -> Part:
    part = Part("refit")
    for images in (10_000, 100_000, 1_000_000):
        values: dict[str, Any] = {
            "algorithm": "KMeans",
            "refit_s": 2e-4 * images**0.9,
            "peak_bytes": 400_000_000 + 1000 * images,
            "fit_bytes": 1000 * images,
            "status_s": [0.2],
            "program_start_s": [0.1],
        }
        part.figures += refit.size_figures(images, values)
        part.raw[str(images)] = values
    return part


def latency_parts() -> list[Part]:
    parts = []
    for subject, speed in SUBJECTS.items():
        waits = tuple(2 + number * 0.2 / speed for number in range(60))
        part = Part(f"latency, {subject.name}")
        part.figures = daemon.latency_figures([2 + 0.3 / speed, 2 + 0.5 / speed], [2.4], rest_s=45)
        part.figures += daemon.burst_figures(waits, 0.97)
        parts.append(part)
    return parts


def write(path: Path, parts: list[Part]) -> Path:
    write_json(path, parts, MACHINE, {})
    return path


def test_every_plot_is_a_png_of_a_size_for_a_page(tmp_path: Path) -> None:
    jobs = write(tmp_path / "jobs.json", throughput_parts())
    rest = write(tmp_path / "rest.json", [refit_part(), *latency_parts()])

    plots.main([str(jobs), str(rest), "-o", str(tmp_path / "docs")])

    written = sorted((tmp_path / "docs").iterdir())
    assert [path.name for path in written] == sorted(NAMES)
    for path in written:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert image.width == 1200
            assert 400 < image.height < 1500
        assert 10_000 < path.stat().st_size <= 150_000


def test_what_was_not_measured_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = write(tmp_path / "bench.json", [refit_part()])

    plots.main([str(only), "-o", str(tmp_path)])

    assert [path.name for path in tmp_path.glob("*.png")] == ["performance-refit.png"]
    told = capsys.readouterr()
    assert "performance-whole-job.png left out: throughput was not measured" in told.err
    assert told.err.count("left out") == 3
    assert told.out == f"{tmp_path / 'performance-refit.png'}\n"


def test_a_later_file_takes_the_place_of_a_former(tmp_path: Path) -> None:
    slow, fast = refit_part(), refit_part()
    fast.raw["10000"]["refit_s"] = 0.5
    files = [write(tmp_path / "slow.json", [slow]), write(tmp_path / "fast.json", [fast])]

    def seconds(files: list[Path]) -> float:
        value: float = plots.read(files)["parts"]["refit"]["raw"]["10000"]["refit_s"]
        return value

    assert seconds(files) == 0.5
    assert seconds(files[::-1]) != 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"machine": MACHINE, "parts": {}}), "refit or latency, found none"),
        (
            json.dumps({"machine": MACHINE, "parts": {"quality, x": {}}}),
            "refit or latency, found none",
        ),
        ("{}", "bench.json: expected a file that python -m benchmarks --json wrote"),
        ("no JSON", "bench.json: expected a file that python -m benchmarks --json wrote"),
    ],
)
def test_a_file_without_anything_to_draw_is_refused(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text)

    with pytest.raises(SystemExit, match=expected):
        plots.main([str(file), "-o", str(tmp_path)])
