"""How many clusters: ``imgsortd suggest-k`` and ``clusters.n_clusters: auto``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from imgsortd.cli.app import app
from imgsortd.clusters.fit import compute_fit
from imgsortd.records import KRange
from support import ColourExtractor, make_config, make_library, source_of
from synthetic import fill, groups

runner = CliRunner()
DIMS, GROUPS, EACH = 16, 6, 25


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """Return the configuration of a library with six groups of twenty-five pictures."""
    config = make_config(tmp_path)
    extractor = ColourExtractor()
    extractor.id = replace(extractor.id, dims=DIMS)
    _, store = make_library(config, extractor)
    fill(store, extractor.id, groups(EACH, GROUPS, DIMS), range(EACH * GROUPS))
    store.close()
    file = tmp_path / "config.yaml"
    paths = {key: str(getattr(config, key)) for key in ("inbox", "target", "state_dir")}
    file.write_text(yaml.safe_dump(paths))
    return file


def test_the_number_of_groups_is_suggested_with_the_whole_curve(config_file: Path) -> None:
    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--range", "2-20"])

    assert result.exit_code == 0, result.output
    assert "6 clusters set the 150 pictures apart best" in result.output
    assert "now clusters.n_clusters is 30; set it to 6, or to auto" in result.output
    lines = [line for line in result.output.splitlines() if "← best" in line]
    assert [line.split()[0] for line in lines] == ["6"]
    assert len([line for line in result.output.splitlines() if "%" in line]) == 19


def test_the_curve_is_given_as_json_too(config_file: Path) -> None:
    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--json"])

    found = json.loads(result.output)
    assert (found["pick"], found["n_images"], found["n_sampled"]) == (6, 150, 150)
    assert [point["n_clusters"] for point in found["points"]][:3] == [4, 5, 6]
    assert found["points"][2]["largest_share"] == pytest.approx(1 / GROUPS)


def test_a_plot_is_a_png_file(config_file: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curve.png"

    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--plot", str(plot)])

    assert result.exit_code == 0, result.output
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_plot_is_refused_with_the_remedy(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--plot", "curve.png"])

    assert result.exit_code == 1
    assert "pip install matplotlib" in str(result.exception)


@pytest.mark.parametrize("text", ["20-2", "0-5", "5", "2-2000"])
def test_a_wrong_range_is_exit_code_2(config_file: Path, text: str) -> None:
    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--range", text])

    assert result.exit_code == 2
    assert "two whole numbers from 1 to 1000 such as 2-200" in result.output


def test_too_few_pictures_are_told(config_file: Path) -> None:
    result = runner.invoke(app, ["suggest-k", "-c", str(config_file), "--range", "60-90"])

    assert result.exit_code == 1
    assert "150 pictures have features, which is too few" in str(result.exception)


def test_a_fit_with_a_range_makes_the_number_that_is_suggested(
    tmp_path: Path, config_file: Path
) -> None:
    extractor = ColourExtractor()
    extractor.id = replace(extractor.id, dims=DIMS)
    library, store = make_library(make_config(tmp_path), extractor)

    fitted = compute_fit(source_of(library), KRange(2, 20), 42)

    assert len(fitted.fit.centers) == GROUPS
    store.close()
